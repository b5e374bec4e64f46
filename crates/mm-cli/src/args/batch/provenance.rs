//! The provenance of an output file, from the files of a model and the rows of a table.

use super::TableRow;
use crate::args::dtype::DtypeArgs;
use anyhow::{Context as _, Result};
use mm_core::Source;
use mm_reason::generate::GenerationConfig;
use mm_tasks::provenance::Provenance;
use serde_json::{Map, Value};
use std::{
    fs::File,
    path::{Path, PathBuf},
};

/// The provenance of a command's output, without the table: the model in a folder, and the options that change lines.
///
/// # Errors
/// When a file of the model cannot be read.
pub(crate) fn command_provenance(command: &str, model: &Path, options: Map<String, Value>) -> Result<Provenance> {
    Ok(Provenance { command: command.to_owned(), model: hash_model(model)?, options, table: String::new() })
}

/// The provenance with the hash of a table's rows.
pub(super) fn with_table(provenance: &Provenance, rows: &[TableRow]) -> Provenance {
    let mut hasher = blake3::Hasher::new();
    for row in rows {
        // Bytes inside the table by their hash.
        let digest = |source: &Source| if let Source::Bytes(file) = source { Some(*file.digest()) } else { None };
        let file = row.file.as_ref().map(|f| (f.modality.name(), &f.path, digest(&f.source)));
        hasher.update(format!("{} {file:?} {:?}\n", row.id, row.cells).as_bytes());
    }
    Provenance { table: hasher.finalize().to_hex().to_string(), ..provenance.clone() }
}

/// The options of a command that generates text: its own, those of generation, and the type to compute in.
pub(crate) fn generation_options(
    own: Value,
    generation: Option<&GenerationConfig>,
    dtype: &DtypeArgs,
) -> Result<Map<String, Value>> {
    let mut options = Map::new();
    for part in [serde_json::to_value(generation)?, serde_json::to_value(dtype)?, own] {
        if let Value::Object(part) = part {
            options.extend(part);
        }
    }
    Ok(options)
}

/// Files that training, evaluation and reports write next to a model and that do not change its output.
fn is_record(name: &str) -> bool {
    name.starts_with('.')
        || name.starts_with("evaluation-")
        || name.contains("tfevents")
        || [".html", ".jsonl", ".md", ".lock", ".log"].iter().any(|end| name.ends_with(end))
}

/// Hash of the files of a model folder.
fn hash_model(folder: &Path) -> Result<String> {
    let mut files = Vec::new();
    list_files(folder, &mut files).with_context(|| format!("{} cannot be read", folder.display()))?;
    files.sort();
    let mut hasher = blake3::Hasher::new();
    for file in files {
        let cannot_read = || format!("{} cannot be read", file.display());
        hasher.update(file.strip_prefix(folder).unwrap_or(&file).as_os_str().as_encoded_bytes());
        hasher.update_reader(File::open(&file).with_context(cannot_read)?).with_context(cannot_read)?;
    }
    Ok(hasher.finalize().to_hex().to_string())
}

fn list_files(folder: &Path, out: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if is_record(&name) {
            continue;
        }
        if path.is_dir() {
            list_files(&path, out)?;
        } else if path.is_file() {
            out.push(path);
        }
    }
    Ok(())
}
