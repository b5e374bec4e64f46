//! Runs that embed other runs build them with the caller's registry: an encoder of another crate is known inside
//! `kind = "learned"` and inside the run that `evaluator_run` names.
#![allow(missing_docs)]

use image::{Rgb, RgbImage};
use mm_core::{
    BuiltEncoder, Device, Encoder, Error, Features, Input, Modality, ProcessContext, Processor, Registry, Result,
    Source, Tensor,
};
use mm_data::Split;
use mm_tasks::{FitContext, TaskContext, TaskRegistry};
use mm_train::{NoopProgress, Run};
use serde_json::{Value, json};
use std::{
    path::Path,
    sync::{Arc, atomic::AtomicBool},
};

/// Text → the share of each letter, `[26]`.
struct Letters;

impl Processor for Letters {
    fn process(&self, source: &Source, _context: &mut ProcessContext) -> Result<Tensor> {
        let Source::Text(text) = source else { return Err(Error::Sample("not a text".into())) };
        let mut counts = [0.0f32; 26];
        text.bytes().filter(u8::is_ascii_lowercase).for_each(|b| counts[usize::from(b - b'a')] += 1.0);
        Tensor::from_slice(&counts)
    }
    fn is_sequence(&self) -> bool {
        false
    }
    fn fingerprint(&self) -> String {
        "letters".into()
    }
}

impl Encoder for Letters {
    fn encode(&self, input: &Input, _train: bool) -> Result<Features> {
        Features::from_pooled(&input.values)
    }
    fn dim(&self) -> i64 {
        26
    }
    fn modality(&self) -> Modality {
        Modality::TEXT
    }
}

fn register(registry: &mut Registry) {
    registry.register_encoder("letters", |_, _| {
        let fingerprint = "letters".to_owned();
        Ok(BuiltEncoder { processor: Arc::new(Letters), encoder: Box::new(Letters), frozen: true, fingerprint })
    });
}

fn write_dataset(folder: &Path) {
    let mut manifest = String::new();
    for row in 0..24u8 {
        let color = Rgb([row * 10, 200 - row * 5, 90]);
        RgbImage::from_pixel(8, 8, color).save(folder.join(format!("{row}.png"))).unwrap();
        let text =
            format!("{} {}", ["red", "green", "blue"][usize::from(row % 3)], ["owl", "fox"][usize::from(row % 2)]);
        let split = if row >= 16 { "test" } else { "train" };
        manifest += &(json!({"image": format!("{row}.png"), "text": text, "split": split}).to_string() + "\n");
    }
    std::fs::write(folder.join("data.jsonl"), manifest).unwrap();
}

const COMMON: &str = "cache_dir = \"cache\"\n[data]\nmanifest = \"data.jsonl\"\nsplit = { column = \"split\" }\n\
    columns = { modalities = { image = \"image\", text = \"text\" } }\n[loader]\nbatch_size = 8\n[train]\nepochs = 2\n";

struct Project {
    folder: tempfile::TempDir,
    encoders: Registry,
    tasks: TaskRegistry,
}

impl Project {
    fn new() -> Self {
        let (folder, mut encoders) = (tempfile::tempdir().unwrap(), mm_tasks::registry());
        write_dataset(folder.path());
        register(&mut encoders);
        Self { folder, encoders, tasks: mm_tasks::tasks() }
    }

    fn context(&self) -> TaskContext<'_> {
        TaskContext { encoders: &self.encoders, tasks: &self.tasks, device: Device::Cpu }
    }

    fn config(&self, text: &str) -> toml::Value {
        let base = self.folder.path().display().to_string();
        let (head, tables) = text.split_once('[').unwrap();
        toml::from_str(&format!("base_dir = {base:?}\n{head}{COMMON}[{tables}")).unwrap()
    }

    /// Trains a config into a run folder below the data set.
    fn train(&self, run: &str, text: &str) {
        let (context, folder) = (self.context(), self.folder.path());
        let mut value = self.config(text);
        context.resolve(&mut value, folder, &mut |_| {}).unwrap();
        let model = context.build(&value, folder).unwrap();
        let mut run = Run::create(&folder.join(run), &value, json!({})).unwrap();
        let fit_context =
            FitContext { progress: &mut NoopProgress, on_progress: &mut |_, _, _| {}, stop: &AtomicBool::new(false) };
        assert!(model.fit(model.dataset().unwrap(), &mut run, fit_context).unwrap().training.state.finished);
    }

    fn evaluate(&self, run: &str) -> Value {
        let context = self.context();
        let model = context.load(&self.folder.path().join(run)).unwrap();
        model.evaluate(Split::Test, &context, &mut |_, _, _| {}).unwrap().json
    }
}

const LETTERS_VAE: &str = "task = \"representation\"\n[inputs.text]\nkind = \"features\"\nencoder = { kind = \"letters\" }\n\
    [model]\nkind = \"vae\"\nlatent_dim = 3\nnetwork = { hidden_dims = [8] }\n";

const ON_LEARNED: &str = "task = \"retrieval\"\nembed_dim = 4\n\
    [towers.image]\nencoder = { kind = \"cnn\", image_size = 8, channels = [4, 4] }\n\
    [towers.text]\nencoder = { kind = \"learned\", run = \"vae\" }\n";

#[test]
fn a_learned_encoder_contains_an_encoder_of_another_crate() {
    let project = Project::new();
    project.train("vae", LETTERS_VAE);
    project.train("search", ON_LEARNED);
    let context = project.context();
    let model = context.load(&project.folder.path().join("search")).unwrap();
    let vector = model.embedder().unwrap().embed(&Modality::TEXT, &[Source::Text("red fox".into())]).unwrap();
    assert_eq!(vector.shape(), [1, 4]);
    // A program without that crate says which encoder it does not know.
    let built_in = mm_tasks::registry();
    let without = TaskContext { encoders: &built_in, ..context };
    let error = without.build(&project.config(ON_LEARNED), project.folder.path()).map(drop).unwrap_err().to_string();
    assert!(error.contains("unknown encoder kind `letters`"), "{error}");
}

#[test]
fn the_run_that_evaluates_generated_images_may_contain_an_encoder_of_another_crate() {
    let project = Project::new();
    project.train(
        "evaluator",
        "task = \"retrieval\"\nembed_dim = 4\n\
         [towers.image]\nencoder = { kind = \"cnn\", image_size = 8, channels = [4, 4] }\n\
         [towers.text]\nencoder = { kind = \"letters\" }\n",
    );
    project.train(
        "both",
        "task = \"representation\"\nevaluator_run = \"evaluator\"\n[inputs.image]\nkind = \"image\"\nimage_size = 8\n\
         [inputs.text]\nkind = \"features\"\nencoder = { kind = \"letters\" }\n\
         [model]\nkind = \"multimodal_vae\"\njoint_posterior = \"product_of_experts\"\nlatent_dim = 2\n",
    );
    let found = project.evaluate("both");
    let metrics = found["metrics"].as_array().unwrap();
    let ranked = metrics.iter().find(|m| m["id"] == "recall_at_10" && m["scope"] == "generated_image_to_text");
    let ranked = ranked.unwrap_or_else(|| panic!("no recall of generated images in {found}"));
    assert!(ranked["baselines"]["real_images"].is_number(), "{ranked}");
}
