//! What an MP4 (M4A) file says about the part of its audio track that is presented: AAC encoders put about a thousand
//! samples before the audio.

use super::{Audio, limits::AudioLimits};
use mm_core::Cause;

/// The audio track of a movie.
pub(super) struct AudioTrack {
    /// Ticks per second of the track's own times.
    timescale: u32,
    /// The parts that are presented, in order: start and length in samples of that scale; no length is all of the rest.
    edits: Vec<(u64, Option<u64>)>,
}

/// Samples of a packet at most: the last one may be shorter than it says.
const PACKET: usize = 2048;

/// The first audio track; `None` where there is none, or the file is not one that this reader follows.
pub(super) fn audio_track(bytes: &[u8]) -> Option<AudioTrack> {
    let movie = child(bytes, *b"moov")?;
    let movie_scale = u64::from(timescale(child(movie, *b"mvhd")?)?);
    let track = children(movie).filter(|(kind, _)| kind == b"trak").map(|(_, content)| content).find(|track| {
        let handler = child(track, *b"mdia").and_then(|media| child(media, *b"hdlr"));
        handler.and_then(|h| h.get(8..12)) == Some(b"soun")
    })?;
    let track_scale = timescale(child(child(track, *b"mdia")?, *b"mdhd")?)?;
    let mut edits = Vec::new();
    if let Some(list) = child(track, *b"edts").and_then(|edit| child(edit, *b"elst")) {
        for (duration, start) in edit_list(list)? {
            // An edit without a start is silence before the audio.
            let Ok(start) = u64::try_from(start) else { continue };
            let length = (duration > 0).then(|| {
                (u128::from(duration) * u128::from(track_scale)).div_ceil(u128::from(movie_scale.max(1))) as u64
            });
            edits.push((start, length));
        }
    } else if let Some((delay, length)) = itunes_gapless(movie) {
        edits.push((delay, Some(length).filter(|n| *n > 0)));
    }
    Some(AudioTrack { timescale: track_scale, edits })
}

impl AudioTrack {
    /// The presented part of what was decoded. `expected` is the length of the track in its own scale.
    ///
    /// # Errors
    /// When less was decoded than the track has, or its edits repeat more than the limits allow.
    pub fn present(&self, audio: Audio, expected: Option<u64>, limits: &AudioLimits) -> Result<Audio, Cause> {
        let rate = u64::from(audio.sample_rate);
        let to_samples = |ticks: u64| {
            let samples = u128::from(ticks) * u128::from(rate) / u128::from(self.timescale.max(1));
            usize::try_from(samples).unwrap_or(usize::MAX)
        };
        let (found, expected) = (audio.samples.len(), to_samples(expected.unwrap_or(0)));
        if found + PACKET < expected {
            return Err(format!(
                "damaged m4a: found {found} samples, expected {expected} as its header says; the file is cut short"
            )
            .into());
        }
        if self.edits.is_empty() {
            return Ok(audio);
        }
        // The last packet is padded beyond the length of the track, and lengths in a coarse scale are rounded up.
        let track_end = if expected > 0 { found.min(expected) } else { found };
        let mut samples = Vec::with_capacity(found);
        for (start, length) in &self.edits {
            let start = to_samples(*start).min(track_end);
            let end = length.map_or(track_end, |length| start.saturating_add(to_samples(length)).min(track_end));
            let part = audio.samples.get(start..end).unwrap_or_default();
            let length = samples.len() + part.len();
            limits.check(length as f64 / f64::from(audio.sample_rate), length)?;
            samples.extend_from_slice(part);
        }
        Ok(Audio { samples, sample_rate: audio.sample_rate })
    }
}

/// Refuses tables that state more entries than they hold, for which the decoder would allocate memory.
pub(super) fn check_tables(content: &[u8]) -> Result<(), String> {
    check_tables_at(content, 0)
}

/// Boxes in boxes: a track's tables are the fifth level.
const MAX_DEPTH: usize = 16;

fn check_tables_at(content: &[u8], depth: usize) -> Result<(), String> {
    if depth > MAX_DEPTH {
        return Err(format!("damaged m4a: found boxes nested more than {MAX_DEPTH} deep, expected at most that"));
    }
    if depth > 0 {
        check_extents(content)?;
    }
    for (kind, content) in children(content) {
        // Where the number of entries stands, and the bytes of an entry.
        let (at, size) = match &kind {
            b"moov" | b"trak" | b"mdia" | b"minf" | b"stbl" | b"edts" | b"moof" | b"traf" | b"mvex" => {
                check_tables_at(content, depth + 1)?;
                continue;
            }
            b"stco" | b"stss" => (4, 4),
            b"co64" | b"stts" | b"ctts" => (4, 8),
            b"stsc" | b"elst" => (4, 12),
            // One size for all samples needs no table.
            b"stsz" if content.get(4..8) == Some(&[0; 4]) => (8, 4),
            _ => continue,
        };
        let number = content.get(at..at + 4).map_or(0, |b| b.iter().fold(0u64, |n, b| n << 8 | u64::from(*b)));
        let held = (content.len() - (at + 4).min(content.len())) as u64 / size;
        if number > held {
            let kind = String::from_utf8_lossy(&kind);
            return Err(format!("damaged m4a: the table `{kind}` states {number} entries and holds {held}"));
        }
    }
    Ok(())
}

/// Refuses boxes that do not fill the box that holds them exactly: the decoder would go on behind its end, where nothing
/// was checked.
fn check_extents(content: &[u8]) -> Result<(), String> {
    let mut rest = content;
    while !rest.is_empty() {
        let Some((kind, header, length)) = header(rest) else {
            return Err(format!("damaged m4a: found {} bytes that are no box, expected a box", rest.len()));
        };
        if length < header || length > rest.len() {
            let (kind, found) = (String::from_utf8_lossy(&kind), rest.len());
            return Err(format!("damaged m4a: the box `{kind}` states {length} bytes, of the {found} that are left"));
        }
        rest = &rest[length..];
    }
    Ok(())
}

/// The boxes in `content`: kind and content of each.
fn children(content: &[u8]) -> impl Iterator<Item = ([u8; 4], &[u8])> {
    let mut rest = content;
    std::iter::from_fn(move || {
        let (kind, header, length) = header(rest)?;
        let content = rest.get(header..length.min(rest.len()))?;
        rest = &rest[length.min(rest.len())..];
        Some((kind, content))
    })
}

/// The kind of a box, the length of its header, and its whole length.
fn header(bytes: &[u8]) -> Option<([u8; 4], usize, usize)> {
    let length = u32::from_be_bytes(bytes.get(..4)?.try_into().ok()?);
    let kind = bytes.get(4..8)?.try_into().ok()?;
    let (header, length) = match length {
        0 => (8, bytes.len()),
        1 => (16, usize::try_from(u64::from_be_bytes(bytes.get(8..16)?.try_into().ok()?)).ok()?),
        n => (8, usize::try_from(n).ok()?),
    };
    Some((kind, header, length))
}

fn child(content: &[u8], kind: [u8; 4]) -> Option<&[u8]> {
    children(content).find(|(found, _)| *found == kind).map(|(_, content)| content)
}

/// The timescale of a movie's or media's header.
fn timescale(header: &[u8]) -> Option<u32> {
    let at = if *header.first()? == 1 { 20 } else { 12 };
    Some(u32::from_be_bytes(header.get(at..at + 4)?.try_into().ok()?))
}

/// (duration in the movie's scale, start in the track's) of each edit.
fn edit_list(list: &[u8]) -> Option<Vec<(u64, i64)>> {
    let is_long = *list.first()? == 1;
    let size = if is_long { 20 } else { 12 };
    let edits = list.get(8..)?.chunks_exact(size).map(|edit| {
        let long = |at: usize| edit[at..at + 8].iter().fold(0u64, |sum, b| sum << 8 | u64::from(*b));
        let short = |at: usize| edit[at..at + 4].iter().fold(0u32, |sum, b| sum << 8 | u32::from(*b));
        if is_long { (long(0), long(8) as i64) } else { (u64::from(short(0)), i64::from(short(4) as i32)) }
    });
    Some(edits.collect())
}

/// iTunes' own note about the samples before the audio, and the number of the audio's own: `iTunSMPB`, whose value is
/// ` 00000000 DELAY PADDING LENGTH …` in hexadecimal digits.
fn itunes_gapless(movie: &[u8]) -> Option<(u64, u64)> {
    let list = child(child(child(movie, *b"udta")?, *b"meta")?.get(4..)?, *b"ilst")?;
    let note = children(list)
        .filter(|(kind, _)| kind == b"----")
        .map(|(_, note)| note)
        .find(|note| child(note, *b"name").and_then(|name| name.get(4..)) == Some(b"iTunSMPB"))?;
    let text = std::str::from_utf8(child(note, *b"data")?.get(8..)?).ok()?;
    let mut numbers = text.split_ascii_whitespace().map(|n| u64::from_str_radix(n, 16).ok());
    let (delay, length) = (numbers.nth(1)??, numbers.nth(1)??);
    Some((delay, length))
}
