//! `--k`: the number of results.

use std::str::FromStr;

/// A number of results, or all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limit(usize);

impl Limit {
    /// The limit as an upper bound on a count.
    pub(crate) fn get(self) -> usize {
        self.0
    }
}

impl FromStr for Limit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            _ if text == "all" => Ok(Self(usize::MAX)),
            Ok(count) if count > 0 => Ok(Self(count)),
            _ => Err("expected a positive number, or all".into()),
        }
    }
}
