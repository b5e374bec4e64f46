//! `WebDataset` shards: tar archives in which files with the same name and different extensions form one sample.
//!
//! <https://github.com/webdataset/webdataset>

use super::{Cells, blobs::BlobWriter, rows::Rows};
use crate::{Error, Result, file_type::modality_of_extension};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::Path,
};

/// The column of a sample's key.
pub(in super::super) const KEY_COLUMN: &str = "__key__";
/// Extensions of texts.
const TEXT_EXTENSIONS: [&str; 3] = ["txt", "text", "transcript"];
/// Extensions of numbers and names, one in a file.
const CELL_EXTENSIONS: [&str; 5] = ["cls", "cls2", "class", "count", "index"];
/// Bytes of a block of a tar archive.
const BLOCK: u64 = 512;

/// Where the files of an archive are read from later.
enum Contents {
    /// The archive itself, which has this number among the files of the table.
    Archive(usize),
    /// Copies, since a compressed archive cannot be read from the middle.
    Copies,
}

/// The key and the extension of a file: `a/b.seg.png` → `a/b` and `seg.png`.
fn key_and_extension(name: &str) -> Option<(&str, String)> {
    let base = name.rfind('/').map_or(0, |at| at + 1);
    let dot = name[base..].find('.').filter(|at| *at > 0)? + base;
    let extension = name[dot + 1..].to_ascii_lowercase();
    (!extension.is_empty()).then(|| (&name[..dot], extension))
}

/// Reads an archive, which may be the copy of a URL.
pub(super) fn read(path: &Path, url: Option<&Path>, blobs: &mut BlobWriter<'_>, rows: &mut Rows<'_>) -> Result<()> {
    let mut file = File::open(path).map_err(|e| Error::file(path, format!("cannot be read: {e}")))?;
    let mut magic = [0; 2];
    let count = file.read(&mut magic).and_then(|n| file.seek(SeekFrom::Start(0)).map(|_| n));
    let count = count.map_err(|e| Error::file(path, format!("cannot be read: {e}")))?;
    let samples = if magic[..count] == [0x1f, 0x8b] {
        read_samples(path, flate2::read::MultiGzDecoder::new(file), &Contents::Copies, blobs)?
    } else {
        let contents = Contents::Archive(blobs.add_archive(path, url));
        read_samples(path, file, &contents, blobs)?
    };
    rows.set_joined(true);
    with_modality_columns(samples).into_iter().try_for_each(|row| rows.push(row, blobs))?;
    rows.set_joined(false);
    Ok(())
}

/// Counts what is read, so that the end of the archive can be checked.
struct Counted<R> {
    inner: R,
    bytes: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.bytes += count as u64;
        Ok(count)
    }
}

/// The samples of an archive: the extension of each of its files, with the cell.
fn read_samples(path: &Path, reader: impl Read, contents: &Contents, blobs: &mut BlobWriter<'_>) -> Result<Vec<Cells>> {
    let mut archive = tar::Archive::new(Counted { inner: reader, bytes: 0 });
    let mut samples: Vec<Cells> = Vec::new();
    let mut keys: BTreeSet<String> = BTreeSet::new();
    let (mut last, mut end) = (String::new(), 0);
    let damaged = |e: std::io::Error, last: &str| {
        let after = if last.is_empty() { String::new() } else { format!(" after the sample `{last}`") };
        Error::file(path, format!("damaged or truncated tar archive{after}: {e}"))
    };
    for entry in archive.entries().map_err(|e| damaged(e, ""))? {
        let mut entry = entry.map_err(|e| damaged(e, &last))?;
        end = (entry.raw_file_position() + entry.size()).next_multiple_of(BLOCK);
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        let Some((key, extension)) = key_and_extension(&name) else {
            tracing::warn!("{}: {name} has no extension and is left out", path.display());
            continue;
        };
        let offset = entry.raw_file_position();
        let mut bytes = Vec::with_capacity(usize::try_from(entry.size()).unwrap_or(0).min(1 << 24));
        entry.read_to_end(&mut bytes).map_err(|e| damaged(e, &last))?;
        if samples.is_empty() || key != last {
            if !keys.insert(key.to_owned()) {
                let reason = format!("the files of the sample `{key}` are not next to each other");
                return Err(Error::file(path, format!("{reason}; write the archive sorted by name (tar --sort=name)")));
            }
            key.clone_into(&mut last);
            samples.push(Cells::from_iter([(KEY_COLUMN.to_owned(), Value::from(key))]));
        }
        let cell = cell(path, &name, &extension, &bytes, offset, contents, blobs)?;
        if let Some(sample) = samples.last_mut()
            && sample.insert(extension.clone(), cell).is_some()
        {
            return Err(Error::file(path, format!("the sample `{key}` has two files with the extension .{extension}")));
        }
    }
    let mut rest = archive.into_inner();
    std::io::copy(&mut rest, &mut std::io::sink()).map_err(|e| damaged(e, &last))?;
    // The files are followed by an empty block; an archive that was cut between two files has none.
    if rest.bytes < end + BLOCK {
        let reason = format!("truncated tar archive: it ends after {} samples without an end marker", samples.len());
        return Err(Error::file(path, format!("{reason}; copy or write it again")));
    }
    Ok(samples)
}

/// The cell of a file: its text, its JSON, or a reference to its bytes.
fn cell(
    path: &Path,
    name: &str,
    extension: &str,
    bytes: &[u8],
    offset: u64,
    contents: &Contents,
    blobs: &mut BlobWriter<'_>,
) -> Result<Value> {
    let invalid = |reason: String| Error::file(path, format!("{name}: {reason}"));
    let text = || std::str::from_utf8(bytes).map_err(|e| invalid(format!("found {e}, expected text in UTF-8")));
    if TEXT_EXTENSIONS.contains(&extension) || CELL_EXTENSIONS.contains(&extension) {
        return Ok(Value::from(text()?.trim_end_matches(['\r', '\n'])));
    }
    if extension == "json" {
        return serde_json::from_str(text()?).map_err(|e| invalid(format!("not JSON: {e}")));
    }
    match contents {
        Contents::Archive(file) => Ok(BlobWriter::reference(*file, offset, bytes, Some(name))),
        Contents::Copies => blobs.add(bytes, Some(name)),
    }
}

/// Renames the columns of extensions to their modality (`jpg` and `png` → `image`) where no sample has two files of it,
/// and makes columns of the keys of `json`.
fn with_modality_columns(samples: Vec<Cells>) -> Vec<Cells> {
    let modality = |column: &str| match column {
        text if TEXT_EXTENSIONS.contains(&text) => Some("text"),
        other => modality_of_extension(other),
    };
    let mut most: BTreeMap<&str, usize> = BTreeMap::new();
    for sample in &samples {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        sample.keys().filter_map(|column| modality(column)).for_each(|m| *counts.entry(m).or_default() += 1);
        for (modality, count) in counts {
            let most = most.entry(modality).or_default();
            *most = count.max(*most);
        }
    }
    let renamed = |(column, value): (String, Value)| match modality(&column).filter(|m| most.get(m) == Some(&1)) {
        Some(modality) => (modality.to_owned(), value),
        None => (column, value),
    };
    let flattened = |sample: Cells| {
        let mut cells: Cells = sample.into_iter().map(renamed).collect();
        if let Some(Value::Object(object)) = cells.get("json").cloned() {
            cells.remove("json");
            for (key, value) in object {
                cells.entry(key).or_insert(value);
            }
        }
        cells
    };
    samples.into_iter().map(flattened).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Manifest, ManifestConfig};
    use mm_core::{Modality, Source};

    /// A tar archive of files.
    fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, bytes) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            builder.append_data(&mut header, name, *bytes).unwrap();
        }
        builder.into_inner().unwrap()
    }

    const PNG: &[u8] = b"\x89PNG\r\n\x1a\n and so on";

    fn open(name: &str, files: &[(&str, Vec<u8>)]) -> Result<Manifest> {
        open_in(tempfile::tempdir().unwrap().path(), name, files)
    }

    fn open_in(folder: &Path, name: &str, files: &[(&str, Vec<u8>)]) -> Result<Manifest> {
        for (name, bytes) in files {
            std::fs::write(folder.join(name), bytes).unwrap();
        }
        Manifest::open(&ManifestConfig { manifest: name.into(), ..ManifestConfig::default() }, folder)
    }

    #[test]
    fn a_sample_is_the_files_of_one_name() {
        let first = archive(&[
            ("d/0.json", br#"{"label": "dog", "n": 3}"#),
            ("d/0.png", PNG),
            ("d/0.txt", b"a dog\n"),
            ("d/1.jpg", b"\xff\xd8\xff jpeg"),
            ("d/1.txt", "zwei Bäume".as_bytes()),
        ]);
        let second = archive(&[("e/0.txt", b"no image"), ("README", b"left out")]);
        let files = [("a-000.tar", first), ("a-001.tar", second)];
        let folder = tempfile::tempdir().unwrap();
        let manifest = open_in(folder.path(), "a-{000..001}.tar", &files).unwrap();
        let ids: Vec<&str> = manifest.rows.iter().map(|r| r.id.as_str()).collect();
        assert_eq!(ids, ["d/0", "d/1", "e/0"]);
        assert_eq!(manifest.rows[0].values[&Modality::TEXT], [Source::Text("a dog".into())]);
        assert_eq!(manifest.rows[0].cells.get("label"), Some("dog"));
        let bytes = |row: usize| match &manifest.rows[row].values[&Modality::IMAGE][..] {
            [Source::Bytes(file)] => (file.name().to_owned(), file.read().unwrap().to_vec()),
            other => panic!("{other:?}"),
        };
        assert_eq!(bytes(0), ("d/0.png".to_owned(), PNG.to_vec()));
        assert_eq!(bytes(1), ("d/1.jpg".to_owned(), b"\xff\xd8\xff jpeg".to_vec()));
        assert!(!manifest.rows[2].values.contains_key(&Modality::IMAGE));
    }

    #[test]
    fn compressed_archives_are_read_from_copies() {
        use std::io::Write;
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&archive(&[("0.png", PNG), ("0.txt", b"a dog")])).unwrap();
        let manifest = open("a.tar.gz", &[("a.tar.gz", gzip.finish().unwrap())]).unwrap();
        let [Source::Bytes(file)] = &manifest.rows[0].values[&Modality::IMAGE][..] else { panic!() };
        assert_eq!(&*file.read().unwrap(), PNG);
    }

    #[test]
    fn two_images_of_a_sample_keep_their_extensions() {
        let manifest = open("a.tar", &[("a.tar", archive(&[("0.jpg", b"\xff\xd8\xff"), ("0.seg.png", PNG)]))]).unwrap();
        assert_eq!(manifest.rows[0].values[&Modality::IMAGE].len(), 1);
        let both = open("a.tar", &[("a.tar", archive(&[("0.jpg", b"\xff\xd8\xff"), ("0.png", PNG)]))]).unwrap();
        assert_eq!(both.columns.modalities["image"].columns(), ["jpg"]);
    }

    #[test]
    fn damaged_archives_and_shards_that_are_missing_are_errors() {
        let whole = archive(&[("0.png", PNG), ("0.txt", b"a dog"), ("1.txt", b"a cat")]);
        let error = |name: &str, bytes: &[u8]| open(name, &[("a-0.tar", bytes.to_vec())]).unwrap_err().to_string();
        // Cut at every block, inside of a header, and inside of a file.
        for length in (0..whole.len() - 1024).step_by(512).chain([100, 700, 1300]) {
            let message = error("a-0.tar", &whole[..length]);
            assert!(message.contains("truncated") || message.contains("damaged"), "{length}: {message}");
        }
        assert!(open("a-0.tar", &[("a-0.tar", whole.clone())]).is_ok());
        let missing = error("a-{0..2}.tar", &whole);
        assert!(missing.contains("a-1.tar") && missing.contains("2 of 3"), "{missing}");
        let twice = archive(&[("0.txt", b"a"), ("0.txt", b"b")]);
        assert!(error("a-0.tar", &twice).contains("two files with the extension .txt"));
        let apart = archive(&[("0.txt", b"a"), ("1.txt", b"b"), ("0.png", PNG)]);
        assert!(error("a-0.tar", &apart).contains("`0` are not next to each other"));
        assert!(error("a-0.tar", &archive(&[("0.json", b"{"), ("0.txt", b"b")])).contains("0.json: not JSON"));
        assert!(error("a-0.tar", &archive(&[("0.txt", b"\xff\xfe")])).contains("expected text in UTF-8"));
    }
}
