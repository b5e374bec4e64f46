//! Raw values → tensors.

use mm_core::{Error, ProcessContext, Processor, Result, Source, Tensor};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A channel whose standard deviation is below this is constant.
const MIN_DEVIATION: f64 = 1e-9;

/// Mean and standard deviation of each channel over the training readings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statistics {
    /// Mean of each channel.
    pub mean: Vec<f64>,
    /// Standard deviation of each channel; positive.
    pub deviation: Vec<f64>,
}

impl Statistics {
    /// The statistics of training values. Values that cannot be read are left out: training reports them.
    ///
    /// # Errors
    /// When no value can be read, or their numbers of channels differ.
    pub fn fit(values: &[&Source]) -> Result<Self> {
        let read: Vec<Vec<Vec<f32>>> = values.iter().filter_map(|value| readings(value).ok()).collect();
        let all: Vec<&Vec<f32>> = read.iter().flatten().collect();
        let Some(first) = all.first() else {
            let count = values.len();
            return Err(Error::Sample(format!("found {count} values that are no readings, expected lists of numbers")));
        };
        let channels = first.len();
        if let Some(other) = all.iter().find(|reading| reading.len() != channels) {
            return Err(Error::Sample(format!("found readings of {channels} and of {} channels", other.len())));
        }
        let count = all.len() as f64;
        let mean_of = |f: &dyn Fn(f64) -> f64, channel: usize| {
            all.iter().map(|reading| f(f64::from(reading[channel]))).sum::<f64>() / count
        };
        let mean: Vec<f64> = (0..channels).map(|channel| mean_of(&|v| v, channel)).collect();
        let variance = |channel: usize| mean_of(&|v| (v - mean[channel]).powi(2), channel);
        let deviation = (0..channels).map(|channel| variance(channel).sqrt());
        let deviation = deviation.map(|d| if d > MIN_DEVIATION { d } else { 1.0 }).collect();
        Ok(Self { mean, deviation })
    }

    /// Number of channels.
    pub fn num_channels(&self) -> usize {
        self.mean.len()
    }

    /// Checks settings that a person may have written.
    ///
    /// # Errors
    /// When the two lists differ in length or are empty, or a deviation is not positive.
    pub fn check(&self, field: &str) -> Result<()> {
        let is_valid = !self.mean.is_empty()
            && self.mean.len() == self.deviation.len()
            && self.mean.iter().all(|v| v.is_finite())
            && self.deviation.iter().all(|v| v.is_finite() && *v > 0.0);
        if is_valid {
            return Ok(());
        }
        let found = format!("mean = {:?}, deviation = {:?}", self.mean, self.deviation);
        let expected = "as many finite means as positive deviations, at least one";
        Err(Error::config(format!("{field}.statistics"), found, expected))
    }
}

/// The readings of a raw value, one list of channels each; at least one, and all of one length.
///
/// # Errors
/// When the value is no list of lists of numbers, or its file cannot be read.
pub fn readings(source: &Source) -> Result<Vec<Vec<f32>>> {
    let readings = match source {
        Source::Text(text) => from_json(&Value::String(text.clone()))?,
        Source::Path(path) => from_lines(&std::fs::read_to_string(path).map_err(|e| Error::file(path, e))?)?,
        Source::Bytes(file) => from_lines(&String::from_utf8_lossy(&file.read()?))?,
        other => match other.json() {
            Some(value) => from_json(&value)?,
            None => return Err(Error::Sample(format!("found {other:?}, expected a list of readings"))),
        },
    };
    let Some(channels) = readings.first().map(Vec::len).filter(|channels| *channels > 0) else {
        return Err(Error::Sample("found no reading, expected at least one".into()));
    };
    match readings.iter().position(|reading| reading.len() != channels) {
        None => Ok(readings),
        Some(index) => {
            let found = readings[index].len();
            Err(Error::Sample(format!("reading {}: found {found} numbers, expected {channels} as before", index + 1)))
        }
    }
}

/// A list of readings; a text holds the same as JSON, as in a cell of a CSV file.
fn from_json(value: &Value) -> Result<Vec<Vec<f32>>> {
    let unusable =
        || Error::Sample(format!("found {}, expected a list of readings: [[0.1, 0.2], …]", shortened(value)));
    let parsed: Value;
    let list = match value {
        Value::String(text) => {
            parsed = serde_json::from_str(text).map_err(|_| unusable())?;
            &parsed
        }
        other => other,
    };
    let number = |value: &Value| value.as_f64().map(|v| v as f32).filter(|v| v.is_finite());
    let reading = |value: &Value| value.as_array()?.iter().map(number).collect::<Option<Vec<f32>>>();
    list.as_array().and_then(|items| items.iter().map(reading).collect()).ok_or_else(unusable)
}

/// One reading a line, its numbers separated by commas; empty lines are ignored.
fn from_lines(text: &str) -> Result<Vec<Vec<f32>>> {
    let mut readings = Vec::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let cells = line.split(',').map(|cell| cell.trim().parse::<f32>().ok().filter(|v| v.is_finite()));
        let reading: Option<Vec<f32>> = cells.collect();
        let expected = "numbers separated by commas";
        let unusable = || Error::Sample(format!("line {}: found {line:?}, expected {expected}", number + 1));
        readings.push(reading.ok_or_else(unusable)?);
    }
    Ok(readings)
}

fn shortened(value: &Value) -> String {
    value.to_string().chars().take(60).collect()
}

/// A raw value → `[readings, channels]` float32, standardized.
pub struct TemplateNameProcessor {
    statistics: Statistics,
}

impl TemplateNameProcessor {
    /// A processor that standardizes by these statistics.
    pub fn new(statistics: Statistics) -> Self {
        Self { statistics }
    }
}

impl Processor for TemplateNameProcessor {
    fn process(&self, source: &Source, _context: &mut ProcessContext) -> Result<Tensor> {
        let readings = readings(source)?;
        let (found, channels) = (readings[0].len(), self.statistics.num_channels());
        if found != channels {
            return Err(Error::Sample(format!(
                "found readings of {found} channels, expected {channels} as in training"
            )));
        }
        let scale = |(channel, value): (usize, &f32)| {
            ((f64::from(*value) - self.statistics.mean[channel]) / self.statistics.deviation[channel]) as f32
        };
        let values: Vec<f32> = readings.iter().flat_map(|reading| reading.iter().enumerate().map(scale)).collect();
        Tensor::from_vec(&values, &[readings.len() as i64, channels as i64])
    }

    /// Samples of a batch differ in their number of readings; mm pads and masks them.
    fn is_sequence(&self) -> bool {
        true
    }

    /// The cache key of processed samples: changes whenever the output would.
    fn fingerprint(&self) -> String {
        format!("template_name 1 {:?}", self.statistics)
    }
}
