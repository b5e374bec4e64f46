//! Pillow's resampling, bit for bit: 22-bit fixed-point weights, horizontal pass first, each pass rounded to bytes.
//!
//! For pretrained models, whose features change measurably with a difference of 1/255. Where speed matters more,
//! [`resize`](super::resize()) is used.

use super::Interpolation;
use image::RgbImage;
use std::ops::Range;

/// For each output pixel of a range: the index of its first input pixel and the weights from there on, in units of
/// 2⁻²².
type Weights = Vec<(usize, Vec<i32>)>;

fn fixed_point_weights(input_size: u32, output_size: u32, range: Range<u32>, interpolation: Interpolation) -> Weights {
    if input_size == output_size {
        return range.map(|index| (index as usize, vec![1 << 22])).collect();
    }
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
    range
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

/// The window [top, left, height, width] of the image at another `size` (height, width), as Pillow's `Image.resize`
/// computes it (all modes but nearest). Only what the window needs is computed: the full image may be far larger.
pub(super) fn resize_window(
    image: &RgbImage,
    size: (u32, u32),
    [top, left, height, width]: [u32; 4],
    interpolation: Interpolation,
) -> RgbImage {
    let rows = fixed_point_weights(image.height(), size.0, top..top + height, interpolation);
    let columns = fixed_point_weights(image.width(), size.1, left..left + width, interpolation);
    let pass = |weights: &Weights, from: u32, to: u32| from != to || weights.len() != from as usize;
    let (needs_rows, needs_columns) = (pass(&rows, image.height(), size.0), pass(&columns, image.width(), size.1));
    match (needs_rows, needs_columns) {
        (false, false) => image.clone(),
        (true, false) => resize_height(image, &rows, 0..image.width() as usize),
        (false, true) => resize_width(image, &columns, 0..image.height() as usize),
        (true, true) if is_height_first((image.height(), image.width()), size) => {
            let used = span(&columns);
            resize_width(&resize_height(image, &rows, used.clone()), &shifted(columns, used.start), 0..rows.len())
        }
        (true, true) => {
            let used = span(&rows);
            resize_height(&resize_width(image, &columns, used.clone()), &shifted(rows, used.start), 0..columns.len())
        }
    }
}

/// The input pixels that weights refer to.
fn span(weights: &Weights) -> Range<usize> {
    let start = weights.iter().map(|(first, _)| *first).min().unwrap_or(0);
    start..weights.iter().map(|(first, weights)| first + weights.len()).max().unwrap_or(0)
}

/// The same weights of an input that begins at `start`.
fn shifted(weights: Weights, start: usize) -> Weights {
    weights.into_iter().map(|(first, weights)| (first - start, weights)).collect()
}

/// One half in the fixed-point unit of the sums, for rounding.
const HALF: i32 = 1 << 21;

/// Resizes these rows of an image.
fn resize_width(image: &RgbImage, columns: &Weights, rows: Range<usize>) -> RgbImage {
    let mut out = Vec::with_capacity(3 * columns.len() * rows.len());
    let height = rows.len();
    for row in image.as_raw().chunks_exact(3 * image.width() as usize).skip(rows.start).take(height) {
        for (first, weights) in columns {
            let mut sums = [HALF; 3];
            for (pixel, weight) in row[3 * first..].chunks_exact(3).zip(weights) {
                for (sum, value) in sums.iter_mut().zip(pixel) {
                    *sum += i32::from(*value) * weight;
                }
            }
            out.extend(sums.map(to_byte));
        }
    }
    RgbImage::from_raw(columns.len() as u32, height as u32, out).unwrap_or_default()
}

/// Resizes these columns of an image.
fn resize_height(image: &RgbImage, rows: &Weights, columns: Range<usize>) -> RgbImage {
    let (stride, width) = (3 * image.width() as usize, columns.len());
    let mut out = Vec::with_capacity(3 * width * rows.len());
    let mut sums = vec![0i32; 3 * width];
    for (first, weights) in rows {
        sums.fill(HALF);
        for (row, weight) in image.as_raw()[first * stride..].chunks_exact(stride).zip(weights) {
            for (sum, value) in sums.iter_mut().zip(&row[3 * columns.start..]) {
                *sum += i32::from(*value) * weight;
            }
        }
        out.extend(sums.iter().map(|s| to_byte(*s)));
    }
    RgbImage::from_raw(width as u32, rows.len() as u32, out).unwrap_or_default()
}
