//! Rows of a split as sets of inputs.

use super::{model::Representation, subsets::select};
use crate::{Error, ProgressFn, Result, batch::RowBatch};
use mm_core::{DType, Input, InputSet, Modality, Processor, Tensor, seed::Rng};
use mm_data::{FailedSample, Manifest, Split};
use mm_repr::generative::ValueType;
use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::AtomicBool},
};

/// Rows of one split.
pub struct SplitData {
    /// Their inputs.
    pub set: InputSet,
    /// The index of their class; −1 where a row has none of the training classes.
    pub labels: Vec<i64>,
    /// Their indices in the manifest.
    pub rows: Vec<usize>,
    /// Values that could not be read.
    pub failed: Vec<FailedSample>,
}

/// The data of an evaluation.
pub struct EvalData {
    /// The data set.
    pub manifest: Manifest,
    /// Training rows, for baselines and probes.
    pub train: SplitData,
    /// The rows to evaluate on.
    pub test: SplitData,
}

impl EvalData {
    /// Number of rows to evaluate on that have a label, but none of the training classes.
    pub(super) fn unknown_labels(&self) -> usize {
        let is_unknown = |(row, class): &(&usize, &i64)| **class < 0 && self.manifest.rows[**row].label.is_some();
        self.test.rows.iter().zip(&self.test.labels).filter(is_unknown).count()
    }
}

/// An evaluation takes at most this many random rows of a split, which bounds memory.
const MAX_ROWS: usize = 8000;

impl Representation {
    /// The inputs of `rows` rows; rows that lack a modality have zeros there. Each part is a modality, its values, and
    /// the rows that have it.
    pub(super) fn assemble(&self, rows: usize, parts: &[(&Modality, &Tensor, &[usize])]) -> mm_core::Result<InputSet> {
        let mut out = BTreeMap::new();
        for (modality, values, has) in parts {
            let values = self.standardize(modality, &values.to_device(self.params.device())?)?;
            let mut present = vec![false; rows];
            has.iter().for_each(|r| present[*r] = true);
            let values = if has.len() == rows { values } else { scatter_rows(&values, rows, has)? };
            let present = Tensor::from_slice(&present)?.to_device(values.device())?;
            out.insert((*modality).clone(), (Input { values, mask: None }, present));
        }
        Ok(InputSet { rows: rows as i64, parts: out, labels: None })
    }

    /// Adds the modalities that a set lacks, absent from every row: learners take all of theirs.
    pub(super) fn fill_missing_modalities(&self, set: &mut InputSet) -> mm_core::Result<()> {
        let device = self.params.device();
        for (modality, input) in self.inputs.iter().filter(|(m, _)| !set.parts.contains_key(m)).collect::<Vec<_>>() {
            let shape: Vec<i64> = std::iter::once(set.rows).chain(input.shape.iter().copied()).collect();
            let values = Tensor::zeros(&shape, input.value_type.dtype(), device)?;
            let present = Tensor::zeros(&[set.rows], DType::Bool, device)?;
            set.parts.insert(modality.clone(), (Input { values, mask: None }, present));
        }
        Ok(())
    }

    /// The rows of a split, at most [`MAX_ROWS`], sampled with a fixed seed; of each modality the first value.
    pub(super) fn split_data(
        &self,
        manifest: &Manifest,
        split: Split,
        processors: &BTreeMap<Modality, Arc<dyn Processor>>,
    ) -> Result<SplitData> {
        let mut rows = manifest.rows_in_split(split);
        if rows.len() > MAX_ROWS {
            Rng::new(&[5]).shuffle(&mut rows);
            rows.truncate(MAX_ROWS);
            rows.sort_unstable();
        }
        let (mut parts, mut failed) = (Vec::new(), Vec::new());
        for (modality, processor) in processors {
            let batch = RowBatch::read(manifest, &rows, modality, processor.as_ref());
            failed.extend(batch.failed);
            if !batch.samples.is_empty() {
                let samples: Vec<&Tensor> = batch.samples.iter().collect();
                parts.push((modality, Tensor::stack(&samples, 0)?, batch.positions));
            }
        }
        let borrowed: Vec<_> = parts.iter().map(|(m, values, has)| (*m, values, has.as_slice())).collect();
        let set = self.assemble(rows.len(), &borrowed)?;
        let labels = rows.iter().map(|r| self.class_of(&manifest.rows[*r])).collect();
        Ok(SplitData { set, labels, rows, failed })
    }

    /// The training rows and those of the split to evaluate.
    pub(super) fn eval_data(&self, split: Split, on_progress: ProgressFn<'_>) -> Result<EvalData> {
        let manifest = self.dataset()?;
        let processors = self.prepare(&manifest, &AtomicBool::new(false), on_progress)?;
        let train = self.split_data(&manifest, Split::Train, &processors)?;
        let test = self.split_data(&manifest, split, &processors)?;
        if test.rows.len() < 2 || train.rows.len() < 5 {
            let found = format!("{} {split} rows and {} training rows", test.rows.len(), train.rows.len());
            return Err(Error::invalid("data.split", found, "at least two and five"));
        }
        Ok(EvalData { manifest, train, test })
    }
}

/// The element type of a value type.
pub(super) trait ElementType {
    fn dtype(self) -> DType;
}

impl ElementType for ValueType {
    fn dtype(self) -> DType {
        if matches!(self, Self::Tokens(_)) { DType::I64 } else { DType::F32 }
    }
}

/// `rows` rows of zeros with `values` at the rows in `has`.
fn scatter_rows(values: &Tensor, rows: usize, has: &[usize]) -> mm_core::Result<Tensor> {
    let mut shape = values.shape();
    let zero_row = shape[0];
    shape[0] = 1;
    let zeros = Tensor::zeros(&shape, values.dtype()?, values.device())?;
    let mut indices = vec![zero_row; rows];
    has.iter().enumerate().for_each(|(index, row)| indices[*row] = index as i64);
    let indices = Tensor::from_slice(&indices)?.to_device(values.device())?;
    Tensor::cat(&[values, &zeros], 0)?.index_select(0, &indices)
}

/// The rows of a set that have all of these modalities, and their indices; `None` when there are none.
pub(super) fn rows_with_all(set: &InputSet, modalities: &[&Modality]) -> Result<Option<(InputSet, Vec<usize>)>> {
    let mut complete = vec![true; set.rows as usize];
    for modality in modalities {
        let Some((_, present)) = set.parts.get(*modality) else { return Ok(None) };
        complete.iter_mut().zip(present.to_vec::<bool>()?).for_each(|(c, p)| *c &= p);
    }
    let rows: Vec<usize> = complete.iter().enumerate().filter_map(|(n, c)| c.then_some(n)).collect();
    if rows.is_empty() {
        return Ok(None);
    }
    let indices: Vec<i64> = rows.iter().map(|n| *n as i64).collect();
    Ok(Some((select(set, &Tensor::from_slice(&indices)?)?, rows)))
}
