//! Contrastive losses: what belongs together is nearer than what does not. `InfoNCE` both ways (van den Oord 2018, CLIP 2021),
//! `SigLIP`'s sigmoid (Zhai 2023), triplets with the hardest negatives (VSE++, Faghri 2018).

use crate::{Error, Result};
use mm_core::{AlignOutput, Aligner, DType, Features, Init, Pool, Scope, Tensor};
use serde::{Deserialize, Serialize};

/// Similarities of each row of a set with each row of another.
pub struct Similarity(Tensor);

impl Similarity {
    /// Cosines `[rows of a, rows of b]` of `[rows, width]` features; row i of `a` belongs with row i of `b`.
    pub fn cosine(a: &Tensor, b: &Tensor) -> Result<Self> {
        let (left, right) = (a.shape(), b.shape());
        if left.len() != 2 || left != right || left[0] == 0 {
            return Err(Error::Features {
                what: "similarity",
                found: format!("{left:?} and {right:?}"),
                wanted: "two sets [rows, width] of one shape with at least a row".into(),
            });
        }
        Ok(Self(a.normalize()?.matmul(&b.normalize()?.transpose(0, 1)?)?))
    }

    /// The cosines.
    pub fn values(&self) -> &Tensor {
        &self.0
    }
}

/// Hides the pairs off the diagonal that are no true negatives. `same` is `[rows, rows]` bool, true where two rows show the same.
fn hidden(same: &Tensor) -> Result<Tensor> {
    let rows = same.size(0)?;
    let diagonal = Tensor::eye(rows, DType::Bool, same.device())?;
    Ok(same.logical_and(&diagonal.logical_not()?)?)
}

/// Cross-entropy of each row finding its partner among all, and the other way round, averaged. Cosines are multiplied by `scale`
/// (one over the temperature). Pairs of rows that show the `same` thing are left out of each other's negatives.
pub fn info_nce(similarity: &Similarity, scale: &Tensor, same: Option<&Tensor>, smoothing: f64) -> Result<Tensor> {
    let mut logits = similarity.0.mul(scale)?;
    if let Some(same) = same {
        logits = logits.masked_fill(&hidden(same)?, logits.dtype()?.lowest())?;
    }
    let rows = logits.size(0)?;
    let target = Tensor::arange(0, rows, logits.device())?;
    if smoothing > 0.0 {
        // Smoothed by hand over what is not hidden: a share of −1e30 would drown the loss.
        let free = match same {
            Some(same) => hidden(same)?.logical_not()?,
            None => Tensor::ones(&[rows, rows], DType::Bool, logits.device())?,
        }
        .to_dtype(DType::F32)?;
        let one_way = |logits: &Tensor, free: &Tensor| -> Result<Tensor> {
            let logs = logits.log_softmax(1)?.mul(free)?;
            let spread = free.div(&free.sum_dims(&[1], true)?)?.mul_scalar(smoothing)?;
            let aim = Tensor::eye(rows, DType::F32, logits.device())?.mul_scalar(1.0 - smoothing)?.add(&spread)?;
            Ok(logs.mul(&aim)?.sum()?.mul_scalar(-1.0 / rows as f64)?)
        };
        let both = one_way(&logits, &free)?.add(&one_way(&logits.transpose(0, 1)?, &free.transpose(0, 1)?)?)?;
        return Ok(both.mul_scalar(0.5)?);
    }
    let forth = logits.cross_entropy(&target, -100, 0.0)?;
    let back = logits.transpose(0, 1)?.cross_entropy(&target, -100, 0.0)?;
    Ok(forth.add(&back)?.mul_scalar(0.5)?)
}

/// Each pair judged by itself, partner or not: mean over rows of the negated log-likelihoods of all their pairs.
pub fn sigmoid(similarity: &Similarity, scale: &Tensor, bias: &Tensor, same: Option<&Tensor>) -> Result<Tensor> {
    let logits = similarity.0.mul(scale)?.add(bias)?;
    let rows = logits.size(0)?;
    let sign = Tensor::eye(rows, DType::F32, logits.device())?.mul_scalar(2.0)?.add_scalar(-1.0)?;
    let mut each = logits.mul(&sign)?.log_sigmoid()?;
    if let Some(same) = same {
        each = each.masked_fill(&hidden(same)?, 0.0)?;
    }
    Ok(each.sum()?.mul_scalar(-1.0 / rows as f64)?)
}

/// The hardest negative of each row must be `margin` farther than its partner, both ways.
pub fn triplet(similarity: &Similarity, margin: f64, same: Option<&Tensor>) -> Result<Tensor> {
    let cosines = &similarity.0;
    let rows = cosines.size(0)?;
    let mut out = Tensor::eye(rows, DType::Bool, cosines.device())?;
    if let Some(same) = same {
        out = out.logical_or(same)?;
    }
    let negatives = cosines.masked_fill(&out, -2.0)?;
    let partner = cosines.diagonal()?;
    let cost =
        |hardest: Tensor| -> Result<Tensor> { Ok(hardest.sub(&partner)?.add_scalar(margin)?.clamp_min(0.0)?.mean()?) };
    Ok(cost(negatives.max_dim(1, false)?)?.add(&cost(negatives.max_dim(0, false)?)?)?)
}

/// Which loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ContrastiveKind {
    /// Softmax over the batch.
    #[default]
    InfoNce,
    /// Each pair by itself.
    Sigmoid,
    /// Margin to the hardest negative.
    Triplet,
}

/// Settings of a [`Contrastive`] loss.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ContrastiveConfig {
    /// Which loss.
    pub kind: ContrastiveKind,
    /// Temperature that it begins with; learned from there.
    pub temperature: f64,
    /// Share of the target that is spread over all rows (`InfoNCE`).
    pub smoothing: f64,
    /// Margin (triplet).
    pub margin: f64,
}

impl Default for ContrastiveConfig {
    fn default() -> Self {
        Self { kind: ContrastiveKind::InfoNce, temperature: 0.07, smoothing: 0.0, margin: 0.2 }
    }
}

/// A contrastive loss with its learned temperature.
pub struct Contrastive {
    config: ContrastiveConfig,
    log_scale: Tensor,
    bias: Option<Tensor>,
}

impl Contrastive {
    /// The loss; its `logit_scale` (a logarithm, as in CLIP) and, for the sigmoid, `logit_bias` lie under `scope`.
    pub fn new(scope: &Scope<'_>, config: &ContrastiveConfig) -> Result<Self> {
        let problem = |what, found: f64, wanted: &str| {
            Err(Error::Features { what, found: found.to_string(), wanted: wanted.into() })
        };
        if !(config.temperature > 0.0 && config.temperature.is_finite()) {
            return problem("loss.temperature", config.temperature, "a positive number");
        }
        if !(0.0..1.0).contains(&config.smoothing) {
            return problem("loss.smoothing", config.smoothing, "a share in [0, 1)");
        }
        let bias =
            (config.kind == ContrastiveKind::Sigmoid).then(|| scope.param("logit_bias", &[1], Init::Constant(-10.0)));
        Ok(Self {
            log_scale: scope.param("logit_scale", &[1], Init::Constant((1.0 / config.temperature).ln()))?,
            bias: bias.transpose()?,
            config: config.clone(),
        })
    }

    /// The loss of `[rows, width]` embeddings whose rows belong together; `same` as in [`info_nce`].
    pub fn loss(&self, a: &Tensor, b: &Tensor, same: Option<&Tensor>) -> Result<Tensor> {
        let similarity = Similarity::cosine(a, b)?;
        // CLIP's bound: a temperature below 0.01 makes training unstable.
        let scale = self.log_scale.clamp(0.0, 100f64.ln())?.exp()?;
        match (self.config.kind, &self.bias) {
            (ContrastiveKind::Triplet, _) => triplet(&similarity, self.config.margin, same),
            (ContrastiveKind::Sigmoid, Some(bias)) => sigmoid(&similarity, &scale, bias, same),
            _ => info_nce(&similarity, &scale, same, self.config.smoothing),
        }
    }

    /// The temperature as it stands.
    pub fn temperature(&self) -> Result<f64> {
        Ok((-self.log_scale.to_f64()?).exp())
    }
}

impl Aligner for Contrastive {
    fn align(&self, a: &Features, b: &Features) -> mm_core::Result<AlignOutput> {
        let loss = self.loss(&a.pool(Pool::Mean)?, &b.pool(Pool::Mean)?, None)?;
        Ok(AlignOutput { loss, map: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm_core::Device;
    use proptest::prelude::*;

    fn tensor(values: &[f32], rows: i64) -> Tensor {
        Tensor::from_vec(values, &[rows, values.len() as i64 / rows]).unwrap()
    }

    fn scale(value: f32) -> Tensor {
        Tensor::from_slice(&[value]).unwrap()
    }

    #[test]
    fn two_orthogonal_pairs_cost_what_a_hand_calculation_says() {
        let a = tensor(&[1.0, 0.0, 0.0, 1.0], 2);
        let similarity = Similarity::cosine(&a, &a).unwrap();
        let wanted = (1.0 + (-3f64).exp()).ln();
        let found = info_nce(&similarity, &scale(3.0), None, 0.0).unwrap().to_f64().unwrap();
        assert!((found - wanted).abs() < 1e-6);
        // Smoothing by s moves s/2 of the target to the wrong one: the loss grows by s/2 · 3.
        let smooth = info_nce(&similarity, &scale(3.0), None, 0.2).unwrap().to_f64().unwrap();
        assert!((smooth - (wanted + 0.3)).abs() < 1e-5, "{smooth}");
        let each = sigmoid(&similarity, &scale(3.0), &scale(-1.0), None).unwrap().to_f64().unwrap();
        let wanted = (1.0 + (-2f64).exp()).ln() + (1.0 + (-1f64).exp()).ln();
        assert!((each - wanted).abs() < 1e-6);
        assert!((triplet(&similarity, 1.5, None).unwrap().to_f64().unwrap() - 1.0).abs() < 1e-6);
        // Rows that show the same are no negatives of each other: nothing is left to be wrong about.
        let same = Tensor::ones(&[2, 2], DType::Bool, Device::Cpu).unwrap();
        assert!(info_nce(&similarity, &scale(3.0), Some(&same), 0.0).unwrap().to_f64().unwrap().abs() < 1e-6);
        assert!(Similarity::cosine(&a, &tensor(&[1.0, 0.0], 1)).is_err());
    }

    proptest! {
        #[test]
        fn losses_do_not_depend_on_the_order_or_length_of_rows(values in prop::collection::vec(-1f32..1.0, 40), stretch in 0.1f32..5.0) {
            let (a, b) = (tensor(&values[..20], 5), tensor(&values[20..], 5));
            let order = Tensor::from_slice(&[3i64, 0, 4, 1, 2]).unwrap();
            let turn = |t: &Tensor| t.index_select(0, &order).unwrap().mul_scalar(f64::from(stretch)).unwrap();
            let all = |a: &Tensor, b: &Tensor| {
                let s = Similarity::cosine(a, b).unwrap();
                [info_nce(&s, &scale(5.0), None, 0.1), sigmoid(&s, &scale(5.0), &scale(-2.0), None), triplet(&s, 0.2, None)].map(|l| l.unwrap().to_f64().unwrap())
            };
            for (x, y) in all(&a, &b).into_iter().zip(all(&turn(&a), &turn(&b))) {
                prop_assert!((x - y).abs() < 1e-4);
            }
        }
    }
}
