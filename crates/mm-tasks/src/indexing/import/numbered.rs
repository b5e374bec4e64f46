//! Rows without ids, which are named by their file and numbered: those of two files of the same name must not be taken
//! for the same rows.

use super::{BATCH, Import, record::Record, records::for_each_record, source::Part};
use crate::{Error, Result};
use mm_index::{Distance, Row, Store};
use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
};

impl Import {
    /// Refuses rows without ids where the store has other vectors of them already. The same vectors are those of an
    /// earlier call of the same import. Reads the files once more, where there are such rows and the store is not empty.
    pub(super) fn check_numbered(&self, store: &dyn Store, stop: &AtomicBool) -> Result<()> {
        if !self.has_numbers || store.page(None, 1)?.rows.is_empty() {
            return Ok(());
        }
        let mut done = 0;
        for part in &self.parts {
            let mut batch = Vec::with_capacity(BATCH);
            for_each_record(part, &self.options, &mut |record| {
                if stop.load(Ordering::Relaxed) {
                    let what = "comparing the files with the store".into();
                    return Err(Error::Stopped { what, done, total: self.rows, hint: "nothing was written" });
                }
                done += 1;
                batch.extend(Some(record).filter(|record| record.is_numbered));
                if batch.len() == BATCH { check_batch(part, &mut batch, store) } else { Ok(()) }
            })?;
            check_batch(part, &mut batch, store)?;
        }
        Ok(())
    }
}

/// Compares rows with those of the store that have their ids.
fn check_batch(part: &Part, batch: &mut Vec<Record>, store: &dyn Store) -> Result<()> {
    let ids: Vec<&str> = batch.iter().map(|record| record.id.as_str()).collect();
    for (record, known) in batch.iter().zip(store.get(&ids)?) {
        let Some(known) = known else { continue };
        if let Some(name) = differing(record, &known, store)? {
            let reason = format!("found {name} of row `{}`, of which the store has another vector", record.id);
            let expected = "rows that it does not have: rows without ids are named by their file and numbered; give those of \
                this file another --id-prefix, or replace those of the store (--replace)";
            return Err(Error::file(part.path(), format!("{reason}, expected {expected}")));
        }
    }
    batch.clear();
    Ok(())
}

/// The name of vectors that a stored row has as well, but others.
fn differing<'r>(record: &'r Record, known: &Row, store: &dyn Store) -> Result<Option<&'r str>> {
    let mut by_name: BTreeMap<&str, Vec<&[f32]>> = BTreeMap::new();
    for (name, vector) in &record.vectors {
        by_name.entry(name).or_default().push(vector);
    }
    for (name, vectors) in by_name {
        let Some(stored) = known.vectors.get(name) else { continue };
        let is_cosine = store.config().vector(name)?.distance == Distance::Cosine;
        let stored: Vec<&[f32]> = stored.iter().collect();
        let mut pairs = stored.iter().zip(&vectors);
        if stored.len() != vectors.len() || !pairs.all(|(stored, vector)| is_stored_as(stored, vector, is_cosine)) {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

/// Whether a vector is stored as this one: at unit length for cosine, and rounded to 16 bits.
fn is_stored_as(stored: &[f32], vector: &[f32], is_cosine: bool) -> bool {
    // One unit in the last of the 11 bits of a 16-bit float, and the smallest one.
    const RELATIVE: f64 = 1.0 / 1024.0;
    const SMALLEST: f64 = 1.0 / 16_777_216.0;
    let length = vector.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
    let length = if is_cosine && length > 0.0 { length } else { 1.0 };
    let is_near = |(stored, value): (&f32, &f32)| {
        let value = f64::from(*value) / length;
        (f64::from(*stored) - value).abs() <= value.abs() * RELATIVE + SMALLEST
    };
    stored.len() == vector.len() && stored.iter().zip(vector).all(is_near)
}
