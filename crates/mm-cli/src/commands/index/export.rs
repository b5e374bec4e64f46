//! `mm index export`.

use super::print;
use crate::{
    args::{output_path::local_path, store::StoreArgs},
    context::Context,
    exit::usage,
    output,
    progress::ItemProgress,
};
use anyhow::Result;
use mm_index::{Filter, Row, Store, Vectors};
use mm_tasks::{
    embedding::{rows_file, with_suffix},
    indexing::{FieldTypes, ParquetRows},
};
use serde_json::json;
use std::{
    collections::HashSet,
    fs::File,
    io::{BufWriter, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
};

/// Rows that are read at once.
const PAGE: usize = 1000;

#[derive(clap::Args)]
pub(super) struct Export {
    #[command(flatten)]
    store: StoreArgs,
    /// File to write: .jsonl or .parquet (id, payload and text of each row, and its vectors with --modality) or .npy
    /// (vectors; their ids are in .rows.jsonl next to it).
    #[arg(long, value_name = "FILE", value_parser = local_path())]
    out: PathBuf,
    /// Modality whose vectors are written; needed for .npy, and for files that `mm index import` is to read.
    #[arg(long, value_name = "NAME")]
    modality: Option<String>,
    /// Only the rows that meet this condition.
    #[arg(long, value_name = "CONDITION")]
    filter: Option<String>,
}

pub(super) fn export(arguments: &Export, context: &Context) -> Result<()> {
    let store = arguments.store.open()?;
    let out = &arguments.out;
    let written = match out.extension().and_then(|e| e.to_str()) {
        Some("jsonl") => write_rows(store.as_ref(), arguments)?,
        Some("parquet") => write_parquet(store.as_ref(), arguments)?,
        Some("npy") => write_vectors(store.as_ref(), arguments)?,
        _ => usage!("--out {}: expected a file name that ends in .jsonl, .parquet or .npy", out.display()),
    };
    print(context, json!({"out": output::path(out), "rows": written}), || format!("{}: {written} rows", out.display()));
    Ok(())
}

/// Calls `each` with the rows of a store that meet the filter; returns how many.
fn for_each_row(store: &dyn Store, filter: Option<&str>, mut each: impl FnMut(Row) -> Result<()>) -> Result<usize> {
    let selected: Option<HashSet<String>> = match filter {
        Some(text) => Some(store.select(&Filter::parse(text)?, usize::MAX)?.into_iter().collect()),
        None => None,
    };
    let total = store.stats()?.rows;
    let mut progress = ItemProgress::new();
    let (mut cursor, mut read, mut count) = (None, 0, 0);
    loop {
        let page = store.page(cursor, PAGE)?;
        read += page.rows.len();
        for row in page.rows {
            if selected.as_ref().is_none_or(|ids| ids.contains(&row.id)) {
                each(row)?;
                count += 1;
            }
        }
        progress.update("exporting", read, total);
        cursor = page.next;
        if cursor.is_none() {
            progress.finish();
            return Ok(count);
        }
    }
}

/// Writes a temporary file next to `path`, flushes and renames it.
fn replace<T>(out: &Path, write: impl FnOnce(&mut BufWriter<File>) -> Result<T>) -> Result<T> {
    let partial = with_suffix(out, ".new");
    let run = || -> Result<T> {
        let mut file = BufWriter::new(File::create(&partial)?);
        let result = write(&mut file)?;
        file.into_inner()?.sync_all()?;
        std::fs::rename(&partial, out)?;
        Ok(result)
    };
    run().map_err(|error| {
        let _ = std::fs::remove_file(&partial);
        // Errors of the store and of the filter say themselves what they are about.
        let is_of_file = error.is::<std::io::Error>();
        if is_of_file { error.context(format!("{}: cannot be written", out.display())) } else { error }
    })
}

fn write_rows(store: &dyn Store, arguments: &Export) -> Result<usize> {
    let modality = arguments.modality.as_deref();
    if let Some(name) = modality {
        store.config().vector(name)?;
    }
    replace(&arguments.out, |file| {
        for_each_row(store, arguments.filter.as_deref(), |row| {
            let mut line = json!({"id": row.id, "payload": row.payload, "text": row.text});
            if let Some(name) = modality {
                line["embedding"] = json!(row.vectors.get(name));
            }
            Ok(writeln!(file, "{line}")?)
        })
    })
}

fn write_parquet(store: &dyn Store, arguments: &Export) -> Result<usize> {
    let vector = match &arguments.modality {
        Some(name) => Some((name.clone(), store.config().vector(name)?)),
        None => None,
    };
    if let Some((name, config)) = &vector
        && config.multi
    {
        usage!("--modality {name}: a row may have several of these vectors; expected .jsonl or .npy for them");
    }
    let filter = arguments.filter.as_deref();
    let mut fields = FieldTypes::default();
    for_each_row(store, filter, |row| {
        fields.add(&row.payload);
        Ok(())
    })?;
    replace(&arguments.out, |file| {
        let mut rows = ParquetRows::new(file, &fields, vector.as_ref().map(|(name, _)| name.as_str()))?;
        let count = for_each_row(store, filter, |row| Ok(rows.add(row)?))?;
        rows.finish()?;
        Ok(count)
    })
}

fn write_vectors(store: &dyn Store, arguments: &Export) -> Result<usize> {
    let Some(name) = &arguments.modality else {
        usage!("--modality: not given, expected the modality whose vectors go into {}", arguments.out.display());
    };
    let config = store.config().vector(name)?;
    let (dim, mut ids) = (config.dim, Vec::new());
    let header = |count: usize| mm_data::npy_header("<f4", &[count, dim]);
    // As long as the header of any number of rows that a store can hold: a header is padded to 64 bytes.
    let length = header(usize::MAX / dim.max(1)).len();
    let written = replace(&arguments.out, |file| {
        file.write_all(&vec![0; length])?;
        for_each_row(store, arguments.filter.as_deref(), |row| {
            let vectors: Vec<&[f32]> = row.vectors.get(name).into_iter().flat_map(Vectors::iter).collect();
            for (value, vector) in vectors.iter().enumerate() {
                ids.push((row.id.clone(), value));
                let bytes: Vec<u8> = vector.iter().flat_map(|v| v.to_le_bytes()).collect();
                file.write_all(&bytes)?;
            }
            Ok(())
        })?;
        let header = header(ids.len());
        anyhow::ensure!(header.len() == length, "the header of {} vectors has an unexpected length", ids.len());
        file.seek(SeekFrom::Start(0))?;
        file.write_all(&header)?;
        file.seek(SeekFrom::End(0))?;
        Ok(ids.len())
    })?;
    replace(&rows_file(&arguments.out), |file| {
        for (index, (id, value)) in ids.iter().enumerate() {
            writeln!(file, "{}", json!({"id": id, "row": index + 1, "modality": name, "value": value}))?;
        }
        Ok(())
    })?;
    Ok(written)
}
