//! Pillow's own resampling, bit for bit: 22-bit fixed-point weights, width first, each pass rounded to bytes. A pretrained model's
//! features feel a difference of one in 255, so its pictures go through this; where speed counts more, a library's is used.

use super::Interpolation;
use image::RgbImage;

/// For each place of the result: the first pixel that counts, and the weights from there, in units of 2⁻²².
fn weights(have: u32, want: u32, how: Interpolation) -> Vec<(usize, Vec<i32>)> {
    let reach = match how {
        Interpolation::Bilinear | Interpolation::Nearest => 1.0,
        Interpolation::Bicubic => 2.0,
        Interpolation::Lanczos => 3.0,
    };
    let sinc = |x: f64| if x == 0.0 { 1.0 } else { (std::f64::consts::PI * x).sin() / (std::f64::consts::PI * x) };
    let filter = |x: f64| -> f64 {
        let x = x.abs();
        match how {
            Interpolation::Bilinear | Interpolation::Nearest => (1.0 - x).max(0.0),
            // a = −0.5 (Keys 1981).
            Interpolation::Bicubic if x < 1.0 => (1.5 * x - 2.5) * x * x + 1.0,
            Interpolation::Bicubic if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * -0.5,
            Interpolation::Lanczos if x < 3.0 => sinc(x) * sinc(x / 3.0),
            _ => 0.0,
        }
    };
    let scale = f64::from(have) / f64::from(want);
    let stretch = scale.max(1.0);
    let support = reach * stretch;
    (0..want)
        .map(|place| {
            let center = (f64::from(place) + 0.5) * scale;
            let first = ((center - support + 0.5) as i64).max(0);
            let end = ((center + support + 0.5) as i64).min(i64::from(have));
            let raw: Vec<f64> = (first..end).map(|x| filter((x as f64 - center + 0.5) * (1.0 / stretch))).collect();
            let sum: f64 = raw.iter().sum();
            let fixed = |w: &f64| {
                let w = if sum == 0.0 { *w } else { w / sum } * f64::from(1 << 22);
                (if w < 0.0 { w - 0.5 } else { w + 0.5 }) as i32
            };
            (first as usize, raw.iter().map(fixed).collect())
        })
        .collect()
}

fn byte(sum: i32) -> u8 {
    (sum >> 22).clamp(0, 255) as u8
}

/// Whether Pillow (13 on, src/libImaging/Resample.c) does the height first: where it takes away rows, more than twice as many as columns.
pub(super) fn height_first(from: (u32, u32), to: (u32, u32)) -> bool {
    let fewer = |have: u32, want: u32| i64::from(have) - i64::from(want);
    let rows = fewer(from.0, to.0);
    rows > 0 && rows > 2 * fewer(from.1, to.1)
}

/// A picture at another size, as `Image.resize` of Pillow makes it (all but nearest).
pub(super) fn resize(picture: &RgbImage, height: u32, width: u32, how: Interpolation) -> RgbImage {
    if height_first((picture.height(), picture.width()), (height, width)) {
        return to_width(&to_height(picture, height, how), width, how);
    }
    to_height(&to_width(picture, width, how), height, how)
}

/// Half of the unit that sums are in, for rounding.
const HALF: i32 = 1 << 21;

fn to_width(picture: &RgbImage, width: u32, how: Interpolation) -> RgbImage {
    if width == picture.width() {
        return picture.clone();
    }
    let table = weights(picture.width(), width, how);
    let mut out = Vec::with_capacity(3 * width as usize * picture.height() as usize);
    for row in picture.as_raw().chunks_exact(3 * picture.width() as usize) {
        for (first, weights) in &table {
            let mut sums = [HALF; 3];
            for (pixel, weight) in row[3 * first..].chunks_exact(3).zip(weights) {
                for (sum, value) in sums.iter_mut().zip(pixel) {
                    *sum += i32::from(*value) * weight;
                }
            }
            out.extend(sums.map(byte));
        }
    }
    RgbImage::from_raw(width, picture.height(), out).unwrap_or_default()
}

fn to_height(picture: &RgbImage, height: u32, how: Interpolation) -> RgbImage {
    if height == picture.height() {
        return picture.clone();
    }
    let line = 3 * picture.width() as usize;
    let mut out = Vec::with_capacity(line * height as usize);
    let mut sums = vec![0i32; line];
    for (first, weights) in weights(picture.height(), height, how) {
        sums.fill(HALF);
        for (row, weight) in picture.as_raw()[first * line..].chunks_exact(line).zip(weights) {
            for (sum, value) in sums.iter_mut().zip(row) {
                *sum += i32::from(*value) * weight;
            }
        }
        out.extend(sums.iter().map(|s| byte(*s)));
    }
    RgbImage::from_raw(picture.width(), height, out).unwrap_or_default()
}
