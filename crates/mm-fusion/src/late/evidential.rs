//! Evidence instead of probabilities: each model says how much speaks for each class and how unsure it is, and Dempster's rule combines them
//! (Dempster 1967, Shafer 1976), so that who knows nothing changes nothing; trusted multi-view classification (TMC, Han 2021) learns so.

use crate::{Error, Result};
use mm_core::{DType, Tensor};

/// What one model holds of each row.
#[derive(Debug, Clone)]
pub struct Opinion {
    /// Belief in each class, `[rows, classes]`.
    pub belief: Tensor,
    /// What is left, `[rows, 1]`: belief and doubt sum to one.
    pub doubt: Tensor,
}

/// The opinion of evidence `[rows, classes]` of at least 0 (subjective logic, Jøsang 2016).
pub fn opinion(evidence: &Tensor) -> Result<Opinion> {
    let classes = evidence.size(1)? as f64;
    let strength = evidence.sum_dim(&[1], true)?.add_scalar(classes)?; // [rows, 1]
    Ok(Opinion { belief: evidence.div(&strength)?, doubt: strength.pow(-1.0)?.mul_scalar(classes)? })
}

/// Dempster's rule for two opinions: where both believe the same or one doubts, they agree; conflict is left out and the rest scaled up.
pub fn dempster(a: &Opinion, b: &Opinion) -> Result<Opinion> {
    if a.belief.shape() != b.belief.shape() {
        let found = format!("{:?} and {:?}", a.belief.shape(), b.belief.shape());
        return Err(Error::config("dempster", found, "opinions of one shape"));
    }
    let agree = a.belief.mul(&b.belief)?; // [rows, classes]
    let all = a.belief.sum_dim(&[1], true)?.mul(&b.belief.sum_dim(&[1], true)?)?;
    let conflict = all.sub(&agree.sum_dim(&[1], true)?)?;
    let left = conflict.neg()?.add_scalar(1.0)?.clamp_min(1e-9)?;
    let belief = agree.add(&a.belief.mul(&b.doubt)?)?.add(&b.belief.mul(&a.doubt)?)?.div(&left)?;
    Ok(Opinion { belief, doubt: a.doubt.mul(&b.doubt)?.div(&left)? })
}

impl Opinion {
    /// The evidence that this opinion comes from, `[rows, classes]`.
    pub fn evidence(&self) -> Result<Tensor> {
        let classes = self.belief.size(1)? as f64;
        Ok(self.belief.div(&self.doubt.clamp_min(1e-9)?)?.mul_scalar(classes)?)
    }

    /// Probabilities: belief, and an even share of the doubt.
    pub fn probabilities(&self) -> Result<Tensor> {
        let classes = self.belief.size(1)? as f64;
        Ok(self.belief.add(&self.doubt.mul_scalar(1.0 / classes)?)?)
    }

    /// An opinion that holds nothing where `present` `[rows]` is 0.
    pub fn only(&self, present: &Tensor) -> Result<Self> {
        let flag = present.to_dtype(self.belief.dtype()?)?.unsqueeze(1)?;
        let doubt = self.doubt.mul(&flag)?.add(&flag.neg()?.add_scalar(1.0)?)?;
        Ok(Self { belief: self.belief.mul(&flag)?, doubt })
    }
}

/// TMC's loss of evidence for class numbers `[rows]`: the expected cross-entropy under the Dirichlet distribution of the evidence, and
/// `anneal` times the divergence of what speaks for wrong classes from nothing.
pub fn evidential_loss(evidence: &Tensor, labels: &Tensor, anneal: f64) -> Result<Tensor> {
    let classes = evidence.size(1)?;
    let truth = labels.one_hot(classes)?.to_dtype(DType::F32)?;
    let alpha = evidence.add_scalar(1.0)?;
    let total = alpha.sum_dim(&[1], true)?;
    let digamma = |x: &Tensor| Ok::<_, Error>(x.digamma()?);
    let fit = truth.mul(&digamma(&total)?.sub(&digamma(&alpha)?)?)?.sum_dim(&[1], false)?.mean()?;
    // Only what speaks for the wrong classes.
    let wrong = truth.add(&truth.neg()?.add_scalar(1.0)?.mul(&alpha)?)?;
    let sum = wrong.sum_dim(&[1], true)?;
    let spread = wrong.add_scalar(-1.0)?.mul(&digamma(&wrong)?.sub(&digamma(&sum)?)?)?.sum_dim(&[1], true)?;
    let even = Tensor::full(&[1], classes as f64, DType::F32, evidence.device())?.lgamma()?;
    let divergence = sum.lgamma()?.sub(&wrong.lgamma()?.sum_dim(&[1], true)?)?.sub(&even)?.add(&spread)?;
    Ok(fit.add(&divergence.mean()?.mul_scalar(anneal)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_knows_nothing_changes_nothing_and_agreement_lowers_doubt() {
        let strong = opinion(&Tensor::from_vec(&[8f32, 0.0, 0.0], &[1, 3]).unwrap()).unwrap();
        let nothing = opinion(&Tensor::from_vec(&[0f32, 0.0, 0.0], &[1, 3]).unwrap()).unwrap();
        let same = dempster(&strong, &nothing).unwrap();
        assert!(same.belief.sub(&strong.belief).unwrap().abs().unwrap().max().unwrap().to_f64().unwrap() < 1e-6);
        let weak = opinion(&Tensor::from_vec(&[2f32, 1.0, 0.0], &[1, 3]).unwrap()).unwrap();
        let both = dempster(&strong, &weak).unwrap();
        assert!(both.doubt.to_f64().unwrap() < strong.doubt.to_f64().unwrap());
        let total = both.belief.sum().unwrap().to_f64().unwrap() + both.doubt.to_f64().unwrap();
        assert!((total - 1.0).abs() < 1e-6);
        let label = Tensor::from_slice(&[0i64]).unwrap();
        let loss = |e: [f32; 3]| {
            evidential_loss(&Tensor::from_vec(&e, &[1, 3]).unwrap(), &label, 1.0).unwrap().to_f64().unwrap()
        };
        assert!(loss([8.0, 0.0, 0.0]) < loss([0.0, 0.0, 0.0]) && loss([0.0, 0.0, 0.0]) < loss([0.0, 8.0, 0.0]));
        // digamma(3) − digamma(1) = 1 + 1/2 for no evidence at all; the divergence is 0.
        assert!((loss([0.0, 0.0, 0.0]) - 1.5).abs() < 1e-5);
    }
}
