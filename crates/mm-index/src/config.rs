//! What a store holds: its named vectors, how they are compared and what made them.

use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Largest width of a vector.
pub(crate) const MAX_DIM: usize = 65_536;

/// How similar two vectors are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Distance {
    /// The cosine of their angle: the score is in [-1, 1]. Vectors are stored at unit length.
    Cosine,
    /// Their scalar product.
    Dot,
    /// The distance between them; the score is the negative distance, so that a higher score is nearer.
    Euclidean,
}

/// How a graph holds its vectors. The rows always keep theirs as 16-bit floats, by which results are ranked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Quantization {
    /// 16-bit floats.
    #[default]
    F16,
    /// 8-bit integers: half the memory; candidates are ranked again by the vectors of the rows.
    I8,
}

/// The model that made vectors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Model {
    /// Its name or folder, by which the program finds it again.
    pub name: String,
    /// Changes whenever its vectors would.
    pub fingerprint: String,
}

/// One named vector of the rows of a store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VectorConfig {
    /// Width.
    pub dim: usize,
    /// How it is compared.
    pub distance: Distance,
    /// Whether a row may have several (one for each token or frame: late interaction).
    #[serde(default)]
    pub multi: bool,
    /// How the graph holds it.
    #[serde(default)]
    pub quantization: Quantization,
    /// What made it; a query of another model is refused.
    #[serde(default)]
    pub model: Option<Model>,
}

impl VectorConfig {
    /// One vector a row, compared by cosine.
    pub fn cosine(dim: usize) -> Self {
        Self { dim, distance: Distance::Cosine, multi: false, quantization: Quantization::F16, model: None }
    }
}

/// The named vectors of a store.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct StoreConfig {
    /// By name (`image`, `text`, …).
    pub vectors: BTreeMap<String, VectorConfig>,
}

impl StoreConfig {
    /// A store with one named vector; [`StoreConfig::with`] adds others.
    pub fn new(name: &str, vector: VectorConfig) -> Self {
        Self::default().with(name, vector)
    }

    /// Adds (or replaces) a named vector.
    pub fn with(mut self, name: &str, vector: VectorConfig) -> Self {
        self.vectors.insert(name.to_owned(), vector);
        self
    }

    /// The vector of a name.
    ///
    /// # Errors
    /// When there is none.
    pub fn vector(&self, name: &str) -> Result<&VectorConfig> {
        let known = self.vectors.keys().map(String::as_str);
        self.vectors.get(name).ok_or_else(|| Error::unknown("vector", name, known))
    }

    /// Refuses a query of another model than the one that made a vector.
    ///
    /// # Errors
    /// When the fingerprints differ, or there is no such vector.
    pub fn check_model(&self, vector: &str, model: &Model) -> Result<()> {
        match &self.vector(vector)?.model {
            Some(expected) if expected.fingerprint != model.fingerprint => {
                let describe = |m: &Model| format!("{} (fingerprint {:.12})", m.name, m.fingerprint);
                let (found, expected) = (describe(model), describe(expected));
                Err(Error::Model { vector: vector.to_owned(), found, expected })
            }
            _ => Ok(()),
        }
    }

    /// Refuses names and widths that no store can have.
    pub(crate) fn check(&self) -> Result<()> {
        for (name, vector) in &self.vectors {
            let is_name = name.chars().all(|c| c.is_alphanumeric() || "_-.".contains(c));
            if name.is_empty() || !is_name {
                return Err(Error::invalid(
                    "name of a vector",
                    format!("`{name}`"),
                    "letters, digits, `_`, `-` and `.`",
                ));
            }
            if !(1..=MAX_DIM).contains(&vector.dim) {
                let expected = format!("a width of 1 to {MAX_DIM}");
                return Err(Error::invalid(format!("vector `{name}`"), vector.dim, expected));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_model_is_refused_by_its_fingerprint() {
        let model = |fingerprint: &str| Model { name: "clip".into(), fingerprint: fingerprint.into() };
        let config = VectorConfig { model: Some(model("aa")), ..VectorConfig::cosine(4) };
        let config = StoreConfig::new("image", config);
        config.check_model("image", &model("aa")).unwrap();
        let message = config.check_model("image", &model("bb")).unwrap_err().to_string();
        assert!(message.contains("clip (fingerprint bb)") && message.contains("clip (fingerprint aa)"), "{message}");
        assert!(config.check_model("imag", &model("aa")).unwrap_err().to_string().contains("did you mean `image`?"));
    }

    #[test]
    fn names_and_widths_are_checked() {
        assert!(StoreConfig::new("a b", VectorConfig::cosine(4)).check().is_err());
        assert!(StoreConfig::new("a", VectorConfig::cosine(0)).check().is_err());
        StoreConfig::new("image", VectorConfig::cosine(512)).check().unwrap();
    }
}
