//! Recordings, decoded once within limits, so that their length is known before they are computed with.

use crate::error::ApiError;
use mm_core::{Cause, DecodedAudio, EncodedFile, Source, describe_error};
use mm_data::{
    decode::{Audio, AudioLimits, AudioTooLong, decode_audio_bytes_within, decode_audio_within},
    is_video_container, with_path,
};

/// Samples per second that a recording of the greatest length may have: a longer one of a higher rate would take more
/// memory, and few models hear more.
const MAX_SAMPLE_RATE: f64 = 48_000.0;

/// The decoded samples of a recording, and its length in seconds. Decoding ends at `max_seconds`.
pub(crate) fn decode_recording(file: &EncodedFile, param: &str, max_seconds: f64) -> Result<(Source, f64), ApiError> {
    let audio = decode_within(file, param, max_seconds)?;
    let seconds = audio.seconds();
    Ok((Source::Samples(DecodedAudio::new(audio.samples, audio.sample_rate)?), seconds))
}

/// A recording for a model that takes its sound at a rate of its own, and its length in seconds. Decoding ends at
/// `max_seconds`. Of a video it is the file itself, whose sound ffmpeg decodes at the model's rate.
pub(crate) fn limited_recording(source: Source, param: &str, max_seconds: f64) -> Result<(Source, f64), ApiError> {
    let Source::Bytes(file) = &source else { return Ok((source, 0.0)) };
    // mm-data has ffmpeg decode the sound of these.
    let is_video = file.read().map(|bytes| is_video_container(&bytes));
    if !is_video.map_err(|error| ApiError::from(error).with_param(param))? {
        return decode_recording(file, param, max_seconds);
    }
    let seconds = decode_within(file, param, max_seconds)?.seconds();
    Ok((source, seconds))
}

fn decode_within(file: &EncodedFile, param: &str, max_seconds: f64) -> Result<Audio, ApiError> {
    let bytes = file.read().map_err(|error| ApiError::from(error).with_param(param))?;
    let max_seconds = max_seconds.min(AudioLimits::default().max_seconds);
    let limits = AudioLimits { max_seconds, max_samples: (max_seconds * MAX_SAMPLE_RATE) as usize };
    decode(file, &bytes, &limits).map_err(|cause| refusal(&cause, param, max_seconds))
}

/// Decodes an audio file, or the sound of a video file: browsers record WebM.
fn decode(file: &EncodedFile, bytes: &[u8], limits: &AudioLimits) -> Result<Audio, Cause> {
    let decoded = decode_audio_bytes_within(bytes, None, limits);
    if !is_video_container(bytes) || decoded.as_ref().err().is_none_or(|cause| cause.is::<AudioTooLong>()) {
        return decoded;
    }
    let source = Source::Bytes(file.clone());
    with_path(&source, "an audio file", |path| decode_audio_within(path, None, limits)).map_err(|error| match error {
        mm_data::Error::File { source, .. } if source.is::<AudioTooLong>() => source,
        error => describe_error(&error).into(),
    })
}

/// Why a recording is not computed with.
fn refusal(cause: &Cause, param: &str, max_seconds: f64) -> ApiError {
    match cause.downcast_ref::<AudioTooLong>() {
        Some(AudioTooLong { limit }) => {
            let expected = format!("at most {max_seconds} s, at up to 48 kHz (limits.max_audio_seconds)");
            ApiError::too_large(param, format!("more than {limit} of audio"), expected)
        }
        None => ApiError::invalid(param, cause, "a recording"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use mm_data::decode::write_wav;

    fn recording(seconds: f64) -> Source {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.wav");
        let samples = vec![0.25; (seconds * 8000.0) as usize];
        write_wav(&path, &Audio { samples, sample_rate: 8000 }).unwrap();
        Source::Bytes(EncodedFile::in_memory("audio", std::fs::read(path).unwrap()))
    }

    #[test]
    fn a_recording_for_any_model_is_decoded_within_the_limit() {
        let (source, seconds) = limited_recording(recording(1.5), "audio", 2.0).unwrap();
        assert!(matches!(&source, Source::Samples(audio) if audio.samples().len() == 12_000), "{source:?}");
        assert!((seconds - 1.5).abs() < 1e-9);
        let error = limited_recording(recording(2.5), "audio", 2.0).unwrap_err();
        assert_eq!(error.kind, Kind::TooLarge);
        assert!(error.message().contains("audio: found more than 2 seconds of audio"), "{error:?}");
        let broken = Source::Bytes(EncodedFile::in_memory("audio", b"not audio".to_vec()));
        assert_eq!(limited_recording(broken, "audio", 2.0).unwrap_err().kind, Kind::Invalid);
    }

    #[test]
    fn files_that_may_hold_a_video_are_those_of_containers() {
        for (bytes, is_read) in [
            (&b"\x1a\x45\xdf\xa3 webm"[..], true),
            (b"\0\0\0\x20ftypisom", true),
            (b"\0\0\0\x20ftypM4A ", false),
            (b"RIFF\0\0\0\0AVI LIST", true),
            (b"RIFF\0\0\0\0WAVEfmt ", false),
            (b"OggS", false),
            (b"", false),
        ] {
            assert_eq!(is_video_container(bytes), is_read, "{bytes:?}");
        }
    }
}
