#![doc = include_str!("../README.md")]
//!
//! ## Modules
//!
//! A [`Trainer`] minimizes a [`TrainingObjective`](mm_core::TrainingObjective) over any [`BatchSource`]: a
//! [`mm_data::Loader`], a `Vec` of batches in memory, or a type of your own. What it produces lies in a [`Run`] folder,
//! written so that a crash at any instant leaves a checkpoint that loads, and so that a resumed run ends with the same
//! weights as an uninterrupted one, bit for bit.

mod config;
mod distributed;
mod ema;
mod error;
mod flatten;
mod optim;
mod passes;
mod profile;
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
