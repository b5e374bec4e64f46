//! Low-rank adapters in PEFT's layout: trained next to frozen weights, saved separately, merged when a checkpoint is
//! read.
//!
//! *LoRA: Low-Rank Adaptation of Large Language Models* (Hu et al., 2021), <https://arxiv.org/abs/2106.09685>.

mod config;
mod merge;
mod names;
mod peft_config;
mod plan;

pub use config::{LoraConfig, Quantization};
pub use merge::Adapter;
pub(crate) use plan::{LoraPair, LoraPlan};

/// The file that marks a folder as an adapter.
pub const ADAPTER_CONFIG: &str = "adapter_config.json";

/// Prefix of tensor names in PEFT's files.
pub(crate) const PEFT_PREFIX: &str = "base_model.model.";

/// Whether a parameter of this name belongs to an adapter.
pub(crate) fn is_lora(name: &str) -> bool {
    name.contains(".lora_")
}

/// Whether a parameter of this path belongs to a block of a stack.
pub(crate) fn is_in_block(path: &str) -> bool {
    path.split('.').any(|part| part == "layers")
}

/// Factor of an adapter's product.
fn scale(alpha: f64, rank: i64, use_rslora: bool) -> f64 {
    if use_rslora { alpha / (rank.max(1) as f64).sqrt() } else { alpha / rank.max(1) as f64 }
}

/// Whether a dotted name is `suffix`, or ends with it.
fn has_suffix(name: &str, suffix: &str) -> bool {
    name.strip_suffix(suffix).is_some_and(|before| before.is_empty() || before.ends_with('.'))
}

#[cfg(test)]
mod tests;
