//! `mm caption`: pictures in words.

use crate::{Context, embed, output, speak};
use anyhow::{Result, bail};
use mm_core::{Modality, Source};
use mm_reason::{Generation, Pipeline, Request, generate::LogitsProcessors};
use mm_tasks::captioning::Captioning;
use serde_json::{Value, json};
use std::path::PathBuf;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// A checkpoint folder, the name of a fetched model, or a run folder.
    #[arg(long, value_name = "DIR|NAME|RUN")]
    model: PathBuf,
    /// A picture file; may be repeated.
    #[arg(long, value_name = "FILE")]
    image: Vec<String>,
    /// A video file, where the model takes such; may be repeated.
    #[arg(long, value_name = "FILE")]
    video: Vec<String>,
    /// Words that the caption begins with; for models that are spoken to, what they are told.
    #[arg(long, value_name = "TEXT")]
    prompt: Option<String>,
    #[command(flatten)]
    generation: speak::Generation,
    #[command(flatten)]
    numbers: embed::Numbers,
    #[command(flatten)]
    whole: speak::Whole,
}

enum Model {
    Speaker(Box<Pipeline>),
    Run(Box<Captioning>),
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<()> {
    if arguments.image.is_empty() && arguments.video.is_empty() && arguments.whole.data.is_none() {
        bail!("nothing to describe; give --image (or --video), or --data and --out");
    }
    let folder = speak::folder(&arguments.model);
    let run = folder.join("config.toml").exists();
    let model = if run {
        Model::Run(Box::new(Captioning::load(&folder, &crate::registry(), context.device()?)?))
    } else {
        Model::Speaker(Box::new(Pipeline::load(&folder, arguments.numbers.options(context)?)?))
    };
    let config = arguments.generation.over(&match &model {
        Model::Run(run) => {
            arguments.generation.plain("this run describes in words of its own")?;
            run.generation()
        }
        Model::Speaker(speaker) => speaker.generation.clone(),
    })?;
    let prompt = arguments.prompt.as_deref();
    let describe = |modality: &Modality, sources: &[Source]| -> Result<Vec<Generation>> {
        let model = match &model {
            Model::Run(_) if prompt.is_some() => bail!("--prompt: a run describes in its own words"),
            Model::Run(run) => return Ok(run.describe(sources, &config)?),
            Model::Speaker(speaker) => speaker,
        };
        let seen = model.encode_media(modality, sources)?;
        let found = model.generate_text(
            Some(&seen),
            Request::Caption(prompt),
            &config,
            &LogitsProcessors::default(),
            &mut |_, _| {},
        )?;
        Ok(found.into_iter().filter_map(|row| row.into_iter().next()).collect())
    };
    if arguments.whole.data.is_some() {
        return arguments.whole.each(&["image", "video"], 8, context.json, |rows| {
            let line = |row: &speak::Asked, said: &Generation| line(&row.file, said);
            // Pictures of one size go through together; where that is not so, or one is broken, each by itself.
            let alike = rows.iter().all(|r| r.modality == rows[0].modality);
            let sources: Vec<Source> = rows.iter().map(|r| r.source.clone()).collect();
            if let (true, Ok(all)) = (alike, describe(&rows[0].modality, &sources)) {
                return rows.iter().zip(&all).map(|(r, s)| Ok(line(r, s))).collect();
            }
            let each = |row: &speak::Asked| {
                let said = describe(&row.modality, std::slice::from_ref(&row.source))?;
                Ok(line(row, &said[0]))
            };
            rows.iter().map(each).collect()
        });
    }
    let files = arguments.image.iter().map(|f| ("image", f)).chain(arguments.video.iter().map(|f| ("video", f)));
    for (kind, file) in files {
        let said = &describe(&Modality::from(kind), &[Source::File(PathBuf::from(file))])?[0];
        if context.json {
            output::line(line(file, said));
        } else {
            output::line(format!("{file}: {}", said.text.trim()));
        }
        if !said.finished {
            eprintln!("mm: {file}: no end came within {} tokens (--max-new-tokens)", config.max_new_tokens);
        }
    }
    Ok(())
}

fn line(file: &str, said: &Generation) -> Value {
    json!({"input": file, "caption": said.text, "score": said.score, "ended": said.finished, "tokens": said.num_tokens})
}
