//! `mm serve`: models, runs and a store over HTTP.

use crate::{args::model::locate, context::Context, exit::usage, output};
use anyhow::Result;
use mm_serve::{KeyConfig, ModelConfig, ServeConfig, Server, Stopped};
use serde_json::json;
use std::{net::IpAddr, path::PathBuf, str::FromStr};

/// Serve models, runs and an index over HTTP, with the routes of OpenAI and text-embeddings-inference
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  mm serve --model all-MiniLM-L6-v2\n  mm serve --model clip=openai/clip-vit-base-patch32 --store photos.index\n  mm serve --config serve.toml --port 8000\n\nRoutes, limits, keys and metrics: docs/serving.md. Ctrl-C or SIGTERM stops it once its requests are answered."
)]
pub(crate) struct Arguments {
    /// Model to serve: checkpoint folder, run folder, name of a fetched model, hub name, or URL of a folder (s3://, gs://,
    /// az://, hf://); may be repeated. NAME= sets the name that requests give [default: the last part of its path].
    #[arg(long, value_name = "[NAME=]MODEL")]
    model: Vec<NamedModel>,
    /// Store of `mm index` that /search searches: a folder, or postgres://…
    #[arg(long, value_name = "FOLDER|URL")]
    store: Option<PathBuf>,
    /// Allow /upsert and /delete to change the store.
    #[arg(long, requires = "store")]
    writable: bool,
    /// File with all settings; options replace what it says.
    #[arg(long, value_name = "FILE.toml")]
    config: Option<PathBuf>,
    /// Address to listen on [default: 127.0.0.1, this machine alone].
    #[arg(long, value_name = "ADDRESS")]
    address: Option<IpAddr>,
    /// Port to listen on; 0 takes a free one [default: 8080].
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
    /// Environment variable that holds a key; with any, requests need one: Authorization: Bearer KEY. May be repeated.
    #[arg(long, value_name = "VARIABLE")]
    key_env: Vec<String>,
    /// Domain from which images and audio may be fetched by URL, for instance example.org or *.example.org; may be
    /// repeated [default: none].
    #[arg(long, value_name = "DOMAIN")]
    fetch_from: Vec<String>,
}

/// A model with the name that requests give.
#[derive(Clone)]
struct NamedModel {
    name: Option<String>,
    path: PathBuf,
}

impl FromStr for NamedModel {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // A URL may hold one as well.
        match text.split_once('=').filter(|(name, _)| !name.contains("://")) {
            Some((name, path)) if !name.is_empty() && !path.is_empty() => {
                Ok(Self { name: Some(name.to_owned()), path: path.into() })
            }
            Some(_) => Err("expected NAME=MODEL or MODEL".to_owned()),
            None if text.is_empty() => Err("expected NAME=MODEL or MODEL".to_owned()),
            None => Ok(Self { name: None, path: text.into() }),
        }
    }
}

impl NamedModel {
    /// The model's folder, under its own name or the last part of its path.
    fn config(&self) -> Result<ModelConfig> {
        let last = || self.path.file_name().map(|name| name.to_string_lossy().into_owned());
        let name = self.name.clone().or_else(last).unwrap_or_default();
        Ok(ModelConfig { name, path: locate(&self.path)? })
    }
}

impl Arguments {
    /// The settings of the file, with those of the options.
    fn settings(&self) -> Result<ServeConfig> {
        let mut config = self.config.as_deref().map(ServeConfig::open).transpose()?.unwrap_or_default();
        for model in &mut config.models {
            if mm_data::is_remote(&model.path) {
                model.path = locate(&model.path)?;
            }
        }
        for model in &self.model {
            config.models.push(model.config()?);
        }
        config.store = self.store.clone().or(config.store);
        config.writable |= self.writable;
        config.address = self.address.unwrap_or(config.address);
        config.port = self.port.unwrap_or(config.port);
        config.fetch_from.extend(self.fetch_from.iter().cloned());
        config.keys.extend(self.key_env.iter().map(|variable| KeyConfig {
            name: variable.clone(),
            key: None,
            key_env: Some(variable.clone()),
            requests_per_minute: None,
        }));
        if config.models.is_empty() && config.store.is_none() {
            match &self.config {
                Some(file) => usage!(
                    "{}: found neither [[model]] nor store, expected one of them, or --model or --store",
                    file.display()
                ),
                None => usage!("nothing to serve; give --model, --store or --config"),
            }
        }
        if !config.address.is_loopback() && config.keys.is_empty() {
            output::warning(format!(
                "{} can be reached from other machines, and no key is needed; --key-env VARIABLE sets one",
                config.address
            ));
        }
        Ok(config)
    }
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<()> {
    let config = arguments.settings()?;
    mm_core::handle_signals_elsewhere();
    let (encoders, tasks) = context.shared_registries();
    let json = context.json;
    let on_listening = move |address: std::net::SocketAddr| {
        if json {
            output::line(json!({"address": format!("http://{address}")}));
        } else {
            output::line(format!("http://{address} (routes: /docs; Ctrl-C stops it)"));
        }
    };
    let stopped = Server::new(config, encoders, tasks, context.device()?)
        .run(on_listening, || output::note("ready: every model is loaded"))?;
    if stopped == Stopped::WithThreads {
        mm_core::exit_at_once(0);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_may_have_a_name_also_at_a_url() {
        let parse = |text: &str| text.parse::<NamedModel>().map(|model| (model.name, model.path));
        assert_eq!(parse("clip=a/b"), Ok((Some("clip".to_owned()), "a/b".into())));
        assert_eq!(parse("clip=s3://bucket/b"), Ok((Some("clip".to_owned()), "s3://bucket/b".into())));
        assert_eq!(parse("s3://bucket/step=1/b"), Ok((None, "s3://bucket/step=1/b".into())));
        assert_eq!(parse("a/b"), Ok((None, "a/b".into())));
        assert!(parse("=a").is_err() && parse("").is_err());
    }
}
