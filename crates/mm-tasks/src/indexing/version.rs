//! The version of a row: what its vectors were computed from, as a text that is stored with it; and what is to be done
//! with a row whose version differs from the stored one.

use super::{former::is_former, payload::PayloadColumns};
use mm_core::{Modality, Source};
use mm_data::{Row, source_name};
use mm_index::Vectors;
use std::{collections::BTreeMap, fmt};

/// Hexadecimal digits of each part.
const DIGITS: usize = 16;

/// The data set, the values and the cells of a row: `DATA:image=VALUES,text=VALUES:CELLS`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Version {
    pub(super) source: String,
    /// Hashes of the values that were embedded, by modality.
    pub(super) values: BTreeMap<String, String>,
    pub(super) cells: String,
}

/// What is to be done with a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) change: Change,
    /// The version of the row when this is done.
    pub(super) version: Version,
    /// The modalities whose values are embedded.
    pub(super) embedded: Vec<Modality>,
    /// The modalities whose values are gone.
    removed: Vec<Modality>,
    /// Whether the stored row is one of another data set, of which nothing is kept.
    is_of_other: bool,
}

/// What differs between a row and the stored one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    None,
    /// The payload or the text.
    Cells,
    /// What is embedded, or the data set.
    Values,
}

impl Version {
    /// The version of a row as it is now, by the modalities that it has of these. Files count by path, size and time of
    /// change.
    pub(super) fn of(source: &str, row: &Row, modalities: &[Modality], columns: &PayloadColumns) -> Self {
        let hash = |modality: &Modality| Some((modality.name().to_owned(), values_hash(modality, row)?));
        let mut cells = blake3::Hasher::new();
        cells.update(serde_json::Value::Object(columns.payload(row)).to_string().as_bytes());
        cells.update(super::payload::text(row).unwrap_or_default().as_bytes());
        let values = modalities.iter().filter_map(hash).collect();
        Self { source: source.to_owned(), values, cells: digits(&cells) }
    }

    /// The same without a modality of which a value could not be embedded: it is tried again.
    pub(super) fn leave_out(&mut self, modality: &Modality) {
        self.values.remove(modality.name());
    }

    /// Whether a stored version is of a row of this data set.
    pub(super) fn is_of(version: &str, source: &str) -> bool {
        version.strip_prefix(source).is_some_and(|rest| rest.starts_with(':'))
    }

    fn parse(text: &str) -> Option<Self> {
        let (source, rest) = text.split_once(':')?;
        let (values, cells) = rest.split_once(':')?;
        let pair = |part: &str| part.split_once('=').map(|(name, hash)| (name.to_owned(), hash.to_owned()));
        let values = values.split(',').filter(|part| !part.is_empty()).map(pair).collect::<Option<_>>()?;
        Some(Self { source: source.to_owned(), values, cells: cells.to_owned() })
    }

    /// What is to be done with a row of this version, if a row with the stored version is there; only these modalities
    /// are embedded, vectors of others stay. A former version does not say what the row had: what it lacks now is gone.
    pub(super) fn plan(mut self, stored: Option<&str>, modalities: &[Modality]) -> Plan {
        let is_of_other = stored.is_some_and(|version| !Self::is_of(version, &self.source));
        let before = stored.filter(|_| !is_of_other).and_then(Self::parse);
        let is_former = !is_of_other && stored.is_some_and(is_former);
        let (mut embedded, mut removed) = (Vec::new(), Vec::new());
        for modality in modalities {
            let known = before.as_ref().and_then(|before| before.values.get(modality.name()));
            match self.values.get(modality.name()) {
                None if known.is_some() || is_former => removed.push(modality.clone()),
                Some(now) if known != Some(now) => embedded.push(modality.clone()),
                _ => {}
            }
        }
        let change = match &before {
            Some(before) if embedded.is_empty() && removed.is_empty() => {
                if before.cells == self.cells {
                    Change::None
                } else {
                    Change::Cells
                }
            }
            _ => Change::Values,
        };
        let others = before.into_iter().flat_map(|before| before.values);
        self.values.extend(others.filter(|(name, _)| !modalities.iter().any(|modality| modality.name() == name)));
        Plan { change, version: self, embedded, removed, is_of_other }
    }
}

impl Plan {
    /// Whether the stored row's vectors of this name stay.
    pub(super) fn keeps(&self, name: &str) -> bool {
        !self.is_of_other && !self.embedded.iter().chain(&self.removed).any(|modality| modality.name() == name)
    }

    /// Leaves out of the version what is neither embedded nor among the stored vectors: the next call embeds it.
    pub(super) fn leave_out_missing(&mut self, stored: &BTreeMap<String, Vectors>) {
        let embedded = &self.embedded;
        let is_there = |name: &String| embedded.iter().any(|modality| modality.name() == name);
        self.version.values.retain(|name, _| is_there(name) || stored.contains_key(name));
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let values: Vec<String> = self.values.iter().map(|(name, hash)| format!("{name}={hash}")).collect();
        write!(f, "{}:{}:{}", self.source, values.join(","), self.cells)
    }
}

pub(super) fn digits(hasher: &blake3::Hasher) -> String {
    hasher.finalize().to_hex()[..DIGITS].to_owned()
}

/// The hash of the values of a modality, if the row has any.
pub(super) fn values_hash(modality: &Modality, row: &Row) -> Option<String> {
    row.values.get(modality).filter(|values| !values.is_empty())?;
    let mut hasher = blake3::Hasher::new();
    add_values(&mut hasher, modality, row);
    Some(digits(&hasher))
}

/// Identifies a data set by its path.
pub(super) fn source_key(path: &std::path::Path) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(path.as_os_str().as_encoded_bytes());
    digits(&hasher)
}

/// Adds what the values of a modality are: files by path, size and time of change.
pub(crate) fn add_values(hasher: &mut blake3::Hasher, modality: &Modality, row: &Row) {
    hasher.update(modality.name().as_bytes());
    for value in row.values.get(modality).into_iter().flatten() {
        hasher.update(b"\0");
        add_value(hasher, value);
    }
}

fn add_value(hasher: &mut blake3::Hasher, value: &Source) {
    match value {
        Source::Text(text) => hasher.update(text.as_bytes()),
        Source::Bytes(file) => hasher.update(file.digest()),
        Source::Path(path) => {
            hasher.update(path.as_os_str().as_encoded_bytes());
            // A file that is not there fails when it is read.
            if let Ok(metadata) = std::fs::metadata(path) {
                hasher.update(&metadata.len().to_le_bytes());
                let time = metadata.modified().ok().and_then(|t| t.duration_since(std::time::UNIX_EPOCH).ok());
                hasher.update(&time.unwrap_or_default().as_nanos().to_le_bytes());
            }
            hasher
        }
        other => hasher.update(source_name(other).as_bytes()),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: [Modality; 2] = [Modality::IMAGE, Modality::TEXT];

    fn version(source: &str, values: &[(&str, &str)], cells: &str) -> Version {
        let values = values.iter().map(|(name, hash)| ((*name).to_owned(), (*hash).to_owned())).collect();
        Version { source: source.into(), values, cells: cells.into() }
    }

    fn names(modalities: &[Modality]) -> Vec<&str> {
        modalities.iter().map(Modality::name).collect()
    }

    #[test]
    fn versions_tell_what_changed() {
        let now = version("s", &[("image", "i"), ("text", "t")], "c");
        let plan = |stored: &Version| now.clone().plan(Some(&stored.to_string()), &BOTH);
        assert_eq!(plan(&now).change, Change::None);
        assert_eq!(plan(&version("s", &[("image", "i"), ("text", "t")], "d")).change, Change::Cells);
        // Only what changed is embedded, and what could not be embedded before.
        let of_text = plan(&version("s", &[("image", "i"), ("text", "u")], "c"));
        assert_eq!((of_text.change, names(&of_text.embedded)), (Change::Values, vec!["text"]));
        assert!(of_text.keeps("image") && !of_text.keeps("text") && of_text.keeps("imported"));
        let mut incomplete = now.clone();
        incomplete.leave_out(&Modality::IMAGE);
        assert_eq!(names(&plan(&incomplete).embedded), ["image"]);
        // New rows, and those of a former version that does not match: see `former`.
        for unknown in [None, Some("s:0123456789abcdef:c")] {
            let all = now.clone().plan(unknown, &BOTH);
            assert_eq!((all.change, names(&all.embedded)), (Change::Values, vec!["image", "text"]), "{unknown:?}");
            assert!(all.keeps("imported"));
        }
        let of_former = version("s", &[("image", "i")], "c").plan(Some("s:0123456789abcdef:c"), &BOTH);
        assert!(!of_former.keeps("text") && of_former.keeps("imported"), "the text may be gone");
        assert!(Version::is_of(&now.to_string(), "s") && !Version::is_of(&now.to_string(), "t"));
    }

    #[test]
    fn modalities_that_are_not_embedded_stay() {
        let stored = version("s", &[("image", "i"), ("text", "t")], "c").to_string();
        let only = [Modality::IMAGE];
        let same = version("s", &[("image", "i")], "c").plan(Some(&stored), &only);
        assert_eq!((same.change, same.version.to_string()), (Change::None, stored.clone()));
        let other = version("s", &[("image", "j")], "c").plan(Some(&stored), &only);
        assert_eq!((other.change, names(&other.embedded)), (Change::Values, vec!["image"]));
        assert!(other.keeps("text") && other.version.to_string().contains("text=t"));
        // A row that has lost its text loses the vector, where texts are embedded.
        let without = version("s", &[("image", "i")], "c").plan(Some(&stored), &BOTH);
        assert_eq!((without.change, without.embedded.len()), (Change::Values, 0));
        assert!(without.keeps("image") && !without.keeps("text"));
        assert_eq!(without.version.to_string(), "s:image=i:c");
        // A row that never had a text does not change when the data set has none any more.
        let image = version("s", &[("image", "i")], "c");
        assert_eq!(image.clone().plan(Some(&image.to_string()), &BOTH).change, Change::None);
    }

    #[test]
    fn vectors_that_are_gone_are_not_in_the_version() {
        let stored = version("s", &[("image", "i"), ("text", "t")], "c").to_string();
        let vectors = |names: &[&str]| -> BTreeMap<String, Vectors> {
            names.iter().map(|name| ((*name).to_owned(), Vectors::Single(vec![1.0]))).collect()
        };
        let written = |there: &[&str]| {
            let mut plan = version("s", &[("image", "j")], "c").plan(Some(&stored), &BOTH[..1]);
            plan.leave_out_missing(&vectors(there));
            plan.version.to_string()
        };
        assert_eq!(written(&["text", "imported"]), "s:image=j,text=t:c");
        assert_eq!((written(&["image"]), written(&[])), ("s:image=j:c".to_owned(), "s:image=j:c".to_owned()));
    }

    #[test]
    fn the_same_row_of_another_data_set_is_a_change() {
        let (a, b) = (version("a", &[("text", "t")], "c"), version("b", &[("text", "t")], "c"));
        let plan = b.plan(Some(&a.to_string()), &BOTH);
        assert_eq!((plan.change, names(&plan.embedded)), (Change::Values, vec!["text"]));
        assert!(!plan.keeps("image") && Version::is_of(&plan.version.to_string(), "b"));
    }
}
