//! WAV files: PCM by hound, compressed ones by symphonia. Lengths in the header are checked against the file.

use super::{
    Audio, compressed,
    limits::{AudioLimits, check_rate},
    parts::Parts,
};
use mm_core::Cause;

/// Programs that write to a pipe cannot know the length and write one of about this size, or zero: 0xFFFFFFFF (ffmpeg),
/// 0x7FFFFFFF (arecord), 0x7FFFF000 (sox).
const UNKNOWN_LENGTH: u32 = 0x7fff_0000;

/// Whether these bytes are a wav file.
pub(super) fn is_wav(bytes: &[u8]) -> bool {
    (bytes.starts_with(b"RIFF") || bytes.starts_with(b"RF64") || bytes.starts_with(b"BW64"))
        && bytes.get(8..12) == Some(b"WAVE")
}

/// Decodes a wav file.
pub(super) fn decode(mut bytes: Vec<u8>, limits: &AudioLimits) -> Result<Audio, Cause> {
    let (chunks, format) = Chunks::find(&bytes)?;
    check_rate(format.sample_rate)?;
    if format.codec == MPEG_LAYER_3 {
        return compressed::decode(bytes[chunks.data.clone()].to_vec(), limits);
    }
    // Other codecs are checked while they are decoded.
    if [PCM, FLOAT, EXTENSIBLE].contains(&format.codec) {
        let length = chunks.data.len() / format.block;
        limits.check(length as f64 / f64::from(format.sample_rate), length)?;
    }
    chunks.write_lengths(&mut bytes, format.block);
    let reader = match hound::WavReader::new(bytes.as_slice()) {
        Ok(reader) => reader,
        Err(hound::Error::Unsupported) => return compressed::decode(bytes, limits),
        Err(error) => return Err(format!("damaged wav: {error}").into()),
    };
    let spec = reader.spec();
    let scale = 1.0 / 2f32.powi(i32::from(spec.bits_per_sample) - 1);
    let samples: Result<Vec<f32>, hound::Error> = match spec.sample_format {
        hound::SampleFormat::Float => reader.into_samples::<f32>().collect(),
        hound::SampleFormat::Int => reader.into_samples::<i32>().map(|s| s.map(|v| v as f32 * scale)).collect(),
    };
    let mut parts = Parts::new(limits);
    parts.push(&samples.map_err(|e| format!("damaged wav: {e}"))?, usize::from(spec.channels), spec.sample_rate)?;
    parts.join()
}

const PCM: u16 = 1;
const FLOAT: u16 = 3;
const MPEG_LAYER_3: u16 = 0x55;
const EXTENSIBLE: u16 = 0xfffe;

/// What the `fmt ` chunk says.
struct Format {
    codec: u16,
    sample_rate: u32,
    /// Bytes of one sample of all channels, at least 1.
    block: usize,
}

impl Format {
    fn read(chunk: &[u8]) -> Result<Self, String> {
        if chunk.len() < 16 {
            return Err(format!("damaged wav: found a `fmt ` chunk of {} bytes, expected at least 16", chunk.len()));
        }
        let short = |at: usize| u16::from_le_bytes([chunk[at], chunk[at + 1]]);
        Ok(Self {
            codec: short(0),
            sample_rate: u32::from_le_bytes([chunk[4], chunk[5], chunk[6], chunk[7]]),
            block: usize::from(short(12)).max(1),
        })
    }
}

/// Where the samples are.
struct Chunks {
    data: std::ops::Range<usize>,
    /// Position of the length of the `data` chunk.
    data_length: usize,
}

impl Chunks {
    /// Walks the chunks up to `data`.
    fn find(bytes: &[u8]) -> Result<(Self, Format), String> {
        let number = |at: usize| bytes.get(at..at + 4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
        let (mut at, mut format, mut long_length) = (12, None, None);
        while let (Some(id), Some(length)) = (bytes.get(at..at + 4), number(at + 4)) {
            let start = at + 8;
            let end = start.saturating_add(length as usize);
            match id {
                b"fmt " => format = Some(Format::read(&bytes[start..end.min(bytes.len())])?),
                // RF64: the lengths of files of 4 GB and more.
                b"ds64" => {
                    let low_and_high = number(start + 8).zip(number(start + 12));
                    long_length = low_and_high.map(|(low, high)| u64::from(low) | u64::from(high) << 32);
                }
                b"data" => {
                    let format = format.ok_or("damaged wav: found no `fmt ` chunk before the data")?;
                    let end = start + data_length(&bytes[start..], length, long_length, format.block)?;
                    return Ok((Self { data: start..end, data_length: at + 4 }, format));
                }
                _ => {}
            }
            // Chunks begin at even positions.
            at = end.saturating_add(length as usize & 1);
        }
        Err("damaged wav: found no `data` chunk; the file is cut short".into())
    }

    /// Writes the lengths that were found into the header, and RF64 as RIFF, for readers that rely on the header.
    fn write_lengths(&self, bytes: &mut Vec<u8>, block: usize) {
        bytes.truncate(self.data.end);
        let whole = self.data.len() - self.data.len() % block;
        let length = |n: usize| u32::try_from(n).unwrap_or(u32::MAX - 1).to_le_bytes();
        bytes[self.data_length..self.data_length + 4].copy_from_slice(&length(whole));
        bytes[..4].copy_from_slice(b"RIFF");
        let riff = length(bytes.len() - 8);
        bytes[4..8].copy_from_slice(&riff);
    }
}

/// The number of bytes of the `data` chunk, which has `length` in its header and `bytes` after it.
fn data_length(bytes: &[u8], length: u32, long_length: Option<u64>, block: usize) -> Result<usize, String> {
    let available = bytes.len();
    let length = match long_length {
        Some(long) if length == u32::MAX => usize::try_from(long).unwrap_or(usize::MAX),
        _ => length as usize,
    };
    let is_unknown = (UNKNOWN_LENGTH as usize..=u32::MAX as usize).contains(&length) && length > available;
    // A length of zero that is followed by another chunk is true.
    if is_unknown || (length == 0 && available > 0 && !starts_with_chunk(bytes)) {
        return Ok(available);
    }
    if length / block > available / block {
        return Err(format!(
            "damaged wav: found {available} bytes of samples, expected {length}; the file is cut short"
        ));
    }
    let length = length.min(available);
    let rest = &bytes[length..];
    if is_wav(rest) || rest.get(1..).is_some_and(is_wav) {
        let repair = "decode both and join their samples instead of the files";
        return Err(format!("found a second wav behind the first, expected one; {repair}"));
    }
    Ok(length)
}

/// Whether these bytes are a chunk that fits.
fn starts_with_chunk(bytes: &[u8]) -> bool {
    let Some((id, length)) = bytes.get(..4).zip(bytes.get(4..8)) else { return false };
    let length = u32::from_le_bytes([length[0], length[1], length[2], length[3]]) as usize;
    id.iter().all(|b| b.is_ascii_graphic() || *b == b' ') && length <= bytes.len() - 8
}
