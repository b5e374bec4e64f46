//! Attention between modalities: crosswise (Vaswani 2017; as ViLBERT, Lu 2019), parallel co-attention (Lu 2016), and a non-local gate
//! (Wang 2018).

use crate::{
    Result,
    inputs::Part,
    intermediate::{any, one_width, with_positions},
    operator::{Body, Combined, Sizes},
};
use mm_core::{
    Features, Init, Module, Pooling, Scope, Tensor,
    nn::{Attention, AttentionArgs, AttentionConfig, Linear, Mask, Norm, NormConfig},
};

fn pooled(values: &Tensor, part: &Part) -> Result<Tensor> {
    Ok(Features::new(values.clone(), part.mask.clone())?.pool(Pooling::Mean)?)
}

/// Each modality's positions look at each other modality's; means of what they saw, side by side.
pub(crate) struct Cross {
    /// (who looks, at whom).
    pairs: Vec<(usize, usize, Attention, Norm)>,
    last: Linear,
}

impl Cross {
    pub(crate) fn new(scope: &Scope<'_>, sizes: &Sizes<'_>, heads: i64) -> Result<Self> {
        one_width(sizes, "cross_attention")?;
        let (count, width) = (sizes.parts.len(), sizes.width);
        let mut pairs = Vec::new();
        for (a, b) in (0..count).flat_map(|a| (0..count).map(move |b| (a, b))).filter(|(a, b)| a != b || count == 1) {
            let place = scope.pp("pairs").pp(format!("{a}_{b}"));
            pairs.push((
                a,
                b,
                Attention::new(&place.pp("attention"), &AttentionConfig::new(width, heads))?,
                Norm::new(&place.pp("norm"), width, NormConfig::default())?,
            ));
        }
        let last = Linear::new(&scope.pp("out_proj"), width * pairs.len() as i64, width, true)?;
        Ok(Self { pairs, last })
    }
}

impl Body for Cross {
    fn combine(&self, parts: &[Part], train: bool) -> Result<Combined> {
        let placed = parts.iter().map(|p| with_positions(&p.values)).collect::<Result<Vec<_>>>()?;
        let mut all = Vec::new();
        for (a, b, attention, norm) in &self.pairs {
            let mask = parts[*b].mask.clone().map(Mask::Padding);
            let attend =
                AttentionArgs { context: Some(&placed[*b]), mask: mask.as_ref(), train, ..AttentionArgs::default() };
            let seen = attention.forward(&placed[*a], attend)?.values; // [rows, length of a, width]
            // Where there is nothing to see, nothing is seen.
            let seen = seen.mul(&parts[*b].flag()?.unsqueeze(2)?)?;
            let x = norm.forward(&parts[*a].values.add(&seen)?, train)?;
            all.push(pooled(&x, &parts[*a])?);
        }
        let x = Tensor::cat(&all.iter().collect::<Vec<_>>(), 1)?;
        Ok(Combined::of(self.last.forward(&x, train)?))
    }
}

struct Pair {
    a: usize,
    b: usize,
    affinity: Linear,
    own: [Linear; 2],
    scores: [Tensor; 2],
}

/// For each pair: how every position of one goes with every position of the other, and, through that, which positions of each count.
pub(crate) struct CoAttention {
    pairs: Vec<Pair>,
    last: Linear,
}

impl CoAttention {
    pub(crate) fn new(scope: &Scope<'_>, sizes: &Sizes<'_>, hidden: i64) -> Result<Self> {
        one_width(sizes, "co_attention")?;
        let (count, width) = (sizes.parts.len(), sizes.width);
        let mut pairs = Vec::new();
        for (a, b) in (0..count).flat_map(|a| (a..count).map(move |b| (a, b))).filter(|(a, b)| a != b || count == 1) {
            let place = scope.pp("pairs").pp(format!("{a}_{b}"));
            let init = Init::Normal(1.0 / (hidden as f64).sqrt());
            pairs.push(Pair {
                a,
                b,
                affinity: Linear::new(&place.pp("affinity"), width, width, false)?,
                own: [
                    Linear::new(&place.pp("a"), width, hidden, false)?,
                    Linear::new(&place.pp("b"), width, hidden, false)?,
                ],
                scores: [place.param("score_a", &[hidden], init)?, place.param("score_b", &[hidden], init)?],
            });
        }
        let last = Linear::new(&scope.pp("out_proj"), 2 * width * pairs.len() as i64, width, true)?;
        Ok(Self { pairs, last })
    }
}

impl Body for CoAttention {
    fn combine(&self, parts: &[Part], train: bool) -> Result<Combined> {
        let mut all = Vec::new();
        for pair in &self.pairs {
            let (a, b) = (&parts[pair.a], &parts[pair.b]);
            let affinity = pair.affinity.forward(&a.values, train)?.matmul(&b.values.transpose(1, 2)?)?.tanh()?; // [rows, a, b]
            let (wa, wb) = (pair.own[0].forward(&a.values, train)?, pair.own[1].forward(&b.values, train)?);
            let ha = wa.add(&affinity.matmul(&wb)?)?.tanh()?; // [rows, a, hidden]
            let hb = wb.add(&affinity.transpose(1, 2)?.matmul(&wa)?)?.tanh()?; // [rows, b, hidden]
            for (h, score, part) in [(ha, &pair.scores[0], a), (hb, &pair.scores[1], b)] {
                let scores = h.mul(score)?.sum_dim(&[2], false)?; // [rows, length]
                let scores = match &part.mask {
                    Some(mask) => scores.masked_fill(&mask.logical_not()?, scores.dtype()?.mask_value())?,
                    None => scores,
                };
                let shares = scores.softmax(1)?.unsqueeze(2)?;
                all.push(part.values.mul(&shares)?.sum_dim(&[1], false)?.mul(&part.flag()?)?);
            }
        }
        let x = Tensor::cat(&all.iter().collect::<Vec<_>>(), 1)?;
        Ok(Combined::of(self.last.forward(&x, train)?))
    }
}

/// The main modality's positions with what they find anywhere added; where it is missing, what the others hold on average.
pub(crate) struct NonLocal {
    theta: Linear,
    phi: Linear,
    g: Linear,
    back: Linear,
    last: Linear,
    main: usize,
}

impl NonLocal {
    pub(crate) fn new(scope: &Scope<'_>, sizes: &Sizes<'_>) -> Result<Self> {
        one_width(sizes, "non_local")?;
        let width = sizes.width;
        let inner = (width / 2).max(1);
        let layer = |name: &str, input: i64, output: i64| Linear::new(&scope.pp(name), input, output, true);
        Ok(Self {
            theta: layer("theta", width, inner)?,
            phi: layer("phi", width, inner)?,
            g: layer("g", width, inner)?,
            back: layer("w", inner, width)?,
            last: layer("out_proj", width, width)?,
            main: sizes.main,
        })
    }
}

impl Body for NonLocal {
    fn combine(&self, parts: &[Part], train: bool) -> Result<Combined> {
        let main = &parts[self.main];
        let all = Tensor::cat(&parts.iter().map(|p| &p.values).collect::<Vec<_>>(), 1)?; // [rows, lengths, width]
        let masks = parts.iter().map(Part::positions).collect::<Result<Vec<_>>>()?;
        let mask = Tensor::cat(&masks.iter().collect::<Vec<_>>(), 1)?; // [rows, lengths]
        let scores =
            self.theta.forward(&main.values, train)?.matmul(&self.phi.forward(&all, train)?.transpose(1, 2)?)?;
        let scores = scores.masked_fill(&mask.logical_not()?.unsqueeze(1)?, scores.dtype()?.mask_value())?;
        let seen = scores.softmax(2)?.matmul(&self.g.forward(&all, train)?)?; // [rows, length, inner]
        let x = main.values.add(&self.back.forward(&seen, train)?)?;
        let own = pooled(&x, main)?;
        let here = main.flag()?;
        let rest = Features::new(self.g.forward(&all, train)?, Some(mask))?.pool(Pooling::Mean)?;
        let rest = self.back.forward(&rest, train)?.mul(&any(&parts.iter().collect::<Vec<_>>())?)?;
        let mixed = own.mul(&here)?.add(&rest.mul(&here.neg()?.add_scalar(1.0)?)?)?;
        Ok(Combined::of(self.last.forward(&mixed, train)?))
    }
}
