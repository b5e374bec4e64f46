//! Fine-tuning of checkpoints, with all weights or with adapters.

use super::{fixture, lines};
use crate::{
    common::{find_metric, metric, refused},
    datasets::color_images,
};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Fine-tunes a checkpoint on `colors.jsonl`: the run folder and its evaluation.
fn finetune(folder: &Path, name: &str, model: &str, adapter: &str, epochs: u32) -> (PathBuf, Value) {
    let config = format!(
        r#"task = "finetuning"
model = {model:?}
answer_column = "answer"
max_length = 4
{adapter}
[data]
manifest = "colors.jsonl"
[data.columns]
modalities = {{ text = "text", image = "image" }}
[data.split]
column = "split"
[loader]
batch_size = 6
[train]
epochs = {epochs}
log_every_steps = 10
[train.optimizer]
lr = 8e-3
"#
    );
    std::fs::write(folder.join(format!("{name}.toml")), config).unwrap();
    let run = folder.join(name);
    lines(&["train", &format!("{name}.toml"), "--out", run.to_str().unwrap(), "--json"], folder);
    let evaluation = lines(&["eval", "--model", run.to_str().unwrap(), "--json"], folder).remove(0);
    (run, evaluation)
}

#[test]
fn fine_tuned_adapted_and_merged_models_give_the_same_answers() {
    let temp_dir = tempfile::tempdir().unwrap();
    let folder = temp_dir.path();
    color_images(folder, [("train", 12), ("test", 4)]);
    let adapter = "[adapter]\nrank = 4\n";
    for (name, model, adapter, epochs) in [
        ("vilt-adapter", "vilt-vqa", adapter, 12),
        ("vilt-full", "vilt-vqa", "", 12),
        ("blip-adapter", "blip-vqa", adapter, 20),
        ("blip-full", "blip-vqa", "", 12),
        ("qwen2_vl-4-bit", "qwen2_vl-image", "[adapter]\nrank = 4\nquantize = \"nf4\"\n", 20),
    ] {
        let (run, evaluation) = finetune(folder, name, &fixture(model), adapter, epochs);
        let accuracy = metric(&evaluation, "accuracy");
        let prior = &find_metric(&evaluation, "accuracy")["baselines"]["language_prior"];
        assert!(accuracy > 0.9, "{name}: {evaluation}");
        assert!((prior.as_f64().unwrap() - 1.0 / 3.0).abs() < 1e-9, "{name}: {evaluation}");
        // Three of four annotators give the correct answer. Leaving out each annotator in turn, min(matches / 3, 1) is
        // 2/3 three times and 1 once: 3/4.
        let mut metrics = evaluation["metrics"].as_array().unwrap().iter();
        let vqa = metrics.find(|m| m["id"] == "vqa_accuracy" && m["scope"] == "other").unwrap();
        assert!((vqa["value"].as_f64().unwrap() - accuracy * 0.75).abs() < 1e-9, "{evaluation}");

        // The run, the model in the format of transformers or PEFT, and the merged model give the same answer.
        let (model, merged) = (run.join("model"), folder.join(format!("{name}-merged")));
        let is_adapter = model.join("adapter_config.json").exists();
        assert_eq!(is_adapter, !adapter.is_empty());
        let mut models = vec![run.clone(), model.clone()];
        if is_adapter {
            let merge = ["merge", "--model", model.to_str().unwrap(), "--out", merged.to_str().unwrap(), "--json"];
            assert!(lines(&merge, folder)[0]["tensors"].as_u64().unwrap() > 20);
            models.push(merged.clone());
            refused(&merge, folder, &["already holds a model"]);
        }
        let answer = |model: &PathBuf| {
            let answer = ["answer", "--model", model.to_str().unwrap(), "--image", "test-1-dog.png"];
            lines(&[&answer, ["--question", "the quick", "--json", "--k", "3"].as_slice()].concat(), folder).remove(0)
        };
        let answers: Vec<Value> = models.iter().map(answer).collect();
        assert_eq!(answers[0]["answer"], "dog", "{name}: {answers:?}");
        let logit = |v: &Value| v["results"][0]["logit"].as_f64().unwrap();
        assert!(
            answers.iter().all(|a| a["answer"] == answers[0]["answer"] && (logit(a) - logit(&answers[0])).abs() < 1e-4),
            "{answers:?}"
        );
    }
    lines(&["report", "--model", "blip-full", "--json"], folder);
    let page = std::fs::read_to_string(folder.join("blip-full/report.html")).unwrap();
    assert!(page.contains("language_prior"));
}

#[test]
fn invalid_fine_tuning_configs_are_refused() {
    let temp_dir = tempfile::tempdir().unwrap();
    let folder = temp_dir.path();
    color_images(folder, [("train", 2), ("test", 1)]);
    let vilt = format!("model = {:?}\n", fixture("vilt-vqa"));
    let train = |head: &str, wanted: &[&str]| {
        let config = format!(
            "task = \"finetuning\"\n{head}\n[data]\nmanifest = \"colors.jsonl\"\n\
             [data.columns]\nmodalities = {{ text = \"text\", image = \"image\" }}\n[data.split]\ncolumn = \"split\"\n"
        );
        std::fs::write(folder.join("bad.toml"), config).unwrap();
        refused(&["train", "bad.toml", "--out", "run"], folder, wanted);
    };
    train(&format!("{vilt}answer_column = \"answr\""), &["an answer in the column `answr`"]);
    train(&vilt, &["expected the column of the answers"]);
    train("model = \"nowhere\"\nanswer_column = \"answer\"", &["no such folder"]);
    train(
        &format!("{vilt}answer_column = \"answer\"\n[adapter]\nrank = 0"),
        &["adapter.rank: found 0, expected at least 1"],
    );
    train(
        &format!("{vilt}answer_column = \"answer\"\n[adapter]\ntarget_modules = [\"qkv\"]"),
        &["no layer of `vilt` matches qkv"],
    );
    train(
        &format!("{vilt}answer_column = \"answer\"\ninput_modality = \"audio\""),
        &["found no such row", "expected audio"],
    );
}

#[test]
fn adapters_without_a_base_model_or_of_another_type_are_refused() {
    let temp_dir = tempfile::tempdir().unwrap();
    let folder = temp_dir.path();
    let adapter = folder.join("adapter");
    std::fs::create_dir(&adapter).unwrap();
    let config = r#"{"peft_type": "LORA", "base_model_name_or_path": "nobody/nothing"}"#;
    std::fs::write(adapter.join("adapter_config.json"), config).unwrap();
    let answer = ["answer", "--model", "adapter", "--image", "x.png", "--question", "what?"];
    refused(&answer, folder, &["nobody/nothing", "models pull"]);
    std::fs::write(adapter.join("adapter_config.json"), r#"{"peft_type": "IA3"}"#).unwrap();
    refused(&answer, folder, &["found IA3, expected LORA"]);
}
