//! Train, validation and test splits.

use super::{binding::ColumnBinding, table::cell_key};
use crate::{Error, Result};
use mm_core::cells::Record;
use serde::{Deserialize, Serialize};

/// A split of a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// Rows that parameters are fitted on.
    Train,
    /// Rows that settings and the best checkpoint are chosen on.
    Valid,
    /// Rows that the reported metrics are measured on.
    Test,
}

impl std::str::FromStr for Split {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text.trim().to_ascii_lowercase().as_str() {
            "train" | "training" => Ok(Self::Train),
            "valid" | "val" | "validation" | "dev" => Ok(Self::Valid),
            "test" | "testing" | "eval" => Ok(Self::Test),
            other => Err(Error::Config(format!("split: found `{other}`, expected train, valid or test"))),
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

/// How the rows of one manifest are split (`[data.split]`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SplitConfig {
    /// A column of `train`, `valid` or `test`. With `valid` above 0, that fraction of its training groups is held out
    /// for validation.
    pub column: Option<String>,
    /// Rows with the same value in this column (or in all of several columns) are in the same split, which a hash of
    /// the value selects. Without it, rows of the same item (`columns.item`) are; without items, every row is a group
    /// of its own.
    pub group: Option<ColumnBinding>,
    /// Fraction of the groups in the test split, in [0, 1).
    pub test: f64,
    /// Fraction of the groups in the validation split, in [0, 1).
    pub valid: f64,
    /// Changes which groups are held out.
    pub seed: u64,
}

impl Default for SplitConfig {
    fn default() -> Self {
        Self { column: None, group: None, test: 0.2, valid: 0.0, seed: 0 }
    }
}

/// The group of a row: the text of one column, none where the cell is empty; the values of several columns.
pub(super) fn group_of(cells: &Record, group: &ColumnBinding) -> Option<String> {
    match group {
        ColumnBinding::Single(column) => cells.get(column).map(ToOwned::to_owned),
        ColumnBinding::Multiple(columns) => Some(row_key(cells, columns)),
    }
}

/// What rows have in common that are equal in these columns; encoded files are compared by their bytes.
pub fn row_key(cells: &Record, columns: &[String]) -> String {
    let keys: Vec<String> =
        columns.iter().map(|column| cells.value(column).as_ref().map_or_else(String::new, cell_key)).collect();
    keys.join("\u{1f}")
}

impl SplitConfig {
    pub(super) fn check(&self) -> Result<()> {
        let is_fraction = |value: f64| (0.0..1.0).contains(&value);
        if !is_fraction(self.test) || !is_fraction(self.valid) || self.test + self.valid >= 1.0 {
            return Err(Error::Config(format!(
                "data.split: found test {} and valid {}, expected fractions in [0, 1) that leave rows to train on",
                self.test, self.valid
            )));
        }
        Ok(())
    }

    /// The split of a group: a function of its name and the seed, independent of the rest of the manifest.
    pub(super) fn by_hash(&self, group: &str) -> Split {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.seed.to_le_bytes()).update(group.as_bytes());
        let mut head = [0u8; 8];
        head.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
        let position = (u64::from_le_bytes(head) >> 11) as f64 / (1u64 << 53) as f64; // uniform in [0, 1)
        if position < self.test {
            Split::Test
        } else if position < self.test + self.valid {
            Split::Valid
        } else {
            Split::Train
        }
    }

    /// The split of a row that is named `train` in the split column: validation groups are held out of it.
    pub(super) fn hold_out_validation(&self, group: &str) -> Split {
        if self.valid > 0.0 { Self { test: 0.0, ..self.clone() }.by_hash(group) } else { Split::Train }
    }
}
