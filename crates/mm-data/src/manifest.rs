//! Manifests: tables that name the samples. JSONL, CSV, TSV or Parquet; one row a sample; columns bound to modalities by a small
//! schema or by guess; splits by column, by file, or by a hash of a group, so that no group is on two sides.

use crate::{Error, Result};
use mm_core::{Modality, Source};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::{Path, PathBuf},
};

/// The column of a modality, or several that make one value together: texts joined, files one after another, and for other modalities an
/// object of all cells by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ColumnBinding {
    /// One column.
    Single(String),
    /// Several.
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

/// Which column is what. What is absent is guessed from names and values.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Columns {
    /// Modality → the column that holds it; a list in a cell is several values (captions) of one sample.
    pub modalities: BTreeMap<String, ColumnBinding>,
    /// The column of unique names; one that is called `id`, else row numbers, when absent; row numbers in any case when empty.
    pub id: Option<String>,
    /// Rows that share this column's value show the same thing: they match each other in retrieval.
    pub item: Option<String>,
    /// The column of classes.
    pub label: Option<String>,
    /// The column of numbers that says in which order the rows of an item stand; as in the file when absent.
    pub order: Option<String>,
}

/// How rows are split.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SplitConfig {
    /// A column that says `train`, `valid` or `test`; with `valid` that share of the groups is held out of its training rows.
    pub column: Option<String>,
    /// Rows that share this column's value are on one side; the side is a hash of it.
    pub group: Option<String>,
    /// Share of the groups held out for testing.
    pub test: f64,
    /// Share of the groups held out for choosing (early stopping).
    pub valid: f64,
    /// Changes which groups are held out.
    pub seed: u64,
}

impl Default for SplitConfig {
    fn default() -> Self {
        Self { column: None, group: None, test: 0.2, valid: 0.0, seed: 0 }
    }
}

/// A data set: its manifest, its columns, its split.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ManifestConfig {
    /// The manifest; or, with `valid` and `test`, the manifest of the training split.
    pub manifest: PathBuf,
    /// A manifest of its own for the validation split.
    pub valid: Option<PathBuf>,
    /// A manifest of its own for the test split.
    pub test: Option<PathBuf>,
    /// Which column is what.
    pub columns: Columns,
    /// How rows are split when there is one manifest.
    pub split: SplitConfig,
    /// Encoding of a CSV, TSV or JSONL file, by its WHATWG name; UTF-8 when absent.
    pub encoding: Option<String>,
}

/// A side of a split.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Split {
    Train,
    Valid,
    Test,
}

impl std::str::FromStr for Split {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.trim().to_ascii_lowercase().as_str() {
            "train" | "training" => Ok(Self::Train),
            "valid" | "val" | "validation" | "dev" => Ok(Self::Valid),
            "test" | "testing" | "eval" => Ok(Self::Test),
            other => Err(Error::Config(format!("`{other}` is not a split; wanted train, valid or test"))),
        }
    }
}

impl std::fmt::Display for Split {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Train => "train",
            Self::Valid => "valid",
            Self::Test => "test",
        })
    }
}

/// One sample as the manifest names it.
#[derive(Debug, Clone)]
pub struct Row {
    /// Its unique name.
    pub id: String,
    /// Its row in the file, counted from one.
    pub number: usize,
    /// What it shows: rows of the same item match each other.
    pub item: String,
    /// Its class, if the manifest has classes.
    pub label: Option<String>,
    /// Its place among the rows of its item.
    pub order: f64,
    /// Its side of the split.
    pub split: Split,
    /// Modality → values; a modality that is missing is not there.
    pub values: BTreeMap<Modality, Vec<Source>>,
    /// Modality → the language of each value, where the cell says `{"file" or "text": …, "language": …}` of any.
    pub languages: BTreeMap<Modality, Vec<Option<String>>>,
    /// All cells that are text, by column, for reports.
    pub cells: BTreeMap<String, String>,
}

impl Row {
    /// Leaves out the values of a modality that are marked as of another language than these; none when `wanted` is empty.
    pub fn retain_languages(&mut self, modality: &Modality, wanted: &[String]) {
        let (Some(values), Some(languages)) = (self.values.get_mut(modality), self.languages.get_mut(modality)) else {
            return;
        };
        if wanted.is_empty() {
            return;
        }
        let keep: Vec<bool> = languages.iter().map(|l| l.as_ref().is_none_or(|l| wanted.contains(l))).collect();
        let mut place = keep.iter();
        values.retain(|_| place.next().copied().unwrap_or(true));
        let mut place = keep.iter();
        languages.retain(|_| place.next().copied().unwrap_or(true));
    }
}

/// The rows of a data set.
#[derive(Debug, Clone)]
pub struct Manifest {
    /// The file that was read.
    pub path: PathBuf,
    /// Its rows, in order.
    pub rows: Vec<Row>,
    /// Which column was taken for what, guessed ones included.
    pub columns: Columns,
}

/// A row of a table: column → value.
pub type Cells = serde_json::Map<String, Value>;

impl Manifest {
    /// Reads a data set; relative paths are relative to `base` and, inside the manifest, to the manifest's folder.
    pub fn open(config: &ManifestConfig, base: &Path) -> Result<Self> {
        let main = base.join(&config.manifest);
        let tables: Vec<(PathBuf, Option<Split>)> = if config.valid.is_some() || config.test.is_some() {
            let others = [(&config.valid, Split::Valid), (&config.test, Split::Test)];
            let others = others.into_iter().filter_map(|(p, s)| p.as_ref().map(|p| (base.join(p), Some(s))));
            std::iter::once((main.clone(), Some(Split::Train))).chain(others).collect()
        } else {
            vec![(main.clone(), None)]
        };
        check_split(&config.split)?;
        let (mut rows, mut ids) = (Vec::new(), HashMap::new());
        let mut columns = None;
        for (path, side) in tables {
            let table = read_table(&path, config.encoding.as_deref())?;
            let columns = columns.get_or_insert_with(|| guess(&table, &config.columns));
            check_columns(&path, &table, columns, &config.split)?;
            let folder = path.parent().unwrap_or(Path::new(".")).to_owned();
            for (index, cells) in table.into_iter().enumerate() {
                let mut row = row(&path, &folder, index + 1, cells, columns, &config.split, side)?;
                // Files may number their rows each from the start; within one file ids must differ.
                if let Some(side) = side.filter(|s| *s != Split::Train)
                    && (columns.id.is_none() || ids.get(&row.id).is_some_and(|(of, _)| *of != Some(side)))
                {
                    row.id = format!("{side}:{}", row.id);
                }
                if let Some((_, first)) = ids.insert(row.id.clone(), (side, row.number)) {
                    let reason = format!("the id `{}` was already used in row {first}; ids must differ", row.id);
                    return Err(Error::Row { path, row: row.number, reason });
                }
                rows.push(row);
            }
        }
        if rows.is_empty() {
            return Err(Error::file(main, "the manifest has no rows"));
        }
        Ok(Self { path: main, rows, columns: columns.unwrap_or_default() })
    }

    /// The rows of one side, by number in [`Manifest::rows`].
    pub fn rows_in_split(&self, split: Split) -> Vec<usize> {
        (0..self.rows.len()).filter(|i| self.rows[*i].split == split).collect()
    }

    /// The modalities that at least one row has.
    pub fn modalities(&self) -> BTreeSet<Modality> {
        self.rows.iter().flat_map(|r| r.values.keys().cloned()).collect()
    }
}

fn check_split(split: &SplitConfig) -> Result<()> {
    let fine = |share: f64| (0.0..1.0).contains(&share);
    if !fine(split.test) || !fine(split.valid) || split.test + split.valid >= 1.0 {
        let found = format!("test {} and valid {}", split.test, split.valid);
        return Err(Error::Config(format!(
            "data.split: found {found}, wanted shares in [0, 1) that leave something to train on"
        )));
    }
    Ok(())
}

fn check_columns(path: &Path, table: &[Cells], columns: &Columns, split: &SplitConfig) -> Result<()> {
    let known: BTreeSet<&str> = table.iter().flat_map(|r| r.keys().map(String::as_str)).collect();
    if table.is_empty() {
        return Ok(());
    }
    let wanted = columns
        .modalities
        .values()
        .flat_map(ColumnBinding::columns)
        .chain([&columns.id, &columns.item, &columns.label, &columns.order].into_iter().flatten())
        .chain([&split.column, &split.group].into_iter().flatten());
    for column in wanted {
        if !known.contains(column.as_str()) {
            let known = known.into_iter().collect::<Vec<_>>().join(", ");
            return Err(Error::Column { path: path.into(), column: column.clone(), known });
        }
    }
    if columns.modalities.is_empty() {
        let known = known.into_iter().collect::<Vec<_>>().join(", ");
        return Err(Error::file(
            path,
            format!(
                "no column looks like text, image, audio or video (columns: {known}); bind them with data.columns.modalities"
            ),
        ));
    }
    Ok(())
}

fn row(
    path: &Path,
    folder: &Path,
    number: usize,
    cells: Cells,
    columns: &Columns,
    split: &SplitConfig,
    side: Option<Split>,
) -> Result<Row> {
    let bad = |reason: String| Error::Row { path: path.into(), row: number, reason };
    let text = |column: &Option<String>| column.as_ref().and_then(|c| cells.get(c)).and_then(cell_text);
    let id = match &columns.id {
        Some(column) => text(&columns.id).ok_or_else(|| bad(format!("column `{column}` is empty; wanted an id")))?,
        None => number.to_string(),
    };
    let group = text(&split.group);
    let side = match (side, &split.column) {
        (Some(side), _) => side,
        (None, Some(column)) => {
            let name = text(&split.column)
                .ok_or_else(|| bad(format!("column `{column}` is empty; wanted train, valid or test")))?;
            match name.parse().map_err(|e: Error| bad(e.to_string()))? {
                // What is to be chosen on is held out of what the column gives to training.
                Split::Train if split.valid > 0.0 => {
                    let inner = SplitConfig { test: 0.0, ..split.clone() };
                    by_hash(group.as_deref().unwrap_or(&id), &inner)
                }
                side => side,
            }
        }
        (None, None) => by_hash(group.as_deref().unwrap_or(&id), split),
    };
    let (mut values, mut languages) = (BTreeMap::new(), BTreeMap::new());
    for (name, column) in &columns.modalities {
        let found = match column {
            ColumnBinding::Single(column) => cells.get(column).map(|v| sources(v, name, folder)).unwrap_or_default(),
            ColumnBinding::Multiple(columns) => together(&cells, columns, name, folder),
        };
        if !found.is_empty() {
            let (sources, spoken): (Vec<_>, Vec<_>) = found.into_iter().unzip();
            values.insert(Modality::from(name.as_str()), sources);
            // A table of a million rows has no room for a million lists of nothing.
            if spoken.iter().any(Option::is_some) {
                languages.insert(Modality::from(name.as_str()), spoken);
            }
        }
    }
    let order = match &columns.order {
        Some(column) => text(&columns.order).and_then(|t| t.trim().parse().ok()).ok_or_else(|| {
            bad(format!(
                "column `{column}`: found {:?}, wanted a number that rows are ordered by",
                text(&columns.order)
            ))
        })?,
        None => number as f64,
    };
    Ok(Row {
        order,
        item: text(&columns.item).unwrap_or_else(|| id.clone()),
        label: text(&columns.label),
        id,
        number,
        split: side,
        values,
        languages,
        cells: cells.iter().filter_map(|(k, v)| cell_text(v).map(|v| (k.clone(), v))).collect(),
    })
}

/// The value that several columns make together.
fn together(cells: &Cells, columns: &[String], modality: &str, folder: &Path) -> Vec<(Source, Option<String>)> {
    let filled = |v: &&Value| !(v.is_null() || v.as_str().is_some_and(|t| t.trim().is_empty()));
    match modality {
        "text" => {
            let texts: Vec<String> =
                columns.iter().filter_map(|c| cells.get(c).filter(filled).and_then(cell_text)).collect();
            if texts.is_empty() { Vec::new() } else { vec![(Source::Text(texts.join("\n")), None)] }
        }
        "image" | "audio" | "video" => {
            columns.iter().filter_map(|c| cells.get(c)).flat_map(|v| sources(v, modality, folder)).collect()
        }
        _ => {
            let some = columns.iter().filter_map(|c| Some((c.clone(), cells.get(c).filter(filled)?.clone())));
            let object: Cells = some.collect();
            if object.is_empty() { Vec::new() } else { vec![(Source::Value(Value::Object(object)), None)] }
        }
    }
}

/// A cell as text: lists of texts and numbers are joined by semicolons.
pub fn cell_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Array(items) if !items.is_empty() && items.len() <= 64 && items.iter().all(Value::is_string) => {
            Some(items.iter().filter_map(cell_text).collect::<Vec<_>>().join(";"))
        }
        _ => None,
    }
}

/// The side that a group is on: the same for every row of it, whatever else is in the manifest.
fn by_hash(group: &str, split: &SplitConfig) -> Split {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&split.seed.to_le_bytes()).update(group.as_bytes());
    let mut head = [0u8; 8];
    head.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    let place = (u64::from_le_bytes(head) >> 11) as f64 / (1u64 << 53) as f64;
    if place < split.test {
        Split::Test
    } else if place < split.test + split.valid {
        Split::Valid
    } else {
        Split::Train
    }
}

fn sources(value: &Value, modality: &str, folder: &Path) -> Vec<(Source, Option<String>)> {
    let file_like = ["image", "audio", "video"].contains(&modality);
    let one = |value: &Value| -> Option<(Source, Option<String>)> {
        let (inner, language) =
            match value.as_object().and_then(|o| Some((o.get("file").or_else(|| o.get("text"))?, o.get("language")))) {
                Some((inner, language)) => (inner, language.and_then(Value::as_str).map(ToOwned::to_owned)),
                None => (value, None),
            };
        let source = match inner {
            Value::Null => return None,
            Value::String(text) if text.is_empty() => return None,
            Value::String(text) if file_like => Source::Path(folder.join(text)),
            inner if modality == "text" => Source::Text(cell_text(inner)?),
            inner => Source::Value(inner.clone()),
        };
        Some((source, language))
    };
    match value {
        Value::Array(items) if file_like || modality == "text" => items.iter().filter_map(one).collect(),
        other => one(other).into_iter().collect(),
    }
}

/// Endings of files by what they hold.
pub const FILE_EXTENSIONS: [(&str, &[&str]); 3] = [("image", IMAGES), ("audio", SOUNDS), ("video", VIDEOS)];

const IMAGES: &[&str] = &["jpg", "jpeg", "png", "webp", "gif", "bmp", "tif", "tiff", "svg"];
const SOUNDS: &[&str] = &["wav", "flac", "mp3", "ogg", "oga", "m4a", "aac"];
const VIDEOS: &[&str] = &["mp4", "mkv", "webm", "mov", "avi"];

/// Fills in what the schema leaves open: file endings tell image, audio and video; a column of words is text; `id`, `item` and
/// `label` are taken by name.
fn guess(table: &[Cells], given: &Columns) -> Columns {
    let mut columns = given.clone();
    let names: BTreeSet<&String> = table.iter().take(1000).flat_map(|r| r.keys()).collect();
    let has = |name: &str| names.iter().any(|n| n.as_str() == name).then(|| name.to_owned());
    columns.id = columns.id.or_else(|| has("id")).filter(|c| !c.is_empty());
    columns.item = columns.item.or_else(|| has("item"));
    columns.label = columns.label.or_else(|| has("label"));
    if !columns.modalities.is_empty() {
        return columns;
    }
    let mut texts = Vec::new();
    for name in names {
        let mut endings: HashMap<&str, usize> = HashMap::new();
        let (mut filled, mut words) = (0usize, 0usize);
        for cell in table.iter().take(1000).filter_map(|r| r.get(name)) {
            let first = cell.as_array().map_or(Some(cell), |items| items.first());
            let first = first.and_then(|c| c.get("file").or_else(|| c.get("text")).unwrap_or(c).as_str());
            let Some(text) = first.filter(|t| !t.is_empty()) else { continue };
            filled += 1;
            words += usize::from(text.contains(char::is_whitespace));
            let ending = Path::new(text).extension().and_then(|e| e.to_str()).unwrap_or("").to_ascii_lowercase();
            for (modality, known) in FILE_EXTENSIONS {
                if known.contains(&ending.as_str()) {
                    *endings.entry(modality).or_default() += 1;
                }
            }
        }
        let best = endings.into_iter().max_by_key(|(_, n)| *n).filter(|(_, n)| *n * 2 > filled);
        if let Some((modality, _)) = best {
            columns.modalities.entry(modality.to_owned()).or_insert_with(|| name.as_str().into());
        } else if filled > 0 && ![&columns.id, &columns.item, &columns.label].into_iter().flatten().any(|c| c == name) {
            let named = ["text", "caption", "captions", "sentence", "question"].contains(&name.as_str());
            texts.push((named, words * 2 >= filled, name.clone()));
        }
    }
    // A column that is called text, else the first whose cells are mostly several words.
    texts.sort_by_key(|(named, wordy, _)| (!*named, !*wordy));
    if let Some((named, wordy, name)) = texts.into_iter().next()
        && (named || wordy)
    {
        columns.modalities.insert("text".into(), name.as_str().into());
    }
    columns
}

/// All rows of a table: JSONL, CSV, TSV or Parquet.
pub fn read_table(path: &Path, encoding: Option<&str>) -> Result<Vec<Cells>> {
    let ending = path.extension().and_then(|e| e.to_str()).unwrap_or("").to_ascii_lowercase();
    if ending == "parquet" {
        return read_parquet(path);
    }
    let bytes = std::fs::read(path).map_err(|e| Error::file(path, format!("cannot be read: {e}")))?;
    let text = crate::decode::text_from_bytes(&bytes, encoding)
        .map_err(|e| Error::file(path, format!("{e}; name it with data.encoding")))?;
    match ending.as_str() {
        "jsonl" | "ndjson" => {
            let lines = text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty());
            lines
                .map(|(number, line)| {
                    serde_json::from_str(line).map_err(|e| Error::Row {
                        path: path.into(),
                        row: number + 1,
                        reason: format!("not a JSON object: {e}"),
                    })
                })
                .collect()
        }
        "csv" | "tsv" => {
            let delimiter = if ending == "tsv" { b'\t' } else { b',' };
            let mut reader = csv::ReaderBuilder::new().delimiter(delimiter).from_reader(text.as_bytes());
            let bad = |e: csv::Error| Error::file(path, e);
            let header = reader.headers().map_err(bad)?.clone();
            reader
                .records()
                .map(|record| {
                    let record = record.map_err(bad)?;
                    let cells = header.iter().zip(record.iter());
                    Ok(cells.map(|(k, v)| (k.to_owned(), Value::String(v.to_owned()))).collect())
                })
                .collect()
        }
        other => Err(Error::file(path, format!("`.{other}` is not a manifest; wanted .jsonl, .csv, .tsv or .parquet"))),
    }
}

#[cfg(feature = "parquet")]
fn read_parquet(path: &Path) -> Result<Vec<Cells>> {
    use parquet::file::reader::{FileReader, SerializedFileReader};
    let bad = |e: parquet::errors::ParquetError| Error::file(path, format!("not a whole Parquet file: {e}"));
    let file = std::fs::File::open(path).map_err(|e| Error::file(path, e))?;
    let reader = SerializedFileReader::new(file).map_err(bad)?;
    let rows = reader.get_row_iter(None).map_err(bad)?;
    rows.map(|row| {
        let value = row.map_err(bad)?.to_json_value();
        match value {
            Value::Object(cells) => Ok(cells),
            _ => Err(Error::file(path, "a row that is not a record")),
        }
    })
    .collect()
}

#[cfg(not(feature = "parquet"))]
fn read_parquet(path: &Path) -> Result<Vec<Cells>> {
    Err(Error::file(path, "this build reads no Parquet; build mm-data with its `parquet` feature"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn open(name: &str, text: &str, config: ManifestConfig) -> Result<Manifest> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(name), text).unwrap();
        Manifest::open(&ManifestConfig { manifest: name.into(), ..config }, folder.path())
    }

    #[test]
    fn columns_are_guessed_and_several_captions_are_kept() {
        let text = concat!(
            r#"{"id":"a","picture":"x/a.png","caption":["one dog","a brown dog"],"voice":null,"n":3}"#,
            "\n",
            r#"{"id":"b","picture":"x/b.jpg","caption":"two cats","voice":"b.ogg"}"#,
            "\n",
        );
        let manifest = open("m.jsonl", text, ManifestConfig::default()).unwrap();
        let bound: Vec<(&str, &str)> =
            manifest.columns.modalities.iter().map(|(m, c)| (m.as_str(), c.columns()[0].as_str())).collect();
        assert_eq!(bound, [("audio", "voice"), ("image", "picture"), ("text", "caption")]);
        assert_eq!(manifest.rows[0].values[&Modality::TEXT].len(), 2);
        assert!(!manifest.rows[0].values.contains_key(&Modality::AUDIO));
        let tsv = open("m.tsv", "id\timage\ttext\n1\ta.png\ta \"quoted\" thing\n", ManifestConfig::default()).unwrap();
        assert_eq!(tsv.rows.len(), 1);
    }

    #[test]
    fn what_is_wrong_with_a_manifest_is_told() {
        let told = |name: &str, text: &str, config| open(name, text, config).unwrap_err().to_string();
        assert!(told("m.jsonl", "", ManifestConfig::default()).contains("no rows"));
        assert!(told("m.jsonl", "{\"id\":1}\n{", ManifestConfig::default()).contains("row 2"));
        let twice = "{\"id\":\"a\",\"text\":\"x y\"}\n{\"id\":\"a\",\"text\":\"x y\"}\n";
        assert!(told("m.jsonl", twice, ManifestConfig::default()).contains("already used in row 1"));
        let mut config = ManifestConfig::default();
        config.columns.modalities.insert("image".into(), "picture".into());
        assert!(told("m.csv", "id,img\n1,a.png\n", config).contains("no column `picture`; its columns are id, img"));
        assert!(told("m.xlsx", "", ManifestConfig::default()).contains("wanted .jsonl"));
        let share =
            ManifestConfig { split: SplitConfig { test: 1.5, ..SplitConfig::default() }, ..ManifestConfig::default() };
        assert!(told("m.jsonl", "{}", share).contains("shares in [0, 1)"));
    }

    proptest! {
        #[test]
        fn no_group_is_on_two_sides(groups in prop::collection::vec("[a-d]{1,2}", 1..60), test in 0.1f64..0.5, valid in 0.0f64..0.4, seed: u64) {
            let text: String = groups.iter().enumerate().map(|(i, g)| format!("{{\"id\":\"{i}\",\"g\":\"{g}\",\"text\":\"a b\"}}\n")).collect();
            let split = SplitConfig { group: Some("g".into()), test, valid, seed, column: None };
            let manifest = open("m.jsonl", &text, ManifestConfig { split, ..ManifestConfig::default() }).unwrap();
            let mut sides: HashMap<&str, Split> = HashMap::new();
            for (row, group) in manifest.rows.iter().zip(&groups) {
                prop_assert_eq!(*sides.entry(group).or_insert(row.split), row.split);
            }
        }
    }
}
