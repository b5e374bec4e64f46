//! The kind of thing a column holds. An open name, so that a crate of anyone's can bring another.

use serde::{Deserialize, Serialize};
use std::{borrow::Cow, fmt};

/// A modality by its name: `text`, `image`, `audio`, `video`, or any other that a crate brings.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Modality(Cow<'static, str>);

impl Modality {
    /// Written language.
    pub const TEXT: Self = Self(Cow::Borrowed("text"));
    /// Still pictures.
    pub const IMAGE: Self = Self(Cow::Borrowed("image"));
    /// Sound.
    pub const AUDIO: Self = Self(Cow::Borrowed("audio"));
    /// Moving pictures, with or without their sound track.
    pub const VIDEO: Self = Self(Cow::Borrowed("video"));

    /// A modality of another name.
    pub fn new(name: impl Into<Cow<'static, str>>) -> Self {
        Self(name.into())
    }

    /// Its name.
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
