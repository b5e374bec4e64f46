//! Raw values that are files, wherever their bytes are: on disk or inside a table.

use crate::{
    Error, Result,
    decode::{Audio, ImageLimits, decode_audio, decode_image, decode_image_bytes, resample},
    fetch::is_fetchable,
    file_type::{FILE_EXTENSIONS, sniff},
};
use image::RgbImage;
use mm_core::{EncodedFile, Source};
use std::{
    io::Write,
    path::{Path, PathBuf},
};

/// A raw value in messages: the path of a file, the name of one inside a table, else the value itself.
pub fn source_name(source: &Source) -> String {
    match source {
        Source::Text(text) => text.clone(),
        Source::Path(path) => path.display().to_string(),
        Source::Bytes(file) => file.name().to_owned(),
        other => other.json().map_or_else(|| format!("{other:?}"), |value| value.to_string()),
    }
}

/// The raw value that a person writes for a modality, on a command line for instance: text is itself; images, audio and
/// video are paths; for any other modality the path of a file that exists, else JSON, else a JSON string.
///
/// ```
/// use mm_core::Source;
/// assert_eq!(mm_data::parse_source("text", "a dog"), Source::Text("a dog".into()));
/// assert_eq!(mm_data::parse_source("image", "a.png"), Source::Path("a.png".into()));
/// assert_eq!(mm_data::parse_source("readings", "[1, 2]"), Source::Value(serde_json::json!([1, 2])));
/// ```
pub fn parse_source(modality: &str, text: &str) -> Source {
    let is_file = FILE_EXTENSIONS.iter().any(|(known, _)| *known == modality) || Path::new(text).is_file();
    match modality {
        "text" => Source::Text(text.to_owned()),
        _ if is_file => Source::Path(PathBuf::from(text)),
        _ => Source::Value(serde_json::from_str(text).unwrap_or_else(|_| text.into())),
    }
}

/// Decodes an image, from a path or from bytes; a decoded one is copied.
///
/// # Errors
/// Those of [`decode_image`](crate::decode::decode_image); also when the value is no file.
pub fn decode_image_source(source: &Source, limits: &ImageLimits) -> Result<RgbImage> {
    match source {
        Source::Bytes(file) => decode_image_bytes(&file.read()?, limits).map_err(|e| Error::file(file.name(), e)),
        Source::Image(image) => RgbImage::from_raw(image.width(), image.height(), image.rgb().to_vec())
            .ok_or_else(|| Error::Config(format!("{image:?}: its pixels do not fit its size"))),
        other => decode_image(path_of(other, "an image")?, limits),
    }
}

/// Decodes an audio file, or the audio track of a video, from a path or from bytes; decoded audio is resampled.
///
/// # Errors
/// Those of [`decode_audio`](crate::decode::decode_audio); also when the value is no file.
pub fn decode_audio_source(source: &Source, sample_rate: Option<u32>) -> Result<Audio> {
    let Source::Samples(decoded) = source else {
        return with_path(source, "an audio file", |path| decode_audio(path, sample_rate));
    };
    let audio = Audio { samples: decoded.samples().to_vec(), sample_rate: decoded.sample_rate() };
    match sample_rate {
        Some(rate) => resample(&audio, rate).map_err(|e| Error::Config(format!("{decoded:?}: {e}"))),
        None => Ok(audio),
    }
}

/// Calls `read` with the path of a file; bytes are written into a temporary file for it, a remote file is fetched.
/// `what` names the expected file in the error ("a video").
///
/// # Errors
/// When the value is no file, and what `read` returns.
pub fn with_path<T>(source: &Source, what: &str, read: impl FnOnce(&Path) -> Result<T>) -> Result<T> {
    let Source::Bytes(file) = source else { return read(path_of(source, what)?) };
    if let Some(path) = file.path()? {
        return read(&path).map_err(|error| named_after(file, &path, error));
    }
    let failed = |e: std::io::Error| Error::file(file.name(), format!("no temporary file for its bytes: {e}"));
    let bytes = file.read()?;
    let extension = sniff(&bytes).map(|e| format!(".{e}"));
    let of_name = Path::new(file.name()).extension().and_then(|e| e.to_str()).map(|e| format!(".{e}"));
    let suffix = extension.or(of_name).unwrap_or_default();
    let mut copy = tempfile::Builder::new().suffix(&suffix).tempfile().map_err(failed)?;
    copy.write_all(&bytes).map_err(failed)?;
    read(copy.path()).map_err(|error| named_after(file, copy.path(), error))
}

/// An error about a copy of a file, with the name of the file: the copy's path says nothing to the user.
fn named_after(file: &EncodedFile, copy: &Path, error: Error) -> Error {
    match error {
        Error::File { path, source } if path == copy => Error::file(file.name(), source),
        other => other,
    }
}

/// The path of a value that must be a file on disk.
fn path_of<'a>(source: &'a Source, what: &str) -> Result<&'a Path> {
    let sample = |reason: String| Error::Core(mm_core::Error::Sample(reason));
    match source {
        Source::Path(path) => match path.to_str().and_then(|p| p.split_once("://")) {
            Some((scheme, _)) if !path.exists() => {
                let hint = if is_fetchable(&path.to_string_lossy()) {
                    "URLs in tables are fetched with --fetch-urls (data.fetch_urls = true in a config); else download it"
                } else {
                    "mm fetches http and https alone, and those only from tables: download it"
                };
                let path = path.display();
                Err(sample(format!("{path}: found a URL ({scheme}), expected a file; {hint} and name the file")))
            }
            _ => Ok(path),
        },
        Source::Text(text) => {
            let start: String = text.chars().take(80).collect();
            Err(sample(format!("found the text {start:?}, expected the path of {what}")))
        }
        Source::Bytes(file) => Err(sample(format!("{}: found bytes, expected the path of {what}", file.name()))),
        other => {
            let start: String = source_name(other).chars().take(80).collect();
            Err(sample(format!("found {start}, expected the path of {what}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm_core::{DecodedAudio, DecodedImage};

    #[test]
    fn decoded_values_need_no_file() {
        let image = Source::from(DecodedImage::new(2, 1, vec![1, 2, 3, 4, 5, 6]).unwrap());
        let pixels = decode_image_source(&image, &ImageLimits::default()).unwrap();
        assert_eq!((pixels.dimensions(), pixels.into_raw()), ((2, 1), vec![1, 2, 3, 4, 5, 6]));
        let audio = Source::from(DecodedAudio::new(vec![0.25; 8000], 8000).unwrap());
        assert_eq!(decode_audio_source(&audio, None).unwrap().samples, vec![0.25; 8000]);
        let resampled = decode_audio_source(&audio, Some(16_000)).unwrap();
        assert_eq!((resampled.samples.len(), resampled.sample_rate), (16_000, 16_000));
        assert!((resampled.samples[8000] - 0.25).abs() < 1e-3);
        let error = decode_image_source(&audio, &ImageLimits::default()).unwrap_err().to_string();
        assert!(
            error.contains("8000 samples at 8000 Hz") && error.contains("expected the path of an image"),
            "{error}"
        );
    }
}
