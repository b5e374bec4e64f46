//! `mm index import`.

use super::{build::QuantizationArgs, bytes, optimize::extend_graphs, print};
use crate::{
    args::{
        dtype::DtypeArgs,
        embedder::LoadedEmbedder,
        model::locate,
        store::{StoreArgs, model_name},
    },
    context::{Context, stop_on_interrupt},
    exit::usage,
    output,
    progress::ItemProgress,
};
use anyhow::Result;
use mm_index::{Model, StoreConfig};
use mm_tasks::indexing::{Import, ImportOptions};
use serde_json::json;
use std::path::PathBuf;

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  mm index import embeddings --store photos.index --model openai/clip-vit-base-patch32\n  mm index import images.npy texts.npy --store photos.index\n  mm index import photos.parquet --modality image --store copy.index\n  mm index import more/emb.npy --modality image --id-prefix more/ --store photos.index"
)]
pub(super) struct ImportArgs {
    /// Arrays (.npy, described by .rows.jsonl next to them or by --metadata), tables with a column `embedding` (.parquet,
    /// .jsonl), or a folder with img_emb, text_emb and metadata as `mm embed --shards` and clip-retrieval write it.
    /// Files with the same ids add to the same rows.
    #[arg(value_name = "FILE|FOLDER", required = true)]
    sources: Vec<PathBuf>,
    #[command(flatten)]
    store: StoreArgs,
    /// Name of the vectors, where the files do not say it.
    #[arg(long, value_name = "NAME")]
    modality: Option<String>,
    /// Column of ids [default: id, key, image_path or path, else the name of the file and the number of the row: emb_0/1
    /// is the first of emb_0.npy].
    #[arg(long, value_name = "COLUMN")]
    id: Option<String>,
    /// What the ids of rows without an id column begin with, before the number of the row [default: the name of the
    /// file, such as emb_0/].
    #[arg(long, value_name = "TEXT")]
    id_prefix: Option<String>,
    /// Replace the vectors of rows without an id column where the store has other vectors of the same ids, which is an
    /// error otherwise.
    #[arg(long)]
    replace: bool,
    /// Table that describes the rows of the array: JSONL, CSV, TSV or Parquet.
    #[arg(long, value_name = "FILE")]
    metadata: Option<PathBuf>,
    /// Model that made the vectors: recorded in a new store, by which `mm search` embeds its queries, and compared with the
    /// one that a store records [default: that of a folder of `mm embed --shards`].
    #[arg(long, value_name = "MODEL")]
    model: Option<PathBuf>,
    #[command(flatten)]
    dtype: DtypeArgs,
    #[command(flatten)]
    quantization: QuantizationArgs,
}

pub(super) fn import(arguments: &ImportArgs, context: &Context) -> Result<()> {
    let stop = stop_on_interrupt("this batch")?;
    let mut progress = ItemProgress::new();
    let started = std::time::Instant::now();
    let options = ImportOptions {
        modality: arguments.modality.clone(),
        id_column: arguments.id.clone(),
        id_prefix: arguments.id_prefix.clone(),
        replace: arguments.replace,
        metadata: arguments.metadata.clone(),
    };
    let on_progress = &mut |rows| progress.update("reading", rows, rows);
    let import = Import::open(&arguments.sources, options, &stop, on_progress)?;
    progress.finish();
    let model = model(arguments, &import, context)?;
    let location = &arguments.store.store;
    let store = if mm_index::exists(location)? {
        let store = mm_index::open(location)?;
        arguments.quantization.check(store.config())?;
        for name in import.vectors.keys() {
            model.as_ref().map_or(Ok(()), |model| store.config().check_model(name, model))?;
        }
        store
    } else {
        let config = import.store_config(arguments.quantization.get(), model.as_ref());
        import.check(&config)?;
        mm_index::create(location, &config)?
    };
    warn_of_unknown(&import, store.config(), model.is_some());
    let mut progress = ItemProgress::new();
    let on_progress = &mut |done, total| progress.update("importing", done, total);
    let summary = import.write(store.as_ref(), &stop, on_progress)?;
    progress.finish();
    let (stats, out) = (extend_graphs(store.as_ref(), &stop)?, arguments.store.shown());
    let json = json!({
        "out": output::path(&out), "rows": stats.rows, "added": summary.added, "changed": summary.changed,
        "missing": summary.missing, "bytes": stats.bytes, "seconds": started.elapsed().as_secs_f64(),
    });
    print(context, json, || {
        let missing = match summary.missing {
            0 => String::new(),
            count => format!("; {count} vectors are missing in the files"),
        };
        let (added, changed) = (summary.added, summary.changed);
        let (rows, size) = (stats.rows, bytes(stats.bytes));
        format!("{}: {rows} rows in {size} ({added} added, {changed} changed){missing}", out.display())
    });
    Ok(())
}

/// The model that is recorded; refused where the files say that another one made them.
fn model(arguments: &ImportArgs, import: &Import, context: &Context) -> Result<Option<Model>> {
    let Some(path) = &arguments.model else { return Ok(None) };
    let loaded = LoadedEmbedder::load(&locate(path)?, arguments.dtype.load_options(context)?, context)?;
    let fingerprint = loaded.embedder()?.fingerprint()?;
    let mut others = import.vectors.values().filter_map(|vector| vector.model.as_ref());
    if let Some(other) = others.find(|model| **model != fingerprint) {
        usage!(
            "--model {}: found fingerprint {fingerprint:.12}, the vectors were made by a model of fingerprint {other:.12}",
            path.display()
        );
    }
    Ok(Some(Model { name: model_name(path), fingerprint }))
}

/// Says of which vectors nobody knows whether they are of the model of the others.
fn warn_of_unknown(import: &Import, config: &StoreConfig, is_given: bool) {
    for (name, vector) in &import.vectors {
        let recorded = config.vectors.get(name).and_then(|vector| vector.model.as_ref());
        match recorded {
            None => output::warning(format!(
                "vectors `{name}`: the store records no model, so that vectors and queries of others are not refused; \
                 --model records it when the store is made"
            )),
            Some(model) if vector.of_unknown && !is_given => output::warning(format!(
                "vectors `{name}`: found files that do not say which model made them, expected those of {}; --model \
                 compares it",
                model.name
            )),
            Some(_) => {}
        }
    }
}
