//! Pillow's resampling, bit for bit: 22-bit fixed-point weights, horizontal pass first, each pass rounded to bytes.
//!
//! For pretrained models, whose features change measurably with a difference of 1/255. Where speed matters more,
//! [`resize`](super::resize()) is used.

use super::Interpolation;
use image::RgbImage;

/// For each output pixel: the index of its first input pixel and the weights from there on, in units of 2⁻²².
fn fixed_point_weights(input_size: u32, output_size: u32, interpolation: Interpolation) -> Vec<(usize, Vec<i32>)> {
    let radius = match interpolation {
        Interpolation::Bilinear | Interpolation::Nearest => 1.0,
        Interpolation::Bicubic => 2.0,
        Interpolation::Lanczos => 3.0,
    };
    let sinc = |x: f64| if x == 0.0 { 1.0 } else { (std::f64::consts::PI * x).sin() / (std::f64::consts::PI * x) };
    let filter = |x: f64| -> f64 {
        let x = x.abs();
        match interpolation {
            Interpolation::Bilinear | Interpolation::Nearest => (1.0 - x).max(0.0),
            // *Cubic convolution interpolation for digital image processing* (Keys, 1981), with a = −0.5.
            Interpolation::Bicubic if x < 1.0 => (1.5 * x - 2.5) * x * x + 1.0,
            Interpolation::Bicubic if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5,
            Interpolation::Lanczos if x < 3.0 => sinc(x) * sinc(x / 3.0),
            _ => 0.0,
        }
    };
    let scale = f64::from(input_size) / f64::from(output_size);
    let filter_scale = scale.max(1.0);
    let support = radius * filter_scale;
    (0..output_size)
        .map(|index| {
            let center = (f64::from(index) + 0.5) * scale;
            let first = ((center - support + 0.5) as i64).max(0);
            let end = ((center + support + 0.5) as i64).min(i64::from(input_size));
            let weights: Vec<f64> =
                (first..end).map(|x| filter((x as f64 - center + 0.5) * (1.0 / filter_scale))).collect();
            let sum: f64 = weights.iter().sum();
            let to_fixed = |w: &f64| {
                let w = if sum == 0.0 { *w } else { w / sum } * f64::from(1 << 22);
                (if w < 0.0 { w - 0.5 } else { w + 0.5 }) as i32
            };
            (first as usize, weights.iter().map(to_fixed).collect())
        })
        .collect()
}

fn to_byte(sum: i32) -> u8 {
    (sum >> 22).clamp(0, 255) as u8
}

/// Whether Pillow (13 and later, src/libImaging/Resample.c) resizes the height first: where it removes more than twice
/// as many rows as columns. Sizes are (height, width).
pub(super) fn is_height_first(from: (u32, u32), to: (u32, u32)) -> bool {
    let removed = |from: u32, to: u32| i64::from(from) - i64::from(to);
    let rows = removed(from.0, to.0);
    rows > 0 && rows > 2 * removed(from.1, to.1)
}

/// The image at another size, as Pillow's `Image.resize` computes it (all modes but nearest).
pub(super) fn resize(image: &RgbImage, height: u32, width: u32, interpolation: Interpolation) -> RgbImage {
    if is_height_first((image.height(), image.width()), (height, width)) {
        return resize_width(&resize_height(image, height, interpolation), width, interpolation);
    }
    resize_height(&resize_width(image, width, interpolation), height, interpolation)
}

/// One half in the fixed-point unit of the sums, for rounding.
const HALF: i32 = 1 << 21;

fn resize_width(image: &RgbImage, width: u32, interpolation: Interpolation) -> RgbImage {
    if width == image.width() {
        return image.clone();
    }
    let table = fixed_point_weights(image.width(), width, interpolation);
    let mut out = Vec::with_capacity(3 * width as usize * image.height() as usize);
    for row in image.as_raw().chunks_exact(3 * image.width() as usize) {
        for (first, weights) in &table {
            let mut sums = [HALF; 3];
            for (pixel, weight) in row[3 * first..].chunks_exact(3).zip(weights) {
                for (sum, value) in sums.iter_mut().zip(pixel) {
                    *sum += i32::from(*value) * weight;
                }
            }
            out.extend(sums.map(to_byte));
        }
    }
    RgbImage::from_raw(width, image.height(), out).unwrap_or_default()
}

fn resize_height(image: &RgbImage, height: u32, interpolation: Interpolation) -> RgbImage {
    if height == image.height() {
        return image.clone();
    }
    let stride = 3 * image.width() as usize;
    let mut out = Vec::with_capacity(stride * height as usize);
    let mut sums = vec![0i32; stride];
    for (first, weights) in fixed_point_weights(image.height(), height, interpolation) {
        sums.fill(HALF);
        for (row, weight) in image.as_raw()[first * stride..].chunks_exact(stride).zip(weights) {
            for (sum, value) in sums.iter_mut().zip(row) {
                *sum += i32::from(*value) * weight;
            }
        }
        out.extend(sums.iter().map(|s| to_byte(*s)));
    }
    RgbImage::from_raw(image.width(), height, out).unwrap_or_default()
}
