//! One step of Adam in one pass over the values in the CPU's memory. The step is bound by memory bandwidth, and
//! separate libtorch operators move three to five times as much data.

use crate::{DType, Device, Result, Tensor};
use rayon::prelude::*;

/// Hyper-parameters of one step of Adam or, with weight decay, `AdamW`.
///
/// *Adam: A Method for Stochastic Optimization* (Kingma & Ba, 2015), <https://arxiv.org/abs/1412.6980>; *Decoupled
/// Weight Decay Regularization* (Loshchilov & Hutter, 2019), <https://arxiv.org/abs/1711.05101>.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamStep {
    /// Learning rate.
    pub lr: f64,
    /// Decay rate of the mean of gradients.
    pub beta1: f64,
    /// Decay rate of the mean of squared gradients.
    pub beta2: f64,
    /// Added to the root of the mean of squares for numerical stability.
    pub eps: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Factor of the gradients (clipping).
    pub grad_scale: f64,
    /// Number of the step, from one.
    pub step: u64,
}

impl AdamStep {
    /// The paper's defaults.
    pub fn new(lr: f64, step: u64) -> Self {
        Self { lr, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0, grad_scale: 1.0, step }
    }
}

/// Number of values per task; smaller tensors are not worth a second thread.
const CHUNK: usize = 1 << 15;

impl Tensor {
    /// In place, without recording gradients: one step of these weights against `gradient`, with the running means of
    /// gradients `exp_avg` and of squared gradients `exp_avg_sq`, all of one shape. The means start as zeros.
    ///
    /// # Errors
    /// If shapes, dtypes or devices do not fit together.
    pub fn adam_(&self, gradient: &Tensor, exp_avg: &Tensor, exp_avg_sq: &Tensor, step: &AdamStep) -> Result<()> {
        let c = step;
        let power = i32::try_from(c.step).unwrap_or(i32::MAX);
        let (bias1, bias2) = (1.0 - c.beta1.powi(power), 1.0 - c.beta2.powi(power));
        let all = [self, gradient, exp_avg, exp_avg_sq];
        let plain = all.iter().all(|t| {
            t.shape() == self.shape()
                && matches!(t.dtype(), Ok(DType::F32))
                && t.device() == Device::Cpu
                && t.0.is_contiguous()
        });
        // Tensors that share memory go through the operators, which support aliasing.
        let begin = |t: &Tensor| t.0.data_ptr() as usize;
        let bytes = 4 * self.0.numel();
        let disjoint =
            all.iter().enumerate().all(|(n, a)| all[n + 1..].iter().all(|b| begin(a).abs_diff(begin(b)) >= bytes));
        if !(plain && disjoint) {
            let gradient = gradient.detach()?.mul_scalar(c.grad_scale)?;
            self.mul_scalar_(1.0 - c.lr * c.weight_decay)?;
            exp_avg.scale_add_(c.beta1, &gradient, 1.0 - c.beta1)?;
            exp_avg_sq.mul_scalar_(c.beta2)?;
            exp_avg_sq.addcmul_(&gradient, &gradient, 1.0 - c.beta2)?;
            let root = exp_avg_sq.sqrt()?.mul_scalar(1.0 / bias2.sqrt())?.add_scalar(c.eps)?;
            return self.addcdiv_(exp_avg, &root, -c.lr / bias1);
        }
        let to_f32 = |x: f64| x as f32;
        let (beta1, beta2, scale) = (to_f32(c.beta1), to_f32(c.beta2), to_f32(c.grad_scale));
        let (rest1, rest2) = (to_f32(1.0 - c.beta1), to_f32(1.0 - c.beta2));
        let (root, epsilon) = (to_f32(1.0 / bias2.sqrt()), to_f32(c.eps));
        let (decay, lr) = (to_f32(1.0 - c.lr * c.weight_decay), to_f32(c.lr / bias1));
        let one = |w: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32]| {
            for (((w, g), m), v) in w.iter_mut().zip(g).zip(m).zip(v) {
                let g = g * scale;
                *m = beta1 * *m + rest1 * g;
                *v = beta2 * *v + rest2 * g * g;
                *w = *w * decay - lr * *m / (v.sqrt() * root + epsilon);
            }
        };
        let count = self.0.numel();
        // SAFETY: four contiguous float32 tensors of this many values in the CPU's memory, which outlive the borrows
        // and do not overlap. Other tensors may share their memory, but stay in this thread, which is busy here.
        let (w, g, m, v) = unsafe {
            let new = |t: &Tensor| std::slice::from_raw_parts_mut(t.0.data_ptr().cast::<f32>(), count);
            (new(self), &*new(gradient), new(exp_avg), new(exp_avg_sq))
        };
        if count <= CHUNK {
            one(w, g, m, v);
        } else {
            let parts = w.par_chunks_mut(CHUNK).zip(g.par_chunks(CHUNK));
            let means = m.par_chunks_mut(CHUNK).zip(v.par_chunks_mut(CHUNK));
            parts.zip(means).for_each(|((w, g), (m, v))| one(w, g, m, v));
        }
        [self, exp_avg, exp_avg_sq].into_iter().try_for_each(Tensor::bump_version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_counts_as_a_change_in_place() {
        use crate::{Module, nn::Linear, no_grad};
        // A layer that was evaluated keeps its weight in oneDNN's layout until the weight changes.
        let weight = Tensor::ones(&[8, 8], DType::F32, Device::Cpu).unwrap().set_requires_grad(true).unwrap();
        let layer = Linear::from_parts(weight.clone(), None);
        let x = Tensor::ones(&[128, 8], DType::F32, Device::Cpu).unwrap();
        let output = || no_grad(|| layer.forward(&x, false)).unwrap().max().unwrap().to_f64().unwrap();
        assert_eq!(output(), 8.0);
        let (gradient, mean) =
            (weight.ones_like().unwrap().detach().unwrap(), || weight.detach().unwrap().zeros_like());
        let version = weight.version().unwrap();
        weight.adam_(&gradient, &mean().unwrap(), &mean().unwrap(), &AdamStep::new(0.5, 1)).unwrap();
        assert!(weight.version().unwrap() > version);
        assert!((output() - 4.0).abs() < 1e-4, "{}", output());
    }

    /// The optimizer's test in mm-train compares with PyTorch.
    #[test]
    fn one_pass_matches_separate_operators() {
        crate::seed::manual_seed(3);
        let wide = i64::try_from(CHUNK).unwrap();
        let random = |rows: i64| Tensor::randn(&[rows, wide], DType::F32, Device::Cpu).unwrap();
        for rows in [1, 3] {
            // Of the magnitude of weights: with larger values, float32 rounding in four steps comes near the bound.
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
            // Sharing memory between the means is not Adam, but must give what the operators compute.
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
