//! Values of a request, decoded in the threads that decode, as far ahead of the model as there is room.

use super::MediaTotals;
use crate::{
    engine::{Medium, ModelHandle, ModelInfo, RawMedium},
    error::{ApiError, Kind},
    state::AppState,
};
use mm_core::Modality;
use rayon::prelude::*;
use std::sync::Arc;

/// Values as a model takes them, in their order.
///
/// # Errors
/// When one cannot be decoded.
pub(crate) async fn prepare(
    state: &AppState,
    found: (&ModelHandle, &Arc<ModelInfo>),
    values: Vec<RawMedium>,
) -> Result<Vec<Medium>, ApiError> {
    prepare_by(state, found, values, Medium::decode).await
}

/// The only value of a request as a model takes it; see [`prepare`].
pub(crate) async fn prepare_one(
    state: &AppState,
    found: (&ModelHandle, &Arc<ModelInfo>),
    value: RawMedium,
) -> Result<Medium, ApiError> {
    let medium = prepare(state, found, vec![value]).await?.pop();
    medium.ok_or_else(|| ApiError::internal("a value was lost while it was decoded"))
}

/// As [`prepare`]; what cannot be decoded is left to the model, which computes without it and lists it.
///
/// # Errors
/// When a value is too large.
pub(crate) async fn prepare_readable(
    state: &AppState,
    found: (&ModelHandle, &Arc<ModelInfo>),
    values: Vec<RawMedium>,
) -> Result<Vec<Medium>, ApiError> {
    prepare_by(state, found, values, |info, value, max_audio_seconds| {
        let undecoded = value.clone();
        match Medium::decode(info, value, max_audio_seconds) {
            Err(error) if error.kind != Kind::TooLarge => Ok(Medium::undecoded(undecoded)),
            result => result,
        }
    })
    .await
}

async fn prepare_by(
    state: &AppState,
    (model, info): (&ModelHandle, &Arc<ModelInfo>),
    values: Vec<RawMedium>,
    decode: fn(&ModelInfo, RawMedium, f64) -> Result<Medium, ApiError>,
) -> Result<Vec<Medium>, ApiError> {
    if values.is_empty() {
        return Ok(Vec::new());
    }
    let recordings = values.iter().filter(|value| value.modality == Modality::AUDIO).count();
    let permit = model.admit_decoded(values.len() - recordings, recordings).await?;
    let (info, max_audio_seconds) = (info.clone(), state.limits.max_audio_seconds);
    let totals = MediaTotals::new(&state.limits);
    let media = state.decode(move |cancellation| {
        let medium = |value: RawMedium| -> Result<Medium, ApiError> {
            cancellation.check()?;
            let medium = decode(&info, value, max_audio_seconds)?;
            totals.add(medium.cost().pixels, medium.cost().seconds, medium.param())?;
            Ok(medium.with_permit(permit.clone()))
        };
        values.into_par_iter().map(medium).collect()
    });
    media.await
}
