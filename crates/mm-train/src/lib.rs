//! Parameters are learned.
//!
//! [`train`] reads top to bottom; a [`Run`] folder holds all that came of it, written so that a crash at any instant leaves a
//! checkpoint that loads, and that a run which goes on from it gives the weights an uninterrupted one gives, bit for bit.

mod error;
mod events;
mod flat;
mod optim;
mod run;
mod schedule;
mod trainer;

pub use error::{Error, Result};
pub use events::EventWriter;
pub use optim::{Optimizer, OptimizerConfig, OptimizerKind, ParamGroup};
pub use run::{MetricRecord, Run, TrainState, environment};
pub use schedule::{Decay, ScheduleConfig};
pub use trainer::{
    EarlyStopping, MetricDirection, NoopProgress, Precision, Progress, TrainConfig, TrainInput, TrainOutcome, train,
};
