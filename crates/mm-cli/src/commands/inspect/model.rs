//! Summary of a checkpoint folder: family, parameters, inputs and outputs, and tensors that the model does not use.

use crate::{context::Context, output};
use anyhow::Result;
use mm_core::{Modality, Role};
use serde_json::json;
use std::{collections::BTreeMap, path::Path};

/// Names of classes that are shown; `--json` has all.
const MAX_CLASSES: usize = 8;

pub(crate) fn inspect(dir: &Path, context: &Context) -> Result<()> {
    let place = mm_repr::ModelPaths::resolve(dir)?;
    let config = mm_repr::read_json(&place.files.join("config.json"))?;
    let family = config["model_type"].as_str().unwrap_or_default();
    let generates = mm_reason::families().contains(&family);
    if generates && !mm_repr::families().contains(&family) {
        return inspect_generative(dir, &place, context);
    }
    match mm_repr::Pretrained::load(dir) {
        Ok(model) => inspect_encoder(dir, &model, &place, context),
        // A checkpoint of a family with encoders and generative models (BLIP) may be of the other kind.
        Err(_) if generates => inspect_generative(dir, &place, context),
        Err(error) => Err(error.into()),
    }
}

fn inspect_encoder(
    dir: &Path,
    model: &mm_repr::Pretrained,
    place: &mm_repr::ModelPaths,
    context: &Context,
) -> Result<()> {
    let parameters = model.params.num_elements(&[Role::Frozen]);
    let mut dims = BTreeMap::new();
    for modality in model.modalities() {
        dims.insert(modality.to_string(), model.tower(&modality)?.encoder.dim());
    }
    let classifies = model.modalities().iter().any(|modality| model.has_classifier(modality));
    let classes = classifies.then_some(&model.classes.labels);
    if context.json {
        output::line(json!({
            "model": dir, "family": model.family, "parameters": parameters, "bytes": 4 * parameters,
            "inputs": dims.keys().collect::<Vec<_>>(), "outputs": "features", "dims": dims, "dual_encoder": model.contrastive_head.is_some(),
            "classes": classes, "reranker": model.is_reranker(), "unused_tensors": model.unexpected_keys, "adapter": place.adapter,
        }));
        return Ok(());
    }
    print_head(dir, &model.family, parameters, place);
    for (modality, dim) in dims {
        output::line(format!("  input       {modality} → features of dimension {dim}"));
    }
    if model.contrastive_head.is_some() {
        output::line("  space       shared by its modalities (mm classify --candidates)");
    }
    if let Some(classes) = classes {
        output::line(format!("  classes     {}", summary(classes)));
    }
    if model.is_reranker() {
        output::line("  reranker    scores the relevance of texts to a query (mm rerank)");
    }
    print_unused(&model.unexpected_keys);
    Ok(())
}

/// The number of classes and the first names.
fn summary(classes: &[String]) -> String {
    let shown = classes.iter().take(MAX_CLASSES).map(String::as_str).collect::<Vec<_>>().join(", ");
    format!("{}: {shown}{}", classes.len(), if classes.len() > MAX_CLASSES { ", …" } else { "" })
}

fn inspect_generative(dir: &Path, place: &mm_repr::ModelPaths, context: &Context) -> Result<()> {
    let model = mm_reason::Pipeline::load(dir, mm_repr::LoadOptions::default())?;
    let parameters = model.params.num_elements(&[Role::Frozen]);
    let kinds = [Modality::IMAGE, Modality::AUDIO, Modality::VIDEO];
    let inputs: Vec<String> = kinds.iter().filter(|m| model.processor(m).is_ok()).map(ToString::to_string).collect();
    let generates = model.can_generate();
    if context.json {
        output::line(json!({
            "model": dir, "family": model.family, "parameters": parameters, "bytes": 4 * parameters, "inputs": inputs,
            "outputs": if generates { "text" } else { "answer scores" },
            "answers": if generates { 0 } else { model.labels.len() }, "chat_template": model.tokenizer.has_chat_template(),
            "unused_tensors": model.unexpected_keys, "adapter": place.adapter,
        }));
        return Ok(());
    }
    print_head(dir, model.family, parameters, place);
    output::line(format!("  input       {} and text", inputs.join(", ")));
    let answers = if generates { "text".to_owned() } else { format!("scores of {} answers", model.labels.len()) };
    output::line(format!("  output      {answers}"));
    output::line("  fine-tuning full or LoRA (task = \"finetuning\")");
    print_unused(&model.unexpected_keys);
    Ok(())
}

fn print_head(dir: &Path, family: &str, parameters: usize, place: &mm_repr::ModelPaths) {
    output::line(format!("{}: {family}", dir.display()));
    if place.adapter.is_some() {
        output::line(format!("  adapter     applied to {}", place.weights.display()));
    }
    let (millions, megabytes) = (parameters as f64 / 1e6, parameters as f64 * 4e-6);
    output::line(format!("  parameters  {millions:.1} million ({megabytes:.1} MB in float32)"));
}

fn print_unused(names: &[String]) {
    output::line(format!("  unused      {} tensors{}", names.len(), if names.is_empty() { "" } else { ":" }));
    for name in names.iter().take(20) {
        output::line(format!("              {name}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_classes_the_first_are_named() {
        let classes = |count: usize| (0..count).map(|index| format!("class {index}")).collect::<Vec<_>>();
        assert_eq!(summary(&classes(2)), "2: class 0, class 1");
        assert!(summary(&classes(8)).ends_with(", class 7"));
        assert!(summary(&classes(1000)).starts_with("1000: class 0") && summary(&classes(9)).ends_with("class 7, …"));
    }
}
