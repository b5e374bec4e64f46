//! Resize, crop, normalise: a picture → `[3, height, width]`.

use crate::{Error, Result};
use fast_image_resize::{FilterType, ResizeAlg, ResizeOptions, Resizer, images::Image};
use image::RgbImage;
use mm_core::Tensor;
use serde::{Deserialize, Serialize};
use std::{borrow::Cow, cell::RefCell};

/// How pixels between pixels are found. All but nearest widen with the reduction (antialias), as Pillow's do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Interpolation {
    Nearest,
    #[default]
    Bilinear,
    Bicubic,
    Lanczos,
}

impl Interpolation {
    /// From Pillow's number for it (`resample` in `preprocessor_config.json`).
    pub fn from_pillow(code: u64) -> Option<Self> {
        Some(match code {
            0 => Self::Nearest,
            1 => Self::Lanczos,
            2 => Self::Bilinear,
            3 => Self::Bicubic,
            _ => return None,
        })
    }
}

/// What a picture is resized to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resize {
    /// The shorter edge has this length, the other follows (torchvision's rounding down).
    ShortestEdge(u32),
    /// (height, width), whatever the shape was.
    Exact(u32, u32),
    /// The shorter edge has this length unless the longer one would pass its own; both are then rounded down to a multiple (ViLT's).
    ShortestEdgeMultiple {
        /// Wanted length of the shorter edge.
        shortest_edge: u32,
        /// Most of the longer edge.
        longest_edge: u32,
        /// What both are a multiple of.
        multiple_of: u32,
    },
    /// About the picture's own size: edges rounded to a multiple, as many pixels as these bounds allow (Qwen2-VL's).
    PixelBudget {
        /// Fewest pixels.
        min_pixels: u64,
        /// Most pixels.
        max_pixels: u64,
        /// What both edges are a multiple of.
        multiple_of: u32,
    },
}

/// What stands between a decoded picture and the model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ImageTransform {
    /// What it is resized to; not at all when absent.
    pub resize: Option<Resize>,
    /// How.
    pub interpolation: Interpolation,
    /// Whether resizing gives exactly Pillow's pixels; else within 1/255 of them, and faster.
    pub pillow_exact: bool,
    /// (height, width) cut out of the middle; all of it when absent.
    pub crop: Option<(u32, u32)>,
    /// Whether the middle's place is rounded down (transformers) and not to the nearest (torchvision).
    pub floor_crop_offset: bool,
    /// What each channel's mean is taken to be, of values in [0, 1].
    pub mean: [f32; 3],
    /// What each channel's standard deviation is taken to be.
    pub std: [f32; 3],
}

impl Default for ImageTransform {
    fn default() -> Self {
        Self {
            resize: Some(Resize::ShortestEdge(224)),
            interpolation: Interpolation::Bilinear,
            pillow_exact: false,
            crop: Some((224, 224)),
            floor_crop_offset: false,
            mean: [0.5; 3],
            std: [0.5; 3],
        }
    }
}

impl ImageTransform {
    /// `[3, height, width]` f32.
    pub fn apply(&self, picture: &RgbImage) -> Result<Tensor> {
        let whole = (picture.height(), picture.width());
        let size = self.resize.map_or(whole, |size| target(size, picture.height(), picture.width()));
        let (height, width) = self.crop.unwrap_or(size);
        let exactly = self.pillow_exact && self.interpolation != Interpolation::Nearest;
        let at_size = || {
            if exactly {
                return Ok(super::pillow::resize(picture, size.0, size.1, self.interpolation));
            }
            resize(picture, size.0, size.1, self.interpolation)
        };
        if height > size.0 || width > size.1 {
            let resized = if size == whole { None } else { Some(at_size()?) };
            let cropped = crop(resized.as_ref().unwrap_or(picture), height, width, self.floor_crop_offset);
            return normalize(&cropped, self.mean, self.std);
        }
        let start =
            |have: u32, want: u32| if self.floor_crop_offset { (have - want) / 2 } else { offset(have, want) as u32 };
        let window = [start(size.0, height), start(size.1, width), height, width];
        if size == whole {
            // The middle is read where it lies instead of being copied out first.
            return normalize_window(picture, window, self.mean, self.std);
        }
        if exactly {
            return normalize_window(&at_size()?, window, self.mean, self.std);
        }
        let (resized, window) = resize_window(picture, size, window, self.interpolation)?;
        normalize_window(&resized, window, self.mean, self.std)
    }
}

/// Where the middle `want` of `have` begins, by Python's round: halves go to the even neighbour.
fn offset(have: u32, want: u32) -> i64 {
    ((f64::from(have) - f64::from(want)) / 2.0).round_ties_even() as i64
}

fn target(size: Resize, height: u32, width: u32) -> (u32, u32) {
    match size {
        Resize::Exact(height, width) => (height.max(1), width.max(1)),
        Resize::ShortestEdge(edge) => {
            let long = |long: u32, short: u32| {
                (u64::from(edge) * u64::from(long) / u64::from(short.max(1))).clamp(1, 1 << 20) as u32
            };
            if height <= width { (edge.max(1), long(width, height)) } else { (long(height, width), edge.max(1)) }
        }
        Resize::ShortestEdgeMultiple { shortest_edge, longest_edge, multiple_of } => {
            let (h, w) = (f64::from(height.max(1)), f64::from(width.max(1)));
            let (short, long) = (f64::from(shortest_edge), f64::from(longest_edge));
            let scale = short / h.min(w);
            let (mut tall, mut wide) = if h < w { (short, scale * w) } else { (scale * h, short) };
            if tall.max(wide) > long {
                let scale = long / tall.max(wide);
                (tall, wide) = (scale * tall, scale * wide);
            }
            let down = |x: f64| ((x + 0.5) as u32 / multiple_of.max(1) * multiple_of.max(1)).max(multiple_of.max(1));
            (down(tall), down(wide))
        }
        Resize::PixelBudget { min_pixels, max_pixels, multiple_of } => {
            let of = f64::from(multiple_of.max(1));
            let (h, w) = (f64::from(height.max(1)), f64::from(width.max(1)));
            // Halves go to the even number, as Python rounds.
            let near = |x: f64| (x / of).round_ties_even() * of;
            let (mut tall, mut wide) = (near(h), near(w));
            if tall * wide > max_pixels as f64 {
                let beta = (h * w / max_pixels as f64).sqrt();
                (tall, wide) = (((h / beta / of).floor() * of).max(of), ((w / beta / of).floor() * of).max(of));
            } else if tall * wide < min_pixels as f64 {
                let beta = (min_pixels as f64 / (h * w)).sqrt();
                (tall, wide) = ((h * beta / of).ceil() * of, (w * beta / of).ceil() * of);
            }
            (tall.max(of) as u32, wide.max(of) as u32)
        }
    }
}

thread_local! {
    // Its buffers are worth keeping: they are as large as a picture.
    static RESIZER: RefCell<Resizer> = RefCell::new(Resizer::new());
}

/// A picture at another size, within 1/255 of Pillow's.
pub fn resize(picture: &RgbImage, height: u32, width: u32, how: Interpolation) -> Result<RgbImage> {
    Ok(resize_window(picture, (height, width), [0, 0, height, width], how)?.0.into_owned())
}

/// What of the picture at another size lies in a window [top, left, height, width], and some pixels around it; the window's place
/// in what is returned comes beside it. What is cut off anyway is never computed.
fn resize_window(
    picture: &RgbImage,
    size: (u32, u32),
    window: [u32; 4],
    how: Interpolation,
) -> Result<(Cow<'_, RgbImage>, [u32; 4])> {
    let [top, left, height, width] = window;
    let axis = |across: bool| if across { (size.1, left, width) } else { (size.0, top, height) };
    // One axis after the other, each rounded to bytes, in the order that Pillow takes; at once would round elsewhere.
    let across = !super::pillow::height_first((picture.height(), picture.width()), size);
    let (once, first) = resize_axis(picture, axis(across), across, how)?;
    let (both, second) = match once {
        Cow::Borrowed(once) => resize_axis(once, axis(!across), !across, how)?,
        Cow::Owned(once) => {
            let (both, second) = resize_axis(&once, axis(!across), !across, how)?;
            let both = if let Cow::Owned(both) = both { Some(both) } else { None };
            (Cow::Owned(both.unwrap_or(once)), second)
        }
    };
    let (left, top) = if across { (first, second) } else { (second, first) };
    Ok((both, [top, left, height, width]))
}

/// One axis brought to `size`; of it `length` pixels from `start` on are wanted: they begin at the place returned.
fn resize_axis(
    picture: &RgbImage,
    (size, start, length): (u32, u32, u32),
    across: bool,
    how: Interpolation,
) -> Result<(Cow<'_, RgbImage>, u32)> {
    let have = if across { picture.width() } else { picture.height() };
    if have == size {
        return Ok((Cow::Borrowed(picture), start));
    }
    let bad = |e: String| Error::Config(format!("cannot resize {have} pixels to {size}: {e}"));
    let filter = match how {
        Interpolation::Nearest => {
            // Pillow adds the scale up from place to place, and where that falls between two pixels its rounding errors decide.
            let scale = f64::from(have) / f64::from(size);
            let places =
                std::iter::successors(Some(scale * 0.5), |at| Some(at + scale)).map(|at| (at as u32).min(have - 1));
            let places: Vec<u32> = places.skip(start as usize).take(length as usize).collect();
            let (width, height) = if across { (length, picture.height()) } else { (picture.width(), length) };
            let near = RgbImage::from_fn(width, height, |x, y| {
                let (x, y) = if across { (places[x as usize], y) } else { (x, places[y as usize]) };
                *picture.get_pixel(x, y)
            });
            return Ok((Cow::Owned(near), 0));
        }
        Interpolation::Bilinear => ResizeAlg::Convolution(FilterType::Bilinear),
        Interpolation::Bicubic => ResizeAlg::Convolution(FilterType::CatmullRom),
        Interpolation::Lanczos => ResizeAlg::Convolution(FilterType::Lanczos3),
    };
    // A filter reaches three pixels of the result to each side at most, and sees nothing beyond the piece that it is given.
    let scale = f64::from(have) / f64::from(size);
    let reach = if scale >= 1.0 { 4 } else { (4.0 / scale).ceil() as u32 };
    let first = start.saturating_sub(reach);
    let last = (start + length + reach).min(size);
    // Rounding must not carry the end over the edge: 224 · (123 / 224) is more than 123.
    let (from, mut span) = (f64::from(first) * scale, f64::from(last - first) * scale);
    while from + span > f64::from(have) {
        span = span.next_down();
    }
    let (width, height) = if across { (last - first, picture.height()) } else { (picture.width(), last - first) };
    let mut to = RgbImage::new(width, height);
    let mut view = Image::from_slice_u8(width, height, to.as_mut(), fast_image_resize::PixelType::U8x3)
        .map_err(|e| bad(e.to_string()))?;
    let options = ResizeOptions::new().resize_alg(filter).use_alpha(false);
    let options = if across {
        options.crop(from, 0.0, span, f64::from(height))
    } else {
        options.crop(0.0, from, f64::from(width), span)
    };
    RESIZER.with_borrow_mut(|resizer| resizer.resize(picture, &mut view, &options)).map_err(|e| bad(e.to_string()))?;
    Ok((Cow::Owned(to), start - first))
}

/// `height` × `width` out of the middle; black where the picture is smaller (torchvision's rounding).
pub fn center_crop(picture: &RgbImage, height: u32, width: u32) -> RgbImage {
    crop(picture, height, width, false)
}

fn crop(picture: &RgbImage, height: u32, width: u32, down: bool) -> RgbImage {
    let offset = |have: u32, want: u32| if down { i64::from((have - want) / 2) } else { offset(have, want) };
    let small = picture.height() < height || picture.width() < width;
    let (pad_y, pad_x) = if small {
        (i64::from(height.saturating_sub(picture.height()) / 2), i64::from(width.saturating_sub(picture.width()) / 2))
    } else {
        (0, 0)
    };
    let top = if picture.height() < height { -pad_y } else { offset(picture.height(), height) };
    let left = if picture.width() < width { -pad_x } else { offset(picture.width(), width) };
    RgbImage::from_fn(width, height, |x, y| {
        let (from_x, from_y) = (i64::from(x) + left, i64::from(y) + top);
        match (u32::try_from(from_x), u32::try_from(from_y)) {
            (Ok(fx), Ok(fy)) if fx < picture.width() && fy < picture.height() => *picture.get_pixel(fx, fy),
            _ => image::Rgb([0; 3]),
        }
    })
}

/// `(value / 255 − mean) / std` for each channel: `[3, height, width]`.
pub fn normalize(picture: &RgbImage, mean: [f32; 3], std: [f32; 3]) -> Result<Tensor> {
    normalize_window(picture, [0, 0, picture.height(), picture.width()], mean, std)
}

/// The same of the window [top, left, height, width], which lies within the picture.
fn normalize_window(
    picture: &RgbImage,
    [top, left, height, width]: [u32; 4],
    mean: [f32; 3],
    std: [f32; 3],
) -> Result<Tensor> {
    let stride = 3 * picture.width() as usize;
    let (from, length) = (3 * left as usize, 3 * width as usize);
    let rows = || {
        picture
            .as_raw()
            .chunks_exact(stride)
            .skip(top as usize)
            .take(height as usize)
            .map(move |row| &row[from..from + length])
    };
    let mut out = Vec::with_capacity(3 * height as usize * width as usize);
    for channel in 0..3 {
        // One table look-up a value instead of a division.
        let table: [f32; 256] = std::array::from_fn(|v| (v as f32 / 255.0 - mean[channel]) / std[channel]);
        for row in rows() {
            out.extend(row.chunks_exact(3).map(|pixel| table[usize::from(pixel[channel])]));
        }
    }
    Ok(Tensor::from_vec(&out, &[3, i64::from(height), i64::from(width)])?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_can_be_brought_to_every_usual_one_whole_or_in_part() {
        for have in 1..1500u32 {
            for size in [1, 7, 32, 48, 96, 112, 224, 255, 256, 299, 336, 384, 518] {
                let across = RgbImage::new(have, 1);
                assert_eq!(resize(&across, 1, size, Interpolation::Bilinear).unwrap().dimensions(), (size, 1));
                let (start, length) = (size / 3, size - size / 2 - size / 3);
                for across in [true, false] {
                    let picture = if across { RgbImage::new(have, 1) } else { RgbImage::new(1, have) };
                    resize_axis(&picture, (size, start, length), across, Interpolation::Bicubic).unwrap();
                    resize_axis(&picture, (size, size - 1, 1), across, Interpolation::Bicubic).unwrap();
                }
            }
        }
    }
}
