//! Images: png, jpeg, gif, webp, bmp, tiff.

use crate::bytes::catching_library_panics;
use mm_data::decode::{ImageLimits, decode_image_bytes};

/// Decodes an image of at most a million pixels.
pub fn read(input: &[u8]) {
    let limits = ImageLimits { max_pixels: 1 << 20, svg_width: 64, ..ImageLimits::default() };
    catching_library_panics(|| {
        if let Ok(image) = decode_image_bytes(input, &limits) {
            let pixels = u64::from(image.width()) * u64::from(image.height());
            assert!(pixels > 0 && pixels <= limits.max_pixels);
        }
    });
}
