//! Modalities by name, open to other crates.

use serde::{Deserialize, Serialize};
use std::{borrow::Cow, fmt};

/// A modality by its name: `text`, `image`, `audio`, `video`, or any name that another crate introduces.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Modality(Cow<'static, str>);

impl Modality {
    /// Text.
    pub const TEXT: Self = Self(Cow::Borrowed("text"));
    /// Images.
    pub const IMAGE: Self = Self(Cow::Borrowed("image"));
    /// Audio.
    pub const AUDIO: Self = Self(Cow::Borrowed("audio"));
    /// Video, with or without its audio track.
    pub const VIDEO: Self = Self(Cow::Borrowed("video"));

    /// A modality by its name.
    pub fn new(name: impl Into<Cow<'static, str>>) -> Self {
        Self(name.into())
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Modality {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for Modality {
    fn from(name: &str) -> Self {
        Self(Cow::Owned(name.to_owned()))
    }
}
