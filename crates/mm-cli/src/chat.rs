//! `mm chat`: a conversation in the terminal, about a picture or a video.

use crate::{Context, embed, output, speak};
use anyhow::{Result, bail};
use mm_core::{Modality, Source};
use mm_reason::{Pipeline, Request, generate::LogitsProcessors};
use serde_json::{Value, json};
use std::{
    io::{BufRead, IsTerminal, Write},
    path::PathBuf,
};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// A checkpoint folder, or the name of a fetched model.
    #[arg(long, value_name = "DIR|NAME")]
    model: PathBuf,
    /// A picture file to talk about.
    #[arg(long, value_name = "FILE", conflicts_with = "video")]
    image: Option<PathBuf>,
    /// A video file to talk about, where the model takes such.
    #[arg(long, value_name = "FILE")]
    video: Option<PathBuf>,
    /// What the model is told before the conversation.
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    #[command(flatten)]
    generation: speak::Generation,
    #[command(flatten)]
    numbers: embed::Numbers,
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<()> {
    let folder = speak::folder(&arguments.model);
    let model = Pipeline::load(&folder, arguments.numbers.options(context)?)?;
    if !model.can_generate() || !model.tokenizer.has_chat_template() {
        bail!(
            "{}: a model of family {} without a chat template does not converse; try `mm answer` or `mm caption`",
            folder.display(),
            model.family
        );
    }
    let mut config = arguments.generation.over(&model.generation)?;
    if arguments.generation.max_new_tokens.is_none() {
        config.max_new_tokens = config.max_new_tokens.max(256);
    }
    let file = arguments.image.iter().map(|f| ("image", f)).chain(arguments.video.iter().map(|f| ("video", f))).next();
    let seen = match file {
        Some((kind, file)) => Some(model.encode_media(&Modality::from(kind), &[Source::File(file.clone())])?),
        None => None,
    };
    let terminal = std::io::stdin().is_terminal();
    let start: Vec<Value> = arguments.system.iter().map(|s| json!({"role": "system", "content": s})).collect();
    let mut messages = start.clone();
    if terminal {
        eprintln!("say something; an empty line ends it, /again forgets what was said");
    }
    let mut lines = std::io::stdin().lock().lines();
    loop {
        if terminal {
            eprint!("> ");
            std::io::stderr().flush()?;
        }
        let Some(text) = lines.next().transpose()? else { break };
        let text = text.trim();
        if text == "/again" {
            messages.clone_from(&start);
            continue;
        }
        if text.is_empty() {
            if terminal {
                break;
            }
            continue;
        }
        let first = messages.len() == start.len();
        let content = match file {
            Some((kind, _)) if first => json!([{"type": kind}, {"type": "text", "text": text}]),
            _ => json!([{"type": "text", "text": text}]),
        };
        messages.push(json!({"role": "user", "content": content}));
        let conversation = Value::from(messages.clone());
        // Told as it comes; letters of several tokens wait for their last.
        let (mut ids, mut shown) = (Vec::new(), String::new());
        let mut told = |_: usize, id: i64| {
            ids.push(id);
            let now = model.tokenizer.decode(&ids).unwrap_or_default();
            if !context.json && !now.ends_with('\u{fffd}') {
                if let Some(new) = now.strip_prefix(shown.as_str()) {
                    print!("{new}");
                    let _ = std::io::stdout().flush();
                }
                shown = now;
            }
        };
        let found = model.generate_text(
            seen.as_ref(),
            Request::Chat(&conversation),
            &config,
            &LogitsProcessors::default(),
            &mut told,
        )?;
        let said = &found[0][0];
        if context.json {
            output::line(json!({"text": said.text, "ended": said.finished, "tokens": said.num_tokens}));
        } else if config.num_beams > 1 {
            output::line(&said.text);
        } else {
            output::line("");
        }
        if !said.finished {
            eprintln!("mm: no end came within {} tokens (--max-new-tokens)", config.max_new_tokens);
        }
        messages.push(json!({"role": "assistant", "content": [{"type": "text", "text": said.text}]}));
    }
    Ok(())
}
