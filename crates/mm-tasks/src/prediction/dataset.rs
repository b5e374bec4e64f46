//! Data sets of prediction: a config's own, and other tables with the same columns.

use super::config::PredictionConfig;
use crate::{Error, Result};
use mm_core::{Modality, Source};
use mm_data::{Cells, Columns, Manifest, ManifestConfig, Split, SplitConfig, Table, TableOptions};
use std::{collections::HashSet, path::Path};

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

/// Another table with columns as in a config; rows need neither labels nor every modality, but the columns must be
/// there unless their modality is in `excluded`. What `options` leave open is as in the training table.
///
/// # Errors
/// Names the columns that the table lacks.
pub(super) fn open_table(
    config: &PredictionConfig,
    path: &Path,
    base_dir: &Path,
    excluded: &[Modality],
    options: &TableOptions<'_>,
) -> Result<Manifest> {
    let trained = &config.common.data;
    let options = TableOptions {
        encoding: options.encoding.or(trained.encoding.as_deref()),
        missing_values: options.missing_values.or(trained.missing_values.as_deref()),
        // Another table may name other addresses.
        fetch_urls: options.fetch_urls,
    };
    let table = Table::read(&base_dir.join(path), &options)?;
    let columns = columns_of(config, &table, excluded)?;
    let data = ManifestConfig {
        manifest: path.to_owned(),
        columns,
        encoding: options.encoding.map(ToOwned::to_owned),
        missing_values: options.missing_values.map(<[String]>::to_vec),
        fetch_urls: options.fetch_urls,
        split: SplitConfig { test: 0.0, ..Default::default() },
        ..Default::default()
    };
    Ok(Manifest::open(&data, base_dir)?)
}

/// Rows in memory with columns as in a config, as [`open_table`] reads those of a file. `file` gives the source of each
/// text that would name a file.
///
/// # Errors
/// Names the columns that the rows lack.
pub(super) fn read_rows(
    config: &PredictionConfig,
    rows: Vec<Cells>,
    excluded: &[Modality],
    file: &dyn Fn(&Modality, &str) -> Source,
) -> Result<Manifest> {
    let table = Table::from_rows("rows", rows, config.common.data.missing_values.as_deref());
    let columns = columns_of(config, &table, excluded)?;
    Ok(Manifest::from_table(&table, &columns, file)?)
}

/// The columns of a config, as far as another table needs and has them.
fn columns_of(config: &PredictionConfig, table: &Table, excluded: &[Modality]) -> Result<Columns> {
    let trained = &config.common.data;
    let mut columns = trained.columns.clone();
    columns.id = Some(id_column(table));
    let is_used =
        |modality: &String| config.inputs.contains_key(modality) && !excluded.iter().any(|m| m.name() == modality);
    columns.modalities.retain(|modality, _| is_used(modality));
    let mut absent = Vec::new();
    for (modality, binding) in &columns.modalities {
        let names = binding.columns().iter().filter(|c| !table.has_column(c));
        absent.extend(names.map(|c| format!("`{c}` ({modality})")));
    }
    if !absent.is_empty() {
        return Err(Error::invalid(
            table.path.display().to_string(),
            format!("the columns {}", table.columns.join(", ")),
            format!("those of the training table as well: {}", absent.join(", ")),
        )
        .with_hint("cells may be empty; --exclude-modality predicts without a modality"));
    }
    if columns.modalities.is_empty() && !trained.columns.modalities.is_empty() {
        return Err(Error::invalid("exclude_modality", "all modalities of the model", "at least one that remains"));
    }
    for column in [&mut columns.item, &mut columns.order] {
        if column.as_ref().is_some_and(|c| !table.has_column(c)) {
            *column = None;
        }
    }
    Ok(columns)
}

/// The column of row ids: `id` where its cells are unique, else none (a repeated customer number identifies no row).
pub(super) fn id_column(table: &Table) -> String {
    let mut seen = HashSet::new();
    let is_unique = table.rows.iter().all(|r| r.get("id").is_some_and(|id| seen.insert(id)));
    if is_unique && !table.rows.is_empty() { "id".into() } else { String::new() }
}

/// The question of a row: its text.
pub(super) fn question_of(manifest: &Manifest, row: usize) -> Option<&str> {
    match manifest.rows[row].values.get(&Modality::TEXT)?.first()? {
        Source::Text(text) => Some(text),
        _ => None,
    }
}
