//! `--column NAME=COLUMN`: which column of a table is what.

use crate::exit::usage;
use anyhow::Result;
use mm_data::{Columns, ManifestConfig, SplitConfig, TableOptions};
use serde_json::{Map, Value, json};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    str::FromStr,
};

/// One binding of a name (a modality, or what a command asks for) to one or several columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ColumnBinding {
    /// The name on the left.
    pub(crate) name: String,
    /// The columns on the right, joined by `+` on the command line.
    pub(crate) columns: Vec<String>,
}

impl FromStr for ColumnBinding {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected =
            || "expected NAME=COLUMN, for instance image=photo (several columns: text=title+body)".to_owned();
        let (name, columns) = text.split_once('=').ok_or_else(expected)?;
        let columns: Vec<String> = columns.split('+').map(|c| c.trim().to_owned()).collect();
        if name.trim().is_empty() || columns.iter().any(String::is_empty) {
            return Err(expected());
        }
        Ok(Self { name: name.trim().to_owned(), columns })
    }
}

/// Bindings by name; those of one name are joined.
pub(crate) fn by_name(bindings: &[ColumnBinding]) -> BTreeMap<String, Vec<String>> {
    let mut out: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for binding in bindings {
        out.entry(binding.name.clone()).or_default().extend(binding.columns.iter().cloned());
    }
    out
}

/// How a table is read.
#[derive(clap::Args, Clone, Default)]
pub(crate) struct TableArgs {
    /// Column of a modality, for instance image=photo or text=title+body; may be repeated [default: guessed].
    #[arg(long, value_name = "NAME=COLUMN")]
    pub(crate) column: Vec<ColumnBinding>,
    #[command(flatten)]
    pub(crate) cells: CellArgs,
}

/// How the cells of a table are read.
#[derive(clap::Args, Clone, Default)]
pub(crate) struct CellArgs {
    /// Text encoding of the table, by its WHATWG name [default: as in the training of a run, else utf-8, or what the
    /// byte-order mark says].
    #[arg(long, value_name = "NAME")]
    pub(crate) encoding: Option<String>,
    /// Cells that stand for a missing value, besides empty ones [default: as in the training of a run, else NA, N/A,
    /// nan, NULL, None … as pandas].
    #[arg(long, value_name = "A,B,C", value_delimiter = ',')]
    pub(crate) missing_values: Option<Vec<String>>,
    /// Fetch the files that cells name by http or https URL, into mm's cache; otherwise they are errors.
    #[arg(long)]
    pub(crate) fetch_urls: bool,
}

impl CellArgs {
    /// As options of a table.
    pub(crate) fn options(&self) -> TableOptions<'_> {
        TableOptions {
            encoding: self.encoding.as_deref(),
            missing_values: self.missing_values.as_deref(),
            fetch_urls: self.fetch_urls,
        }
    }

    /// Those that are given, by name, as part of a provenance.
    pub(crate) fn provenance(&self) -> Map<String, Value> {
        let given = [
            ("encoding", self.encoding.as_ref().map(|name| json!(name))),
            ("missing_values", self.missing_values.as_ref().map(|cells| json!(cells))),
            ("fetch_urls", self.fetch_urls.then_some(json!(true))),
        ];
        given.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
    }

    /// Whether any of them is given.
    pub(crate) fn is_given(&self) -> bool {
        self.encoding.is_some() || self.missing_values.is_some() || self.fetch_urls
    }

    /// Refuses the options where no table is read.
    pub(crate) fn require_data(&self, data: Option<&PathBuf>) -> Result<()> {
        if data.is_none() && self.is_given() {
            usage!("--encoding, --missing-values, --fetch-urls: say how a table is read; give it with --data");
        }
        Ok(())
    }
}

impl TableArgs {
    /// What is given, by name, as part of a provenance.
    pub(crate) fn provenance(&self) -> Map<String, Value> {
        let columns = (!self.column.is_empty()).then(|| ("column".to_owned(), json!(by_name(&self.column))));
        self.cells.provenance().into_iter().chain(columns).collect()
    }

    /// Refuses the options where no table is read.
    pub(crate) fn require_data(&self, data: Option<&PathBuf>) -> Result<()> {
        if data.is_none() && !self.column.is_empty() {
            usage!("--column: says how a table is read; give it with --data");
        }
        self.cells.require_data(data)
    }

    /// The table as a data set, unsplit; without the bindings of `others`, which are no modalities.
    pub(crate) fn config(&self, data: &Path, others: &[&str]) -> ManifestConfig {
        let mut columns = Columns::default();
        for (modality, names) in by_name(&self.column).into_iter().filter(|(name, _)| !others.contains(&name.as_str()))
        {
            let binding = match names.as_slice() {
                [name] => mm_data::ColumnBinding::Single(name.clone()),
                _ => mm_data::ColumnBinding::Multiple(names),
            };
            columns.modalities.insert(modality, binding);
        }
        ManifestConfig {
            manifest: data.to_owned(),
            columns,
            encoding: self.cells.encoding.clone(),
            missing_values: self.cells.missing_values.clone(),
            fetch_urls: self.cells.fetch_urls,
            split: SplitConfig { test: 0.0, ..SplitConfig::default() },
            ..ManifestConfig::default()
        }
    }
}
