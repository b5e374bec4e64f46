#![doc = include_str!("../README.md")]
//!
//! A program registers the modality with [`register`]; then `kind = "tabular"` is valid in every config, and `mm fit`
//! uses it for columns of numbers and categories.

use mm_core::{
    BuiltEncoder, Encoder, Error, Features, Input, Modality, ProcessContext, Processor, Proposal, Registry, Result,
    Source, Tensor,
    cells::{NumberFormat, is_missing, is_missing_number},
    config,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

/// A numeric column.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NumericColumn {
    /// The name.
    pub name: String,
    /// How its texts are written: `plain` (as programs write numbers), `decimal_point` (`$1,200.50`), `decimal_comma`
    /// (`1.200,50 €`), or dates, which become days: `year_month_day`, `month_day_year`, `day_month_year`.
    #[serde(default)]
    pub format: NumberFormat,
    /// Edges of the bins, ascending; at least two.
    pub edges: Vec<f64>,
    /// Mean over the training rows.
    pub mean: f64,
    /// Standard deviation over the training rows.
    pub std: f64,
}

/// A categorical column.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CategoricalColumn {
    /// The name.
    pub name: String,
    /// The categories of the training rows, the most frequent first.
    pub values: Vec<String>,
}

impl NumericColumn {
    /// The statistics of a column; `None` where fewer than 95% of its finite values are numbers in one format.
    fn fit(name: &str, cells: &[&Value]) -> Option<Self> {
        let is_text = |v: &&&Value| v.is_string();
        let texts: Vec<String> = cells.iter().filter(is_text).map(|v| text(v)).collect();
        let finite = || texts.iter().map(String::as_str).filter(|t| !is_missing_number(t));
        let others = cells.iter().filter(|v| v.is_number() || v.is_boolean()).count();
        let format = match finite().next() {
            None if others > 0 => NumberFormat::Plain,
            _ => NumberFormat::infer(finite())?,
        };
        let mut numbers: Vec<f64> = cells.iter().filter_map(|v| parse_number(v, format)).collect();
        if numbers.is_empty() || numbers.len() * 20 < (finite().count() + others) * 19 {
            return None;
        }
        numbers.sort_by(f64::total_cmp);
        // Relative to the largest value, so that squares neither overflow nor lose all digits.
        let scale = numbers.iter().fold(0.0f64, |m, v| m.max(v.abs())).max(f64::MIN_POSITIVE);
        let count = numbers.len() as f64;
        let mean = numbers.iter().map(|v| v / scale).sum::<f64>() / count;
        let std = (numbers.iter().map(|v| (v / scale - mean).powi(2)).sum::<f64>() / count).sqrt();
        let mut edges: Vec<f64> = (0..=MAX_BINS).map(|b| numbers[b * (numbers.len() - 1) / MAX_BINS]).collect();
        edges.dedup();
        if let [only] = edges[..] {
            // A step that changes a number of this size.
            let step = (only.abs() * 1e-6).max(1.0);
            edges = if only > 0.0 { vec![only - step, only] } else { vec![only, only + step] };
        }
        let std = if std > 1e-12 { std * scale } else { scale.max(1.0) };
        Some(Self { name: name.to_owned(), format, edges, mean: mean * scale, std })
    }

    /// The piecewise linear encoding, the standardized value and whether it is missing.
    fn encode(&self, value: Option<f64>, out: &mut Vec<f32>) {
        // Halves, whose differences do not overflow.
        let share = |v: f64, from: f64, width: f64| (v * 0.5 - from * 0.5) / (width * 0.5);
        for edge in self.edges.windows(2) {
            let position = |v: f64| (v * 0.5 - edge[0] * 0.5) / (edge[1] * 0.5 - edge[0] * 0.5);
            out.push(value.map_or(0.0, |v| position(v).clamp(0.0, 1.0) as f32));
        }
        out.push(value.map_or(0.0, |v| share(v, self.mean, self.std).clamp(-10.0, 10.0) as f32));
        out.push(f32::from(u8::from(value.is_none())));
    }
}

impl CategoricalColumn {
    fn fit(name: &str, cells: &[&Value]) -> Self {
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        cells.iter().for_each(|v| *counts.entry(text(v)).or_default() += 1);
        let mut counted: Vec<(String, usize)> = counts.into_iter().collect();
        counted.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
        let values = counted.into_iter().take(MAX_CATEGORIES).map(|(v, _)| v).collect();
        Self { name: name.to_owned(), values }
    }
}

/// Settings of the encoder: the columns and the statistics of their training rows.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TabularConfig {
    /// Numeric columns.
    #[serde(default)]
    pub numeric: Vec<NumericColumn>,
    /// Categorical columns.
    #[serde(default)]
    pub categorical: Vec<CategoricalColumn>,
}

/// Maximum number of bins of a numeric column.
const MAX_BINS: usize = 12;
/// Maximum number of categories of a categorical column; rarer ones count as unseen.
const MAX_CATEGORIES: usize = 100;

/// The finite number in a cell.
fn parse_number(value: &Value, format: NumberFormat) -> Option<f64> {
    let found = match value {
        Value::Number(number) => number.as_f64(),
        Value::Bool(flag) => Some(f64::from(u8::from(*flag))),
        Value::String(text) => format.parse(text),
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
    /// Fits to training values, each an object of cells by column name. A column is numeric when at least 95% of its
    /// cells that are not empty are numbers.
    ///
    /// # Errors
    /// When a value is not an object.
    pub fn fit(values: &[&Source]) -> Result<Self> {
        let mut names: BTreeSet<&str> = BTreeSet::new();
        for value in values {
            match value {
                Source::Value(Value::Object(cells)) => names.extend(cells.keys().map(String::as_str)),
                Source::Record(record) => names.extend(record.columns()),
                other => return Err(not_cells(other)),
            }
        }
        let mut out = Self::default();
        // One column after the other, so that the values of one are in memory.
        for name in names {
            let cells = values.iter().map(|value| cell(value, name)).collect::<Result<Vec<_>>>()?;
            let cells = cells.iter().flatten().map(AsRef::as_ref);
            let cells: Vec<&Value> = cells.filter(|value: &&Value| !is_missing(&text(value))).collect();
            if cells.is_empty() {
                continue;
            }
            match NumericColumn::fit(name, &cells) {
                Some(column) => out.numeric.push(column),
                None => out.categorical.push(CategoricalColumn::fit(name, &cells)),
            }
        }
        Ok(out)
    }

    /// Dimension of an encoded row.
    pub fn dim(&self) -> i64 {
        let numeric: usize = self.numeric.iter().map(|n| n.edges.len() - 1 + 2).sum();
        let categorical: usize = self.categorical.iter().map(|c| c.values.len() + 1).sum();
        (numeric + categorical) as i64
    }

    fn check(&self, field: &str) -> Result<()> {
        for column in &self.numeric {
            let is_ascending = column.edges.len() >= 2 && column.edges.windows(2).all(|w| w[0] < w[1]);
            if !(is_ascending && column.std > 0.0 && column.mean.is_finite()) {
                let expected = "at least two ascending edges, a finite mean and a positive std";
                return Err(Error::config(format!("{field}.numeric.{}", column.name), format!("{column:?}"), expected));
            }
        }
        if self.dim() == 0 {
            return Err(Error::config(field, "no columns", "at least one numeric or categorical column"));
        }
        Ok(())
    }
}

/// The cell of a column, if the row has one.
fn cell<'a>(source: &'a Source, column: &str) -> Result<Option<Cow<'a, Value>>> {
    match source {
        Source::Value(Value::Object(cells)) => Ok(cells.get(column).map(Cow::Borrowed)),
        Source::Record(record) => Ok(record.value(column).map(Cow::Owned)),
        other => Err(not_cells(other)),
    }
}

fn not_cells(source: &Source) -> Error {
    Error::Sample(format!("found {source:?}, expected an object of cells by column name"))
}

/// An object of cells by column name → `[dim]` float32.
pub struct TabularProcessor {
    config: TabularConfig,
    /// Whether a cell of each numeric column was found that is no number.
    has_invalid: Vec<AtomicBool>,
}

impl TabularProcessor {
    fn new(config: TabularConfig) -> Self {
        Self { has_invalid: config.numeric.iter().map(|_| AtomicBool::new(false)).collect(), config }
    }

    /// The number of a cell. One that is not a number counts as missing, so that the row can still be used; the first
    /// of each column is logged.
    fn number(&self, index: usize, cell: Option<&Value>) -> Option<f64> {
        let column = &self.config.numeric[index];
        let found = cell.and_then(|v| parse_number(v, column.format));
        if let Some(cell) = cell.filter(|v| found.is_none() && !is_missing_number(&text(v)))
            && !self.has_invalid[index].swap(true, Ordering::Relaxed)
        {
            tracing::warn!(
                "column `{}`: found {cell}, expected {} as in training; such cells count as missing",
                column.name,
                column.format.describe()
            );
        }
        found
    }
}

impl Processor for TabularProcessor {
    fn process(&self, source: &Source, _context: &mut ProcessContext) -> Result<Tensor> {
        let mut out: Vec<f32> = Vec::with_capacity(self.config.dim() as usize);
        for (index, column) in self.config.numeric.iter().enumerate() {
            column.encode(self.number(index, cell(source, &column.name)?.as_deref()), &mut out);
        }
        for column in &self.config.categorical {
            let start = out.len();
            out.resize(start + column.values.len() + 1, 0.0);
            if let Some(value) = cell(source, &column.name)?.filter(|value| !value.is_null()) {
                let value = text(&value);
                let index = column.values.iter().position(|v| *v == value).unwrap_or(column.values.len());
                out[start + index] = 1.0;
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

/// Returns its input `[batch, dim]` unchanged: the layers after it are trained, not the encoder.
pub struct TabularEncoder {
    dim: i64,
}

impl Encoder for TabularEncoder {
    fn encode(&self, input: &Input, _train: bool) -> Result<Features> {
        Features::from_pooled(&input.values)
    }

    fn dim(&self) -> i64 {
        self.dim
    }

    fn modality(&self) -> Modality {
        Modality::from("tabular")
    }
}

/// Registers the encoder under the kind `tabular`, and the proposer that `mm fit` calls for the modality `tabular`.
pub fn register(registry: &mut Registry) {
    registry.register_encoder("tabular", |settings, context| {
        let settings: TabularConfig = config::parse(settings, &context.field)?;
        settings.check(&context.field)?;
        let encoder = TabularEncoder { dim: settings.dim() };
        Ok(BuiltEncoder {
            processor: Arc::new(TabularProcessor::new(settings)),
            encoder: Box::new(encoder),
            frozen: false,
            fingerprint: String::new(),
        })
    });
    registry.register_proposer("tabular", |values| {
        let found = TabularConfig::fit(values)?;
        let plural = |n: usize, one: &str, many: &str| format!("{n} {}", if n == 1 { one } else { many });
        let description = format!(
            "{} and {}",
            plural(found.numeric.len(), "number", "numbers"),
            plural(found.categorical.len(), "category", "categories")
        );
        let bad = |e: toml::ser::Error| Error::Sample(e.to_string());
        let mut encoder = toml::Value::try_from(found).map_err(bad)?;
        if let Some(table) = encoder.as_table_mut() {
            table.insert("kind".into(), "tabular".into());
        }
        Ok(vec![Proposal { encoder, standardize: false, description }])
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn columns_are_encoded_and_unreadable_cells_count_as_missing() {
        let rows: Vec<Source> =
            (0..40).map(|i| Source::Value(json!({"n": i, "c": if i % 2 == 0 { "even" } else { "odd" }}))).collect();
        let config = TabularConfig::fit(&rows.iter().collect::<Vec<_>>()).unwrap();
        assert_eq!((config.numeric.len(), config.categorical.len()), (1, 1));
        let processor = TabularProcessor::new(config.clone());
        let encode = |v: Value| {
            let encoded = processor.process(&Source::Value(v), &mut ProcessContext::eval()).unwrap();
            encoded.to_vec::<f32>().unwrap()
        };
        let row = encode(json!({"n": "39", "c": "odd"}));
        assert_eq!(row.len() as i64, config.dim());
        assert!(row[..12].iter().all(|v| *v == 1.0) && row[13] == 0.0);
        assert_eq!(row[14..], [0.0, 1.0, 0.0]);
        let unseen = encode(json!({"n": "NaN", "c": "none of both"}));
        assert_eq!(unseen[13..], [1.0, 0.0, 0.0, 1.0]);
        assert!(encode(json!({"n": 1e300})).iter().all(|v| v.is_finite()));
        let missing = ["1", "NaN", "2.5", "inf", "NA", "", "-3"].map(|cell| Source::Value(json!({"n": cell})));
        assert_eq!(TabularConfig::fit(&missing.each_ref()).unwrap().numeric.len(), 1);
        assert!(encode(json!({"n": "1e308"})).iter().all(|v| v.is_finite()));
        assert!(processor.process(&Source::Text("x".into()), &mut ProcessContext::eval()).is_err());
    }
    fn encoder(cells: &[&str]) -> (TabularConfig, TabularProcessor) {
        let rows: Vec<Source> = cells.iter().map(|c| Source::Value(json!({"n": c}))).collect();
        let config = TabularConfig::fit(&rows.iter().collect::<Vec<_>>()).unwrap();
        config.check("tabular").unwrap();
        (config.clone(), TabularProcessor::new(config))
    }

    /// The standardized value and whether it is missing.
    fn standardized(processor: &TabularProcessor, cell: &str) -> [f32; 2] {
        let row = Source::Value(json!({"n": cell}));
        let values = processor.process(&row, &mut ProcessContext::eval()).unwrap().to_vec::<f32>().unwrap();
        [values[values.len() - 2], values[values.len() - 1]]
    }

    #[test]
    fn numbers_with_signs_and_separators_and_dates_are_numeric() {
        for (cells, format, new, expected) in [
            (["$1,000.00", "$3,000.00"], NumberFormat::DecimalPoint, "$5,000.00", 3.0),
            (["10%", "30%"], NumberFormat::DecimalPoint, "50 %", 3.0),
            (["1,5", "2,5"], NumberFormat::DecimalComma, "3,5", 3.0),
            (["2024-01-01", "2024-01-03"], NumberFormat::YearMonthDay, "2024-01-05T00:00:00Z", 3.0),
        ] {
            let (config, processor) = encoder(&cells);
            assert_eq!(config.numeric[0].format, format, "{cells:?}");
            let [value, missing] = standardized(&processor, new);
            assert!((value - expected).abs() < 1e-4 && missing == 0.0, "{cells:?}: {value}");
            assert_eq!(standardized(&processor, "soon")[1], 1.0);
        }
        let json = r#"{"name": "n", "edges": [0.0, 1.0], "mean": 0.0, "std": 1.0}"#;
        assert_eq!(serde_json::from_str::<NumericColumn>(json).unwrap().format, NumberFormat::Plain);
    }

    #[test]
    fn huge_and_constant_numbers_keep_the_config_valid() {
        let (config, processor) = encoder(&["100000000000000017", "", "100000000000000017"]);
        assert!(config.numeric[0].edges[0] < config.numeric[0].edges[1]);
        assert_eq!(standardized(&processor, "100000000000000017"), [0.0, 0.0]);
        assert_eq!(standardized(&processor, ""), [0.0, 1.0]);
        let (_, processor) = encoder(&["1e308", "-1e308"]);
        assert!((standardized(&processor, "1e308")[0] - 1.0).abs() < 1e-5);
        let (_, processor) = encoder(&["1e-300", "3e-300"]);
        assert!((standardized(&processor, "3e-300")[0] - 1.0).abs() < 1e-5);
        let (config, _) = encoder(&["NA", "red", "None", "red", "blue"]);
        assert_eq!(config.categorical[0].values, ["red", "blue"]);
    }
}
