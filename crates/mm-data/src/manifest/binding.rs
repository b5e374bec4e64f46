//! One column, or several that are read together.

use serde::{Deserialize, Serialize};

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
