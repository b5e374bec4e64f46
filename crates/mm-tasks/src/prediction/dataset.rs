//! Data sets of prediction: a config's own, and other tables with the same columns.

use super::config::PredictionConfig;
use crate::{Error, Result};
use mm_core::{Modality, Source};
use mm_data::{Cells, ColumnBinding, Manifest, ManifestConfig, Split, SplitConfig, read_table};
use std::{
    collections::{BTreeSet, HashSet},
    path::Path,
};

/// Rows of a table that are searched for column names.
pub(super) const HEADER_ROWS: usize = 1000;

/// The data set of a config, with the values of its modalities alone.
pub(super) fn open_dataset(config: &PredictionConfig, base_dir: &Path) -> Result<Manifest> {
    let mut manifest = Manifest::open(&config.common.data, base_dir)?;
    for row in &mut manifest.rows {
        row.values.retain(|m, values| config.inputs.contains_key(m.name()) && !values.is_empty());
        for (modality, values) in &mut row.values {
            if config.common.loader.always_first_source.iter().any(|m| m == modality.name()) {
                values.truncate(1);
            }
        }
    }
    Ok(manifest)
}

/// The data set of a config to train on.
///
/// # Errors
/// When no training row has one of its modalities.
pub(super) fn open_training_dataset<'a>(
    config: &PredictionConfig,
    base_dir: &Path,
    modalities: impl Iterator<Item = &'a Modality>,
) -> Result<Manifest> {
    let manifest = open_dataset(config, base_dir)?;
    let train = manifest.rows_in_split(Split::Train);
    for modality in modalities {
        if !train.iter().any(|r| manifest.rows[*r].values.contains_key(modality)) {
            return Err(Error::invalid(
                format!("inputs.{modality}"),
                format!("no training row with {modality} in {}", manifest.path.display()),
                "at least one",
            ));
        }
    }
    Ok(manifest)
}

/// Another table with columns as in a config; rows need neither labels nor every modality.
///
/// # Errors
/// When the table has none of the columns.
pub(super) fn open_table(config: &PredictionConfig, path: &Path, base_dir: &Path) -> Result<Manifest> {
    let trained = &config.common.data;
    let table = read_table(&base_dir.join(path), trained.encoding.as_deref())?;
    let known: BTreeSet<String> = table.iter().take(HEADER_ROWS).flat_map(|r| r.keys().cloned()).collect();
    let mut columns = trained.columns.clone();
    columns.id = Some(id_column(&table));
    drop(table);
    let has_column = |binding: &ColumnBinding| binding.columns().iter().any(|c| known.contains(c));
    if !columns.modalities.values().any(has_column) {
        let names = columns.modalities.values().flat_map(ColumnBinding::columns);
        let expected = names.map(String::as_str).collect::<Vec<_>>().join(", ");
        let found = known.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
        return Err(Error::invalid(
            path.display().to_string(),
            format!("the columns {found}"),
            format!("at least one of {expected}"),
        ));
    }
    // A modality whose column is absent is missing in every row.
    for binding in columns.modalities.values_mut() {
        if has_column(binding)
            && let ColumnBinding::Multiple(names) = binding
        {
            names.retain(|c| known.contains(c));
        }
    }
    columns.modalities.retain(|_, binding| has_column(binding));
    for column in [&mut columns.item, &mut columns.order] {
        if column.as_ref().is_some_and(|c| !known.contains(c)) {
            *column = None;
        }
    }
    let data = ManifestConfig {
        manifest: path.to_owned(),
        columns,
        encoding: trained.encoding.clone(),
        split: SplitConfig { test: 0.0, ..Default::default() },
        ..Default::default()
    };
    Ok(Manifest::open(&data, base_dir)?)
}

/// The column of row ids: `id` where its cells are unique, else none (a repeated customer number identifies no row).
pub(super) fn id_column(table: &[Cells]) -> String {
    let mut seen = HashSet::new();
    let is_unique = table.iter().all(|r| r.get("id").and_then(mm_data::cell_text).is_some_and(|id| seen.insert(id)));
    if is_unique && !table.is_empty() { "id".into() } else { String::new() }
}

/// The question of a row: its text.
pub(super) fn question_of(manifest: &Manifest, row: usize) -> Option<&str> {
    match manifest.rows[row].values.get(&Modality::TEXT)?.first()? {
        Source::Text(text) => Some(text),
        _ => None,
    }
}
