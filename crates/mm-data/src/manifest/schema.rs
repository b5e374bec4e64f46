//! Which column of a table is what: given by the config, or inferred from column names and values.

use super::{
    split::SplitConfig,
    table::{Cells, cell_text},
};
use crate::{Error, Result};
use mm_core::Source;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::Path,
};

/// The column of a modality, or several columns that form one value: texts are joined by line breaks, files follow one
/// another, and for other modalities the cells form one JSON object by column name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ColumnBinding {
    /// One column.
    Single(String),
    /// Several columns.
    Multiple(Vec<String>),
}

impl ColumnBinding {
    /// The columns.
    pub fn columns(&self) -> &[String] {
        match self {
            Self::Single(column) => std::slice::from_ref(column),
            Self::Multiple(columns) => columns,
        }
    }
}

impl From<&str> for ColumnBinding {
    fn from(column: &str) -> Self {
        Self::Single(column.to_owned())
    }
}

impl std::fmt::Display for ColumnBinding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.columns().join(" + "))
    }
}

/// Which column is what (`[data.columns]`). What is absent is inferred from column names and values.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Columns {
    /// Modality → its column. A list in a cell holds several values of one sample, such as captions.
    pub modalities: BTreeMap<String, ColumnBinding>,
    /// The column of unique ids. When absent: the column `id`, else row numbers; row numbers in any case when it is the
    /// empty text.
    pub id: Option<String>,
    /// Rows with the same value in this column show the same item: they match each other in retrieval.
    pub item: Option<String>,
    /// The column of labels.
    pub label: Option<String>,
    /// The column of numbers that orders the rows of an item; the order of the file when absent.
    pub order: Option<String>,
}

/// File extensions by modality.
pub const FILE_EXTENSIONS: [(&str, &[&str]); 3] = [
    ("image", &["jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "svg"]),
    ("audio", &["wav", "flac", "mp3", "ogg", "oga", "m4a", "aac"]),
    ("video", &["mp4", "mkv", "webm", "mov", "avi"]),
];

/// Number of rows that columns are inferred from.
const INFERENCE_ROWS: usize = 1000;

/// Completes `given` from a table: file extensions identify image, audio and video columns; a column of words is text;
/// `id`, `item` and `label` are found by name.
pub(super) fn infer_columns(table: &[Cells], given: &Columns) -> Columns {
    let mut columns = given.clone();
    let names: BTreeSet<&String> = table.iter().take(INFERENCE_ROWS).flat_map(|r| r.keys()).collect();
    let has = |name: &str| names.iter().any(|n| n.as_str() == name).then(|| name.to_owned());
    columns.id = columns.id.or_else(|| has("id")).filter(|c| !c.is_empty());
    columns.item = columns.item.or_else(|| has("item"));
    columns.label = columns.label.or_else(|| has("label"));
    if !columns.modalities.is_empty() {
        return columns;
    }
    let mut text_candidates = Vec::new();
    for name in names {
        let stats = ColumnStats::of(table, name);
        if let Some(modality) = stats.file_modality() {
            columns.modalities.entry(modality.to_owned()).or_insert_with(|| name.as_str().into());
        } else if stats.filled > 0
            && ![&columns.id, &columns.item, &columns.label].into_iter().flatten().any(|c| c == name)
        {
            let named = ["text", "caption", "captions", "sentence", "question"].contains(&name.as_str());
            text_candidates.push((named, stats.multi_word * 2 >= stats.filled, name.clone()));
        }
    }
    // A column with one of the usual names, else the first whose cells are mostly several words.
    text_candidates.sort_by_key(|(named, multi_word, _)| (!*named, !*multi_word));
    if let Some((named, multi_word, name)) = text_candidates.into_iter().next()
        && (named || multi_word)
    {
        columns.modalities.insert("text".into(), name.as_str().into());
    }
    columns
}

/// What the cells of one column look like.
struct ColumnStats {
    /// Number of cells that hold text.
    filled: usize,
    /// Number of these with several words.
    multi_word: usize,
    /// Number of these with a known file extension, by modality.
    files: HashMap<&'static str, usize>,
}

impl ColumnStats {
    fn of(table: &[Cells], column: &str) -> Self {
        let mut stats = Self { filled: 0, multi_word: 0, files: HashMap::new() };
        for cell in table.iter().take(INFERENCE_ROWS).filter_map(|r| r.get(column)) {
            let first = cell.as_array().map_or(Some(cell), |items| items.first());
            let first = first.and_then(|c| c.get("file").or_else(|| c.get("text")).unwrap_or(c).as_str());
            let Some(text) = first.filter(|t| !t.is_empty()) else { continue };
            stats.filled += 1;
            stats.multi_word += usize::from(text.contains(char::is_whitespace));
            let extension = Path::new(text).extension().and_then(|e| e.to_str()).unwrap_or("").to_ascii_lowercase();
            for (modality, known) in FILE_EXTENSIONS {
                if known.contains(&extension.as_str()) {
                    *stats.files.entry(modality).or_default() += 1;
                }
            }
        }
        stats
    }

    /// The modality of the files that more than half of the cells name.
    fn file_modality(&self) -> Option<&'static str> {
        let most = self.files.iter().max_by_key(|(_, n)| **n)?;
        (most.1 * 2 > self.filled).then_some(most.0)
    }
}

/// Checks that every named column exists and that at least one modality has a column.
pub(super) fn check_columns(path: &Path, table: &[Cells], columns: &Columns, split: &SplitConfig) -> Result<()> {
    if table.is_empty() {
        return Ok(());
    }
    let known: BTreeSet<&str> = table.iter().flat_map(|r| r.keys().map(String::as_str)).collect();
    let listed = || known.iter().copied().collect::<Vec<_>>().join(", ");
    let named = columns
        .modalities
        .values()
        .flat_map(ColumnBinding::columns)
        .chain([&columns.id, &columns.item, &columns.label, &columns.order].into_iter().flatten())
        .chain([&split.column, &split.group].into_iter().flatten());
    for column in named {
        if !known.contains(column.as_str()) {
            return Err(Error::Column { path: path.into(), column: column.clone(), known: listed() });
        }
    }
    if columns.modalities.is_empty() {
        return Err(Error::file(
            path,
            format!(
                "no column looks like text, image, audio or video (columns: {}); bind them with data.columns.modalities",
                listed()
            ),
        ));
    }
    Ok(())
}

/// A raw value and its language, where the cell states one.
pub(super) type TaggedSource = (Source, Option<String>);

/// The values of a modality in a row. Relative paths are resolved against `folder`.
pub(super) fn read_binding(cells: &Cells, binding: &ColumnBinding, modality: &str, folder: &Path) -> Vec<TaggedSource> {
    match binding {
        ColumnBinding::Single(column) => cells.get(column).map(|v| read_cell(v, modality, folder)).unwrap_or_default(),
        ColumnBinding::Multiple(columns) => read_joined(cells, columns, modality, folder),
    }
}

/// The value that several columns form together.
fn read_joined(cells: &Cells, columns: &[String], modality: &str, folder: &Path) -> Vec<TaggedSource> {
    let filled = |v: &&Value| !(v.is_null() || v.as_str().is_some_and(|t| t.trim().is_empty()));
    match modality {
        "text" => {
            let texts: Vec<String> =
                columns.iter().filter_map(|c| cells.get(c).filter(filled).and_then(cell_text)).collect();
            if texts.is_empty() { Vec::new() } else { vec![(Source::Text(texts.join("\n")), None)] }
        }
        "image" | "audio" | "video" => {
            columns.iter().filter_map(|c| cells.get(c)).flat_map(|v| read_cell(v, modality, folder)).collect()
        }
        _ => {
            let present = columns.iter().filter_map(|c| Some((c.clone(), cells.get(c).filter(filled)?.clone())));
            let object: Cells = present.collect();
            if object.is_empty() { Vec::new() } else { vec![(Source::Value(Value::Object(object)), None)] }
        }
    }
}

/// The values of a cell: a list holds several; `{"file" or "text": …, "language": …}` states a value's language.
fn read_cell(cell: &Value, modality: &str, folder: &Path) -> Vec<TaggedSource> {
    let is_file = FILE_EXTENSIONS.iter().any(|(m, _)| *m == modality);
    let read_one = |value: &Value| -> Option<TaggedSource> {
        let tagged =
            value.as_object().and_then(|o| Some((o.get("file").or_else(|| o.get("text"))?, o.get("language"))));
        let (inner, language) = match tagged {
            Some((inner, language)) => (inner, language.and_then(Value::as_str).map(ToOwned::to_owned)),
            None => (value, None),
        };
        let source = match inner {
            Value::Null => return None,
            Value::String(text) if text.is_empty() => return None,
            Value::String(text) if is_file => Source::Path(folder.join(text)),
            inner if modality == "text" => Source::Text(cell_text(inner)?),
            inner => Source::Value(inner.clone()),
        };
        Some((source, language))
    };
    match cell {
        Value::Array(items) if is_file || modality == "text" => items.iter().filter_map(read_one).collect(),
        other => read_one(other).into_iter().collect(),
    }
}
