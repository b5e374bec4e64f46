//! Data augmentation: random changes of training samples that preserve their labels.

use crate::{
    Result,
    transform::{Interpolation, resize},
};
use image::{RgbImage, imageops};
use mm_core::{Tensor, seed::Rng};
use serde::{Deserialize, Serialize};

/// Augmentation of spectrograms: random masks over frequencies and times, and random changes of speed, pitch and noise.
///
/// [*SpecAugment: A Simple Data Augmentation Method for Automatic Speech
/// Recognition*](https://arxiv.org/abs/1904.08779) (Park et al., 2019).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SpecAugment {
    /// Number of frequency masks.
    pub num_freq_masks: usize,
    /// Largest width of a frequency mask, in mel bands.
    pub freq_mask_width: usize,
    /// Number of time masks.
    pub num_time_masks: usize,
    /// Largest width of a time mask, in frames; never more than a third of the recording.
    pub time_mask_width: usize,
    /// Largest change of speed, as a fraction of the duration.
    pub max_time_stretch: f64,
    /// Largest shift along the frequencies, in mel bands.
    pub max_pitch_shift: usize,
    /// Standard deviation of added noise, in the unit of the spectrogram.
    pub noise_std: f64,
}

impl Default for SpecAugment {
    fn default() -> Self {
        Self {
            num_freq_masks: 1,
            freq_mask_width: 8,
            num_time_masks: 1,
            time_mask_width: 40,
            max_time_stretch: 0.0,
            max_pitch_shift: 0,
            noise_std: 0.0,
        }
    }
}

impl SpecAugment {
    /// Augments a spectrogram in place; `values` are `frames × n_mels`, row by row. Speed and pitch change first, then
    /// noise is added, then the masks are filled with the mean.
    pub fn apply(&self, values: &mut Vec<f32>, n_mels: usize, rng: &mut Rng) {
        if values.is_empty() || n_mels == 0 {
            return;
        }
        let speed = 1.0 + rng.uniform_range(-1.0, 1.0) * self.max_time_stretch.clamp(0.0, 0.9);
        let pitch = rng.uniform_range(-1.0, 1.0) * self.max_pitch_shift as f64;
        if self.max_time_stretch > 0.0 || self.max_pitch_shift > 0 {
            *values = warp(values, n_mels, speed, pitch);
        }
        if self.noise_std > 0.0 {
            // The sum of three uniform variables, shifted and doubled, is close to a standard normal one.
            values.iter_mut().for_each(|v| {
                *v += ((rng.uniform() + rng.uniform() + rng.uniform() - 1.5) * 2.0 * self.noise_std) as f32
            });
        }
        let frames = values.len() / n_mels;
        let mean = values.iter().sum::<f32>() / values.len() as f32;
        for _ in 0..self.num_freq_masks {
            let width = rng.below(self.freq_mask_width.min(n_mels) + 1);
            let start = rng.below(n_mels - width + 1);
            for frame in values.chunks_exact_mut(n_mels) {
                frame[start..start + width].fill(mean);
            }
        }
        for _ in 0..self.num_time_masks {
            let width = rng.below(self.time_mask_width.min(frames / 3) + 1);
            let start = rng.below(frames - width + 1);
            values[start * n_mels..(start + width) * n_mels].fill(mean);
        }
    }
}

/// The spectrogram at `speed` times the speed and `pitch` bands higher, by bilinear interpolation.
fn warp(values: &[f32], n_mels: usize, speed: f64, pitch: f64) -> Vec<f32> {
    let frames = values.len() / n_mels;
    let out_frames = ((frames as f64 / speed).round() as usize).max(1);
    // The two nearest indices of a position and the weight of the second.
    let neighbors = |position: f64, count: usize| {
        let position = position.clamp(0.0, (count - 1) as f64);
        let low = position as usize;
        (low, (low + 1).min(count - 1), (position - low as f64) as f32)
    };
    let bands: Vec<_> = (0..n_mels).map(|b| neighbors(b as f64 - pitch, n_mels)).collect();
    let mut out = Vec::with_capacity(out_frames * n_mels);
    for frame in 0..out_frames {
        let (a, b, t) = neighbors(frame as f64 * speed, frames);
        let (first, second) = (&values[a * n_mels..(a + 1) * n_mels], &values[b * n_mels..(b + 1) * n_mels]);
        out.extend(bands.iter().map(|(low, high, weight)| {
            let at = |row: &[f32]| row[*low] * (1.0 - weight) + row[*high] * weight;
            at(first) * (1.0 - t) + at(second) * t
        }));
    }
    out
}

/// A random crop with an area of `scale` (from, to) of the image's and an aspect ratio between 3:4 and 4:3, resized to
/// `size` (height, width); the full image, resized, where ten attempts find no crop that fits.
///
/// [*Going Deeper with Convolutions*](https://arxiv.org/abs/1409.4842) (Szegedy et al., 2015); torchvision's
/// `RandomResizedCrop`.
pub fn random_resized_crop(
    image: &RgbImage,
    (out_height, out_width): (u32, u32),
    scale: (f64, f64),
    interpolation: Interpolation,
    rng: &mut Rng,
) -> Result<RgbImage> {
    let area = f64::from(image.width()) * f64::from(image.height());
    for _ in 0..10 {
        let crop_area = area * rng.uniform_range(scale.0, scale.1);
        let ratio = rng.uniform_range((0.75f64).ln(), (4.0f64 / 3.0).ln()).exp();
        let (width, height) = ((crop_area * ratio).sqrt().round() as u32, (crop_area / ratio).sqrt().round() as u32);
        if width > 0 && height > 0 && width <= image.width() && height <= image.height() {
            let x = rng.below((image.width() - width + 1) as usize) as u32;
            let y = rng.below((image.height() - height + 1) as usize) as u32;
            let crop = imageops::crop_imm(image, x, y, width, height).to_image();
            return resize(&crop, out_height, out_width, interpolation);
        }
    }
    resize(image, out_height, out_width, interpolation)
}

/// The image flipped horizontally with probability one half.
pub fn random_flip(image: RgbImage, rng: &mut Rng) -> RgbImage {
    if rng.uniform() < 0.5 { imageops::flip_horizontal(&image) } else { image }
}

/// Replaces a random rectangle of each image with that of another image of the batch. `values` are pixels `[batch,
/// channels, height, width]`. Returns the mixed images, the permutation of the batch that the rectangles come from, and
/// the fraction of each image that stays.
///
/// [*CutMix*](https://arxiv.org/abs/1905.04899) (Yun et al., 2019).
pub fn cutmix(values: &Tensor, alpha: f64, rng: &mut Rng) -> Result<(Tensor, Vec<i64>, f64)> {
    let shape = values.shape();
    if shape.len() != 4 {
        return Err(mm_core::Error::shape("cutmix", &shape, "[batch, channels, height, width]").into());
    }
    let (batch, height, width) = (shape[0], shape[2], shape[3]);
    let mut permutation: Vec<i64> = (0..batch).collect();
    rng.shuffle(&mut permutation);
    let edge = (1.0 - sample_beta(alpha, rng)).sqrt();
    let (h, w) = ((height as f64 * edge) as i64, (width as f64 * edge) as i64);
    let (top, left) = (rng.below((height - h + 1) as usize) as i64, rng.below((width - w + 1) as usize) as i64);
    let mut keep = vec![1f32; (height * width) as usize];
    for y in top..top + h {
        keep[(y * width + left) as usize..(y * width + left + w) as usize].fill(0.0);
    }
    let keep = Tensor::from_vec(&keep, &[1, 1, height, width])?.to_device(values.device())?;
    let other = values.index_select(0, &Tensor::from_slice(&permutation)?.to_device(values.device())?)?;
    let mixed = values.mul(&keep)?.add(&other.mul(&keep.mul_scalar(-1.0)?.add_scalar(1.0)?)?)?;
    Ok((mixed, permutation, 1.0 - (h * w) as f64 / (height * width).max(1) as f64))
}

/// A sample of Beta(alpha, alpha); 1 when `alpha` is not above 0.
///
/// By Jöhnk's method up to 1, whose attempts succeed more rarely the larger `alpha` is, and from two gamma variables
/// above.
pub fn sample_beta(alpha: f64, rng: &mut Rng) -> f64 {
    if alpha.is_nan() || alpha <= 0.0 {
        return 1.0;
    }
    if alpha > 1.0 {
        let (x, y) = (sample_gamma(alpha, rng), sample_gamma(alpha, rng));
        return x / (x + y);
    }
    loop {
        let (u, v) = (rng.uniform(), rng.uniform());
        let (x, y) = (u.powf(1.0 / alpha), v.powf(1.0 / alpha));
        if x + y > 1.0 {
            continue;
        }
        if x + y > 0.0 {
            return x / (x + y);
        }
        // Both powers of a small `alpha` are zero: their logarithms are not.
        let (log_x, log_y) = (u.ln() / alpha, v.ln() / alpha);
        if log_x.is_finite() || log_y.is_finite() {
            let max = log_x.max(log_y);
            return (log_x - max - ((log_x - max).exp() + (log_y - max).exp()).ln()).exp();
        }
    }
}

/// A sample of Gamma(shape, 1) for a shape of at least 1.
///
/// [*A Simple Method for Generating Gamma Variables*](https://dl.acm.org/doi/10.1145/358407.358414) (Marsaglia and
/// Tsang, 2000).
fn sample_gamma(shape: f64, rng: &mut Rng) -> f64 {
    // Larger shapes differ from their mean by less than a float can say.
    let d = shape.min(1e15) - 1.0 / 3.0;
    let c = 1.0 / (9.0 * d).sqrt();
    loop {
        // A normal variable by the Box–Muller method.
        let radius = (-2.0 * (1.0 - rng.uniform()).ln()).sqrt();
        let x = radius * (std::f64::consts::TAU * rng.uniform()).cos();
        let v = (1.0 + c * x).powi(3);
        if v > 0.0 && (1.0 - rng.uniform()).ln() < 0.5 * x * x + d * (1.0 - v + v.ln()) {
            return d * v;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::Rgb;

    #[test]
    fn augmentations_depend_on_their_seed_and_keep_sizes() {
        let image = RgbImage::from_fn(31, 17, |x, y| Rgb([(x * 8) as u8, (y * 15) as u8, ((x * y) % 256) as u8]));
        for seed in 0..40 {
            let crop = |seed| {
                let rng = &mut Rng::new(&[seed]);
                random_resized_crop(&image, (12, 9), (0.2, 1.0), Interpolation::Bilinear, rng).unwrap()
            };
            assert_eq!(crop(seed), crop(seed));
            assert_eq!(crop(seed).dimensions(), (9, 12));
        }
        let mut values: Vec<f32> = (0..200).map(|v| v as f32).collect();
        let spec = SpecAugment {
            num_freq_masks: 2,
            freq_mask_width: 3,
            num_time_masks: 2,
            time_mask_width: 9,
            ..SpecAugment::default()
        };
        spec.apply(&mut values, 10, &mut Rng::new(&[3]));
        let masked = values.iter().filter(|v| (**v - 99.5).abs() < 1e-3).count();
        assert!(masked > 0 && masked < 200);
        assert_eq!(warp(&[1.0, 10.0, 3.0, 30.0], 2, 1.0, 0.0), [1.0, 10.0, 3.0, 30.0]);
        assert_eq!(warp(&[1.0, 10.0, 3.0, 30.0], 2, 0.5, 0.0), [1.0, 10.0, 2.0, 20.0, 3.0, 30.0, 3.0, 30.0]);
        assert_eq!(warp(&[1.0, 10.0], 2, 1.0, 1.0), [1.0, 1.0]);
    }

    #[test]
    fn beta_samples_have_their_distributions_moments_and_take_little_time() {
        for alpha in [1e-3, 0.1, 0.4, 1.0, 2.0, 16.0, 1e3, 1e6] {
            let rng = &mut Rng::new(&[4]);
            let samples: Vec<f64> = (0..20_000).map(|_| sample_beta(alpha, rng)).collect();
            let mean = samples.iter().sum::<f64>() / 2e4;
            let variance = samples.iter().map(|s| (s - 0.5).powi(2)).sum::<f64>() / 2e4;
            let expected = 1.0 / (4.0 * (2.0 * alpha + 1.0));
            assert!((mean - 0.5).abs() < 4.0 * (expected / 2e4).sqrt(), "{alpha}: {mean}");
            assert!((variance / expected - 1.0).abs() < 0.05, "{alpha}: {variance}, {expected}");
            assert!(samples.iter().all(|s| (0.0..=1.0).contains(s)), "{alpha}");
        }
        let rng = &mut Rng::new(&[4]);
        for alpha in [1e-12, 1e300, f64::INFINITY] {
            assert!((0.0..=1.0).contains(&sample_beta(alpha, rng)), "{alpha}");
        }
        assert_eq!((sample_beta(0.0, rng), sample_beta(f64::NAN, rng)), (1.0, 1.0));
    }

    #[test]
    fn cutmix_keeps_the_fraction_that_it_returns() {
        let values = Tensor::from_vec(&[0f32, 1.0], &[2, 1, 1, 1])
            .unwrap()
            .expand(&[2, 3, 20, 30])
            .unwrap()
            .contiguous()
            .unwrap();
        for seed in 0..20 {
            let (mixed, permutation, weight) = cutmix(&values, 1.0, &mut Rng::new(&[seed])).unwrap();
            if permutation == [1, 0] {
                let mean = mixed.select(0, 1).unwrap().mean().unwrap().to_f64().unwrap();
                assert!((mean - weight).abs() < 1e-5);
            }
        }
    }
}
