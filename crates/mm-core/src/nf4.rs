//! Frozen weights in four bits per value (NF4): sixteen quantiles of a normal distribution, scaled by the largest
//! magnitude in each block of 64 values; 0.56 bytes per value instead of four.
//!
//! *QLoRA: Efficient Finetuning of Quantized LLMs* (Dettmers et al., 2023), <https://arxiv.org/abs/2305.14314>.

use crate::{DType, Device, Error, Result, Tensor, tensor::wrap};
use rayon::prelude::*;
use std::{
    ffi::{CStr, c_char},
    ptr::null_mut,
};
use tch::TchError;
use torch_sys::C_tensor;

/// Values that share a scale; the same constant is in `shim.cpp`.
const BLOCK: usize = 64;

/// The quantiles, as in bitsandbytes.
const CODEBOOK: [f32; 16] = [
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
    fn mm_nf4_linear(
        x: *const C_tensor,
        packed: *const C_tensor,
        scales: *const C_tensor,
        codebook: *const C_tensor,
        rows: i64,
        columns: i64,
        error: *mut *mut c_char,
    ) -> *mut C_tensor;
    fn mm_free_error(error: *mut c_char);
}

/// The result of a function of `shim.cpp`: a new tensor, or the text of an exception.
///
/// # Safety
/// The tensor must be owned by the caller, or `error` be a text that the shim allocated.
unsafe fn owned(tensor: *mut C_tensor, error: *mut c_char) -> Result<tch::Tensor, TchError> {
    if error.is_null() {
        // SAFETY: guaranteed by the caller.
        return Ok(unsafe { tch::Tensor::from_ptr(tensor) });
    }
    // SAFETY: a text that ends in zero, which is freed once.
    let text = unsafe { CStr::from_ptr(error) }.to_string_lossy().into_owned();
    unsafe { mm_free_error(error) };
    Err(TchError::Torch(text))
}

/// A matrix `[rows, columns]` in four bits per value.
#[derive(Debug)]
pub(crate) struct Nf4 {
    /// Two values per byte, the first in the upper four bits.
    packed: Tensor,
    /// One per block.
    scales: Tensor,
    codebook: Tensor,
    rows: i64,
    columns: i64,
}

impl Nf4 {
    /// Quantizes a matrix: each value to the nearest entry of the codebook.
    ///
    /// # Errors
    /// If a value is not finite.
    pub(crate) fn quantize(weight: &Tensor) -> Result<Self> {
        let (rows, columns, device) = (weight.size(0)?, weight.size(1)?, weight.device());
        let mut values: Vec<f32> = weight.to_dtype(DType::F32)?.to_device(Device::Cpu)?.reshape(&[-1])?.to_vec()?;
        if let Some(bad) = values.iter().position(|n| !n.is_finite()) {
            let found = format!("{} at index {bad}", values[bad]);
            return Err(Error::config("weight to be quantized", found, "finite values"));
        }
        values.resize(values.len().next_multiple_of(BLOCK), 0.0);
        let scale = |block: &[f32]| block.iter().fold(0f32, |most, n| most.max(n.abs()));
        let scales: Vec<f32> = values.par_chunks(BLOCK).map(scale).collect();
        let bounds: Vec<f32> = CODEBOOK.windows(2).map(|w| f32::midpoint(w[0], w[1])).collect();
        let level = |n: f32, by: f32| bounds.iter().filter(|b| n * by > **b).count() as u8;
        let packed: Vec<u8> = values
            .par_chunks(BLOCK)
            .zip(&scales)
            .flat_map_iter(|(block, scale)| {
                let by = if *scale > 0.0 { 1.0 / scale } else { 0.0 };
                block.chunks_exact(2).map(move |pair| level(pair[0], by) << 4 | level(pair[1], by))
            })
            .collect();
        let move_to = |t: Result<Tensor>| t?.to_device(device);
        Ok(Self {
            packed: move_to(Tensor::from_slice(&packed))?,
            scales: move_to(Tensor::from_slice(&scales))?,
            codebook: move_to(Tensor::from_slice(&CODEBOOK))?,
            rows,
            columns,
        })
    }

    /// `x · weightᵀ`; the backward pass unpacks the weight again instead of keeping it in memory.
    pub(crate) fn linear(&self, x: &Tensor) -> Result<Tensor> {
        if x.size(-1)? != self.columns {
            return Err(Error::shape("linear", &x.shape(), format!("[…, {}]", self.columns)));
        }
        let [packed, scales, codebook] = [&self.packed, &self.scales, &self.codebook].map(|t| t.0.as_ptr());
        let mut error = null_mut();
        // SAFETY: the pointers are those of tensors that outlive the call; the result is a new tensor, or an error text
        // that is freed here.
        let result = unsafe {
            let x = x.0.as_ptr();
            let tensor = mm_nf4_linear(x, packed, scales, codebook, self.rows, self.columns, &raw mut error);
            owned(tensor, error)
        };
        wrap("nf4_linear", &[x], result)
    }
}

#[cfg(test)]
mod tests {
    use super::{CODEBOOK, Nf4};
    use crate::{DType, Device, Result, Tensor, seed::manual_seed};

    impl Nf4 {
        /// The matrix, by its product with the identity.
        fn unpack(&self) -> Result<Tensor> {
            let mut unit = vec![0f32; (self.columns * self.columns) as usize];
            unit.iter_mut().step_by(self.columns as usize + 1).for_each(|n| *n = 1.0);
            self.linear(&Tensor::from_vec(&unit, &[self.columns, self.columns])?)?.transpose(0, 1)?.contiguous()
        }
    }

    #[test]
    fn values_become_the_nearest_codebook_entry_of_their_block() {
        // Five columns: blocks cross the ends of rows, and the last one is padded.
        let values: Vec<f32> = (0..65).map(|n| CODEBOOK[n % 16] * if n < 64 { 3.0 } else { 0.5 } + 0.01).collect();
        let weight = Tensor::from_vec(&values, &[13, 5]).unwrap();
        let back: Vec<f32> =
            Nf4::quantize(&weight).unwrap().unpack().unwrap().reshape(&[-1]).unwrap().to_vec().unwrap();
        for (n, found) in back.iter().enumerate() {
            let wanted = if n < 64 { CODEBOOK[n % 16] * 3.01 } else { -0.49 };
            assert!((found - wanted).abs() < 1e-5, "{n}: {found} instead of {wanted}");
        }
        assert!(Nf4::quantize(&Tensor::from_vec(&[1f32, f32::NAN], &[1, 2]).unwrap()).is_err());
        let zeros = Nf4::quantize(&Tensor::zeros(&[4, 4], DType::F32, Device::Cpu).unwrap()).unwrap();
        assert_eq!(zeros.unpack().unwrap().abs().unwrap().max().unwrap().to_f64().unwrap(), 0.0);
    }

    /// The fixture was generated by `xtask/parity/four_bit.py`.
    #[test]
    fn packing_matches_bitsandbytes() {
        let text = include_str!("fixtures/nf4.json");
        let known: std::collections::BTreeMap<String, Vec<f64>> = serde_json::from_str(text).unwrap();
        let values = |key: &str| known[key].iter().map(|v| *v as f32).collect::<Vec<_>>();
        let shape = [known["shape"][0] as i64, known["shape"][1] as i64];
        let packed = Nf4::quantize(&Tensor::from_vec(&values("weight"), &shape).unwrap()).unwrap();
        assert_eq!(packed.scales.to_vec::<f32>().unwrap(), values("scales"));
        // The last block is padded; the padding is mm's own.
        let bytes = packed.packed.to_vec::<u8>().unwrap();
        let theirs: Vec<u8> = known["halves"].iter().map(|b| *b as u8).collect();
        let whole = (shape[0] * shape[1]) as usize / 2;
        assert_eq!(bytes[..whole], theirs[..whole]);
        let back: Vec<f32> = packed.unpack().unwrap().reshape(&[-1]).unwrap().to_vec().unwrap();
        assert!(back.iter().zip(values("unpacked")).all(|(a, b)| (a - b).abs() < 1e-6 * b.abs().max(1.0)));
    }

    #[test]
    fn product_and_gradient_match_the_unpacked_weight() {
        manual_seed(3);
        let random = |shape: &[i64]| Tensor::randn(shape, DType::F32, Device::Cpu).unwrap();
        let packed = Nf4::quantize(&random(&[7, 37])).unwrap();
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
