//! Writing data sets as `WebDataset` shards.

use crate::{
    ColumnBinding, Error, Manifest, OutputFolder, Result, Row,
    fetch::is_remote,
    file_type::{modality_of_extension, sniff},
    is_stored_file, open_output_folder, source_name,
};
use mm_core::{Modality, Source};
use serde_json::{Map, Value};
use std::{
    borrow::Cow,
    collections::{BTreeSet, HashSet},
    fs::File,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};
use tempfile::NamedTempFile;

/// Where a shard ends.
#[derive(Debug, Clone, Copy)]
pub struct ShardLimits {
    /// Most rows of a shard.
    pub max_rows: usize,
    /// Most bytes of its files, unless one row alone has more.
    pub max_bytes: u64,
}

impl Default for ShardLimits {
    /// As `WebDataset`'s `ShardWriter`.
    fn default() -> Self {
        Self { max_rows: 100_000, max_bytes: 3_000_000_000 }
    }
}

/// The shards that were written.
#[derive(Debug, Clone, Default)]
pub struct WrittenShards {
    /// The files, in order.
    pub files: Vec<PathBuf>,
    /// Number of rows.
    pub rows: usize,
    /// Rows that are left out because a file of theirs cannot be read: their ids, and why.
    pub failed: Vec<(String, String)>,
    /// Number of values whose language a shard does not hold.
    pub languages: usize,
    /// Columns of embedded files that are values of no modality and are left out.
    pub left_out: BTreeSet<String>,
}

/// One file of a sample.
struct Member<'a> {
    extension: String,
    bytes: Cow<'a, [u8]>,
}

/// Writes rows of a data set into shards `PREFIX-000000.tar`, `PREFIX-000001.tar` … Each row becomes files of one name:
/// its image, audio and video with their bytes unchanged, its text as `.txt`, and its other cells as `.json`. A shard is
/// complete or absent. The prefix may be a URL of an object store (`s3://bucket/PREFIX`), to which the program's
/// [`UrlFetcher`](crate::UrlFetcher) writes; a shard is a temporary file of this machine until it is complete.
///
/// # Errors
/// When a row has two files of one modality, before anything is written; when a shard exists already or cannot be
/// written.
pub fn write_shards(
    manifest: &Manifest,
    rows: &[usize],
    prefix: &Path,
    limits: ShardLimits,
    on_progress: &mut dyn FnMut(usize, usize),
) -> Result<WrittenShards> {
    // Before anything is written.
    for row in rows.iter().map(|row| &manifest.rows[*row]) {
        check_files(manifest, row)?;
    }
    let bound = BoundColumns::new(manifest);
    let keys = Keys::new(manifest);
    let mut written = WrittenShards::default();
    let mut open: Option<OpenShard> = None;
    for (number, row) in rows.iter().enumerate() {
        let row = &manifest.rows[*row];
        let (cells, left_out) = bound.other_cells(row);
        match members(row, cells) {
            Ok(members) => {
                let bytes: u64 = members.iter().map(|m| m.bytes.len() as u64).sum();
                let is_full = |s: &OpenShard| s.rows >= limits.max_rows || s.bytes + bytes > limits.max_bytes;
                if let Some(full) = open.take_if(|shard| is_full(shard)) {
                    written.files.push(full.finish()?);
                }
                let shard = match &mut open {
                    Some(shard) => shard,
                    None => open.insert(OpenShard::create(prefix, written.files.len())?),
                };
                shard.add(&keys.key(row, written.rows), &members)?;
                written.rows += 1;
                written.left_out.extend(left_out);
                written.languages += row.languages.values().flatten().flatten().count();
            }
            Err(reason) => written.failed.push((row.id.clone(), reason)),
        }
        on_progress(number + 1, rows.len());
    }
    if let Some(shard) = open {
        written.files.push(shard.finish()?);
    }
    Ok(written)
}

/// The names of the files of rows.
struct Keys<'a> {
    /// The ids that are such names: without dots.
    plain: HashSet<&'a str>,
}

impl<'a> Keys<'a> {
    fn new(manifest: &'a Manifest) -> Self {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        let ids = manifest.rows.iter().map(|row| row.id.as_str());
        Self { plain: ids.filter(|id| !id.is_empty() && id.len() <= 80 && id.chars().all(is_plain)).collect() }
    }

    /// The id of a row where it can be one, else its number in a form that is the id of no row.
    fn key(&self, row: &Row, number: usize) -> String {
        if self.plain.contains(row.id.as_str()) {
            return row.id.clone();
        }
        let mut key = format!("{number:09}");
        while self.plain.contains(key.as_str()) {
            key.push('_');
        }
        key
    }
}

/// Refuses a row with several files of one modality: they would need the same name.
fn check_files(manifest: &Manifest, row: &Row) -> Result<()> {
    let is_file = |source: &Source| matches!(source, Source::Path(_) | Source::Bytes(_));
    for (modality, values) in row.values.iter().filter(|(_, values)| values.iter().any(is_file)) {
        if values.len() > 1 {
            let reason = format!("the row has {} files of {modality}, expected one", values.len());
            return Err(Error::Row { path: manifest.path.clone(), row: row.number, reason });
        }
    }
    Ok(())
}

/// The columns of a table that hold values of modalities.
struct BoundColumns<'a>(BTreeSet<&'a str>);

impl<'a> BoundColumns<'a> {
    fn new(manifest: &'a Manifest) -> Self {
        Self(manifest.columns.modalities.values().flat_map(ColumnBinding::columns).map(String::as_str).collect())
    }

    /// The other cells of a row, and the names of those that are files inside the table, which shards do not hold.
    fn other_cells(&self, row: &Row) -> (Map<String, Value>, Vec<String>) {
        let mut left_out = Vec::new();
        let mut cells = row.cells.to_object();
        cells.retain(|column, cell| {
            let is_bound = self.0.contains(column.as_str());
            let is_left_out = !is_bound && is_stored_file(cell);
            if is_left_out {
                left_out.push(column.clone());
            }
            !is_bound && !is_left_out
        });
        (cells, left_out)
    }
}

/// The files of a row, or why one of them cannot be read.
fn members(row: &Row, mut cells: Map<String, Value>) -> std::result::Result<Vec<Member<'_>>, String> {
    let mut members = Vec::new();
    cells.entry("id").or_insert_with(|| Value::from(row.id.as_str()));
    for (modality, values) in &row.values {
        for source in values {
            match source {
                Source::Path(_) | Source::Bytes(_) => members.push(file_member(modality, source)?),
                Source::Text(text) if values.len() == 1 && *modality == Modality::TEXT => {
                    members.push(Member { extension: "txt".into(), bytes: Cow::Borrowed(text.as_bytes()) });
                }
                Source::Text(text) => add_value(&mut cells, modality, values.len(), Value::from(text.as_str())),
                other => match other.json() {
                    Some(value) => add_value(&mut cells, modality, values.len(), value.into_owned()),
                    None => return Err(format!("{} cannot be written into a shard", source_name(other))),
                },
            }
        }
    }
    let json = serde_json::to_vec(&cells).map_err(|e| e.to_string())?;
    members.push(Member { extension: "json".into(), bytes: Cow::Owned(json) });
    Ok(members)
}

/// A value that is no file: the cell of its modality, a list where there are several.
fn add_value(cells: &mut Map<String, Value>, modality: &Modality, count: usize, value: Value) {
    let name = modality.name().to_owned();
    if count == 1 {
        cells.insert(name, value);
    } else if let Value::Array(list) = cells.entry(name).or_insert_with(|| Value::Array(Vec::new())) {
        list.push(value);
    }
}

fn file_member<'a>(modality: &Modality, source: &'a Source) -> std::result::Result<Member<'a>, String> {
    let unreadable = |reason: String| format!("{}: {reason}", source_name(source));
    let (bytes, name): (Cow<'a, [u8]>, String) = match source {
        Source::Bytes(file) => (file.read().map_err(|e| unreadable(e.to_string()))?, file.name().to_owned()),
        Source::Path(path) => {
            let bytes = std::fs::read(path).map_err(|e| unreadable(e.to_string()))?;
            (Cow::Owned(bytes), path.to_string_lossy().into_owned())
        }
        _ => return Err(unreadable("is no file".into())),
    };
    let of_name = Path::new(&name).extension().and_then(|e| e.to_str()).map(str::to_ascii_lowercase);
    let of_name = of_name.filter(|e| modality_of_extension(e).is_some());
    let extension = sniff(&bytes).map(ToOwned::to_owned).or(of_name);
    let expected = format!("the content or the extension of an {modality} file");
    let extension = extension.ok_or_else(|| unreadable(format!("found neither {expected}")))?;
    Ok(Member { extension, bytes })
}

/// A shard that is being written.
struct OpenShard {
    path: PathBuf,
    place: Place,
    archive: tar::Builder<BufWriter<File>>,
    rows: usize,
    bytes: u64,
}

/// Where a shard is until it is complete.
enum Place {
    /// Next to where it goes.
    Local(PathBuf),
    /// In the folder for temporary files, for an object store.
    Remote(NamedTempFile, Box<dyn OutputFolder>),
}

impl OpenShard {
    fn create(prefix: &Path, index: usize) -> Result<Self> {
        let mut name = prefix.as_os_str().to_owned();
        name.push(format!("-{index:06}.tar"));
        let path = PathBuf::from(name);
        let (place, file) = if is_remote(&path) {
            let folder = open_output_folder(path.parent().unwrap_or(&path))?;
            let failed = |e| Error::file(&path, format!("no temporary file for the shard: {e}"));
            let file = NamedTempFile::new().map_err(failed)?;
            let archive = file.reopen().map_err(failed)?;
            (Place::Remote(file, folder), archive)
        } else {
            if path.exists() {
                return Err(exists_already(&path));
            }
            let mut partial = path.clone().into_os_string();
            partial.push(".partial");
            let partial = PathBuf::from(partial);
            let file = File::create(&partial).map_err(|e| Error::file(&partial, e))?;
            (Place::Local(partial), file)
        };
        Ok(Self { path, place, archive: tar::Builder::new(BufWriter::new(file)), rows: 0, bytes: 0 })
    }

    fn add(&mut self, key: &str, members: &[Member<'_>]) -> Result<()> {
        for Member { extension, bytes } in members {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            // The same rows give the same bytes.
            header.set_mtime(0);
            let added = self.archive.append_data(&mut header, format!("{key}.{extension}"), &**bytes);
            added.map_err(|e| Error::file(&self.path, e))?;
            self.bytes += bytes.len() as u64;
        }
        self.rows += 1;
        Ok(())
    }

    fn finish(self) -> Result<PathBuf> {
        let Self { path, place, archive, .. } = self;
        let failed = |e: std::io::Error| Error::file(&path, e);
        let mut file = archive.into_inner().map_err(failed)?;
        file.flush().map_err(failed)?;
        match place {
            Place::Local(partial) => {
                file.get_ref().sync_all().and_then(|()| std::fs::rename(&partial, &path)).map_err(failed)?;
            }
            Place::Remote(file, folder) => {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                if !folder.upload(&name, file.path()).map_err(failed)? {
                    return Err(exists_already(&path));
                }
            }
        }
        Ok(path)
    }
}

fn exists_already(path: &Path) -> Error {
    Error::file(path, "exists already; choose another --out, or delete it")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ManifestConfig;
    use serde_json::json;

    fn open(folder: &Path, name: &str) -> Manifest {
        Manifest::open(&ManifestConfig { manifest: name.into(), ..ManifestConfig::default() }, folder).unwrap()
    }

    #[test]
    fn numbers_as_names_are_the_ids_of_no_other_row() {
        let folder = tempfile::tempdir().unwrap();
        let rows = ["a.1", "000000000", "000000002_", "b.2", "000000002", "000000004"];
        let table: Vec<String> = rows.iter().map(|id| json!({"id": id, "text": id}).to_string()).collect();
        std::fs::write(folder.path().join("m.jsonl"), table.join("\n")).unwrap();
        let (manifest, prefix) = (open(folder.path(), "m.jsonl"), folder.path().join("d"));
        let all: Vec<usize> = (0..rows.len()).collect();
        write_shards(&manifest, &all, &prefix, ShardLimits::default(), &mut |_, _| {}).unwrap();
        let again = open(folder.path(), "d-000000.tar");
        assert_eq!(again.rows.iter().map(|r| r.id.as_str()).collect::<Vec<_>>(), rows);
    }

    #[test]
    fn rows_are_read_back_from_shards() {
        let folder = tempfile::tempdir().unwrap();
        let (png, jpg) = (b"\x89PNG\r\n\x1a\n first".as_slice(), b"\xff\xd8\xff second".as_slice());
        std::fs::write(folder.path().join("a.png"), png).unwrap();
        std::fs::write(folder.path().join("b.JPEG"), jpg).unwrap();
        let rows = [
            r#"{"id":"a","image":"a.png","text":"a dog","kind":"animal","n":1,"l":["x",2],"o":{"k":true},"z":null}"#,
            r#"{"id":"b.2","image":"b.JPEG","text":["a cat","the cat"],"kind":"animal"}"#,
            r#"{"id":"c","text":"no image","kind":"other"}"#,
            r#"{"id":"d","image":"missing.png","text":"unreadable"}"#,
        ];
        std::fs::write(folder.path().join("m.jsonl"), rows.join("\n")).unwrap();
        let manifest = open(folder.path(), "m.jsonl");
        let prefix = folder.path().join("shards-train");
        let limits = ShardLimits { max_rows: 2, ..ShardLimits::default() };
        let all: Vec<usize> = (0..4).collect();
        let written = write_shards(&manifest, &all, &prefix, limits, &mut |_, _| {}).unwrap();
        assert_eq!((written.files.len(), written.rows), (2, 3));
        assert!(written.failed[0].0 == "d" && written.failed[0].1.contains("missing.png"), "{:?}", written.failed);
        let again = open(folder.path(), "shards-train-{000000..000001}.tar");
        assert_eq!(again.rows.iter().map(|r| r.id.as_str()).collect::<Vec<_>>(), ["a", "b.2", "c"]);
        let text = |row: usize| again.rows[row].values[&Modality::TEXT].clone();
        assert_eq!(text(0), [Source::Text("a dog".into())]);
        assert_eq!(text(1), [Source::Text("a cat".into()), Source::Text("the cat".into())]);
        let bytes = |row: usize| match &again.rows[row].values[&Modality::IMAGE][0] {
            Source::Bytes(file) => file.read().unwrap().to_vec(),
            other => panic!("{other:?}"),
        };
        assert_eq!((bytes(0), bytes(1)), (png.to_vec(), jpg.to_vec()));
        assert!(!again.rows[2].values.contains_key(&Modality::IMAGE));
        // Cells keep their types.
        let json = again.rows[0].cells.to_object();
        assert_eq!((&json["n"], &json["l"], &json["o"]), (&1.into(), &json!(["x", 2]), &json!({"k": true})));
        assert_eq!(
            (again.rows[0].cells.get("kind").unwrap(), again.rows[1].cells.get("__key__").unwrap()),
            ("animal", "000000001")
        );
        // A row with two images is refused before anything is written.
        std::fs::write(folder.path().join("two.jsonl"), rows[0].replace("\"a.png\"", "[\"a.png\", \"b.JPEG\"]"))
            .unwrap();
        let (two, other) = (open(folder.path(), "two.jsonl"), folder.path().join("two"));
        let error = write_shards(&two, &[0], &other, limits, &mut |_, _| {}).unwrap_err().to_string();
        assert!(error.contains("row 1") && error.contains("2 files of image"), "{error}");
        // Nothing is overwritten, and nothing half-written is left.
        let error = write_shards(&manifest, &all, &prefix, limits, &mut |_, _| {}).unwrap_err().to_string();
        assert!(error.contains("exists already"), "{error}");
        let names = std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name());
        assert!(names.into_iter().all(|name| !name.to_string_lossy().ends_with(".partial")));
    }
}
