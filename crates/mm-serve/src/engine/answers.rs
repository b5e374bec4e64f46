//! Answers to the questions of several requests.

use super::{
    job::{AnswerJob, Answered, Question},
    model::LoadedModel,
    texts::group_by,
};
use crate::error::ApiError;
use mm_reason::{Pipeline, Request};
use mm_tasks::answering::{self, AnswerOptions, Answerer};

/// Answers several questions; those with the same candidates are a batch, unless they ask what the answer depends on.
pub(super) fn answer(model: &mut LoadedModel, jobs: Vec<AnswerJob>, name: &str) {
    let is_together =
        |one: &Question, other: &Question| !one.explain && !other.explain && one.candidates == other.candidates;
    for group in group_by(jobs, name, |one, other| is_together(&one.input, &other.input)) {
        match model {
            LoadedModel::Pipeline(pipeline) => of_pipeline(pipeline, group),
            LoadedModel::Answerer(answerer) => of_answerer(answerer, group),
            _ => {
                let error = ApiError::internal("a model that does not answer was asked to");
                group.into_iter().for_each(|job| job.answer(Err(error.clone())));
            }
        }
    }
}

/// Whether a client waits for the answer.
fn is_open(job: &AnswerJob) -> bool {
    !job.reply.is_closed()
}

fn of_pipeline(pipeline: &Pipeline, group: Vec<AnswerJob>) {
    let mut encoded = Vec::with_capacity(group.len());
    for job in group.into_iter().filter(is_open) {
        match job.input.medium.encode(pipeline) {
            Ok(media) => encoded.push((job, media)),
            Err(error) => job.answer(Err(error)),
        }
    }
    let mut encoded = encoded.into_iter().filter(|(job, _)| is_open(job)).peekable();
    while encoded.peek().is_some() {
        let batch: Vec<_> = encoded.by_ref().take(pipeline.max_batch_size()).collect();
        let rows: Vec<_> =
            batch.iter().map(|(job, media)| (Some(media), Request::Question(&job.input.question))).collect();
        let is_cancelled = |number: usize| batch[number].0.reply.is_closed();
        let found = pipeline.answer_batch(&rows, &batch[0].0.input.candidates, &pipeline.generation, &is_cancelled);
        for ((job, media), scores) in batch.into_iter().zip(found) {
            let answered = scores.map_err(ApiError::from).map(|scores| {
                let best = scores.first().map(|score| score.answer.clone()).unwrap_or_default();
                // A model without attention maps answers without one.
                let explain = || pipeline.explain(&media, Request::Question(&job.input.question), &best).ok();
                let attribution = if job.input.explain && is_open(&job) { explain() } else { None };
                (scores, attribution)
            });
            job.answer(answered);
        }
    }
}

fn of_answerer(answerer: &mut Answerer, group: Vec<AnswerJob>) {
    let options = |explain| AnswerOptions { candidates: group[0].input.candidates.clone(), generation: None, explain };
    let (explained, plain) = (options(true), options(false));
    if group[0].input.explain {
        // A group of one.
        for job in group {
            let question = question(&job.input);
            // A model that does not explain answers without.
            let answer = match ask(answerer, &question, &explained) {
                Err(_) => ask(answerer, &question, &plain),
                answer => answer,
            };
            job.answer(answer);
        }
        return;
    }
    let mut group = group.into_iter().filter(is_open).peekable();
    while group.peek().is_some() {
        let batch: Vec<AnswerJob> = group.by_ref().take(answerer.max_batch_size()).collect();
        let questions: Vec<_> = batch.iter().map(|job| question(&job.input)).collect();
        match answerer.answer(&questions, &plain) {
            Ok(answers) => {
                for (job, answer) in batch.into_iter().zip(answers) {
                    job.answer(answer.map(answered).map_err(ApiError::from));
                }
            }
            // What is wrong with one question is no error of the others.
            Err(_) => batch.into_iter().zip(&questions).filter(|(job, _)| is_open(job)).for_each(|(job, question)| {
                job.answer(ask(answerer, question, &plain));
            }),
        }
    }
}

fn question(input: &Question) -> answering::Question {
    (input.medium.modality().clone(), input.medium.source().clone(), input.question.clone())
}

fn ask(answerer: &mut Answerer, question: &answering::Question, options: &AnswerOptions) -> Result<Answered, ApiError> {
    Ok(answered(answerer.answer(std::slice::from_ref(question), options)?.remove(0)?))
}

fn answered(answer: answering::Answer) -> Answered {
    (answer.scores, answer.attribution)
}
