//! `mm index build` and `mm index add`.

use super::{bytes, optimize::extend_graphs, print};
use crate::{
    args::{
        batch::OnError,
        columns::TableArgs,
        dtype::DtypeArgs,
        embedder::LoadedEmbedder,
        model::{ModelArgs, locate},
        store::{StoreArgs, model_name},
    },
    commands::embed::Truncated,
    context::{Context, stop_on_interrupt},
    exit::{interrupted, usage},
    output,
    progress::ItemProgress,
};
use anyhow::{Result, bail};
use mm_core::Modality;
use mm_index::{Quantization, Stats, Store, StoreConfig, VectorConfig};
use mm_repr::LoadOptions;
use mm_tasks::{
    embedding::{Embedder, FailedValue},
    indexing::{self, DataSource, IndexOptions, IndexSummary, UNNAMED_MODEL},
};
use serde_json::json;
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub(super) struct Build {
    #[command(flatten)]
    data: DataArgs,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    store: StoreArgs,
    #[command(flatten)]
    dtype: DtypeArgs,
    #[command(flatten)]
    quantization: QuantizationArgs,
    /// Keep rows that are no longer in the folder or manifest.
    #[arg(long)]
    keep_missing: bool,
}

#[derive(clap::Args)]
pub(super) struct Add {
    #[command(flatten)]
    data: DataArgs,
    #[command(flatten)]
    store: StoreArgs,
    /// The model, if it is not found under the name that the store records.
    #[arg(long, value_name = "MODEL")]
    model: Option<PathBuf>,
    #[command(flatten)]
    dtype: DtypeArgs,
}

/// Arguments that select what is indexed.
#[derive(clap::Args)]
struct DataArgs {
    /// Folder of images, audio, video and text files, or a manifest (JSONL, CSV, TSV or Parquet).
    #[arg(value_name = "FOLDER|MANIFEST")]
    source: PathBuf,
    /// Modality to embed, others stay as they are; may be repeated [default: all that the model takes].
    #[arg(long, value_name = "NAME")]
    modality: Vec<String>,
    /// What to do with a value that cannot be read: skip (its row has no vector of it and is tried again by the next
    /// call) or fail.
    #[arg(long, value_name = "POLICY", value_enum, default_value = "skip")]
    on_error: OnError,
    /// Replace rows of another folder or manifest that have the same ids, which are an error otherwise; they belong to
    /// this one then.
    #[arg(long)]
    replace: bool,
    #[command(flatten)]
    table: TableArgs,
}

/// How the graphs of a new store hold their vectors.
#[derive(clap::Args)]
pub(super) struct QuantizationArgs {
    /// Type of the vectors in the graphs of a new store: f16, or i8 (half the memory; results are still ranked by the
    /// f16 vectors of the rows) [default: f16].
    #[arg(long, value_enum, value_name = "TYPE")]
    quantization: Option<QuantizationArg>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum QuantizationArg {
    F16,
    I8,
}

impl QuantizationArgs {
    pub(super) fn get(&self) -> Quantization {
        match self.quantization {
            None | Some(QuantizationArg::F16) => Quantization::F16,
            Some(QuantizationArg::I8) => Quantization::I8,
        }
    }

    /// Refuses another type than that of a store that is there already.
    pub(super) fn check(&self, config: &StoreConfig) -> Result<()> {
        let differs = |vector: &&VectorConfig| vector.quantization != self.get();
        if self.quantization.is_some() && config.vectors.values().any(|vector| differs(&vector)) {
            usage!("--quantization: the store is there already, with another type; make a new store to choose one");
        }
        Ok(())
    }
}

impl DataArgs {
    fn open(&self) -> Result<DataSource> {
        if self.source.is_dir() {
            let TableArgs { column, cells } = &self.table;
            if !column.is_empty() || cells.is_given() {
                usage!(
                    "--column, --encoding, --missing-values, --fetch-urls: say how a manifest is read; {} is a folder",
                    self.source.display()
                );
            }
            return Ok(DataSource::from_folder(&self.source)?);
        }
        if !self.source.exists() && !self.source.to_string_lossy().contains("://") {
            bail!("{}: no such file or folder, expected a folder or a manifest", self.source.display());
        }
        Ok(DataSource::from_manifest(&self.table.config(&self.source, &[]))?)
    }

    fn modalities(&self) -> Vec<Modality> {
        self.modality.iter().map(|m| Modality::from(m.as_str())).collect()
    }
}

pub(super) fn build(arguments: &Build, context: &Context) -> Result<()> {
    let data = arguments.data.open()?;
    let model = LoadedEmbedder::load(&arguments.model.dir()?, arguments.dtype.load_options(context)?, context)?;
    let model = model.embedder()?;
    let folder = &arguments.store.store;
    let store = if mm_index::exists(folder)? {
        let store = mm_index::open(folder)?;
        arguments.quantization.check(store.config())?;
        store
    } else {
        let modalities = indexing::common_modalities(model, &data.manifest, &arguments.data.modalities())?;
        let quantization = arguments.quantization.get();
        let name = model_name(arguments.model.path());
        let config = indexing::store_config(model, &name, &data.manifest, &modalities, quantization)?;
        mm_index::create(folder, &config)?
    };
    let options = IndexOptions { delete_missing: !arguments.keep_missing, ..options(&arguments.data) };
    update(store.as_ref(), model, &data, &options, &arguments.store.shown(), context)
}

pub(super) fn add(arguments: &Add, context: &Context) -> Result<()> {
    let store = arguments.store.open()?;
    let model =
        load_model_of(store.as_ref(), arguments.model.as_deref(), arguments.dtype.load_options(context)?, context)?;
    let data = arguments.data.open()?;
    let options = options(&arguments.data);
    update(store.as_ref(), model.embedder()?, &data, &options, &arguments.store.shown(), context)
}

/// The model of a store's vectors, found under another name where one is given.
pub(in crate::commands) fn load_model_of(
    store: &dyn Store,
    given: Option<&Path>,
    options: LoadOptions,
    context: &Context,
) -> Result<LoadedEmbedder> {
    let stored = store.config().vectors.values().find_map(|vector| vector.model.as_ref());
    let name = stored.map(|model| model.name.as_str()).filter(|name| *name != UNNAMED_MODEL);
    let Some(name) = given.or(name.map(Path::new)) else {
        bail!("--model: this store does not name the model that made its vectors; give the model");
    };
    LoadedEmbedder::load(&locate(name)?, options, context)
}

fn options(data: &DataArgs) -> IndexOptions {
    IndexOptions {
        modalities: data.modalities(),
        fail_on_error: data.on_error == OnError::Fail,
        delete_missing: false,
        replace: data.replace,
    }
}

/// Brings a store up to date, and extends its graphs where many rows are not in them yet.
fn update(
    store: &dyn Store,
    model: &dyn Embedder,
    data: &DataSource,
    options: &IndexOptions,
    folder: &Path,
    context: &Context,
) -> Result<()> {
    let stop = stop_on_interrupt("this batch")?;
    let mut progress = ItemProgress::new();
    let started = std::time::Instant::now();
    let truncated = Truncated::count(model);
    let on_progress = &mut |done, total| progress.update("embedding", done, total);
    let summary = indexing::update(store, model, data, options, &stop, on_progress)?;
    progress.finish();
    let failures = summary.failed.iter().map(|f| format!("{}: {}: {}", f.id, f.modality, f.reason));
    output::warnings(failures.collect::<Vec<_>>().iter());
    truncated.warn_since(model);
    if summary.stopped {
        let stored = summary.added + summary.changed;
        interrupted!("{stored} rows are stored; the same command continues from there");
    }
    let stats = extend_graphs(store, &stop)?;
    report(&stats, &summary, folder, started.elapsed().as_secs_f64(), context);
    Ok(())
}

fn report(stats: &Stats, summary: &IndexSummary, folder: &Path, seconds: f64, context: &Context) {
    let IndexSummary { added, changed, unchanged, deleted, without_vectors, failed, .. } = summary;
    let example = |v: &FailedValue| json!({"row": v.id, "modality": v.modality, "reason": v.reason});
    let json = json!({
        "out": output::path(folder), "rows": stats.rows, "added": added, "changed": changed, "unchanged": unchanged,
        "deleted": deleted, "without_vectors": without_vectors, "bytes": stats.bytes, "seconds": seconds,
        "failed": {"count": failed.len(), "examples": failed.iter().take(20).map(example).collect::<Vec<_>>()},
    });
    print(context, json, || {
        let none = match without_vectors {
            0 => String::new(),
            count => format!("; {count} rows have no vector: --words and --filter alone find them"),
        };
        let failed = if failed.is_empty() {
            String::new()
        } else {
            format!("; {} values could not be read, the same command tries them again", failed.len())
        };
        format!(
            "{}: {} rows in {} ({added} added, {changed} changed, {unchanged} unchanged, {deleted} deleted){none}{failed}",
            folder.display(),
            stats.rows,
            bytes(stats.bytes)
        )
    });
}
