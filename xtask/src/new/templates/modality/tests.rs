//! What every modality has to hold: values are read as stated, a broken one is an error that says so, a row's features do
//! not depend on its batch, and a model learns more on held-out rows than a simple baseline.

use super::{Statistics, TemplateNameProcessor, readings, register};
use mm_core::{
    BuildContext, Device, Input, Params, ProcessContext, Processor, Registry, Source, Tensor, no_grad, seed::Rng,
};
use mm_tasks::{
    FitContext,
    prediction::{FitOptions, Preset, fit_table},
};
use mm_train::NoopProgress;
use serde_json::{Value, json};
use std::{
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
};

fn registry() -> Registry {
    let mut registry = Registry::new();
    register(&mut registry);
    registry
}

#[test]
fn readings_are_standardized_by_the_statistics_of_training() {
    let value = Source::Value(json!([[1, 10], [3, 10]]));
    let statistics = Statistics::fit(&[&value]).unwrap();
    // The second channel is constant: it is centered and not scaled.
    assert_eq!(statistics, Statistics { mean: vec![2.0, 10.0], deviation: vec![1.0, 1.0] });
    let processor = TemplateNameProcessor::new(statistics);
    let sample = processor.process(&value, &mut ProcessContext::eval()).unwrap();
    assert_eq!((sample.shape(), sample.to_vec::<f32>().unwrap()), (vec![2, 2], vec![-1.0, 0.0, 1.0, 0.0]));
    // The cell of a CSV file, and a file of its own.
    assert_eq!(readings(&Source::Value(json!("[[1, 10], [3, 10]]"))).unwrap(), [[1.0, 10.0], [3.0, 10.0]]);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.csv");
    std::fs::write(&file, "1, 10\n\n3, 10\n").unwrap();
    assert_eq!(readings(&Source::Path(file)).unwrap(), [[1.0, 10.0], [3.0, 10.0]]);
}

#[test]
fn a_broken_value_is_an_error_that_says_what_was_found() {
    let processor = TemplateNameProcessor::new(Statistics { mean: vec![0.0; 2], deviation: vec![1.0; 2] });
    let error = |value: Source| processor.process(&value, &mut ProcessContext::eval()).unwrap_err().to_string();
    for (value, expected) in [
        (json!("some words"), "found \"some words\", expected a list of readings"),
        (json!([1, 2, 3]), "expected a list of readings"),
        (json!([[1, "x"]]), "expected a list of readings"),
        (json!([]), "found no reading"),
        (json!([[1, 2], [3]]), "reading 2: found 1 numbers, expected 2"),
        (json!([[1, 2, 3]]), "found readings of 3 channels, expected 2"),
        (Value::Null, "expected a list of readings"),
    ] {
        let found = error(Source::Value(value));
        assert!(found.contains(expected), "{found}");
    }
    assert!(error(Source::Path("missing.csv".into())).contains("missing.csv"));
    let no_statistics: toml::Value = toml::from_str("kind = \"template_name\"\nstatistic = 1").unwrap();
    let (params, registry) = (Params::new(Device::Cpu), registry());
    let context = BuildContext {
        scope: params.scope(),
        base_dir: PathBuf::new(),
        field: "inputs.template_name".into(),
        registry: &registry,
    };
    let found = registry.build(&no_statistics, &context).err().unwrap().to_string();
    assert!(found.contains("inputs.template_name") && found.contains("statistic"), "{found}");
}

#[test]
fn a_row_has_the_same_features_alone_and_in_a_batch() {
    let values = [4, 1, 9].map(|length| Source::Value(json!(vec![[0.5, -1.0]; length])));
    let registry = registry();
    let mut settings: toml::Value = toml::from_str("kind = \"template_name\"\ndim = 6").unwrap();
    registry.complete(&mut settings, &values.each_ref()).unwrap();
    let params = Params::new(Device::Cpu);
    let context =
        BuildContext { scope: params.scope(), base_dir: PathBuf::new(), field: String::new(), registry: &registry };
    let built = registry.build(&settings, &context).unwrap();
    let random = |length: i64| Tensor::randn(&[1, length, 2], mm_core::DType::F32, Device::Cpu).unwrap();
    let (short, long) = (random(4), random(9));
    let padded = Tensor::cat(&[&short.pad(&[0, 0, 0, 5], 7.0).unwrap(), &long], 0).unwrap();
    let mask: Vec<bool> = (0..18).map(|n| !(4..9).contains(&n)).collect();
    let mask = Tensor::from_vec(&mask, &[2, 9]).unwrap();
    let embed = |values: Tensor, mask: Option<Tensor>| {
        no_grad(|| built.encoder.embed(&Input { values, mask }, false)).unwrap().narrow(0, 0, 1).unwrap()
    };
    let (alone, batched) = (embed(short, None), embed(padded, Some(mask)));
    let difference = alone.sub(&batched).unwrap().abs().unwrap().max().unwrap().to_f64().unwrap();
    assert!(difference < 1e-5, "{difference}");
    assert_eq!(alone.shape(), [1, built.encoder.embedding_dim()]);
}

/// A recording: an oscillation of random phase in two channels, slow or fast, and noise. Mean and deviation of a channel say
/// nothing about its speed.
fn recording(rng: &mut Rng, is_fast: bool) -> Vec<[f64; 2]> {
    let (length, phase) = (rng.uniform_range(20.0, 40.0) as usize, rng.uniform_range(0.0, 6.3));
    let speed = if is_fast { 1.6 } else { 0.8 };
    let mut noise = || rng.uniform_range(-0.4, 0.4);
    let angle = |time: usize| phase + speed * time as f64;
    (0..length).map(|time| [angle(time).sin() + noise(), angle(time).cos() + noise()]).collect()
}

/// The share of odd rows whose class has the nearest mean of channel means and deviations over the even rows.
fn nearest_mean_accuracy(rows: &[(Vec<[f64; 2]>, bool)]) -> f64 {
    let summary = |recording: &[[f64; 2]]| {
        let count = recording.len() as f64;
        let mean = |channel: usize| recording.iter().map(|r| r[channel]).sum::<f64>() / count;
        let square = |channel: usize| recording.iter().map(|r| r[channel].powi(2)).sum::<f64>() / count;
        [mean(0), mean(1), square(0), square(1)]
    };
    let center = |class: bool| {
        let of_class: Vec<[f64; 4]> =
            rows.iter().step_by(2).filter(|row| row.1 == class).map(|row| summary(&row.0)).collect();
        [0, 1, 2, 3].map(|n| of_class.iter().map(|s| s[n]).sum::<f64>() / of_class.len() as f64)
    };
    let centers = [center(false), center(true)];
    let distance = |a: &[f64; 4], b: &[f64; 4]| a.iter().zip(b).map(|(x, y)| (x - y).powi(2)).sum::<f64>();
    let held_out: Vec<&(Vec<[f64; 2]>, bool)> = rows.iter().skip(1).step_by(2).collect();
    let is_right = |row: &&&(Vec<[f64; 2]>, bool)| {
        let found = summary(&row.0);
        (distance(&found, &centers[1]) < distance(&found, &centers[0])) == row.1
    };
    held_out.iter().filter(is_right).count() as f64 / held_out.len() as f64
}

/// The accuracy of `mm fit` on a fifth of the rows of a table, which it does not see.
fn fitted_accuracy(folder: &Path, table: &str) -> f64 {
    let data = folder.join("recordings.jsonl");
    std::fs::write(&data, table).unwrap();
    let options = FitOptions {
        test_fraction: 0.2,
        preset: Preset::Fast,
        refit: false,
        ..FitOptions::new(data, "speed", folder.join("run"))
    };
    let context =
        FitContext { progress: &mut NoopProgress, on_progress: &mut |_, _, _| {}, stop: &AtomicBool::new(false) };
    let mut log = Vec::new();
    let fitted = fit_table(&options, &registry(), Device::Cpu, &mut |line| log.push(line), context).unwrap();
    assert_eq!(fitted.columns["template_name"], "recording", "{log:?}");
    assert!(fitted.failed.is_empty(), "{:?}", fitted.failed);
    fitted.metrics.get("accuracy").unwrap()
}

#[test]
fn a_model_learns_more_on_held_out_rows_than_a_simple_baseline() {
    let mut rng = Rng::new(&[7]);
    let rows: Vec<(Vec<[f64; 2]>, bool)> = (0..240).map(|n| (recording(&mut rng, n % 3 == 0), n % 3 == 0)).collect();
    let line = |(recording, is_fast): &(Vec<[f64; 2]>, bool)| {
        json!({"recording": recording, "speed": if *is_fast { "fast" } else { "slow" }}).to_string() + "\n"
    };
    let table: String = rows.iter().map(line).collect();
    let folder = tempfile::tempdir().unwrap();
    let (fitted, baseline) = (fitted_accuracy(folder.path(), &table), nearest_mean_accuracy(&rows));
    assert!(baseline < 0.75, "{baseline}");
    assert!(fitted > 0.9, "{fitted}, baseline {baseline}");
}
