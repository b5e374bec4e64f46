//! The output file: one line a row in the order of the table, and what made it in a file next to it.

use super::TableRow;
use anyhow::{Context as _, Result, bail};
use mm_core::checkpoint::lock_file;
use mm_tasks::{embedding::with_suffix, provenance::Provenance};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::{Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

/// An output file with the lines of the first rows, locked while it is open.
pub(super) struct OutputLines {
    path: PathBuf,
    /// Number of lines.
    pub(super) count: usize,
    /// Indices of the lines that hold an error, which are tried again.
    pub(super) failed: Vec<usize>,
    file: File,
    _lock: File,
}

impl OutputLines {
    /// Opens or creates the output file of a table. What an interrupted command wrote of a batch is removed, so that
    /// the same rows are processed together as without the interruption: a model's rounding differs between batches.
    ///
    /// # Errors
    /// When it was written with another provenance or by hand, another process writes it, or it cannot be read or
    /// written.
    pub(super) fn open(path: &Path, provenance: &Provenance, rows: &[TableRow], batch_size: usize) -> Result<Self> {
        let state_path = with_suffix(path, ".state.json");
        let cannot_write = |path: &Path| format!("{} cannot be written", path.display());
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).read(true).write(true);
        let mut existing = read_lines(path)?;
        if !existing.is_empty() && !state_path.exists() {
            bail!(
                "{}: holds lines, but {} does not exist, which says what made them; choose another --out, or delete it",
                path.display(),
                state_path.display()
            );
        }
        let mut state = lock_file(&state_path)?;
        if existing.is_empty() {
            let text = serde_json::to_string_pretty(provenance)? + "\n";
            let write = |state: &mut File| -> std::io::Result<()> {
                state.set_len(0)?;
                state.write_all(text.as_bytes())?;
                state.sync_all()
            };
            write(&mut state).with_context(|| cannot_write(&state_path))?;
        } else {
            let mut text = String::new();
            state.read_to_string(&mut text).with_context(|| format!("{} cannot be read", state_path.display()))?;
            let of_file: Provenance = serde_json::from_str(&text)
                .with_context(|| format!("{}: not what mm wrote; choose another --out", state_path.display()))?;
            if let Some(difference) = provenance.difference(&of_file) {
                bail!("{}: {difference}; choose another --out, or delete it", path.display());
            }
        }
        let mut failed = check_lines(path, &existing, rows)?;
        if existing.len() < rows.len() {
            existing.truncate(existing.len() / batch_size * batch_size);
            failed.retain(|index| *index < existing.len());
        }
        let mut file = options.open(path).with_context(|| cannot_write(path))?;
        let length = existing.iter().map(|l| l.len() as u64 + 1).sum();
        file.set_len(length).with_context(|| cannot_write(path))?;
        file.seek(SeekFrom::End(0))?;
        Ok(Self { path: path.to_owned(), count: existing.len(), failed, file, _lock: state })
    }

    /// Writes the lines of the next rows.
    pub(super) fn append(&mut self, lines: &[String]) -> Result<()> {
        let text: String = lines.iter().flat_map(|line| [line, "\n"]).collect();
        self.file.write_all(text.as_bytes()).with_context(|| format!("{} cannot be written", self.path.display()))?;
        self.count += lines.len();
        Ok(())
    }

    /// Replaces lines by index; the file is complete at any time.
    pub(super) fn replace(&mut self, lines: &BTreeMap<usize, String>) -> Result<()> {
        if lines.is_empty() {
            return Ok(());
        }
        let existing = read_lines(&self.path)?;
        let line = |(index, line)| lines.get(&index).map_or(line, String::as_str);
        let text: String = existing.iter().map(String::as_str).enumerate().map(line).flat_map(|l| [l, "\n"]).collect();
        mm_core::checkpoint::write_atomic(&self.path, text.as_bytes())?;
        self.file = OpenOptions::new().append(true).open(&self.path)?;
        Ok(())
    }

    pub(super) fn sync(&self) -> Result<()> {
        self.file.sync_all().with_context(|| format!("{} cannot be written", self.path.display()))
    }
}

/// The complete lines of a file; none when it does not exist.
fn read_lines(path: &Path) -> Result<Vec<String>> {
    let mut bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e).with_context(|| format!("--out {} cannot be read", path.display())),
    };
    // The last line may be incomplete, in the middle of a character even.
    bytes.truncate(bytes.iter().rposition(|b| *b == b'\n').map_or(0, |end| end + 1));
    let text = String::from_utf8(bytes).with_context(|| format!("--out {} is not UTF-8", path.display()))?;
    Ok(text.lines().map(ToOwned::to_owned).collect())
}

/// The indices of the lines that hold an error.
fn check_lines(path: &Path, lines: &[String], rows: &[TableRow]) -> Result<Vec<usize>> {
    let mut failed = Vec::new();
    for (index, (line, row)) in lines.iter().zip(rows).enumerate() {
        let line: Option<Value> = serde_json::from_str(line).ok();
        let Some(line) = line.filter(|l| l["id"].as_str() == Some(row.id.as_str())) else {
            let (path, id) = (path.display(), &row.id);
            bail!("{path}: line {} is not of row {id}; choose another --out, or delete it", index + 1);
        };
        if line.get("error").is_some() {
            failed.push(index);
        }
    }
    if lines.len() > rows.len() {
        bail!("{}: has more lines than the table has rows; choose another --out, or delete it", path.display());
    }
    Ok(failed)
}
