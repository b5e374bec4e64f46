//! Text files, decompressed and decoded while they are read.

use crate::{Error, Result, decode::encoding_of, notice};
use encoding_rs::{Decoder, DecoderResult, UTF_8};
use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

const GZIP: &[u8] = &[0x1f, 0x8b];
const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];

/// Bytes that are decoded at once.
const CHUNK: usize = 1 << 16;

/// The extension of a table in lower case, without that of a compression.
pub(super) fn kind_of(path: &Path) -> String {
    let extension = |p: &Path| p.extension().and_then(|e| e.to_str()).unwrap_or("").to_ascii_lowercase();
    match extension(path).as_str() {
        "gz" | "zst" => extension(Path::new(path.file_stem().unwrap_or_default())),
        other => other.to_owned(),
    }
}

/// The text of a file in UTF-8. What is wrong with the file is the message of an [`io::Error`], without its name.
pub(super) struct TextFile {
    path: PathBuf,
    bytes: Box<dyn Read>,
    /// What it means that bytes cannot be read.
    unread: &'static str,
    decoder: Decoder,
    /// Checks whether bytes that are read in another encoding are valid UTF-8; none once they are not.
    utf8: Option<Decoder>,
    raw: Vec<u8>,
    text: Vec<u8>,
    /// The part of `text` that was decoded and is not read yet.
    at: usize,
    end: usize,
    /// Bytes and line breaks so far.
    decoded: u64,
    lines: usize,
    is_ascii: bool,
    is_finished: bool,
}

impl TextFile {
    /// Opens a file in this encoding; in UTF-8, or what its byte-order mark says, when absent.
    pub(super) fn open(path: &Path, encoding: Option<&str>) -> Result<Self> {
        let unread = |e: io::Error| Error::file(path, format!("cannot be read: {e}"));
        let mut file = File::open(path).map_err(unread)?;
        if !file.metadata().map_err(unread)?.is_file() {
            return Err(Error::file(path, "found a pipe or a device, expected a file: tables are read more than once"));
        }
        let mut magic = Vec::new();
        file.by_ref().take(ZSTD.len() as u64).read_to_end(&mut magic).map_err(unread)?;
        file.seek(SeekFrom::Start(0)).map_err(unread)?;
        let (bytes, unread): (Box<dyn Read>, _) = if magic.starts_with(GZIP) {
            (Box::new(flate2::read::MultiGzDecoder::new(BufReader::new(file))), "damaged gzip file")
        } else if magic.starts_with(ZSTD) {
            (unpack_zstd(path, file)?, "damaged zstd file")
        } else {
            (Box::new(file), "cannot be read")
        };
        let of_text = encoding_of(encoding).map_err(|e| Error::file(path, with_hint(&e)))?;
        let decoder = of_text.new_decoder();
        // What a decoder keeps of the chunk before adds a few bytes.
        let size = decoder.max_utf8_buffer_length_without_replacement(CHUNK + 16).unwrap_or(4 * CHUNK);
        Ok(Self {
            path: path.to_owned(),
            bytes,
            unread,
            decoder,
            utf8: (encoding.is_some() && of_text != UTF_8).then(|| UTF_8.new_decoder_without_bom_handling()),
            raw: vec![0; CHUNK],
            text: vec![0; size],
            at: 0,
            end: 0,
            decoded: 0,
            lines: 0,
            is_ascii: true,
            is_finished: false,
        })
    }

    /// Decodes the bytes that follow.
    fn decode(&mut self) -> io::Result<()> {
        let count = loop {
            match self.bytes.read(&mut self.raw) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(io::Error::other(format!("{}: {e}", self.unread))),
                Ok(count) => break count,
            }
        };
        let raw = &self.raw[..count];
        self.is_finished = count == 0;
        let (result, read, written) =
            self.decoder.decode_to_utf8_without_replacement(raw, &mut self.text, self.is_finished);
        self.decoded += read as u64;
        if let DecoderResult::Malformed(length, after) = result {
            let position = self.decoded.saturating_sub(u64::from(length) + u64::from(after));
            let name = self.decoder.encoding().name();
            return Err(io::Error::other(with_hint(&format!("not valid {name} (first at byte {position})"))));
        }
        if read < count {
            return Err(io::Error::other(format!("decoded {read} of {count} bytes, expected all of them")));
        }
        (self.at, self.end) = (0, written);
        self.check_decoded(count)
    }

    /// Refuses NUL characters, and says where an encoding is probably another one.
    fn check_decoded(&mut self, count: usize) -> io::Result<()> {
        let text = &self.text[..self.end];
        let count_lines = |text: &[u8]| text.iter().map(|byte| usize::from(*byte == b'\n')).sum::<usize>();
        if let Some(at) = text.iter().position(|byte| *byte == 0) {
            let line = self.lines + count_lines(&text[..at]) + 1;
            let hint =
                "a file in UTF-16 without a byte-order mark needs --encoding utf-16le (data.encoding in a config)";
            return Err(io::Error::other(format!("line {line}: found a NUL character, expected text; {hint}")));
        }
        self.lines += count_lines(text);
        self.is_ascii &= text.is_ascii();
        if let Some(utf8) = &mut self.utf8 {
            let mut unused = vec![0; utf8.max_utf8_buffer_length_without_replacement(count).unwrap_or(4 * CHUNK)];
            let (result, ..) =
                utf8.decode_to_utf8_without_replacement(&self.raw[..count], &mut unused, self.is_finished);
            if matches!(result, DecoderResult::Malformed(..)) {
                self.utf8 = None;
            } else if self.is_finished && !self.is_ascii && self.decoder.encoding() != UTF_8 {
                let (path, name) = (self.path.display(), self.decoder.encoding().name());
                notice::once(format!("{path}: is valid UTF-8 but read as {name}, as asked"));
            }
        }
        Ok(())
    }
}

impl BufRead for TextFile {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.at == self.end && !self.is_finished {
            if let Err(error) = self.decode() {
                (self.at, self.end, self.is_finished) = (0, 0, true);
                return Err(error);
            }
        }
        Ok(&self.text[self.at..self.end])
    }

    fn consume(&mut self, amount: usize) {
        self.at = (self.at + amount).min(self.end);
    }
}

impl Read for TextFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut text = self.fill_buf()?;
        let count = text.read(buffer)?;
        self.consume(count);
        Ok(count)
    }
}

fn with_hint(reason: &str) -> String {
    format!("{reason}; name the file's encoding, for instance windows-1252 (data.encoding in a config, --encoding)")
}

#[cfg(feature = "zstd")]
fn unpack_zstd(path: &Path, file: File) -> Result<Box<dyn Read>> {
    let decoder = zstd::Decoder::new(file).map_err(|e| Error::file(path, format!("damaged zstd file: {e}")))?;
    Ok(Box::new(decoder))
}

#[cfg(not(feature = "zstd"))]
fn unpack_zstd(path: &Path, _: File) -> Result<Box<dyn Read>> {
    Err(Error::file(path, "this build does not read zstd; build mm-data with its `zstd` feature"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8], encoding: Option<&str>) -> Result<String, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        let mut text = String::new();
        let mut opened = TextFile::open(file.path(), encoding).map_err(|e| e.to_string())?;
        opened.read_to_string(&mut text).map_err(|e| e.to_string())?;
        Ok(text)
    }

    /// Characters that lie across the ends of chunks, in each encoding.
    #[test]
    fn a_file_of_several_chunks_is_decoded_as_one() {
        for offset in 0..4 {
            let text = format!("{}{}", "x".repeat(offset), "größe 日本語 🦀\n".repeat(3 * CHUNK / 20));
            let utf16: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
            assert!(read(text.as_bytes(), None).unwrap() == text);
            assert!(read(&[b"\xef\xbb\xbf", text.as_bytes()].concat(), Some("latin1")).unwrap() == text);
            assert!(read(&[b"\xff\xfe", &utf16[..]].concat(), None).unwrap() == text);
            assert!(read(&utf16, Some("utf-16le")).unwrap() == text);
        }
        let (encoded, ..) = encoding_rs::SHIFT_JIS.encode("日本語");
        assert_eq!(read(&encoded.repeat(CHUNK), Some("shift_jis")).unwrap(), "日本語".repeat(CHUNK));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place_in_the_file() {
        let lines = "a line\n".repeat(2 * CHUNK / 7);
        let error = |end: &[u8]| read(&[lines.as_bytes(), end].concat(), None).unwrap_err();
        let invalid = format!("not valid UTF-8 (first at byte {})", lines.len() + 2);
        assert!(error(b"ab\xff more").starts_with(&invalid), "{}", error(b"ab\xff more"));
        // A character that the end of the file cuts.
        assert!(error(b"ab\xf0\x9f\xa6").starts_with(&invalid), "{}", error(b"ab\xf0\x9f\xa6"));
        let nul = format!("line {}: found a NUL character", 2 * CHUNK / 7 + 2);
        assert!(error(b"a\nb\0c").starts_with(&nul), "{}", error(b"a\nb\0c"));
        assert!(read(b"a", Some("klingon")).unwrap_err().contains("`klingon` is not a known encoding"));
    }
}
