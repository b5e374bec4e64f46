//! `mm transcribe`: what is said in a sound.

use crate::{Context, embed, output, speak};
use anyhow::{Result, bail};
use mm_core::{Modality, Source};
use mm_reason::{Pipeline, pretrained::Transcript};
use mm_repr::locate;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// A checkpoint folder, or the name of a fetched model.
    #[arg(long, value_name = "DIR|NAME")]
    model: PathBuf,
    /// A sound file (or a video with sound); may be repeated.
    #[arg(long, value_name = "FILE")]
    audio: Vec<String>,
    /// The language that is spoken, by code or name [default: the likeliest].
    #[arg(long, value_name = "L")]
    language: Option<String>,
    /// Say when each piece begins and ends.
    #[arg(long)]
    timestamps: bool,
    #[command(flatten)]
    generation: speak::Generation,
    #[command(flatten)]
    numbers: embed::Numbers,
    #[command(flatten)]
    whole: speak::Whole,
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<()> {
    if arguments.audio.is_empty() && arguments.whole.data.is_none() {
        bail!("nothing to write down; give --audio, or --data and --out");
    }
    let folder = locate(&arguments.model, Path::new("."));
    let model = Pipeline::load(&folder, arguments.numbers.options(context)?)?;
    if model.processor(&Modality::AUDIO).is_err() {
        bail!("{}: a model of family {} hears nothing; wanted whisper", folder.display(), model.family);
    }
    arguments.generation.plain("what is said in a sound is written down as it is")?;
    let config = arguments.generation.over(&model.generation)?;
    let write = |source: &Source| {
        model
            .transcribe(source, arguments.language.as_deref(), arguments.timestamps, &config)
            .map_err(anyhow::Error::from)
    };
    if arguments.whole.data.is_some() {
        return arguments.whole.each(&["audio", "video"], 1, context.json, |rows| {
            rows.iter().map(|row| Ok(line(&row.file, &write(&row.source)?, arguments.timestamps))).collect()
        });
    }
    for file in &arguments.audio {
        let found = write(&Source::File(PathBuf::from(file)))?;
        if context.json {
            output::line(line(file, &found, arguments.timestamps));
        } else if arguments.timestamps {
            for piece in &found.segments {
                output::line(format!("[{:8.2} – {:8.2}] {}", piece.start, piece.end, piece.text.trim()));
            }
        } else {
            output::line(found.text.trim());
        }
        if found.truncated {
            eprintln!("mm: {file}: no end came within {} tokens (--max-new-tokens)", config.max_new_tokens);
        }
    }
    Ok(())
}

fn line(file: &str, found: &Transcript, timestamps: bool) -> Value {
    let mut out = json!({"input": file, "text": found.text, "ended": !found.truncated});
    if timestamps {
        let pieces = found.segments.iter().map(|s| json!({"start": s.start, "end": s.end, "text": s.text}));
        out["segments"] = pieces.collect();
    }
    out
}
