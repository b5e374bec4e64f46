//! Frozen weights of four bits a number: NF4 (Dettmers 2023, "QLoRA"), sixteen levels at equal shares of a normal distribution, scaled by the
//! largest magnitude of each sixty-four. 0.56 bytes a number in the place of four.

use crate::{DType, Device, Error, Result, Tensor, tensor::one};
use rayon::prelude::*;
use std::{
    ffi::{CStr, c_char},
    ptr::null_mut,
};
use torch_sys::C_tensor;

/// Numbers that share a scale; `four_bit.cpp` counts on it.
const BLOCK: usize = 64;

/// The levels, as bitsandbytes has them.
const LEVELS: [f32; 16] = [
    -1.0,
    -0.696_192_8,
    -0.525_073_05,
    -0.394_917_5,
    -0.284_441_38,
    -0.184_773_43,
    -0.091_050_036,
    0.0,
    0.079_580_3,
    0.160_930_2,
    0.246_112_3,
    0.337_915_24,
    0.440_709_83,
    0.562_617,
    0.722_956_84,
    1.0,
];

unsafe extern "C" {
    fn mm_four_bit_linear(
        x: *const C_tensor,
        halves: *const C_tensor,
        scales: *const C_tensor,
        levels: *const C_tensor,
        rows: i64,
        columns: i64,
        error: *mut *mut c_char,
    ) -> *mut C_tensor;
    fn mm_four_bit_free(error: *mut c_char);
}

/// A matrix `[rows, columns]` in four bits a number.
#[derive(Debug)]
pub(crate) struct FourBit {
    /// Two numbers a byte, the first in the upper half.
    halves: Tensor,
    /// One a block.
    scales: Tensor,
    levels: Tensor,
    rows: i64,
    columns: i64,
}

impl FourBit {
    /// The nearest levels to each number of a matrix.
    pub(crate) fn of(weight: &Tensor) -> Result<Self> {
        let (rows, columns, device) = (weight.size(0)?, weight.size(1)?, weight.device());
        let mut numbers: Vec<f32> = weight.to_dtype(DType::F32)?.to_device(Device::Cpu)?.reshape(&[-1])?.to_vec()?;
        if let Some(bad) = numbers.iter().position(|n| !n.is_finite()) {
            let found = format!("{} at place {bad}", numbers[bad]);
            return Err(Error::config("a weight that is to be quantised", found, "finite numbers"));
        }
        numbers.resize(numbers.len().next_multiple_of(BLOCK), 0.0);
        let scale = |block: &[f32]| block.iter().fold(0f32, |most, n| most.max(n.abs()));
        let scales: Vec<f32> = numbers.par_chunks(BLOCK).map(scale).collect();
        let bounds: Vec<f32> = LEVELS.windows(2).map(|w| f32::midpoint(w[0], w[1])).collect();
        let level = |n: f32, by: f32| bounds.iter().filter(|b| n * by > **b).count() as u8;
        let halves: Vec<u8> = numbers
            .par_chunks(BLOCK)
            .zip(&scales)
            .flat_map_iter(|(block, scale)| {
                let by = if *scale > 0.0 { 1.0 / scale } else { 0.0 };
                block.chunks_exact(2).map(move |pair| level(pair[0], by) << 4 | level(pair[1], by))
            })
            .collect();
        let place = |t: Result<Tensor>| t?.to_device(device);
        Ok(Self {
            halves: place(Tensor::from_slice(&halves))?,
            scales: place(Tensor::from_slice(&scales))?,
            levels: place(Tensor::from_slice(&LEVELS))?,
            rows,
            columns,
        })
    }

    /// `x · weightᵀ`, whose way back unpacks the weight once more instead of keeping it.
    pub(crate) fn linear(&self, x: &Tensor) -> Result<Tensor> {
        if x.size(-1)? != self.columns {
            return Err(Error::shape("linear", &x.shape(), format!("[…, {}]", self.columns)));
        }
        let [halves, scales, levels] = [&self.halves, &self.scales, &self.levels].map(|t| t.0.as_ptr());
        let mut error = null_mut();
        // SAFETY: the pointers are of tensors that live through the call; what comes back is a tensor of its own, or a text that was made for
        // this call and is freed here.
        let result = unsafe {
            let (x, error) = (x.0.as_ptr(), &raw mut error);
            let tensor = mm_four_bit_linear(x, halves, scales, levels, self.rows, self.columns, error);
            if (*error).is_null() {
                Ok(tch::Tensor::from_ptr(tensor))
            } else {
                let text = CStr::from_ptr(*error).to_string_lossy().into_owned();
                mm_four_bit_free(*error);
                Err(tch::TchError::Torch(text))
            }
        };
        one("linear with four-bit weights", &[x], result)
    }
}

#[cfg(test)]
mod tests {
    use super::{FourBit, LEVELS};
    use crate::{DType, Device, Result, Tensor, seed::manual_seed};

    impl FourBit {
        /// The matrix: its product with the unit matrix.
        fn unpack(&self) -> Result<Tensor> {
            let mut unit = vec![0f32; (self.columns * self.columns) as usize];
            unit.iter_mut().step_by(self.columns as usize + 1).for_each(|n| *n = 1.0);
            self.linear(&Tensor::from_vec(&unit, &[self.columns, self.columns])?)?.transpose(0, 1)?.contiguous()
        }
    }

    #[test]
    fn numbers_become_the_nearest_of_sixteen_levels_of_their_block() {
        // Five columns: blocks go over the ends of rows, the last is filled up.
        let numbers: Vec<f32> = (0..65).map(|n| LEVELS[n % 16] * if n < 64 { 3.0 } else { 0.5 } + 0.01).collect();
        let weight = Tensor::from_vec(&numbers, &[13, 5]).unwrap();
        let back: Vec<f32> = FourBit::of(&weight).unwrap().unpack().unwrap().reshape(&[-1]).unwrap().to_vec().unwrap();
        for (n, found) in back.iter().enumerate() {
            let wanted = if n < 64 { LEVELS[n % 16] * 3.01 } else { -0.49 };
            assert!((found - wanted).abs() < 1e-5, "{n}: {found} instead of {wanted}");
        }
        assert!(FourBit::of(&Tensor::from_vec(&[1f32, f32::NAN], &[1, 2]).unwrap()).is_err());
        let zeros = FourBit::of(&Tensor::zeros(&[4, 4], DType::F32, Device::Cpu).unwrap()).unwrap();
        assert_eq!(zeros.unpack().unwrap().abs().unwrap().max().unwrap().to_f64().unwrap(), 0.0);
    }

    /// `xtask/parity/four_bit.py` made the fixture.
    #[test]
    fn numbers_are_packed_as_bitsandbytes_packs_them() {
        let text = include_str!("fixtures/nf4.json");
        let known: std::collections::BTreeMap<String, Vec<f64>> = serde_json::from_str(text).unwrap();
        let numbers = |key: &str| known[key].iter().map(|v| *v as f32).collect::<Vec<_>>();
        let shape = [known["shape"][0] as i64, known["shape"][1] as i64];
        let packed = FourBit::of(&Tensor::from_vec(&numbers("weight"), &shape).unwrap()).unwrap();
        assert_eq!(packed.scales.to_vec::<f32>().unwrap(), numbers("scales"));
        // The last block is not full: what fills it up is mm's own.
        let bytes = packed.halves.to_vec::<u8>().unwrap();
        let theirs: Vec<u8> = known["halves"].iter().map(|b| *b as u8).collect();
        let whole = (shape[0] * shape[1]) as usize / 2;
        assert_eq!(bytes[..whole], theirs[..whole]);
        let back: Vec<f32> = packed.unpack().unwrap().reshape(&[-1]).unwrap().to_vec().unwrap();
        assert!(back.iter().zip(numbers("unpacked")).all(|(a, b)| (a - b).abs() < 1e-6 * b.abs().max(1.0)));
    }

    #[test]
    fn a_product_and_its_way_back_are_those_of_the_unpacked_weight() {
        manual_seed(3);
        let random = |shape: &[i64]| Tensor::randn(shape, DType::F32, Device::Cpu).unwrap();
        let packed = FourBit::of(&random(&[7, 37])).unwrap();
        let unpacked = packed.unpack().unwrap();
        let (x, direction) = (random(&[2, 3, 37]).set_requires_grad(true).unwrap(), random(&[2, 3, 7]));
        let gradient = |y: &Tensor| {
            let y = y.mul(&direction).unwrap().sum().unwrap();
            y.autograd_grad(&[&x]).unwrap().remove(0)
        };
        let (ours, plain) = (packed.linear(&x).unwrap(), x.linear(&unpacked, None).unwrap());
        let off = |a: &Tensor, b: &Tensor| a.sub(b).unwrap().abs().unwrap().max().unwrap().to_f64().unwrap();
        assert!(off(&ours, &plain) < 1e-6);
        assert!(off(&gradient(&ours), &gradient(&plain)) < 1e-6);
        assert!(packed.linear(&random(&[2, 36])).is_err());
    }
}
