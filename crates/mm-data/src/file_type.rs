//! The type of a file, by its name and by its first bytes.

use std::path::Path;

/// File extensions by modality.
pub const FILE_EXTENSIONS: [(&str, &[&str]); 3] = [
    ("image", &["jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "svg"]),
    ("audio", &["wav", "flac", "mp3", "ogg", "oga", "m4a", "aac"]),
    ("video", &["mp4", "mkv", "webm", "mov", "avi"]),
];

/// The modality of files with this extension.
pub(crate) fn modality_of_extension(extension: &str) -> Option<&'static str> {
    let extension = extension.to_ascii_lowercase();
    FILE_EXTENSIONS.iter().find(|(_, known)| known.contains(&extension.as_str())).map(|(modality, _)| *modality)
}

/// The modality of a file or URL, by the extension of its name.
pub(crate) fn modality_of_name(name: &str) -> Option<&'static str> {
    let name = if name.contains("://") { name.split(['?', '#']).next().unwrap_or(name) } else { name };
    modality_of_extension(Path::new(name.trim()).extension()?.to_str()?)
}

/// The usual extension of an image, audio or video file, by its first bytes.
pub(crate) fn sniff(bytes: &[u8]) -> Option<&'static str> {
    let at = |from: usize, word: &[u8]| bytes.get(from..from + word.len()) == Some(word);
    let riff = |kind: &[u8]| at(0, b"RIFF") && at(8, kind);
    let known: [(bool, &str); 16] = [
        (at(0, b"\x89PNG\r\n"), "png"),
        (at(0, b"\xff\xd8\xff"), "jpg"),
        (at(0, b"GIF8"), "gif"),
        (riff(b"WEBP"), "webp"),
        (at(0, b"II*\0") || at(0, b"MM\0*"), "tif"),
        // Reserved bytes of a bitmap's header.
        (at(0, b"BM") && at(6, &[0; 4]), "bmp"),
        (riff(b"WAVE"), "wav"),
        (at(0, b"fLaC"), "flac"),
        (at(0, b"OggS"), "ogg"),
        (at(0, b"ID3"), "mp3"),
        (riff(b"AVI "), "avi"),
        (at(4, b"ftypM4A"), "m4a"),
        (at(4, b"ftypqt"), "mov"),
        (at(4, b"ftyp"), "mp4"),
        (at(0, b"\x1a\x45\xdf\xa3"), "mkv"),
        (is_mp3_frame(bytes), "mp3"),
    ];
    if let Some((_, extension)) = known.iter().find(|(found, _)| *found) {
        return Some(extension);
    }
    let head = String::from_utf8_lossy(&bytes[..bytes.len().min(1024)]);
    let head = head.trim_start_matches('\u{feff}').trim_start();
    (head.starts_with("<svg") || (head.starts_with("<?xml") && head.contains("<svg"))).then_some("svg")
}

/// Whether a file may hold a video, by its first bytes: Matroska or WebM, MP4 or QuickTime but M4A, or AVI.
///
/// ```
/// assert!(mm_data::is_video_container(b"\0\0\0\x20ftypisom"));
/// assert!(!mm_data::is_video_container(b"\0\0\0\x20ftypM4A "));
/// ```
pub fn is_video_container(bytes: &[u8]) -> bool {
    sniff(bytes).and_then(modality_of_extension) == Some("video")
}

/// Whether the bytes start with the header of an MPEG audio frame, layer III.
fn is_mp3_frame(bytes: &[u8]) -> bool {
    let &[first, second, third, ..] = bytes else { return false };
    let (version, layer, bitrate, rate) = (second >> 3 & 3, second >> 1 & 3, third >> 4, third >> 2 & 3);
    first == 0xff && second >> 5 == 7 && version != 1 && layer == 1 && bitrate != 15 && bitrate != 0 && rate != 3
}
