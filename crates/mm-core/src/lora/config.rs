//! Configuration of low-rank adapters.

use super::{has_suffix, is_in_block, scale};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// Storage of the frozen weights under adapters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Quantization {
    /// Four bits per value: sixteen quantiles of a normal distribution, scaled by the largest magnitude in each block
    /// of 64 values.
    ///
    /// *QLoRA: Efficient Finetuning of Quantized LLMs* (Dettmers et al., 2023), <https://arxiv.org/abs/2305.14314>.
    Nf4,
}

/// Which layers get low-rank adapters, and their size.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoraConfig {
    /// Rank of the adapters.
    #[serde(default = "default_rank")]
    pub rank: i64,
    /// The adapter's output is multiplied by `alpha / rank`; twice the rank when absent.
    #[serde(default)]
    pub alpha: Option<f64>,
    /// Multiplies by `alpha / √rank` instead (rank-stabilized LoRA, Kalajdzievski, 2023,
    /// <https://arxiv.org/abs/2312.03732>).
    #[serde(default)]
    pub use_rslora: bool,
    /// Names of layers as in the checkpoint, or suffixes of such names (`query`, `self_attn.q_proj`); every affine
    /// layer of the blocks when empty.
    #[serde(default)]
    pub target_modules: Vec<String>,
    /// Quantization of the weights of the blocks' linear layers while the adapters are trained; none when absent.
    #[serde(default)]
    pub quantize: Option<Quantization>,
}

fn default_rank() -> i64 {
    8
}

impl Default for LoraConfig {
    fn default() -> Self {
        Self { rank: default_rank(), alpha: None, use_rslora: false, target_modules: Vec::new(), quantize: None }
    }
}

impl LoraConfig {
    /// Checks the ranges of the settings.
    ///
    /// # Errors
    /// If the rank or `alpha` is not positive.
    pub fn check(&self) -> Result<()> {
        if self.rank < 1 {
            return Err(Error::config("adapter.rank", self.rank, "at least 1"));
        }
        if self.alpha.is_some_and(|a| !a.is_finite() || a <= 0.0) {
            return Err(Error::config("adapter.alpha", self.alpha.unwrap_or_default(), "a number above 0"));
        }
        Ok(())
    }

    pub(super) fn alpha(&self) -> f64 {
        self.alpha.unwrap_or(2.0 * self.rank as f64)
    }

    pub(super) fn scale(&self) -> f64 {
        scale(self.alpha(), self.rank, self.use_rslora)
    }

    /// Whether the layer at `path`, called `module` in the checkpoint, gets an adapter.
    pub(crate) fn matches(&self, path: &str, module: &str) -> bool {
        if self.target_modules.is_empty() {
            return is_in_block(path);
        }
        self.target_modules.iter().any(|t| has_suffix(module, t))
    }
}
