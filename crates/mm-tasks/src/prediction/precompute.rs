//! Encoding as many rows as a time limit allows.

use super::model::Prediction;
use crate::{
    ProgressFn, Result,
    features::{CachedFeatures, Resources},
};
use mm_core::{Modality, seed::Rng};
use mm_data::Manifest;
use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::AtomicBool},
    time::Instant,
};

/// Rows that are encoded between two checks of the deadline.
const BATCH_ROWS: usize = 128;

impl Prediction {
    /// Encodes rows with the frozen encoders, in a random order, until the deadline, at least [`BATCH_ROWS`]; returns
    /// for each row whether it is encoded. The features are used by this model from then on.
    pub(super) fn encode_until(
        &mut self,
        manifest: &Manifest,
        deadline: Instant,
        stop: &AtomicBool,
        on_progress: ProgressFn<'_>,
    ) -> Result<Vec<bool>> {
        let count = manifest.rows.len();
        let branches = self.network.branches.iter();
        let frozen: Vec<_> = branches.filter_map(|(m, branch)| Some((m, branch.input.frozen_encoder()?))).collect();
        if frozen.is_empty() {
            return Ok(vec![true; count]);
        }
        let mut rows: Vec<usize> = (0..count).collect();
        Rng::new(&[self.config.common.train.seed]).shuffle(&mut rows);
        let resources = Resources { cache: &self.cache, device: self.params.device(), stop };
        let mut is_encoded = vec![false; count];
        let mut features: BTreeMap<Modality, CachedFeatures> = BTreeMap::new();
        let mut done = 0;
        for batch in rows.chunks(BATCH_ROWS) {
            if done > 0 && Instant::now() >= deadline {
                break;
            }
            on_progress("encoding", done, count);
            for (modality, encoder) in &frozen {
                let sources = batch.iter().filter_map(|r| manifest.rows[*r].values.get(*modality)).flatten();
                let found = encoder.encode_missing(modality, sources, &resources, &mut |_, _, _| {})?;
                match features.get_mut(*modality) {
                    Some(features) => features.merge(found),
                    None => drop(features.insert((*modality).clone(), found)),
                }
            }
            batch.iter().for_each(|row| is_encoded[*row] = true);
            done += batch.len();
        }
        on_progress("encoding", done, done);
        self.encoded = features.into_iter().map(|(modality, found)| (modality, Arc::new(found))).collect();
        Ok(is_encoded)
    }
}
