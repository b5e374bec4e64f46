//! Audio files: wav, mp3, ogg, flac, m4a.

use crate::bytes::{catching_library_panics, folder, select, write};
use mm_data::decode::{decode_audio, write_wav};
use std::path::Path;

/// Extension of the file, and the rate that it is resampled to.
const KINDS: [(&str, Option<u32>); 7] = [
    ("wav", None),
    ("mp3", None),
    ("ogg", None),
    ("flac", None),
    ("m4a", None),
    ("wav", Some(16_000)),
    ("flac", Some(16_000)),
];

/// Decodes an audio file. What was decoded is written as a wav and read back.
pub fn read(input: &[u8]) {
    let Some(((extension, rate), bytes)) = select(&KINDS, input) else { return };
    let folder = folder();
    let path = write(folder.path(), &format!("x.{extension}"), bytes);
    catching_library_panics(|| decode(&path, *rate));
}

fn decode(path: &Path, rate: Option<u32>) {
    let Ok(audio) = decode_audio(path, rate) else { return };
    assert!(!audio.samples.is_empty() && audio.samples.iter().all(|s| s.is_finite()));
    assert!(rate.is_none_or(|rate| rate == audio.sample_rate));
    // The last block may exceed the limit of an hour.
    assert!(audio.seconds() <= 3700.0, "{} seconds", audio.seconds());
    let copy = path.with_file_name("copy.wav");
    write_wav(&copy, &audio).expect("audio that was decoded can be written");
    let again = decode_audio(&copy, None).expect("a written wav can be read");
    assert_eq!((again.samples.len(), again.sample_rate), (audio.samples.len(), audio.sample_rate));
}
