//! MP3 files, frame by frame: every frame is decoded, whatever the header says about the length, and each of several
//! joined files loses its own padding.

use super::{
    Audio,
    mp3_frames::{Frame, Frames, Info},
    parts::Parts,
};
use mm_core::Cause;
use symphonia::core::{
    codecs::{CODEC_TYPE_MP3, CodecParameters, Decoder},
    errors::Error,
    formats::Packet,
};

/// Decodes the frames of an MP3 file into `parts`, which are empty.
pub(super) fn decode(bytes: &[u8], found: &Frames, mut parts: Parts) -> Result<Audio, Cause> {
    let mut failed = None;
    for file in joined_files(bytes, &found.frames) {
        file.decode(bytes, &mut parts, &mut failed)?;
    }
    if let Some((seconds, reason)) = failed {
        return Err(format!("damaged mp3: {reason} at {seconds:.1} seconds; {REPAIR}").into());
    }
    if let Some((at, length)) = found.damage {
        return Err(
            format!("damaged mp3: found {length} bytes at {at} that are no frame, expected one; {REPAIR}").into()
        );
    }
    if found.missing > 0 {
        return Err(format!(
            "damaged mp3: its last frame lacks {} bytes; the file is cut short; {REPAIR}",
            found.missing
        )
        .into());
    }
    parts.join()
}

/// A frame refers to at most 511 bytes before it, which is this many frames of the lowest bit rates.
const RESERVOIR_FRAMES: usize = 12;

const REPAIR: &str = "`ffmpeg -i FILE FILE.wav` makes a file of what can be decoded";

/// One of the files that were joined: its frames, and what its encoder wrote about them.
struct JoinedFile<'a> {
    info: Info,
    frames: &'a [Frame],
}

/// A frame with an encoder's information starts a new file.
fn joined_files<'a>(bytes: &[u8], frames: &'a [Frame]) -> Vec<JoinedFile<'a>> {
    let starts: Vec<(usize, Info)> =
        frames.iter().enumerate().filter_map(|(index, frame)| Some((index, frame.info(bytes)?))).collect();
    let mut files = Vec::new();
    let first = starts.first().map_or(frames.len(), |(index, _)| *index);
    if first > 0 {
        files.push(JoinedFile { info: Info::default(), frames: &frames[..first] });
    }
    for (number, (index, info)) in starts.iter().enumerate() {
        let end = starts.get(number + 1).map_or(frames.len(), |(next, _)| *next);
        files.push(JoinedFile { info: *info, frames: &frames[index + 1..end] });
    }
    files
}

impl JoinedFile<'_> {
    /// Appends the file's audio to `parts`; the first failure goes to `failed` with its time.
    fn decode(&self, bytes: &[u8], parts: &mut Parts, failed: &mut Option<(f64, String)>) -> Result<(), Cause> {
        let Some(first) = self.frames.first() else { return Ok(()) };
        self.check_length()?;
        let start = parts.split(first.sample_rate)?;
        let (mut decoder, mut count) = (decoder()?, 0);
        let mut format = (first.sample_rate, first.channels);
        for frame in self.frames {
            if format != (frame.sample_rate, frame.channels) {
                format = (frame.sample_rate, frame.channels);
                (decoder, count) = (self::decoder()?, 0);
            }
            count += 1;
            let packet = Packet::new_from_slice(0, 0, frame.samples as u64, &bytes[frame.bytes.clone()]);
            match decoder.decode(&packet) {
                Ok(decoded) => parts.push_decoded(decoded)?,
                // The first frames of a file that was cut out of a longer one refer to data that was not copied.
                Err(Error::DecodeError(_)) if count <= RESERVOIR_FRAMES => {
                    parts.push(&vec![0.0; frame.samples], 1, frame.sample_rate)?;
                }
                Err(error) => {
                    failed.get_or_insert((parts.seconds(), format!("a frame cannot be decoded ({error})")));
                }
            }
        }
        let padding = if self.info.frames == Some(self.frames.len()) { self.info.padding } else { 0 };
        parts.trim(start, self.info.delay, padding);
        Ok(())
    }

    /// Checks that all frames that the encoder counted are there.
    fn check_length(&self) -> Result<(), String> {
        let (Some(expected), found) = (self.info.frames, self.frames.len()) else { return Ok(()) };
        // Some encoders, but none that writes a delay, count the frame of the information too.
        let is_counted = usize::from(self.info.delay == 0);
        if found + is_counted >= expected {
            return Ok(());
        }
        let seconds = |n: usize| self.frames.first().map_or(0.0, |f| (n * f.samples) as f64 / f64::from(f.sample_rate));
        Err(format!(
            "damaged mp3: found {:.1} seconds, expected {:.1} as its header says; the file is cut short; {REPAIR}",
            seconds(found),
            seconds(expected)
        ))
    }
}

fn decoder() -> Result<Box<dyn Decoder>, String> {
    symphonia::default::get_codecs()
        .make(CodecParameters::new().for_codec(CODEC_TYPE_MP3), &Default::default())
        .map_err(|e| format!("mp3 is not supported ({e})"))
}
