//! `mm embed --shards`: many files, by many workers.

use super::{Arguments, warn_truncated};
use crate::{
    args::{
        batch::OnError,
        model::is_run,
        shards::{first_shard, refuse_failed, warn_failed, worker_json},
    },
    context::{Context, stop_on_interrupt},
    exit::usage,
    output,
    progress::ItemProgress,
};
use anyhow::{Result, bail};
use mm_core::{Modality, Pooling};
use mm_data::{ColumnInference, Manifest, existing_files};
use mm_tasks::embedding::{self, EmbedOptions, Embedder, ShardJob};
use serde_json::json;
use std::path::{Path, PathBuf};

pub(super) fn run(dir: &Path, shards: &Path, out: &Path, arguments: &Arguments, context: &Context) -> Result<()> {
    if arguments.keeps_positions() {
        usage!("--pooling none: gives a different number of vectors for each value, which an array cannot hold");
    }
    let files = existing_files(shards)?;
    if is_run(dir) {
        let run = arguments.load_run(dir, context)?;
        return embed(run.embedder()?, None, &files, out, arguments, context);
    }
    let model = arguments.load_checkpoint(dir, context)?;
    let result = embed(&model, arguments.pooling(&model), &files, out, arguments, context);
    warn_truncated(&model);
    result
}

fn embed(
    model: &dyn Embedder,
    pooling: Option<Pooling>,
    files: &[PathBuf],
    out: &Path,
    arguments: &Arguments,
    context: &Context,
) -> Result<()> {
    let dataset = &arguments.dataset;
    let wanted: Vec<Modality> = dataset.modality.iter().map(|m| Modality::from(m.as_str())).collect();
    let names: Vec<&str> = dataset.modality.iter().map(String::as_str).collect();
    let recognize = |column: &str, cells: &[&serde_json::Value]| context.modality_of_column(column, cells);
    let open = |file: &Path| {
        let inference =
            ColumnInference { modalities: (!names.is_empty()).then_some(&names), recognize: Some(&recognize) };
        Ok(Manifest::open_inferring(&dataset.table.config(file, &[]), Path::new(""), &inference)?)
    };
    let modalities = match embedding::embedded_modalities(out)? {
        _ if !wanted.is_empty() => wanted,
        of_others if !of_others.is_empty() => of_others,
        _ => modalities_of(model, &open(&files[0])?)?,
    };
    let options = EmbedOptions {
        modalities: modalities.clone(),
        pooling,
        normalize: arguments.normalize,
        fail_on_error: dataset.on_error == OnError::Fail,
    };
    let job = ShardJob {
        model,
        files,
        open: &open,
        modalities: &modalities,
        options: &options,
        table: &dataset.table.provenance(),
        first: first_shard(files.len()),
    };
    let stop = stop_on_interrupt("this batch")?;
    let mut progress = ItemProgress::new();
    let summary = job.run(out, &stop, &mut |done, total| progress.update("shards", done, total))?;
    progress.finish();
    let worker = &summary.worker;
    warn_failed(worker)?;
    if context.json {
        let mut line = worker_json(out, worker);
        let counts =
            [("vectors", summary.vectors), ("left_out", summary.left_out), ("further_values", summary.further_values)];
        line.extend(counts.map(|(name, count)| (name.to_owned(), json!(count))));
        output::line(serde_json::Value::Object(line));
    } else {
        let (out, shards, processed, vectors) = (out.display(), worker.shards, worker.processed, summary.vectors);
        output::line(format!(
            "{out}: {vectors} rows with vectors in {shards} shards, {processed} of them by this worker"
        ));
        if summary.left_out > 0 {
            output::line(format!(
                "{} rows lack a value that can be read and are left out; shards/*.json lists them",
                summary.left_out
            ));
        }
        if summary.further_values > 0 {
            output::line(format!("{} values after the first of their row were not embedded", summary.further_values));
        }
    }
    refuse_failed(worker)
}

/// The modalities that both the model and the first shard have.
fn modalities_of(model: &dyn Embedder, manifest: &Manifest) -> Result<Vec<Modality>> {
    let of_data = manifest.modalities();
    let both: Vec<Modality> = model.modalities().into_iter().filter(|m| of_data.contains(m)).collect();
    if both.is_empty() {
        let known = model.modalities().iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        bail!("{}: has no value of {known}; `mm inspect` shows what it has", manifest.path.display());
    }
    Ok(both)
}

/// Joins the arrays of one modality.
pub(super) fn merge(folder: &Path, shards: &Path, out: &Path, modality: &[String], context: &Context) -> Result<()> {
    let [modality] = modality else {
        usage!("--merge: joins the vectors of one modality; give one --modality");
    };
    if out.extension().is_none_or(|e| e != "npy") {
        usage!("--out: --merge writes a .npy file");
    }
    let files = mm_data::expand_braces(shards)?;
    let vectors = embedding::merge_shards(folder, &files, &Modality::from(modality.as_str()), out)?;
    if context.json {
        output::line(json!({"out": output::path(out), "vectors": vectors}));
    } else {
        output::line(format!("{}: {vectors} vectors", out.display()));
    }
    Ok(())
}
