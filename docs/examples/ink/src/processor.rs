//! Strokes → tensors: the path of the pen at even distances, with its direction.

use mm_core::{Error, ProcessContext, Processor, Result, Source, Tensor};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Numbers of a reading: x, y, the direction of the pen (two), and whether a stroke begins.
pub const NUM_CHANNELS: usize = 5;

/// Readings along the longer side of the writing.
const READINGS_PER_SIDE: f64 = 16.0;

/// More readings are no handwriting of one character or word, and would need unbounded memory.
const MAX_READINGS: usize = 4096;

/// A channel whose standard deviation is below this is constant.
const MIN_DEVIATION: f64 = 1e-9;

/// A point of a stroke.
type Point = [f64; 2];

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
    /// When no value can be read.
    pub fn fit(values: &[&Source]) -> Result<Self> {
        let read: Vec<[f64; NUM_CHANNELS]> = values.iter().filter_map(|v| readings(v).ok()).flatten().collect();
        if read.is_empty() {
            let count = values.len();
            return Err(Error::Sample(format!("found {count} values that are no strokes, expected lists of points")));
        }
        let count = read.len() as f64;
        let mean = |channel: usize| read.iter().map(|reading| reading[channel]).sum::<f64>() / count;
        let mean: Vec<f64> = (0..NUM_CHANNELS).map(mean).collect();
        let variance =
            |channel: usize| read.iter().map(|reading| (reading[channel] - mean[channel]).powi(2)).sum::<f64>() / count;
        let deviation = (0..NUM_CHANNELS).map(|channel| variance(channel).sqrt());
        let deviation = deviation.map(|d| if d > MIN_DEVIATION { d } else { 1.0 }).collect();
        Ok(Self { mean, deviation })
    }

    /// Checks settings that a person may have written.
    ///
    /// # Errors
    /// When there are not as many means and deviations as channels, or a deviation is not positive.
    pub fn check(&self, field: &str) -> Result<()> {
        let is_valid = self.mean.len() == NUM_CHANNELS
            && self.deviation.len() == NUM_CHANNELS
            && self.mean.iter().all(|v| v.is_finite())
            && self.deviation.iter().all(|v| v.is_finite() && *v > 0.0);
        if is_valid {
            return Ok(());
        }
        let found = format!("mean = {:?}, deviation = {:?}", self.mean, self.deviation);
        let expected = format!("{NUM_CHANNELS} finite means and {NUM_CHANNELS} positive deviations");
        Err(Error::config(format!("{field}.statistics"), found, expected))
    }
}

/// The strokes of a raw value: JSON, in the cell itself or in a file.
///
/// # Errors
/// When it is no list of strokes, or its file cannot be read.
pub fn strokes(source: &Source) -> Result<Vec<Vec<Point>>> {
    match source {
        Source::Value(value) => parse(value),
        Source::Text(text) => parse(&Value::String(text.clone())),
        Source::Path(path) => {
            let text = std::fs::read_to_string(path).map_err(|e| Error::file(path, e))?;
            parse(&Value::String(text))
        }
        Source::Bytes(file) => parse(&Value::String(String::from_utf8_lossy(&file.read()?).into_owned())),
        other => Err(Error::Sample(format!("found {other:?}, expected strokes: [[[x, y], …], …]"))),
    }
}

/// A list of strokes; a text holds the same as JSON, as in a cell of a CSV file.
fn parse(value: &Value) -> Result<Vec<Vec<Point>>> {
    let shortened = || value.to_string().chars().take(60).collect::<String>();
    let unusable = || Error::Sample(format!("found {}, expected strokes: [[[x, y], …], …]", shortened()));
    let parsed: Value;
    let list = match value {
        Value::String(text) => {
            parsed = serde_json::from_str(text).map_err(|_| unusable())?;
            &parsed
        }
        other => other,
    };
    let coordinate = |value: &Value| value.as_f64().filter(|v| v.is_finite() && v.abs() < 1e9);
    let point = |value: &Value| match value.as_array()?.as_slice() {
        [x, y] => Some([coordinate(x)?, coordinate(y)?]),
        _ => None,
    };
    let stroke = |value: &Value| {
        let points = value.as_array()?.iter().map(point).collect::<Option<Vec<Point>>>()?;
        (!points.is_empty()).then_some(points)
    };
    let strokes = list.as_array().and_then(|items| items.iter().map(stroke).collect::<Option<Vec<_>>>());
    strokes.filter(|strokes| !strokes.is_empty()).ok_or_else(unusable)
}

/// The readings of a raw value: the pen at even distances along its strokes, in a square of side 1 around all of them.
///
/// # Errors
/// As [`strokes`]; also when there are more than 4,096 readings.
pub fn readings(source: &Source) -> Result<Vec<[f64; NUM_CHANNELS]>> {
    let strokes = strokes(source)?;
    let (low, side) = bounds(&strokes);
    let mut out = Vec::new();
    for stroke in &strokes {
        let scaled: Vec<Point> = stroke.iter().map(|p| [(p[0] - low[0]) / side, (p[1] - low[1]) / side]).collect();
        let start = out.len();
        for [x, y, dx, dy] in resample(&scaled, MAX_READINGS - start) {
            out.push([x, y, dx, dy, if out.len() == start { 1.0 } else { 0.0 }]);
        }
        if out.len() >= MAX_READINGS {
            let expected = format!("fewer than {MAX_READINGS} readings ({READINGS_PER_SIDE} along the longer side)");
            return Err(Error::Sample(format!(
                "found {} strokes that are too long, expected {expected}",
                strokes.len()
            )));
        }
    }
    Ok(out)
}

/// The lower left corner of all points, and the longer side of the rectangle around them.
fn bounds(strokes: &[Vec<Point>]) -> (Point, f64) {
    let points = || strokes.iter().flatten();
    let low = |n: usize| points().map(|p| p[n]).fold(f64::INFINITY, f64::min);
    let high = |n: usize| points().map(|p| p[n]).fold(f64::NEG_INFINITY, f64::max);
    let side = (high(0) - low(0)).max(high(1) - low(1));
    ([low(0), low(1)], if side > 0.0 { side } else { 1.0 })
}

/// Points at even distances along a stroke, at most `limit`, each with the direction of the segment that it lies on.
fn resample(stroke: &[Point], limit: usize) -> Vec<[f64; 4]> {
    let step = 1.0 / READINGS_PER_SIDE;
    let mut out = vec![[stroke[0][0], stroke[0][1], 0.0, 0.0]];
    let mut left = step;
    for pair in stroke.windows(2) {
        let delta = [pair[1][0] - pair[0][0], pair[1][1] - pair[0][1]];
        let length = delta[0].hypot(delta[1]);
        if length == 0.0 {
            continue;
        }
        let direction = [delta[0] / length, delta[1] / length];
        if out.len() == 1 {
            out[0] = [out[0][0], out[0][1], direction[0], direction[1]];
        }
        let mut at = left;
        while at <= length && out.len() < limit {
            let [x, y] = [pair[0][0] + direction[0] * at, pair[0][1] + direction[1] * at];
            out.push([x, y, direction[0], direction[1]]);
            at += step;
        }
        left = at - length;
    }
    out
}

/// A raw value → `[readings, channels]` float32, standardized.
pub struct InkProcessor {
    statistics: Statistics,
}

impl InkProcessor {
    /// A processor that standardizes by these statistics.
    pub fn new(statistics: Statistics) -> Self {
        Self { statistics }
    }
}

impl Processor for InkProcessor {
    fn process(&self, source: &Source, _context: &mut ProcessContext) -> Result<Tensor> {
        let readings = readings(source)?;
        let scale = |(channel, value): (usize, &f64)| {
            ((value - self.statistics.mean[channel]) / self.statistics.deviation[channel]) as f32
        };
        let values: Vec<f32> = readings.iter().flat_map(|reading| reading.iter().enumerate().map(scale)).collect();
        Tensor::from_vec(&values, &[readings.len() as i64, NUM_CHANNELS as i64])
    }

    /// Samples of a batch differ in their number of readings; mm pads and masks them.
    fn is_sequence(&self) -> bool {
        true
    }

    /// The cache key of processed samples: changes whenever the output would.
    fn fingerprint(&self) -> String {
        format!("ink 1 {:?}", self.statistics)
    }
}
