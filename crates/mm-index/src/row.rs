//! What is stored: rows with vectors, payload and text.

use crate::{
    Error, Result, StoreConfig,
    config::{Distance, VectorConfig},
    payload::Payload,
};
use half::f16;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A row of a store. An upsert replaces the row of the same id as a whole.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Row {
    /// Unique id.
    pub id: String,
    /// Vectors by name; a row may lack some.
    #[serde(default)]
    pub vectors: BTreeMap<String, Vectors>,
    /// Fields that filters see and results show.
    #[serde(default)]
    pub payload: Payload,
    /// Text that is searched by words.
    #[serde(default)]
    pub text: Option<String>,
    /// A text that changes whenever what the row is made of does; programs that follow changes compare it.
    #[serde(default)]
    pub version: Option<String>,
}

impl Row {
    /// A row without anything but its id.
    pub fn new(id: impl Into<String>) -> Self {
        Self { id: id.into(), ..Self::default() }
    }

    /// With a vector of this name.
    pub fn with_vector(mut self, name: &str, values: impl Into<Vectors>) -> Self {
        self.vectors.insert(name.to_owned(), values.into());
        self
    }

    /// With a field of the payload.
    pub fn with_field(mut self, name: &str, value: impl Into<serde_json::Value>) -> Self {
        self.payload.insert(name.to_owned(), value.into());
        self
    }

    /// With a text.
    pub fn with_text(mut self, text: impl Into<String>) -> Self {
        self.text = Some(text.into());
        self
    }
}

/// The vectors of one name of a row.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Vectors {
    /// One vector.
    Single(Vec<f32>),
    /// Several of the same width: one for each token, frame or patch.
    Multi(Vec<Vec<f32>>),
}

impl From<Vec<f32>> for Vectors {
    fn from(values: Vec<f32>) -> Self {
        Self::Single(values)
    }
}

impl From<Vec<Vec<f32>>> for Vectors {
    fn from(values: Vec<Vec<f32>>) -> Self {
        Self::Multi(values)
    }
}

impl Vectors {
    /// Each vector.
    pub fn iter(&self) -> impl Iterator<Item = &[f32]> {
        let (single, multi) = match self {
            Self::Single(values) => (Some(values), &[][..]),
            Self::Multi(list) => (None, list.as_slice()),
        };
        single.into_iter().chain(multi).map(Vec::as_slice)
    }
}

/// The values of a vector as it is compared: checked, and of unit length for cosine. `what` names it in errors.
pub(crate) fn prepare(what: impl Fn() -> String, config: &VectorConfig, values: &[f32]) -> Result<Vec<f32>> {
    if values.len() != config.dim {
        return Err(Error::invalid(what(), format!("{} values", values.len()), format!("{} values", config.dim)));
    }
    if let Some((index, value)) = values.iter().enumerate().find(|(_, v)| !v.is_finite()) {
        return Err(Error::invalid(what(), format!("{value} at position {index}"), "finite numbers"));
    }
    if config.distance != Distance::Cosine {
        return Ok(values.to_vec());
    }
    // In 64 bits the squares of 32-bit numbers cannot overflow.
    let norm = values.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
    if norm == 0.0 {
        let hint = "a vector other than zero, which has no direction for cosine (use dot or euclidean)";
        return Err(Error::invalid(what(), "a vector of zeros", hint));
    }
    Ok(values.iter().map(|v| (f64::from(*v) / norm) as f32).collect())
}

/// A row's vectors as they are stored, one after the other.
pub(crate) fn encode(id: &str, name: &str, config: &VectorConfig, vectors: &Vectors) -> Result<Vec<f16>> {
    let what = || format!("vector `{name}` of row `{id}`");
    if matches!(vectors, Vectors::Multi(_)) && !config.multi {
        return Err(Error::invalid(
            what(),
            "several vectors",
            "one vector a row (the store was created without `multi`)",
        ));
    }
    if vectors.iter().next().is_none() {
        return Err(Error::invalid(what(), "no vector", "at least one; leave the name out for a row without one"));
    }
    let mut stored = Vec::new();
    for values in vectors.iter() {
        for value in prepare(what, config, values)? {
            let half = f16::from_f32(value);
            if !half.is_finite() {
                let expected = format!("numbers of at most {} (vectors are stored as 16-bit floats)", f16::MAX);
                return Err(Error::invalid(what(), value, expected));
            }
            stored.push(half);
        }
    }
    Ok(stored)
}

/// The stored vectors of every name of a row, in the order of the store's names.
pub(crate) fn encode_row(config: &StoreConfig, row: &Row) -> Result<Vec<(String, Vec<f16>)>> {
    if row.id.is_empty() {
        return Err(Error::invalid("id of a row", "nothing", "a text"));
    }
    let encode = |(name, vectors): (&String, &Vectors)| {
        Ok((name.clone(), encode(&row.id, name, config.vector(name)?, vectors)?))
    };
    row.vectors.iter().map(encode).collect()
}

/// Stored vectors as they are returned: the inverse of [`encode`] up to rounding and length.
pub(crate) fn decode(config: &VectorConfig, stored: &[f16]) -> Vectors {
    let values: Vec<f32> = stored.iter().map(|v| v.to_f32()).collect();
    if config.multi {
        Vectors::Multi(values.chunks(config.dim).map(<[f32]>::to_vec).collect())
    } else {
        Vectors::Single(values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_that_cannot_be_compared_are_refused_by_name() {
        let store = StoreConfig::new("a", VectorConfig::cosine(2))
            .with("d", VectorConfig { distance: Distance::Dot, ..VectorConfig::cosine(2) });
        let message = |name: &str, values: Vec<f32>| {
            encode_row(&store, &Row::new("r").with_vector(name, values)).unwrap_err().to_string()
        };
        assert_eq!(message("a", vec![1.0]), "vector `a` of row `r`: found 1 values, expected 2 values");
        assert!(message("a", vec![0.0, f32::NAN]).contains("found NaN at position 1"));
        assert!(message("a", vec![0.0, 0.0]).contains("a vector of zeros"));
        assert!(message("d", vec![1e6, 0.0]).contains("at most 65504"));
        assert!(message("b", vec![0.0, 1.0]).contains("unknown vector `b`"));
        assert_eq!(encode_row(&store, &Row::new("r").with_vector("d", vec![0.0, 0.0])).unwrap()[0].1.len(), 2);
    }

    #[test]
    fn cosine_vectors_are_stored_at_unit_length() {
        let config = VectorConfig::cosine(2);
        let stored = encode("r", "a", &config, &vec![3e30, 4e30].into()).unwrap();
        let Vectors::Single(values) = decode(&config, &stored) else { panic!("one vector") };
        assert!((values[0] - 0.6).abs() < 1e-3 && (values[1] - 0.8).abs() < 1e-3, "{values:?}");
    }
}
