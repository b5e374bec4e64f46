//! Gradients, and changes in place that are not recorded.

use super::{Tensor, torch_error, wrap};
use crate::Result;
use tch::TchError;

impl Tensor {
    /// Gradients of this scalar with respect to `inputs`, which can be differentiated again (gradient penalties).
    pub fn autograd_grad(&self, inputs: &[&Tensor]) -> Result<Vec<Self>> {
        let raw: Vec<&tch::Tensor> = inputs.iter().map(|t| &t.0).collect();
        match tch::Tensor::f_run_backward(&[&self.0], &raw, true, true) {
            Ok(gradients) => Ok(gradients.into_iter().map(Self::from_tch).collect()),
            Err(error) => Err(torch_error("autograd_grad", &[self], &error)),
        }
    }

    /// The same values, whose gradient is multiplied by `scale` in the backward pass.
    pub fn scale_gradient(&self, scale: f64) -> Result<Self> {
        let constant = self.detach()?;
        // The difference is exactly zero, so finite values stay bit for bit.
        constant.add(&self.sub(&constant)?.mul_scalar(scale)?)
    }

    /// Overwrites the values with those of `source`, in place and without recording gradients.
    pub fn copy_(&self, source: &Tensor) -> Result<()> {
        let run = || {
            let _guard = tch::no_grad_guard();
            self.0.shallow_clone().f_copy_(&source.0)
        };
        run().map_err(|error| torch_error("copy_", &[self, source], &error))
    }

    /// In place, without recording gradients: `self = self · scale`.
    pub fn mul_scalar_(&self, scale: f64) -> Result<()> {
        self.in_place("scale_", &[self], |x| x.f_mul_scalar_(scale))
    }

    /// In place, without recording gradients: `self = self · scale + other · weight`.
    pub fn scale_add_(&self, scale: f64, other: &Tensor, weight: f64) -> Result<()> {
        self.in_place("scale_add_", &[self, other], |x| {
            // A moving average takes one pass.
            if (scale + weight - 1.0).abs() < 1e-15 && x.kind() == other.0.kind() {
                return x.f_lerp_(&other.0, weight);
            }
            let mut x = if (scale - 1.0).abs() > f64::EPSILON { x.f_mul_scalar_(scale)? } else { x.shallow_clone() };
            x.f_add_(&other.0.f_mul_scalar(weight)?)
        })
    }

    /// In place, without recording gradients: `self = self + weight · a · b`.
    pub fn addcmul_(&self, a: &Tensor, b: &Tensor, weight: f64) -> Result<()> {
        self.in_place("addcmul_", &[self, a, b], |x| x.f_add_(&a.0.f_mul(&b.0)?.f_mul_scalar_(weight)?))
    }

    /// In place, without recording gradients: `self = self + weight · a / b`.
    pub fn addcdiv_(&self, a: &Tensor, b: &Tensor, weight: f64) -> Result<()> {
        self.in_place("addcdiv_", &[self, a, b], |x| x.f_add_(&a.0.f_div(&b.0)?.f_mul_scalar_(weight)?))
    }

    fn in_place(
        &self,
        op: &'static str,
        inputs: &[&Tensor],
        body: impl FnOnce(&mut tch::Tensor) -> Result<tch::Tensor, TchError>,
    ) -> Result<()> {
        let _guard = tch::no_grad_guard();
        body(&mut self.0.shallow_clone()).map(drop).map_err(|error| torch_error(op, inputs, &error))
    }

    /// Zeroes the gradient, if there is one.
    pub fn zero_grad(&self) {
        self.0.shallow_clone().zero_grad();
    }

    /// Sets whether gradients with respect to this tensor are recorded, in place, and returns it.
    pub fn set_requires_grad(&self, requires_grad: bool) -> Result<Self> {
        wrap("set_requires_grad", &[self], self.0.f_set_requires_grad(requires_grad))
    }

    /// Whether operations on this tensor are recorded for [`Tensor::backward`].
    pub fn requires_grad(&self) -> bool {
        self.0.requires_grad()
    }

    /// How often the values were changed in place.
    pub(crate) fn version(&self) -> Result<i64> {
        self.0.f_internal_version().map_err(|error| torch_error("version", &[self], &error))
    }

    /// Counts a change in place that was made through a pointer: a swap of a dimension with itself changes nothing
    /// else.
    pub(crate) fn bump_version(&self) -> Result<()> {
        self.in_place("bump_version", &[self], |x| x.f_transpose_(0, 0))
    }

    /// The gradient accumulated by [`Tensor::backward`], if any.
    pub fn grad(&self) -> Option<Self> {
        self.0.f_grad().ok().filter(tch::Tensor::defined).map(Self::from_tch)
    }

    /// Computes the gradients of this scalar with respect to all tensors that require them.
    ///
    /// # Errors
    /// If the tensor has more than one element or was not recorded.
    pub fn backward(&self) -> Result<()> {
        self.0.f_backward().map_err(|error| torch_error("backward", &[self], &error))
    }
}
