//! Settings of a server, as a TOML file writes them and as options of `mm serve` replace them.

use crate::{Error, Result, state::BODY_UNIT};
use mm_core::describe_error;
use serde::Deserialize;
use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
};
use tokio::sync::Semaphore;

/// Settings of a server.
///
/// ```
/// let config = mm_serve::ServeConfig::from_toml(
///     r#"
///     port = 8000
///     [[model]]
///     name = "clip"
///     path = "openai/clip-vit-base-patch32"
///     [limits]
///     max_inputs = 64
///     "#,
/// )?;
/// assert_eq!((config.port, config.models[0].name.as_str(), config.limits.max_inputs), (8000, "clip", 64));
/// # Ok::<(), mm_serve::Error>(())
/// ```
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServeConfig {
    /// The address to listen on: this machine alone, unless another is given.
    pub address: IpAddr,
    /// The port; 0 takes a free one.
    pub port: u16,
    /// The models, by the names that requests give.
    #[serde(rename = "model")]
    pub models: Vec<ModelConfig>,
    /// The store that `/search` searches: a folder, or `postgres://…`.
    pub store: Option<PathBuf>,
    /// Whether `/upsert` and `/delete` may change the store.
    pub writable: bool,
    /// Keys of clients; without any, every request is allowed.
    #[serde(rename = "key")]
    pub keys: Vec<KeyConfig>,
    /// Domains from which images and audio may be fetched by URL; none by default.
    pub fetch_from: Vec<String>,
    /// Seconds between looks at the files of the models: those that have changed are loaded again. Never when 0.
    pub reload_seconds: u64,
    /// What one request may take.
    pub limits: Limits,
}

impl Default for ServeConfig {
    fn default() -> Self {
        Self {
            address: IpAddr::V4(Ipv4Addr::LOCALHOST),
            port: 8080,
            models: Vec::new(),
            store: None,
            writable: false,
            keys: Vec::new(),
            fetch_from: Vec::new(),
            reload_seconds: 0,
            limits: Limits::default(),
        }
    }
}

/// A model of the server.
#[derive(Debug, Clone, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// The name that requests give.
    pub name: String,
    /// A checkpoint folder or a run folder.
    pub path: PathBuf,
}

/// A key of a client.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyConfig {
    /// Who has it; stands in the log.
    pub name: String,
    /// The key itself.
    pub key: Option<String>,
    /// The environment variable that holds the key, so that it need not be in a file.
    pub key_env: Option<String>,
    /// Requests a minute; unlimited when absent.
    pub requests_per_minute: Option<u32>,
}

impl std::fmt::Debug for KeyConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyConfig").field("name", &self.name).finish_non_exhaustive()
    }
}

impl KeyConfig {
    /// The key.
    ///
    /// # Errors
    /// When there is none, or it is too short to be one.
    pub(crate) fn secret(&self) -> Result<String> {
        let setting = format!("key {}", self.name);
        let key = match (&self.key, &self.key_env) {
            (Some(key), None) => key.clone(),
            (None, Some(name)) => std::env::var(name)
                .map_err(|_| Error::setting(&setting, format!("no environment variable {name}"), "one with the key"))?,
            _ => return Err(Error::setting(setting, "both or neither", "`key` or `key_env`")),
        };
        if key.len() < 16 {
            return Err(Error::setting(setting, format!("{} characters", key.len()), "at least 16"));
        }
        Ok(key)
    }
}

/// What the server takes; a request beyond it is refused with its status, and nothing of it is computed.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Requests that are worked on or wait; others get 429.
    pub max_requests: usize,
    /// Open connections; others wait to be accepted.
    pub max_connections: usize,
    /// Bytes of a request's body.
    pub max_body_bytes: usize,
    /// Bytes of the bodies of all requests that are worked on, wait or are being received.
    pub max_total_body_bytes: usize,
    /// Inputs of one request.
    pub max_inputs: usize,
    /// Width × height of an image.
    pub max_pixels: u64,
    /// Seconds of audio.
    pub max_audio_seconds: f64,
    /// Tokens that one request may generate.
    pub max_new_tokens: usize,
    /// Results of one search.
    pub max_results: usize,
    /// Tokens (patches, frames) of all inputs that are computed as one batch, with their padding; and those of a request
    /// that asks for a vector of each.
    pub max_batch_tokens: usize,
    /// Bytes of the weights of all models in memory: the least recently used one goes when another needs its room, and
    /// is loaded again at its next request. Unlimited when absent.
    pub max_model_bytes: Option<u64>,
    /// Files that one request may have fetched by URL.
    pub max_urls: usize,
    /// Bytes of all files that one request has fetched.
    pub max_url_bytes: u64,
    /// Seconds in which all files of one request must have been fetched.
    pub url_seconds: u64,
    /// Seconds in which a client must have sent its request.
    pub read_seconds: u64,
    /// Seconds after which a client that takes nothing of its answer is cut off.
    pub write_seconds: u64,
    /// Seconds after SIGTERM for which requests that were accepted before are still answered.
    pub drain_seconds: u64,
    /// Seconds after SIGTERM for which connections are accepted at least, and `/ready` answers 503, so that a load
    /// balancer takes the server out before it refuses connections; at most `drain_seconds`.
    pub notice_seconds: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_requests: 512,
            max_connections: 2048,
            max_body_bytes: 32 << 20,
            max_total_body_bytes: 512 << 20,
            max_inputs: 2048,
            max_pixels: 50_000_000,
            max_audio_seconds: 1800.0,
            max_new_tokens: 2048,
            max_results: 1000,
            max_batch_tokens: 16_384,
            max_model_bytes: None,
            max_urls: 256,
            max_url_bytes: 256 << 20,
            url_seconds: 60,
            read_seconds: 30,
            write_seconds: 30,
            drain_seconds: 30,
            notice_seconds: 2,
        }
    }
}

impl ServeConfig {
    /// Reads a file; relative paths in it refer to its folder.
    ///
    /// # Errors
    /// When it cannot be read, or a setting is unknown or wrong.
    pub fn open(file: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(file).map_err(|e| Error::file(file, e))?;
        let mut config = Self::from_toml(&text).map_err(|e| Error::file(file, describe_error(&e)))?;
        let base = file.parent().unwrap_or(Path::new("."));
        for model in &mut config.models {
            model.path = mm_repr::locate(&model.path, base);
        }
        if let Some(store) = &mut config.store
            && !store.to_string_lossy().contains("://")
        {
            *store = base.join(&store);
        }
        Ok(config)
    }

    /// Reads settings from text.
    ///
    /// # Errors
    /// When a setting is unknown or wrong.
    pub fn from_toml(text: &str) -> Result<Self> {
        let table = toml::de::Deserializer::parse(text).map_err(|e| Error::setting("the file", e.message(), "TOML"))?;
        serde_path_to_error::deserialize(table).map_err(|error| {
            let path = error.path().to_string();
            Error::setting(path, error.into_inner().message(), "a setting of docs/serving.md")
        })
    }

    /// Checks what can be checked before anything is loaded.
    ///
    /// # Errors
    /// When there is nothing to serve, a name is used twice, or a limit is 0.
    pub fn check(&self) -> Result<()> {
        if self.models.is_empty() && self.store.is_none() {
            return Err(Error::setting("--model", "none", "at least one model, or a store with --store"));
        }
        let unique = |setting: &str, names: Vec<&str>| {
            let mut seen = BTreeSet::new();
            match names.into_iter().find(|name| name.is_empty() || !seen.insert(*name)) {
                Some(name) => {
                    Err(Error::setting(setting, format!("the name {name:?} twice or empty"), "different names"))
                }
                None => Ok(()),
            }
        };
        unique("model", self.models.iter().map(|model| model.name.as_str()).collect())?;
        unique("key", self.keys.iter().map(|key| key.name.as_str()).collect())?;
        let Limits { max_requests, max_connections, max_body_bytes, max_inputs, max_batch_tokens, .. } = self.limits;
        let counts = [
            ("max_requests", max_requests),
            ("max_connections", max_connections),
            ("max_body_bytes", max_body_bytes),
            ("max_inputs", max_inputs),
            ("max_batch_tokens", max_batch_tokens),
        ];
        if let Some((name, _)) = counts.into_iter().find(|(_, count)| *count == 0) {
            return Err(Error::setting(format!("limits.{name}"), 0, "at least 1"));
        }
        self.limits.check()
    }
}

impl Limits {
    /// Permits for the bodies of all requests: for one of the largest at least.
    pub(crate) fn body_units(&self) -> usize {
        let bytes = self.max_total_body_bytes.max(self.max_body_bytes);
        bytes.div_ceil(BODY_UNIT).min(Semaphore::MAX_PERMITS)
    }

    /// Checks numbers that have other bounds than 0.
    fn check(&self) -> Result<()> {
        let wrong = |name: &str, found: String, expected: String| {
            Err(Error::setting(format!("limits.{name}"), found, expected))
        };
        let most = Semaphore::MAX_PERMITS;
        for (name, count) in [("max_requests", self.max_requests), ("max_connections", self.max_connections)] {
            if count > most {
                return wrong(name, count.to_string(), format!("at most {most}"));
            }
        }
        if self.max_audio_seconds.is_nan() || self.max_audio_seconds <= 0.0 {
            return wrong("max_audio_seconds", self.max_audio_seconds.to_string(), "more than 0".into());
        }
        let counts = [("max_results", self.max_results), ("max_new_tokens", self.max_new_tokens)];
        match counts.into_iter().find(|(_, count)| *count == 0) {
            Some((name, _)) => wrong(name, "0".into(), "at least 1".into()),
            None if self.max_pixels == 0 => wrong("max_pixels", "0".into(), "at least 1".into()),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        ServeConfig::from_toml(text).and_then(|config| config.check()).unwrap_err().to_string()
    }

    #[test]
    fn settings_that_are_unknown_or_wrong_are_refused_with_their_name() {
        let model = "[[model]]\nname = \"a\"\npath = \"a\"\n";
        for (text, expected) in [
            ("prot = 1", "port"),
            ("port = 70000", "port"),
            ("", "--model: found none"),
            (&format!("{model}{model}"), "\"a\" twice"),
            (&format!("{model}[limits]\nmax_inputs = 0"), "limits.max_inputs: found 0"),
            (&format!("{model}[limits]\nmax_input = 3"), "limits"),
            (&format!("{model}[limits]\nmax_results = 0"), "limits.max_results: found 0"),
            (&format!("{model}[limits]\nmax_audio_seconds = nan"), "limits.max_audio_seconds: found NaN"),
            (&format!("{model}[limits]\nmax_requests = 9223372036854775807"), "limits.max_requests"),
        ] {
            let error = refused(text);
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn a_key_is_not_printed_and_must_be_long() {
        let key = |key: &str| KeyConfig {
            name: "team".into(),
            key: Some(key.into()),
            key_env: None,
            requests_per_minute: None,
        };
        assert!(key("short").secret().unwrap_err().to_string().contains("at least 16"));
        assert_eq!(key("0123456789abcdef").secret().unwrap(), "0123456789abcdef");
        assert!(!format!("{:?}", key("0123456789abcdef")).contains("0123"));
    }
}
