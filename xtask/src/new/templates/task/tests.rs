//! The task as a program uses it: checked, trained, evaluated on held-out rows, reported.

use super::{TASK, spec};
use mm_core::{Device, Registry, config as settings, seed::Rng};
use mm_data::Split;
use mm_tasks::{FitContext, TaskContext, TaskRegistry};
use mm_train::{NoopProgress, Run};
use serde_json::json;
use std::{path::Path, sync::atomic::AtomicBool};

const CONFIG: &str = r#"
task = "template_name"
modality = "vector"
target = "y"
[data]
manifest = "data.jsonl"
columns = { modalities = { vector = "x" } }
split = { test = 0.25, valid = 0.2 }
[encoder]
kind = "vector"
dim = 3
[train]
epochs = 60
optimizer = { lr = 5e-2 }
"#;

/// Rows whose number is a linear function of three features, plus noise; every tenth lacks its number.
fn write_dataset(folder: &Path) {
    let mut rng = Rng::new(&[2]);
    let mut text = String::new();
    for row in 0..200 {
        let x: Vec<f64> = (0..3).map(|_| rng.uniform_range(-1.0, 1.0)).collect();
        let y = 40.0 + 3.0 * x[0] - 2.0 * x[1] + rng.uniform_range(-0.1, 0.1);
        let y = if row % 10 == 0 { json!(null) } else { json!(y) };
        text += &(json!({"x": x, "y": y}).to_string() + "\n");
    }
    std::fs::write(folder.join("data.jsonl"), text).unwrap();
}

fn registries() -> (Registry, TaskRegistry) {
    let mut tasks = mm_tasks::tasks();
    tasks.register(spec());
    (mm_tasks::registry(), tasks)
}

#[test]
fn a_model_is_trained_and_predicts_held_out_rows_better_than_the_mean() {
    let folder = tempfile::tempdir().unwrap();
    write_dataset(folder.path());
    let (encoders, tasks) = registries();
    let context = TaskContext { encoders: &encoders, tasks: &tasks, device: Device::Cpu };
    let mut value: toml::Value = toml::from_str(CONFIG).unwrap();
    context.check(&value).unwrap();
    let base_dir = folder.path().display().to_string();
    settings::set(&mut value, &format!("base_dir={base_dir:?}")).unwrap();
    context.resolve(&mut value, folder.path(), &mut |_| {}).unwrap();
    let model = context.build(&value, folder.path()).unwrap();
    let runs = [folder.path().join("run")];
    let mut run = Run::create(&runs[0], &value, json!({})).unwrap();
    let fit_context =
        FitContext { progress: &mut NoopProgress, on_progress: &mut |_, _, _| {}, stop: &AtomicBool::new(false) };
    let outcome = model.fit(model.dataset().unwrap(), &mut run, fit_context).unwrap();
    assert!(outcome.training.state.finished && outcome.failed.is_empty());
    let loaded = context.load(&runs[0]).unwrap();
    let found = loaded.evaluate(Split::Test, &context, &mut |_, _, _| {}).unwrap().json;
    let mae = &found["metrics"][0];
    assert_eq!(mae["id"], "mae", "{found}");
    let (value, baseline) = (mae["value"].as_f64().unwrap(), mae["baselines"]["mean"].as_f64().unwrap());
    assert!(value < 0.5 * baseline, "{value}, the mean of the training rows {baseline}");
    let report = context.report(&runs, Split::Test, &mut |_, _, _| {}).unwrap();
    assert!(report.html.contains("mae"));
}

#[test]
fn wrong_configs_are_errors_that_name_the_key() {
    let (encoders, tasks) = registries();
    let context = TaskContext { encoders: &encoders, tasks: &tasks, device: Device::Cpu };
    let error = |setting: &str| {
        let mut value: toml::Value = toml::from_str(CONFIG).unwrap();
        settings::set(&mut value, setting).unwrap();
        context.check(&value).unwrap_err().to_string()
    };
    assert!(error("targets=y").contains("did you mean `target`"));
    assert!(error("statistics=[0.0, -1.0]").contains("positive standard deviation"));
    assert_eq!(tasks.get(TASK).unwrap().name, TASK);
}
