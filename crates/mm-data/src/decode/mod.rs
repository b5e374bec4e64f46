//! Files → text, pictures, sound and frames, each with limits, so that no file can take the machine down.

mod audio;
mod image;
mod text;
mod video;

pub use self::image::{ImageLimits, decode_image, decode_image_bytes};
pub use audio::{Audio, decode_audio, resample, write_wav};
pub use text::{TEXT_LIMIT, clean_text, read_text, text_from_bytes};
pub use video::{VideoInfo, decode_audio_track, ffmpeg, frame_count, frames_at, sample_frames, video_info};
