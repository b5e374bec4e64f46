//! Resize, crop, normalise: a picture → `[3, height, width]`.

use crate::{Error, Result};
use fast_image_resize::{FilterType, ResizeAlg, ResizeOptions, Resizer, images::Image};
use image::RgbImage;
use mm_core::Tensor;
use serde::{Deserialize, Serialize};
use std::cell::RefCell;

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
}

/// What stands between a decoded picture and the model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ImageTransform {
    /// What it is resized to; not at all when absent.
    pub resize: Option<Resize>,
    /// How.
    pub interpolation: Interpolation,
    /// (height, width) cut out of the middle; all of it when absent.
    pub crop: Option<(u32, u32)>,
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
            crop: Some((224, 224)),
            mean: [0.5; 3],
            std: [0.5; 3],
        }
    }
}

impl ImageTransform {
    /// `[3, height, width]` f32.
    pub fn apply(&self, picture: &RgbImage) -> Result<Tensor> {
        let resized;
        let mut picture = picture;
        if let Some(size) = self.resize {
            let (height, width) = target(size, picture.height(), picture.width());
            if (height, width) != (picture.height(), picture.width()) {
                resized = resize(picture, height, width, self.interpolation)?;
                picture = &resized;
            }
        }
        let (height, width) = self.crop.unwrap_or((picture.height(), picture.width()));
        if height > picture.height() || width > picture.width() {
            return normalize(&center_crop(picture, height, width), self.mean, self.std);
        }
        // The middle is read where it lies instead of being copied out first.
        let (top, left) = (offset(picture.height(), height), offset(picture.width(), width));
        normalize_window(picture, [top as u32, left as u32, height, width], self.mean, self.std)
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
    }
}

thread_local! {
    // Its buffers are worth keeping: they are as large as a picture.
    static RESIZER: RefCell<Resizer> = RefCell::new(Resizer::new());
}

/// A picture at another size, within 1/255 of Pillow's.
pub fn resize(picture: &RgbImage, height: u32, width: u32, how: Interpolation) -> Result<RgbImage> {
    let bad = |e: String| {
        Error::Config(format!("cannot resize {}×{} to {width}×{height}: {e}", picture.width(), picture.height()))
    };
    let filter = match how {
        Interpolation::Nearest => ResizeAlg::Nearest,
        Interpolation::Bilinear => ResizeAlg::Convolution(FilterType::Bilinear),
        Interpolation::Bicubic => ResizeAlg::Convolution(FilterType::CatmullRom),
        Interpolation::Lanczos => ResizeAlg::Convolution(FilterType::Lanczos3),
    };
    // Width first, then height, each rounded to bytes, as Pillow does; at once would round elsewhere.
    if how != Interpolation::Nearest && width != picture.width() && height != picture.height() {
        return resize(&resize(picture, picture.height(), width, how)?, height, width, how);
    }
    let mut to = RgbImage::new(width, height);
    let mut view = Image::from_slice_u8(width, height, to.as_mut(), fast_image_resize::PixelType::U8x3)
        .map_err(|e| bad(e.to_string()))?;
    let options = ResizeOptions::new().resize_alg(filter).use_alpha(false);
    RESIZER.with_borrow_mut(|resizer| resizer.resize(picture, &mut view, &options)).map_err(|e| bad(e.to_string()))?;
    Ok(to)
}

/// `height` × `width` out of the middle; black where the picture is smaller (torchvision's rounding).
pub fn center_crop(picture: &RgbImage, height: u32, width: u32) -> RgbImage {
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
