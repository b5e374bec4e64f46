//! Image resizing by fast_image_resize, within 1/255 of Pillow's pixels. Only the part that is used is computed.

use super::{Interpolation, pillow::is_height_first};
use crate::{Error, Result};
use fast_image_resize::{
    FilterType, IntoImageView, IntoImageViewMut, PixelType, ResizeAlg, ResizeOptions, Resizer, images::Image,
    pixels::U8x3,
};
use image::RgbImage;
use serde::{Deserialize, Serialize};
use std::{borrow::Cow, cell::RefCell};

/// The size that an image is resized to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resize {
    /// The length of the shorter edge; the longer edge follows from the aspect ratio, rounded down as in torchvision.
    ShortestEdge(u32),
    /// (height, width), whatever the aspect ratio was.
    Exact(u32, u32),
    /// The shorter edge gets this length unless the longer one would exceed its maximum; both are then rounded down to
    /// a multiple, as in ViLT.
    ShortestEdgeMultiple {
        /// Length of the shorter edge.
        shortest_edge: u32,
        /// Maximum length of the longer edge.
        longest_edge: u32,
        /// Both edges are a multiple of this.
        multiple_of: u32,
    },
    /// The image's own size, rounded to a multiple and scaled to a number of pixels within these bounds, as in
    /// Qwen2-VL.
    PixelBudget {
        /// Minimum number of pixels.
        min_pixels: u64,
        /// Maximum number of pixels.
        max_pixels: u64,
        /// Both edges are a multiple of this.
        multiple_of: u32,
    },
}

impl Resize {
    /// The (height, width) that an image of this height and width is resized to.
    pub(super) fn output_size(self, height: u32, width: u32) -> (u32, u32) {
        match self {
            Self::Exact(height, width) => (height.max(1), width.max(1)),
            Self::ShortestEdge(edge) => {
                let long = |long: u32, short: u32| {
                    (u64::from(edge) * u64::from(long) / u64::from(short.max(1))).clamp(1, 1 << 31) as u32
                };
                if height <= width { (edge.max(1), long(width, height)) } else { (long(height, width), edge.max(1)) }
            }
            Self::ShortestEdgeMultiple { shortest_edge, longest_edge, multiple_of } => {
                let (h, w) = (f64::from(height.max(1)), f64::from(width.max(1)));
                let (short, long) = (f64::from(shortest_edge), f64::from(longest_edge));
                let scale = short / h.min(w);
                let (mut new_h, mut new_w) = if h < w { (short, scale * w) } else { (scale * h, short) };
                if new_h.max(new_w) > long {
                    let scale = long / new_h.max(new_w);
                    (new_h, new_w) = (scale * new_h, scale * new_w);
                }
                let multiple = multiple_of.max(1);
                let round_down = |x: f64| ((x + 0.5) as u32 / multiple * multiple).max(multiple);
                (round_down(new_h), round_down(new_w))
            }
            Self::PixelBudget { min_pixels, max_pixels, multiple_of } => {
                let multiple = f64::from(multiple_of.max(1));
                let (h, w) = (f64::from(height.max(1)), f64::from(width.max(1)));
                // Halves are rounded to even, as Python does.
                let round = |x: f64| (x / multiple).round_ties_even() * multiple;
                let (mut new_h, mut new_w) = (round(h), round(w));
                if new_h * new_w > max_pixels as f64 {
                    let beta = (h * w / max_pixels as f64).sqrt();
                    new_h = ((h / beta / multiple).floor() * multiple).max(multiple);
                    new_w = ((w / beta / multiple).floor() * multiple).max(multiple);
                } else if new_h * new_w < min_pixels as f64 {
                    let beta = (min_pixels as f64 / (h * w)).sqrt();
                    new_h = (h * beta / multiple).ceil() * multiple;
                    new_w = (w * beta / multiple).ceil() * multiple;
                }
                (new_h.max(multiple) as u32, new_w.max(multiple) as u32)
            }
        }
    }
}

thread_local! {
    // Reused because its buffers are as large as an image.
    static RESIZER: RefCell<Resizer> = RefCell::new(Resizer::new());
}

/// The image at another size, within 1/255 of Pillow's pixels.
pub fn resize(image: &RgbImage, height: u32, width: u32, interpolation: Interpolation) -> Result<RgbImage> {
    Ok(resize_window(image, (height, width), [0, 0, height, width], interpolation)?.0.into_owned())
}

/// Resizes an image to `size` (height, width) but computes only a window [top, left, height, width] of the result and
/// some pixels around it. Returns these pixels and the window's coordinates in them.
pub(super) fn resize_window(
    image: &RgbImage,
    size: (u32, u32),
    window: [u32; 4],
    interpolation: Interpolation,
) -> Result<(Cow<'_, RgbImage>, [u32; 4])> {
    let [top, left, height, width] = window;
    let axis = |horizontal: bool| if horizontal { (size.1, left, width) } else { (size.0, top, height) };
    // One axis after the other, each rounded to bytes, in Pillow's order. Resizing both at once would round
    // differently.
    let horizontal_first = match interpolation {
        // The order makes no difference to the nearest pixels; the longer edge goes first.
        Interpolation::Nearest => image.width() >= image.height(),
        _ => !is_height_first((image.height(), image.width()), size),
    };
    let (first, first_start) = resize_axis(image, axis(horizontal_first), horizontal_first, interpolation)?;
    let (both, second_start) = match first {
        Cow::Borrowed(first) => resize_axis(first, axis(!horizontal_first), !horizontal_first, interpolation)?,
        Cow::Owned(first) => {
            let (both, start) = resize_axis(&first, axis(!horizontal_first), !horizontal_first, interpolation)?;
            let both = if let Cow::Owned(both) = both { Some(both) } else { None };
            (Cow::Owned(both.unwrap_or(first)), start)
        }
    };
    let (left, top) = if horizontal_first { (first_start, second_start) } else { (second_start, first_start) };
    Ok((both, [top, left, height, width]))
}

/// Resizes one axis to `size` pixels, of which `length` from `start` on are needed. Returns the pixels that were
/// computed and the index of the first needed one in them.
fn resize_axis(
    image: &RgbImage,
    (size, start, length): (u32, u32, u32),
    horizontal: bool,
    interpolation: Interpolation,
) -> Result<(Cow<'_, RgbImage>, u32)> {
    let input_size = if horizontal { image.width() } else { image.height() };
    if input_size == size {
        return Ok((Cow::Borrowed(image), start));
    }
    let bad = |e: String| Error::Config(format!("cannot resize {input_size} pixels to {size}: {e}"));
    let filter = match interpolation {
        Interpolation::Nearest => {
            return Ok((Cow::Owned(resize_axis_nearest(image, (size, start, length), horizontal)), 0));
        }
        Interpolation::Bilinear => ResizeAlg::Convolution(FilterType::Bilinear),
        Interpolation::Bicubic => ResizeAlg::Convolution(FilterType::CatmullRom),
        Interpolation::Lanczos => ResizeAlg::Convolution(FilterType::Lanczos3),
    };
    // A filter covers at most three output pixels in each direction and sees nothing beyond the crop that it is given.
    let scale = f64::from(input_size) / f64::from(size);
    let support = if scale >= 1.0 { 4 } else { (4.0 / scale).ceil() as u32 };
    let first = start.saturating_sub(support);
    let last = (start + length + support).min(size);
    // Rounding must not move the end beyond the edge: 224 · (123 / 224) is more than 123.
    let (from, mut span) = (f64::from(first) * scale, f64::from(last - first) * scale);
    while from + span > f64::from(input_size) {
        span = span.next_down();
    }
    let (width, height) = if horizontal { (last - first, image.height()) } else { (image.width(), last - first) };
    let mut out = RgbImage::new(width, height);
    let mut view =
        Image::from_slice_u8(width, height, out.as_mut(), PixelType::U8x3).map_err(|e| bad(e.to_string()))?;
    let options = ResizeOptions::new().resize_alg(filter).use_alpha(false);
    let options = if horizontal {
        options.crop(from, 0.0, span, f64::from(height))
    } else {
        options.crop(0.0, from, f64::from(width), span)
    };
    // By their type: `resize` compiles the kernels of thirteen pixel formats, two minutes of a build on two cores.
    let (Some(source), Some(mut target)) = (image.image_view::<U8x3>(), view.image_view_mut::<U8x3>()) else {
        return Err(bad("the pixels are not 8-bit RGB".to_owned()));
    };
    RESIZER
        .with_borrow_mut(|resizer| resizer.resize_typed(&source, &mut target, &options))
        .map_err(|e| bad(e.to_string()))?;
    drop(target);
    Ok((Cow::Owned(out), start - first))
}

/// [`resize_axis`] by nearest neighbor: exactly the needed pixels.
fn resize_axis_nearest(image: &RgbImage, (size, start, length): (u32, u32, u32), horizontal: bool) -> RgbImage {
    let input_size = if horizontal { image.width() } else { image.height() };
    // Pillow accumulates the scale from pixel to pixel; its rounding errors decide between two equally near pixels.
    let scale = f64::from(input_size) / f64::from(size);
    let indices = std::iter::successors(Some(scale * 0.5), |position| Some(position + scale))
        .map(|position| (position as u32).min(input_size - 1));
    let indices: Vec<u32> = indices.skip(start as usize).take(length as usize).collect();
    let (width, height) = if horizontal { (length, image.height()) } else { (image.width(), length) };
    RgbImage::from_fn(width, height, |x, y| {
        let (x, y) = if horizontal { (indices[x as usize], y) } else { (x, indices[y as usize]) };
        *image.get_pixel(x, y)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_resizes_to_every_usual_size_with_and_without_a_window() {
        for input_size in 1..1500u32 {
            for size in [1, 7, 32, 48, 96, 112, 224, 255, 256, 299, 336, 384, 518] {
                let row = RgbImage::new(input_size, 1);
                assert_eq!(resize(&row, 1, size, Interpolation::Bilinear).unwrap().dimensions(), (size, 1));
                let (start, length) = (size / 3, size - size / 2 - size / 3);
                for horizontal in [true, false] {
                    let image = if horizontal { RgbImage::new(input_size, 1) } else { RgbImage::new(1, input_size) };
                    resize_axis(&image, (size, start, length), horizontal, Interpolation::Bicubic).unwrap();
                    resize_axis(&image, (size, size - 1, 1), horizontal, Interpolation::Bicubic).unwrap();
                }
            }
        }
    }
}
