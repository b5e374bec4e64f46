//! `mm transcribe`: speech → text.

use crate::{
    args::{
        batch::{BatchArgs, command_provenance, generation_options},
        dtype::DtypeArgs,
        generation::GenerationArgs,
        model::ModelArgs,
    },
    context::Context,
    exit::usage,
    output,
};
use anyhow::{Result, bail};
use mm_core::{Modality, Source};
use mm_reason::{
    Pipeline,
    pretrained::{Transcript, TranscriptWarning},
};
use serde_json::{Value, json};
use std::path::PathBuf;

/// Transcribe speech in audio files (or videos with an audio track)
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  mm transcribe --model openai/whisper-tiny --audio speech.wav\n  mm transcribe --model openai/whisper-tiny --audio talk.mp3 --language de --timestamps --json\n\nJSON, one line a file: {\"input\": …, \"modality\": \"audio\", \"text\": …, \"finished\": …, \"warnings\": [{\"kind\": \"silence\", \"start\": s, \"end\": s, \"reason\": …}], \"segments\": [{\"start\": s, \"end\": s, \"text\": …}]}"
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    model: ModelArgs,
    /// Audio file (or a video with an audio track); may be repeated.
    #[arg(long, value_name = "FILE", help_heading = "Inputs")]
    audio: Vec<String>,
    /// Spoken language, by code or name [default: detected].
    #[arg(long, value_name = "LANGUAGE", help_heading = "Inputs")]
    language: Option<String>,
    /// Output the start and end of each segment in seconds.
    #[arg(long)]
    timestamps: bool,
    #[command(flatten)]
    dtype: DtypeArgs,
    #[command(flatten)]
    generation: GenerationArgs,
    #[command(flatten)]
    batch: BatchArgs,
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<()> {
    arguments.batch.check()?;
    if arguments.audio.is_empty() && arguments.batch.input().is_none() {
        usage!("nothing to transcribe; give --audio, or --data and --out");
    }
    let dir = arguments.model.dir()?;
    let model = Pipeline::load(&dir, arguments.dtype.load_options(context)?)?;
    if model.processor(&Modality::AUDIO).is_err() {
        bail!("{}: a model of family {} takes no audio; expected whisper", dir.display(), model.family);
    }
    arguments.generation.refuse_constraints("speech is transcribed as it is")?;
    let config = arguments.generation.override_config(&model.generation)?;
    let transcribe = |source: &Source| {
        let transcript = model.transcribe(source, arguments.language.as_deref(), arguments.timestamps, &config);
        transcript.map_err(anyhow::Error::from)
    };
    if arguments.batch.input().is_some() {
        let own = json!({"language": arguments.language, "timestamps": arguments.timestamps});
        let options = generation_options(own, Some(&config), &arguments.dtype)?;
        let provenance = command_provenance("transcribe", &dir, options)?;
        return arguments.batch.run(&provenance, &["audio", "video"], 1, context, |rows| {
            let line = |row: &crate::args::batch::BatchRow| {
                Ok(json_line(&row.path, row.modality.name(), &transcribe(&row.source)?, arguments.timestamps))
            };
            rows.iter().map(line).collect()
        });
    }
    for file in &arguments.audio {
        let transcript = transcribe(&Source::Path(PathBuf::from(file)))?;
        if context.json {
            output::line(json_line(file, "audio", &transcript, arguments.timestamps));
        } else if arguments.timestamps {
            for segment in &transcript.segments {
                output::line(format!("[{:8.2} – {:8.2}] {}", segment.start, segment.end, segment.text.trim()));
            }
        } else {
            output::line(transcript.text.trim());
        }
        for warning in &transcript.warnings {
            output::warning(format!("{file}: {warning}"));
        }
        if transcript.truncated {
            output::warning(format!("{file}: truncated at {} tokens (--max-new-tokens)", config.max_new_tokens));
        }
    }
    Ok(())
}

fn json_line(file: &str, modality: &str, transcript: &Transcript, timestamps: bool) -> Value {
    let mut line =
        json!({"input": file, "modality": modality, "text": transcript.text, "finished": !transcript.truncated});
    let warning =
        |w: &TranscriptWarning| json!({"kind": w.kind.name(), "start": w.start, "end": w.end, "reason": w.to_string()});
    line["warnings"] = transcript.warnings.iter().map(warning).collect();
    if timestamps {
        let segments = transcript.segments.iter().map(|s| json!({"start": s.start, "end": s.end, "text": s.text}));
        line["segments"] = segments.collect();
    }
    line
}
