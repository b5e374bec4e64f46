//! Manifests: tables that name the samples of a data set, one row a sample.

mod binding;
mod infer;
mod pieces;
mod row_reader;
mod sampling;
mod schema;
mod split;
mod table;
mod values;

pub use binding::ColumnBinding;
pub use infer::{ColumnInference, column_name_rank, file_modality, is_id_name, is_index_name};
pub use pieces::ManifestPieces;
pub use schema::Columns;
pub use split::{Split, SplitConfig, row_key};
pub use table::{
    Cells, PieceSize, Table, TableOptions, cell_text, existing_files, expand_braces, is_dataset_folder, is_stored_file,
};

use crate::{
    Dataset, Error, Result,
    fetch::{check_fetcher, resolve},
};
use infer::infer_columns;
use litemap::LiteMap;
use mm_core::{Modality, Source, cells::Record};
use row_reader::RowReader;
use schema::check_columns;
use serde::{Deserialize, Serialize};
use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet, HashMap},
    path::{Path, PathBuf},
};
use values::Files;

/// A data set (`[data]` in a config file): its manifest, its columns, its split.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ManifestConfig {
    /// The manifest; with `valid` or `test`, the manifest of the training split.
    pub manifest: PathBuf,
    /// A separate manifest of the validation split.
    pub valid: Option<PathBuf>,
    /// A separate manifest of the test split.
    pub test: Option<PathBuf>,
    /// Which column is what.
    pub columns: Columns,
    /// How the rows are split when there is one manifest.
    pub split: SplitConfig,
    /// Encoding of CSV, TSV and JSON Lines files, by its WHATWG label; UTF-8 when absent.
    pub encoding: Option<String>,
    /// Texts that stand for a missing value, besides the empty one; when absent, those of
    /// [`MISSING_VALUES`](mm_core::cells::MISSING_VALUES) (`NA`, `nan`, `NULL`, `None`, …).
    pub missing_values: Option<Vec<String>>,
    /// Whether images, audio, video and texts (`{"url": …}`) that cells name by http or https URL are fetched, when
    /// they are read, by the program's [`UrlFetcher`](crate::UrlFetcher). Otherwise reading them is an error.
    pub fetch_urls: bool,
}

impl ManifestConfig {
    /// How its tables are read.
    pub fn table_options(&self) -> TableOptions<'_> {
        TableOptions {
            encoding: self.encoding.as_deref(),
            missing_values: self.missing_values.as_deref(),
            fetch_urls: self.fetch_urls,
        }
    }
}

/// Modality → raw values, sorted by modality. A sorted list: a tree takes half a kilobyte for one entry.
pub type RowValues = LiteMap<Modality, Vec<Source>>;

/// One row of a manifest: one sample.
#[derive(Debug, Clone)]
pub struct Row {
    /// Unique id.
    pub id: String,
    /// Row number in the file, counted from 1.
    pub number: usize,
    /// Identity of what the row shows: rows of the same item match each other in retrieval.
    pub item: String,
    /// The label, if the manifest has labels.
    pub label: Option<String>,
    /// Orders the rows of an item.
    pub order: f64,
    /// The split.
    pub split: Split,
    /// Modality → raw values; missing modalities have no entry.
    pub values: RowValues,
    /// Modality → the language of each value; only modalities with at least one stated language have an entry.
    pub languages: BTreeMap<Modality, Vec<Option<String>>>,
    /// All cells by column.
    pub cells: Record,
}

impl Row {
    /// A row of these values that is an item of its own, in the training split, without label, languages or cells.
    pub fn new(
        id: impl Into<String>,
        number: usize,
        values: impl IntoIterator<Item = (Modality, Vec<Source>)>,
    ) -> Self {
        let id = id.into();
        Self {
            item: id.clone(),
            id,
            number,
            label: None,
            order: number as f64,
            split: Split::Train,
            values: values.into_iter().collect(),
            languages: BTreeMap::new(),
            cells: Record::default(),
        }
    }

    /// Keeps the values of a modality in one of these languages and those without a stated language; all of them when
    /// `languages` is empty.
    pub fn retain_languages(&mut self, modality: &Modality, languages: &[String]) {
        let (Some(values), Some(stated)) = (self.values.get_mut(modality), self.languages.get_mut(modality)) else {
            return;
        };
        if languages.is_empty() {
            return;
        }
        let keep: Vec<bool> = stated.iter().map(|l| l.as_ref().is_none_or(|l| languages.contains(l))).collect();
        let mut flags = keep.iter();
        values.retain(|_| flags.next().copied().unwrap_or(true));
        let mut flags = keep.iter();
        stated.retain(|_| flags.next().copied().unwrap_or(true));
    }
}

/// The rows of a data set.
///
/// ```
/// # use mm_data::{Manifest, ManifestConfig, Split};
/// # let folder = tempfile::tempdir()?;
/// std::fs::write(folder.path().join("data.csv"), "image,text\na.png,a red apple\nb.png,two green pears\n")?;
/// let config = ManifestConfig { manifest: "data.csv".into(), ..ManifestConfig::default() };
/// let manifest = Manifest::open(&config, folder.path())?;
/// assert_eq!(manifest.rows.len(), 2);
/// let (train, test) = (manifest.rows_in_split(Split::Train), manifest.rows_in_split(Split::Test));
/// assert_eq!(train.len() + test.len(), 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct Manifest {
    /// The file that was read.
    pub path: PathBuf,
    /// The rows, in order.
    pub rows: Vec<Row>,
    /// Which column is what, inferred columns included.
    pub columns: Columns,
}

impl Manifest {
    /// Reads a data set. Relative paths of the config are resolved against `base`; paths inside a manifest against its
    /// folder.
    ///
    /// # Errors
    /// Names the file and row: unreadable tables, missing columns, duplicate ids, unknown split names, no rows.
    pub fn open(config: &ManifestConfig, base: &Path) -> Result<Self> {
        Self::open_inferring(config, base, &ColumnInference::default())
    }

    /// Like [`Manifest::open`], and logs what is inferred about the columns where the config names none.
    ///
    /// # Errors
    /// Those of [`Manifest::open`].
    pub fn open_inferring(config: &ManifestConfig, base: &Path, inference: &ColumnInference<'_>) -> Result<Self> {
        let main = resolve(base, &config.manifest);
        config.split.check()?;
        if config.fetch_urls {
            check_fetcher()?;
        }
        let (mut rows, mut ids) = (Vec::new(), HashMap::new());
        let mut columns = None;
        for (path, split) in manifest_files(config, base) {
            let table = Table::read(&path, &config.table_options())?;
            let columns = columns.get_or_insert_with(|| infer_columns(&table, &config.columns, inference));
            if !table.rows.is_empty() {
                check_columns(&path, &table.columns, columns, &config.split)?;
            }
            let folder = path.parent().unwrap_or(Path::new(".")).to_owned();
            let files =
                Files::OfTable { folder: &folder, blobs: table.blobs.as_deref(), fetch_urls: config.fetch_urls };
            let reader = RowReader {
                path: &path,
                files,
                columns,
                split: &config.split,
                file_split: split,
                packer: RefCell::default(),
            };
            for (index, cells) in table.rows.into_iter().enumerate() {
                let mut row = reader.read(index + 1, cells)?;
                // Ids must be unique within a file; the ids of separate files may coincide and are then distinguished
                // by their split.
                if let Some(split) = split.filter(|s| *s != Split::Train)
                    && (columns.id.is_none() || ids.get(&row.id).is_some_and(|(of, _)| *of != Some(split)))
                {
                    row.id = format!("{split}:{}", row.id);
                }
                if let Some((_, first)) = ids.insert(row.id.clone(), (split, row.number)) {
                    let reason = format!("the id `{}` was already used in row {first}; ids must be unique", row.id);
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

    /// The rows of a table in memory, all of the test split. `file` gives the source of each text that would name an
    /// image, a recording or a video, so that rows that somebody sent name no file of this machine.
    ///
    /// ```
    /// # use mm_core::Source;
    /// # use mm_data::{Columns, Manifest, Table};
    /// let row = serde_json::json!({"image": "cat.png", "text": "a cat"});
    /// let table = Table::from_rows("request", row.as_object().cloned().into_iter().collect(), None);
    /// let mut columns = Columns::default();
    /// columns.modalities.insert("image".into(), "image".into());
    /// let manifest = Manifest::from_table(&table, &columns, &|_, text| Source::Path(format!("uploads/{text}").into()))?;
    /// assert_eq!(manifest.rows.len(), 1);
    /// # Ok::<(), mm_data::Error>(())
    /// ```
    ///
    /// # Errors
    /// Names the row: missing columns, duplicate ids, no rows.
    pub fn from_table(table: &Table, columns: &Columns, file: &dyn Fn(&Modality, &str) -> Source) -> Result<Self> {
        let split = SplitConfig::default();
        let columns = Columns { id: columns.id.clone().filter(|id| !id.is_empty()), ..columns.clone() };
        if !table.rows.is_empty() {
            check_columns(&table.path, &table.columns, &columns, &split)?;
        }
        let files = Files::Given(file);
        let reader = RowReader {
            path: &table.path,
            files,
            columns: &columns,
            split: &split,
            file_split: Some(Split::Test),
            packer: RefCell::default(),
        };
        let (mut rows, mut ids): (Vec<Row>, HashMap<String, usize>) = (Vec::new(), HashMap::new());
        for (cells, number) in table.rows.iter().zip(1..) {
            let row = reader.read(number, cells.clone())?;
            if let Some(first) = ids.insert(row.id.clone(), number) {
                let reason = format!("the id `{}` was already used in row {first}; ids must be unique", row.id);
                return Err(reader.error(number, reason));
            }
            rows.push(row);
        }
        if rows.is_empty() {
            return Err(Error::file(&table.path, "no rows"));
        }
        Ok(Self { path: table.path.clone(), rows, columns })
    }

    /// The rows of a split, as indices into [`Manifest::rows`].
    pub fn rows_in_split(&self, split: Split) -> Vec<usize> {
        (0..self.rows.len()).filter(|i| self.rows[*i].split == split).collect()
    }

    /// The modalities that at least one row has.
    pub fn modalities(&self) -> BTreeSet<Modality> {
        self.rows.iter().flat_map(|r| r.values.keys().cloned()).collect()
    }
}

impl Dataset for Manifest {
    fn len(&self) -> usize {
        self.rows.len()
    }

    fn name(&self) -> String {
        self.path.display().to_string()
    }

    fn id(&self, index: usize) -> &str {
        &self.rows[index].id
    }

    fn row_number(&self, index: usize) -> usize {
        self.rows[index].number
    }

    fn item(&self, index: usize) -> &str {
        &self.rows[index].item
    }

    fn order(&self, index: usize) -> f64 {
        self.rows[index].order
    }

    fn sources(&self, index: usize, modality: &Modality) -> &[Source] {
        self.rows[index].values.get(modality).map(Vec::as_slice).unwrap_or_default()
    }

    fn cell(&self, index: usize, column: &str) -> Option<&str> {
        self.rows[index].cells.get(column)
    }
}

/// The manifests of a data set, each with the split of all its rows where it has one.
fn manifest_files(config: &ManifestConfig, base: &Path) -> Vec<(PathBuf, Option<Split>)> {
    let main = resolve(base, &config.manifest);
    if config.valid.is_none() && config.test.is_none() {
        return vec![(main, None)];
    }
    let others = [(&config.valid, Split::Valid), (&config.test, Split::Test)];
    let others = others.into_iter().filter_map(|(p, s)| p.as_ref().map(|p| (resolve(base, p), Some(s))));
    std::iter::once((main, Some(Split::Train))).chain(others).collect()
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
    fn columns_are_inferred_and_all_captions_are_read() {
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
    fn invalid_manifests_are_refused_with_the_reason() {
        let error = |name: &str, text: &str, config| open(name, text, config).unwrap_err().to_string();
        assert!(error("m.jsonl", "", ManifestConfig::default()).contains("no rows"));
        assert!(error("m.jsonl", "{\"id\":1}\n{", ManifestConfig::default()).contains("row 2"));
        let twice = "{\"id\":\"a\",\"text\":\"x y\"}\n{\"id\":\"a\",\"text\":\"x y\"}\n";
        assert!(error("m.jsonl", twice, ManifestConfig::default()).contains("already used in row 1"));
        let mut config = ManifestConfig::default();
        config.columns.modalities.insert("image".into(), "picture".into());
        assert!(error("m.csv", "id,img\n1,a.png\n", config).contains("no column `picture`; its columns are id, img"));
        assert!(error("m.xlsx", "", ManifestConfig::default()).contains("expected .jsonl"));
        let too_large =
            ManifestConfig { split: SplitConfig { test: 1.5, ..SplitConfig::default() }, ..ManifestConfig::default() };
        assert!(error("m.jsonl", "{}", too_large).contains("fractions in [0, 1)"));
    }

    proptest! {
        #[test]
        fn no_group_crosses_a_split(groups in prop::collection::vec("[a-d]{1,2}", 1..60), test in 0.1f64..0.5, valid in 0.0f64..0.4, seed: u64) {
            let text: String = groups.iter().enumerate().map(|(i, g)| format!("{{\"id\":\"{i}\",\"g\":\"{g}\",\"text\":\"a b\"}}\n")).collect();
            let split = SplitConfig { group: Some("g".into()), test, valid, seed, column: None };
            let manifest = open("m.jsonl", &text, ManifestConfig { split, ..ManifestConfig::default() }).unwrap();
            let mut splits: HashMap<&str, Split> = HashMap::new();
            for (row, group) in manifest.rows.iter().zip(&groups) {
                prop_assert_eq!(*splits.entry(group).or_insert(row.split), row.split);
            }
        }

        #[test]
        fn no_item_crosses_a_split(items in prop::collection::vec("[a-d]{1,2}", 1..60), test in 0.1f64..0.5, valid in 0.0f64..0.4, seed: u64) {
            let text: String = items.iter().enumerate().map(|(i, g)| format!("{{\"id\":\"{i}\",\"image\":\"{g}\",\"text\":\"a b\"}}\n")).collect();
            let split = SplitConfig { group: None, test, valid, seed, column: None };
            let mut config = ManifestConfig { split, ..ManifestConfig::default() };
            config.columns.item = Some("image".into());
            let manifest = open("m.jsonl", &text, config).unwrap();
            let mut splits: HashMap<&str, Split> = HashMap::new();
            for (row, item) in manifest.rows.iter().zip(&items) {
                prop_assert_eq!(*splits.entry(item).or_insert(row.split), row.split);
            }
        }
    }
}
