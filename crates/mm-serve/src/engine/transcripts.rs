//! Transcripts of the recordings of several requests.

use super::{
    job::{Pending, TranscribeJob},
    model::LoadedModel,
    texts::group_by,
};
use crate::error::ApiError;
use mm_core::Source;
use mm_reason::generate::GenerationConfig;

/// Transcribes several recordings; those with the same options are a batch. A recording whose
/// client disconnected ends there.
pub(super) fn transcribe(model: &mut LoadedModel, jobs: Vec<TranscribeJob>, name: &str) {
    let LoadedModel::Pipeline(pipeline) = model else {
        let error = ApiError::internal("a model that does not generate was asked to transcribe");
        return jobs.into_iter().for_each(|job| job.answer(Err(error.clone())));
    };
    let options = |job: &TranscribeJob| (job.input.language.clone(), job.input.timestamps, job.input.temperature);
    for group in group_by(jobs, name, |one, other| options(one) == options(other)) {
        let (language, timestamps, temperature) = options(&group[0]);
        let mut config = GenerationConfig { num_return_sequences: 1, ..pipeline.generation.clone() };
        if let Some(temperature) = temperature {
            config = GenerationConfig { do_sample: true, temperature, num_beams: 1, ..config };
        }
        let (sources, replies): (Vec<Source>, Vec<_>) =
            group.into_iter().map(|Pending { input, reply, .. }| (input.source, (reply, input.permit))).unzip();
        let is_cancelled = |number: usize| replies[number].0.is_closed();
        let found = pipeline.transcribe_batch(&sources, language.as_deref(), timestamps, &config, &is_cancelled);
        for ((reply, _permit), transcript) in replies.into_iter().zip(found) {
            // A client that disconnected takes no reply.
            drop(reply.send(transcript.map_err(ApiError::from)));
        }
    }
}
