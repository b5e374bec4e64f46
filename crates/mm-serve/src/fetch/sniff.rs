//! What a file is by its first bytes.

/// As many bytes as are looked at.
pub(super) const SNIFF_BYTES: usize = 4096;

/// The first bytes of formats that are recognized by these alone.
const SIGNATURES: [(&[u8], &str); 10] = [
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"II*\0", "image/tiff"),
    (b"MM\0*", "image/tiff"),
    (b"II+\0\x08\0\0\0", "image/tiff"),
    (b"MM\0+\0\x08\0\0", "image/tiff"),
    (b"OggS\0", "audio/ogg"),
    (b"fLaC", "audio/flac"),
];

/// The MIME type of an image, audio or video file that models take.
pub(super) fn sniff(bytes: &[u8]) -> Option<&'static str> {
    let head = &bytes[..bytes.len().min(SNIFF_BYTES)];
    let signed = SIGNATURES.into_iter().find(|(start, _)| head.starts_with(start)).map(|(_, mime)| mime);
    let other = || riff(head).or_else(|| bmp(head)).or_else(|| mp3(head)).or_else(|| mp4(head));
    signed.or_else(other).or_else(|| matroska(head)).or_else(|| svg(head))
}

fn riff(head: &[u8]) -> Option<&'static str> {
    match (head.get(..4)?, head.get(8..12)?) {
        (b"RIFF", b"WEBP") => Some("image/webp"),
        (b"RIFF", b"WAVE") => Some("audio/wav"),
        _ => None,
    }
}

/// Two letters could start a text: the size of the second header has to be one that exists.
fn bmp(head: &[u8]) -> Option<&'static str> {
    let size = u32::from_le_bytes(head.get(14..18)?.try_into().ok()?);
    (head.starts_with(b"BM") && [12, 16, 40, 52, 56, 64, 108, 124].contains(&size)).then_some("image/bmp")
}

/// A tag of ID3, or the header of a frame of layer III with a bit rate and a sample rate that exist.
fn mp3(head: &[u8]) -> Option<&'static str> {
    let tagged =
        |tag: &[u8]| tag.starts_with(b"ID3") && (2..=4).contains(&tag[3]) && tag[6..].iter().all(|b| *b < 0x80);
    let is_frame = |frame: &[u8]| {
        let [sync, kind, rates, ..] = *frame else { return false };
        let (version, layer) = (kind >> 3 & 3, kind >> 1 & 3);
        let (bit_rate, sample_rate) = (rates >> 4, rates >> 2 & 3);
        sync == 0xff && kind >> 5 == 7 && version != 1 && layer == 1 && !matches!(bit_rate, 0 | 15) && sample_rate != 3
    };
    (head.get(..10).is_some_and(tagged) || is_frame(head)).then_some("audio/mpeg")
}

/// ISO media by the brand of the file: AVIF and HEIC have the same container, and others.
fn mp4(head: &[u8]) -> Option<&'static str> {
    if head.get(4..8)? != b"ftyp" {
        return None;
    }
    match head.get(8..12)? {
        b"M4A " | b"M4B " => Some("audio/mp4"),
        b"avc1" | b"dash" | b"MSNV" | b"M4V " | b"M4VH" | b"M4VP" | b"f4v " => Some("video/mp4"),
        [b'i', b's', b'o', b'm' | b'1'..=b'9'] | [b'm', b'p', b'4', b'1' | b'2'] | [b'3', b'g', ..] => {
            Some("video/mp4")
        }
        _ => None,
    }
}

/// EBML by its document type, which is in its first element.
fn matroska(head: &[u8]) -> Option<&'static str> {
    let first = head.strip_prefix(b"\x1a\x45\xdf\xa3")?;
    let first = &first[..first.len().min(64)];
    let has = |kind: &[u8]| first.windows(kind.len()).any(|window| window == kind);
    if has(b"\x42\x82\x84webm") {
        return Some("video/webm");
    }
    has(b"\x42\x82\x88matroska").then_some("video/x-matroska")
}

/// An XML document whose first element is `svg`.
fn svg(head: &[u8]) -> Option<&'static str> {
    let text = String::from_utf8_lossy(head);
    let mut rest = text.trim_start_matches('\u{feff}').trim_start();
    loop {
        let after = if let Some(instruction) = rest.strip_prefix("<?") {
            instruction.split_once("?>")?.1
        } else if let Some(comment) = rest.strip_prefix("<!--") {
            comment.split_once("-->")?.1
        } else if let Some(doctype) = rest.strip_prefix("<!DOCTYPE svg") {
            let (start, after) = doctype.split_once('>')?;
            // Definitions in brackets have `>` of their own.
            if start.contains('[') { doctype.split_once(']')?.1.split_once('>')?.1 } else { after }
        } else {
            break;
        };
        rest = after.trim_start();
    }
    let name = rest.strip_prefix("<svg:svg").or_else(|| rest.strip_prefix("<svg"))?;
    name.starts_with(|c: char| c.is_ascii_whitespace() || c == '>' || c == '/').then_some("image/svg+xml")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_told_by_their_first_bytes() {
        let bmp = [b"BM".as_slice(), &[0; 12], &[40, 0, 0, 0]].concat();
        let cases: [(&[u8], &str); 33] = [
            (b"\xff\xd8\xff\xe0\0\x10JFIF", "image/jpeg"),
            (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "image/png"),
            (b"GIF87a", "image/gif"),
            (b"GIF89a", "image/gif"),
            (b"RIFF\x10\0\0\0WEBPVP8 ", "image/webp"),
            (&bmp, "image/bmp"),
            (b"II*\0\x08\0\0\0", "image/tiff"),
            (b"MM\0*\0\0\0\x08", "image/tiff"),
            (b"II+\0\x08\0\0\0", "image/tiff"),
            (b"MM\0+\0\x08\0\0", "image/tiff"),
            (b"<svg xmlns='x'/>", "image/svg+xml"),
            (b"<svg>", "image/svg+xml"),
            (b"\xef\xbb\xbf <?xml version='1.0'?>\n<!-- <a> --><!DOCTYPE svg PUBLIC \"x\">\n<svg\n>", "image/svg+xml"),
            (b"<!DOCTYPE svg [ <!ENTITY a \"b\"> ]><svg:svg xmlns:svg='x'>", "image/svg+xml"),
            (b"RIFF\x10\0\0\0WAVEfmt ", "audio/wav"),
            (b"ID3\x03\0\0\0\0\x0f\x76", "audio/mpeg"),
            (b"\xff\xfb\x90\x64", "audio/mpeg"),
            (b"\xff\xf3\x40\xc4", "audio/mpeg"),
            (b"OggS\0\x02", "audio/ogg"),
            (b"fLaC\0\0\0\x22", "audio/flac"),
            (b"\0\0\0\x20ftypisom\0\0\x02\0", "video/mp4"),
            (b"\0\0\0\x20ftypiso6", "video/mp4"),
            (b"\0\0\0\x18ftypmp42", "video/mp4"),
            (b"\0\0\0\x18ftyp3gp4", "video/mp4"),
            (b"\0\0\0\x18ftypM4V ", "video/mp4"),
            (b"\0\0\0\x18ftypavc1", "video/mp4"),
            (b"\0\0\0\x18ftypdash", "video/mp4"),
            (b"\0\0\0\x18ftypMSNV", "video/mp4"),
            (b"\0\0\0\x18ftypM4A ", "audio/mp4"),
            (b"\0\0\0\x18ftypM4B ", "audio/mp4"),
            (b"\x1a\x45\xdf\xa3\x9f\x42\x86\x81\x01\x42\x82\x84webm", "video/webm"),
            (b"\x1a\x45\xdf\xa3\xa3\x42\x86\x81\x01\x42\x82\x88matroska", "video/x-matroska"),
            (b"<?xml version=\"1.0\" encoding=\"UTF-8\"?><svg width='1'>", "image/svg+xml"),
        ];
        for (bytes, mime) in cases {
            assert_eq!(sniff(bytes), Some(mime), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn other_files_are_not() {
        let cases: [&[u8]; 27] = [
            b"",
            b"<",
            b"<html><svg></svg></html>",
            b"<!DOCTYPE html><svg>",
            b"<!DOCTYPE svg [ <!ENTITY",
            b"<!-- never ends <svg>",
            b"<?xml version='1.0'?><rss>",
            b"<svgx>",
            b"<svg",
            b"{\"Code\": \"Success\"}",
            b"root:x:0:0:root:/root:/bin/bash",
            b"BMW and other cars, in plain text",
            b"BM",
            b"RIFF\x10\0\0\0AVI LIST",
            b"RIFF",
            b"\x1f\x8b\x08\0\0\0\0\0",
            b"PK\x03\x04",
            b"%PDF-1.7",
            b"\0\0\0\x20ftypheic",
            b"\0\0\0\x20ftypavif",
            b"\0\0\0\x20ftypmif1",
            b"\0\0\0\x20ftyp",
            b"\x1a\x45\xdf\xa3\x9f\x42\x86\x81\x01",
            b"\xff\xf1\x50\x80",
            b"\xff\xfe<\0h\0",
            b"\xff\xfb\xf0\x64",
            b"ID3 is a kind of tag",
        ];
        for bytes in cases {
            assert_eq!(sniff(bytes), None, "{}", bytes.escape_ascii());
        }
        let far = [b"<!--".as_slice(), &[b' '; SNIFF_BYTES], b"--><svg>"].concat();
        assert_eq!(sniff(&far), None);
    }
}
