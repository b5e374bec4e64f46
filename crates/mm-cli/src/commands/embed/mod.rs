//! `mm embed`: raw values → vectors.

mod sharded;
mod stdio;

use crate::{
    args::{
        batch::OnError,
        columns::TableArgs,
        dtype::DtypeArgs,
        files::{INPUT_OPTIONS, InputArgs, InputValue},
        model::{is_run, locate},
        output_path::refuse_url,
    },
    context::{Context, stop_on_interrupt},
    exit::{interrupted, usage},
    output,
    progress::ItemProgress,
};
use anyhow::Result;
use mm_core::{Modality, Pooling, Tensor};
use mm_data::{ColumnInference, ManifestConfig, ManifestPieces, PieceSize, SplitConfig};
use mm_repr::{LoadOptions, Pretrained};
use mm_tasks::{
    embedding::{self, Embedder, FailedValue, RowList},
    task::TaskModel,
};
use serde_json::json;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

/// Embed texts, images, audio and video with a pretrained model or a trained run
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  mm embed --model all-MiniLM-L6-v2 --text \"a dog\" --json\n  mm embed --model runs/first --image dog.png --audio dog.ogg\n  mm embed --model openai/clip-vit-base-patch32 --data photos.jsonl --out photos.parquet --dtype auto\n  mm embed --model openai/clip-vit-base-patch32 --shards 'shards/{0000..0099}.tar' --out vectors     (in as many workers as you like)\n  mm embed --merge vectors --shards 'shards/{0000..0099}.tar' --modality image --out images.npy\n  mm embed --model openai/clip-vit-base-patch32 --stdio < rows.arrows > vectors.arrows\n\nJSON, one line an input: {\"input\": …, \"modality\": …, \"embedding\": […]}"
)]
pub(crate) struct Arguments {
    /// Checkpoint folder, run folder, name of a fetched model, hub name ORG/NAME, or URL of a folder (s3://, gs://, az://,
    /// hf://).
    #[arg(long, value_name = "MODEL", required_unless_present = "merge")]
    model: Option<PathBuf>,
    #[command(flatten)]
    inputs: InputArgs,
    /// How the features of a sequence become one vector [default: as the model's folder says, else the mean].
    #[arg(long, value_enum, value_name = "POOLING", help_heading = "Model options")]
    pooling: Option<PoolingArg>,
    /// Scale vectors to unit length (dual encoders always do).
    #[arg(long, help_heading = "Model options")]
    normalize: bool,
    /// Take the features after this many blocks: 0 is the input of the first block, negative counts from the end.
    #[arg(long, value_name = "N", allow_negative_numbers = true, help_heading = "Model options")]
    layer: Option<i64>,
    #[command(flatten)]
    dtype: DtypeArgs,
    #[command(flatten)]
    dataset: DatasetArgs,
}

/// A whole data set at once.
#[derive(clap::Args, Clone)]
#[command(next_help_heading = "Whole data sets", group(clap::ArgGroup::new("dataset_output").args(["out", "stdio"])))]
struct DatasetArgs {
    /// Embed every value of this manifest (JSONL, CSV, TSV or Parquet); the vector of a row without one is missing.
    /// After an interruption the same command continues where it stopped; values that could not be read are tried
    /// again.
    #[arg(long, value_name = "FILE", requires = "out", conflicts_with_all = INPUT_OPTIONS)]
    data: Option<PathBuf>,
    /// Embed each of several manifests or WebDataset shards into the folder --out, for instance
    /// 'train-{0000..0099}.tar'. Any number of workers on any hosts run the same command: each takes shards that are
    /// neither done nor taken by another, and ends when all are done.
    #[arg(long, value_name = "PATTERN", requires = "out", conflicts_with_all = INPUT_OPTIONS, conflicts_with = "data")]
    shards: Option<PathBuf>,
    /// Join the vectors of --shards, which are in this folder, into the .npy file --out.
    #[arg(long, value_name = "DIR", requires_all = ["shards", "out"])]
    merge: Option<PathBuf>,
    /// Read rows from standard input and write their vectors to standard output, both as Arrow IPC streams: for each
    /// record batch one with the columns MODALITY_embedding and MODALITY_error. Rows have a column for each modality,
    /// of its name or as --column says.
    #[arg(long, conflicts_with_all = INPUT_OPTIONS, conflicts_with_all = ["data", "shards"])]
    stdio: bool,
    /// File for the vectors: .npy, .parquet or .safetensors; with --shards a folder (or s3://, gs://, az://).
    #[arg(long, value_name = "PATH")]
    out: Option<PathBuf>,
    /// Modality of the data set to embed; may be repeated [default: all that the model takes].
    #[arg(long, value_name = "NAME", requires = "dataset_output")]
    modality: Vec<String>,
    /// What to do with a value that cannot be read: skip (its vector is missing) or fail.
    #[arg(long, value_name = "POLICY", value_enum, default_value = "skip", requires = "dataset_output")]
    on_error: OnError,
    #[command(flatten)]
    table: TableArgs,
}

/// How a sequence becomes one vector.
#[derive(Clone, Copy, clap::ValueEnum)]
enum PoolingArg {
    Mean,
    Cls,
    Max,
    Last,
    /// One vector for each position.
    None,
}

impl Arguments {
    fn keeps_positions(&self) -> bool {
        matches!(self.pooling, Some(PoolingArg::None))
    }

    fn pooling(&self, model: &Pretrained) -> Option<Pooling> {
        match self.pooling {
            Some(PoolingArg::Mean) => Some(Pooling::Mean),
            Some(PoolingArg::Cls) => Some(Pooling::Cls),
            Some(PoolingArg::Max) => Some(Pooling::Max),
            Some(PoolingArg::Last) => Some(Pooling::Last),
            // A layer inside a dual encoder has no projection: it is pooled as that of any other encoder.
            None | Some(PoolingArg::None) => {
                (self.layer.is_some() && model.contrastive_head.is_some()).then_some(Pooling::Mean)
            }
        }
    }

    fn load_run(&self, dir: &Path, context: &Context) -> Result<Box<dyn TaskModel>> {
        if self.pooling.is_some() || self.layer.is_some() {
            usage!("--pooling, --layer: are for checkpoint folders; a run pools as it was trained");
        }
        Ok(context.tasks()?.load(dir)?)
    }

    fn load_checkpoint(&self, dir: &Path, context: &Context) -> Result<Pretrained> {
        let options = LoadOptions { layer: self.layer, ..self.dtype.load_options(context)? };
        Ok(Pretrained::load_with(dir, options)?)
    }
}

/// The number of inputs of each modality that were longer than the model takes.
#[derive(Default)]
pub(crate) struct Truncated(BTreeMap<Modality, usize>);

impl Truncated {
    /// Those until now.
    pub(crate) fn count(model: &dyn Embedder) -> Self {
        let count = |modality: Modality| Some((model.processor(&modality).ok()?.truncated()?.0, modality));
        Self(model.modalities().into_iter().filter_map(count).map(|(count, modality)| (modality, count)).collect())
    }

    /// Warns about those that the model got since.
    pub(crate) fn warn_since(&self, model: &dyn Embedder) {
        for modality in model.modalities() {
            let found = model.processor(&modality).ok().and_then(|processor| processor.truncated());
            let Some((count, limit)) = found else { continue };
            let count = count - self.0.get(&modality).copied().unwrap_or(0);
            if count > 0 {
                output::warning(format!(
                    "{count} {modality} input(s) were longer than the model takes and were truncated to {limit}"
                ));
            }
        }
    }
}

/// Warns about inputs that were longer than the model takes.
pub(crate) fn warn_truncated(model: &dyn Embedder) {
    Truncated::default().warn_since(model);
}

/// Features `[length, dim]` of each input, in the order given; length is 1 unless every position was asked for.
fn embed_inputs(model: &Pretrained, arguments: &Arguments) -> Result<Vec<Tensor>> {
    if arguments.keeps_positions() {
        let features = |input: &InputValue| model.features(&input.modality(), &input.source());
        return Ok(arguments.inputs.0.iter().map(features).collect::<Result<_, _>>()?);
    }
    embed_in_order(model, &arguments.inputs.0, arguments.pooling(model))
}

/// One vector `[1, dim]` for each input, in the order given; those of one modality go through the model as one batch.
pub(crate) fn embed_in_order(
    model: &Pretrained,
    inputs: &[InputValue],
    pooling: Option<Pooling>,
) -> Result<Vec<Tensor>> {
    let mut vectors: Vec<Option<Tensor>> = vec![None; inputs.len()];
    let kinds: BTreeSet<&str> = inputs.iter().map(|input| input.kind.as_str()).collect();
    for kind in kinds {
        let indices: Vec<usize> = (0..inputs.len()).filter(|i| inputs[*i].kind == kind).collect();
        let sources: Vec<_> = indices.iter().map(|i| inputs[*i].source()).collect();
        let batch = model.embed(&Modality::from(kind), &sources, pooling)?;
        for (row, index) in indices.into_iter().enumerate() {
            vectors[index] = Some(batch.narrow(0, row as i64, 1)?);
        }
    }
    Ok(vectors.into_iter().flatten().collect())
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<()> {
    let DatasetArgs { data, shards, merge, out, table, .. } = &arguments.dataset;
    if !arguments.dataset.stdio {
        table.require_data(data.as_ref().or(shards.as_ref()))?;
    }
    if out.is_some() && data.is_none() && shards.is_none() {
        usage!("--out: is where the vectors of --data or --shards go; give one of them");
    }
    if let (Some(folder), Some(shards), Some(out)) = (merge, shards, out) {
        refuse_url(out)?;
        return sharded::merge(folder, shards, out, &arguments.dataset.modality, context);
    }
    let Some(model) = &arguments.model else { usage!("--model: nothing to embed with") };
    let dir = locate(model)?;
    if arguments.dataset.stdio {
        return stdio::run(&dir, arguments, context);
    }
    if let (Some(shards), Some(out)) = (shards, out) {
        return sharded::run(&dir, shards, out, arguments, context);
    }
    if let (Some(data), Some(out)) = (&arguments.dataset.data, &arguments.dataset.out) {
        refuse_url(out)?;
        return embed_dataset(&dir, data, out, arguments, context);
    }
    if arguments.inputs.0.is_empty() {
        usage!("nothing to embed; give --text, --image, --audio, --video or --input, or --data and --out");
    }
    let vectors = if is_run(&dir) {
        let run = arguments.load_run(&dir, context)?;
        let embedder = run.embedder()?;
        let embed = |input: &InputValue| embedder.embed(&input.modality(), &[input.source()]);
        arguments.inputs.0.iter().map(embed).collect::<Result<Vec<_>, _>>()?
    } else {
        let model = arguments.load_checkpoint(&dir, context)?;
        let vectors = embed_inputs(&model, arguments)?;
        warn_truncated(&model);
        vectors
    };
    for (input, vector) in arguments.inputs.0.iter().zip(vectors) {
        let vector = if arguments.normalize { vector.normalize()? } else { vector };
        print_vector(input, &vector, arguments.keeps_positions(), context)?;
    }
    Ok(())
}

fn print_vector(input: &InputValue, vector: &Tensor, keeps_positions: bool, context: &Context) -> Result<()> {
    let dim = vector.size(-1)? as usize;
    let values = vector.to_vec::<f32>()?;
    let InputValue { kind, value } = input;
    if context.json {
        let rows: Vec<&[f32]> = values.chunks(dim.max(1)).collect();
        let embedding = if keeps_positions { json!(rows) } else { json!(values) };
        output::line(json!({"input": value, "modality": kind, "embedding": embedding}));
    } else {
        let shown = values.iter().take(8).map(|v| format!("{v:.4}")).collect::<Vec<_>>().join(" ");
        let shape =
            if keeps_positions { format!("[{}, {dim}]", values.len() / dim.max(1)) } else { format!("[{dim}]") };
        output::line(format!("{kind} {value}: {shape} {shown} … (--json prints all values)"));
    }
    Ok(())
}

/// Embeds a whole data set into a file.
fn embed_dataset(dir: &Path, data: &Path, out: &Path, arguments: &Arguments, context: &Context) -> Result<()> {
    embedding::OutputFormat::from_path(out)?;
    if arguments.keeps_positions() {
        usage!("--pooling none: gives a different number of vectors for each value, which --out cannot hold");
    }
    if is_run(dir) {
        let run = arguments.load_run(dir, context)?;
        return write_vectors(run.embedder()?, None, data, out, arguments, context);
    }
    let model = arguments.load_checkpoint(dir, context)?;
    let result = write_vectors(&model, arguments.pooling(&model), data, out, arguments, context);
    warn_truncated(&model);
    result
}

fn write_vectors(
    model: &dyn Embedder,
    pooling: Option<Pooling>,
    data: &Path,
    out: &Path,
    arguments: &Arguments,
    context: &Context,
) -> Result<()> {
    let config = ManifestConfig { split: SplitConfig::default(), ..arguments.dataset.table.config(data, &[]) };
    let wanted: Vec<&str> = arguments.dataset.modality.iter().map(String::as_str).collect();
    let wanted = (!wanted.is_empty()).then_some(wanted.as_slice());
    let recognize = |column: &str, cells: &[&serde_json::Value]| context.modality_of_column(column, cells);
    let inference = ColumnInference { modalities: wanted, recognize: Some(&recognize) };
    let rows = RowList::read(ManifestPieces::open(&config, Path::new("."), &inference, PieceSize::default())?)?;
    let options = embedding::EmbedOptions {
        modalities: arguments.dataset.modality.iter().map(|m| Modality::from(m.as_str())).collect(),
        pooling,
        normalize: arguments.normalize,
        fail_on_error: arguments.dataset.on_error == OnError::Fail,
    };
    let stop = stop_on_interrupt("this batch")?;
    let mut progress = ItemProgress::new();
    let started = std::time::Instant::now();
    let summary = embedding::embed_all(model, &rows, out, &options, &stop, &mut |done, total| {
        progress.update("embedding", done, total);
    })?;
    progress.finish();
    let failures = summary.failed.iter().map(|f| format!("{}: {}: {}", f.id, f.modality, f.reason));
    output::warnings(failures.collect::<Vec<_>>().iter());
    if summary.stopped {
        interrupted!("{} vectors are saved; the same command continues from there", summary.vectors);
    }
    let per_second = (summary.vectors - summary.resumed) as f64 / started.elapsed().as_secs_f64();
    if context.json {
        output::line(json!({
            "out": output::path(out), "vectors": summary.vectors, "resumed": summary.resumed, "dim": summary.dim,
            "failed": without_vector(summary.failed.len(), &summary.failed),
            "missing": without_vector(summary.missing, &summary.missing_examples),
            "per_second": per_second,
        }));
        return Ok(());
    }
    let resumed =
        if summary.resumed > 0 { format!(", {} of them from an earlier run", summary.resumed) } else { String::new() };
    output::line(format!(
        "{}: {} vectors of dimension {}{resumed}; {per_second:.1} per second",
        out.display(),
        summary.vectors,
        summary.dim
    ));
    if summary.missing > 0 {
        output::line(format!(
            "{} rows have no value of a modality; their vectors are missing (NaN, null in Parquet)",
            summary.missing
        ));
    }
    if !summary.failed.is_empty() {
        output::line(format!(
            "{} values could not be read; the same command tries them again ({}.part keeps what is done)",
            summary.failed.len(),
            out.display()
        ));
    }
    Ok(())
}

/// Values without a vector: how many, and the first of them.
fn without_vector(count: usize, values: &[FailedValue]) -> serde_json::Value {
    let example = |v: &FailedValue| json!({"row": v.id, "modality": v.modality, "reason": v.reason});
    json!({"count": count, "examples": values.iter().take(20).map(example).collect::<Vec<_>>()})
}
