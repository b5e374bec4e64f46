//! Vector images: svg and svgz.

use crate::bytes::{catching_library_panics, select};
use flate2::{Compression, write::GzEncoder};
use mm_data::decode::{ImageLimits, decode_image_bytes};
use std::io::Write;

enum Kind {
    Plain,
    /// The input is compressed before it is read, since libFuzzer finds no checksums.
    Compressed,
}

/// Renders a vector image.
pub fn read(input: &[u8]) {
    let Some((kind, bytes)) = select(&[Kind::Plain, Kind::Compressed], input) else { return };
    let limits = ImageLimits { max_pixels: 1 << 20, svg_width: 64, ..ImageLimits::default() };
    let file = match kind {
        Kind::Plain => bytes.to_vec(),
        Kind::Compressed => {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(bytes).expect("a vector can be written");
            encoder.finish().expect("a vector can be written")
        }
    };
    catching_library_panics(|| {
        if let Ok(image) = decode_image_bytes(&file, &limits) {
            assert!(u64::from(image.width()) * u64::from(image.height()) <= limits.max_pixels);
        }
    });
}
