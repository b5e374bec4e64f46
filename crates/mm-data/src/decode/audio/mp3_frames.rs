//! The frames of an MP3 file, found one after the other: headers state no reliable length, and files may be joined.

use std::ops::Range;

/// A frame and what its header says.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Frame {
    /// The bytes, header included.
    pub bytes: Range<usize>,
    pub sample_rate: u32,
    /// Samples per channel.
    pub samples: usize,
    pub channels: usize,
    /// Bytes of side information after the header.
    side_information: usize,
}

/// All frames of a file.
#[derive(Debug, Default)]
pub(super) struct Frames {
    pub frames: Vec<Frame>,
    /// Position and number of the first bytes between two frames that belong to neither, nor to a tag.
    pub damage: Option<(usize, usize)>,
    /// Bytes that the last frame lacks.
    pub missing: usize,
}

/// What an encoder writes into the first frame, which then holds no audio: `Xing` or `Info`, with LAME's extension;
/// or `VBRI`.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Info {
    /// Number of frames after this one.
    pub frames: Option<usize>,
    /// Samples that the encoder and the decoder add at the start.
    pub delay: usize,
    /// Samples that the encoder adds at the end, less the decoder's delay.
    pub padding: usize,
}

/// Samples by which a decoder lags.
const DECODER_DELAY: usize = 529;

const BIT_RATES: [[u32; 15]; 2] = [
    [0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160],
    [0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320],
];

impl Frame {
    /// The frame whose header is at `at`; its end may lie behind that of the file. `None` for other layers than the
    /// third, reserved values, and free bit rates.
    fn at(bytes: &[u8], at: usize) -> Option<Self> {
        let header = bytes.get(at..at + 4)?;
        let (version, layer) = (header[1] >> 3 & 3, header[1] >> 1 & 3);
        let (bit_rate, rate) = (usize::from(header[2] >> 4), usize::from(header[2] >> 2 & 3));
        if header[0] != 0xff || header[1] < 0xe0 || version == 1 || layer != 1 || rate == 3 || header[3] & 3 == 2 {
            return None;
        }
        let is_first = version == 3;
        let bit_rate = *BIT_RATES[usize::from(is_first)].get(bit_rate).filter(|r| **r > 0)? * 1000;
        let divisor = match version {
            3 => 1,
            2 => 2,
            _ => 4,
        };
        let sample_rate = [44_100, 48_000, 32_000][rate] / divisor;
        let (samples, is_mono) = (if is_first { 1152 } else { 576 }, header[3] >> 6 == 3);
        let padding = usize::from(header[2] >> 1 & 1);
        let length = samples / 8 * bit_rate as usize / sample_rate as usize + padding;
        let side_information = match (is_first, is_mono) {
            (true, false) => 32,
            (true, true) | (false, false) => 17,
            (false, true) => 9,
        };
        let channels = if is_mono { 1 } else { 2 };
        Some(Self { bytes: at..at + length, sample_rate, samples, channels, side_information })
    }

    /// What the encoder wrote into this frame, if it holds no audio.
    pub fn info(&self, bytes: &[u8]) -> Option<Info> {
        let frame = &bytes[self.bytes.clone()];
        let long = |at: usize| frame.get(at..at + 4).map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]) as usize);
        if frame.get(36..40) == Some(b"VBRI") && frame[4..36].iter().all(|b| *b == 0) {
            return Some(Info { frames: long(50), ..Info::default() });
        }
        let start = 4 + self.side_information;
        let id = frame.get(start..start + 4)?;
        if (id != b"Xing" && id != b"Info") || frame[4..start].iter().any(|b| *b != 0) {
            return None;
        }
        let (flags, mut at, mut info) = (long(start + 4)?, start + 8, Info::default());
        for (flag, length) in [(1, 4), (2, 4), (4, 100), (8, 4)] {
            if flags & flag != 0 {
                if flag == 1 {
                    info.frames = long(at);
                }
                at += length;
            }
        }
        let encoder = frame.get(at..at + 4).unwrap_or_default();
        if let (true, Some(b)) =
            ([b"LAME", b"Lavf", b"Lavc"].iter().any(|e| *e == encoder), frame.get(at + 21..at + 24))
        {
            info.delay = (usize::from(b[0]) << 4 | usize::from(b[1]) >> 4) + DECODER_DELAY;
            info.padding = (usize::from(b[1] & 15) << 8 | usize::from(b[2])).saturating_sub(DECODER_DELAY);
        }
        Some(info)
    }
}

impl Frames {
    /// Finds the frames; none where the file is not an MP3.
    pub fn find(bytes: &[u8]) -> Self {
        let mut found = Self::default();
        // The position behind the last frame or tag.
        let mut at = 0;
        loop {
            at = skip_tags(bytes, at);
            let next = match Frame::at(bytes, at) {
                Some(frame) if !found.frames.is_empty() => Some(frame),
                _ => next_frame(bytes, at, found.frames.is_empty()),
            };
            let Some(frame) = next else { return found };
            if frame.bytes.start > at && !found.frames.is_empty() && found.damage.is_none() {
                found.damage = Some((at, frame.bytes.start - at));
            }
            at = frame.bytes.end;
            if at > bytes.len() {
                found.missing = at - bytes.len();
                return found;
            }
            found.frames.push(frame);
        }
    }
}

/// How far the first frame may be from the start of the file, or from the end of its tags.
const SEARCH_LENGTH: usize = 1 << 17;

/// The next frame that others follow: bytes that look like a header occur in any data. Only the first frame is searched
/// for in a limited range, and has to be followed by two others (or fewer that end the file).
fn next_frame(bytes: &[u8], from: usize, is_first: bool) -> Option<Frame> {
    let end = if is_first { bytes.len().min(from + SEARCH_LENGTH) } else { bytes.len() };
    let followers = if is_first { 2 } else { 1 };
    let mut at = from;
    loop {
        at += bytes.get(at..end)?.iter().position(|b| *b == 0xff)?;
        if let Some(frame) = Frame::at(bytes, at)
            && is_followed(bytes, &frame, followers)
        {
            return Some(frame);
        }
        at += 1;
    }
}

/// Whether `count` frames of the same sample rate follow, or fewer and the end of the file.
fn is_followed(bytes: &[u8], frame: &Frame, count: usize) -> bool {
    let mut end = frame.bytes.end;
    for _ in 0..count {
        end = skip_tags(bytes, end);
        if end == bytes.len() {
            return true;
        }
        match Frame::at(bytes, end) {
            Some(next) if next.sample_rate == frame.sample_rate => end = next.bytes.end,
            _ => return false,
        }
    }
    true
}

/// The position behind tags (ID3, APE, Lyrics3) and zeros.
pub(super) fn skip_tags(bytes: &[u8], mut at: usize) -> usize {
    while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
        match tag_length(rest) {
            0 => break,
            length => at = at.saturating_add(length).min(bytes.len()),
        }
    }
    at.min(bytes.len())
}

fn tag_length(rest: &[u8]) -> usize {
    let zeros = rest.iter().take_while(|b| **b == 0).count();
    if zeros > 0 {
        return zeros;
    }
    if rest.starts_with(b"ID3") && rest.len() >= 10 {
        let length = rest[6..10].iter().fold(0usize, |sum, b| sum << 7 | usize::from(b & 0x7f));
        return length + if rest[5] & 0x10 != 0 { 20 } else { 10 };
    }
    if rest.starts_with(b"TAG+") && rest.len() >= 227 + 128 {
        return 227;
    }
    if rest.starts_with(b"TAG") {
        return 128.min(rest.len());
    }
    if rest.starts_with(b"APETAGEX") && rest.len() >= 32 {
        let is_header = rest[23] & 0x20 != 0;
        let length = u32::from_le_bytes([rest[12], rest[13], rest[14], rest[15]]) as usize;
        return 32 + if is_header { length } else { 0 };
    }
    if rest.starts_with(b"LYRICSBEGIN") {
        let end = |mark: &[u8]| rest.windows(mark.len()).position(|w| w == mark).map(|at| at + mark.len());
        return end(b"LYRICS200").or_else(|| end(b"LYRICSEND")).unwrap_or(0);
    }
    0
}
