//! `--column NAME=COLUMN`: which column of a table is what.

use std::{collections::BTreeMap, str::FromStr};

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
