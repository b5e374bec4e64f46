//! The modalities that are indexed, and the named vectors of a store for them.

use crate::{Error, Result, embedding::Embedder};
use mm_core::Modality;
use mm_data::Manifest;
use mm_index::{Model, Quantization, Store, StoreConfig, VectorConfig};

/// Values of a modality that are tried before it is given up to find out how wide its vectors are.
const MAX_PROBED: usize = 100;

fn names<'a>(modalities: impl IntoIterator<Item = &'a Modality>) -> String {
    modalities.into_iter().map(Modality::name).collect::<Vec<_>>().join(", ")
}

/// The modalities of a data set that a model takes: those that are asked for, else all in common.
///
/// # Errors
/// When there is none, or one that is asked for is not among them.
pub fn common_modalities(model: &dyn Embedder, manifest: &Manifest, wanted: &[Modality]) -> Result<Vec<Modality>> {
    let (of_model, of_data) = (model.modalities(), manifest.modalities());
    let common: Vec<Modality> = of_model.iter().filter(|m| of_data.contains(m)).cloned().collect();
    let expected = format!("one of both (the model takes {}, the data set has {})", names(&of_model), names(&of_data));
    if let Some(unknown) = wanted.iter().find(|m| !common.contains(m)) {
        return Err(Error::invalid("modality", unknown, expected));
    }
    match (wanted.is_empty(), common.is_empty()) {
        (_, true) => Err(Error::invalid("modality", "none in common", expected)),
        (true, false) => Ok(common),
        (false, false) => Ok(wanted.to_vec()),
    }
}

/// The named vectors of a store for a data set: one for each modality, of the model's width, compared by cosine. Where
/// a row has several values of a modality, it has several vectors.
///
/// # Errors
/// When no value of a modality can be embedded.
pub fn store_config(
    model: &dyn Embedder,
    name: &str,
    manifest: &Manifest,
    modalities: &[Modality],
    quantization: Quantization,
) -> Result<StoreConfig> {
    let model_id = Model { name: name.to_owned(), fingerprint: model.fingerprint()? };
    let mut config = StoreConfig::default();
    for modality in modalities {
        let dim = probe_dim(model, manifest, modality)?;
        let multi = manifest.rows.iter().any(|row| row.values.get(modality).is_some_and(|values| values.len() > 1));
        let vector = VectorConfig { multi, quantization, model: Some(model_id.clone()), ..VectorConfig::cosine(dim) };
        config = config.with(modality.name(), vector);
    }
    Ok(config)
}

/// The modalities of a call: those that are asked for, else all of the store that the model takes. The data may lack some
/// of them.
///
/// # Errors
/// When the store lacks one that is asked for or the model does not take it, or the data have none of them.
pub(super) fn chosen_modalities(
    store: &dyn Store,
    model: &dyn Embedder,
    manifest: &Manifest,
    wanted: &[Modality],
) -> Result<Vec<Modality>> {
    let (of_model, of_data) = (model.modalities(), manifest.modalities());
    for modality in wanted {
        store.config().vector(modality.name())?;
        if !of_model.contains(modality) {
            let expected = format!("one that the model takes: {}", names(&of_model));
            return Err(Error::invalid("modality", modality, expected));
        }
    }
    let of_store = of_model.iter().filter(|modality| store.config().vectors.contains_key(modality.name()));
    let chosen: Vec<Modality> = if wanted.is_empty() { of_store.cloned().collect() } else { wanted.to_vec() };
    if !chosen.iter().any(|modality| of_data.contains(modality)) {
        let found = if wanted.is_empty() { "none in common".to_owned() } else { names(wanted) };
        let of_store = store.config().vectors.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
        let (of_data, of_model) = (names(&of_data), names(&of_model));
        let expected = format!("one of the data ({of_data}), the model ({of_model}) and the store ({of_store})");
        return Err(Error::invalid("modality", found, expected));
    }
    Ok(chosen)
}

/// The width of the vectors of a modality: that of the first value that can be embedded.
fn probe_dim(model: &dyn Embedder, manifest: &Manifest, modality: &Modality) -> Result<usize> {
    let values = manifest.rows.iter().filter_map(|row| row.values.get(modality)).flatten();
    let mut reason = "none".to_owned();
    for value in values.take(MAX_PROBED) {
        match model.embed(modality, std::slice::from_ref(value)) {
            Ok(vector) => return Ok(vector.size(-1)? as usize),
            Err(error) => reason = error.to_string(),
        }
    }
    let found = format!("no value that can be embedded ({reason})");
    Err(Error::invalid(format!("data: {modality}"), found, "at least one"))
}
