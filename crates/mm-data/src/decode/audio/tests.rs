//! Audio is decoded completely, or refused.

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

fn read(bytes: &[u8]) -> Result<Audio, String> {
    decode_audio_bytes(bytes, None)
}

/// A wav of 16-bit samples with these lengths in its header.
fn wav_with(samples: &[i16], sample_rate: u32, riff_length: u32, data_length: u32) -> Vec<u8> {
    let mut bytes = [b"RIFF", riff_length.to_le_bytes().as_slice(), b"WAVEfmt \x10\0\0\0\x01\0\x01\0"].concat();
    bytes.extend(sample_rate.to_le_bytes());
    bytes.extend(sample_rate.wrapping_mul(2).to_le_bytes());
    bytes.extend(b"\x02\0\x10\0data");
    bytes.extend(data_length.to_le_bytes());
    bytes.extend(samples.iter().flat_map(|s| s.to_le_bytes()));
    bytes
}

#[test]
fn lengths_in_wav_headers_that_are_unknown_are_those_of_the_file() {
    let samples: Vec<i16> = (0..1001).map(|i| i * 7).collect();
    let expected = read(&wav_with(&samples, 8000, 2038, 2002)).unwrap();
    assert_eq!(expected.samples.len(), 1001);
    for length in [u32::MAX, 0x7fff_ffff, 0x7fff_f000, 0x8000_0000, 0] {
        for riff_length in [length, length.wrapping_add(36)] {
            assert_eq!(read(&wav_with(&samples, 8000, riff_length, length)).unwrap(), expected, "{length:x}");
        }
    }
    // A length of zero that another chunk follows is true, and RF64 has the length elsewhere.
    let empty = [wav_with(&[], 8000, 48, 0), b"LIST\x04\0\0\0abcd".to_vec()].concat();
    assert!(read(&empty).unwrap_err().contains("without samples"));
    let plain = wav_with(&samples, 8000, u32::MAX, u32::MAX);
    let sizes = [b"ds64\x1c\0\0\0".as_slice(), &[0; 8], &2002u64.to_le_bytes(), &[0; 12]].concat();
    let long = [b"RF64\xff\xff\xff\xffWAVE".as_slice(), &sizes, &plain[12..], b"junk"].concat();
    assert_eq!(read(&long).unwrap(), expected);
}

#[test]
fn cut_and_joined_wavs_are_refused() {
    let whole = wav_with(&[5; 1000], 8000, 2036, 2000);
    let error = read(&whole[..1044]).unwrap_err();
    assert!(error.contains("found 1000 bytes of samples, expected 2000"), "{error}");
    assert!(read(&[whole.as_slice(), &whole].concat()).unwrap_err().contains("second wav"));
    assert_eq!(read(&[whole.as_slice(), b"LIST\x04\0\0\0abcd"].concat()).unwrap().samples.len(), 1000);
}

#[test]
fn impossible_rates_and_too_long_audio_are_refused_before_anything_is_allocated() {
    for rate in [4_000_000_000, 1_000_001, 0] {
        let error = decode_audio_bytes(&wav_with(&[1; 100], rate, 236, 200), Some(16_000)).unwrap_err();
        assert!(error.contains("sample rate: found"), "{error}");
    }
    let error = read(&wav_with(&[0; 7201], 2, 7201 * 2 + 36, 7201 * 2)).unwrap_err();
    assert!(error.contains("more than 3600 seconds"), "{error}");
}

/// The limit that an audio file exceeds.
fn exceeded(bytes: &[u8], max_seconds: f64, max_samples: usize) -> Option<String> {
    let decoded = decode_audio_bytes_within(bytes, None, &AudioLimits { max_seconds, max_samples });
    decoded.err().map(|cause| cause.downcast::<AudioTooLong>().unwrap().limit)
}

#[test]
fn wavs_of_more_seconds_or_samples_than_the_limits_are_refused() {
    let wav = wav_with(&[7; 4000], 2000, 8036, 8000);
    assert_eq!(exceeded(&wav, 1.5, 9000).unwrap(), "1.5 seconds");
    assert_eq!(exceeded(&wav, 3.0, 3999).unwrap(), "3999 samples");
    assert_eq!(exceeded(&wav, 2.0, 4000), None);
}

#[test]
fn video_tracks_longer_than_the_limit_are_refused() {
    let Ok(program) = ffmpeg() else {
        println!("skipped: no ffmpeg");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let track = |seconds: &str| {
        let path = folder.path().join(format!("{seconds}.mkv"));
        let status = std::process::Command::new(&program)
            .args(["-nostdin", "-loglevel", "error", "-f", "lavfi", "-i", "anullsrc=r=1000:cl=mono", "-t", seconds])
            .args(["-c:a", "flac"])
            .arg(&path)
            .status();
        assert!(status.unwrap().success());
        decode_audio_track(&path, 1000)
    };
    assert_eq!(track("3600").unwrap().samples.len(), 3_600_000);
    let error = track("3602").unwrap_err().to_string();
    assert!(error.contains("3602.mkv") && error.contains("3600"), "{error}");
}

#[cfg(feature = "compressed-audio")]
mod compressed_files {
    use super::*;

    fn fixture(name: &str) -> Vec<u8> {
        std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/audio").join(name)).unwrap()
    }

    /// The largest difference to the fixtures' tone of 440 Hz, away from the ends.
    fn difference_to_tone(samples: &[f32], sample_rate: u32) -> f32 {
        let tone = |i: usize| 0.5 * (440.0 * std::f64::consts::TAU * i as f64 / f64::from(sample_rate)).sin() as f32;
        (2000..samples.len() - 2000).map(|i| (samples[i] - tone(i)).abs()).fold(0.0, f32::max)
    }

    #[test]
    fn an_impossible_rate_of_a_flac_is_refused() {
        // FLAC has the rate in the 20 bits after byte 18.
        let mut flac = fixture("tone.flac");
        flac[18..21].copy_from_slice(&[0xff, 0xff, 0xf0]);
        assert!(read(&flac).unwrap_err().contains("sample rate: found 1048575"));
    }

    #[test]
    fn an_mp3_without_a_header_is_decoded_to_its_end() {
        // An estimate from the first frames, which have most of the bytes, says 1.5 seconds.
        let audio = read(&fixture("loud_start.mp3")).unwrap();
        assert_eq!((audio.samples.len(), audio.sample_rate), (97_344, 16_000));
    }

    #[test]
    fn compressed_formats_have_the_samples_that_were_encoded() {
        for name in ["tone.mp3", "tone.m4a", "tone.ogg"] {
            let audio = read(&fixture(name)).unwrap();
            assert_eq!((audio.samples.len(), audio.sample_rate), (27_221, 22_050), "{name}");
            let difference = difference_to_tone(&audio.samples, 22_050);
            assert!(difference < 0.08, "{name}: {difference}");
        }
    }

    #[test]
    fn compressed_files_of_more_seconds_or_samples_than_the_limits_are_refused() {
        // 1.23 seconds.
        for name in ["tone.mp3", "tone.m4a", "tone.ogg"] {
            assert_eq!(exceeded(&fixture(name), 1.0, 30_000).unwrap(), "1 seconds", "{name}");
            assert_eq!(exceeded(&fixture(name), 2.0, 20_000).unwrap(), "20000 samples", "{name}");
        }
        assert_eq!(exceeded(&fixture("tone.flac"), 2.0, 3999).unwrap(), "3999 samples");
        // A part at a lower rate is resampled to that of the first.
        let joined = [fixture("tone.ogg"), fixture("tone16.ogg")].concat();
        assert_eq!(exceeded(&joined, 3.0, 40_000).unwrap(), "40000 samples");
    }

    #[test]
    fn joined_files_are_decoded_one_after_the_other() {
        let joined = |names: &[&str]| names.iter().flat_map(|name| fixture(name)).collect::<Vec<u8>>();
        for (name, length) in [("tone.mp3", 27_221), ("tone.ogg", 27_221), ("tone.flac", 4000)] {
            let audio = read(&joined(&[name, name, name])).unwrap();
            assert_eq!(audio.samples.len(), 3 * length, "{name}");
            assert!(audio.samples[..length] == read(&fixture(name)).unwrap().samples, "{name}");
            let difference = difference_to_tone(&audio.samples[length..2 * length], audio.sample_rate.min(22_050));
            assert!(difference < 0.08 || length < 4001, "{name}: {difference}");
        }
        // Tags between the files are no audio, and another sample rate is resampled to the first.
        let tag = [b"TAG".as_slice(), &[b'x'; 125]].concat();
        let with_tag = [fixture("tone.mp3"), tag, b"ID3\x03\0\0\0\0\0\x04abcd".to_vec(), fixture("tone.mp3")].concat();
        assert_eq!(read(&with_tag).unwrap().samples.len(), 2 * 27_221);
        let audio = read(&joined(&["tone.ogg", "tone16.ogg"])).unwrap();
        assert_eq!((audio.samples.len(), audio.sample_rate), (27_221 + 14_112, 22_050));
        assert!(difference_to_tone(&audio.samples[27_221..], 22_050) < 0.08);
    }

    #[test]
    fn cut_files_are_refused() {
        for name in ["tone.mp3", "loud_start.mp3", "tone.ogg", "tone.flac", "tone.m4a"] {
            let bytes = fixture(name);
            for share in [0.35, 0.6, 0.95] {
                let cut = (bytes.len() as f64 * share) as usize;
                assert!(read(&bytes[..cut]).is_err(), "{name} cut to {share}");
            }
        }
    }

    #[test]
    fn damaged_files_are_refused() {
        for name in ["tone.mp3", "tone.ogg", "tone.flac"] {
            let mut bytes = fixture(name);
            // Not in the padding that a FLAC file has before its samples.
            let start = bytes.len() - 1500;
            bytes[start..start + 600].iter_mut().for_each(|b| *b ^= 0x5a);
            let error = read(&bytes).unwrap_err();
            assert!(error.contains("damaged"), "{name}: {error}");
        }
    }

    #[test]
    fn tables_of_a_movie_hold_what_they_state() {
        let mut bytes = fixture("tone.m4a");
        let at = bytes.windows(4).position(|w| w == b"stco").unwrap();
        bytes[at + 8..at + 12].copy_from_slice(&[0x38, 0, 0, 0]);
        let error = read(&bytes).unwrap_err();
        assert!(error.contains("the table `stco` states 939524096 entries"), "{error}");
        // A box that ends behind the one that holds it hides what follows from the check, and not from the decoder.
        let mut bytes = fixture("tone.m4a");
        let at = bytes.windows(4).position(|w| w == b"minf").unwrap();
        bytes[at - 2..at].copy_from_slice(&[0, 90]);
        let error = read(&bytes).unwrap_err();
        assert!(error.contains("damaged m4a: the box"), "{error}");
    }

    #[test]
    fn a_file_is_of_the_format_that_it_starts_with() {
        for name in ["tone.m4a", "tone.ogg", "tone.flac"] {
            let error = read(&[b"x/y".as_slice(), &fixture(name)].concat()).unwrap_err();
            assert!(error.contains("not audio of a supported format"), "{name}: {error}");
        }
        // Tags may precede FLAC and AAC.
        let tags = [b"ID3\x04\0\0\0\0\0\x05".as_slice(), &[0; 5]].concat();
        assert!(read(&[tags, fixture("tone.flac")].concat()).is_ok());
    }
}
