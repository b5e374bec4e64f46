//! Training to known values.
#![allow(missing_docs)]

use mm_core::{Device, Init, LossOutput, Params, Tensor, TrainingObjective};
use mm_train::{
    Decay, EarlyStopping, EvalMetrics, MetricDirection, NoopProgress, OptimizerKind, Run, TrainConfig, TrainHooks,
    TrainOutcome, Trainer,
};
use std::sync::atomic::AtomicBool;

/// The mean of the parameter times a constant: its gradient is the constant.
struct Slope(Tensor);

impl TrainingObjective<f64> for Slope {
    fn loss(&self, slope: &f64, _train: bool) -> mm_core::Result<Option<LossOutput>> {
        Ok(Some((self.0.mul_scalar(*slope)?.sum()?, Vec::new())))
    }
}

fn config() -> TrainConfig {
    let mut config = TrainConfig { epochs: 1, max_grad_norm: None, ..TrainConfig::default() };
    (config.optimizer.kind, config.optimizer.lr) = (OptimizerKind::Sgd, 1.0);
    (config.optimizer.beta1, config.optimizer.weight_decay) = (0.0, 0.0);
    (config.schedule.decay, config.schedule.warmup_ratio) = (Decay::Constant, 0.0);
    config
}

/// Trains one parameter that starts at zero; its value and the outcome.
fn train(
    config: &TrainConfig,
    slopes: &[f64],
    evaluate: &mut dyn FnMut() -> mm_train::Result<Option<EvalMetrics>>,
) -> mm_train::Result<(f64, TrainOutcome)> {
    let params = Params::new(Device::Cpu);
    let objective = Slope(params.scope().param("w", &[1], Init::Zeros)?);
    let folder = tempfile::tempdir().unwrap();
    let mut run = Run::create(folder.path(), &toml::Value::try_from(config).unwrap(), serde_json::json!({}))?;
    let hooks = TrainHooks { evaluate, progress: &mut NoopProgress, stop: &AtomicBool::new(false) };
    let slopes = slopes.to_vec();
    let outcome = Trainer::new(config, &objective, &params, &slopes)?.with_metric("score").fit(&mut run, hooks)?;
    Ok((objective.0.to_f64()?, outcome))
}

#[test]
fn the_last_accumulated_step_is_the_mean_of_the_batches_that_are_left() {
    let accumulating = TrainConfig { gradient_accumulation_steps: 4, ..config() };
    // Two steps, of means (1 + 2 + 3 + 4) / 4 and (5 + 7) / 2.
    let slopes = [1.0, 2.0, 3.0, 4.0, 5.0, 7.0];
    let (w, outcome) = train(&accumulating, &slopes, &mut || Ok(None)).unwrap();
    assert_eq!((w, outcome.state.step), (-8.5, 2));
    // Clipped to a norm of 1 each, whatever the number of batches.
    let clipped = TrainConfig { max_grad_norm: Some(1.0), ..accumulating };
    let (w, _) = train(&clipped, &slopes, &mut || Ok(None)).unwrap();
    assert!((w + 2.0).abs() < 1e-5, "{w}");
}

#[test]
fn a_run_stops_after_patience_evaluations_and_needs_its_metric() {
    let stopping = |metric: Option<&str>, direction, patience| {
        let early_stopping = Some(EarlyStopping { metric: metric.map(Into::into), direction, patience });
        TrainConfig { epochs: 20, evaluate_every_epochs: 1, early_stopping, ..config() }
    };
    let mut scores = [0.1, 0.4, f64::NAN, 0.3, 0.4, 0.9].into_iter();
    let mut measure = || Ok(Some(EvalMetrics::from([("score".to_owned(), scores.next().unwrap())])));
    let (_, outcome) = train(&stopping(None, MetricDirection::Max, 3), &[1.0], &mut measure).unwrap();
    assert_eq!((outcome.state.epoch, outcome.state.best), (5, Some(0.4)));

    let mut measure = || Ok(Some(EvalMetrics::from([("scores".to_owned(), 0.5)])));
    for metric in [None, Some("skore")] {
        let error = train(&stopping(metric, MetricDirection::Max, 3), &[1.0], &mut measure).unwrap_err().to_string();
        assert!(error.contains("expected one of the validation metrics scores"), "{error}");
    }
    for (direction, patience, field) in [(MetricDirection::Min, 3, "direction"), (MetricDirection::Max, 0, "patience")]
    {
        let error = train(&stopping(None, direction, patience), &[1.0], &mut measure).unwrap_err().to_string();
        assert!(error.contains(&format!("train.early_stopping.{field}")), "{error}");
    }
}
