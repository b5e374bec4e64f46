//! Audio files → samples in [−1, 1]: wav by hound; flac, mp3, ogg and m4a by symphonia; the audio track of a video by
//! ffmpeg.

use super::{ffmpeg, resample};
use crate::{Error, Result};
use std::{ffi::OsStr, path::Path};

/// The longest audio that is decoded, in seconds.
const MAX_SECONDS: usize = 3600;

/// Mono audio.
#[derive(Debug, Clone, PartialEq)]
pub struct Audio {
    /// The samples, in [−1, 1].
    pub samples: Vec<f32>,
    /// Samples per second.
    pub sample_rate: u32,
}

impl Audio {
    /// Duration in seconds.
    pub fn seconds(&self) -> f64 {
        self.samples.len() as f64 / f64::from(self.sample_rate.max(1))
    }
}

/// Decodes an audio file, or the audio track of a video, averages its channels and resamples it to `sample_rate`;
/// `None` keeps the file's own rate (16 kHz for a video).
///
/// # Errors
/// When the file cannot be read or decoded, has no samples, is longer than an hour, or has samples that are not finite.
pub fn decode_audio(path: &Path, sample_rate: Option<u32>) -> Result<Audio> {
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or("").to_ascii_lowercase();
    if ["mp4", "mkv", "webm", "mov", "avi"].contains(&extension.as_str()) {
        return decode_audio_track(path, sample_rate.unwrap_or(16_000));
    }
    let bytes = std::fs::read(path).map_err(|e| Error::file(path, format!("cannot be read: {e}")))?;
    let bad = |e: String| Error::file(path, e);
    if bytes.is_empty() {
        return Err(bad("the file is empty".into()));
    }
    let audio = match wav(&bytes) {
        Some(result) => result,
        None => compressed(bytes, path.extension().and_then(|e| e.to_str())),
    }
    .map_err(bad)?;
    if audio.samples.is_empty() || audio.sample_rate == 0 {
        return Err(bad("audio without samples".into()));
    }
    if let Some(index) = audio.samples.iter().position(|s| !s.is_finite()) {
        return Err(bad(format!("sample {index}: found {}, expected a finite value", audio.samples[index])));
    }
    match sample_rate {
        Some(sample_rate) => resample(&audio, sample_rate).map_err(bad),
        None => Ok(audio),
    }
}

/// Decodes a wav; `None` for other formats and for compressed wavs, which hound does not support.
fn wav(bytes: &[u8]) -> Option<Result<Audio, String>> {
    if !bytes.starts_with(b"RIFF") {
        return None;
    }
    let reader = match hound::WavReader::new(bytes) {
        Ok(reader) => reader,
        Err(hound::Error::Unsupported) => return None,
        Err(error) => return Some(Err(format!("damaged wav: {error}"))),
    };
    let spec = reader.spec();
    let scale = 1.0 / 2f32.powi(i32::from(spec.bits_per_sample) - 1);
    let samples: Result<Vec<f32>, hound::Error> = match spec.sample_format {
        hound::SampleFormat::Float => reader.into_samples::<f32>().collect(),
        hound::SampleFormat::Int => reader.into_samples::<i32>().map(|s| s.map(|v| v as f32 * scale)).collect(),
    };
    Some(match samples {
        Ok(samples) => {
            mono(&samples, usize::from(spec.channels)).map(|samples| Audio { samples, sample_rate: spec.sample_rate })
        }
        Err(error) => Err(format!("damaged wav: {error}")),
    })
}

/// The mean over the channels of interleaved samples.
fn mono(interleaved: &[f32], channels: usize) -> Result<Vec<f32>, String> {
    match channels {
        0 => Err("audio without channels".into()),
        1 => Ok(interleaved.to_vec()),
        n => Ok(interleaved.chunks_exact(n).map(|frame| frame.iter().sum::<f32>() / n as f32).collect()),
    }
}

#[cfg(feature = "compressed-audio")]
fn compressed(bytes: Vec<u8>, extension: Option<&str>) -> Result<Audio, String> {
    use symphonia::core::{
        audio::SampleBuffer, codecs::CODEC_TYPE_NULL, errors::Error as SymphoniaError, formats::FormatOptions,
        io::MediaSourceStream, probe::Hint,
    };
    let mut hint = Hint::new();
    if let Some(extension) = extension {
        hint.with_extension(extension);
    }
    let stream = MediaSourceStream::new(Box::new(std::io::Cursor::new(bytes)), Default::default());
    // Gapless: the padding that the encoder added at both ends is removed.
    let options = FormatOptions { enable_gapless: true, ..FormatOptions::default() };
    let probed = symphonia::default::get_probe().format(&hint, stream, &options, &Default::default());
    let mut format = probed.map_err(|e| format!("not audio of a supported format ({e})"))?.format;
    let track = format
        .tracks()
        .iter()
        .find(|t| t.codec_params.codec != CODEC_TYPE_NULL)
        .ok_or("a file without an audio track")?;
    let (id, codec) = (track.id, track.codec_params.clone());
    let mut decoder = symphonia::default::get_codecs()
        .make(&codec, &Default::default())
        .map_err(|e| format!("audio with an unsupported codec ({e})"))?;
    let (mut samples, mut sample_rate, mut failed_packets) = (Vec::new(), codec.sample_rate.unwrap_or(0), 0usize);
    loop {
        let packet = match format.next_packet() {
            Ok(packet) => packet,
            Err(SymphoniaError::IoError(e)) if e.kind() == std::io::ErrorKind::UnexpectedEof => break,
            Err(SymphoniaError::ResetRequired) => break,
            Err(error) => return Err(format!("damaged audio: {error}")),
        };
        if packet.track_id() != id {
            continue;
        }
        match decoder.decode(&packet) {
            Ok(decoded) => {
                let spec = *decoded.spec();
                sample_rate = spec.rate;
                let mut buffer = SampleBuffer::<f32>::new(decoded.capacity() as u64, spec);
                buffer.copy_interleaved_ref(decoded);
                samples.extend(mono(buffer.samples(), spec.channels.count())?);
                if samples.len() > MAX_SECONDS * sample_rate.max(1) as usize {
                    return Err(format!(
                        "found more than {MAX_SECONDS} seconds of audio, expected at most that; split the file"
                    ));
                }
            }
            Err(SymphoniaError::DecodeError(_)) => failed_packets += 1,
            Err(error) => return Err(format!("damaged audio: {error}")),
        }
    }
    if samples.is_empty() && failed_packets > 0 {
        return Err(format!("damaged audio: none of its {failed_packets} packets could be decoded"));
    }
    Ok(Audio { samples, sample_rate })
}

#[cfg(not(feature = "compressed-audio"))]
fn compressed(_: Vec<u8>, _: Option<&str>) -> Result<Audio, String> {
    Err("not an uncompressed wav, the only format of this build; build mm-data with its `compressed-audio` feature"
        .into())
}

/// Decodes the audio track of a video, as mono at `sample_rate`.
///
/// # Errors
/// When the file has no audio track, or ffmpeg is not found or cannot decode it.
pub fn decode_audio_track(path: &Path, sample_rate: u32) -> Result<Audio> {
    let rate_text = sample_rate.to_string();
    let flags = ["-loglevel", "error", "-i"].map(OsStr::new);
    let output = ["-vn", "-ac", "1", "-ar", &rate_text, "-f", "f32le", "-"].map(OsStr::new);
    let arguments: Vec<_> = flags.into_iter().chain([path.as_os_str()]).chain(output).collect();
    let output = ffmpeg::run(path, &arguments)?;
    if output.stdout.is_empty() {
        let reason = output.first_line("the video has none");
        return Err(Error::file(path, format!("no audio track: {reason}")));
    }
    let samples = output.stdout.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    Ok(Audio { samples, sample_rate })
}

/// Writes audio as a mono 16-bit wav; samples outside [−1, 1] are clipped.
pub fn write_wav(path: &Path, audio: &Audio) -> Result<()> {
    let spec = hound::WavSpec {
        channels: 1,
        sample_rate: audio.sample_rate,
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    };
    let bad = |e: hound::Error| Error::file(path, e);
    let mut writer = hound::WavWriter::create(path, spec).map_err(bad)?;
    for sample in &audio.samples {
        writer.write_sample((sample.clamp(-1.0, 1.0) * 32767.0).round() as i16).map_err(bad)?;
    }
    writer.finalize().map_err(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wavs_round_trip_and_damaged_ones_are_errors() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.wav");
        let audio = Audio { samples: vec![0.0, 0.5, -0.5, 0.25], sample_rate: 8000 };
        write_wav(&path, &audio).unwrap();
        let read = decode_audio(&path, None).unwrap();
        assert!(read.samples.iter().zip(&audio.samples).all(|(a, b)| (a - b).abs() < 1e-4));
        write_wav(&path, &Audio { samples: vec![], sample_rate: 8000 }).unwrap();
        assert!(decode_audio(&path, None).unwrap_err().to_string().contains("without samples"));
        std::fs::write(&path, b"RIFFxxxxWAVEjunk").unwrap();
        assert!(decode_audio(&path, None).unwrap_err().to_string().contains("damaged wav"));
        std::fs::write(&path, b"hello").unwrap();
        assert!(decode_audio(&path, None).is_err());
    }
}
