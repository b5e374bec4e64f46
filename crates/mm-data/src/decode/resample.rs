//! Resampling of audio.

use super::Audio;

/// The audio at another sample rate (band-limited, by FFT).
///
/// # Errors
/// When `sample_rate` is 0, or the two rates have no ratio that the resampler supports; the message names no file.
pub fn resample(audio: &Audio, sample_rate: u32) -> Result<Audio, String> {
    use rubato::{FftFixedIn, Resampler};
    if sample_rate == 0 {
        return Err("sample rate: found 0, expected at least 1".into());
    }
    if audio.sample_rate == sample_rate || audio.samples.is_empty() {
        return Ok(Audio { samples: audio.samples.clone(), sample_rate });
    }
    let failed = |e: String| format!("cannot be resampled from {} Hz to {sample_rate} Hz: {e}", audio.sample_rate);
    let (from, to) = (audio.sample_rate as usize, sample_rate as usize);
    // In float64, as mel spectrograms are computed: the FFT of a second type would double the time to compile this crate.
    let mut resampler = FftFixedIn::<f64>::new(from, to, 1024, 2, 1).map_err(|e| failed(e.to_string()))?;
    let length = (audio.samples.len() as u128 * to as u128).div_ceil(from as u128) as usize;
    let (chunk, delay) = (resampler.input_frames_next(), resampler.output_delay());
    let mut out = Vec::with_capacity(length + delay + 2 * chunk);
    let mut start = 0;
    // The output lags by `delay` samples; zeros after the end of the input push the last samples out.
    while out.len() < length + delay {
        let mut input = vec![0f64; chunk];
        let rest = &audio.samples[start.min(audio.samples.len())..];
        input.iter_mut().zip(rest).for_each(|(value, sample)| *value = f64::from(*sample));
        start += chunk;
        let output = resampler.process(&[input], None).map_err(|e| failed(e.to_string()))?;
        out.extend(output[0].iter().map(|sample| *sample as f32));
    }
    out.drain(..delay);
    out.truncate(length);
    Ok(Audio { samples: out, sample_rate })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resampling_preserves_duration_pitch_and_amplitude() {
        let tone = |rate: u32| Audio {
            samples: (0..rate).map(|i| (i as f32 * 440.0 * std::f32::consts::TAU / rate as f32).sin() * 0.5).collect(),
            sample_rate: rate,
        };
        for (from, to) in [(44_100, 16_000), (16_000, 48_000), (22_050, 16_000), (8_000, 16_000)] {
            let (out, expected) = (resample(&tone(from), to).unwrap(), tone(to));
            assert_eq!(out.samples.len(), expected.samples.len());
            let middle = to as usize / 10..to as usize * 9 / 10;
            let max_difference = middle.map(|i| (out.samples[i] - expected.samples[i]).abs()).fold(0f32, f32::max);
            assert!(max_difference < 0.01, "{from} → {to}: {max_difference}");
        }
    }
}
