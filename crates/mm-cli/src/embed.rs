//! `mm embed`: raw values become vectors.

use crate::{Context, output};
use anyhow::{Result, bail};
use clap::{ArgMatches, Args, Command, FromArgMatches};
use mm_core::{DType, Modality, Pool, Source, Tensor};
use mm_data::{Manifest, ManifestConfig};
use mm_repr::{LoadOptions, Pretrained, locate};
use mm_tasks::{
    embedding::{self, Embedder},
    job::{Job, Trained},
};
use serde_json::json;
use std::path::{Path, PathBuf};

const KINDS: [&str; 4] = ["text", "image", "audio", "video"];

#[derive(Args)]
pub(crate) struct Arguments {
    /// A checkpoint folder, the name of a fetched model (of the registry, or ORG/NAME of the hub), or a run folder.
    #[arg(long, value_name = "DIR|NAME")]
    model: PathBuf,
    #[command(flatten)]
    values: Values,
    /// How positions become one vector [default: as the model's folder says, else their mean].
    #[arg(long, value_enum)]
    pool: Option<PoolChoice>,
    /// Bring vectors to unit length (joint models always do).
    #[arg(long)]
    normalize: bool,
    /// Features after so many blocks, 0 for what goes into the first, negative from the end.
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    layer: Option<i64>,
    #[command(flatten)]
    numbers: Numbers,
    #[command(flatten)]
    whole: Whole,
}

/// In which numbers a model computes.
#[derive(Args, Clone)]
pub(crate) struct Numbers {
    /// Numbers to compute in: f32, bf16, f16, or auto (bf16 where the device computes it faster).
    #[arg(long, value_name = "DTYPE", default_value = "f32")]
    dtype: String,
}

impl Numbers {
    /// How a folder is loaded on the device that was asked for.
    pub(crate) fn options(&self, context: &Context) -> Result<LoadOptions> {
        let device = context.device()?;
        let dtype = if self.dtype == "auto" { device.fast_dtype() } else { self.dtype.parse()? };
        if !matches!(dtype, DType::F32 | DType::BF16 | DType::F16 | DType::F64) {
            bail!("--dtype: found {}, wanted f32, bf16, f16 or auto", self.dtype);
        }
        Ok(LoadOptions { device, dtype, ..LoadOptions::default() })
    }
}

/// A whole data set at once.
#[derive(Args, Clone)]
pub(crate) struct Whole {
    /// Embed every value of this manifest (JSONL, CSV, TSV or Parquet). Interrupted, the same command goes on where it stopped; values that are broken are holes, which the same command tries again.
    #[arg(long, value_name = "MANIFEST", requires = "out", conflicts_with_all = KINDS)]
    data: Option<PathBuf>,
    /// Where the vectors go: .npy, .parquet or .safetensors.
    #[arg(long, value_name = "FILE", requires = "data")]
    out: Option<PathBuf>,
    /// Which modality of the data set; may be repeated [default: all that the model takes].
    #[arg(long, value_name = "NAME", requires = "data")]
    modality: Vec<String>,
    /// What a value that cannot be read does: skip (it becomes a hole) or fail.
    #[arg(long, value_name = "WHAT", default_value = "skip", value_parser = ["skip", "fail"])]
    on_broken: String,
}

/// How a sequence becomes one vector.
#[derive(Clone, Copy, clap::ValueEnum)]
enum PoolChoice {
    Mean,
    Cls,
    Max,
    Last,
    /// A vector for each position.
    None,
}

/// The files that a command takes.
#[derive(Args)]
pub(crate) struct Files {
    /// A picture file; may be repeated.
    #[arg(long, value_name = "FILE")]
    pub(crate) image: Vec<String>,
    /// A sound file; may be repeated.
    #[arg(long, value_name = "FILE")]
    pub(crate) audio: Vec<String>,
    /// A video file; may be repeated.
    #[arg(long, value_name = "FILE")]
    pub(crate) video: Vec<String>,
}

#[derive(Args)]
struct Each {
    /// A text; may be repeated.
    #[arg(long, value_name = "TEXT")]
    text: Vec<String>,
    #[command(flatten)]
    files: Files,
}

/// Raw values of any kind in the order they were given in; clap alone would sort them by kind.
pub(crate) struct Values(pub(crate) Vec<(&'static str, String)>);

impl Args for Values {
    fn augment_args(command: Command) -> Command {
        Each::augment_args(command)
    }
    fn augment_args_for_update(command: Command) -> Command {
        Each::augment_args_for_update(command)
    }
}

impl FromArgMatches for Values {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let Each { text, files } = Each::from_arg_matches(matches)?;
        let mut values = Vec::new();
        for (kind, list) in KINDS.into_iter().zip([text, files.image, files.audio, files.video]) {
            let places = matches.indices_of(kind).into_iter().flatten();
            values.extend(places.zip(list).map(|(place, value)| (place, kind, value)));
        }
        values.sort_by_key(|(place, ..)| *place);
        Ok(Self(values.into_iter().map(|(_, kind, value)| (kind, value)).collect()))
    }
    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// A raw value as the program's arguments name it.
pub(crate) fn source(kind: &str, value: &str) -> Source {
    if kind == "text" { Source::Text(value.to_owned()) } else { Source::File(PathBuf::from(value)) }
}

/// Says how many inputs were longer than the model takes.
pub(crate) fn tell_cuts(model: &Pretrained) {
    for modality in model.modalities() {
        if let Some((count, most)) = model.tower(&modality).ok().and_then(|t| t.processor.cut()) {
            eprintln!("mm: {count} {modality} input(s) were longer than the model takes and were cut at {most}");
        }
    }
}

/// Vectors in the order given, `[positions, width]` each: one position unless a vector for each was asked for.
fn pretrained(model: &Pretrained, arguments: &Arguments) -> Result<Vec<Tensor>> {
    if let Some(PoolChoice::None) = arguments.pool {
        let each = |(kind, value): &(&str, String)| model.features(&Modality::from(*kind), &source(kind, value));
        return Ok(arguments.values.0.iter().map(each).collect::<Result<_, _>>()?);
    }
    together(model, &arguments.values.0, pool(model, arguments))
}

fn pool(model: &Pretrained, arguments: &Arguments) -> Option<Pool> {
    match arguments.pool {
        Some(PoolChoice::Mean) => Some(Pool::Mean),
        Some(PoolChoice::Cls) => Some(Pool::Cls),
        Some(PoolChoice::Max) => Some(Pool::Max),
        Some(PoolChoice::Last) => Some(Pool::Last),
        // A layer inside a joint model has no projection: it is pooled as any other encoder's.
        None | Some(PoolChoice::None) => {
            (arguments.layer.is_some() && model.contrastive_head.is_some()).then_some(Pool::Mean)
        }
    }
}

/// One vector a value, in the order given; those of one modality go through the model together.
pub(crate) fn together(
    model: &Pretrained,
    values: &[(&'static str, String)],
    pool: Option<Pool>,
) -> Result<Vec<Tensor>> {
    let mut vectors: Vec<Option<Tensor>> = vec![None; values.len()];
    for kind in KINDS {
        let places: Vec<usize> = (0..vectors.len()).filter(|i| values[*i].0 == kind).collect();
        if places.is_empty() {
            continue;
        }
        let sources: Vec<Source> = places.iter().map(|i| source(kind, &values[*i].1)).collect();
        let rows = model.embed(&Modality::from(kind), &sources, pool)?;
        for (row, place) in places.into_iter().enumerate() {
            vectors[place] = Some(rows.narrow(0, row as i64, 1)?);
        }
    }
    Ok(vectors.into_iter().flatten().collect())
}

pub(crate) fn run(arguments: Arguments, context: &Context) -> Result<()> {
    let folder = locate(&arguments.model, Path::new("."));
    if let (Some(data), Some(out)) = (&arguments.whole.data, &arguments.whole.out) {
        return whole(&folder, data, out, &arguments, context);
    }
    if arguments.values.0.is_empty() {
        bail!("nothing to embed; give --text, --image, --audio or --video, or --data and --out");
    }
    let vectors = if folder.join("config.toml").exists() {
        let run = load_run(&folder, &arguments, context)?;
        let each = |(kind, value): &(&str, String)| run.embed(&Modality::from(*kind), &[source(kind, value)]);
        arguments.values.0.iter().map(each).collect::<Result<Vec<_>, _>>()?
    } else {
        let model = load(&folder, &arguments, context)?;
        let vectors = pretrained(&model, &arguments)?;
        tell_cuts(&model);
        vectors
    };
    let each_position = matches!(arguments.pool, Some(PoolChoice::None));
    for ((kind, value), vector) in arguments.values.0.iter().zip(vectors) {
        let vector = if arguments.normalize { vector.normalize()? } else { vector };
        let width = vector.size(-1)? as usize;
        let numbers = vector.to_vec::<f32>()?;
        if context.json {
            let rows: Vec<&[f32]> = numbers.chunks(width.max(1)).collect();
            let embedding = if each_position { json!(rows) } else { json!(numbers) };
            output::line(json!({"input": value, "modality": kind, "embedding": embedding}));
        } else {
            let shown = numbers.iter().take(8).map(|v| format!("{v:.4}")).collect::<Vec<_>>().join(" ");
            let size =
                if each_position { format!("{} × {width}", numbers.len() / width.max(1)) } else { width.to_string() };
            output::line(format!("{kind} {value}: {size} numbers: {shown} … (--json gives all)"));
        }
    }
    Ok(())
}

fn load_run(folder: &Path, arguments: &Arguments, context: &Context) -> Result<Job> {
    if arguments.pool.is_some() || arguments.layer.is_some() {
        bail!("--pool and --layer are for checkpoint folders; a run pools as it was trained");
    }
    Ok(Job::load(folder, &crate::registry(), context.device()?)?)
}

fn load(folder: &Path, arguments: &Arguments, context: &Context) -> Result<Pretrained> {
    let options = LoadOptions { layer: arguments.layer, ..arguments.numbers.options(context)? };
    Ok(Pretrained::load_with(folder, options)?)
}

/// A whole data set into a file.
fn whole(folder: &Path, data: &Path, out: &Path, arguments: &Arguments, context: &Context) -> Result<()> {
    embedding::Format::of(out)?;
    if let Some(PoolChoice::None) = arguments.pool {
        bail!("--pool none gives another number of vectors for each value, which --out does not hold");
    }
    if folder.join("config.toml").exists() {
        let job = load_run(folder, arguments, context)?;
        return fill(&Trained::new(&job, folder)?, None, data, out, arguments, context);
    }
    let model = load(folder, arguments, context)?;
    let done = fill(&model, pool(&model, arguments), data, out, arguments, context);
    tell_cuts(&model);
    done
}

fn fill(
    model: &dyn Embedder,
    pool: Option<Pool>,
    data: &Path,
    out: &Path,
    arguments: &Arguments,
    context: &Context,
) -> Result<()> {
    let manifest =
        Manifest::open(&ManifestConfig { manifest: data.to_owned(), ..ManifestConfig::default() }, Path::new("."))?;
    let options = embedding::Options {
        modalities: arguments.whole.modality.iter().map(|m| Modality::from(m.as_str())).collect(),
        pool,
        normalize: arguments.normalize,
        strict: arguments.whole.on_broken == "fail",
    };
    let stop = crate::interrupt("this piece")?;
    let mut steps = crate::progress::Steps::new();
    let begun = std::time::Instant::now();
    let summary = embedding::embed_all(model, &manifest, out, &options, &stop, &mut |done, all| {
        steps.tell("embedding", done, all);
    })?;
    steps.end();
    for (id, modality, reason) in summary.holes.iter().take(20) {
        eprintln!("mm: {id}: {modality}: {reason}");
    }
    if summary.holes.len() > 20 {
        eprintln!("mm: … and {} more", summary.holes.len() - 20);
    }
    if summary.stopped {
        bail!("stopped after {} vectors; the same command goes on from here", summary.vectors);
    }
    let fresh = summary.vectors - summary.kept;
    let rate = fresh as f64 / begun.elapsed().as_secs_f64();
    if context.json {
        output::line(json!({
            "out": out, "vectors": summary.vectors, "kept": summary.kept, "width": summary.width,
            "holes": summary.holes.len(), "per_second": rate,
        }));
    } else {
        let kept = if summary.kept > 0 { format!(", {} of them from before", summary.kept) } else { String::new() };
        output::line(format!(
            "{}: {} vectors of {}{kept}; {rate:.1} a second",
            out.display(),
            summary.vectors,
            summary.width
        ));
        if !summary.holes.is_empty() {
            output::line(format!(
                "{} values are holes; the same command tries them again ({}.part keeps what is done)",
                summary.holes.len(),
                out.display()
            ));
        }
    }
    Ok(())
}
