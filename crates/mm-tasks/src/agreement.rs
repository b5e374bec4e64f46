//! Whether the processes that train together read the same data.

use crate::{Error, Result};
use mm_core::{
    Modality, Source,
    distributed::{gather_values, process_group},
};
use mm_data::{ColumnBinding, Manifest, Row, Split, is_remote};
use rayon::prelude::*;
use std::{collections::BTreeSet, fmt, path::Path};

/// Of so many files at most the size is compared; of more, of files at equal distances.
const MAX_SIZES: usize = 100_000;

/// Where several processes train together: checks that all have the same data set, of which each trains on and evaluates
/// a part: ids, splits, labels, cells, texts, and of files the name and the size (of 100,000 files at most).
///
/// # Errors
/// Names the column or the modality that differs, and the first row; when a process ended or does not come.
pub fn agree_on_data(manifest: &Manifest) -> Result<()> {
    let Some(group) = process_group() else { return Ok(()) };
    let count = format!("{} training rows of {}", manifest.rows_in_split(Split::Train).len(), manifest.rows.len());
    let counts = group.gather_text(&count)?;
    if let Some((rank, other)) = counts.iter().enumerate().find(|(_, other)| **other != counts[0]) {
        return Err(different(format!("{other} in rank {rank}"), format!("{} as in rank 0", counts[0])));
    }
    let data = Data::new(manifest);
    let own: Vec<(String, String)> = data.aspects().iter().map(|a| (a.to_string(), data.hash(a))).collect();
    let all = gather_values(group.as_ref(), &own)?;
    let Some(rank) = all.iter().position(|other| *other != all[0]) else { return Ok(()) };
    let Some((aspect, _)) = all[0].iter().find(|aspect| !all[rank].contains(aspect)) else {
        return Err(different(format!("more columns in rank {rank}"), "the columns of rank 0"));
    };
    // Which row it is: every process finds the same aspect and has it, or lacks it.
    let own = data.aspects().into_iter().find(|a| a.to_string() == *aspect);
    let own = own.map(|aspect| data.row_hashes(&aspect)).unwrap_or_default();
    let all = gather_values(group.as_ref(), &own)?;
    let row = all[0].iter().zip(&all[rank]).position(|(a, b)| a != b).and_then(|row| manifest.rows.get(row));
    let row = row.map_or_else(String::new, |row| format!(", first in row {} (`{}`)", row.number, row.id));
    Err(different(
        format!("{aspect} in rank {rank} that differ from those of rank 0{row}"),
        "the same in all processes",
    ))
}

fn different(found: impl fmt::Display, expected: impl fmt::Display) -> Error {
    Error::invalid("data", found, expected).with_hint("the processes read different tables or files")
}

/// What is compared on its own.
enum Aspect {
    Rows,
    Labels,
    Column(String),
    Values(Modality),
}

impl fmt::Display for Aspect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rows => f.write_str("ids, items or splits"),
            Self::Labels => f.write_str("labels"),
            Self::Column(column) => write!(f, "cells of the column `{column}`"),
            Self::Values(modality) => write!(f, "values of {modality} (texts, names or sizes of files)"),
        }
    }
}

struct Data<'a> {
    manifest: &'a Manifest,
    /// Of every so many rows the sizes of files are compared.
    size_step: usize,
}

impl<'a> Data<'a> {
    fn new(manifest: &'a Manifest) -> Self {
        let sources = manifest.rows.iter().flat_map(|row| row.values.iter().flat_map(|(_, values)| values));
        let files = sources.filter(|source| matches!(source, Source::Path(_))).count();
        Self { manifest, size_step: files.div_ceil(MAX_SIZES).max(1) }
    }

    fn aspects(&self) -> Vec<Aspect> {
        let rows = &self.manifest.rows;
        // The cells of files are paths, which may differ between hosts.
        let bindings = self.manifest.columns.modalities.values();
        let bound: BTreeSet<&str> = bindings.flat_map(ColumnBinding::columns).map(String::as_str).collect();
        let columns: BTreeSet<&str> = rows.iter().flat_map(|row| row.cells.columns()).collect();
        let modalities: BTreeSet<&Modality> = rows.iter().flat_map(|row| row.values.iter().map(|(m, _)| m)).collect();
        let columns = columns.difference(&bound).map(|column| Aspect::Column((*column).to_owned()));
        let values = modalities.into_iter().map(|modality| Aspect::Values(modality.clone()));
        [Aspect::Rows, Aspect::Labels].into_iter().chain(columns).chain(values).collect()
    }

    fn hash(&self, aspect: &Aspect) -> String {
        let mut hasher = blake3::Hasher::new();
        for hash in self.row_hashes(aspect) {
            hasher.update(&hash.to_le_bytes());
        }
        hasher.finalize().to_hex().to_string()
    }

    fn row_hashes(&self, aspect: &Aspect) -> Vec<u64> {
        let hash = |(index, row): (usize, &Row)| {
            let mut hasher = blake3::Hasher::new();
            match aspect {
                Aspect::Rows => {
                    let Row { number, id, item, split, order, .. } = row;
                    add(&mut hasher, &format!("{number}\0{id}\0{item}\0{split}\0{}", order.to_bits()));
                }
                Aspect::Labels => add(&mut hasher, &format!("{:?}", row.label)),
                Aspect::Column(column) => match row.cells.get(column) {
                    Some(text) => add(&mut hasher, text),
                    None => add(&mut hasher, &format!("\0{:?}", row.cells.value(column))),
                },
                Aspect::Values(modality) => {
                    let with_size = index.is_multiple_of(self.size_step);
                    let values = row.values.get(modality).map_or(&[][..], Vec::as_slice);
                    values.iter().for_each(|value| add(&mut hasher, &described(value, with_size)));
                }
            }
            let hash = hasher.finalize();
            hash.as_bytes().iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte))
        };
        self.manifest.rows.par_iter().enumerate().map(hash).collect()
    }
}

/// Hashes a text, in such a way that two texts are not one.
fn add(hasher: &mut blake3::Hasher, text: &str) {
    hasher.update(&text.len().to_le_bytes());
    hasher.update(text.as_bytes());
}

/// A value as it is compared: of a file its name, which hosts may have in different folders, and its size.
fn described(value: &Source, with_size: bool) -> String {
    match value {
        Source::Text(text) => text.clone(),
        Source::Path(path) if is_remote(path) => path.display().to_string(),
        Source::Path(path) => format!("{:?} {:?}", path.file_name(), with_size.then(|| size(path))),
        Source::Bytes(file) => format!("{file:?}"),
        other => other.json().map(|json| json.to_string()).unwrap_or_default(),
    }
}

/// The size of a file; `None` where there is no such file.
fn size(path: &Path) -> Option<u64> {
    path.metadata().ok().map(|metadata| metadata.len())
}
