//! Generated texts of several requests.

use super::{
    job::{GenerateJob, Overrides, Pending, Prompt},
    medium::{Medium, encode_conversation},
    model::LoadedModel,
    room::Room,
};
use crate::{conversation::Conversation, error::ApiError};
use mm_core::Source;
use mm_reason::{
    Generation, Pipeline, Request,
    generate::{GenerationConfig, LogitsProcessors},
    pretrained::{EncodedMedia, Prompt as TokenIds},
};
use mm_tasks::captioning::Captioning;
use std::hash::{BuildHasher, Hasher, RandomState};
use tokio::sync::oneshot::Sender;

/// A request with its options.
struct Text<I> {
    input: I,
    config: GenerationConfig,
    reply: Sender<Result<Generation, ApiError>>,
}

/// A prompt's tokens, and its image or video as the model encodes it.
pub(crate) struct Encoded {
    pub(crate) media: Option<EncodedMedia>,
    pub(crate) prompt: TokenIds,
}

impl Encoded {
    /// That of a conversation.
    pub(crate) fn chat(pipeline: &Pipeline, conversation: &Conversation) -> Result<Self, ApiError> {
        let media = encode_conversation(pipeline, &conversation.media)?;
        let prompt = pipeline.prompt(media.as_ref(), Request::Chat(&conversation.messages));
        let prompt = prompt.map_err(|error| ApiError::from(error).with_param("messages"))?;
        Ok(Self { media, prompt })
    }

    fn caption(pipeline: &Pipeline, medium: &Medium, start: Option<&str>) -> Result<Self, ApiError> {
        let media = Some(medium.encode(pipeline)?);
        let prompt = pipeline.prompt(media.as_ref(), Request::Caption(start))?;
        Ok(Self { media, prompt })
    }

    /// A request of a pipeline, whose prompt bounds the new tokens.
    fn read(
        pipeline: &Pipeline,
        base: &GenerationConfig,
        (prompt, overrides): (Prompt, Overrides),
    ) -> Result<(Self, GenerationConfig), ApiError> {
        let (encoded, room) = match &prompt {
            Prompt::Caption { medium, start } => (Self::caption(pipeline, medium, start.as_deref())?, None),
            Prompt::Chat(conversation) => {
                let encoded = Self::chat(pipeline, conversation)?;
                let room = Room::of(pipeline, &encoded.prompt)?;
                (encoded, Some(room))
            }
        };
        let config = overrides(base, room)?;
        Ok((encoded, config))
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
        LoadedModel::Pipeline(pipeline) => {
            let base = with_new_seed(pipeline.generation.clone());
            let texts = read(jobs, |input| Encoded::read(pipeline, &base, input));
            group(texts, base.seed, name).into_iter().for_each(|texts| of_pipeline(pipeline, texts));
        }
        LoadedModel::Captioning(run) => {
            let base = with_new_seed(run.generation());
            let texts = read(jobs, |(prompt, overrides)| Ok((prompt, overrides(&base, None)?)));
            group(texts, base.seed, name).into_iter().for_each(|texts| of_run(run, texts));
        }
        _ => {
            let error = ApiError::internal("a model that does not generate was asked for a text");
            jobs.into_iter().for_each(|job| job.answer(Err(error.clone())));
        }
    }
}

/// The requests with their options; those that are invalid are answered, and those whose client disconnected are left out.
fn read<I>(
    jobs: Vec<GenerateJob>,
    read: impl Fn((Prompt, Overrides)) -> Result<(I, GenerationConfig), ApiError>,
) -> Vec<Text<I>> {
    let mut texts = Vec::with_capacity(jobs.len());
    for Pending { input, reply, .. } in jobs {
        if reply.is_closed() {
            continue;
        }
        match read(input) {
            Ok((input, config)) => texts.push(Text { input, config, reply }),
            Err(error) => drop(reply.send(Err(error))),
        }
    }
    texts
}

/// The requests by their options, in their order. What is sampled with a seed of its own is alone: the rows of a batch draw
/// in turn, and the text would depend on the others.
fn group<I>(texts: Vec<Text<I>>, shared_seed: u64, name: &str) -> Vec<Vec<Text<I>>> {
    let may_share = |text: &Text<I>| !text.config.do_sample || text.config.seed == shared_seed;
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

fn of_pipeline(pipeline: &Pipeline, texts: Vec<Text<Encoded>>) {
    let mut texts = texts.into_iter().filter(|text| !text.reply.is_closed()).peekable();
    while texts.peek().is_some() {
        generate_batch(pipeline, texts.by_ref().take(pipeline.max_batch_size()).collect());
    }
}

/// Generates texts with the same options. It ends early where all clients disconnected.
fn generate_batch(pipeline: &Pipeline, texts: Vec<Text<Encoded>>) {
    let config = texts[0].config.clone();
    let (inputs, replies): (Vec<Encoded>, Vec<_>) = texts.into_iter().map(|text| (text.input, text.reply)).unzip();
    let (media, prompts): (Vec<_>, Vec<_>) = inputs.into_iter().map(|input| (input.media, input.prompt)).unzip();
    let rows = media.iter().map(Option::as_ref).zip(prompts).collect();
    let all_cancelled = || replies.iter().all(Sender::is_closed);
    let processors = LogitsProcessors { interrupt: Some(&all_cancelled), ..LogitsProcessors::default() };
    let found = pipeline.generate_text_batch_from_prompts(rows, &config, &processors);
    for (reply, generation) in replies.into_iter().zip(found) {
        // A client that disconnected takes no reply.
        let _ = reply.send(generation.map_err(ApiError::from));
    }
}

/// The captions of a run, which end early where all clients disconnected. Where one image cannot be read, each is captioned
/// alone.
fn of_run(run: &Captioning, texts: Vec<Text<Prompt>>) {
    // The precomputed sample of an image is there for as long as its medium.
    let (mut media, mut replies): (Vec<Medium>, Vec<_>) = (Vec::new(), Vec::new());
    let config = texts[0].config.clone();
    for Text { input, reply, .. } in texts {
        match input {
            Prompt::Caption { medium, start: None } => {
                media.push(*medium);
                replies.push(reply);
            }
            Prompt::Caption { .. } => {
                let error = ApiError::invalid("prompt", "a text", "none: a captioning run takes no prompt");
                drop(reply.send(Err(error)));
            }
            Prompt::Chat(_) => drop(reply.send(Err(ApiError::internal("a captioning run was asked to chat")))),
        }
    }
    if media.is_empty() {
        return;
    }
    let sources: Vec<Source> = media.iter().map(|medium| medium.source().clone()).collect();
    let describe = |sources: &[Source], is_cancelled: &dyn Fn() -> bool| {
        let processors = LogitsProcessors { interrupt: Some(is_cancelled), ..LogitsProcessors::default() };
        run.describe(sources, &config, &processors).map_err(ApiError::from)
    };
    if let Ok(captions) = describe(&sources, &|| replies.iter().all(Sender::is_closed)) {
        replies.into_iter().zip(captions).for_each(|(reply, caption)| drop(reply.send(Ok(caption))));
        return;
    }
    for (reply, source) in replies.into_iter().zip(sources).filter(|(reply, _)| !reply.is_closed()) {
        let captions = describe(&[source], &|| reply.is_closed());
        let none = || ApiError::internal("the run generated nothing");
        drop(reply.send(captions.and_then(|mut captions| captions.pop().ok_or_else(none))));
    }
}
