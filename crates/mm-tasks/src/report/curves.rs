//! Charts of what a training run logged.

use super::chart::{Line, lines};
use crate::Result;
use mm_train::Run;
use serde::Serialize;
use std::{collections::BTreeMap, path::Path};

/// A chart with its caption.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Chart {
    /// The chart as SVG.
    pub(crate) svg: String,
    /// The caption.
    pub(crate) caption: String,
}

/// Logged values that are not metrics.
const HIDDEN: [&str; 4] = ["lr", "samples_per_second", "grad_norm", "negative_loss"];

/// A chart of each value that a run logged, training and validation together.
pub(crate) fn curves(run: &Path) -> Result<Vec<Chart>> {
    let mut series: BTreeMap<String, [Vec<(f64, f64)>; 2]> = BTreeMap::new();
    for record in Run::read_metrics(run)? {
        let split = usize::from(record.split != "train");
        for (name, value) in record.values {
            if !HIDDEN.contains(&name.as_str()) {
                series.entry(name).or_default()[split].push((record.epoch, value));
            }
        }
    }
    let mut charts = Vec::new();
    for (name, [train, valid]) in series {
        let mut both = vec![Line { name: "train".into(), points: train }];
        if valid.len() > 1 {
            both.push(Line { name: "valid".into(), points: valid });
        }
        charts.push(Chart { svg: lines(&both, "epoch", &name)?, caption: name });
    }
    Ok(charts)
}
