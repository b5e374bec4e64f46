//! `mm caption`: captions of images and videos.

use crate::{
    args::{
        batch::{BatchArgs, BatchRow, command_provenance, generation_options},
        dtype::DtypeArgs,
        generation::GenerationArgs,
        model::{ModelArgs, is_run},
    },
    context::Context,
    exit::usage,
    output,
};
use anyhow::Result;
use mm_core::{Modality, Source};
use mm_reason::{
    Generation, Pipeline, Request,
    generate::{GenerationConfig, LogitsProcessors},
};
use mm_tasks::captioning::Captioning;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Caption images (and videos, where the model takes them)
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  mm caption --model Salesforce/blip-image-captioning-base --image photo.jpg --num-beams 5\n  mm caption --model microsoft/git-base-coco --image a.jpg --image b.jpg --json\n  mm caption --model NAME --image photo.jpg --prompt \"a photograph of\"\n  mm caption --model NAME --data photos.jsonl --out captions.jsonl\n  mm caption --model NAME --shards 'photos-{0000..0099}.tar' --out captions     (in as many workers as you like)\n\nJSON, one line a file: {\"input\": …, \"modality\": …, \"text\": …, \"score\": …, \"finished\": …, \"tokens\": …}"
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    model: ModelArgs,
    /// Image file; may be repeated.
    #[arg(long, value_name = "FILE", help_heading = "Inputs")]
    image: Vec<String>,
    /// Video file, for models that take videos; may be repeated.
    #[arg(long, value_name = "FILE", help_heading = "Inputs")]
    video: Vec<String>,
    /// Text that the caption continues; for chat models, the instruction.
    #[arg(long, value_name = "TEXT", help_heading = "Inputs")]
    prompt: Option<String>,
    #[command(flatten)]
    dtype: DtypeArgs,
    #[command(flatten)]
    generation: GenerationArgs,
    #[command(flatten)]
    batch: BatchArgs,
}

/// The model that writes the captions.
enum Model {
    Checkpoint(Box<Pipeline>),
    Run(Box<Captioning>),
}

impl Model {
    fn load(dir: &Path, arguments: &Arguments, context: &Context) -> Result<Self> {
        if is_run(dir) {
            return Ok(Self::Run(Box::new(Captioning::load(dir, &context.tasks()?)?)));
        }
        Ok(Self::Checkpoint(Box::new(Pipeline::load(dir, arguments.dtype.load_options(context)?)?)))
    }

    fn generation(&self, arguments: &GenerationArgs) -> Result<GenerationConfig> {
        match self {
            Self::Run(run) => {
                arguments.refuse_constraints("a captioning run generates words of its own vocabulary")?;
                arguments.override_config(&run.generation())
            }
            Self::Checkpoint(model) => arguments.override_config(&model.generation),
        }
    }

    fn caption(
        &self,
        modality: &Modality,
        sources: &[Source],
        prompt: Option<&str>,
        config: &GenerationConfig,
    ) -> Result<Vec<Generation>> {
        let model = match self {
            Self::Run(_) if prompt.is_some() => usage!("--prompt: a captioning run takes no prompt"),
            Self::Run(run) => return Ok(run.describe(sources, config, &LogitsProcessors::default())?),
            Self::Checkpoint(model) => model,
        };
        let media = model.encode_media(modality, sources)?;
        let captions = model.generate_text(
            Some(&media),
            Request::Caption(prompt),
            config,
            &LogitsProcessors::default(),
            &mut |_, _| {},
        )?;
        Ok(captions.into_iter().filter_map(|row| row.into_iter().next()).collect())
    }
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<()> {
    arguments.batch.check()?;
    if arguments.image.is_empty() && arguments.video.is_empty() && arguments.batch.input().is_none() {
        usage!("nothing to caption; give --image (or --video), or --data and --out");
    }
    let dir = arguments.model.checkpoint_dir()?;
    let model = Model::load(&dir, arguments, context)?;
    let config = model.generation(&arguments.generation)?;
    let prompt = arguments.prompt.as_deref();
    if arguments.batch.input().is_some() {
        let options = generation_options(json!({"prompt": prompt}), Some(&config), &arguments.dtype)?;
        let provenance = command_provenance("caption", &dir, options)?;
        let kinds = ["image", "video"];
        return arguments
            .batch
            .run(&provenance, &kinds, 8, context, |rows| caption_rows(&model, rows, prompt, &config));
    }
    let images = arguments.image.iter().map(|f| ("image", f));
    for (kind, file) in images.chain(arguments.video.iter().map(|f| ("video", f))) {
        let modality = Modality::from(kind);
        let caption = &model.caption(&modality, &[Source::Path(PathBuf::from(file))], prompt, &config)?[0];
        if context.json {
            output::line(json_line(file, &modality, caption));
        } else {
            output::line(format!("{file}: {}", caption.text.trim()));
        }
        if !caption.finished {
            output::warning(format!("{file}: truncated at {} tokens (--max-new-tokens)", config.max_new_tokens));
        }
    }
    Ok(())
}

/// Captions of a batch of rows: in one forward pass where they are of one modality and can all be read, else one by
/// one.
fn caption_rows(
    model: &Model,
    rows: &[BatchRow],
    prompt: Option<&str>,
    config: &GenerationConfig,
) -> Vec<Result<Value>> {
    let line = |row: &BatchRow, caption: &Generation| json_line(&row.path, &row.modality, caption);
    let one_modality = rows.iter().all(|r| r.modality == rows[0].modality);
    let sources: Vec<Source> = rows.iter().map(|r| r.source.clone()).collect();
    if let (true, Ok(captions)) = (one_modality, model.caption(&rows[0].modality, &sources, prompt, config)) {
        return rows.iter().zip(&captions).map(|(row, caption)| Ok(line(row, caption))).collect();
    }
    let single = |row: &BatchRow| {
        let captions = model.caption(&row.modality, std::slice::from_ref(&row.source), prompt, config)?;
        Ok(line(row, &captions[0]))
    };
    rows.iter().map(single).collect()
}

fn json_line(file: &str, modality: &Modality, caption: &Generation) -> Value {
    json!({
        "input": file, "modality": modality.name(), "text": caption.text, "score": caption.score, "finished": caption.finished,
        "tokens": caption.num_tokens,
    })
}
