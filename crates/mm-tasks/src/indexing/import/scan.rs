//! The first reading of files of vectors: what does not fit together is found before anything is written.

use super::{
    BATCH, ImportOptions, ImportedVector, PayloadColumns, record::Record, records::for_each_record, source::Part,
};
use crate::{Error, Result};
use mm_index::Payload;
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::atomic::{AtomicBool, Ordering},
};

/// 16 bytes of a hash instead of a text: there may be many rows.
type Hash = [u8; 16];

/// What is known of the files that were read.
pub(super) struct Scan<'a> {
    parts: &'a [Part],
    options: &'a ImportOptions,
    stop: &'a AtomicBool,
    pub(super) columns: PayloadColumns,
    /// Vectors by name.
    pub(super) vectors: BTreeMap<String, ImportedVector>,
    /// The first row with a vector of zeros, by name.
    pub(super) zeros: BTreeMap<String, String>,
    /// Number of rows.
    pub(super) rows: usize,
    /// Whether some rows are named by their number.
    pub(super) has_numbers: bool,
    /// Of several parts: which of them has the vector of an id and a name.
    seen: HashMap<Hash, u32>,
}

impl<'a> Scan<'a> {
    /// Reads all parts.
    pub(super) fn of(
        parts: &'a [Part],
        options: &'a ImportOptions,
        stop: &'a AtomicBool,
        on_progress: &mut dyn FnMut(usize),
    ) -> Result<Self> {
        let mut scan = Self {
            parts,
            options,
            stop,
            columns: PayloadColumns::default(),
            vectors: BTreeMap::new(),
            zeros: BTreeMap::new(),
            rows: 0,
            has_numbers: false,
            seen: HashMap::new(),
        };
        (0..parts.len()).try_for_each(|index| scan.read(index, on_progress))?;
        Ok(scan)
    }

    /// Takes a part into account.
    fn read(&mut self, index: usize, on_progress: &mut dyn FnMut(usize)) -> Result<()> {
        let (parts, options, stop) = (self.parts, self.options, self.stop);
        let part = &parts[index];
        let (mut ids, mut texts) = (HashSet::new(), Vec::new());
        for_each_record(part, options, &mut |record| {
            if stop.load(Ordering::Relaxed) {
                let what = "reading the files".into();
                return Err(Error::Stopped { what, done: index, total: parts.len(), hint: "nothing was written" });
            }
            if !ids.insert(hash(&record.id, "")) {
                let reason = format!("found the id `{}` in two places, expected one row for each id", record.id);
                return Err(Error::file(part.path(), format!("{reason}; another column may hold them (--id)")));
            }
            self.add_vectors(part, &record)?;
            self.check_once(index, &record)?;
            self.has_numbers |= record.is_numbered;
            let payload = if record.is_typed { Payload::new() } else { record.payload };
            texts.extend(payload.into_iter().filter_map(|(column, value)| match value {
                Value::String(text) => Some((column, text)),
                _ => None,
            }));
            self.rows += 1;
            if self.rows.is_multiple_of(BATCH) {
                self.infer_columns(&mut texts);
                on_progress(self.rows);
            }
            Ok(())
        })?;
        self.infer_columns(&mut texts);
        Ok(())
    }

    fn infer_columns(&mut self, texts: &mut Vec<(String, String)>) {
        let cells = texts.iter().map(|(column, text)| (column.as_str(), text.as_str()));
        self.columns.join(PayloadColumns::infer_cells(cells));
        texts.clear();
    }

    /// Refuses vectors that another part has too: one of them would be lost.
    fn check_once(&mut self, index: usize, record: &Record) -> Result<()> {
        if self.parts.len() == 1 {
            return Ok(());
        }
        let names: BTreeSet<&String> = record.vectors.iter().map(|(name, _)| name).collect();
        for name in names {
            let Some(first) = self.seen.insert(hash(&record.id, name), index as u32) else { continue };
            let (id, first) = (&record.id, self.parts[first as usize].path().display());
            let reason = format!("found {name} of row `{id}`, which {first} has too, expected it in one of them");
            let hint = "rows without ids are named by their file and numbered: give them ids, by .rows.jsonl next to an \
                array, --metadata or --id, or import the files one by one, each with an --id-prefix";
            return Err(Error::file(self.parts[index].path(), format!("{reason}; {hint}")));
        }
        Ok(())
    }

    fn add_vectors(&mut self, part: &Part, record: &Record) -> Result<()> {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for (name, vector) in &record.vectors {
            let refused = |reason: String| Err(Error::file(part.path(), format!("row `{}`: {reason}", record.id)));
            if let Some(value) = vector.iter().find(|value| !value.is_finite()) {
                return refused(format!("found {value} in {name}, expected finite numbers"));
            }
            if vector.iter().all(|value| *value == 0.0) {
                self.zeros.entry(name.clone()).or_insert_with(|| record.id.clone());
            }
            let new = ImportedVector { dim: vector.len(), multi: false, model: None, of_unknown: false };
            let known = self.vectors.entry(name.clone()).or_insert(new);
            match (part.model(), &known.model) {
                (None, _) => known.of_unknown = true,
                (Some(model), None) => known.model = Some(model.to_owned()),
                (Some(model), Some(other)) if model != other => {
                    return refused(format!(
                        "found {name} of a model of fingerprint {model:.12}, expected {other:.12} as in the files before"
                    ));
                }
                _ => {}
            }
            if known.dim != vector.len() {
                return refused(format!("found {} values of {name}, expected {}", vector.len(), known.dim));
            }
            let count = counts.entry(name).or_default();
            *count += 1;
            known.multi |= *count > 1;
        }
        Ok(())
    }
}

/// Stands for an id and the name of a vector.
fn hash(id: &str, name: &str) -> Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(id.as_bytes()).update(b"\0").update(name.as_bytes());
    hasher.finalize().as_bytes()[..16].try_into().unwrap_or_default()
}
