//! Vectors that are given as values: features that were computed elsewhere.

use mm_core::{Encoder, Error, Features, Input, Modality, Pooling, ProcessContext, Processor, Result, Source, Tensor};
use std::path::Path;

/// Given vectors → `[dim]`, the mean of the steps, or `[steps, dim]` with [`Self::with_max_steps`].
///
/// A value is a list of numbers, a list of such lists (steps in time), or rows of an `.npy` file:
/// `{"array": "a.npy", "from": 3, "length": 5}`.
pub struct VectorProcessor {
    dim: usize,
    /// Maximum number of steps, where values are sequences; neighboring steps of longer ones are averaged.
    max_steps: Option<usize>,
}

impl VectorProcessor {
    /// For vectors of `dim` numbers.
    pub fn new(dim: usize) -> Self {
        Self { dim, max_steps: None }
    }

    /// With a number, values are sequences of at most this many steps.
    pub fn with_max_steps(self, max_steps: Option<usize>) -> Self {
        Self { max_steps: max_steps.map(|m| m.max(1)), ..self }
    }

    /// Dimension of a value; `None` if it is not a vector.
    pub fn dim_of(source: &Source) -> Option<usize> {
        let value = source.json()?;
        match value.as_array() {
            Some(items) if items.first().is_some_and(serde_json::Value::is_array) => Some(items[0].as_array()?.len()),
            Some(items) => Some(items.len()),
            None => Some(npy_rows(&value)?.ok()?.size(1).ok()? as usize),
        }
    }

    /// All steps of a value, `[steps, dim]`.
    fn steps(&self, value: &serde_json::Value) -> Result<Tensor> {
        if let Some(rows) = npy_rows(value) {
            return rows;
        }
        let items = value.as_array().map_or(&[][..], Vec::as_slice);
        let nested = items.first().is_some_and(serde_json::Value::is_array);
        let rows: Option<Vec<Vec<f32>>> = if nested {
            items.iter().map(|i| finite_values(i.as_array()?)).collect()
        } else {
            finite_values(items).map(|row| vec![row])
        };
        let rows = rows.filter(|r| r.iter().all(|r| r.len() == self.dim) && self.dim > 0);
        let Some(rows) = rows else {
            let numbers = items.iter().filter(|v| v.is_number()).count();
            let found = format!("a list of {} with {numbers} numbers", items.len());
            return Err(Error::Sample(format!("found {found}, expected {} finite numbers", self.dim)));
        };
        Tensor::from_vec(&rows.concat(), &[rows.len() as i64, self.dim as i64])
    }
}

/// The rows of an `.npy` file that a value names; `None` if it names none.
fn npy_rows(value: &serde_json::Value) -> Option<Result<Tensor>> {
    let path = value.get("array")?.as_str()?;
    let index = |key: &str| value.get(key)?.as_u64().map(|v| v as usize);
    let (from, length) = (index("from")?, index("length").unwrap_or(1));
    Some(mm_data::read_npy_rows(Path::new(path), from, length).map_err(Error::from))
}

/// The numbers of a list, if all of them are finite.
fn finite_values(items: &[serde_json::Value]) -> Option<Vec<f32>> {
    let values: Vec<f32> = items.iter().filter_map(|v| v.as_f64().map(|v| v as f32)).collect();
    (values.len() == items.len() && values.iter().all(|v| v.is_finite())).then_some(values)
}

impl Processor for VectorProcessor {
    fn process(&self, source: &Source, _context: &mut ProcessContext) -> Result<Tensor> {
        let Some(value) = source.json() else {
            return Err(Error::Sample(format!("found {source:?}, expected a list of {} finite numbers", self.dim)));
        };
        let steps = self.steps(&value)?;
        let [length, dim] = [steps.size(0)?, steps.size(1)?];
        if dim as usize != self.dim || length == 0 {
            let found = format!("{length} steps of {dim} numbers");
            return Err(Error::Sample(format!("found {found}, expected steps of {} finite numbers", self.dim)));
        }
        match self.max_steps {
            None if length == 1 => steps.squeeze(0),
            None => steps.mean_dim(&[0], false),
            Some(max) if length as usize <= max => Ok(steps),
            Some(max) => {
                let start = |n: usize| n as i64 * length / max as i64;
                let means = (0..max).map(|n| steps.narrow(0, start(n), start(n + 1) - start(n))?.mean_dim(&[0], false));
                Tensor::stack_single_threaded(&means.collect::<Result<Vec<_>>>()?.iter().collect::<Vec<_>>())
            }
        }
    }

    fn is_sequence(&self) -> bool {
        self.max_steps.is_some()
    }

    fn fingerprint(&self) -> String {
        match self.max_steps {
            None => format!("vector {}", self.dim),
            Some(max) => format!("vector {} in {max}", self.dim),
        }
    }
}

/// Returns vectors `[batch, dim]` or sequences `[batch, steps, dim]` unchanged.
pub struct IdentityEncoder {
    /// Dimension of the vectors.
    pub dim: i64,
    /// Their modality.
    pub modality: Modality,
}

impl Encoder for IdentityEncoder {
    fn encode(&self, input: &Input, _train: bool) -> Result<Features> {
        if input.values.rank() == 3 {
            return Features::new(input.values.clone(), input.mask.clone());
        }
        Features::from_pooled(&input.values)
    }

    fn embed(&self, input: &Input, train: bool) -> Result<Tensor> {
        if input.values.rank() == 3 { self.encode(input, train)?.pool(Pooling::Mean) } else { Ok(input.values.clone()) }
    }

    fn dim(&self) -> i64 {
        self.dim
    }

    fn modality(&self) -> Modality {
        self.modality.clone()
    }
}
