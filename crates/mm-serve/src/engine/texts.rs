//! Generated texts of several requests.

use super::{
    job::{GenerateJob, Pending, Prompt},
    model::LoadedModel,
};
use crate::error::ApiError;
use mm_core::Source;
use mm_reason::{
    Generation, Pipeline, Request,
    generate::{GenerationConfig, LogitsProcessors},
    pretrained::EncodedMedia,
};
use mm_tasks::captioning::Captioning;
use tokio::sync::oneshot::Sender;

/// A request with its options.
struct Text {
    prompt: Prompt,
    config: GenerationConfig,
    reply: Sender<Result<Generation, ApiError>>,
}

/// Generates the texts of several requests; those with the same options are a batch.
pub(super) fn generate(model: &mut LoadedModel, jobs: Vec<GenerateJob>, name: &str) {
    match model {
        LoadedModel::Generator(pipeline) => {
            group(jobs, &pipeline.generation, name).into_iter().for_each(|texts| of_pipeline(pipeline, texts));
        }
        LoadedModel::Captioning(run) => {
            group(jobs, &run.generation(), name).into_iter().for_each(|texts| of_run(run, texts));
        }
        _ => {
            let error = ApiError::internal("a model that does not generate was asked for a text");
            jobs.into_iter().for_each(|job| job.answer(Err(error.clone())));
        }
    }
}

/// The requests by their options, in their order; those whose options are invalid are answered.
fn group(jobs: Vec<GenerateJob>, base: &GenerationConfig, name: &str) -> Vec<Vec<Text>> {
    let mut texts = Vec::with_capacity(jobs.len());
    for Pending { input: (prompt, overrides), reply } in jobs {
        match overrides(base) {
            Ok(config) => texts.push(Text { prompt, config, reply }),
            Err(error) => drop(reply.send(Err(error))),
        }
    }
    group_by(texts, name, |one, other| one.config == other.config)
}

/// Requests by their options, in their order.
pub(super) fn group_by<T>(jobs: Vec<T>, name: &str, same_options: impl Fn(&T, &T) -> bool) -> Vec<Vec<T>> {
    let mut groups: Vec<Vec<T>> = Vec::new();
    for job in jobs {
        match groups.iter_mut().find(|group| same_options(&group[0], &job)) {
            Some(group) => group.push(job),
            None => groups.push(vec![job]),
        }
    }
    for group in &groups {
        metrics::histogram!("mm_batch_rows", "model" => name.to_owned()).record(group.len() as f64);
    }
    groups
}

fn of_pipeline(pipeline: &Pipeline, texts: Vec<Text>) {
    let mut encoded = Vec::with_capacity(texts.len());
    for text in texts {
        match encode(pipeline, &text.prompt) {
            Ok(media) => encoded.push((text, media)),
            Err(error) => drop(text.reply.send(Err(error))),
        }
    }
    let mut encoded = encoded.into_iter().peekable();
    while encoded.peek().is_some() {
        generate_batch(pipeline, encoded.by_ref().take(pipeline.max_batch_size()).collect());
    }
}

fn encode(pipeline: &Pipeline, prompt: &Prompt) -> Result<Option<EncodedMedia>, ApiError> {
    Ok(match prompt {
        Prompt::Caption { modality, source, .. } => {
            Some(pipeline.encode_media(modality, std::slice::from_ref(source))?)
        }
        Prompt::Chat(conversation) => pipeline.encode_conversation(&conversation.media)?,
    })
}

/// Generates texts with the same options. It ends early where all clients have gone.
fn generate_batch(pipeline: &Pipeline, texts: Vec<(Text, Option<EncodedMedia>)>) {
    let request = |text| match text {
        &Text { prompt: Prompt::Caption { ref start, .. }, .. } => Request::Caption(start.as_deref()),
        Text { prompt: Prompt::Chat(conversation), .. } => Request::Chat(&conversation.messages),
    };
    let rows: Vec<_> = texts.iter().map(|(text, media)| (media.as_ref(), request(text))).collect();
    let all_gone = || texts.iter().all(|(text, _)| text.reply.is_closed());
    let processors = LogitsProcessors { interrupt: Some(&all_gone), ..LogitsProcessors::default() };
    let found = pipeline.generate_text_batch(&rows, &texts[0].0.config, &processors);
    for ((text, _), generation) in texts.into_iter().zip(found) {
        // A client that has gone takes no reply.
        let _ = text.reply.send(generation.map_err(ApiError::from));
    }
}

/// The captions of a run. Where one image cannot be read, each is captioned alone.
fn of_run(run: &Captioning, texts: Vec<Text>) {
    let (mut sources, mut replies): (Vec<Source>, Vec<_>) = (Vec::new(), Vec::new());
    let config = texts[0].config.clone();
    for Text { prompt, reply, .. } in texts {
        match prompt {
            Prompt::Caption { source, start: None, .. } => {
                sources.push(source);
                replies.push(reply);
            }
            Prompt::Caption { .. } => {
                let error = ApiError::invalid("prompt", "a text", "none: a captioning run takes no prompt");
                drop(reply.send(Err(error)));
            }
            Prompt::Chat(_) => drop(reply.send(Err(ApiError::internal("a captioning run was asked to chat")))),
        }
    }
    if sources.is_empty() {
        return;
    }
    if let Ok(captions) = run.describe(&sources, &config) {
        replies.into_iter().zip(captions).for_each(|(reply, caption)| drop(reply.send(Ok(caption))));
        return;
    }
    for (reply, source) in replies.into_iter().zip(sources) {
        let captions = run.describe(&[source], &config).map_err(ApiError::from);
        let none = || ApiError::internal("the run generated nothing");
        drop(reply.send(captions.and_then(|mut captions| captions.pop().ok_or_else(none))));
    }
}
