//! Training: optimizers, learning-rate schedules, a [`Trainer`] and the run folder.
//!
//! A [`Trainer`] minimizes a [`TrainingObjective`](mm_core::TrainingObjective) over any [`BatchSource`]: a [`mm_data::Loader`], a `Vec` of batches in
//! memory, or a type of your own. What it produces lies in a [`Run`] folder, written so that a crash at any instant leaves a
//! checkpoint that loads, and so that a resumed run ends with the same weights as an uninterrupted one, bit for bit.
//!
//! ```
//! use mm_core::{Device, Init, LossOutput, Params, TrainingObjective, Tensor};
//! use mm_train::{NoopProgress, Run, TrainConfig, TrainHooks, Trainer};
//! use std::sync::atomic::AtomicBool;
//!
//! /// Linear regression: predicts y as x · w.
//! struct Regression(Tensor);
//!
//! impl TrainingObjective<(Tensor, Tensor)> for Regression {
//!     fn loss(&self, (x, y): &(Tensor, Tensor), _train: bool) -> mm_core::Result<Option<LossOutput>> {
//!         Ok(Some((x.matmul(&self.0)?.sub(y)?.pow(2.0)?.mean()?, Vec::new())))
//!     }
//! }
//!
//! let params = Params::new(Device::Cpu);
//! let objective = Regression(params.scope().param("w", &[2, 1], Init::Zeros)?);
//! let x = Tensor::from_vec(&[1f32, 0.0, 0.0, 1.0], &[2, 2])?;
//! let y = Tensor::from_vec(&[3f32, -2.0], &[2, 1])?;
//! let batches = vec![(x, y)];
//!
//! let mut config = TrainConfig { epochs: 300, max_grad_norm: None, ..TrainConfig::default() };
//! config.optimizer.lr = 0.05;
//! config.optimizer.weight_decay = 0.0;
//! let folder = tempfile::tempdir()?;
//! let mut run = Run::create(folder.path(), &toml::Value::try_from(&config)?, serde_json::json!({}))?;
//! let hooks = TrainHooks {
//!     evaluate: &mut || Ok(None),
//!     progress: &mut NoopProgress,
//!     stop: &AtomicBool::new(false),
//! };
//! let outcome = Trainer::new(&config, &objective, &params, &batches)?.fit(&mut run, hooks)?;
//! assert_eq!(outcome.state.step, 300);
//! let w = objective.0.to_vec::<f32>()?;
//! assert!((w[0] - 3.0).abs() < 0.01 && (w[1] + 2.0).abs() < 0.01);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod config;
mod ema;
mod error;
mod flatten;
mod optim;
mod progress;
mod run;
mod schedule;
mod source;
mod tensorboard;
mod trainer;

pub use config::{EarlyStopping, MetricDirection, Precision, TrainConfig};
pub use ema::Ema;
pub use error::{Error, Result};
pub use optim::{Optimizer, OptimizerConfig, OptimizerKind, ParamGroup};
pub use progress::{NoopProgress, Progress};
pub use run::{MetricRecord, Run, TrainState, environment};
pub use schedule::{Decay, ScheduleConfig};
pub use source::BatchSource;
pub use tensorboard::EventWriter;
pub use trainer::{EvalMetrics, TrainHooks, TrainOutcome, Trainer};
