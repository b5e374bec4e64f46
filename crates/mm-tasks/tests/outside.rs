//! A modality that is defined outside of mm, by public traits: numeric tables, for which a retrieval model is trained
//! and evaluated on held-out rows.
#![allow(missing_docs)]

use mm_core::{
    BuiltEncoder, Device, Encoder, Error, Features, Input, Modality, Module, ProcessContext, Processor, Registry,
    Result, Source, Tensor, config, nn::Linear, seed::Rng,
};
use mm_data::Split;
use mm_tasks::{
    FitContext,
    config::parse_task,
    retrieval::{Retrieval, direction_metrics},
    task::TaskModel,
};
use mm_train::{NoopProgress, Run};
use std::{
    path::Path,
    sync::{Arc, atomic::AtomicBool},
};

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    modality: String,
    columns: i64,
}

struct Columns(i64);

impl Processor for Columns {
    fn process(&self, source: &Source, _context: &mut ProcessContext) -> Result<Tensor> {
        let Source::Value(value) = source else { return Err(Error::Sample("not a table".into())) };
        let values: Vec<f32> =
            value.as_array().into_iter().flatten().filter_map(|v| v.as_f64().map(|v| v as f32)).collect();
        if values.len() as i64 != self.0 {
            return Err(Error::Sample(format!("found {} numbers, expected {}", values.len(), self.0)));
        }
        Tensor::from_slice(&values)
    }
    fn is_sequence(&self) -> bool {
        false
    }
    fn fingerprint(&self) -> String {
        format!("columns {}", self.0)
    }
}

struct Table {
    layer: Linear,
    modality: Modality,
}

impl Encoder for Table {
    fn encode(&self, input: &Input, train: bool) -> Result<Features> {
        Features::from_pooled(&self.layer.forward(&input.values, train)?.gelu()?)
    }
    fn dim(&self) -> i64 {
        32
    }
    fn modality(&self) -> Modality {
        self.modality.clone()
    }
}

fn register(registry: &mut Registry) {
    registry.register_encoder("tabular", |settings, context| {
        let settings: Settings = config::parse(settings, &context.field)?;
        let layer = Linear::new(&context.scope.pp("layer"), settings.columns, 32, true)?;
        let encoder = Table { layer, modality: Modality::new(settings.modality) };
        Ok(BuiltEncoder {
            processor: Arc::new(Columns(settings.columns)),
            encoder: Box::new(encoder),
            frozen: false,
            fingerprint: String::new(),
        })
    });
}

const CONFIG: &str = r#"
task = "retrieval"
embed_dim = 16
cache_dir = "cache"
[data]
manifest = "data.jsonl"
columns = { modalities = { weather = "weather", readings = "readings" }, id = "id" }
split = { test = 0.25, seed = 3 }
[loader]
batch_size = 64
[towers.weather]
encoder = { kind = "tabular", modality = "weather", columns = 6 }
[towers.readings]
encoder = { kind = "tabular", modality = "readings", columns = 9 }
[train]
epochs = 30
optimizer = { lr = 3e-3 }
"#;

fn write_dataset(folder: &Path) {
    // Readings are a mixture of the weather and noise; every fifth row lacks them.
    let mut rng = Rng::new(&[1]);
    let mixing: Vec<f64> = (0..54).map(|_| rng.uniform_range(-1.0, 1.0)).collect();
    let mut text = String::new();
    for row in 0..320 {
        let weather: Vec<f64> = (0..6).map(|_| rng.uniform_range(-1.0, 1.0)).collect();
        let readings: Vec<f64> = (0..9)
            .map(|o| (0..6).map(|i| mixing[o * 6 + i] * weather[i]).sum::<f64>() + rng.uniform_range(-0.05, 0.05))
            .collect();
        let readings = if row % 5 == 0 { "null".to_owned() } else { format!("{readings:?}") };
        text += &format!("{{\"id\":\"{row}\",\"weather\":{weather:?},\"readings\":{readings}}}\n");
    }
    std::fs::write(folder.join("data.jsonl"), text).unwrap();
}

#[test]
fn a_modality_of_another_crate_is_trained_and_retrieves_held_out_rows() {
    let folder = tempfile::tempdir().unwrap();
    write_dataset(folder.path());
    let value: toml::Value = toml::from_str(CONFIG).unwrap();
    let mut registry = mm_tasks::registry();
    register(&mut registry);
    let mut recalls = Vec::new();
    for seed in 0..3 {
        let mut value = value.clone();
        config::set(&mut value, &format!("train.seed={seed}")).unwrap();
        let model = Retrieval::new(parse_task(&value).unwrap(), folder.path(), &registry, Device::Cpu).unwrap();
        let mut run = Run::create(&folder.path().join(format!("run{seed}")), &value, serde_json::Value::Null).unwrap();
        let context =
            FitContext { progress: &mut NoopProgress, on_progress: &mut |_, _, _| {}, stop: &AtomicBool::new(false) };
        let outcome = TaskModel::fit(&model, model.dataset().unwrap(), &mut run, context).unwrap();
        assert!(outcome.training.state.finished && outcome.failed.is_empty());
        let manifest = model.dataset().unwrap();
        let embedded = model.embed_split(&manifest, Split::Test, &mut |_, _, _| {}).unwrap();
        let found = direction_metrics(&embedded, Split::Test).unwrap();
        let metrics = &found.directions["readings_to_weather"];
        assert!(metrics.queries < metrics.gallery, "rows without readings are candidates too");
        // An untrained model is hardly better than chance.
        let untrained = Retrieval::new(parse_task(&value).unwrap(), folder.path(), &registry, Device::Cpu).unwrap();
        let before =
            direction_metrics(&untrained.embed_split(&manifest, Split::Test, &mut |_, _, _| {}).unwrap(), Split::Test)
                .unwrap();
        recalls.push((metrics.recall[0], before.directions["readings_to_weather"].recall[0], metrics.chance[0]));
    }
    let mean = recalls.iter().map(|r| r.0).sum::<f64>() / 3.0;
    assert!(mean > 0.5, "{recalls:?}");
    assert!(
        recalls.iter().all(|(after, before, chance)| after > before && *before < 0.2 && *chance < 0.03),
        "{recalls:?}"
    );
}
