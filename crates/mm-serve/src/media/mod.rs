//! Images, audio and video in requests: data URIs, base64, and URLs where the server allows them.

mod decoding;
mod recording;
mod totals;

pub(crate) use decoding::{prepare, prepare_one, prepare_readable};
pub(crate) use recording::{decode_recording, limited_recording};
pub(crate) use totals::MediaTotals;

use crate::{
    config::Limits,
    error::ApiError,
    fetch::{FetchBudget, RequestLimits},
    state::AppState,
};
use base64::{
    Engine, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use mm_core::{EncodedFile, Modality, Source};
use std::{io::Cursor, time::Duration};

/// Standard base64, with or without padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The values that a request gives among a text, an image, an audio file and a video.
pub(crate) fn given([text, image, audio, video]: [&Option<String>; 4]) -> Vec<(Modality, &str)> {
    let all = [(Modality::TEXT, text), (Modality::IMAGE, image), (Modality::AUDIO, audio), (Modality::VIDEO, video)];
    all.into_iter().filter_map(|(modality, value)| Some((modality, value.as_deref()?))).collect()
}

/// Reads the values of one request, whose files by URL have limits together.
pub(crate) struct ValueReader<'a> {
    state: &'a AppState,
    budget: FetchBudget,
}

impl<'a> ValueReader<'a> {
    /// A reader for one request.
    pub(crate) fn new(state: &'a AppState) -> Self {
        let Limits { max_urls, max_url_bytes, url_seconds, .. } = state.limits;
        let time = Duration::from_secs(url_seconds);
        let budget = FetchBudget::new(RequestLimits { urls: max_urls, bytes: max_url_bytes, time });
        Self { state, budget }
    }

    /// The source of a value: text itself, or the bytes of a file.
    pub(crate) async fn read(&mut self, modality: &Modality, value: &str, param: &str) -> Result<Source, ApiError> {
        if *modality == Modality::TEXT {
            if value.trim().is_empty() {
                return Err(ApiError::invalid(param, "an empty text", "a text"));
            }
            return Ok(Source::Text(value.to_owned()));
        }
        let bytes = read_bytes(self, value, param).await?;
        file_source(&self.state.limits, modality, bytes, param)
    }
}

/// The source of the only value of a request that may be a file; see [`ValueReader`].
pub(crate) async fn read_source(
    state: &AppState,
    modality: &Modality,
    value: &str,
    param: &str,
) -> Result<Source, ApiError> {
    ValueReader::new(state).read(modality, value, param).await
}

/// The source of an uploaded file.
pub(crate) fn file_source(
    limits: &Limits,
    modality: &Modality,
    bytes: Vec<u8>,
    param: &str,
) -> Result<Source, ApiError> {
    if bytes.is_empty() {
        return Err(ApiError::invalid(param, "no bytes", format!("{modality} data")));
    }
    if *modality == Modality::IMAGE {
        check_pixels(limits, &bytes, param)?;
    }
    Ok(Source::Bytes(EncodedFile::in_memory(format!("{param} ({modality})"), bytes)))
}

async fn read_bytes(reader: &mut ValueReader<'_>, value: &str, param: &str) -> Result<Vec<u8>, ApiError> {
    if let Some(rest) = strip_prefix_ignoring_case(value, "data:") {
        let expected = "data:TYPE;base64,DATA";
        let Some((header, data)) = rest.split_once(',') else {
            return Err(ApiError::invalid(param, "a data URI without a comma", expected));
        };
        if !header.to_ascii_lowercase().ends_with(";base64") {
            return Err(ApiError::invalid(param, "a data URI that is not base64", expected));
        }
        return decode_base64(data, param);
    }
    if let Some((scheme, _)) = value.get(..value.len().min(64)).and_then(|start| start.split_once("://")) {
        let url = value.to_owned();
        return match scheme.to_ascii_lowercase().as_str() {
            "http" | "https" => reader.state.urls.fetch(url, param, &mut reader.budget).await,
            other => Err(ApiError::invalid(param, format!("a URL of scheme {other}"), "a data URI, or an http(s) URL")),
        };
    }
    decode_base64(value, param)
}

fn strip_prefix_ignoring_case<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let start = text.get(..prefix.len())?;
    start.eq_ignore_ascii_case(prefix).then(|| &text[prefix.len()..])
}

fn decode_base64(text: &str, param: &str) -> Result<Vec<u8>, ApiError> {
    let has_spaces = text.bytes().any(|byte| byte.is_ascii_whitespace());
    let joined: String;
    let text = if has_spaces {
        joined = text.split_ascii_whitespace().collect();
        &joined
    } else {
        text
    };
    BASE64
        .decode(text)
        .map_err(|error| ApiError::invalid(param, format!("a text that is not base64 ({error})"), "base64"))
}

/// Refuses an image by its header, before its pixels are decoded. Formats without such a header (SVG) are bounded where
/// they are decoded.
fn check_pixels(limits: &Limits, bytes: &[u8], param: &str) -> Result<(), ApiError> {
    let reader = image::ImageReader::new(Cursor::new(bytes)).with_guessed_format();
    let Some((width, height)) = reader.ok().and_then(|reader| reader.into_dimensions().ok()) else { return Ok(()) };
    let pixels = u64::from(width) * u64::from(height);
    if pixels > limits.max_pixels {
        let found = format!("{width} × {height} pixels");
        return Err(ApiError::too_large(param, found, format!("at most {} pixels", limits.max_pixels)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[test]
    fn base64_is_read_with_and_without_padding_and_line_breaks() {
        for text in ["aGk=", "aGk", "aG\nk="] {
            assert_eq!(decode_base64(text, "image").unwrap(), b"hi", "{text}");
        }
        assert_eq!(decode_base64("a-_b", "image").unwrap_err().kind, Kind::Invalid);
    }

    #[test]
    fn an_image_of_too_many_pixels_is_refused_by_its_header() {
        let mut png = Vec::new();
        image::GrayImage::new(30, 20).write_to(&mut Cursor::new(&mut png), image::ImageFormat::Png).unwrap();
        let limits = |max_pixels| Limits { max_pixels, ..Limits::default() };
        assert!(check_pixels(&limits(600), &png, "image").is_ok());
        assert_eq!(check_pixels(&limits(599), &png, "image").unwrap_err().kind, Kind::TooLarge);
        // The pixels themselves need not be there.
        png.truncate(png.len() - 16);
        assert_eq!(check_pixels(&limits(599), &png, "image").unwrap_err().kind, Kind::TooLarge);
    }
}
