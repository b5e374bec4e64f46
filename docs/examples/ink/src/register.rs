//! What a program calls: the encoder by its kind, the settings that `mm fit` proposes, and how a column is recognized.

use super::{
    encoder::InkEncoder,
    processor::{InkProcessor, NUM_CHANNELS, Statistics, strokes},
};
use mm_core::{BuildContext, BuiltEncoder, EncoderFactory, Error, Proposal, Registry, Result, Source, config};
use serde::Deserialize;
use std::sync::Arc;

/// The modality, and the `kind` of its encoder.
const KIND: &str = "ink";

/// The setting that is computed from training values where a config leaves it out.
const DERIVED: &str = "statistics";

/// Cells of a column that are looked at.
const MAX_INSPECTED: usize = 20;

/// The keys of `encoder = { kind = "ink", … }`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct InkConfig {
    /// Mean and standard deviation of each channel; those of the training values when absent.
    statistics: Statistics,
    /// Number of convolutions.
    #[serde(default = "default_num_layers")]
    num_layers: usize,
    /// Dimension of the features.
    #[serde(default = "default_dim")]
    dim: i64,
}

fn default_num_layers() -> usize {
    3
}

fn default_dim() -> i64 {
    64
}

/// Builds the encoder. Statistics that a config leaves out are computed from the training values and written into the
/// run's config, so that a run does not need its training data again.
struct Factory;

impl EncoderFactory for Factory {
    fn build(&self, settings: &toml::Value, context: &BuildContext<'_>) -> Result<BuiltEncoder> {
        let InkConfig { statistics, num_layers, dim } = config::parse(settings, &context.field)?;
        statistics.check(&context.field)?;
        if num_layers == 0 || dim < 1 {
            let found = format!("num_layers = {num_layers}, dim = {dim}");
            return Err(Error::config(&context.field, found, "at least 1 each"));
        }
        Ok(BuiltEncoder {
            encoder: Box::new(InkEncoder::new(&context.scope, NUM_CHANNELS as i64, num_layers, dim)?),
            processor: Arc::new(InkProcessor::new(statistics)),
            frozen: false,
            fingerprint: String::new(),
        })
    }

    fn derived_setting(&self) -> Option<&str> {
        Some(DERIVED)
    }

    fn derive(&self, values: &[&Source]) -> Result<toml::Value> {
        let statistics = Statistics::fit(values)?;
        toml::Value::try_from(statistics).map_err(|e| Error::Sample(format!("{DERIVED} is no TOML: {e}")))
    }
}

/// Adds the modality to a registry.
pub fn register(registry: &mut Registry) {
    registry.register_factory(KIND, Factory);
    registry.register_proposer(KIND, propose);
    registry.register_column_recognizer(KIND, |_, cells| is_ink(cells));
}

/// The settings that `mm fit` uses where the user names none; a second proposal would be used by every other model of
/// an ensemble.
fn propose(values: &[&Source]) -> Result<Vec<Proposal>> {
    let description = format!("the path of the pen, {} convolutions", default_num_layers());
    let mut settings = toml::Table::new();
    settings.insert("kind".into(), KIND.into());
    settings.insert(DERIVED.into(), Factory.derive(values)?);
    Ok(vec![Proposal { encoder: settings.into(), standardize: false, description }])
}

/// Whether the cells of a column are strokes. A column of file names is not recognized, because another modality
/// may have such files as well: it is bound with `--column ink=COLUMN`.
fn is_ink(cells: &[&serde_json::Value]) -> bool {
    let is_list = |cell: &&&serde_json::Value| strokes(&Source::Value((**cell).clone())).is_ok();
    cells.iter().take(MAX_INSPECTED).all(|cell| is_list(&cell))
}
