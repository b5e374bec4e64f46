//! `mm chat`: a conversation in the terminal, about images or videos.

use crate::{
    args::{dtype::DtypeArgs, generation::GenerationArgs, model::ModelArgs},
    context::Context,
    output,
};
use anyhow::{Context as _, Result, bail};
use mm_core::{Modality, Source};
use mm_reason::{
    Generation, Pipeline, Request,
    generate::{GenerationConfig, LogitsProcessors},
    pretrained::TextStream,
};
use serde_json::{Value, json};
use std::{
    io::{BufRead, IsTerminal},
    path::PathBuf,
};

/// Chat with a model about images or videos
#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  mm chat --model Qwen/Qwen2-VL-2B-Instruct --image photo.jpg\n\nAn empty line or Ctrl-D ends the chat; /reset starts over."
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    model: ModelArgs,
    /// Image file to talk about; may be repeated for models that take several.
    #[arg(long, value_name = "FILE", help_heading = "Inputs")]
    image: Vec<PathBuf>,
    /// Video file to talk about, for models that take videos; may be repeated.
    #[arg(long, value_name = "FILE", help_heading = "Inputs")]
    video: Vec<PathBuf>,
    /// System message.
    #[arg(long, value_name = "TEXT", help_heading = "Inputs")]
    system: Option<String>,
    #[command(flatten)]
    dtype: DtypeArgs,
    #[command(flatten)]
    generation: GenerationArgs,
}

/// Tokens of an answer where neither the user nor the model says how many.
const DEFAULT_MAX_NEW_TOKENS: usize = 256;

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<()> {
    let dir = arguments.model.checkpoint_dir()?;
    let model = Pipeline::load(&dir, arguments.dtype.load_options(context)?)?;
    if !model.can_generate() || !model.tokenizer.has_chat_template() {
        bail!(
            "{}: a model of family {} has no chat template; try `mm answer` or `mm caption`",
            dir.display(),
            model.family
        );
    }
    let mut config = arguments.generation.override_config(&model.generation)?;
    if arguments.generation.max_new_tokens.is_none() {
        config.max_new_tokens = config.max_new_tokens.max(DEFAULT_MAX_NEW_TOKENS);
        config.max_length = None;
    }
    let images = arguments.image.iter().map(|file| (Modality::IMAGE, Source::Path(file.clone())));
    let videos = arguments.video.iter().map(|file| (Modality::VIDEO, Source::Path(file.clone())));
    let files: Vec<(Modality, Source)> = images.chain(videos).collect();
    let media = model.encode_conversation(&files)?;
    let system: Vec<Value> = arguments.system.iter().map(|s| json!({"role": "system", "content": s})).collect();
    let mut messages = system.clone();
    let interactive = std::io::stdin().is_terminal();
    if interactive {
        output::note("type a message; an empty line ends the chat, /reset starts over");
    }
    let mut lines = std::io::stdin().lock().lines();
    loop {
        if interactive {
            output::stderr("> ");
        }
        let Some(text) = lines.next().transpose().context("standard input cannot be read")? else { break };
        match text.trim() {
            "/reset" => messages.clone_from(&system),
            "" if interactive => break,
            "" => {}
            text => {
                let mut content = Vec::new();
                if messages.len() == system.len() {
                    content.extend(files.iter().map(|(modality, _)| json!({"type": modality.name()})));
                }
                content.push(json!({"type": "text", "text": text}));
                messages.push(json!({"role": "user", "content": content}));
                let reply = reply(&model, media.as_ref(), &messages, &config, context)?;
                messages.push(json!({"role": "assistant", "content": [{"type": "text", "text": reply.text}]}));
            }
        }
    }
    Ok(())
}

/// Generates the next message of a conversation, printing it as it comes (except with `--json` and beam search).
fn reply(
    model: &Pipeline,
    media: Option<&mm_reason::EncodedMedia>,
    messages: &[Value],
    config: &GenerationConfig,
    context: &Context,
) -> Result<Generation> {
    let conversation = Value::from(messages.to_vec());
    let mut stream = TextStream::new(&model.tokenizer);
    let mut on_token = |_: usize, id: i64| {
        if let Some(new) = stream.push(id).filter(|_| !context.json) {
            output::part(&new);
        }
    };
    let replies = model.generate_text(
        media,
        Request::Chat(&conversation),
        config,
        &LogitsProcessors::default(),
        &mut on_token,
    )?;
    let reply = replies.into_iter().flatten().next().context("the model generated nothing")?;
    if context.json {
        output::line(json!({"text": reply.text, "finished": reply.finished, "tokens": reply.num_tokens}));
    } else if config.num_beams > 1 {
        output::line(&reply.text);
    } else {
        output::line("");
    }
    if !reply.finished {
        output::warning(format!("truncated at {} tokens (--max-new-tokens)", config.max_new_tokens));
    }
    Ok(reply)
}
