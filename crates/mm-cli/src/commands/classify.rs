//! `mm classify`: texts, images, audio and video by a checkpoint's classes, or zero-shot by candidate labels.

use crate::{
    args::{dtype::DtypeArgs, files::FileArgs, limit::Limit, model::ModelArgs},
    commands::embed,
    context::Context,
    exit::usage,
    output,
};
use anyhow::{Result, bail};
use mm_core::{Modality, Source};
use mm_repr::{CandidateLabels, ClassScore, Pretrained};
use serde_json::json;
use std::path::PathBuf;

/// Classify texts, images, audio or video with a checkpoint's classes, or zero-shot with labels of your own
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  mm classify --model efficientnet-lite0 --image photo.jpg --k 5\n  mm classify --model distilbert/distilbert-base-uncased-finetuned-sst-2-english --text \"a superb film\"\n  mm classify --model openai/clip-vit-base-patch32 --image photo.jpg --candidates cat,dog,horse --template \"a photo of a {}\"\n\nJSON, one line an input: {\"input\": …, \"modality\": …, \"results\": [{\"rank\": 1, \"label\": …, \"score\": …, \"logit\": …}]}"
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    model: ModelArgs,
    /// Text; may be repeated.
    #[arg(long, value_name = "TEXT", help_heading = "Inputs", conflicts_with = "candidates")]
    text: Vec<String>,
    #[command(flatten)]
    files: FileArgs,
    /// Number of classes to show, best first, or all.
    #[arg(long, value_name = "N|all", default_value = "5")]
    k: Limit,
    /// Labels for zero-shot classification of files, for models that embed text with images or audio (CLIP, SigLIP,
    /// CLAP).
    #[arg(long, value_name = "A,B,C", value_delimiter = ',')]
    candidates: Vec<String>,
    /// Prompt around each of --candidates, with `{}` for the label; may be repeated, their embeddings are averaged
    /// [default: a photo of a {}; for audio: This is a sound of {}.].
    #[arg(long, value_name = "TEXT", requires = "candidates")]
    template: Vec<String>,
    #[command(flatten)]
    dtype: DtypeArgs,
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<()> {
    let FileArgs { image, audio, video } = &arguments.files;
    let inputs = [("text", &arguments.text), ("image", image), ("audio", audio), ("video", video)];
    if inputs.iter().all(|(_, values)| values.is_empty()) {
        usage!("nothing to classify; give --text, --image, --audio or --video");
    }
    let model = Pretrained::load_with(&arguments.model.dir()?, arguments.dtype.load_options(context)?)?;
    let zero_shot = !arguments.candidates.is_empty();
    let candidates = zero_shot.then(|| candidate_labels(&model, arguments)).transpose()?;
    for (kind, values) in inputs {
        if values.is_empty() {
            continue;
        }
        let modality = Modality::from(kind);
        let source = |v: &String| if kind == "text" { Source::Text(v.clone()) } else { Source::Path(PathBuf::from(v)) };
        let sources: Vec<Source> = values.iter().map(source).collect();
        let classes = match &candidates {
            Some(candidates) => model.classify_zero_shot(&modality, &sources, candidates)?,
            None => model.classify(&modality, &sources)?,
        };
        for (value, mut classes) in values.iter().zip(classes) {
            classes.truncate(arguments.k.get());
            print_classes(value, kind, &classes, context);
        }
    }
    embed::warn_truncated(&model);
    Ok(())
}

fn print_classes(input: &str, kind: &str, classes: &[ClassScore], context: &Context) {
    if context.json {
        let result = |(class, rank): (&ClassScore, usize)| json!({"rank": rank, "label": class.label, "score": class.score, "logit": class.logit});
        let results: Vec<_> = classes.iter().zip(1..).map(result).collect();
        output::line(json!({"input": input, "modality": kind, "results": results}));
    } else {
        output::line(format!("{input}:"));
        for class in classes {
            output::line(format!("  {:6.2} %  {}", 100.0 * class.score, class.label));
        }
    }
}

/// The labels of `--candidates` in the prompts of `--template`.
fn candidate_labels(model: &Pretrained, arguments: &Arguments) -> Result<CandidateLabels> {
    if model.contrastive_head.is_none() {
        bail!(
            "--candidates: expected a model that embeds text in the same space (CLIP, SigLIP, CLAP); found family {}",
            model.family
        );
    }
    let modality = if arguments.files.audio.is_empty() { Modality::IMAGE } else { Modality::AUDIO };
    let default = [CandidateLabels::default_template(&modality).to_owned()];
    let templates = if arguments.template.is_empty() { &default[..] } else { &arguments.template };
    Ok(CandidateLabels::embed(model, &arguments.candidates, templates)?)
}
