//! JPEG: where the first image of a file ends, and libjpeg-turbo's decoding of it.

#[cfg(feature = "libjpeg")]
use image::{DynamicImage, RgbImage};

/// The bytes of the first image: up to the end marker that belongs to it. Whatever follows is not part of it, such as
/// the video of a motion photo or the second image of a stereo pair.
///
/// # Errors
/// When the image has no end marker. libjpeg would fill what is missing with gray; Pillow rejects such files, and so
/// does mm.
pub(super) fn first_image(bytes: &[u8]) -> Result<&[u8], String> {
    match end_of_first_image(bytes) {
        Some(end) => Ok(&bytes[..end]),
        None => Err(format!(
            "damaged image: the jpeg is cut short; found no end marker (FF D9) of its image in {} bytes",
            bytes.len()
        )),
    }
}

/// Follows the markers from the start of the image, over thumbnails in application segments and over each scan.
fn end_of_first_image(bytes: &[u8]) -> Option<usize> {
    if !bytes.starts_with(&[0xff, 0xd8]) {
        return None;
    }
    let mut at = 2;
    loop {
        // Decoders skip bytes between segments; any number of FF may precede a marker.
        at += bytes.get(at..)?.iter().position(|b| *b == 0xff)?;
        at += bytes.get(at..)?.iter().position(|b| *b != 0xff)?;
        let marker = bytes[at];
        at += 1;
        match marker {
            // The end of the image.
            0xd9 => return Some(at),
            // The start of another image: this one has no end.
            0xd8 => return None,
            // No marker; TEM and the restart markers, which have no length.
            0x00 | 0x01 | 0xd0..=0xd7 => {}
            _ => {
                let length = usize::from(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]));
                at += length.max(2);
                if marker == 0xda {
                    at = end_of_scan(bytes, at)?;
                }
            }
        }
    }
}

/// The position of the first marker after entropy-coded data: FF 00 is a byte of data, and restart markers belong to
/// the scan.
fn end_of_scan(bytes: &[u8], start: usize) -> Option<usize> {
    let mut at = start;
    loop {
        at += bytes.get(at..)?.iter().position(|b| *b == 0xff)?;
        match bytes.get(at + 1)? {
            0x00 | 0xd0..=0xd7 => at += 2,
            0xff => at += 1,
            _ => return Some(at),
        }
    }
}

/// Decodes gray and YCbCr jpegs by libjpeg-turbo, which gives exactly Pillow's pixels; `None` for others.
#[cfg(feature = "libjpeg")]
pub(super) fn decode(bytes: &[u8]) -> Result<Option<DynamicImage>, String> {
    // libjpeg reports errors by unwinding out of C.
    let decode = || -> std::io::Result<Option<DynamicImage>> {
        let decoder = mozjpeg::Decompress::new_mem(bytes)?;
        let (width, height) = (decoder.width() as u32, decoder.height() as u32);
        match decoder.components().len() {
            1 => {
                let pixels = decoder.grayscale()?.read_scanlines::<u8>()?;
                Ok(image::GrayImage::from_raw(width, height, pixels).map(DynamicImage::ImageLuma8))
            }
            3 => {
                let pixels = decoder.rgb()?.read_scanlines::<u8>()?;
                Ok(RgbImage::from_raw(width, height, pixels).map(DynamicImage::ImageRgb8))
            }
            _ => Ok(None),
        }
    };
    match std::panic::catch_unwind(decode) {
        Ok(result) => result.map_err(|e| format!("damaged image: {e}")),
        Err(payload) => {
            let reason = payload.downcast_ref::<String>().map_or("it cannot be decoded", String::as_str);
            Err(format!("damaged image: {reason}"))
        }
    }
}

#[cfg(not(feature = "libjpeg"))]
pub(super) fn decode(_: &[u8]) -> Result<Option<image::DynamicImage>, String> {
    Ok(None)
}

#[cfg(test)]
mod tests {
    use crate::decode::{ImageLimits, decode_image_bytes};

    fn fixture(name: &str) -> Vec<u8> {
        std::fs::read(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)).unwrap()
    }

    /// `jpeg` with `content` in an application segment after its start marker.
    fn with_segment(jpeg: &[u8], content: &[u8]) -> Vec<u8> {
        let length = u16::try_from(content.len() + 2).unwrap().to_be_bytes();
        [&jpeg[..2], &[0xff, 0xe1], &length, content, &jpeg[2..]].concat()
    }

    #[test]
    fn what_follows_the_first_image_changes_nothing() {
        for name in ["photo.jpg", "progressive.jpg", "grey.jpg"] {
            let jpeg = fixture(name);
            let expected = decode_image_bytes(&jpeg, &ImageLimits::default()).unwrap();
            // The bytes of a video may look like any marker, and a thumbnail is an image of its own.
            let video =
                [b"\0\0\0\x18ftypmp42".as_slice(), &[0xff, 0xda, 0, 0xff, 0xd9, 0xff, 0xda, 0xff, 0xd8]].concat();
            for changed in [
                [jpeg.as_slice(), &video].concat(),
                [jpeg.as_slice(), &jpeg].concat(),
                with_segment(&jpeg, &fixture("turned.jpg")),
                [&jpeg[..jpeg.len() - 2], &[0xff, 0xff, 0xff, 0xd9]].concat(),
            ] {
                let found = decode_image_bytes(&changed, &ImageLimits::default()).unwrap();
                assert!(found == expected, "{name}");
            }
        }
    }

    #[test]
    fn a_cut_image_is_an_error_whatever_follows_it() {
        for name in ["photo.jpg", "grey.jpg", "turned.jpg"] {
            let jpeg = fixture(name);
            for cut in [jpeg.len() - 2, jpeg.len() - 1, jpeg.len() * 3 / 4, 20, 3, 2] {
                for followed_by in [&[][..], &jpeg] {
                    let damaged = [&jpeg[..cut], followed_by].concat();
                    assert!(decode_image_bytes(&damaged, &ImageLimits::default()).is_err(), "{name} cut at {cut}");
                }
            }
        }
        let progressive = fixture("progressive.jpg");
        for cut in [progressive.len() - 2, progressive.len() * 3 / 4, progressive.len() / 2] {
            let error = decode_image_bytes(&progressive[..cut], &ImageLimits::default()).unwrap_err();
            assert!(error.contains("the jpeg is cut short"), "{error}");
        }
    }
}
