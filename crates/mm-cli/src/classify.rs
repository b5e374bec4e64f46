//! `mm classify`: what a picture, a sound or a video shows, by a checkpoint's own classes or by words of the user's.

use crate::{Context, embed, output};
use anyhow::{Result, bail};
use mm_core::{Modality, Source, Tensor};
use mm_repr::{Pretrained, locate};
use serde_json::json;
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// A checkpoint folder, or the name of a fetched model.
    #[arg(long, value_name = "DIR|NAME")]
    model: PathBuf,
    #[command(flatten)]
    files: embed::Files,
    /// How many classes to show, best first; 0 for all.
    #[arg(long, value_name = "K", default_value_t = 5)]
    top: usize,
    /// Classes in words, for models that put text and pictures (or sounds) into one space.
    #[arg(long, value_name = "A,B,C", value_delimiter = ',')]
    labels: Vec<String>,
    /// A sentence around each of --labels, `{}` standing for it; of several, the mean counts (by itself: a photo of a {}; for sounds:
    /// This is a sound of {}.).
    #[arg(long, value_name = "TEXT")]
    template: Vec<String>,
    #[command(flatten)]
    numbers: embed::Numbers,
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<()> {
    let kinds =
        [("image", &arguments.files.image), ("audio", &arguments.files.audio), ("video", &arguments.files.video)];
    if kinds.iter().all(|(_, files)| files.is_empty()) {
        bail!("nothing to classify; give --image, --audio or --video");
    }
    let model = Pretrained::load_with(&locate(&arguments.model, Path::new(".")), arguments.numbers.options(context)?)?;
    let labels = if arguments.labels.is_empty() { model.labels.clone() } else { arguments.labels.clone() };
    let classes = if arguments.labels.is_empty() { None } else { Some(prompts(&model, arguments)?) };
    for (kind, files) in kinds {
        if files.is_empty() {
            continue;
        }
        let modality = Modality::from(kind);
        let sources: Vec<Source> = files.iter().map(|f| Source::File(PathBuf::from(f))).collect();
        let (logits, apart) = match (&classes, model.contrastive_head) {
            (Some(classes), Some(joint)) => {
                let scores = model.embed(&modality, &sources, None)?.matmul(&classes.transpose(0, 1)?)?;
                let logits = scores.mul_scalar(joint.scale)?.add_scalar(joint.bias.unwrap_or(0.0))?;
                (logits, joint.bias.is_some())
            }
            _ => (model.logits(&modality, &sources)?, model.multi_label),
        };
        // Classes that do not exclude each other each have a probability of their own.
        let scores = if apart { logits.sigmoid()? } else { logits.softmax(-1)? };
        let (scores, logits) = (scores.to_vec::<f32>()?, logits.to_vec::<f32>()?);
        for (row, file) in files.iter().enumerate() {
            show(file, row, &labels, &scores, &logits, arguments.top, context);
        }
    }
    embed::tell_cuts(&model);
    Ok(())
}

fn show(file: &str, row: usize, labels: &[String], scores: &[f32], logits: &[f32], top: usize, context: &Context) {
    let from = row * labels.len();
    let mut order: Vec<usize> = (0..labels.len()).collect();
    order.sort_by(|a, b| logits[from + b].total_cmp(&logits[from + a]).then(a.cmp(b)));
    if top > 0 {
        order.truncate(top);
    }
    if context.json {
        let rows: Vec<_> = order
            .iter()
            .map(|i| json!({"label": labels[*i], "score": scores[from + i], "logit": logits[from + i]}))
            .collect();
        output::line(json!({"input": file, "scores": rows}));
    } else {
        output::line(format!("{file}:"));
        for i in order {
            output::line(format!("  {:6.2} %  {}", 100.0 * scores[from + i], labels[i]));
        }
    }
}

/// One vector a label, of unit length: the mean over its sentences.
fn prompts(model: &Pretrained, arguments: &Arguments) -> Result<Tensor> {
    if model.contrastive_head.is_none() {
        bail!(
            "--labels needs a model that puts text into the same space (CLIP, SigLIP …); this one is of family {}",
            model.family
        );
    }
    let mut rows = Vec::new();
    let usual = if arguments.files.audio.is_empty() { "a photo of a {}" } else { "This is a sound of {}." };
    let templates = if arguments.template.is_empty() { vec![usual.to_owned()] } else { arguments.template.clone() };
    for label in &arguments.labels {
        let texts: Vec<Source> = templates.iter().map(|t| Source::Text(t.replace("{}", label.trim()))).collect();
        rows.push(model.embed(&Modality::TEXT, &texts, None)?.mean_dims(&[0], false)?);
    }
    Ok(Tensor::stack(&rows.iter().collect::<Vec<_>>(), 0)?.normalize()?)
}
