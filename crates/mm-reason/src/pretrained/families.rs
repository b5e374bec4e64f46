//! The table of families.

use super::{blip, git, llava, qwen2_vl, traits::PretrainedFamily, vilt, vision_encoder_decoder, whisper};

static FAMILIES: &[&PretrainedFamily] = &[
    &vilt::FAMILY,
    &blip::FAMILY,
    &git::FAMILY,
    &vision_encoder_decoder::FAMILY,
    &whisper::FAMILY,
    &llava::FAMILY,
    &qwen2_vl::FAMILY,
];

/// The families that [`Pipeline::load`](super::Pipeline::load) supports, by the `model_type` of their `config.json`.
pub fn families() -> Vec<&'static str> {
    FAMILIES.iter().map(|f| f.family.model_type).collect()
}

/// The family of this `model_type`.
pub(super) fn family(model_type: &str) -> mm_core::Result<&'static PretrainedFamily> {
    let found = FAMILIES.iter().find(|f| f.family.model_type == model_type).copied();
    found.ok_or_else(|| mm_core::Error::unknown("model_type", model_type, families()))
}
