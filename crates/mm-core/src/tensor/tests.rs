//! Tests of tensor operations.

use super::*;
use crate::{DType, Device};

#[test]
fn single_threaded_stack_matches_stack() {
    let rows: Vec<Tensor> = (0..3).map(|_| Tensor::randn(&[4, 5], DType::F32, Device::Cpu).unwrap()).collect();
    let integers = [Tensor::from_slice(&[1i64, 2]).unwrap(), Tensor::from_slice(&[3i64, 4]).unwrap()];
    let transposed: Vec<Tensor> = rows.iter().map(|t| t.transpose(0, 1).unwrap()).collect();
    for tensors in
        [rows.iter().collect::<Vec<_>>(), integers.iter().collect(), transposed.iter().collect(), vec![&rows[0]]]
    {
        let (single, parallel) =
            (Tensor::stack_single_threaded(&tensors).unwrap(), Tensor::stack(&tensors, 0).unwrap());
        assert_eq!((single.shape(), single.dtype().unwrap()), (parallel.shape(), parallel.dtype().unwrap()));
        assert_eq!(single.to_vec::<f64>().unwrap(), parallel.to_vec::<f64>().unwrap());
    }
    assert!(
        Tensor::stack_single_threaded(&[]).is_err()
            && Tensor::stack_single_threaded(&[&rows[0], &integers[0]]).is_err()
    );
}

#[test]
fn dropout_keeps_the_mean_and_is_a_function_of_the_seed() {
    let x = Tensor::ones(&[1000, 999], DType::F32, Device::Cpu).unwrap().set_requires_grad(true).unwrap();
    let dropped = |rate: f64| x.mul(&nn::dropout_mask(&[1000, 999], rate, 9).unwrap()).unwrap();
    for rate in [0.1, 0.5, 0.93] {
        let y = dropped(rate);
        let zeros = y.to_vec::<f64>().unwrap().iter().filter(|v| **v == 0.0).count() as f64 / 999_000.0;
        // Four standard deviations of the mean.
        assert!((zeros - rate).abs() < 4.0 * (rate * (1.0 - rate) / 999_000.0).sqrt() + 1e-5, "{zeros}");
        assert!((y.max().unwrap().to_f64().unwrap() * (1.0 - rate) - 1.0).abs() < 1e-3);
        assert_eq!(dropped(rate).to_vec::<f32>().unwrap(), y.to_vec::<f32>().unwrap());
        x.zero_grad();
        y.sum().unwrap().backward().unwrap();
        assert_eq!(x.grad().unwrap().to_vec::<f32>().unwrap(), y.to_vec::<f32>().unwrap());
    }
    // Adjacent columns are uncorrelated.
    let y = dropped(0.5).detach().unwrap().add_scalar(-1.0).unwrap();
    let correlation = y.narrow(1, 0, 998).unwrap().mul(&y.narrow(1, 1, 998).unwrap()).unwrap().mean().unwrap();
    assert!(correlation.to_f64().unwrap().abs() < 0.004);
    let other = x.dropout(0.5, true).unwrap().to_vec::<f32>().unwrap();
    assert!(other != x.dropout(0.5, true).unwrap().to_vec::<f32>().unwrap() && other.contains(&2.0));
    assert_eq!(x.dropout(0.5, false).unwrap().to_vec::<f32>().unwrap(), x.to_vec::<f32>().unwrap());
    assert!(x.dropout(-0.1, true).is_err() && x.dropout(1.5, true).is_err());
}

#[test]
fn leaky_relu_and_its_gradient() {
    let x = Tensor::from_slice(&[-2f32, -0.5, 0.0, 3.0]).unwrap().set_requires_grad(true).unwrap();
    let y = x.leaky_relu(0.2).unwrap();
    let values = y.to_vec::<f32>().unwrap();
    assert!(values.iter().zip([-0.4f32, -0.1, 0.0, 3.0]).all(|(a, b)| (a - b).abs() < 1e-6), "{values:?}");
    y.pow(2.0).unwrap().sum().unwrap().backward().unwrap();
    let gradients = x.grad().unwrap().to_vec::<f32>().unwrap();
    assert!(gradients.iter().zip([-0.16f32, -0.04, 0.0, 6.0]).all(|(a, b)| (a - b).abs() < 1e-6), "{gradients:?}");
}

#[test]
fn errors_name_the_operation_and_its_operands() {
    let a = Tensor::zeros(&[2, 3], DType::F32, Device::Cpu).unwrap();
    let b = Tensor::zeros(&[4, 5], DType::F32, Device::Cpu).unwrap();
    let text = a.matmul(&b).unwrap_err().to_string();
    assert!(text.starts_with("matmul: found [2, 3] f32 on cpu and [4, 5] f32 on cpu: "), "{text}");
    assert!(!text.contains("Exception raised"), "{text}");
    assert!(a.reshape(&[7]).is_err() && a.narrow(0, 1, 9).is_err() && a.select(3, 0).is_err() && a.size(5).is_err());
    assert!(a.embedding(&a).is_err() && a.backward().is_err() && Tensor::cat::<[Tensor; 0]>([], 0).is_err());
    assert!(a.to_f64().is_err() && Tensor::from_vec(&[1f32], &[2]).is_err() && a.topk(9).is_err());
    assert!(Tensor::zeros(&[-1], DType::F32, Device::Cpu).is_err());
    let mask = Tensor::from_slice(&[true; 7]).unwrap();
    assert!(a.masked_fill(&mask, 0.0).is_err());
    let half = a.to_dtype(DType::BF16).unwrap();
    assert!(half.masked_fill(&Tensor::from_slice(&[true; 3]).unwrap(), 1e300).is_err());
}

#[test]
fn svd_multiplies_back() {
    let a = Tensor::from_vec(&[3f32, 1.0, -2.0, 0.5, 4.0, 1.5], &[3, 2]).unwrap();
    let (u, s, vt) = a.svd().unwrap();
    let back = u.mul(&s).unwrap().matmul(&vt).unwrap();
    assert!(back.sub(&a).unwrap().abs().unwrap().max().unwrap().to_f64().unwrap() < 1e-5);
}

#[test]
fn gradients_flow_through_operators() {
    let x = Tensor::from_slice(&[1f32, 2.0, 3.0]).unwrap().set_requires_grad(true).unwrap();
    let y = (&(&x * &x).unwrap() * 2.0).unwrap().sum().unwrap();
    y.backward().unwrap();
    assert_eq!(x.grad().unwrap().to_vec::<f32>().unwrap(), [4.0, 8.0, 12.0]);
    assert!((&x / 2.0).unwrap().to_vec::<f32>().unwrap() == [0.5, 1.0, 1.5]);
}

#[test]
fn scaled_gradients_leave_the_values() {
    for scale in [0.25, 3.0, -0.5] {
        let x = Tensor::from_slice(&[1f32, -0.1, 1e-7]).unwrap().set_requires_grad(true).unwrap();
        let y = x.scale_gradient(scale).unwrap();
        assert_eq!(y.to_vec::<f32>().unwrap(), x.to_vec::<f32>().unwrap());
        y.sum().unwrap().backward().unwrap();
        assert_eq!(x.grad().unwrap().to_vec::<f32>().unwrap(), [scale as f32; 3]);
    }
}
