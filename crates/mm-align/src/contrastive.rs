//! Contrastive losses: what belongs together is nearer than what does not. `InfoNCE` both ways (van den Oord 2018, CLIP 2021),
//! `SigLIP`'s sigmoid (Zhai 2023), triplets with the hardest negatives (VSE++, Faghri 2018).

use crate::{
    Error, Result,
    robust::{RobustConfig, RobustKind, relabelled, small_loss},
};
use mm_core::{DType, Init, Scope, Tensor};
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

    /// Any agreement `[rows, rows]` in the range of cosines, such as stacked attention's; row i belongs with column i.
    pub fn of(agreement: Tensor) -> Result<Self> {
        let shape = agreement.shape();
        if shape.len() != 2 || shape[0] != shape[1] || shape[0] == 0 {
            return Err(Error::Features {
                what: "similarity",
                found: format!("{shape:?}"),
                wanted: "a square of agreements with at least a row".into(),
            });
        }
        Ok(Self(agreement))
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

/// Logits without the pairs that are no true negatives.
pub(crate) fn hide(logits: &Tensor, same: Option<&Tensor>) -> Result<Tensor> {
    match same {
        Some(same) => Ok(logits.masked_fill(&hidden(same)?, logits.dtype()?.mask_value())?),
        None => Ok(logits.clone()),
    }
}

/// Cross-entropy of each row finding its partner among all, and the other way round, averaged. Cosines are multiplied by `scale`
/// (one over the temperature). Pairs of rows that show the `same` thing are left out of each other's negatives.
pub fn info_nce(similarity: &Similarity, scale: &Tensor, same: Option<&Tensor>, smoothing: f64) -> Result<Tensor> {
    let logits = hide(&similarity.0.mul(scale)?, same)?;
    if smoothing > 0.0 {
        let rows = logits.size(0)?;
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
    // Down the columns as they lie: a transposed copy would cost as much as the product that the logits came from.
    let one_way = |dim: i64| logits.log_softmax(dim)?.diagonal()?.mean();
    Ok(one_way(1)?.add(&one_way(0)?)?.mul_scalar(-0.5)?)
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

/// Every pair of rows of one class is a partner (Khosla 2020), both ways: mean over rows of −log of the partners' geometric mean share.
/// `same` is `[rows, rows]` bool, true where two rows are of one class (the diagonal included).
pub fn supervised(similarity: &Similarity, scale: &Tensor, same: &Tensor) -> Result<Tensor> {
    let logits = similarity.0.mul(scale)?;
    let partners = same.to_dtype(DType::F32)?;
    let one_way = |logits: &Tensor, partners: &Tensor| -> Result<Tensor> {
        let logs = logits.log_softmax(1)?.mul(partners)?.sum_dims(&[1], false)?;
        Ok(logs.div(&partners.sum_dims(&[1], false)?.clamp_min(1.0)?)?.mean()?.neg()?)
    };
    let both = one_way(&logits, &partners)?.add(&one_way(&logits.transpose(0, 1)?, &partners.transpose(0, 1)?)?)?;
    Ok(both.mul_scalar(0.5)?)
}

/// Cross-entropy with targets that are no zeros and ones: `[rows, rows]`, rows summing to one (soft alignment, Gao 2024; re-labelled
/// pairs, Huang 2021), both ways.
pub fn soft(similarity: &Similarity, scale: &Tensor, target: &Tensor) -> Result<Tensor> {
    let logits = similarity.0.mul(scale)?;
    let turned = target.transpose(0, 1)?;
    let back = turned.div(&turned.sum_dims(&[1], true)?.clamp_min(1e-12)?)?;
    Ok(toward(&logits, target)?.add(&toward(&logits.transpose(0, 1)?, &back)?)?.mul_scalar(0.5)?)
}

/// Cross-entropy of logits `[rows, candidates]` with targets of the same shape, mean over the rows.
pub(crate) fn toward(logits: &Tensor, target: &Tensor) -> Result<Tensor> {
    Ok(logits.log_softmax(1)?.mul(target)?.sum_dims(&[1], false)?.mean()?.neg()?)
}

/// `InfoNCE` whose negatives weigh the more the nearer they are (Robinson 2021): each by exp(`hardness` · cosine), brought to mean one.
pub fn hard_info_nce(similarity: &Similarity, scale: &Tensor, hardness: f64) -> Result<Tensor> {
    let rows = similarity.0.size(0)?;
    let diagonal = Tensor::eye(rows, DType::Bool, similarity.0.device())?;
    let one_way = |cosines: &Tensor| -> Result<Tensor> {
        let logits = cosines.mul(scale)?;
        let weights =
            cosines.detach()?.mul_scalar(hardness)?.masked_fill(&diagonal, f64::from(f32::MIN))?.softmax(1)?;
        let others = weights.mul_scalar((rows - 1) as f64)?.masked_fill(&diagonal, 1.0)?;
        let all = logits.add(&others.clamp_min(1e-30)?.log()?)?.logsumexp(1)?;
        Ok(all.sub(&logits.diagonal()?)?.mean()?)
    };
    Ok(one_way(&similarity.0)?.add(&one_way(&similarity.0.transpose(0, 1)?)?)?.mul_scalar(0.5)?)
}

/// What CyCLIP (Goel 2022) adds to `InfoNCE`: cosines must be symmetric across modalities, and the same within each. `a` and `b`
/// `[rows, width]`; mean squares of both differences.
pub fn cyclic(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let across = Similarity::cosine(a, b)?.0;
    let symmetric = across.sub(&across.transpose(0, 1)?)?.pow(2.0)?.mean()?;
    let within = Similarity::cosine(a, a)?.0.sub(&Similarity::cosine(b, b)?.0)?.pow(2.0)?.mean()?;
    Ok(symmetric.add(&within)?)
}

/// Barlow Twins (Zbontar 2021): the correlations of both sides' dimensions must be the identity; `weight` is that of what is off the
/// diagonal (0.005 in the paper).
pub fn barlow_twins(a: &Tensor, b: &Tensor, weight: f64) -> Result<Tensor> {
    let level = |x: &Tensor| -> Result<Tensor> {
        let centred = x.sub(&x.mean_dims(&[0], true)?)?;
        Ok(centred.div(&x.std_dims(&[0], false, true)?.add_scalar(1e-5)?)?)
    };
    let rows = a.size(0)? as f64;
    let c = level(a)?.transpose(0, 1)?.matmul(&level(b)?)?.mul_scalar(1.0 / rows)?; // [width, width]
    let on = c.diagonal()?.add_scalar(-1.0)?.pow(2.0)?.sum()?;
    let off = c.pow(2.0)?.sum()?.sub(&c.diagonal()?.pow(2.0)?.sum()?)?;
    Ok(on.add(&off.mul_scalar(weight)?)?)
}

/// VICReg (Bardes 2022): partners near (weight 25), each dimension's deviation at least one (25), no covariance between dimensions (1).
pub fn vicreg(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let near = a.sub(b)?.pow(2.0)?.mean()?;
    let (rows, width) = ((a.size(0)? - 1).max(1) as f64, a.size(1)? as f64);
    let mut sum = near.mul_scalar(25.0)?;
    for x in [a, b] {
        let centred = x.sub(&x.mean_dims(&[0], true)?)?;
        let deviation = centred.pow(2.0)?.sum_dims(&[0], false)?.mul_scalar(1.0 / rows)?.add_scalar(1e-4)?.sqrt()?;
        let short = deviation.neg()?.add_scalar(1.0)?.relu()?.mean()?;
        let c = centred.transpose(0, 1)?.matmul(&centred)?.mul_scalar(1.0 / rows)?;
        let off = c.pow(2.0)?.sum()?.sub(&c.diagonal()?.pow(2.0)?.sum()?)?.mul_scalar(1.0 / width)?;
        sum = sum.add(&short.mul_scalar(12.5)?)?.add(&off)?;
    }
    Ok(sum)
}

/// The last embeddings of a modality, as negatives beyond the batch (MoCo, He 2020).
pub struct MemoryQueue {
    held: Tensor,
    most: i64,
}

impl MemoryQueue {
    /// An empty queue of at most `most` rows.
    pub fn new(most: i64, width: i64, device: mm_core::Device) -> Result<Self> {
        if most < 1 {
            return Err(Error::Features {
                what: "memory queue",
                found: most.to_string(),
                wanted: "at least one row".into(),
            });
        }
        Ok(Self { held: Tensor::zeros(&[0, width], DType::F32, device)?, most })
    }

    /// Adds a batch `[rows, width]` at its end, outside the graph; the oldest rows fall out.
    pub fn push(&mut self, batch: &Tensor) -> Result<()> {
        let all = Tensor::cat(&[&self.held, &batch.detach()?.normalize()?], 0)?;
        let rows = all.size(0)?;
        let keep = rows.min(self.most);
        self.held = all.narrow(0, rows - keep, keep)?.contiguous()?;
        Ok(())
    }

    /// The rows, oldest first, of unit length.
    pub fn rows(&self) -> &Tensor {
        &self.held
    }

    /// `InfoNCE` of `a` finding its partners in `b`, the queue's rows among the wrong ones.
    pub fn info_nce(&self, a: &Tensor, b: &Tensor, scale: &Tensor) -> Result<Tensor> {
        let own = Similarity::cosine(a, b)?.0;
        let more = a.normalize()?.matmul(&self.held.transpose(0, 1)?)?;
        let logits = Tensor::cat(&[&own, &more], 1)?.mul(scale)?;
        let target = Tensor::arange(0, logits.size(0)?, logits.device())?;
        Ok(logits.cross_entropy(&target, -100, 0.0)?)
    }
}

/// One step of a large batch in the memory of small ones (GradCache, Gao 2021): embeddings of all pieces without a graph, the loss on all
/// of them, then each piece again with its embeddings' gradients. Parameters are left with the same gradient as if the whole batch had
/// gone through at once; the price is one more forward pass of all pieces but the last, whose graph is kept: one piece's graph is what the
/// memory has room for anyway. `encode` gives a piece's two embeddings and must give the same both times (seed dropout by the piece's
/// number). The loss's value comes back.
pub fn cached_gradients(
    pieces: usize,
    mut encode: impl FnMut(usize) -> Result<(Tensor, Tensor)>,
    loss: impl FnOnce(&Tensor, &Tensor) -> Result<Tensor>,
) -> Result<f64> {
    let Some(last) = pieces.checked_sub(1) else {
        return Err(Error::Features {
            what: "cached gradients",
            found: "no piece".into(),
            wanted: "at least one".into(),
        });
    };
    let (mut left, mut right) = (Vec::new(), Vec::new());
    for piece in 0..last {
        let (a, b) = mm_core::no_grad(|| encode(piece))?;
        left.push(a);
        right.push(b);
    }
    let kept = encode(last)?;
    left.push(kept.0.detach()?);
    right.push(kept.1.detach()?);
    let join = |all: &[Tensor]| Tensor::cat(&all.iter().collect::<Vec<_>>(), 0)?.set_requires_grad(true);
    let (a, b) = (join(&left)?, join(&right)?);
    let value = loss(&a, &b)?;
    value.backward()?;
    let slope = |x: &Tensor| x.grad().map_or_else(|| x.zeros_like(), Ok);
    let (ga, gb) = (slope(&a)?, slope(&b)?);
    let pull = |(a, b): (Tensor, Tensor), from: i64| -> Result<i64> {
        let rows = a.size(0)?;
        a.mul(&ga.narrow(0, from, rows)?)?.sum()?.add(&b.mul(&gb.narrow(0, from, rows)?)?.sum()?)?.backward()?;
        Ok(from + rows)
    };
    pull(kept, a.size(0)? - left[last].size(0)?)?;
    let mut from = 0;
    for piece in 0..last {
        from = pull(encode(piece)?, from)?;
    }
    Ok(value.to_f64()?)
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
        self.loss_of(&Similarity::cosine(a, b)?, same)
    }

    /// The loss of agreements that were found otherwise than by cosines of vectors.
    pub fn loss_of(&self, similarity: &Similarity, same: Option<&Tensor>) -> Result<Tensor> {
        let scale = self.scale()?;
        match (self.config.kind, &self.bias) {
            (ContrastiveKind::Triplet, _) => triplet(similarity, self.config.margin, same),
            (ContrastiveKind::Sigmoid, Some(bias)) => sigmoid(similarity, &scale, bias, same),
            _ => info_nce(similarity, &scale, same, self.config.smoothing),
        }
    }

    /// The cross-entropy with targets `[rows, rows]` as [`soft`] takes them, at the temperature learned so far, whatever the kind.
    pub fn soft_loss(&self, a: &Tensor, b: &Tensor, target: &Tensor) -> Result<Tensor> {
        soft(&Similarity::cosine(a, b)?, &self.scale()?, target)
    }

    /// `InfoNCE` that doubts pairs, at the temperature learned so far, `step` steps after training began.
    pub fn robust_loss(
        &self,
        a: &Tensor,
        b: &Tensor,
        same: Option<&Tensor>,
        robust: &RobustConfig,
        step: u64,
    ) -> Result<Tensor> {
        if step < robust.warmup {
            return self.loss(a, b, same);
        }
        let (similarity, scale) = (Similarity::cosine(a, b)?, self.scale()?);
        match robust.kind {
            RobustKind::SmallLoss => {
                let grown = ((step - robust.warmup + 1) as f64 / robust.warmup.max(1) as f64).min(1.0);
                small_loss(&similarity, &scale, same, 1.0 - robust.share * grown)
            }
            RobustKind::Relabel => relabelled(&similarity, &scale, same),
        }
    }

    fn scale(&self) -> Result<Tensor> {
        // CLIP's bound: a temperature below 0.01 makes training unstable.
        Ok(self.log_scale.clamp(0.0, 100f64.ln())?.exp()?)
    }

    /// The temperature as it stands.
    pub fn temperature(&self) -> Result<f64> {
        Ok((-self.log_scale.to_f64()?).exp())
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

    #[test]
    fn kinds_fall_together_where_they_must() {
        mm_core::seed::manual_seed(1);
        let randn = || Tensor::randn(&[6, 4], DType::F32, Device::Cpu).unwrap();
        let (a, b) = (randn(), randn());
        let s = Similarity::cosine(&a, &b).unwrap();
        let value = |x: Result<Tensor>| x.unwrap().to_f64().unwrap();
        let plain = value(info_nce(&s, &scale(5.0), None, 0.0));
        let eye = Tensor::eye(6, DType::F32, Device::Cpu).unwrap();
        assert!((value(supervised(&s, &scale(5.0), &eye.gt_scalar(0.5).unwrap())) - plain).abs() < 1e-5);
        assert!((value(soft(&s, &scale(5.0), &eye)) - plain).abs() < 1e-5);
        assert!((value(hard_info_nce(&s, &scale(5.0), 0.0)) - plain).abs() < 1e-5);
        assert!(value(hard_info_nce(&s, &scale(5.0), 3.0)) > plain);
        assert!(value(cyclic(&a, &a)) < 1e-9 && value(cyclic(&a, &b)) > 0.0);
        let mut queue = MemoryQueue::new(8, 4, Device::Cpu).unwrap();
        let target = Tensor::arange(0, 6, Device::Cpu).unwrap();
        let one_way = s.values().mul_scalar(5.0).unwrap().cross_entropy(&target, -100, 0.0);
        assert!((value(queue.info_nce(&a, &b, &scale(5.0))) - value(one_way.map_err(Into::into))).abs() < 1e-5);
        queue.push(&randn()).unwrap();
        queue.push(&a).unwrap();
        assert_eq!(queue.rows().shape(), [8, 4]);
        assert!(
            queue
                .rows()
                .narrow(0, 2, 6)
                .unwrap()
                .sub(&a.normalize().unwrap())
                .unwrap()
                .abs()
                .unwrap()
                .max()
                .unwrap()
                .to_f64()
                .unwrap()
                < 1e-6
        );
        // Barlow Twins of a white set with itself has nothing on the diagonal to mend, and VICReg of it nothing at all.
        let white = tensor(&[1.0, 1.0, 1.0, -1.0, -1.0, 1.0, -1.0, -1.0], 4);
        assert!(value(barlow_twins(&white, &white, 0.005)) < 1e-6);
        assert!(value(vicreg(&white, &white)) < 1e-6 && value(vicreg(&a, &b)) > 1.0);
    }

    #[test]
    fn a_large_batch_in_pieces_has_the_gradient_of_the_whole() {
        mm_core::seed::manual_seed(2);
        let randn = |shape: &[i64]| Tensor::randn(shape, DType::F64, Device::Cpu).unwrap();
        let (x, y) = (randn(&[24, 5]), randn(&[24, 7]));
        let (w, v) = (randn(&[3, 5]).set_requires_grad(true).unwrap(), randn(&[3, 7]).set_requires_grad(true).unwrap());
        let temperature = Tensor::from_slice(&[4.0f64]).unwrap().set_requires_grad(true).unwrap();
        let encode = |x: &Tensor, y: &Tensor| -> Result<(Tensor, Tensor)> {
            Ok((x.linear(&w, None)?.tanh()?, y.linear(&v, None)?))
        };
        let loss = |a: &Tensor, b: &Tensor| info_nce(&Similarity::cosine(a, b)?, &temperature, None, 0.0);
        let all = [&w, &v, &temperature];
        let (a, b) = encode(&x, &y).unwrap();
        let whole = loss(&a, &b).unwrap();
        whole.backward().unwrap();
        let wanted: Vec<Vec<f64>> = all.iter().map(|t| t.grad().unwrap().to_vec().unwrap()).collect();
        all.iter().for_each(|t| t.zero_grad());
        let piece = |p: usize| encode(&x.narrow(0, 8 * p as i64, 8)?, &y.narrow(0, 8 * p as i64, 8)?);
        let value = cached_gradients(3, piece, loss).unwrap();
        assert!((value - whole.to_f64().unwrap()).abs() < 1e-12);
        for (t, wanted) in all.iter().zip(wanted) {
            let found = t.grad().unwrap().to_vec::<f64>().unwrap();
            assert!(found.iter().zip(wanted).all(|(f, w)| (f - w).abs() < 1e-5 * w.abs().max(1e-3)));
        }
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
