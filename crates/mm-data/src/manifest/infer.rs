//! Which column of a table is what, where the config does not say: from column names and values.

use super::{
    sampling::Sampled,
    schema::Columns,
    table::{KEY_COLUMN, blob_extension},
};
use crate::{
    file_type::{modality_of_extension, modality_of_name},
    notice,
};
use serde_json::Value;
use std::{collections::BTreeMap, path::Path};

/// Values of a column that are looked at, about.
pub(super) const MAX_INSPECTED: usize = 1000;

/// Names that say what a column holds, the most telling first. Columns of files have [`FILE_NAMES`] as well.
const NAMES: [(&str, &[&str]); 4] = [
    (
        "image",
        &[
            "image",
            "images",
            "img",
            "photo",
            "photos",
            "picture",
            "pictures",
            "pic",
            "jpg",
            "jpeg",
            "png",
            "image_path",
            "image_file",
            "img_path",
        ],
    ),
    (
        "audio",
        &["audio", "audios", "recording", "speech", "sound", "voice", "wav", "mp3", "flac", "audio_path", "audio_file"],
    ),
    ("video", &["video", "videos", "clip", "movie", "mp4", "video_path", "video_file"]),
    (
        "text",
        &[
            "text",
            "caption",
            "captions",
            "sentence",
            "question",
            "description",
            "prompt",
            "content",
            "body",
            "review",
            "comment",
            "transcript",
            "transcription",
            "message",
            "title",
            "headline",
            "txt",
        ],
    ),
];

/// Names of a column of files of any kind, the most telling first.
const FILE_NAMES: [&str; 6] = ["file_name", "filename", "file_path", "filepath", "file", "path"];

/// The first names of a text column, which may hold single words.
const TEXT_NAMES_OF_WORDS: usize = 5;

/// How well the name of a column says that it holds a modality: lower is better. A name of the known ones, then one
/// with such a word in it (`main_image`), then any other.
pub fn column_name_rank(modality: &str, column: &str) -> usize {
    let (in_part, other) = (100, 200);
    let Some((_, names)) = NAMES.iter().find(|(m, _)| *m == modality) else { return other };
    let of_files: &[&str] = if modality == "text" { &[] } else { &FILE_NAMES };
    let names = [*names, of_files].concat();
    let column = column.trim().to_lowercase();
    if let Some(position) = names.iter().position(|n| *n == column) {
        return position;
    }
    let mut words = column.split(|c: char| !c.is_alphanumeric());
    if words.any(|w| names.contains(&w)) { in_part } else { other }
}

/// Whether the name of a column is that of an identifier or of an index (`id`, `user_id`, `Unnamed: 0`).
pub fn is_id_name(column: &str) -> bool {
    let name = column.trim().to_lowercase();
    let known = [
        "id",
        "ids",
        "key",
        "__key__",
        "uid",
        "uuid",
        "guid",
        "idx",
        "row",
        "rowid",
        "row_number",
        "hash",
        "md5",
        "sha1",
        "sha256",
    ];
    known.contains(&name.as_str()) || name.ends_with("_id") || column.ends_with("ID") || is_index_name(&name)
}

/// Whether the name of a column is one that pandas gives an index.
pub fn is_index_name(column: &str) -> bool {
    let name = column.trim().to_lowercase();
    let is_numbered = |prefix: &str| {
        name.strip_prefix(prefix)
            .is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit() || b == b'_' || b == b'.'))
    };
    name.is_empty()
        || ["index", "unnamed"].contains(&name.as_str())
        || is_numbered("__index_level_")
        || is_numbered("level_")
        || is_numbered("unnamed: ")
}

/// What is inferred about the columns of a table where a config names none.
#[derive(Clone, Copy, Default)]
pub struct ColumnInference<'a> {
    /// Only columns of these modalities; of all when absent.
    pub modalities: Option<&'a [&'a str]>,
    /// The modality of another crate that recognizes a column by its name and a sample of its cells
    /// ([`Registry::modality_of_column`](mm_core::Registry::modality_of_column)).
    pub recognize: Option<&'a dyn Fn(&str, &[&Value]) -> Option<String>>,
}

impl ColumnInference<'_> {
    /// The modality of another crate that a column is of.
    fn recognized(&self, column: &str, sample: &[Value]) -> Option<String> {
        let recognize = self.recognize?;
        recognize(column, &sample.iter().collect::<Vec<_>>())
    }

    fn is_wanted(&self, modality: &str) -> bool {
        self.modalities.is_none_or(|wanted| wanted.contains(&modality))
    }
}

/// Completes `given` from a table: a modality of another crate recognizes its column; file extensions and the content
/// of bytes identify image, audio and video columns; a column of words is text; `id` (else the key of a shard's
/// samples), `item` and `label` are found by name. Says which column was taken where there are several.
pub(super) fn infer_columns(table: &impl Sampled, given: &Columns, inference: &ColumnInference<'_>) -> Columns {
    let mut columns = given.clone();
    let has = |name: &str| table.columns().iter().any(|column| column == name).then(|| name.to_owned());
    columns.id = columns.id.or_else(|| has("id")).or_else(|| has(KEY_COLUMN)).filter(|c| !c.is_empty());
    columns.item = columns.item.or_else(|| has("item"));
    columns.label = columns.label.or_else(|| has("label"));
    if !columns.modalities.is_empty() {
        return columns;
    }
    let mut candidates: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    let mut ids: BTreeMap<&str, &str> = BTreeMap::new();
    for name in table.columns() {
        let is_role = [&columns.id, &columns.item, &columns.label].into_iter().flatten().any(|c| c == name);
        let sample = table.sample(name);
        if let Some(modality) = inference.recognized(name, &sample).filter(|_| !is_role) {
            candidates.entry(modality).or_default().push(name);
            continue;
        }
        let stats = ColumnStats::of(&sample);
        match file_modality(&stats.cells) {
            // An id that looks like a file name is none, unless there is such a file and nothing else.
            Some(modality) if is_id_name(name) => {
                let is_file = stats.texts.first().is_some_and(|f| folder(table.path()).join(f).is_file());
                ids.extend(is_file.then_some((modality, name.as_str())).filter(|_| !ids.contains_key(modality)));
            }
            Some(modality) => candidates.entry(modality.to_owned()).or_default().push(name),
            None if !is_role && !is_id_name(name) && stats.is_text(name) => {
                candidates.entry("text".to_owned()).or_default().push(name);
            }
            None => {}
        }
    }
    for (modality, name) in ids {
        candidates.entry(modality.to_owned()).or_insert_with(|| vec![name]);
    }
    candidates.retain(|modality, _| inference.is_wanted(modality));
    for (modality, mut names) in candidates {
        // Stable: equal ranks stay in the order of the file.
        names.sort_by_key(|n| column_name_rank(&modality, n));
        columns.modalities.insert(modality.clone(), names[0].into());
        if let [taken, others @ ..] = names.as_slice()
            && !others.is_empty()
        {
            notice::once(format!(
                "{}: {modality} is the column `{taken}`; `{}` may be as well: choose with --column {modality}=… \
                 (data.columns.modalities in a config)",
                table.path().display(),
                others.join("`, `")
            ));
        }
    }
    columns
}

fn folder(table: &Path) -> &Path {
    table.parent().unwrap_or(Path::new("."))
}

/// What the cells of one column look like.
struct ColumnStats<'a> {
    cells: Vec<&'a Value>,
    /// The texts of their first values.
    texts: Vec<&'a str>,
}

impl<'a> ColumnStats<'a> {
    fn of(sample: &'a [Value]) -> Self {
        let is_value =
            |cell: &&Value| first_value(cell).is_some_and(|v| blob_extension(v).is_some() || text_of(v).is_some());
        let cells: Vec<&Value> = sample.iter().filter(is_value).collect();
        let texts = cells.iter().filter_map(|c| text_of(first_value(c)?)).collect();
        Self { cells, texts }
    }

    /// Whether the column is text: mostly several words, or a name of one.
    fn is_text(&self, name: &str) -> bool {
        let multi_word = self.texts.iter().filter(|t| t.trim().contains(char::is_whitespace)).count();
        !self.texts.is_empty()
            && (multi_word * 2 >= self.texts.len() || column_name_rank("text", name) < TEXT_NAMES_OF_WORDS)
    }
}

/// The first value of a cell, which may hold a list.
fn first_value(cell: &Value) -> Option<&Value> {
    cell.as_array().map_or(Some(cell), |items| items.first())
}

/// The text of a value: itself, or what it is tagged as.
fn text_of(value: &Value) -> Option<&str> {
    let inner = ["file", "path", "text", "url"].iter().find_map(|k| value.get(*k)).unwrap_or(value);
    inner.as_str().filter(|t| !t.trim().is_empty())
}

/// The modality of the file that a value holds or names.
fn modality_of(value: &Value) -> Option<&'static str> {
    match blob_extension(value) {
        Some(extension) => modality_of_extension(extension),
        None => modality_of_name(text_of(value)?),
    }
}

/// The modality of the files that most of some cells name or hold; `None` where they do not.
pub fn file_modality(cells: &[&Value]) -> Option<&'static str> {
    let mut counts: BTreeMap<&'static str, usize> = BTreeMap::new();
    let modalities = cells.iter().filter_map(|c| modality_of(first_value(c)?));
    modalities.for_each(|m| *counts.entry(m).or_default() += 1);
    let most = counts.into_iter().max_by_key(|(_, n)| *n)?;
    (most.1 * 2 > cells.len()).then_some(most.0)
}
