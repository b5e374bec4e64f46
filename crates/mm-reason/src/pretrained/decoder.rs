//! A decoder from a checkpoint.

use mm_core::{
    Scope,
    nn::decoder::{Decoder, DecoderConfig},
};
use mm_repr::family::ModelBuilder;

/// The decoder whose weights are under `scope`; the language model head shares the token embeddings where the
/// checkpoint has no `head`.
pub(super) fn load_decoder(b: &ModelBuilder<'_>, scope: &Scope<'_>, config: DecoderConfig) -> mm_repr::Result<Decoder> {
    let scope = &scope.decode_mode();
    let blocks = b.transformer(scope, config.blocks.clone())?;
    let untied_head = scope.pp("head").has("weight");
    Ok(Decoder::from_blocks(scope, config, blocks, untied_head)?)
}
