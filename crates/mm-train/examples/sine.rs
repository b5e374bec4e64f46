//! Fits a network to a sine with early stopping on held-out points, in a run folder that `resume` would continue:
//! `cargo run --release -p mm-train --example sine`

use mm_core::{Device, LossOutput, Module, Params, Tensor, TrainingObjective, nn::Linear, no_grad, seed::manual_seed};
use mm_train::{EarlyStopping, EvalMetrics, MetricDirection, NoopProgress, Run, TrainConfig, TrainHooks, Trainer};
use std::sync::atomic::AtomicBool;

/// Two affine layers with tanh between them.
struct Sine([Linear; 2]);

impl Sine {
    fn predict(&self, x: &Tensor) -> mm_core::Result<Tensor> {
        self.0[1].forward(&self.0[0].forward(x, true)?.tanh()?, true)
    }
}

impl TrainingObjective<(Tensor, Tensor)> for Sine {
    fn loss(&self, (x, y): &(Tensor, Tensor), _train: bool) -> mm_core::Result<Option<LossOutput>> {
        Ok(Some(((self.predict(x)? - y)?.pow(2.0)?.mean()?, Vec::new())))
    }
}

/// Points `[32, 1]` of a sine between −π and π.
fn points(offset: f32) -> mm_core::Result<(Tensor, Tensor)> {
    let x: Vec<[f32; 1]> =
        (0..32).map(|n| [(n as f32 + offset) / 32.0 * std::f32::consts::TAU - std::f32::consts::PI]).collect();
    let x = Tensor::new(&x, Device::Cpu)?;
    Ok((x.clone(), x.sin()?))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    manual_seed(3);
    let params = Params::new(Device::Cpu);
    let scope = params.scope();
    let layers = [Linear::new(&scope.pp("hidden"), 1, 16, true)?, Linear::new(&scope.pp("output"), 16, 1, true)?];
    let objective = Sine(layers);
    let batches = [0.0, 0.25, 0.5].map(points).into_iter().collect::<mm_core::Result<Vec<_>>>()?;
    let held_out = points(0.75)?;
    let stopping = EarlyStopping { metric: Some("error".into()), direction: MetricDirection::Min, patience: 20 };
    let mut config = TrainConfig { epochs: 1000, early_stopping: Some(stopping), ..TrainConfig::default() };
    config.optimizer.lr = 0.02;
    let folder = tempfile::tempdir()?;
    let mut run = Run::create(folder.path(), &toml::Value::try_from(&config)?, serde_json::json!({}))?;
    let mut evaluate = || -> mm_train::Result<Option<EvalMetrics>> {
        let error = no_grad(|| -> mm_core::Result<f64> {
            (objective.predict(&held_out.0)? - &held_out.1)?.pow(2.0)?.mean()?.sqrt()?.to_f64()
        })?;
        Ok(Some(vec![("error".to_owned(), error)].into_iter().collect()))
    };
    let stop = AtomicBool::new(false);
    let hooks = TrainHooks { evaluate: &mut evaluate, progress: &mut NoopProgress, stop: &stop };
    let outcome = Trainer::new(&config, &objective, &params, &batches)?.with_metric("error").fit(&mut run, hooks)?;
    println!(
        "{} steps of at most {}; best held-out error {:?}",
        outcome.state.step,
        3 * config.epochs,
        outcome.state.best
    );
    Ok(())
}
