//! The page of a captioning: figures beside the nearest picture's caption, and pictures with what was said of them.

use super::{
    Report,
    said::{About, Shown, page},
};
use crate::{
    Error, Result,
    captioning::Captioning,
    metrics::CaptionScorers,
    task::{ProgressFn, TaskContext},
};
use mm_core::Modality;
use mm_data::Split;
use std::path::PathBuf;

/// A report of runs that differ in their seed alone.
pub fn build_captioning(
    runs: &[PathBuf],
    split: Split,
    context: &TaskContext<'_>,
    on_progress: ProgressFn<'_>,
) -> Result<Report> {
    let mut all = Vec::new();
    let mut shown = None;
    for run in runs {
        on_progress(&format!("evaluating {}", run.display()), all.len(), runs.len());
        let model = Captioning::load(run, context)?;
        all.push(model.evaluated(split, CaptionScorers::default(), &mut |_, _, _| {})?);
        shown.get_or_insert(model);
    }
    let (Some(first), Some(model)) = (all.first(), shown) else {
        return Err(Error::Config("a report needs at least one run".into()));
    };
    let below = |nearest: &String, people: &[String]| {
        vec![format!("nearest picture: {nearest}"), format!("people: {}", people.join(" / "))]
    };
    let examples: Vec<Shown<'_>> = first
        .examples
        .iter()
        .map(|(id, said, nearest, people)| Shown { id, asked: "", said, below: below(nearest, people) })
        .collect();
    let of = Modality::from(model.config.of.as_str());
    let about = About { title: "Captions", split, of };
    let metrics: Vec<_> = all.iter().map(|f| f.metrics.clone()).collect();
    page(&about, &metrics, &all, &model.manifest()?, &examples)
}
