//! Containers that symphonia reads.

use super::{limits::check_rate, parts::Parts};
use mm_core::Cause;
use symphonia::core::{
    codecs::{CODEC_TYPE_NULL, Decoder, DecoderOptions},
    errors::Error,
    formats::{FormatOptions, FormatReader},
    io::MediaSourceStream,
    probe::Probe,
};
use symphonia::default::formats::{AdtsReader, FlacReader, IsoMp4Reader, OggReader, WavReader};

/// A container whose start was recognized. Symphonia looks for others anywhere in a file, which is not where they were
/// checked.
#[derive(Clone, Copy)]
pub(super) enum Container {
    Flac,
    Mp4,
    Ogg,
    Wav,
    /// AAC without a container.
    Adts,
}

impl Container {
    fn probe(self) -> Probe {
        let mut probe = Probe::default();
        match self {
            Self::Flac => probe.register_all::<FlacReader>(),
            Self::Mp4 => probe.register_all::<IsoMp4Reader>(),
            Self::Ogg => probe.register_all::<OggReader>(),
            Self::Wav => probe.register_all::<WavReader>(),
            Self::Adts => probe.register_all::<AdtsReader>(),
        }
        probe
    }
}

/// What the container says about what was decoded.
pub(super) struct Decoded {
    /// Number of samples of each channel, if it says one.
    pub expected: Option<u64>,
}

/// Decodes all audio of the first audio track.
///
/// # Errors
/// When a packet cannot be decoded, or there is more audio than the limits of `parts` allow.
pub(super) fn decode_into(bytes: Vec<u8>, container: Container, parts: &mut Parts) -> Result<Decoded, Cause> {
    let mut format = open(bytes, container)?;
    let (id, mut decoder, expected) = audio_track(format.as_ref())?;
    let (mut failed, mut count) = (None, 0usize);
    loop {
        let packet = match format.next_packet() {
            Ok(packet) => packet,
            Err(Error::IoError(e)) if e.kind() == std::io::ErrorKind::UnexpectedEof => break,
            Err(error) => return Err(format!("damaged audio: {error}").into()),
        };
        if packet.track_id() != id {
            continue;
        }
        count += 1;
        match decoder.decode(&packet) {
            Ok(decoded) => parts.push_decoded(decoded)?,
            Err(error) => {
                let (_, number) = failed.get_or_insert((format!("at {:.1} seconds: {error}", parts.seconds()), 0));
                *number += 1;
            }
        }
    }
    // FLAC has a checksum of all samples.
    if failed.is_none() && decoder.finalize().verify_ok == Some(false) {
        return Err("damaged audio: the checksum of the samples is another than the file says".into());
    }
    match failed {
        Some((first, number)) => Err(format!(
            "damaged audio: {number} of its {count} packets cannot be decoded, the first {first}; `ffmpeg -i FILE \
             FILE.wav` makes a file of the others"
        )
        .into()),
        None => Ok(Decoded { expected }),
    }
}

fn open(bytes: Vec<u8>, container: Container) -> Result<Box<dyn FormatReader>, String> {
    let stream = MediaSourceStream::new(Box::new(std::io::Cursor::new(bytes)), Default::default());
    // Gapless: the padding that the encoder added at both ends is removed.
    let options = FormatOptions { enable_gapless: true, ..FormatOptions::default() };
    let probed = container.probe().format(&Default::default(), stream, &options, &Default::default());
    Ok(probed.map_err(|e| format!("not audio of a supported format (wav, flac, mp3, ogg, m4a, aac): {e}"))?.format)
}

/// The first audio track, its decoder and its length.
fn audio_track(format: &dyn FormatReader) -> Result<(u32, Box<dyn Decoder>, Option<u64>), String> {
    let track = format
        .tracks()
        .iter()
        .find(|t| t.codec_params.codec != CODEC_TYPE_NULL)
        .ok_or("no audio track of a supported codec (aac, flac, mp3, vorbis, pcm, adpcm)")?;
    if let Some(rate) = track.codec_params.sample_rate {
        check_rate(rate)?;
    }
    let decoder = symphonia::default::get_codecs()
        .make(&track.codec_params, &DecoderOptions { verify: true })
        .map_err(|e| format!("audio with an unsupported codec ({e})"))?;
    Ok((track.id, decoder, track.codec_params.n_frames))
}
