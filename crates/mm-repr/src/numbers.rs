//! Lists of numbers as they stand in a manifest: features that somebody made already.

use mm_core::{Encoder, Error, Features, Input, Modality, Processor, Result, SampleContext, Source, Tensor};

/// A list of so many numbers → `[width]`.
pub struct Numbers {
    width: usize,
}

impl Numbers {
    /// For lists of `width` numbers.
    pub fn new(width: usize) -> Self {
        Self { width }
    }
}

impl Processor for Numbers {
    fn process(&self, source: &Source, _context: &mut SampleContext) -> Result<Tensor> {
        let Source::Value(serde_json::Value::Array(items)) = source else {
            return Err(Error::Sample(format!("found {source:?}, wanted a list of {} numbers", self.width)));
        };
        let values: Vec<f32> = items.iter().filter_map(|v| v.as_f64().map(|v| v as f32)).collect();
        if values.len() != self.width || items.len() != self.width || values.iter().any(|v| !v.is_finite()) {
            let found = format!("a list of {} with {} numbers", items.len(), values.len());
            return Err(Error::Sample(format!("found {found}, wanted {} finite numbers", self.width)));
        }
        Tensor::from_slice(&values)
    }

    fn is_sequence(&self) -> bool {
        false
    }

    fn fingerprint(&self) -> String {
        format!("numbers {}", self.width)
    }
}

/// Vectors `[batch, width]` as they are.
pub struct AsTheyAre {
    /// Their width.
    pub width: i64,
    /// Of which modality they are.
    pub modality: Modality,
}

impl Encoder for AsTheyAre {
    fn encode(&self, input: &Input, _train: bool) -> Result<Features> {
        Features::from_pooled(&input.values)
    }

    fn embed(&self, input: &Input, _train: bool) -> Result<Tensor> {
        Ok(input.values.clone())
    }

    fn width(&self) -> i64 {
        self.width
    }

    fn modality(&self) -> Modality {
        self.modality.clone()
    }
}
