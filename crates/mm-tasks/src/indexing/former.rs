//! Versions of rows as stores hold them that were written before each modality had a hash of its own:
//! `DATA:VALUES:CELLS`, where `VALUES` is one hash of the values of all modalities, in order.

use super::version::{Version, add_values, digits, values_hash};
use mm_core::Modality;
use mm_data::Row;

/// What follows a former version of a row that lacks a vector; it does not state which.
const INCOMPLETE: &str = ":incomplete";

/// The data set and the hash of the values of a former version, and what follows them.
fn parse(stored: &str) -> Option<(&str, &str, &str)> {
    let (source, rest) = stored.split_once(':')?;
    let (values, cells) = rest.split_once(':')?;
    (!values.is_empty() && !values.contains('=')).then_some((source, values, cells))
}

/// Whether a stored version is a former one.
pub(super) fn is_former(stored: &str) -> bool {
    parse(stored).is_some()
}

/// What a former version is now, where the row still has the values that it was made of. These were of some modalities
/// in one of these orders; it does not state of which. Cells are hashed as they were: a row whose cells are the same is not
/// written again, so that its place in the graph stays. Its former version stays with it, and is read again by each call.
pub(super) fn renewed(stored: &str, row: &Row, orders: &[&[Modality]]) -> Option<String> {
    let (source, values, cells) = parse(stored)?;
    if cells.ends_with(INCOMPLETE) {
        return None;
    }
    let hasher = blake3::Hasher::new();
    let found = orders.iter().find_map(|modalities| matching(&hasher, modalities, row, values))?;
    let hash = |modality: &Modality| Some((modality.name().to_owned(), values_hash(modality, row)?));
    let values = found.into_iter().filter_map(hash).collect();
    Some(Version { source: source.to_owned(), values, cells: cells.to_owned() }.to_string())
}

/// Which of these modalities, added to a hasher in order, have this hash; all of them are tried first.
fn matching<'a>(
    hasher: &blake3::Hasher,
    modalities: &'a [Modality],
    row: &Row,
    wanted: &str,
) -> Option<Vec<&'a Modality>> {
    let Some((first, rest)) = modalities.split_first() else { return (digits(hasher) == wanted).then(Vec::new) };
    let mut with = hasher.clone();
    add_values(&mut with, first, row);
    if let Some(mut found) = matching(&with, rest, row, wanted) {
        found.push(first);
        return Some(found);
    }
    matching(hasher, rest, row, wanted)
}

#[cfg(test)]
mod tests {
    use super::super::{payload::PayloadColumns, version::Change};
    use super::*;
    use mm_data::{Manifest, ManifestConfig};

    const BOTH: [Modality; 2] = [Modality::IMAGE, Modality::TEXT];

    fn manifest(folder: &std::path::Path, line: &str) -> Manifest {
        std::fs::write(folder.join("m.jsonl"), line).unwrap();
        let config = ManifestConfig { manifest: "m.jsonl".into(), ..ManifestConfig::default() };
        Manifest::open(&config, folder).unwrap()
    }

    /// A former version of a row, of these modalities, with these cells.
    fn former(row: &Row, modalities: &[Modality], cells: &str) -> String {
        let mut hasher = blake3::Hasher::new();
        modalities.iter().for_each(|modality| add_values(&mut hasher, modality, row));
        format!("s:{}:{cells}", digits(&hasher))
    }

    #[test]
    fn rows_of_a_former_version_are_not_embedded_again() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.png"), "not read").unwrap();
        let full = manifest(folder.path(), r#"{"id":"a","image":"a.png","text":"a dog"}"#);
        let columns = PayloadColumns::infer(&full);
        let row = &full.rows[0];
        let now = Version::of("s", row, &BOTH, &columns);
        let plan = |stored: &str, orders: &[&[Modality]]| {
            let renewed = renewed(stored, row, orders);
            now.clone().plan(Some(renewed.as_deref().unwrap_or(stored)), &BOTH)
        };
        // A row that is the same is not written, one whose cells alone differ keeps its vectors.
        for (cells, change) in [(now.cells.as_str(), Change::None), ("0123456789abcdef", Change::Cells)] {
            let same = plan(&former(row, &BOTH, cells), &[&BOTH]);
            assert_eq!((same.change, same.embedded.len(), &same.version), (change, 0, &now));
            assert!(same.keeps("image") && same.keeps("text"));
        }
        // Of fewer modalities, and in another order.
        let of_image = plan(&former(row, &BOTH[..1], &now.cells), &[&BOTH]);
        assert_eq!((of_image.change, of_image.embedded), (Change::Values, vec![Modality::TEXT]));
        let reversed = [Modality::TEXT, Modality::IMAGE];
        assert_eq!(plan(&former(row, &reversed, &now.cells), &[&BOTH, &reversed]).change, Change::None);
        // Rows that lacked a vector, other values, and rows of this version.
        let incomplete = former(row, &BOTH, &now.cells) + INCOMPLETE;
        for other in [incomplete.as_str(), "s:0123456789abcdef:c"] {
            assert!(is_former(other));
            assert_eq!(plan(other, &[&BOTH]).embedded, BOTH, "{other}");
        }
        assert!(!is_former(&now.to_string()) && !is_former("s::c"));
        assert_eq!(renewed(&now.to_string(), row, &[&BOTH]), None);
    }

    #[test]
    fn a_former_version_of_a_row_that_lacks_a_modality_is_known() {
        let folder = tempfile::tempdir().unwrap();
        let texts = manifest(folder.path(), r#"{"id":"a","text":"a dog"}"#);
        let row = &texts.rows[0];
        let now = Version::of("s", row, &BOTH, &PayloadColumns::infer(&texts));
        // Whether other rows of the data had images, or not.
        for modalities in [&BOTH[..], &BOTH[1..]] {
            let renewed = renewed(&former(row, modalities, &now.cells), row, &[&BOTH]);
            let plan = now.clone().plan(renewed.as_deref(), &BOTH);
            assert_eq!((plan.change, plan.embedded.len(), plan.version), (Change::None, 0, now.clone()));
        }
    }
}
