//! Shapes and value types of a learner's inputs.

use mm_core::{Error, Modality, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The kind of values of a modality.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ValueType {
    /// Pixels in [0, 1].
    UnitInterval,
    /// Real values, standardized to mean 0 and variance 1.
    Real,
    /// Zeros and ones.
    Binary,
    /// Token ids below a vocabulary size: 0 pads, 1 starts a sequence, 2 ends it, 3 is unknown.
    Tokens(i64),
}

/// Shape and value type of one modality.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct InputSpec {
    /// Shape of one row: `[channels, height, width]` of images, `[dim]` of vectors, `[length]` of token ids.
    pub shape: Vec<i64>,
    /// The kind of values.
    pub value_type: ValueType,
}

impl InputSpec {
    /// Number of elements of a row.
    pub fn numel(&self) -> i64 {
        self.shape.iter().product()
    }

    /// Fails for token ids, which only a sequence autoencoder takes.
    pub(crate) fn require_numeric(&self, modality: &Modality) -> Result<()> {
        if matches!(self.value_type, ValueType::Tokens(_)) {
            let expected = "numeric values: a bag of words (kind = \"bag_of_words\"), vectors of an encoder (kind = \
                            \"features\"), or a model with kind = \"sequence_autoencoder\"";
            return Err(Error::config(format!("inputs.{modality}"), "token ids", expected));
        }
        Ok(())
    }
}

/// The inputs of a learner by modality.
pub type InputSpecs = BTreeMap<Modality, InputSpec>;
