//! FLAC files, which say how many samples they have.

use super::{
    parts::Parts,
    symphonia_reader::{Container, decode_into},
};
use mm_core::Cause;

/// The streams of joined files. A stream starts with `fLaC` and a block of information of 34 bytes.
pub(super) fn streams(bytes: &[u8]) -> Vec<&[u8]> {
    let is_start = |w: &[u8]| w.starts_with(b"fLaC") && w[4] << 1 == 0 && w[5..8] == [0, 0, 34];
    let mut starts: Vec<usize> =
        bytes.windows(8).enumerate().filter(|(_, w)| w[0] == b'f' && is_start(w)).map(|(at, _)| at).collect();
    if starts.first() != Some(&0) {
        starts.insert(0, 0);
    }
    starts.push(bytes.len());
    starts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect()
}

/// Decodes a stream and checks that none of its samples is missing.
pub(super) fn decode(stream: &[u8], parts: &mut Parts) -> Result<(), Cause> {
    let first = parts.split(sample_rate(stream))?;
    let expected = decode_into(stream.to_vec(), Container::Flac, parts)?.expected.unwrap_or(0);
    let found = parts.num_samples(first) as u64;
    if found < expected {
        return Err(format!(
            "damaged flac: found {found} samples, expected {expected} as its header says; the file is cut short or damaged"
        )
        .into());
    }
    Ok(())
}

/// The sample rate: 20 bits of the block of information.
fn sample_rate(stream: &[u8]) -> u32 {
    stream.get(18..21).map_or(0, |b| u32::from(b[0]) << 12 | u32::from(b[1]) << 4 | u32::from(b[2]) >> 4)
}
