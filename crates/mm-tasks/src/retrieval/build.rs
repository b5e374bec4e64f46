//! The parts of a retrieval model, built from its config.

use super::{
    config::RetrievalConfig, cross_attention::CrossAttention, model::Tower, projection::Projection,
    transcript_ngram::TranscriptNgram,
};
use crate::{Error, Result, inputs::InputBranch};
use mm_core::{BuildContext, Modality, Registry, Scope};
use std::{collections::BTreeMap, path::Path};

/// The towers, in the order of their names.
pub(super) fn build_towers(
    config: &RetrievalConfig,
    base_dir: &Path,
    encoders: &Registry,
    root: &Scope<'_>,
) -> Result<BTreeMap<Modality, Tower>> {
    let mut towers = BTreeMap::new();
    let attention = config.cross_attention.as_ref();
    for (name, tower) in &config.towers {
        let modality = Modality::from(name.as_str());
        let scope = root.pp("towers").pp(name);
        let context = BuildContext {
            scope: scope.pp("encoder"),
            base_dir: base_dir.to_owned(),
            field: format!("towers.{name}.encoder"),
            registry: encoders,
        };
        let mut input = InputBranch::build(&tower.encoder, &modality, encoders, &context)?;
        input.num_views = tower.num_views;
        input.positions = attention.is_some_and(|a| a.query_modality == *name || a.key_modality == *name);
        let dim = input.encoder()?.embedding_dim();
        let projection = Projection::new(&scope.pp("projection"), dim, config.embed_dim.dim(), &tower.projection)?;
        towers.insert(modality, Tower { input, projection, config: tower.clone() });
    }
    Ok(towers)
}

/// Checks that `[soft_targets]` names a frozen encoder.
pub(super) fn check_soft_targets(config: &RetrievalConfig, towers: &BTreeMap<Modality, Tower>) -> Result<()> {
    let Some(soft) = &config.soft_targets else { return Ok(()) };
    match towers.get(&Modality::from(soft.modality.as_str())) {
        Some(tower) if tower.input.frozen => Ok(()),
        _ => {
            Err(Error::invalid("soft_targets.modality", &soft.modality, "a modality whose tower has a frozen encoder"))
        }
    }
}

/// The loss of `[transcript_ngram]`.
pub(super) fn build_transcript_ngram(
    config: &RetrievalConfig,
    towers: &BTreeMap<Modality, Tower>,
    root: &Scope<'_>,
) -> Result<Option<TranscriptNgram>> {
    let Some(ngram) = &config.transcript_ngram else { return Ok(None) };
    let tower = towers.get(&Modality::from(ngram.modality.as_str())).filter(|t| !t.input.frozen);
    let expected = "a modality whose encoder is trained";
    let tower = tower.ok_or_else(|| Error::invalid("transcript_ngram.modality", &ngram.modality, expected))?;
    let dim = tower.input.encoder()?.embedding_dim();
    Ok(Some(TranscriptNgram::new(&root.pp("transcript_ngram"), dim, config.embed_dim.dim(), ngram)?))
}

/// The loss of `[cross_attention]`.
pub(super) fn build_cross_attention(
    config: &RetrievalConfig,
    towers: &BTreeMap<Modality, Tower>,
    root: &Scope<'_>,
) -> Result<Option<CrossAttention>> {
    let Some(attention) = &config.cross_attention else { return Ok(None) };
    let dim = |name: &str| -> Result<i64> {
        let tower = &towers[&Modality::from(name)];
        let encoder = tower.input.encoder()?;
        let (dim, embedding_dim) = (encoder.dim(), encoder.embedding_dim());
        if tower.input.frozen && dim != embedding_dim {
            let found = format!("positions of {dim} and vectors of {embedding_dim} from the frozen encoder of {name}");
            return Err(Error::invalid("cross_attention", found, "the same dimension of both"));
        }
        Ok(dim)
    };
    let dims = [dim(&attention.query_modality)?, dim(&attention.key_modality)?];
    let scope = root.pp("cross_attention");
    Ok(Some(CrossAttention::new(&scope, attention, dims, config.embed_dim.dim(), &config.loss)?))
}
