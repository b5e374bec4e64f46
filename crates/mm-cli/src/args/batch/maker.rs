//! What makes the lines of an output file: command, model, options and table.

use super::TableRow;
use crate::args::dtype::DtypeArgs;
use anyhow::{Context as _, Result};
use mm_core::Source;
use mm_reason::generate::GenerationConfig;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::{
    collections::BTreeSet,
    fs::File,
    path::{Path, PathBuf},
};

/// What the lines of an output file depend on. Lines of another maker are not continued.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Maker {
    /// The command.
    command: String,
    /// Hash of the model's files.
    model: String,
    /// The options that change the lines, by name.
    options: Map<String, Value>,
    /// Hash of the rows of the table.
    #[serde(default)]
    table: String,
}

impl Maker {
    /// A command with the model of a folder and the options that change its lines.
    ///
    /// # Errors
    /// When a file of the model cannot be read.
    pub(crate) fn new(command: &str, model: &Path, options: Map<String, Value>) -> Result<Self> {
        Ok(Self { command: command.to_owned(), model: hash_model(model)?, options, table: String::new() })
    }

    /// The same for the rows of a table.
    pub(super) fn with_table(&self, rows: &[TableRow]) -> Self {
        let mut hasher = blake3::Hasher::new();
        for row in rows {
            // Bytes inside the table by their hash.
            let digest = |source: &Source| if let Source::Bytes(file) = source { Some(*file.digest()) } else { None };
            let file = row.file.as_ref().map(|f| (f.modality.name(), &f.path, digest(&f.source)));
            hasher.update(format!("{} {file:?} {:?}\n", row.id, row.cells).as_bytes());
        }
        Self { table: hasher.finalize().to_hex().to_string(), ..self.clone() }
    }

    /// What differs from the maker of an existing file, in words.
    pub(super) fn difference(&self, of_file: &Self) -> Option<String> {
        if self.command != of_file.command {
            return Some(format!("was written by `mm {}`, expected `mm {}`", of_file.command, self.command));
        }
        if self.model != of_file.model {
            return Some("holds lines of another model (--model), expected those of this model".to_owned());
        }
        let options = self.different_options(of_file);
        if !options.is_empty() {
            return Some(format!("holds lines made with other options: {}", options.join(", ")));
        }
        (self.table != of_file.table)
            .then(|| "holds lines of another table, or of this one before it was edited, expected the same rows".into())
    }
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

impl Maker {
    /// The options that differ from those of an existing file, with both values.
    fn different_options(&self, of_file: &Self) -> Vec<String> {
        let names: BTreeSet<_> = self.options.keys().chain(of_file.options.keys()).collect();
        let value = |maker: &Self, name: &str| maker.options.get(name).cloned().unwrap_or(Value::Null);
        let differs = |name: &&&String| value(self, name) != value(of_file, name);
        let text = |name: &String| format!("{name} {}, expected {}", value(of_file, name), value(self, name));
        names.iter().filter(differs).map(|name| text(name)).collect()
    }
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
