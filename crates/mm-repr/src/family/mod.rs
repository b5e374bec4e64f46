//! Pretrained model families: a row in a table with the `model_type`, the map from parameter names to checkpoint names,
//! and a function that builds the model from mm-core's modules.

mod builder;
mod concat_layers;
mod config;
mod derived;
mod fingerprint;
mod load;
mod model;
mod pooled;
mod weight_map;

pub use builder::ModelBuilder;
pub use concat_layers::ConcatLayers;
pub(crate) use config::Scores;
pub use config::{labels, num_labels};
pub use derived::Derived;
pub use fingerprint::Fingerprint;
pub use load::{FineTuneOptions, LoadOptions, Loaded, load, load_for_fine_tuning};
pub use model::{ContrastiveHead, Family, Model, NamedPrompt, PretrainedEncoder, Tower};
pub(crate) use pooled::Pooled;
pub use weight_map::{WeightMap, detect_prefix};
