//! From a table to a trained predictor: columns, encoders and fusion operators are chosen, several models are trained
//! and ensembled.

mod columns;
mod config;
mod deadline;
mod duplicates;
mod members;
mod options;
mod output;
mod row_numbers;

pub use options::{FitOptions, FitResult, Preset};

use super::{Evaluation, Predictor, dataset::id_column, predictor::member_dir, resolve::resolve_with_alternatives};
use crate::{Error, Result, metrics::Metrics, task::FitContext};
use columns::{InferredColumns, infer_columns};
use config::{TableInfo, fit_config};
use deadline::time_limit;
use duplicates::{count_shared_rows, group_columns};
use members::{AutoFit, TrainedMembers, base_dir};
use mm_core::{Device, Modality, Registry};
use mm_data::{Manifest, Split, Table};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Instant,
};

/// A refit is started when this many times the time of the first training is left.
const REFIT_TIME: f64 = 1.5;

fn absolute(path: &Path) -> Result<PathBuf> {
    std::fs::canonicalize(path).map_err(|e| Error::file(path, format!("cannot be read: {e}")))
}

/// Fits a predictor to a table; `log` gets a line for each decision. A fit that was interrupted continues where it was,
/// and ends with the same models.
///
/// # Errors
/// When an option is out of range, the table cannot be read or has no usable column, or the output folder holds
/// another run or another process writes there.
pub fn fit_table(
    options: &FitOptions,
    registry: &Registry,
    device: Device,
    log: &mut dyn FnMut(String),
    mut context: FitContext<'_>,
) -> Result<FitResult> {
    let started = Instant::now();
    options.validate()?;
    let path = absolute(&options.data)?;
    let table = Table::read(&path, &options.table_options())?;
    let (rows, id_column) = (table.rows.len(), id_column(&table));
    let InferredColumns { columns, log: lines } = infer_columns(&table, options, registry)?;
    lines.into_iter().for_each(&mut *log);
    let validation = options.validation_data.as_deref().map(absolute).transpose()?;
    let request = output::Request::new(options, &path, validation.as_deref())?;
    request.check()?;
    let group = group_columns(&table, &columns, options, log);
    if let Some(validation) = &validation {
        count_shared_rows(&table, validation, &columns, options, log)?;
    }
    drop(table);
    let validation = validation.as_deref();
    let info = TableInfo { path: &path, validation, columns: &columns, rows, id_column: &id_column, group };
    let mut config = fit_config(options, &info)?;
    let alternatives = resolve_with_alternatives(&mut config, base_dir(), registry, log)?;
    let _lock = request.claim()?;
    let mut members = options.preset.members();
    if columns.len() == 1 {
        // With one modality the operators differ little.
        members.truncate(members.len().div_ceil(2));
    }
    let limit = options.time_limit.and_then(time_limit);
    let auto_fit = AutoFit { options, registry, device, started, limit, config, alternatives, members };
    let trained = auto_fit.train_members(log, &mut context)?;
    auto_fit.finish(trained, columns, log, &mut context)
}

impl AutoFit<'_> {
    /// Refits the members on all rows where there is time, and measures the predictor.
    fn finish(
        &self,
        trained: TrainedMembers,
        columns: BTreeMap<String, Vec<String>>,
        log: &mut dyn FnMut(String),
        context: &mut FitContext<'_>,
    ) -> Result<FitResult> {
        let TrainedMembers { mut predictor, configs, data, train_rows, failed, mut stopped, seconds } = trained;
        let split = if self.options.test_fraction > 0.0 { Split::Test } else { Split::Valid };
        let mut refit_rows = None;
        if self.can_refit() && !data.is_partial && !stopped {
            let needed = seconds.mul_f64(REFIT_TIME);
            if self.limit.is_none_or(|limit| self.started.elapsed() + needed < limit) {
                log("refitting on all rows, validation rows included".into());
                let refit = self.refit(&configs, context)?;
                // Where it was stopped, the first members are used.
                stopped = refit.is_none();
                if let Some((members, rows)) = refit {
                    predictor.save(&self.options.out, (0..configs.len()).map(member_dir).collect(), members)?;
                    refit_rows = Some(rows);
                }
            }
            if refit_rows.is_some() && split == Split::Test {
                predictor = Predictor::open(&self.options.out, self.registry, self.device)?;
            }
        }
        let manifest = &data.manifest;
        let has_label = |row: &usize| manifest.rows[*row].cells.get(&self.options.label_column).is_some();
        let rows: Vec<usize> = manifest.rows_in_split(split).into_iter().filter(has_label).collect();
        let (evaluation, ablations) = measure(&predictor, manifest, &rows)?;
        evaluation.notes().into_iter().for_each(&mut *log);
        Ok(FitResult {
            problem: predictor.target().problem,
            classes: predictor.target().classes.clone(),
            columns: columns.into_iter().map(|(modality, columns)| (modality, columns.join(" + "))).collect(),
            split,
            metrics: evaluation.metrics,
            ablations,
            train_rows,
            failed,
            stopped,
            num_members: configs.len(),
            refit_rows,
        })
    }
}

/// Metrics on some rows, and those with each modality alone and without it.
fn measure(
    predictor: &Predictor,
    manifest: &Manifest,
    rows: &[usize],
) -> Result<(Evaluation, BTreeMap<String, Metrics>)> {
    if rows.is_empty() {
        return Ok(Default::default());
    }
    let modalities = predictor.modalities();
    let evaluate = |exclude: &[Modality]| Ok::<_, Error>(predictor.evaluate(manifest, rows, exclude)?.metrics);
    let evaluation = predictor.evaluate(manifest, rows, &[])?;
    let mut ablations = BTreeMap::new();
    for modality in modalities.iter().filter(|_| modalities.len() > 1) {
        let others: Vec<Modality> = modalities.iter().filter(|m| *m != modality).cloned().collect();
        ablations.insert(format!("{modality}_only"), evaluate(&others)?);
        ablations.insert(format!("without_{modality}"), evaluate(std::slice::from_ref(modality))?);
    }
    Ok((evaluation, ablations))
}
