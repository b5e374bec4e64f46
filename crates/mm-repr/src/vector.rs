//! Lists of numbers as they stand in a manifest: features that somebody made already.

use mm_core::{Encoder, Error, Features, Input, Modality, Pooling, ProcessContext, Processor, Result, Source, Tensor};
use std::path::Path;

/// Vectors that were made already: a list of numbers, a list of such lists (steps in time), or lines of a `.npy` file, `{"array": "a.npy",
/// "from": 3, "length": 5}` → `[width]`, the mean of the steps, or `[steps, width]`.
pub struct VectorProcessor {
    width: usize,
    /// Most steps of a value, where they are kept; neighbours of a longer one are averaged.
    steps: Option<usize>,
}

impl VectorProcessor {
    /// For `width` numbers a value.
    pub fn new(width: usize) -> Self {
        Self { width, steps: None }
    }

    /// The same; where a number is given, values are steps in time of which at most so many are kept.
    pub fn in_steps(self, most: Option<usize>) -> Self {
        Self { steps: most.map(|m| m.max(1)), ..self }
    }

    /// How many numbers a step of this value has; none where it is no such value.
    pub fn width_of(source: &Source) -> Option<usize> {
        let Source::Value(value) = source else { return None };
        match value.as_array() {
            Some(items) if items.first().is_some_and(serde_json::Value::is_array) => Some(items[0].as_array()?.len()),
            Some(items) => Some(items.len()),
            None => Some(lines(value)?.ok()?.size(1).ok()? as usize),
        }
    }
}

/// The lines of an array that a value names; none where it names none.
fn lines(value: &serde_json::Value) -> Option<Result<Tensor>> {
    let path = value.get("array")?.as_str()?;
    let place = |key: &str| value.get(key)?.as_u64().map(|v| v as usize);
    let (from, length) = (place("from")?, place("length").unwrap_or(1));
    Some(mm_data::read_npy_rows(Path::new(path), from, length).map_err(Error::from))
}

/// The lists' numbers, all finite.
fn listed(items: &[serde_json::Value]) -> Option<Vec<f32>> {
    let values: Vec<f32> = items.iter().filter_map(|v| v.as_f64().map(|v| v as f32)).collect();
    (values.len() == items.len() && values.iter().all(|v| v.is_finite())).then_some(values)
}

impl Processor for VectorProcessor {
    fn process(&self, source: &Source, _context: &mut ProcessContext) -> Result<Tensor> {
        let wanted = || format!("{} finite numbers", self.width);
        let Source::Value(value) = source else {
            return Err(Error::Sample(format!("found {source:?}, wanted a list of {}", wanted())));
        };
        let steps = if let Some(steps) = lines(value) {
            steps?
        } else {
            let items = value.as_array().map_or(&[][..], Vec::as_slice);
            let nested = items.first().is_some_and(serde_json::Value::is_array);
            let rows: Option<Vec<Vec<f32>>> = if nested {
                items.iter().map(|i| listed(i.as_array()?)).collect()
            } else {
                listed(items).map(|row| vec![row])
            };
            let rows = rows.filter(|r| r.iter().all(|r| r.len() == self.width) && self.width > 0);
            let Some(rows) = rows else {
                let numbers = items.iter().filter(|v| v.is_number()).count();
                let found = format!("a list of {} with {numbers} numbers", items.len());
                return Err(Error::Sample(format!("found {found}, wanted {}", wanted())));
            };
            Tensor::from_vec(&rows.concat(), &[rows.len() as i64, self.width as i64])?
        };
        let [length, width] = [steps.size(0)?, steps.size(1)?];
        if width as usize != self.width || length == 0 {
            return Err(Error::Sample(format!(
                "found {length} steps of {width} numbers, wanted steps of {}",
                wanted()
            )));
        }
        match self.steps {
            None if length == 1 => steps.squeeze(0),
            None => steps.mean_dim(&[0], false),
            Some(most) if length as usize <= most => Ok(steps),
            Some(most) => {
                let cut = |n: usize| n as i64 * length / most as i64;
                let parts = (0..most).map(|n| steps.narrow(0, cut(n), cut(n + 1) - cut(n))?.mean_dim(&[0], false));
                Tensor::stack_single_threaded(&parts.collect::<Result<Vec<_>>>()?.iter().collect::<Vec<_>>())
            }
        }
    }

    fn is_sequence(&self) -> bool {
        self.steps.is_some()
    }

    fn fingerprint(&self) -> String {
        self.steps.map_or_else(|| format!("numbers {}", self.width), |most| format!("numbers {} in {most}", self.width))
    }
}

/// Vectors `[batch, width]`, or steps of them `[batch, steps, width]`, as they are.
pub struct IdentityEncoder {
    /// Their width.
    pub width: i64,
    /// Of which modality they are.
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
        self.width
    }

    fn modality(&self) -> Modality {
        self.modality.clone()
    }
}
