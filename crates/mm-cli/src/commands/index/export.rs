//! `mm index export`.

use super::print;
use crate::{
    args::{output_path::local_path, store::StoreArgs},
    context::Context,
    exit::usage,
    output,
    progress::ItemProgress,
};
use anyhow::{Context as _, Result};
use mm_index::{Filter, Row, Store, Vectors};
use mm_tasks::{
    embedding::{rows_file, with_suffix},
    indexing::{ArrayWriter, FieldTypes, ParquetRows, VectorFolder},
};
use serde_json::json;
use std::{
    collections::HashSet,
    fs::File,
    io::{BufWriter, Write as _},
    path::{Path, PathBuf},
};

/// Rows that are read at once.
const PAGE: usize = 1000;

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  mm index export --store photos.index --modality image --out photos.parquet\n  mm index export --store photos.index --out photos-vectors\n  mm index export --store photos.index --filter 'year > 2000' --out recent.jsonl"
)]
pub(super) struct Export {
    #[command(flatten)]
    store: StoreArgs,
    /// File or folder to write: .jsonl or .parquet (id, payload and text of each row, and its vectors with --modality),
    /// .npy (vectors; the rows are in .rows.jsonl next to it), or a name without extension: a folder of arrays
    /// (`img_emb`, `text_emb`) and a table (`metadata`) with the names of clip-retrieval.
    #[arg(long, value_name = "FILE|FOLDER", value_parser = local_path())]
    out: PathBuf,
    /// Modality whose vectors are written; needed for .npy, and for files that `mm index import` is to read. A folder has
    /// those of all modalities without it.
    #[arg(long, value_name = "NAME")]
    modality: Option<String>,
    /// Only the rows that meet this condition.
    #[arg(long, value_name = "CONDITION")]
    filter: Option<String>,
}

/// Numbers of rows, or of vectors in an array.
struct Written {
    rows: usize,
    /// Rows that lack a vector of an array.
    left_out: usize,
}

pub(super) fn export(arguments: &Export, context: &Context) -> Result<()> {
    let store = arguments.store.open()?;
    let out = &arguments.out;
    let all = |rows| Written { rows, left_out: 0 };
    let written = match out.extension().and_then(|e| e.to_str()) {
        Some("jsonl") => all(write_rows(store.as_ref(), arguments)?),
        Some("parquet") => all(write_parquet(store.as_ref(), arguments)?),
        Some("npy") => write_vectors(store.as_ref(), arguments)?,
        _ if out.extension().is_none() || out.is_dir() => write_folder(store.as_ref(), arguments)?,
        _ => usage!(
            "--out {}: expected a file name that ends in .jsonl, .parquet or .npy, or the name of a folder, without extension",
            out.display()
        ),
    };
    let Written { rows, left_out } = written;
    print(context, json!({"out": output::path(out), "rows": rows, "left_out": left_out}), || {
        let lacking =
            if left_out == 0 { String::new() } else { format!(" ({left_out} lack a vector and are left out)") };
        format!("{}: {rows} rows{lacking}", out.display())
    });
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
        // Other errors name what they are about, and those of a file within this one its path.
        let is_of_file = error.is::<std::io::Error>() && error.chain().count() == 1;
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
    let fields = field_types(store, filter)?;
    replace(&arguments.out, |file| {
        let mut rows = ParquetRows::new(file, &fields, vector.as_ref().map(|(name, _)| name.as_str()))?;
        let count = for_each_row(store, filter, |row| Ok(rows.add(row)?))?;
        rows.finish()?;
        Ok(count)
    })
}

/// Writes the vectors of a modality as an array, and the rows next to it: as `mm embed` does, and with the text and the
/// fields of a row where its first vector is.
fn write_vectors(store: &dyn Store, arguments: &Export) -> Result<Written> {
    let Some(name) = &arguments.modality else {
        usage!("--modality: not given, expected the modality whose vectors go into {}", arguments.out.display());
    };
    let dim = store.config().vector(name)?.dim;
    let mut left_out = 0;
    let rows = replace(&arguments.out, |file| {
        let mut array = ArrayWriter::new(file, dim)?;
        replace(&rows_file(&arguments.out), |lines| {
            for_each_row(store, arguments.filter.as_deref(), |row| {
                let vectors: Vec<&[f32]> = row.vectors.get(name).into_iter().flat_map(Vectors::iter).collect();
                left_out += usize::from(vectors.is_empty());
                for (value, vector) in vectors.iter().enumerate() {
                    array.add(vector).with_context(|| format!("{}: cannot be written", arguments.out.display()))?;
                    let mut line = json!({"id": row.id, "row": array.count(), "modality": name, "value": value});
                    if value == 0 {
                        line["text"] = json!(row.text);
                        line["payload"] = json!(row.payload);
                    }
                    writeln!(lines, "{line}")?;
                }
                Ok(())
            })
        })?;
        let count = array.count();
        array.finish()?;
        Ok(count)
    })?;
    Ok(Written { rows, left_out })
}

/// Writes the rows that have a vector of each modality as arrays and a table.
fn write_folder(store: &dyn Store, arguments: &Export) -> Result<Written> {
    let names: Vec<String> = match &arguments.modality {
        Some(name) => vec![name.clone()],
        None => store.config().vectors.keys().cloned().collect(),
    };
    let filter = arguments.filter.as_deref();
    let fields = field_types(store, filter)?;
    let mut folder = VectorFolder::create(&arguments.out, store.config(), &names, &fields)?;
    let mut left_out = 0;
    for_each_row(store, filter, |row| {
        left_out += usize::from(!folder.add(row)?);
        Ok(())
    })?;
    Ok(Written { rows: folder.finish()?, left_out })
}

/// The types of the fields of the rows that meet the filter.
fn field_types(store: &dyn Store, filter: Option<&str>) -> Result<FieldTypes> {
    let mut fields = FieldTypes::default();
    for_each_row(store, filter, |row| {
        fields.add(&row.payload);
        Ok(())
    })?;
    Ok(fields)
}
