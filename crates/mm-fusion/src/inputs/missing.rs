//! Replacement of missing modalities.

use super::ModalityInput;
use crate::{Error, Result, config::MissingModality};
use mm_core::{
    Init, Module, Scope, Tensor,
    nn::{Activation, Mlp, MlpConfig},
    no_grad,
};

/// Minimum weight of a batch in the running mean.
const MIN_UPDATE: f64 = 0.05;

/// The replacement of one modality.
pub(super) enum Replacement {
    /// Nothing to learn or store.
    None,
    /// `[dim]`.
    Token(Tensor),
    /// The mean `[dim]`, and the number of rows that it is of, `[1]`.
    Mean { mean: Tensor, rows: Tensor },
    /// Predicts the modality from the mean of the others.
    Imputation(Box<Mlp>),
}

impl Replacement {
    pub(super) fn new(scope: &Scope<'_>, missing: MissingModality, dim: i64, project: bool) -> Result<Self> {
        Ok(match missing {
            MissingModality::Mask | MissingModality::Zero => Self::None,
            MissingModality::Token => Self::Token(scope.param("token", &[dim], Init::Normal(0.02))?),
            MissingModality::Mean => {
                let rows = scope.buffer("mean_rows", &[1], Init::Zeros)?;
                Self::Mean { mean: scope.buffer("mean", &[dim], Init::Zeros)?, rows }
            }
            MissingModality::LearnedImputation if project => {
                let config = MlpConfig::new(dim.max(32), Activation::Gelu);
                Self::Imputation(Box::new(Mlp::new(&scope.pp("imputation"), dim, &config)?))
            }
            MissingModality::LearnedImputation => {
                let found = "learned_imputation without project";
                return Err(Error::config("fusion.missing", found, "fusion.project = true"));
            }
        })
    }
}

/// The replacement of one modality for one batch.
struct BatchReplacement {
    /// `[dim]` or `[rows, dim]`; none for zeros.
    values: Option<Tensor>,
    /// Rows `[rows, 1]` that can be replaced; all if absent.
    available: Option<Tensor>,
}

/// Replaces the features of modalities that rows lack. Returns the loss of the learned imputation.
pub(super) fn replace(
    inputs: &mut [ModalityInput],
    missing: MissingModality,
    replacements: &[&Replacement],
    train: bool,
) -> Result<Option<Tensor>> {
    if missing == MissingModality::Mask {
        return Ok(None);
    }
    let pooled = inputs.iter().map(ModalityInput::mean_pooled).collect::<Result<Vec<_>>>()?;
    let present = inputs.iter().map(ModalityInput::present_column).collect::<Result<Vec<_>>>()?; // [rows, 1] each
    let mut loss: Option<Tensor> = None;
    for (index, (replacement, input)) in replacements.iter().zip(inputs.iter_mut()).enumerate() {
        let filling = match replacement {
            Replacement::None => BatchReplacement { values: None, available: None },
            Replacement::Token(token) => BatchReplacement { values: Some(token.clone()), available: None },
            Replacement::Mean { mean, rows } => {
                if train {
                    update_mean(mean, rows, &pooled[index], &present[index])?;
                }
                BatchReplacement { values: Some(mean.clone()), available: None }
            }
            Replacement::Imputation(network) => {
                let (values, available, error) = impute(network, index, &pooled, &present, train)?;
                loss = Some(match loss {
                    Some(sum) => sum.add(&error)?,
                    None => error,
                });
                BatchReplacement { values: Some(values), available: Some(available) }
            }
        };
        fill(input, &present[index], filling)?;
    }
    Ok(loss)
}

fn update_mean(mean: &Tensor, seen: &Tensor, pooled: &Tensor, present: &Tensor) -> Result<()> {
    no_grad(|| {
        let rows = present.sum()?.to_f64()?;
        if rows > 0.0 {
            let batch_mean = pooled.mul(present)?.sum_dim(&[0], false)?.mul_scalar(1.0 / rows)?;
            let total = seen.to_f64()? + rows;
            let weight = (rows / total).max(MIN_UPDATE);
            mean.scale_add_(1.0 - weight, &batch_mean.detach()?, weight)?;
            seen.copy_(&Tensor::full(&[1], total, seen.dtype()?, seen.device())?)?;
        }
        Ok(())
    })
}

/// The imputed values `[rows, dim]`, the rows `[rows, 1]` that have another modality to impute from, and the mean
/// squared error on rows that have this modality too.
fn impute(
    network: &Mlp,
    index: usize,
    pooled: &[Tensor],
    present: &[Tensor],
    train: bool,
) -> Result<(Tensor, Tensor, Tensor)> {
    let (mut sum, mut count) = (pooled[index].zeros_like()?, present[index].zeros_like()?);
    for (other, values) in pooled.iter().enumerate().filter(|(other, _)| *other != index) {
        sum = sum.add(&values.mul(&present[other])?)?;
        count = count.add(&present[other])?;
    }
    let available = count.clamp(0.0, 1.0)?;
    let imputed = network.forward(&sum.div(&count.clamp_min(1.0)?)?, train)?.mul(&available)?;
    let both = available.mul(&present[index])?;
    let error = imputed.sub(&pooled[index].detach()?)?.pow(2.0)?.mean_dim(&[1], true)?;
    let loss = error.mul(&both)?.sum()?.div(&both.sum()?.clamp_min(1.0)?)?;
    Ok((imputed, available, loss))
}

fn fill(input: &mut ModalityInput, present: &Tensor, filling: BatchReplacement) -> Result<()> {
    let absent = present.neg()?.add_scalar(1.0)?; // [rows, 1]
    if let Some(values) = &filling.values {
        let filled = absent.mul(values)?; // [rows, dim]
        if input.values.rank() == 2 {
            input.values = input.values.add(&filled)?;
        } else {
            // The replacement is a sequence of one position, the first.
            let length = input.values.size(1)?;
            input.values = input.values.add(&filled.unsqueeze(1)?.pad(&[0, 0, 0, length - 1], 0.0)?)?;
        }
    }
    let available = match filling.available {
        Some(available) => present.add(&absent.mul(&available)?)?,
        None => present.ones_like()?,
    };
    if let Some(mask) = &input.mask {
        let length = mask.size(1)?;
        let first = available.mul(&absent)?.gt_scalar(0.5)?.pad(&[0, length - 1], 0.0)?;
        input.mask = Some(mask.logical_or(&first)?);
    }
    input.present = available.squeeze(1)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm_core::{DType, Device};

    #[test]
    fn the_mean_is_that_of_the_rows_so_far() {
        let zeros = |shape: &[i64]| Tensor::zeros(shape, DType::F32, Device::Cpu).unwrap();
        let (mean, rows) = (zeros(&[1]), zeros(&[1]));
        let update = |values: &[f32], present: &[f32]| {
            let column = |v: &[f32]| Tensor::from_vec(v, &[v.len() as i64, 1]).unwrap();
            update_mean(&mean, &rows, &column(values), &column(present)).unwrap();
            mean.to_f64().unwrap()
        };
        assert_eq!(update(&[8.0, 99.0], &[1.0, 0.0]), 8.0);
        assert_eq!(update(&[2.0, 4.0, 6.0], &[1.0; 3]), 5.0);
        assert_eq!(update(&[7.0], &[0.0]), 5.0);
        for _ in 0..200 {
            update(&[1.0], &[1.0]);
        }
        // A moving average by now: the first rows have faded.
        assert!(mean.to_f64().unwrap() < 1.01 && rows.to_f64().unwrap() == 204.0);
    }
}
