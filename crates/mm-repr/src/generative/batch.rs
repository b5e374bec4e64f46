//! Rows that have a modality, and sums of loss terms.

use mm_core::{DType, Error, InputSet, LossOutput, Modality, Result, Tensor};

/// The values of the rows that have a modality, `[present, …]`; `None` when there is no such row.
pub(crate) fn present_rows(set: &InputSet, modality: &Modality) -> Result<Option<Tensor>> {
    let (input, present) = set.get(modality)?;
    let rows = present.nonzero()?;
    if rows.numel() == 0 {
        return Ok(None);
    }
    input.values.index_select(0, &rows).map(Some)
}

/// A weighted sum of loss terms, each of which is logged unweighted.
#[derive(Default)]
pub(crate) struct LossTerms {
    total: Option<Tensor>,
    metrics: Vec<(String, f64)>,
}

impl LossTerms {
    pub(crate) fn add(&mut self, name: impl Into<String>, value: &Tensor, weight: f64) -> Result<()> {
        self.log(name, value.to_f64()?);
        let term = if weight == 1.0 { value.clone() } else { value.mul_scalar(weight)? };
        self.total = Some(match &self.total {
            Some(total) => total.add(&term)?,
            None => term,
        });
        Ok(())
    }

    /// Adds a metric that is not part of the loss.
    pub(crate) fn log(&mut self, name: impl Into<String>, value: f64) {
        self.metrics.push((name.into(), value));
    }

    /// `None` when no term was added.
    pub(crate) fn finish(self) -> Option<LossOutput> {
        self.total.map(|total| (total, self.metrics))
    }
}

/// A sum over modalities of the vectors of the rows that have them.
#[derive(Default)]
pub(crate) struct PresentSum {
    sum_and_count: Option<(Tensor, Tensor)>,
}

impl PresentSum {
    /// Adds `[rows, dim]` values of the rows marked in `present`, `[rows]` (bool, or 1 and 0).
    pub(crate) fn add(&mut self, values: &Tensor, present: &Tensor) -> Result<()> {
        let present = present.to_dtype(DType::F32)?.unsqueeze(1)?; // [rows, 1]
        let values = values.mul(&present)?;
        self.sum_and_count = Some(match &self.sum_and_count {
            Some((sum, count)) => (sum.add(&values)?, count.add(&present)?),
            None => (values, present),
        });
        Ok(())
    }

    fn get(self) -> Result<(Tensor, Tensor)> {
        self.sum_and_count
            .ok_or_else(|| Error::config("inputs", "none of the model's modalities", "at least one of them"))
    }

    /// `[rows, dim]`; zero for rows without any of the modalities.
    pub(crate) fn sum(self) -> Result<Tensor> {
        Ok(self.get()?.0)
    }

    /// `[rows, dim]`; zero for rows without any of the modalities.
    pub(crate) fn mean(self) -> Result<Tensor> {
        let (sum, count) = self.get()?;
        sum.div(&count.clamp_min(1.0)?)
    }
}
