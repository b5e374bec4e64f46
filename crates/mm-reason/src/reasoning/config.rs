//! Settings of a reasoning network.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Settings of a reasoning network and of the projections in front of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReasoningConfig {
    /// Name of the modality that queries the others.
    pub query: String,
    /// The network, by its `kind`, with its own options.
    pub network: NetworkConfig,
    /// Feature dimension of the network.
    pub hidden_dim: i64,
    /// Dropout probability during training.
    pub dropout: f64,
    /// Whether the row and column of each position of a square grid, scaled to [−1, 1], are appended to its features.
    pub coordinates: bool,
    /// Whether projected inputs pass through a layer norm. Without it an empty position can have a small norm.
    pub input_norm: bool,
}

impl Default for ReasoningConfig {
    fn default() -> Self {
        Self {
            query: "text".into(),
            network: NetworkConfig::new("san"),
            hidden_dim: 128,
            dropout: 0.1,
            coordinates: true,
            input_norm: true,
        }
    }
}

/// Which network, by its registered `kind`, and its own options, which the network's builder parses.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NetworkConfig {
    /// Registered name of the network.
    pub kind: String,
    /// Options of that network.
    #[serde(flatten)]
    pub options: Map<String, Value>,
}

impl NetworkConfig {
    /// A network of this kind with default options.
    pub fn new(kind: impl Into<String>) -> Self {
        Self { kind: kind.into(), options: Map::new() }
    }

    /// Sets an option.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.options.insert(key.into(), value.into());
        self
    }
}
