//! `mm classify`: images, audio and video by a checkpoint's classes, or zero-shot by candidate labels.

use crate::{
    args::{dtype::DtypeArgs, files::FileArgs, limit::Limit, model::ModelArgs},
    commands::embed,
    context::Context,
    exit::usage,
    output,
};
use anyhow::{Result, bail};
use mm_core::{Modality, Source, Tensor};
use mm_repr::Pretrained;
use serde_json::json;
use std::path::PathBuf;

/// Classify images, audio or video with a checkpoint's classes, or zero-shot with labels of your own
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  mm classify --model efficientnet-lite0 --image photo.jpg --k 5\n  mm classify --model openai/clip-vit-base-patch32 --image photo.jpg --candidates cat,dog,horse --template \"a photo of a {}\"\n\nJSON, one line a file: {\"input\": …, \"modality\": …, \"results\": [{\"rank\": 1, \"label\": …, \"score\": …, \"logit\": …}]}"
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    files: FileArgs,
    /// Number of classes to show, best first, or all.
    #[arg(long, value_name = "N|all", default_value = "5")]
    k: Limit,
    /// Labels for zero-shot classification, for models that embed text with images or audio (CLIP, SigLIP, CLAP).
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
    let inputs = [("image", image), ("audio", audio), ("video", video)];
    if inputs.iter().all(|(_, files)| files.is_empty()) {
        usage!("nothing to classify; give --image, --audio or --video");
    }
    let model = Pretrained::load_with(&arguments.model.dir()?, arguments.dtype.load_options(context)?)?;
    let zero_shot = !arguments.candidates.is_empty();
    let labels = if zero_shot { arguments.candidates.clone() } else { model.labels.clone() };
    let classes = zero_shot.then(|| label_embeddings(&model, arguments)).transpose()?;
    for (kind, files) in inputs {
        if files.is_empty() {
            continue;
        }
        let modality = Modality::from(kind);
        let sources: Vec<Source> = files.iter().map(|f| Source::Path(PathBuf::from(f))).collect();
        let (logits, multi_label) = match (&classes, model.contrastive_head) {
            (Some(classes), Some(joint)) => {
                let cosines = model.embed(&modality, &sources, None)?.matmul(&classes.transpose(0, 1)?)?;
                let logits = cosines.mul_scalar(joint.logit_scale)?.add_scalar(joint.logit_bias.unwrap_or(0.0))?;
                (logits, joint.logit_bias.is_some())
            }
            _ => (model.logits(&modality, &sources)?, model.multi_label),
        };
        // Labels that do not exclude each other each have a probability of their own.
        let scores = if multi_label { logits.sigmoid()? } else { logits.softmax(-1)? };
        let (scores, logits) = (scores.to_vec::<f32>()?, logits.to_vec::<f32>()?);
        let rows = scores.chunks(labels.len().max(1)).zip(logits.chunks(labels.len().max(1)));
        for (file, (scores, logits)) in files.iter().zip(rows) {
            print_scores(file, kind, &labels, scores, logits, arguments.k, context);
        }
    }
    embed::warn_truncated(&model);
    Ok(())
}

fn print_scores(
    file: &str,
    kind: &str,
    labels: &[String],
    scores: &[f32],
    logits: &[f32],
    k: Limit,
    context: &Context,
) {
    let mut order: Vec<usize> = (0..labels.len()).collect();
    order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]).then(a.cmp(b)));
    order.truncate(k.get());
    if context.json {
        let result = |(rank, i): (usize, &usize)| {
            json!({"rank": rank + 1, "label": labels[*i], "score": scores[*i], "logit": logits[*i]})
        };
        let results: Vec<_> = order.iter().enumerate().map(result).collect();
        output::line(json!({"input": file, "modality": kind, "results": results}));
    } else {
        output::line(format!("{file}:"));
        for i in order {
            output::line(format!("  {:6.2} %  {}", 100.0 * scores[i], labels[i]));
        }
    }
}

/// One unit-length vector for each label, `[labels, dim]`: the mean over its prompts.
fn label_embeddings(model: &Pretrained, arguments: &Arguments) -> Result<Tensor> {
    if model.contrastive_head.is_none() {
        bail!(
            "--candidates: expected a model that embeds text in the same space (CLIP, SigLIP, CLAP); found family {}",
            model.family
        );
    }
    let default = if arguments.files.audio.is_empty() { "a photo of a {}" } else { "This is a sound of {}." };
    let templates = if arguments.template.is_empty() { vec![default.to_owned()] } else { arguments.template.clone() };
    let mut rows = Vec::new();
    for label in &arguments.candidates {
        let texts: Vec<Source> = templates.iter().map(|t| Source::Text(t.replace("{}", label.trim()))).collect();
        rows.push(model.embed(&Modality::TEXT, &texts, None)?.mean_dim(&[0], false)?);
    }
    Ok(Tensor::stack(&rows.iter().collect::<Vec<_>>(), 0)?.normalize()?)
}
