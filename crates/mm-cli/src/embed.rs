//! `mm embed`: raw values become vectors.

use crate::{Context, output};
use anyhow::{Result, bail};
use clap::{ArgMatches, Args, Command, FromArgMatches};
use mm_core::{Modality, Pool, Source, Tensor};
use mm_repr::{LoadOptions, Pretrained, locate};
use mm_tasks::retrieval::Retrieval;
use serde_json::json;
use std::path::{Path, PathBuf};

const KINDS: [&str; 4] = ["text", "image", "audio", "video"];

/// The values keep the order they were given in, across kinds; clap alone would sort them by kind.
pub(crate) struct Arguments {
    model: PathBuf,
    values: Vec<(&'static str, String)>,
    pool: Option<PoolChoice>,
    normalize: bool,
    layer: Option<i64>,
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
struct Given {
    /// A checkpoint folder, the name of a fetched model, or a run folder.
    #[arg(long, value_name = "DIR|NAME")]
    model: PathBuf,
    /// A text; may be repeated.
    #[arg(long, value_name = "TEXT")]
    text: Vec<String>,
    #[command(flatten)]
    files: Files,
    /// How positions become one vector [default: as the model's folder says, else their mean].
    #[arg(long, value_enum)]
    pool: Option<PoolChoice>,
    /// Bring vectors to unit length (joint models always do).
    #[arg(long)]
    normalize: bool,
    /// Features after so many blocks, 0 for what goes into the first, negative from the end.
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    layer: Option<i64>,
}

impl Args for Arguments {
    fn augment_args(command: Command) -> Command {
        Given::augment_args(command)
    }
    fn augment_args_for_update(command: Command) -> Command {
        Given::augment_args_for_update(command)
    }
}

impl FromArgMatches for Arguments {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = Given::from_arg_matches(matches)?;
        let mut values = Vec::new();
        for (kind, list) in KINDS.into_iter().zip([given.text, given.files.image, given.files.audio, given.files.video])
        {
            let places = matches.indices_of(kind).into_iter().flatten();
            values.extend(places.zip(list).map(|(place, value)| (place, kind, value)));
        }
        values.sort_by_key(|(place, ..)| *place);
        Ok(Self {
            model: given.model,
            values: values.into_iter().map(|(_, kind, value)| (kind, value)).collect(),
            pool: given.pool,
            normalize: given.normalize,
            layer: given.layer,
        })
    }
    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// A raw value as the program's arguments name it.
fn source(kind: &str, value: &str) -> Source {
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
    let pool = match arguments.pool {
        None => None,
        Some(PoolChoice::Mean) => Some(Pool::Mean),
        Some(PoolChoice::Cls) => Some(Pool::Cls),
        Some(PoolChoice::Max) => Some(Pool::Max),
        Some(PoolChoice::Last) => Some(Pool::Last),
        Some(PoolChoice::None) => {
            let each = |(kind, value): &(&str, String)| model.features(&Modality::from(*kind), &source(kind, value));
            return Ok(arguments.values.iter().map(each).collect::<Result<_, _>>()?);
        }
    };
    // A layer inside a joint model has no projection: it is pooled as any other encoder's.
    let pool = pool.or((arguments.layer.is_some() && model.joint.is_some()).then_some(Pool::Mean));
    // Those of one modality go through the model together.
    let mut vectors: Vec<Option<Tensor>> = vec![None; arguments.values.len()];
    for kind in KINDS {
        let places: Vec<usize> = (0..vectors.len()).filter(|i| arguments.values[*i].0 == kind).collect();
        if places.is_empty() {
            continue;
        }
        let sources: Vec<Source> = places.iter().map(|i| source(kind, &arguments.values[*i].1)).collect();
        let rows = model.embed(&Modality::from(kind), &sources, pool)?;
        for (row, place) in places.into_iter().enumerate() {
            vectors[place] = Some(rows.narrow(0, row as i64, 1)?);
        }
    }
    Ok(vectors.into_iter().flatten().collect())
}

pub(crate) fn run(arguments: Arguments, context: &Context) -> Result<()> {
    if arguments.values.is_empty() {
        bail!("nothing to embed; give --text, --image, --audio or --video");
    }
    let folder = locate(&arguments.model, Path::new("."));
    let vectors = if folder.join("config.toml").exists() {
        if arguments.pool.is_some() || arguments.layer.is_some() {
            bail!("--pool and --layer are for checkpoint folders; a run pools as it was trained");
        }
        let run = Retrieval::load(&folder, &mm_tasks::registry(), context.device()?)?;
        let each = |(kind, value): &(&str, String)| run.embed(&Modality::from(*kind), &[source(kind, value)]);
        arguments.values.iter().map(each).collect::<Result<Vec<_>, _>>()?
    } else {
        let options = LoadOptions { device: context.device()?, layer: arguments.layer, ..LoadOptions::default() };
        let model = Pretrained::load_with(&folder, options)?;
        let vectors = pretrained(&model, &arguments)?;
        tell_cuts(&model);
        vectors
    };
    let each_position = matches!(arguments.pool, Some(PoolChoice::None));
    for ((kind, value), vector) in arguments.values.iter().zip(vectors) {
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
