//! Numbers and categories as a modality: the proof that one can come from outside. It uses public traits alone; a program makes it known by
//! [`register`], and from then on `kind = "tabular"` works in every config and `mm fit` finds it for columns of numbers and categories.
//!
//! A number becomes how far it is through each of some bins that hold equally many training rows (piecewise linear encoding, Gorishniy 2022),
//! so that a network can bend at every one of their edges; its own value, brought to mean zero and variance one; and whether it is missing. A
//! category becomes a one in its place, the last place being for those that training never saw.
//!
//! ```
//! let mut registry = mm_core::Registry::new();
//! mm_tabular::register(&mut registry);
//! let row = mm_core::Source::Value(serde_json::json!({"age": 31, "colour": "red"}));
//! let proposal = registry.propose(&"tabular".into(), &[&row, &row])?;
//! assert!(proposal[0].description.contains("1 number"));
//! # Ok::<(), mm_core::Error>(())
//! ```

use mm_core::{
    BuiltEncoder, Encoder, Error, Features, Input, Modality, ProcessContext, Processor, Proposal, Registry, Result,
    Source, Tensor, config,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{collections::BTreeMap, sync::Arc};

/// One column of numbers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Number {
    /// The column.
    pub name: String,
    /// Edges of the bins, growing; at least two.
    pub edges: Vec<f64>,
    /// Mean of the training rows.
    pub mean: f64,
    /// Their standard deviation.
    pub deviation: f64,
}

/// One column of categories.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Category {
    /// The column.
    pub name: String,
    /// What stood in it.
    pub values: Vec<String>,
}

/// What is known of the columns.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TabularConfig {
    /// Columns of numbers.
    #[serde(default)]
    pub numbers: Vec<Number>,
    /// Columns of categories.
    #[serde(default)]
    pub categories: Vec<Category>,
}

/// Most bins of a number and most values of a category that get a place of their own.
const BINS: usize = 12;
const VALUES: usize = 100;

fn number(value: &Value) -> Option<f64> {
    let found = match value {
        Value::Number(number) => number.as_f64(),
        Value::Bool(flag) => Some(f64::from(u8::from(*flag))),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    found.filter(|v| v.is_finite())
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.trim().to_owned(),
        other => other.to_string(),
    }
}

impl TabularConfig {
    /// Learns from training values, each an object of cells by column: a column is one of numbers when nineteen of twenty cells that hold
    /// anything are.
    pub fn fit(values: &[&Source]) -> Result<Self> {
        let mut cells: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
        for source in values {
            for (column, value) in object(source)? {
                cells.entry(column).or_default().push(value);
            }
        }
        let mut out = Self::default();
        for (name, cells) in cells {
            let mut numbers: Vec<f64> = cells.iter().filter_map(|v| number(v)).collect();
            let empty = cells.iter().filter(|v| mm_core::is_missing_cell(&text(v))).count();
            if numbers.len() * 20 >= (cells.len() - empty) * 19 && !numbers.is_empty() {
                numbers.sort_by(f64::total_cmp);
                let count = numbers.len() as f64;
                let mean = numbers.iter().sum::<f64>() / count;
                let spread = (numbers.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / count).sqrt();
                let mut edges: Vec<f64> = (0..=BINS).map(|b| numbers[b * (numbers.len() - 1) / BINS]).collect();
                edges.dedup();
                if edges.len() < 2 {
                    edges.push(edges[0] + 1.0);
                }
                let deviation = if spread > 1e-12 { spread } else { 1.0 };
                out.numbers.push(Number { name: name.to_owned(), edges, mean, deviation });
            } else {
                let mut counts: BTreeMap<String, usize> = BTreeMap::new();
                cells.iter().for_each(|v| *counts.entry(text(v)).or_default() += 1);
                let mut counted: Vec<(String, usize)> = counts.into_iter().collect();
                counted.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
                let values = counted.into_iter().take(VALUES).map(|(v, _)| v).collect();
                out.categories.push(Category { name: name.to_owned(), values });
            }
        }
        Ok(out)
    }

    /// Width of what a row becomes.
    pub fn dim(&self) -> i64 {
        let numbers: usize = self.numbers.iter().map(|n| n.edges.len() - 1 + 2).sum();
        let categories: usize = self.categories.iter().map(|c| c.values.len() + 1).sum();
        (numbers + categories) as i64
    }

    fn check(&self, field: &str) -> Result<()> {
        for number in &self.numbers {
            let grows = number.edges.len() >= 2 && number.edges.windows(2).all(|w| w[0] < w[1]);
            if !(grows && number.deviation > 0.0 && number.mean.is_finite()) {
                let wanted = "at least two growing edges, a mean and a positive deviation";
                return Err(Error::config(format!("{field}.numbers.{}", number.name), format!("{number:?}"), wanted));
            }
        }
        if self.dim() == 0 {
            return Err(Error::config(field, "no column", "at least one of numbers or categories"));
        }
        Ok(())
    }
}

fn object(source: &Source) -> Result<&serde_json::Map<String, Value>> {
    match source {
        Source::Value(Value::Object(cells)) => Ok(cells),
        other => Err(Error::Sample(format!("found {other:?}, wanted an object of cells by column"))),
    }
}

/// An object of cells → `[width]`.
pub struct TabularProcessor {
    config: TabularConfig,
}

impl Processor for TabularProcessor {
    fn process(&self, source: &Source, _context: &mut ProcessContext) -> Result<Tensor> {
        let cells = object(source)?;
        let mut out: Vec<f32> = Vec::with_capacity(self.config.dim() as usize);
        for column in &self.config.numbers {
            // What is no number counts as missing: one bad cell must not cost the row.
            let value = cells.get(&column.name).and_then(number);
            for edge in column.edges.windows(2) {
                out.push(value.map_or(0.0, |v| ((v - edge[0]) / (edge[1] - edge[0])).clamp(0.0, 1.0) as f32));
            }
            out.push(value.map_or(0.0, |v| ((v - column.mean) / column.deviation).clamp(-10.0, 10.0) as f32));
            out.push(f32::from(u8::from(value.is_none())));
        }
        for column in &self.config.categories {
            let start = out.len();
            out.resize(start + column.values.len() + 1, 0.0);
            if let Some(value) = cells.get(&column.name).filter(|v| !v.is_null()) {
                let value = text(value);
                let place = column.values.iter().position(|v| *v == value).unwrap_or(column.values.len());
                out[start + place] = 1.0;
            }
        }
        Tensor::from_slice(&out)
    }

    fn is_sequence(&self) -> bool {
        false
    }

    fn fingerprint(&self) -> String {
        format!("tabular {:?}", self.config)
    }
}

/// Rows of numbers `[batch, width]` as they are: what is to be learned from them, the network behind learns.
pub struct TabularEncoder {
    width: i64,
}

impl Encoder for TabularEncoder {
    fn encode(&self, input: &Input, _train: bool) -> Result<Features> {
        Features::from_pooled(&input.values)
    }

    fn dim(&self) -> i64 {
        self.width
    }

    fn modality(&self) -> Modality {
        Modality::from("tabular")
    }
}

/// Makes the modality known: its encoder by its `kind`, and how it is chosen where nobody says.
pub fn register(registry: &mut Registry) {
    registry.register_encoder("tabular", |settings, context| {
        let settings: TabularConfig = config::parse(settings, &context.field)?;
        settings.check(&context.field)?;
        let encoder = TabularEncoder { width: settings.dim() };
        Ok(BuiltEncoder {
            processor: Arc::new(TabularProcessor { config: settings }),
            encoder: Box::new(encoder),
            frozen: false,
            fingerprint: String::new(),
        })
    });
    registry.register_proposer("tabular", |values| {
        let found = TabularConfig::fit(values)?;
        let plural = |n: usize, one: &str, many: &str| format!("{n} {}", if n == 1 { one } else { many });
        let about = format!(
            "{} and {}",
            plural(found.numbers.len(), "number", "numbers"),
            plural(found.categories.len(), "category", "categories")
        );
        let bad = |e: toml::ser::Error| Error::Sample(e.to_string());
        let mut encoder = toml::Value::try_from(found).map_err(bad)?;
        if let Some(table) = encoder.as_table_mut() {
            table.insert("kind".into(), "tabular".into());
        }
        Ok(vec![Proposal { encoder, standardize: false, description: about }])
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn cells_become_bins_and_places_and_what_is_odd_costs_nothing() {
        let rows: Vec<Source> =
            (0..40).map(|i| Source::Value(json!({"n": i, "c": if i % 2 == 0 { "even" } else { "odd" }}))).collect();
        let config = TabularConfig::fit(&rows.iter().collect::<Vec<_>>()).unwrap();
        assert_eq!((config.numbers.len(), config.categories.len()), (1, 1));
        let processor = TabularProcessor { config: config.clone() };
        let of = |v: Value| {
            let made = processor.process(&Source::Value(v), &mut ProcessContext::eval()).unwrap();
            made.to_vec::<f32>().unwrap()
        };
        let row = of(json!({"n": "39", "c": "odd"}));
        assert_eq!(row.len() as i64, config.dim());
        assert!(row[..12].iter().all(|v| *v == 1.0) && row[13] == 0.0);
        assert_eq!(row[14..], [0.0, 1.0, 0.0]);
        let unseen = of(json!({"n": "NaN", "c": "none of both"}));
        assert_eq!(unseen[13..], [1.0, 0.0, 0.0, 1.0]);
        assert!(of(json!({"n": 1e300})).iter().all(|v| v.is_finite()));
        let gaps = ["1", "NaN", "2.5", "inf", "NA", "", "-3"].map(|cell| Source::Value(json!({"n": cell})));
        assert_eq!(TabularConfig::fit(&gaps.each_ref()).unwrap().numbers.len(), 1);
        assert!(processor.process(&Source::Text("x".into()), &mut ProcessContext::eval()).is_err());
    }
}
