//! Changes that keep the meaning: more data than there is. `SpecAugment` (Park 2019), `RandAugment` (Cubuk 2020), mixup (Zhang 2018),
//! `CutMix` (Yun 2019), random resized crops (Szegedy 2015), word dropout.

use crate::{
    Result,
    transform::{Interpolation, resize},
};
use image::{Rgb, RgbImage, imageops};
use mm_core::{Tensor, seed::Rng};
use serde::{Deserialize, Serialize};

/// Bands of a spectrogram that are hidden.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SpecAugment {
    /// Number of masks over frequencies.
    pub num_freq_masks: usize,
    /// Widest of them, in bands.
    pub freq_mask_width: usize,
    /// Number of masks over time.
    pub num_time_masks: usize,
    /// Widest of them, in frames (never more than a third of the sound).
    pub time_mask_width: usize,
    /// Most that the sound is made faster or slower, as a share of its length.
    pub max_time_stretch: f64,
    /// Most bands that the sound is moved up or down.
    pub max_pitch_shift: usize,
    /// Standard deviation of noise that is added, in the spectrogram's own units.
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
    /// Changes rows of `bands` numbers, a row a frame: speed and pitch first, then noise, then bands hidden with the mean.
    pub fn apply(&self, values: &mut Vec<f32>, bands: usize, random: &mut Rng) {
        if values.is_empty() || bands == 0 {
            return;
        }
        let speed = 1.0 + random.uniform_range(-1.0, 1.0) * self.max_time_stretch.clamp(0.0, 0.9);
        let pitch = random.uniform_range(-1.0, 1.0) * self.max_pitch_shift as f64;
        if self.max_time_stretch > 0.0 || self.max_pitch_shift > 0 {
            *values = warp(values, bands, speed, pitch);
        }
        if self.noise_std > 0.0 {
            // A sum of uniform numbers is near enough to a normal one.
            values.iter_mut().for_each(|v| {
                *v += ((random.uniform() + random.uniform() + random.uniform() - 1.5) * 2.0 * self.noise_std) as f32
            });
        }
        let frames = values.len() / bands;
        let mean = values.iter().sum::<f32>() / values.len() as f32;
        for _ in 0..self.num_freq_masks {
            let width = random.below(self.freq_mask_width.min(bands) + 1);
            let from = random.below(bands - width + 1);
            for row in values.chunks_exact_mut(bands) {
                row[from..from + width].fill(mean);
            }
        }
        for _ in 0..self.num_time_masks {
            let width = random.below(self.time_mask_width.min(frames / 3) + 1);
            let from = random.below(frames - width + 1);
            values[from * bands..(from + width) * bands].fill(mean);
        }
    }
}

/// Frames and bands read between their neighbours: `speed` times as fast, `pitch` bands higher.
fn warp(values: &[f32], bands: usize, speed: f64, pitch: f64) -> Vec<f32> {
    let frames = values.len() / bands;
    let wanted = ((frames as f64 / speed).round() as usize).max(1);
    let split = |place: f64, most: usize| {
        let place = place.clamp(0.0, (most - 1) as f64);
        let low = place as usize;
        (low, (low + 1).min(most - 1), (place - low as f64) as f32)
    };
    let columns: Vec<_> = (0..bands).map(|b| split(b as f64 - pitch, bands)).collect();
    let mut out = Vec::with_capacity(wanted * bands);
    for frame in 0..wanted {
        let (a, b, t) = split(frame as f64 * speed, frames);
        let (first, second) = (&values[a * bands..(a + 1) * bands], &values[b * bands..(b + 1) * bands]);
        out.extend(columns.iter().map(|(l, h, s)| {
            let at = |row: &[f32]| row[*l] * (1.0 - s) + row[*h] * s;
            at(first) * (1.0 - t) + at(second) * t
        }));
    }
    out
}

/// A random piece of the picture of `scale` of its area and a shape between 3:4 and 4:3, resized to a square.
pub fn random_resized_crop(
    picture: &RgbImage,
    size: u32,
    scale: (f64, f64),
    how: Interpolation,
    random: &mut Rng,
) -> Result<RgbImage> {
    let area = f64::from(picture.width()) * f64::from(picture.height());
    for _ in 0..10 {
        let target = area * random.uniform_range(scale.0, scale.1);
        let ratio = random.uniform_range((0.75f64).ln(), (4.0f64 / 3.0).ln()).exp();
        let (width, height) = ((target * ratio).sqrt().round() as u32, (target / ratio).sqrt().round() as u32);
        if width > 0 && height > 0 && width <= picture.width() && height <= picture.height() {
            let x = random.below((picture.width() - width + 1) as usize) as u32;
            let y = random.below((picture.height() - height + 1) as usize) as u32;
            let piece = imageops::crop_imm(picture, x, y, width, height).to_image();
            return resize(&piece, size, size, how);
        }
    }
    resize(picture, size, size, how)
}

/// The mirror image with probability one half.
pub fn random_flip(picture: RgbImage, random: &mut Rng) -> RgbImage {
    if random.uniform() < 0.5 { imageops::flip_horizontal(&picture) } else { picture }
}

/// `count` of the fourteen changes of the paper at a strength in [0, 10], drawn without preference.
pub fn rand_augment(mut picture: RgbImage, count: usize, strength: f64, random: &mut Rng) -> RgbImage {
    let level = strength.clamp(0.0, 10.0) / 10.0;
    for _ in 0..count {
        let sign = if random.uniform() < 0.5 { -1.0 } else { 1.0 };
        picture = match random.below(14) {
            0 => picture,
            1 => auto_contrast(picture),
            2 => equalize(picture),
            3 => turn(&picture, sign * 30.0 * level),
            4 => map(picture, |v| if f64::from(v) >= 256.0 - 256.0 * level { 255 - v } else { v }),
            5 => {
                let bits = 8 - (4.0 * level) as u32;
                map(picture, |v| v & (0xffu32 << (8 - bits)) as u8)
            }
            6 => blend_with(&picture, 1.0 + sign * 0.9 * level, gray),
            7 => {
                let mean = picture.pixels().map(|p| f64::from(gray(*p)[0])).sum::<f64>()
                    / f64::from(picture.width() * picture.height()).max(1.0);
                blend_with(&picture, 1.0 + sign * 0.9 * level, |_| [mean.round() as u8; 3])
            }
            8 => blend_with(&picture, 1.0 + sign * 0.9 * level, |_| [0; 3]),
            9 => sharpen(&picture, 1.0 + sign * 0.9 * level),
            10 => affine(&picture, [1.0, sign * 0.3 * level, 0.0, 0.0, 1.0, 0.0]),
            11 => affine(&picture, [1.0, 0.0, 0.0, sign * 0.3 * level, 1.0, 0.0]),
            12 => affine(&picture, [1.0, 0.0, sign * 0.45 * level * f64::from(picture.width()), 0.0, 1.0, 0.0]),
            _ => affine(&picture, [1.0, 0.0, 0.0, 0.0, 1.0, sign * 0.45 * level * f64::from(picture.height())]),
        };
    }
    picture
}

fn map(mut picture: RgbImage, f: impl Fn(u8) -> u8) -> RgbImage {
    picture.iter_mut().for_each(|v| *v = f(*v));
    picture
}

fn gray(pixel: Rgb<u8>) -> [u8; 3] {
    let luma = (u32::from(pixel[0]) * 299 + u32::from(pixel[1]) * 587 + u32::from(pixel[2]) * 114 + 500) / 1000;
    [luma as u8; 3]
}

fn blend_with(picture: &RgbImage, factor: f64, other: impl Fn(Rgb<u8>) -> [u8; 3]) -> RgbImage {
    let mut out = picture.clone();
    for pixel in out.pixels_mut() {
        let base = other(*pixel);
        for c in 0..3 {
            pixel[c] = (f64::from(base[c]) + factor * (f64::from(pixel[c]) - f64::from(base[c])))
                .round()
                .clamp(0.0, 255.0) as u8;
        }
    }
    out
}

fn sharpen(picture: &RgbImage, factor: f64) -> RgbImage {
    let smooth = imageops::filter3x3(
        picture,
        &[1.0 / 13.0, 1.0 / 13.0, 1.0 / 13.0, 1.0 / 13.0, 5.0 / 13.0, 1.0 / 13.0, 1.0 / 13.0, 1.0 / 13.0, 1.0 / 13.0],
    );
    let mut out = picture.clone();
    for (to, from) in out.iter_mut().zip(smooth.iter()) {
        *to = (f64::from(*from) + factor * (f64::from(*to) - f64::from(*from))).round().clamp(0.0, 255.0) as u8;
    }
    out
}

fn auto_contrast(picture: RgbImage) -> RgbImage {
    let mut out = picture;
    for c in 0..3 {
        let (low, high) = out.pixels().fold((255u8, 0u8), |(l, h), p| (l.min(p[c]), h.max(p[c])));
        if high > low {
            let scale = 255.0 / f64::from(high - low);
            out.pixels_mut().for_each(|p| p[c] = (f64::from(p[c] - low) * scale).round() as u8);
        }
    }
    out
}

fn equalize(picture: RgbImage) -> RgbImage {
    let mut out = picture;
    for c in 0..3 {
        let mut counts = [0usize; 256];
        out.pixels().for_each(|p| counts[usize::from(p[c])] += 1);
        let total: usize = counts.iter().sum();
        let last = counts.iter().rev().find(|n| **n > 0).copied().unwrap_or(0);
        let step = (total - last) / 255;
        if step == 0 {
            continue;
        }
        let mut sum = step / 2;
        let table: Vec<u8> = counts
            .iter()
            .map(|n| {
                let v = (sum / step).min(255) as u8;
                sum += n;
                v
            })
            .collect();
        out.pixels_mut().for_each(|p| p[c] = table[usize::from(p[c])]);
    }
    out
}

fn turn(picture: &RgbImage, degrees: f64) -> RgbImage {
    let (s, c) = degrees.to_radians().sin_cos();
    let (x, y) = (f64::from(picture.width() - 1) / 2.0, f64::from(picture.height() - 1) / 2.0);
    affine(picture, [c, s, x - c * x - s * y, -s, c, y + s * x - c * y])
}

/// Each pixel from where the matrix says; grey where that is outside.
fn affine(picture: &RgbImage, m: [f64; 6]) -> RgbImage {
    RgbImage::from_fn(picture.width(), picture.height(), |x, y| {
        let (x, y) = (f64::from(x), f64::from(y));
        let (fx, fy) = ((m[0] * x + m[1] * y + m[2]).round(), (m[3] * x + m[4] * y + m[5]).round());
        if fx >= 0.0 && fy >= 0.0 && fx < f64::from(picture.width()) && fy < f64::from(picture.height()) {
            *picture.get_pixel(fx as u32, fy as u32)
        } else {
            Rgb([128; 3])
        }
    })
}

/// Blends each row with another: values `[batch, …]`, the partners' numbers, and each row's own weight `[batch]`.
pub fn mixup(values: &Tensor, alpha: f64, random: &mut Rng) -> Result<(Tensor, Vec<i64>, f64)> {
    let rows = values.size(0)?;
    let mut partners: Vec<i64> = (0..rows).collect();
    random.shuffle(&mut partners);
    let weight = beta(alpha, random);
    let other = values.index_select(0, &Tensor::from_slice(&partners)?.to_device(values.device())?)?;
    Ok((values.mul_scalar(weight)?.add(&other.mul_scalar(1.0 - weight)?)?, partners, weight))
}

/// Puts a rectangle of each row's partner into it: pixels `[batch, channels, height, width]`; the weight is the share that stays.
pub fn cutmix(values: &Tensor, alpha: f64, random: &mut Rng) -> Result<(Tensor, Vec<i64>, f64)> {
    let shape = values.shape();
    if shape.len() != 4 {
        return Err(mm_core::Error::shape("cutmix", &shape, "[batch, channels, height, width]").into());
    }
    let (rows, height, width) = (shape[0], shape[2], shape[3]);
    let mut partners: Vec<i64> = (0..rows).collect();
    random.shuffle(&mut partners);
    let edge = (1.0 - beta(alpha, random)).sqrt();
    let (h, w) = ((height as f64 * edge) as i64, (width as f64 * edge) as i64);
    let (top, left) = (random.below((height - h + 1) as usize) as i64, random.below((width - w + 1) as usize) as i64);
    let mut keep = vec![1f32; (height * width) as usize];
    for y in top..top + h {
        keep[(y * width + left) as usize..(y * width + left + w) as usize].fill(0.0);
    }
    let keep = Tensor::from_vec(&keep, &[1, 1, height, width])?.to_device(values.device())?;
    let other = values.index_select(0, &Tensor::from_slice(&partners)?.to_device(values.device())?)?;
    let mixed = values.mul(&keep)?.add(&other.mul(&keep.mul_scalar(-1.0)?.add_scalar(1.0)?)?)?;
    Ok((mixed, partners, 1.0 - (h * w) as f64 / (height * width).max(1) as f64))
}

/// A number from Beta(alpha, alpha), by Jöhnk's method; 1 when alpha is 0.
pub fn beta(alpha: f64, random: &mut Rng) -> f64 {
    if alpha <= 0.0 {
        return 1.0;
    }
    loop {
        let (x, y) = (random.uniform().powf(1.0 / alpha), random.uniform().powf(1.0 / alpha));
        if x + y > 0.0 && x + y <= 1.0 {
            return x / (x + y);
        }
    }
}

/// Leaves each word out with probability `rate`, but never all of them.
pub fn word_dropout(text: &str, rate: f64, random: &mut Rng) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    let kept: Vec<&str> = words.iter().copied().filter(|_| random.uniform() >= rate).collect();
    if kept.is_empty() { text.to_owned() } else { kept.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn augmentations_keep_sizes_and_are_functions_of_their_seed() {
        let picture = RgbImage::from_fn(31, 17, |x, y| Rgb([(x * 8) as u8, (y * 15) as u8, ((x * y) % 256) as u8]));
        for seed in 0..40 {
            let run = |seed| rand_augment(picture.clone(), 3, 9.0, &mut Rng::new(&[seed]));
            assert_eq!(run(seed), run(seed));
            assert_eq!(run(seed).dimensions(), (31, 17));
            let crop =
                random_resized_crop(&picture, 12, (0.2, 1.0), Interpolation::Bilinear, &mut Rng::new(&[seed])).unwrap();
            assert_eq!(crop.dimensions(), (12, 12));
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
        let hidden = values.iter().filter(|v| (**v - 99.5).abs() < 1e-3).count();
        assert!(hidden > 0 && hidden < 200);
        assert_eq!(warp(&[1.0, 10.0, 3.0, 30.0], 2, 1.0, 0.0), [1.0, 10.0, 3.0, 30.0]);
        assert_eq!(warp(&[1.0, 10.0, 3.0, 30.0], 2, 0.5, 0.0), [1.0, 10.0, 2.0, 20.0, 3.0, 30.0, 3.0, 30.0]);
        assert_eq!(warp(&[1.0, 10.0], 2, 1.0, 1.0), [1.0, 1.0]);
        assert_eq!(word_dropout("a b c", 1.0, &mut Rng::new(&[1])), "a b c");
    }

    #[test]
    fn cutmix_keeps_as_much_as_it_says() {
        let values = Tensor::from_vec(&[0f32, 1.0], &[2, 1, 1, 1])
            .unwrap()
            .expand(&[2, 3, 20, 30])
            .unwrap()
            .contiguous()
            .unwrap();
        for seed in 0..20 {
            let (mixed, partners, weight) = cutmix(&values, 1.0, &mut Rng::new(&[seed])).unwrap();
            if partners == [1, 0] {
                let own = mixed.select(0, 1).unwrap().mean().unwrap().to_f64().unwrap();
                assert!((own - weight).abs() < 1e-5);
            }
            let (mixed, partners, weight) = mixup(&values, 0.4, &mut Rng::new(&[seed])).unwrap();
            if partners == [1, 0] {
                assert!((mixed.select(0, 1).unwrap().mean().unwrap().to_f64().unwrap() - weight).abs() < 1e-5);
            }
        }
    }
}
