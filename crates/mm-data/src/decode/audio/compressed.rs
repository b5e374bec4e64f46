//! FLAC, Ogg, M4A and compressed WAV by symphonia; MP3 by its frames.

#![cfg_attr(not(feature = "compressed-audio"), allow(clippy::needless_pass_by_value))]

use super::{Audio, limits::AudioLimits};
use mm_core::Cause;

#[cfg(not(feature = "compressed-audio"))]
pub(super) fn decode(_: Vec<u8>, _: &AudioLimits) -> Result<Audio, Cause> {
    Err("not an uncompressed wav, the only format of this build; build mm-data with its `compressed-audio` feature"
        .into())
}

/// Decodes audio in any format but uncompressed wav.
#[cfg(feature = "compressed-audio")]
pub(super) fn decode(bytes: Vec<u8>, limits: &AudioLimits) -> Result<Audio, Cause> {
    use super::{
        flac, mp3, mp3_frames, mp4, ogg,
        parts::Parts,
        symphonia_reader::{Container, decode_into},
    };

    let mut parts = Parts::new(limits);
    // FLAC may have tags of an MP3 before it.
    let start = mp3_frames::skip_tags(&bytes, 0);
    if bytes[start..].starts_with(b"fLaC") {
        for stream in flac::streams(&bytes[start..]) {
            flac::decode(stream, &mut parts)?;
        }
        return parts.join();
    }
    if bytes.starts_with(b"OggS") {
        for file in ogg::files(&bytes)? {
            decode_into(bytes[file].to_vec(), Container::Ogg, &mut parts)?;
        }
        return parts.join();
    }
    if bytes.get(4..8) == Some(b"ftyp") {
        mp4::check_tables(&bytes)?;
        let track = mp4::audio_track(&bytes);
        let decoded = decode_into(bytes, Container::Mp4, &mut parts)?;
        return match track {
            Some(track) => track.present(parts.join()?, decoded.expected, limits),
            None => parts.join(),
        };
    }
    if bytes.starts_with(b"RIFF") {
        decode_into(bytes, Container::Wav, &mut parts)?;
        return parts.join();
    }
    let frames = mp3_frames::Frames::find(&bytes);
    if !frames.frames.is_empty() {
        return mp3::decode(&bytes, &frames, parts);
    }
    // The first bits of a frame of AAC without a container.
    if matches!(bytes[start..], [0xFF, second, ..] if second & 0xF6 == 0xF0) {
        decode_into(bytes[start..].to_vec(), Container::Adts, &mut parts)?;
        return parts.join();
    }
    Err("not audio of a supported format (wav, flac, mp3, ogg, m4a, aac)".into())
}
