//! `+`, `-`, `*` and `/` between tensors, references to tensors, numbers (`f64`, `i64`) and results of earlier
//! operators. Each gives a `Result`, so that a chain needs one `?` at its end: `(&a * &b + &c)?`.
//!
//! Rust's rules for foreign types leave two gaps: a result with a result, and a result with a number. Write
//! `(&a + &b)? * 2.0` there.

use super::{Tensor, wrap};
use crate::{DType, Error, Result};
use std::ops::{Add, Div, Mul, Neg, Sub};

impl AsRef<Tensor> for Tensor {
    fn as_ref(&self) -> &Tensor {
        self
    }
}

/// Numbers on either side of an operator. An integer leaves the type of a tensor of integers as it is.
trait Number: Copy {
    fn added_to(self, tensor: &Tensor) -> Result<Tensor>;
    fn times(self, tensor: &Tensor) -> Result<Tensor>;
    fn negated(self) -> Self;
    fn to_f64(self) -> f64;
}

impl Number for f64 {
    fn added_to(self, tensor: &Tensor) -> Result<Tensor> {
        tensor.add_scalar(self)
    }
    fn times(self, tensor: &Tensor) -> Result<Tensor> {
        tensor.mul_scalar(self)
    }
    fn negated(self) -> Self {
        -self
    }
    fn to_f64(self) -> f64 {
        self
    }
}

impl Number for i64 {
    fn added_to(self, tensor: &Tensor) -> Result<Tensor> {
        wrap("add_scalar", &[tensor], tensor.0.f_add_scalar(self))
    }
    fn times(self, tensor: &Tensor) -> Result<Tensor> {
        wrap("mul_scalar", &[tensor], tensor.0.f_mul_scalar(self))
    }
    fn negated(self) -> Self {
        self.wrapping_neg()
    }
    fn to_f64(self) -> f64 {
        self as f64
    }
}

fn add_number(tensor: &Tensor, number: impl Number) -> Result<Tensor> {
    number.added_to(tensor)
}

fn sub_number(tensor: &Tensor, number: impl Number) -> Result<Tensor> {
    number.negated().added_to(tensor)
}

fn mul_number(tensor: &Tensor, number: impl Number) -> Result<Tensor> {
    number.times(tensor)
}

fn div_number(tensor: &Tensor, number: impl Number) -> Result<Tensor> {
    tensor.mul_scalar(1.0 / number.to_f64())
}

fn sub_from_number(tensor: &Tensor, number: impl Number) -> Result<Tensor> {
    number.added_to(&tensor.neg()?)
}

/// `number / tensor`; float32 for a tensor of integers, as PyTorch.
fn div_from_number(tensor: &Tensor, number: impl Number) -> Result<Tensor> {
    let dtype = match tensor.dtype()? {
        float @ (DType::F16 | DType::BF16 | DType::F32 | DType::F64) => float,
        _ => DType::F32,
    };
    Tensor::full(&[], number.to_f64(), dtype, tensor.device())?.div(tensor)
}

/// One operator in every combination of operands.
macro_rules! operators {
    ($($trait:ident $method:ident, $with_number:ident, $from_number:ident;)*) => {$(
        operators! { @tensors $trait $method, [&Tensor] [&Tensor] }
        operators! { @tensors $trait $method, [&Tensor] [Tensor] }
        operators! { @tensors $trait $method, [Tensor] [&Tensor] }
        operators! { @tensors $trait $method, [Tensor] [Tensor] }
        operators! { @results $trait $method, [&Tensor] }
        operators! { @results $trait $method, [Tensor] }
        operators! { @numbers $trait $method, $with_number, $from_number, [&Tensor] f64 }
        operators! { @numbers $trait $method, $with_number, $from_number, [&Tensor] i64 }
        operators! { @numbers $trait $method, $with_number, $from_number, [Tensor] f64 }
        operators! { @numbers $trait $method, $with_number, $from_number, [Tensor] i64 }
    )*};
    (@tensors $trait:ident $method:ident, [$($left:tt)*] [$($right:tt)*]) => {
        impl $trait<$($right)*> for $($left)* {
            type Output = Result<Tensor>;
            fn $method(self, other: $($right)*) -> Result<Tensor> {
                Tensor::$method(self.as_ref(), other.as_ref())
            }
        }
    };
    (@results $trait:ident $method:ident, [$($tensor:tt)*]) => {
        impl<T: AsRef<Tensor>> $trait<Result<T, Error>> for $($tensor)* {
            type Output = Result<Tensor>;
            fn $method(self, other: Result<T, Error>) -> Result<Tensor> {
                Tensor::$method(self.as_ref(), other?.as_ref())
            }
        }
        impl $trait<$($tensor)*> for Result<Tensor, Error> {
            type Output = Result<Tensor>;
            fn $method(self, other: $($tensor)*) -> Result<Tensor> {
                Tensor::$method(&self?, other.as_ref())
            }
        }
    };
    (@numbers $trait:ident $method:ident, $with_number:ident, $from_number:ident, [$($tensor:tt)*] $number:ty) => {
        impl $trait<$number> for $($tensor)* {
            type Output = Result<Tensor>;
            fn $method(self, number: $number) -> Result<Tensor> {
                $with_number(self.as_ref(), number)
            }
        }
        impl $trait<$($tensor)*> for $number {
            type Output = Result<Tensor>;
            fn $method(self, tensor: $($tensor)*) -> Result<Tensor> {
                $from_number(tensor.as_ref(), self)
            }
        }
    };
}

operators! {
    Add add, add_number, add_number;
    Sub sub, sub_number, sub_from_number;
    Mul mul, mul_number, mul_number;
    Div div, div_number, div_from_number;
}

impl Neg for &Tensor {
    type Output = Result<Tensor>;
    fn neg(self) -> Result<Tensor> {
        Tensor::neg(self)
    }
}

impl Neg for Tensor {
    type Output = Result<Tensor>;
    fn neg(self) -> Result<Tensor> {
        Tensor::neg(&self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Device;

    fn tensor(values: [f32; 2]) -> Tensor {
        Tensor::new(values, Device::Cpu).unwrap()
    }

    fn values(result: Result<Tensor>) -> Vec<f64> {
        result.unwrap().to_vec().unwrap()
    }

    #[test]
    fn tensors_by_value_and_by_reference() {
        let (a, b) = (tensor([6.0, 8.0]), tensor([2.0, 4.0]));
        assert_eq!(values(&a + &b), [8.0, 12.0]);
        assert_eq!(values(a.clone() - &b), [4.0, 4.0]);
        assert_eq!(values(&a * b.clone()), [12.0, 32.0]);
        assert_eq!(values(a.clone() / b.clone()), [3.0, 2.0]);
        assert_eq!((values(-&a), values(-a)), (vec![-6.0, -8.0], vec![-6.0, -8.0]));
    }

    #[test]
    fn numbers_on_either_side() {
        let a = tensor([2.0, 4.0]);
        assert_eq!((values(&a + 1.0), values(1.0 + &a)), (vec![3.0, 5.0], vec![3.0, 5.0]));
        assert_eq!((values(&a - 1.0), values(1.0 - &a)), (vec![1.0, 3.0], vec![-1.0, -3.0]));
        assert_eq!((values(&a * 2), values(2 * a.clone())), (vec![4.0, 8.0], vec![4.0, 8.0]));
        assert_eq!((values(a.clone() / 2.0), values(8.0 / &a)), (vec![1.0, 2.0], vec![4.0, 2.0]));
        assert_eq!((values(5 - &a), values(&a - 5)), (vec![3.0, 1.0], vec![-3.0, -1.0]));
    }

    #[test]
    fn integers_stay_integers_except_in_quotients() {
        let a = Tensor::new([2i64, 4], Device::Cpu).unwrap();
        for result in [&a + 1, 1 - &a, &a * 3] {
            assert_eq!(result.unwrap().dtype().unwrap(), DType::I64);
        }
        for quotient in [&a / 2, 8 / &a, &a / 2.0] {
            assert_eq!(quotient.unwrap().dtype().unwrap(), DType::F32);
        }
        let double = a.to_dtype(DType::F64).unwrap().sum().unwrap();
        assert_eq!((1.0 / &double).unwrap().dtype().unwrap(), DType::F64);
        let single = a.to_dtype(DType::F32).unwrap().sum().unwrap();
        assert_eq!((1.0 / &single).unwrap().dtype().unwrap(), DType::F32);
    }

    #[test]
    fn results_are_chained_and_the_first_error_is_kept() {
        let (a, b) = (tensor([1.0, 2.0]), tensor([3.0, 4.0]));
        assert_eq!(values(&a * &b + &a), [4.0, 10.0]);
        assert_eq!(values(&a - 2.0 * &b), [-5.0, -6.0]);
        assert_eq!(values(a.matmul(&b) / &a), [11.0, 5.5]);
        assert_eq!(values(b.clone() / (1.0 + &a) - a.clone()), [0.5, 4.0 / 3.0 - 2.0].map(|v: f32| f64::from(v)));
        let wide = Tensor::new([1f32, 2.0, 3.0], Device::Cpu).unwrap();
        let error = (&a * &wide + &b).unwrap_err().to_string();
        assert!(error.starts_with("mul: found [2] f32 on cpu and [3] f32 on cpu"), "{error}");
        assert!((&b / (&a - &wide)).unwrap_err().to_string().starts_with("sub: "));
    }
}
