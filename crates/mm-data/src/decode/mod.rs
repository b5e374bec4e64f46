//! Files → text, images, audio and video frames. Each decoder has a size limit, so that no file can exhaust the memory.

mod audio;
mod ffmpeg;
mod frame_sampling;
mod image;
mod jpeg;
mod resample;
mod svg;
mod text;
mod video;

pub(crate) use self::image::IMAGE_DECODERS;
pub use self::image::{ImageLimits, Transparency, decode_image, decode_image_bytes};
pub use audio::{
    Audio, AudioLimits, AudioTooLong, decode_audio, decode_audio_bytes, decode_audio_bytes_within, decode_audio_track,
    decode_audio_within, write_wav,
};
pub use ffmpeg::{ffmpeg, ffmpeg_version};
pub use frame_sampling::FrameSampling;
pub use resample::resample;
pub(crate) use text::encoding_of;
pub use text::{TEXT_LIMIT, check_text_size, clean_text, read_text, text_from_bytes};
pub use video::{VideoInfo, frame_count, frames_at, sample_frames, video_info};
