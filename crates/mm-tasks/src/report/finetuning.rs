//! The page of a checkpoint that learned further: figures beside those of not looking, and pictures with what was said of them.

use super::{
    Report,
    said::{About, Shown, page},
};
use crate::{
    Error, Result,
    finetuning::Finetuning,
    task::{ProgressFn, TaskContext},
};
use mm_core::Modality;
use mm_data::Split;
use std::path::PathBuf;

/// A report of runs that differ in their seed alone.
pub fn build_finetuning(
    runs: &[PathBuf],
    split: Split,
    context: &TaskContext<'_>,
    on_progress: ProgressFn<'_>,
) -> Result<Report> {
    let (mut all, mut shown) = (Vec::new(), None);
    for run in runs {
        on_progress(&format!("evaluating {}", run.display()), all.len(), runs.len());
        let model = Finetuning::load(run, context)?;
        all.push(model.evaluated(split)?);
        shown.get_or_insert(model);
    }
    let (Some(first), Some(model)) = (all.first(), shown) else {
        return Err(Error::Config("a report needs at least one run".into()));
    };
    let examples: Vec<Shown<'_>> = first
        .examples
        .iter()
        .map(|(id, asked, said, wanted)| Shown {
            id,
            asked,
            said,
            below: vec![format!("wanted: {}", wanted.join(" / "))],
        })
        .collect();
    let of = Modality::from(model.config.of.as_str());
    let about = About { title: "What was learned further", split, of };
    let metrics: Vec<_> = all.iter().map(|f| f.metrics.clone()).collect();
    page(&about, &metrics, &all, &model.manifest()?, &examples)
}
