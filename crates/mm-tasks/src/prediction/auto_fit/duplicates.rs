//! Identical rows: a model that was trained on one of them knows the label of the others.

use super::options::FitOptions;
use crate::Result;
use mm_core::cells::Record;
use mm_data::{ColumnBinding, Table, row_key};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, hash_map::Entry},
    path::Path,
};

/// The columns that the model sees, and the label.
fn compared_columns(columns: &BTreeMap<String, Vec<String>>, options: &FitOptions) -> Vec<String> {
    let inputs: BTreeSet<&String> = columns.values().flatten().chain([&options.label_column]).collect();
    inputs.into_iter().cloned().collect()
}

fn hash(cells: &Record, columns: &[String]) -> blake3::Hash {
    blake3::hash(row_key(cells, columns).as_bytes())
}

/// The columns whose equal values stay in one split: the given one; where none is given and rows are identical, all
/// columns that are used, so that identical rows stay together. Where most rows are identical to another one, their
/// columns have few different values, and rows are split one by one. `log` gets a line about identical rows.
pub(super) fn group_columns(
    table: &Table,
    columns: &BTreeMap<String, Vec<String>>,
    options: &FitOptions,
    log: &mut dyn FnMut(String),
) -> Option<ColumnBinding> {
    let compared = compared_columns(columns, options);
    let given = options.group_column.clone().map(ColumnBinding::Single);
    let mut group_of: HashMap<blake3::Hash, String> = HashMap::new();
    let (mut identical, mut in_other_group) = (0, 0);
    for cells in &table.rows {
        let group = options.group_column.as_ref().map_or_else(String::new, |g| row_key(cells, std::slice::from_ref(g)));
        match group_of.entry(hash(cells, &compared)) {
            Entry::Occupied(first) => {
                identical += 1;
                in_other_group += usize::from(*first.get() != group);
            }
            Entry::Vacant(entry) => {
                entry.insert(group);
            }
        }
    }
    if identical == 0 {
        return given;
    }
    let rows = table.rows.len();
    let found = format!("{identical} of {rows} rows are identical to an earlier one in every column that is used");
    if let Some(ColumnBinding::Single(group)) = &given {
        if in_other_group > 0 {
            log(format!("{found}; {in_other_group} of them have another {group}, so they may be in another split"));
        }
        return given;
    }
    if group_of.len() * 2 < rows {
        log(format!("{found}; as that is most of them, rows are split one by one"));
        return None;
    }
    log(format!("{found}; identical rows stay in one split"));
    Some(ColumnBinding::Multiple(compared))
}

/// Says how many rows of the validation table are identical to a training row.
///
/// # Errors
/// When the validation table cannot be read.
pub(super) fn count_shared_rows(
    table: &Table,
    validation: &Path,
    columns: &BTreeMap<String, Vec<String>>,
    options: &FitOptions,
    log: &mut dyn FnMut(String),
) -> Result<()> {
    let compared = compared_columns(columns, options);
    let validation = Table::read(validation, &options.table_options())?;
    let trained: HashSet<blake3::Hash> = table.rows.iter().map(|cells| hash(cells, &compared)).collect();
    let shared = validation.rows.iter().filter(|cells| trained.contains(&hash(cells, &compared))).count();
    if shared > 0 {
        let rows = validation.rows.len();
        log(format!(
            "{shared} of {rows} validation rows are identical to a training row in every column that is used, so their \
             metrics are optimistic"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm_data::{Manifest, ManifestConfig, SplitConfig, TableOptions};

    fn options(group: Option<&str>) -> FitOptions {
        FitOptions { label_column: "y".into(), group_column: group.map(Into::into), ..FitOptions::default() }
    }

    /// The columns that keep identical rows together, and the log.
    fn group(text: &str, group: Option<&str>) -> (Option<ColumnBinding>, String) {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("t.csv");
        std::fs::write(&data, text).unwrap();
        let table = Table::read(&data, &TableOptions::default()).unwrap();
        let columns = BTreeMap::from([("text".to_owned(), vec!["say".to_owned()])]);
        let mut log = Vec::new();
        let found = group_columns(&table, &columns, &options(group), &mut |line| log.push(line));
        (found, log.join("\n"))
    }

    #[test]
    fn identical_rows_stay_in_one_split_whatever_their_ids() {
        let row = |n: usize| format!("{n},the dog {},{},{}\n", n % 60, n % 2, n / 50);
        let text = format!("id,say,y,who\n{}", (0..100).map(row).collect::<String>());
        let (found, log) = group(&text, None);
        assert!(log.starts_with("40 of 100 rows are identical to an earlier one"), "{log}");
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("t.csv"), &text).unwrap();
        let split = SplitConfig { group: found, test: 0.3, valid: 0.2, ..SplitConfig::default() };
        let config = ManifestConfig { manifest: "t.csv".into(), split, ..ManifestConfig::default() };
        let rows = Manifest::open(&config, folder.path()).unwrap().rows;
        assert!((60..100).all(|n| rows[n].split == rows[n - 60].split));
        assert!(rows.iter().any(|r| r.split != rows[0].split));
        // Rows of one group, but for those whose group differs.
        let (found, log) = group(&text, Some("who"));
        assert_eq!(found, Some("who".into()));
        assert!(log.ends_with("40 of them have another who, so they may be in another split"), "{log}");
    }

    #[test]
    fn tables_of_few_different_values_are_split_row_by_row() {
        let row = |n: usize| format!("{},{}\n", n % 3, n % 2);
        let (found, log) = group(&format!("say,y\n{}", (0..30).map(row).collect::<String>()), None);
        assert_eq!(found, None);
        assert!(log.starts_with("24 of 30 rows") && log.ends_with("rows are split one by one"), "{log}");
        assert_eq!(group("say,y\na,1\nb,1\na,2\n", None), (None, String::new()));
    }

    #[test]
    fn validation_rows_that_were_trained_on_are_counted() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("t.csv"), "say,y\na,1\nb,2\nc,1\n").unwrap();
        std::fs::write(path("v.csv"), "say,y\na,1\nb,1\nd,2\n").unwrap();
        let table = Table::read(&path("t.csv"), &TableOptions::default()).unwrap();
        let columns = BTreeMap::from([("text".to_owned(), vec!["say".to_owned()])]);
        let mut log = Vec::new();
        count_shared_rows(&table, &path("v.csv"), &columns, &options(None), &mut |line| log.push(line)).unwrap();
        assert!(log.len() == 1 && log[0].starts_with("1 of 3 validation rows"), "{log:?}");
    }
}
