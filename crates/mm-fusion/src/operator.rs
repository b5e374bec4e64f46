//! The interface of a fusion operator: what it receives, what it returns and how it is described to the registry.

use crate::{Error, Result, inputs::ModalityInput};
use mm_core::{Modality, Scope, Tensor};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

/// Combines the prepared features of all modalities into one.
///
/// A row's output must not depend on other rows of the batch, and must be finite for rows that lack any or all
/// modalities.
pub trait FusionOperator {
    /// Fuses the modalities, which are in the order of [`OperatorContext::modalities`].
    ///
    /// # Errors
    /// When the inputs do not fit the operator, for instance sequences of different length.
    fn forward(&self, inputs: &[ModalityInput], train: bool) -> Result<OperatorOutput>;

    /// Whether its loss, or a buffer that it updates, is a function of all rows of a batch and not a mean over them.
    /// Where several processes train together, the rows of all are then fused in each.
    fn depends_on_batch(&self) -> bool {
        false
    }
}

/// Output of a [`FusionOperator`].
#[derive(Debug)]
pub struct OperatorOutput {
    /// Fused features `[rows, dim]`, or `[rows, length, dim]`.
    pub values: Tensor,
    /// Valid positions `[rows, length]` bool, where `values` is a sequence with padding.
    pub mask: Option<Tensor>,
    /// Auxiliary loss, a scalar; `None` if the operator has none.
    pub aux_loss: Option<Tensor>,
    /// Weight of each modality, `[rows]` each; empty if the operator has no such weights.
    pub modality_weights: Vec<Tensor>,
}

impl OperatorOutput {
    /// Features without mask, loss or weights.
    pub fn new(values: Tensor) -> Self {
        Self { values, mask: None, aux_loss: None, modality_weights: Vec::new() }
    }
}

/// Arguments from which an operator is built.
pub struct OperatorContext<'a> {
    /// Scope of the operator's parameters.
    pub scope: Scope<'a>,
    /// The modalities, in order.
    pub modalities: &'a [Modality],
    /// Feature dimension of each modality's input.
    pub input_dims: &'a [i64],
    /// Dimension of the output.
    pub dim: i64,
    /// The operator's own options, without `kind`.
    pub options: &'a Map<String, Value>,
}

impl OperatorContext<'_> {
    /// The options as the operator's config struct.
    ///
    /// # Errors
    /// For an unknown key (with the nearest known one) or a value of the wrong type.
    pub fn options<T: DeserializeOwned>(&self) -> Result<T> {
        Ok(mm_core::parse_options(self.options, "fusion.operator")?)
    }

    /// The common input dimension, for operators that add, stack or concatenate positions of modalities.
    ///
    /// # Errors
    /// When dimensions differ.
    pub fn equal_input_dims(&self, kind: &str) -> Result<i64> {
        if self.input_dims.iter().any(|dim| *dim != self.input_dims[0]) {
            let found = format!("input dimensions {:?}", self.input_dims);
            return Err(Error::config(kind, found, "the same dimension for all modalities (fusion.project = true)"));
        }
        Ok(self.input_dims[0])
    }

    /// Index of the main modality: the named one; without a name, text if there is text, else the first modality.
    ///
    /// # Errors
    /// When there is no modality of this name.
    pub fn main_modality(&self, name: Option<&str>) -> Result<usize> {
        match name {
            Some(name) => Ok(self.modalities.iter().position(|m| m.name() == name).ok_or_else(|| {
                let known = self.modalities.iter().map(Modality::name);
                mm_core::Error::unknown("fusion.operator.main_modality", name, known)
            })?),
            None => Ok(self.modalities.iter().position(|m| *m == Modality::TEXT).unwrap_or(0)),
        }
    }
}

/// Describes an operator to the registry.
#[derive(Debug, Clone, Copy)]
pub struct OperatorSpec {
    /// Name in configs (`kind`), snake_case.
    pub kind: &'static str,
    /// One line: what the operator does, and its source.
    pub description: &'static str,
    /// Whether the operator takes sequences `[rows, length, dim]`; otherwise it gets one vector per row.
    pub takes_sequences: bool,
    /// Builds the operator.
    pub build: fn(&OperatorContext<'_>) -> Result<Box<dyn FusionOperator>>,
}

/// Checks that an integer option is at least 1.
pub(crate) fn check_positive(option: &str, found: i64) -> Result<()> {
    if found < 1 {
        return Err(Error::config(format!("fusion.operator.{option}"), found, "at least 1"));
    }
    Ok(())
}
