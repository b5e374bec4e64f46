//! `mm embed`: raw values become vectors.

use crate::{Context, output};
use anyhow::{Result, bail};
use clap::{ArgMatches, Args, Command, FromArgMatches};
use mm_core::{Modality, Source, Tensor};
use mm_repr::{Pretrained, locate};
use mm_tasks::retrieval::Retrieval;
use serde_json::json;
use std::path::{Path, PathBuf};

const KINDS: [&str; 4] = ["text", "image", "audio", "video"];

/// The values keep the order they were given in, across kinds; clap alone would sort them by kind.
pub(crate) struct Arguments {
    model: PathBuf,
    values: Vec<(&'static str, String)>,
}

#[derive(Args)]
struct Given {
    /// A checkpoint folder, the name of a fetched model, or a run folder.
    #[arg(long, value_name = "DIR|NAME")]
    model: PathBuf,
    /// A text; may be repeated.
    #[arg(long, value_name = "TEXT")]
    text: Vec<String>,
    /// A picture file; may be repeated.
    #[arg(long, value_name = "FILE")]
    image: Vec<String>,
    /// A sound file; may be repeated.
    #[arg(long, value_name = "FILE")]
    audio: Vec<String>,
    /// A video file; may be repeated.
    #[arg(long, value_name = "FILE")]
    video: Vec<String>,
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
        for (kind, list) in KINDS.into_iter().zip([given.text, given.image, given.audio, given.video]) {
            let places = matches.indices_of(kind).into_iter().flatten();
            values.extend(places.zip(list).map(|(place, value)| (place, kind, value)));
        }
        values.sort_by_key(|(place, ..)| *place);
        Ok(Self { model: given.model, values: values.into_iter().map(|(_, kind, value)| (kind, value)).collect() })
    }
    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

enum Model {
    Pretrained(Box<Pretrained>),
    Run(Box<Retrieval>),
}

impl Model {
    fn open(name: &Path, context: &Context) -> Result<Self> {
        let folder = locate(name, Path::new("."));
        if folder.join("config.toml").exists() {
            return Ok(Self::Run(Box::new(Retrieval::load(&folder, &mm_tasks::registry(), context.device()?)?)));
        }
        Ok(Self::Pretrained(Box::new(Pretrained::load_on(&folder, context.device()?, mm_core::DType::F32)?)))
    }

    fn embed(&self, modality: &Modality, source: &Source) -> Result<Tensor> {
        match self {
            Self::Run(run) => Ok(run.embed(modality, std::slice::from_ref(source))?),
            Self::Pretrained(model) if model.encoder.modality() == *modality => {
                Ok(model.encode(std::slice::from_ref(source))?)
            }
            Self::Pretrained(model) => bail!("this model takes {}, not {modality}", model.encoder.modality()),
        }
    }
}

pub(crate) fn run(arguments: Arguments, context: &Context) -> Result<()> {
    if arguments.values.is_empty() {
        bail!("nothing to embed; give --text, --image, --audio or --video");
    }
    let model = Model::open(&arguments.model, context)?;
    for (kind, value) in arguments.values {
        let source = if kind == "text" { Source::Text(value.clone()) } else { Source::File(PathBuf::from(&value)) };
        let vector = model.embed(&Modality::from(kind), &source)?.to_vec::<f32>()?;
        if context.json {
            output::line(json!({"input": value, "modality": kind, "embedding": vector}));
        } else {
            let shown = vector.iter().take(8).map(|v| format!("{v:.4}")).collect::<Vec<_>>().join(" ");
            output::line(format!("{kind} {value}: {} numbers: {shown} … (--json gives all)", vector.len()));
        }
    }
    Ok(())
}
