//! Recordings, decoded once within limits, so that their length is known before they are computed with.

use crate::error::ApiError;
use mm_core::{Cause, DecodedAudio, EncodedFile, Source, describe_error};
use mm_data::{
    decode::{Audio, AudioLimits, AudioTooLong, decode_audio_bytes_within, decode_audio_within},
    with_path,
};

/// Samples per second that a recording of the greatest length may have: a longer one of a higher rate would take more
/// memory, and few models hear more.
const MAX_SAMPLE_RATE: f64 = 48_000.0;

/// The decoded samples of a recording, and its length in seconds. Decoding ends at `max_seconds`.
pub(crate) fn decode_recording(file: &EncodedFile, param: &str, max_seconds: f64) -> Result<(Source, f64), ApiError> {
    let bytes = file.read().map_err(|error| ApiError::from(error).with_param(param))?;
    let max_seconds = max_seconds.min(AudioLimits::default().max_seconds);
    let limits = AudioLimits { max_seconds, max_samples: (max_seconds * MAX_SAMPLE_RATE) as usize };
    let audio = decode(file, &bytes, &limits).map_err(|cause| refusal(&cause, param, max_seconds))?;
    let seconds = audio.seconds();
    Ok((Source::Samples(DecodedAudio::new(audio.samples, audio.sample_rate)?), seconds))
}

/// Decodes an audio file, or the sound of a video file: browsers record WebM.
fn decode(file: &EncodedFile, bytes: &[u8], limits: &AudioLimits) -> Result<Audio, Cause> {
    let is_video = bytes.starts_with(b"\x1a\x45\xdf\xa3") || bytes.get(4..8) == Some(b"ftyp");
    let decoded = decode_audio_bytes_within(bytes, None, limits);
    if !is_video || decoded.as_ref().err().is_none_or(|cause| cause.is::<AudioTooLong>()) {
        return decoded;
    }
    let source = Source::Bytes(file.clone());
    with_path(&source, "an audio file", |path| decode_audio_within(path, None, limits)).map_err(|error| match error {
        mm_data::Error::File { source, .. } if source.is::<AudioTooLong>() => source,
        error => describe_error(&error).into(),
    })
}

/// Why a recording is not transcribed.
fn refusal(cause: &Cause, param: &str, max_seconds: f64) -> ApiError {
    match cause.downcast_ref::<AudioTooLong>() {
        Some(AudioTooLong { limit }) => {
            let expected = format!("at most {max_seconds} s, at up to 48 kHz (limits.max_audio_seconds)");
            ApiError::too_large(param, format!("more than {limit} of audio"), expected)
        }
        None => ApiError::invalid(param, cause, "a recording"),
    }
}
