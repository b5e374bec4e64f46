//! Sound → samples in [−1, 1] at a wanted rate: wav through hound; flac, mp3, ogg and m4a through symphonia; resampled by rubato.

use crate::{Error, Result};
use std::path::Path;

/// Longest sound that is decoded, in seconds; a longer one is refused with this limit in the message.
const LIMIT_SECONDS: usize = 3600;

/// Sound: one channel, samples in [−1, 1].
#[derive(Debug, Clone, PartialEq)]
pub struct Audio {
    /// The samples.
    pub samples: Vec<f32>,
    /// Samples a second.
    pub sample_rate: u32,
}

impl Audio {
    /// Length in seconds.
    pub fn seconds(&self) -> f64 {
        self.samples.len() as f64 / f64::from(self.sample_rate.max(1))
    }
}

/// A sound file, its channels averaged, at `rate` samples a second (as it is when `None`).
pub fn decode_audio(path: &Path, rate: Option<u32>) -> Result<Audio> {
    let ending = path.extension().and_then(|e| e.to_str()).unwrap_or("").to_ascii_lowercase();
    if ["mp4", "mkv", "webm", "mov", "avi"].contains(&ending.as_str()) {
        // A video's sound track.
        return super::decode_audio_track(path, rate.unwrap_or(16_000));
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
        return Err(bad("a sound without samples".into()));
    }
    if let Some(place) = audio.samples.iter().position(|s| !s.is_finite()) {
        return Err(bad(format!("sample {place} is not a number")));
    }
    match rate {
        Some(rate) => resample(&audio, rate).map_err(bad),
        None => Ok(audio),
    }
}

/// `None` when it is no wav that hound reads (compressed wavs go the other way).
fn wav(bytes: &[u8]) -> Option<Result<Audio, String>> {
    if !bytes.starts_with(b"RIFF") {
        return None;
    }
    let reader = match hound::WavReader::new(bytes) {
        Ok(reader) => reader,
        Err(hound::Error::Unsupported) => return None,
        Err(error) => return Some(Err(format!("a broken wav: {error}"))),
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
        Err(error) => Err(format!("a broken wav: {error}")),
    })
}

fn mono(interleaved: &[f32], channels: usize) -> Result<Vec<f32>, String> {
    match channels {
        0 => Err("a sound without channels".into()),
        1 => Ok(interleaved.to_vec()),
        n => Ok(interleaved.chunks_exact(n).map(|frame| frame.iter().sum::<f32>() / n as f32).collect()),
    }
}

#[cfg(feature = "compressed-audio")]
fn compressed(bytes: Vec<u8>, ending: Option<&str>) -> Result<Audio, String> {
    use symphonia::core::{
        audio::SampleBuffer, codecs::CODEC_TYPE_NULL, errors::Error as SymphoniaError, formats::FormatOptions,
        io::MediaSourceStream, probe::Hint,
    };
    let mut hint = Hint::new();
    if let Some(ending) = ending {
        hint.with_extension(ending);
    }
    let stream = MediaSourceStream::new(Box::new(std::io::Cursor::new(bytes)), Default::default());
    // Gapless: what the encoder added before and after the sound is cut off.
    let options = FormatOptions { enable_gapless: true, ..FormatOptions::default() };
    let probed = symphonia::default::get_probe().format(&hint, stream, &options, &Default::default());
    let mut format = probed.map_err(|e| format!("not a sound of a kind that mm reads ({e})"))?.format;
    let track =
        format.tracks().iter().find(|t| t.codec_params.codec != CODEC_TYPE_NULL).ok_or("a file without sound")?;
    let (id, codec) = (track.id, track.codec_params.clone());
    let mut decoder = symphonia::default::get_codecs()
        .make(&codec, &Default::default())
        .map_err(|e| format!("a sound of a kind that mm does not read ({e})"))?;
    let (mut samples, mut rate, mut broken) = (Vec::new(), codec.sample_rate.unwrap_or(0), 0usize);
    loop {
        let packet = match format.next_packet() {
            Ok(packet) => packet,
            Err(SymphoniaError::IoError(e)) if e.kind() == std::io::ErrorKind::UnexpectedEof => break,
            Err(SymphoniaError::ResetRequired) => break,
            Err(error) => return Err(format!("a broken sound: {error}")),
        };
        if packet.track_id() != id {
            continue;
        }
        match decoder.decode(&packet) {
            Ok(decoded) => {
                let spec = *decoded.spec();
                rate = spec.rate;
                let mut buffer = SampleBuffer::<f32>::new(decoded.capacity() as u64, spec);
                buffer.copy_interleaved_ref(decoded);
                samples.extend(mono(buffer.samples(), spec.channels.count())?);
                if samples.len() > LIMIT_SECONDS * rate.max(1) as usize {
                    return Err(format!("a sound of more than {LIMIT_SECONDS} seconds; cut it into pieces"));
                }
            }
            Err(SymphoniaError::DecodeError(_)) => broken += 1,
            Err(error) => return Err(format!("a broken sound: {error}")),
        }
    }
    if samples.is_empty() && broken > 0 {
        return Err(format!("a broken sound: none of its {broken} packets could be decoded"));
    }
    Ok(Audio { samples, sample_rate: rate })
}

#[cfg(not(feature = "compressed-audio"))]
fn compressed(_: Vec<u8>, _: Option<&str>) -> Result<Audio, String> {
    Err("not a wav, and this build reads nothing else; build mm-data with its `compressed-audio` feature".into())
}

/// The same sound at another rate (band-limited, by FFT).
pub fn resample(audio: &Audio, rate: u32) -> Result<Audio, String> {
    use rubato::{FftFixedIn, Resampler};
    if rate == 0 {
        return Err("a rate of 0 samples a second".into());
    }
    if audio.sample_rate == rate || audio.samples.is_empty() {
        return Ok(Audio { samples: audio.samples.clone(), sample_rate: rate });
    }
    let wrong = |e: String| format!("cannot be resampled from {} to {rate}: {e}", audio.sample_rate);
    let (from, to) = (audio.sample_rate as usize, rate as usize);
    let mut resampler = FftFixedIn::<f32>::new(from, to, 1024, 2, 1).map_err(|e| wrong(e.to_string()))?;
    let wanted = (audio.samples.len() as u128 * to as u128).div_ceil(from as u128) as usize;
    let (chunk, delay) = (resampler.input_frames_next(), resampler.output_delay());
    let mut out = Vec::with_capacity(wanted + delay + 2 * chunk);
    let mut at = 0;
    // The resampler answers late by `delay`; zeros after the end push the last samples out.
    while out.len() < wanted + delay {
        let mut piece = vec![0f32; chunk];
        let end = audio.samples.len().min(at + chunk);
        if at < end {
            piece[..end - at].copy_from_slice(&audio.samples[at..end]);
        }
        at += chunk;
        let made = resampler.process(&[piece], None).map_err(|e| wrong(e.to_string()))?;
        out.extend_from_slice(&made[0]);
    }
    out.drain(..delay);
    out.truncate(wanted);
    Ok(Audio { samples: out, sample_rate: rate })
}

/// Writes sound as a 16-bit wav.
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
    fn a_tone_keeps_its_length_pitch_and_height_when_resampled() {
        let tone = |rate: u32| Audio {
            samples: (0..rate).map(|i| (i as f32 * 440.0 * std::f32::consts::TAU / rate as f32).sin() * 0.5).collect(),
            sample_rate: rate,
        };
        for (from, to) in [(44_100, 16_000), (16_000, 48_000), (22_050, 16_000), (8_000, 16_000)] {
            let (out, wanted) = (resample(&tone(from), to).unwrap(), tone(to));
            assert_eq!(out.samples.len(), wanted.samples.len());
            let middle = to as usize / 10..to as usize * 9 / 10;
            let worst = middle.map(|i| (out.samples[i] - wanted.samples[i]).abs()).fold(0f32, f32::max);
            assert!(worst < 0.01, "{from} → {to}: {worst}");
        }
    }

    #[test]
    fn wavs_round_trip_and_broken_ones_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.wav");
        let audio = Audio { samples: vec![0.0, 0.5, -0.5, 0.25], sample_rate: 8000 };
        write_wav(&path, &audio).unwrap();
        let read = decode_audio(&path, None).unwrap();
        assert!(read.samples.iter().zip(&audio.samples).all(|(a, b)| (a - b).abs() < 1e-4));
        write_wav(&path, &Audio { samples: vec![], sample_rate: 8000 }).unwrap();
        assert!(decode_audio(&path, None).unwrap_err().to_string().contains("without samples"));
        std::fs::write(&path, b"RIFFxxxxWAVEjunk").unwrap();
        assert!(decode_audio(&path, None).unwrap_err().to_string().contains("broken wav"));
        std::fs::write(&path, b"hello").unwrap();
        assert!(decode_audio(&path, None).is_err());
    }
}
