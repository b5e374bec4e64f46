//! Formats of a transcript, subtitles among them.

use crate::error::{ApiError, shortened};
use mm_reason::pretrained::Segment;
use std::{fmt::Write, str::FromStr};

/// The format of a transcript.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Format {
    #[default]
    Json,
    Text,
    Srt,
    Vtt,
    VerboseJson,
}

impl Format {
    pub(super) fn needs_timestamps(self) -> bool {
        matches!(self, Self::Srt | Self::Vtt | Self::VerboseJson)
    }
}

impl FromStr for Format {
    type Err = ApiError;

    fn from_str(text: &str) -> Result<Self, ApiError> {
        Ok(match text {
            "json" => Self::Json,
            "text" => Self::Text,
            "srt" => Self::Srt,
            "vtt" => Self::Vtt,
            "verbose_json" => Self::VerboseJson,
            other => {
                return Err(ApiError::invalid(
                    "response_format",
                    shortened(other),
                    "json, text, srt, vtt or verbose_json",
                ));
            }
        })
    }
}

/// `hours:minutes:seconds.milliseconds`, with the separator of the format.
fn timestamp(seconds: f64, separator: char) -> String {
    let milliseconds = (seconds.max(0.0) * 1000.0).round() as u64;
    let (hours, minutes, seconds) = (milliseconds / 3_600_000, milliseconds / 60_000 % 60, milliseconds / 1000 % 60);
    format!("{hours:02}:{minutes:02}:{seconds:02}{separator}{:03}", milliseconds % 1000)
}

/// SubRip.
pub(super) fn srt(segments: &[Segment]) -> String {
    let mut out = String::new();
    for (number, segment) in segments.iter().enumerate() {
        let (start, end) = (timestamp(segment.start, ','), timestamp(segment.end, ','));
        let _ = write!(out, "{}\n{start} --> {end}\n{}\n\n", number + 1, segment.text.trim());
    }
    out
}

/// WebVTT.
pub(super) fn vtt(segments: &[Segment]) -> String {
    let mut out = String::from("WEBVTT\n\n");
    for segment in segments {
        let (start, end) = (timestamp(segment.start, '.'), timestamp(segment.end, '.'));
        // An arrow in a cue's text would end it.
        let _ = write!(out, "{start} --> {end}\n{}\n\n", segment.text.trim().replace("-->", "->"));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_become_subtitles() {
        let segments = [Segment { start: 0.0, end: 3661.5, text: " a --> b".into() }];
        assert_eq!(srt(&segments), "1\n00:00:00,000 --> 01:01:01,500\na --> b\n\n");
        assert_eq!(vtt(&segments), "WEBVTT\n\n00:00:00.000 --> 01:01:01.500\na -> b\n\n");
        assert!("xml".parse::<Format>().is_err());
    }
}
