//! One step of Adam, in one pass over the numbers where they lie in the processor's memory: the step is bound by memory, and libtorch's
//! operators one after another move three to five times as much of it.

use crate::{DType, Device, Result, Tensor};
use rayon::prelude::*;

/// Numbers of one step of Adam (Kingma 2015) or, with a decay, `AdamW` (Loshchilov 2019).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamStep {
    /// Learning rate.
    pub lr: f64,
    /// Decay of the mean of gradients.
    pub beta1: f64,
    /// Decay of the mean of squares.
    pub beta2: f64,
    /// Added to the root of the mean of squares.
    pub eps: f64,
    /// Pull towards zero, beside the gradient.
    pub weight_decay: f64,
    /// What gradients are multiplied by first (clipping).
    pub grad_scale: f64,
    /// Which step this is, from one.
    pub step: u64,
}

impl AdamStep {
    /// The paper's numbers.
    pub fn new(lr: f64, step: u64) -> Self {
        Self { lr, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0, grad_scale: 1.0, step }
    }
}

/// Numbers that one task takes at a time; tensors of fewer are not worth a second thread.
const CHUNK: usize = 1 << 15;

impl Tensor {
    /// In place, outside the graph of gradients: moves these weights against `gradient`, with the means of gradients `first` and of
    /// their squares `second`, all of one shape. The means begin as zeros.
    pub fn adam_(&self, gradient: &Tensor, first: &Tensor, second: &Tensor, step: &AdamStep) -> Result<()> {
        let c = step;
        let power = i32::try_from(c.step).unwrap_or(i32::MAX);
        let (bias1, bias2) = (1.0 - c.beta1.powi(power), 1.0 - c.beta2.powi(power));
        let all = [self, gradient, first, second];
        let plain = all.iter().all(|t| {
            t.shape() == self.shape()
                && matches!(t.dtype(), Ok(DType::F32))
                && t.device() == Device::Cpu
                && t.0.is_contiguous()
        });
        // Whoever gives one memory twice is served by operators that may alias.
        let begin = |t: &Tensor| t.0.data_ptr() as usize;
        let bytes = 4 * self.0.numel();
        let apart =
            all.iter().enumerate().all(|(n, a)| all[n + 1..].iter().all(|b| begin(a).abs_diff(begin(b)) >= bytes));
        if !(plain && apart) {
            let gradient = gradient.detach()?.mul_scalar(c.grad_scale)?;
            self.mul_scalar_(1.0 - c.lr * c.weight_decay)?;
            first.scale_add_(c.beta1, &gradient, 1.0 - c.beta1)?;
            second.mul_scalar_(c.beta2)?;
            second.addcmul_(&gradient, &gradient, 1.0 - c.beta2)?;
            let root = second.sqrt()?.mul_scalar(1.0 / bias2.sqrt())?.add_scalar(c.eps)?;
            return self.addcdiv_(first, &root, -c.lr / bias1);
        }
        let narrow = |x: f64| x as f32;
        let (beta1, beta2, scale) = (narrow(c.beta1), narrow(c.beta2), narrow(c.grad_scale));
        let (rest1, rest2) = (narrow(1.0 - c.beta1), narrow(1.0 - c.beta2));
        let (root, epsilon) = (narrow(1.0 / bias2.sqrt()), narrow(c.eps));
        let (keep, rate) = (narrow(1.0 - c.lr * c.weight_decay), narrow(c.lr / bias1));
        let one = |w: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32]| {
            for (((w, g), m), v) in w.iter_mut().zip(g).zip(m).zip(v) {
                let g = g * scale;
                *m = beta1 * *m + rest1 * g;
                *v = beta2 * *v + rest2 * g * g;
                *w = *w * keep - rate * *m / (v.sqrt() * root + epsilon);
            }
        };
        let count = self.0.numel();
        // SAFETY: four tensors of so many float32 numbers one after another in the processor's memory, alive as long as their borrows and
        // apart from each other; nothing else reads or writes weights and means while an optimiser steps.
        let (w, g, m, v) = unsafe {
            let new = |t: &Tensor| std::slice::from_raw_parts_mut(t.0.data_ptr().cast::<f32>(), count);
            (new(self), &*new(gradient), new(first), new(second))
        };
        if count <= CHUNK {
            one(w, g, m, v);
        } else {
            let parts = w.par_chunks_mut(CHUNK).zip(g.par_chunks(CHUNK));
            let means = m.par_chunks_mut(CHUNK).zip(v.par_chunks_mut(CHUNK));
            parts.zip(means).for_each(|((w, g), (m, v))| one(w, g, m, v));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In one pass as by one operator after another, which the optimiser's test holds to PyTorch.
    #[test]
    fn one_pass_is_the_same_step() {
        crate::seed::manual_seed(3);
        let wide = i64::try_from(CHUNK).unwrap();
        let random = |rows: i64| Tensor::randn(&[rows, wide], DType::F32, Device::Cpu).unwrap();
        for rows in [1, 3] {
            // Of the size that weights are: at one to five, rounding to float32 at each of four steps comes near the bound.
            let start = random(rows).mul_scalar(0.2).unwrap();
            let (fast, slow) = (start.copy().unwrap(), start.to_dtype(DType::F64).unwrap());
            let zeros = |t: &Tensor| t.zeros_like().unwrap();
            let means = [zeros(&fast), zeros(&fast), zeros(&slow), zeros(&slow)];
            for number in 1..=4 {
                let step = AdamStep { weight_decay: 0.1, grad_scale: 0.5, ..AdamStep::new(0.01, number) };
                let gradient = random(rows);
                fast.adam_(&gradient, &means[0], &means[1], &step).unwrap();
                slow.adam_(&gradient.to_dtype(DType::F64).unwrap(), &means[2], &means[3], &step).unwrap();
            }
            let off = fast.to_dtype(DType::F64).unwrap().sub(&slow).unwrap().abs().unwrap().max().unwrap();
            assert!(off.to_f64().unwrap() < 1e-6);
            // One memory for both means is Adam no more, but what the operators make of it one after another.
            let (twice, slow) = (start.copy().unwrap(), start.to_dtype(DType::F64).unwrap());
            let (one, other) = (zeros(&twice), zeros(&slow));
            let (gradient, step) = (random(rows).abs().unwrap(), AdamStep::new(0.01, 1));
            twice.adam_(&gradient, &one, &one, &step).unwrap();
            slow.adam_(&gradient.to_dtype(DType::F64).unwrap(), &other, &other, &step).unwrap();
            let off = twice.to_dtype(DType::F64).unwrap().sub(&slow).unwrap().abs().unwrap().max().unwrap();
            assert!(off.to_f64().unwrap() < 1e-5);
            let moved = fast.sub(&start).unwrap().abs().unwrap().max().unwrap().to_f64().unwrap();
            assert!(moved > 0.02, "{moved}");
        }
    }
}
