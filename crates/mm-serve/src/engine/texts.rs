//! Generated texts of several requests.

use super::{
    job::{GenerateJob, Overrides, Pending, Prompt},
    model::LoadedModel,
    room::Room,
};
use crate::error::ApiError;
use mm_core::Source;
use mm_reason::{
    Generation, Pipeline, Request,
    generate::{GenerationConfig, LogitsProcessors},
    pretrained::EncodedMedia,
};
use mm_tasks::captioning::Captioning;
use std::hash::{BuildHasher, Hasher, RandomState};
use tokio::sync::oneshot::Sender;

/// A request with its options.
struct Text {
    prompt: Prompt,
    /// Its image or video, where the model encodes it before.
    media: Option<EncodedMedia>,
    config: GenerationConfig,
    reply: Sender<Result<Generation, ApiError>>,
}

impl Text {
    /// A request of a pipeline, whose prompt bounds the new tokens.
    fn read(
        pipeline: &Pipeline,
        base: &GenerationConfig,
        (prompt, overrides): (Prompt, Overrides),
    ) -> Result<(Prompt, Option<EncodedMedia>, GenerationConfig), ApiError> {
        let media = encode(pipeline, &prompt)?;
        let room = match &prompt {
            Prompt::Caption { .. } => None,
            Prompt::Chat(_) => Some(Room::of(pipeline, media.as_ref(), request(&prompt))?),
        };
        let config = overrides(base, room)?;
        Ok((prompt, media, config))
    }
}

/// A model's options with a new seed, which the requests of a batch share: each row draws numbers of its own from it.
pub(crate) fn with_new_seed(options: GenerationConfig) -> GenerationConfig {
    // Every hasher starts from random numbers of the system.
    GenerationConfig { seed: RandomState::new().build_hasher().finish(), ..options }
}

/// Generates the texts of several requests; those with the same options are a batch.
pub(super) fn generate(model: &mut LoadedModel, jobs: Vec<GenerateJob>, name: &str) {
    match model {
        LoadedModel::Generator(pipeline) => {
            let base = with_new_seed(pipeline.generation.clone());
            let texts = read(jobs, |input| Text::read(pipeline, &base, input));
            group(texts, base.seed, name).into_iter().for_each(|texts| of_pipeline(pipeline, texts));
        }
        LoadedModel::Captioning(run) => {
            let base = with_new_seed(run.generation());
            let texts = read(jobs, |(prompt, overrides)| Ok((prompt, None, overrides(&base, None)?)));
            group(texts, base.seed, name).into_iter().for_each(|texts| of_run(run, texts));
        }
        _ => {
            let error = ApiError::internal("a model that does not generate was asked for a text");
            jobs.into_iter().for_each(|job| job.answer(Err(error.clone())));
        }
    }
}

/// The requests with their options; those that are invalid are answered.
fn read(
    jobs: Vec<GenerateJob>,
    read: impl Fn((Prompt, Overrides)) -> Result<(Prompt, Option<EncodedMedia>, GenerationConfig), ApiError>,
) -> Vec<Text> {
    let mut texts = Vec::with_capacity(jobs.len());
    for Pending { input, reply } in jobs {
        match read(input) {
            Ok((prompt, media, config)) => texts.push(Text { prompt, media, config, reply }),
            Err(error) => drop(reply.send(Err(error))),
        }
    }
    texts
}

/// The requests by their options, in their order. What is sampled with a seed of its own is alone: the rows of a batch draw
/// in turn, and the text would depend on the others.
fn group(texts: Vec<Text>, shared_seed: u64, name: &str) -> Vec<Vec<Text>> {
    let may_share = |text: &Text| !text.config.do_sample || text.config.seed == shared_seed;
    group_by(texts, name, |one, other| one.config == other.config && may_share(one))
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
    let mut texts = texts.into_iter().peekable();
    while texts.peek().is_some() {
        generate_batch(pipeline, texts.by_ref().take(pipeline.max_batch_size()).collect());
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

fn request(prompt: &Prompt) -> Request<'_> {
    match prompt {
        Prompt::Caption { start, .. } => Request::Caption(start.as_deref()),
        Prompt::Chat(conversation) => Request::Chat(&conversation.messages),
    }
}

/// Generates texts with the same options. It ends early where all clients have gone.
fn generate_batch(pipeline: &Pipeline, texts: Vec<Text>) {
    let rows: Vec<_> = texts.iter().map(|text| (text.media.as_ref(), request(&text.prompt))).collect();
    let all_gone = || texts.iter().all(|text| text.reply.is_closed());
    let processors = LogitsProcessors { interrupt: Some(&all_gone), ..LogitsProcessors::default() };
    let found = pipeline.generate_text_batch(&rows, &texts[0].config, &processors);
    for (text, generation) in texts.into_iter().zip(found) {
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
