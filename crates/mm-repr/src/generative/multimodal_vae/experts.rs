//! Joint posteriors from the posteriors of single modalities.

use crate::generative::{batch::PresentSum, gaussian::DiagonalGaussian};
use mm_core::{Modality, Result, Tensor};

/// Log-density of a missing expert.
const MISSING_LOG_PROB: f64 = -1e30;

/// The posterior given one modality, and the rows that have the modality.
pub(super) struct Expert<'a> {
    pub(super) modality: &'a Modality,
    pub(super) posterior: DiagonalGaussian,
    /// `[rows]`, 1 where the row has the modality, otherwise 0.
    pub(super) present: Tensor,
}

/// The product of the standard normal prior and the experts that each row has.
pub(super) fn product_of_experts<'a, 'b: 'a>(
    experts: impl IntoIterator<Item = &'a Expert<'b>>,
    like: &Tensor,
) -> Result<DiagonalGaussian> {
    let mut precision = like.ones_like()?;
    let mut weighted_mean = precision.zeros_like()?;
    for expert in experts {
        let weight = expert.posterior.log_var.neg()?.exp()?.mul(&expert.present.unsqueeze(1)?)?;
        precision = precision.add(&weight)?;
        weighted_mean = weighted_mean.add(&expert.posterior.mean.mul(&weight)?)?;
    }
    Ok(DiagonalGaussian { mean: weighted_mean.div(&precision)?, log_var: precision.log()?.neg()? })
}

/// The mean of the means of the experts that each row has, `[rows, dim]`; zero, the prior's mean, for rows with none.
pub(super) fn mean_of_experts<'a, 'b: 'a>(experts: impl IntoIterator<Item = &'a Expert<'b>>) -> Result<Tensor> {
    let mut sum = PresentSum::default();
    for expert in experts {
        sum.add(&expert.posterior.mean, &expert.present)?;
    }
    sum.mean()
}

/// Log-density of `latent` under the uniform mixture of the experts that each row has, `[rows]`.
pub(super) fn mixture_log_prob(experts: &[Expert<'_>], latent: &Tensor) -> Result<Tensor> {
    let mut log_probs = Vec::new();
    let mut count = experts[0].present.zeros_like()?;
    for expert in experts {
        let missing = expert.present.gt_scalar(0.5)?.logical_not()?;
        log_probs.push(expert.posterior.log_prob(latent)?.masked_fill(&missing, MISSING_LOG_PROB)?);
        count = count.add(&expert.present)?;
    }
    let stacked = Tensor::stack(&log_probs.iter().collect::<Vec<_>>(), 0)?;
    stacked.logsumexp(0)?.sub(&count.clamp_min(1.0)?.log()?)
}

/// Every non-empty subset of the experts, with the rows that have all of it (`[rows]`, 1 or 0).
pub(super) fn subsets<'a, 'b>(experts: &'a [Expert<'b>]) -> Result<Vec<(Vec<&'a Expert<'b>>, Tensor)>> {
    let mut subsets = Vec::new();
    for bits in 1..1usize << experts.len() {
        let subset: Vec<&Expert<'_>> =
            experts.iter().enumerate().filter(|(index, _)| bits >> index & 1 == 1).map(|(_, e)| e).collect();
        let mut present = subset[0].present.clone();
        for expert in &subset[1..] {
            present = present.mul(&expert.present)?;
        }
        subsets.push((subset, present));
    }
    Ok(subsets)
}
