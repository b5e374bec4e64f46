//! Differentiable augmentation of real and generated images.

use mm_core::{DType, Device, Result, Tensor};

/// One random augmentation that is applied to a whole batch: translation by up to an eighth, brightness by up to ±0.25,
/// and cutout of half the height and width. *Differentiable Augmentation for Data-Efficient GAN Training*
/// ([Zhao et al., 2020](https://arxiv.org/abs/2006.10738)), with one sample per batch.
pub(super) struct DiffAugment {
    /// Rows and columns.
    translation: [i64; 2],
    brightness: f64,
    /// Top left corner.
    cutout: [i64; 2],
}

impl DiffAugment {
    /// Samples an augmentation of images `[rows, channels, height, width]`.
    pub(super) fn sample(shape: &[i64]) -> Result<Self> {
        let random = Tensor::rand(&[5], DType::F64, Device::Cpu)?.to_vec::<f64>()?;
        let (height, width) = (shape[2], shape[3]);
        let symmetric = |r: f64, max: i64| ((r * 2.0 - 1.0) * max as f64).round() as i64;
        Ok(Self {
            translation: [symmetric(random[0], height / 8), symmetric(random[1], width / 8)],
            brightness: (random[2] - 0.5) * 0.5,
            cutout: [(random[3] * (height / 2 + 1) as f64) as i64, (random[4] * (width / 2 + 1) as f64) as i64],
        })
    }

    pub(super) fn apply(&self, x: &Tensor) -> Result<Tensor> {
        let (height, width) = (x.size(2)?, x.size(3)?);
        let [dy, dx] = self.translation;
        let (pad_y, pad_x) = (dy.abs(), dx.abs());
        let translated =
            x.pad(&[pad_x, pad_x, pad_y, pad_y], 1.0)?.narrow(2, pad_y - dy, height)?.narrow(3, pad_x - dx, width)?;
        let rows = Tensor::arange(0, height, x.device())?.unsqueeze(1)?;
        let columns = Tensor::arange(0, width, x.device())?.unsqueeze(0)?;
        let within = |positions: &Tensor, start: i64, length: i64| -> Result<Tensor> {
            let before_end = positions.gt_scalar((start + length) as f64 - 0.5)?.logical_not()?;
            positions.gt_scalar(start as f64 - 0.5)?.logical_and(&before_end)
        };
        let cutout_rows = within(&rows, self.cutout[0], height / 2)?;
        let cutout = cutout_rows.logical_and(&within(&columns, self.cutout[1], width / 2)?)?;
        translated.add_scalar(self.brightness)?.masked_fill(&cutout, 0.5)
    }
}
