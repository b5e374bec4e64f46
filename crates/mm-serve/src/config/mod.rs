//! Settings of a server, as a TOML file writes them and as options of `mm serve` replace them.

mod key;
mod limits;

pub use key::KeyConfig;
pub use limits::Limits;

use crate::{Error, Result};
use mm_core::describe_error;
use serde::Deserialize;
use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
    path::{Path, PathBuf},
};

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
    /// Interval of checks of the files of the models, in seconds: those that have changed are loaded again. Never when 0.
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
        self.limits.check()
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
            (&format!("{model}[limits]\nmax_pixels = 0"), "limits.max_pixels: found 0"),
            (&format!("{model}[limits]\nmax_batch_pixels = 0"), "limits.max_batch_pixels: found 0"),
            (&format!("{model}[limits]\nmax_batch_audio_seconds = 0.0"), "limits.max_batch_audio_seconds: found 0"),
            (&format!("{model}[limits]\nmax_requests = 9223372036854775807"), "limits.max_requests"),
        ] {
            let error = refused(text);
            assert!(error.contains(expected), "{text}: {error}");
        }
    }
}
