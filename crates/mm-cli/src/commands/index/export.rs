//! `mm index export`.

mod format;

use super::print;
use crate::{
    args::{output_path::local_path, store::StoreArgs},
    context::Context,
    exit::usage,
    output,
    progress::ItemProgress,
};
use anyhow::{Context as _, Result, bail};
use format::Format;
use mm_index::{Filter, Row, Store, Vectors};
use mm_tasks::{
    embedding::rows_file,
    indexing::{ArrayWriter, FieldTypes, OutputFile, ParquetRows, VectorFolder, replace_together},
};
use serde_json::json;
use std::{
    collections::HashSet,
    io::Write as _,
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
    /// .npy (vectors; the rows are in .rows.jsonl next to it), or a name without the extension of a file format: a folder
    /// of arrays (`img_emb`, `text_emb`) and a table (`metadata`) with the names of clip-retrieval.
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
    let written = match Format::of(out)? {
        Format::Rows => all(write_rows(store.as_ref(), arguments)?),
        Format::Parquet => all(write_parquet(store.as_ref(), arguments)?),
        Format::Array => write_vectors(store.as_ref(), arguments)?,
        Format::Folder => write_folder(store.as_ref(), arguments)?,
    };
    let Written { rows, left_out } = written;
    print(context, json!({"out": output::path(out), "rows": rows, "left_out": left_out}), || {
        let lacking =
            if left_out == 0 { String::new() } else { format!(" ({left_out} lack a vector and are left out)") };
        format!("{}: {rows} rows{lacking}", out.display())
    });
    Ok(())
}

/// Calls `each` with the rows of a store that meet the filter; returns how many. A row that is replaced in the meantime
/// comes once more with its new values, which is an error.
fn for_each_row(store: &dyn Store, filter: Option<&str>, mut each: impl FnMut(Row) -> Result<()>) -> Result<usize> {
    let selected: Option<HashSet<String>> = match filter {
        Some(text) => Some(store.select(&Filter::parse(text)?, usize::MAX)?.into_iter().collect()),
        None => None,
    };
    let total = store.stats()?.rows;
    let mut progress = ItemProgress::new();
    let (mut cursor, mut read, mut seen) = (None, 0, HashSet::new());
    loop {
        let page = store.page(cursor, PAGE)?;
        read += page.rows.len();
        for row in page.rows {
            if selected.as_ref().is_none_or(|ids| ids.contains(&row.id)) {
                if !seen.insert(hash(&row.id)) {
                    bail!(
                        "row `{}`: found it twice, expected it once: the store was written during the export; repeat it",
                        row.id
                    );
                }
                each(row)?;
            }
        }
        progress.update("exporting", read, total);
        cursor = page.next;
        if cursor.is_none() {
            progress.finish();
            return Ok(seen.len());
        }
    }
}

/// Stands for an id: there may be many rows.
fn hash(id: &str) -> [u8; 16] {
    let mut short = [0; 16];
    short.copy_from_slice(&blake3::hash(id.as_bytes()).as_bytes()[..16]);
    short
}

/// Writes a file, which replaces another one when it is complete.
fn replace<T>(out: &Path, write: impl FnOnce(&mut OutputFile) -> Result<T>) -> Result<T> {
    let mut file = OutputFile::create(out)?;
    let result = write(&mut file)?;
    file.complete()?.persist()?;
    Ok(result)
}

/// What is added to the error of a write.
fn unwritten(out: &Path) -> String {
    format!("{}: cannot be written", out.display())
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
            writeln!(file, "{line}").with_context(|| unwritten(&arguments.out))
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
    let (fields, _) = field_types(store, filter, &[])?;
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
    let (out, described) = (&arguments.out, rows_file(&arguments.out));
    let mut array = ArrayWriter::new(OutputFile::create(out)?, dim).with_context(|| unwritten(out))?;
    let (mut lines, mut left_out) = (OutputFile::create(&described)?, 0);
    for_each_row(store, arguments.filter.as_deref(), |row| {
        let vectors: Vec<&[f32]> = row.vectors.get(name).into_iter().flat_map(Vectors::iter).collect();
        left_out += usize::from(vectors.is_empty());
        for (value, vector) in vectors.iter().enumerate() {
            array.add(vector).with_context(|| unwritten(out))?;
            let mut line = json!({"id": row.id, "row": array.count(), "modality": name, "value": value});
            if value == 0 {
                line["text"] = json!(row.text);
                line["payload"] = json!(row.payload);
            }
            writeln!(lines, "{line}").with_context(|| unwritten(&described))?;
        }
        Ok(())
    })?;
    let rows = array.count();
    if rows == 0 {
        return Err(no_vectors(arguments, std::slice::from_ref(name)));
    }
    let array = array.finish().with_context(|| unwritten(out))?.complete()?;
    // Without its rows, an array is incomplete: rows and vectors of two exports are not taken for one.
    replace_together(vec![array], lines.complete()?)?;
    Ok(Written { rows, left_out })
}

/// The error of an export without a vector, which would be a file or folder that cannot be imported.
fn no_vectors(arguments: &Export, names: &[String]) -> anyhow::Error {
    let (out, names) = (arguments.out.display(), names.join(" and "));
    anyhow::anyhow!("--out {out}: found no row with a vector of {names}, expected at least one; nothing was written")
}

/// Writes the rows that have a vector of each modality as arrays and a table.
fn write_folder(store: &dyn Store, arguments: &Export) -> Result<Written> {
    let names: Vec<String> = match &arguments.modality {
        Some(name) => vec![name.clone()],
        None => store.config().vectors.keys().cloned().collect(),
    };
    VectorFolder::check(store.config(), &names)?;
    let filter = arguments.filter.as_deref();
    let (fields, complete) = field_types(store, filter, &names)?;
    if complete == 0 {
        return Err(no_vectors(arguments, &names));
    }
    let mut folder = VectorFolder::create(&arguments.out, store.config(), &names, &fields)?;
    let mut left_out = 0;
    for_each_row(store, filter, |row| {
        left_out += usize::from(!folder.add(row)?);
        Ok(())
    })?;
    Ok(Written { rows: folder.finish()?, left_out })
}

/// The types of the fields of the rows that meet the filter, and how many of these have all vectors of these names.
fn field_types(store: &dyn Store, filter: Option<&str>, names: &[String]) -> Result<(FieldTypes, usize)> {
    let (mut fields, mut complete) = (FieldTypes::default(), 0);
    for_each_row(store, filter, |row| {
        fields.add(&row.payload);
        let has = |name: &String| row.vectors.get(name).is_some_and(|vectors| vectors.iter().next().is_some());
        complete += usize::from(names.iter().all(has));
        Ok(())
    })?;
    Ok((fields, complete))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm_index::{StoreConfig, VectorConfig};

    #[test]
    fn a_row_that_is_replaced_during_an_export_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let config = StoreConfig::new("image", VectorConfig::cosine(2));
        let store = mm_index::create(&folder.path().join("store"), &config).unwrap();
        // More than are read at once, so that a row that is replaced comes again.
        let rows: Vec<Row> = (0..=PAGE).map(|number| Row::new(number.to_string())).collect();
        store.upsert(&rows).unwrap();
        assert_eq!(for_each_row(store.as_ref(), None, |_| Ok(())).unwrap(), PAGE + 1);
        let write = |row: Row| -> Result<()> {
            if row.id == "0" && row.text.is_none() {
                store.upsert(&[Row { text: Some("new".into()), ..row }])?;
            }
            Ok(())
        };
        let message = for_each_row(store.as_ref(), None, write).unwrap_err().to_string();
        assert!(message.contains("row `0`: found it twice") && message.contains("repeat it"), "{message}");
        // The same export once more.
        assert_eq!(for_each_row(store.as_ref(), None, |_| Ok(())).unwrap(), PAGE + 1);
    }
}
