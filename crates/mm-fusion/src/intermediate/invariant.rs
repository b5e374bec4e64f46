//! Modality-invariant and -specific representations (MISA, Hazarika 2020): each modality in two halves, one in a space that all share
//! (drawn together by central moment discrepancy, Zellinger 2017) and one of its own (kept apart from the others), from which together the
//! modality can be restored; a transformer over the halves.

use crate::{
    Result,
    inputs::Part,
    intermediate::one_width,
    operator::{Body, Combined, Sizes},
};
use mm_core::{
    DType, Module, Scope, Tensor,
    nn::{ForwardArgs, Linear, Mask, Transformer, TransformerConfig},
};

/// Central moment discrepancy of two sets of rows `[rows, width]` in (0, 1): distance of their means and of their central moments up to
/// the `most`-th (Zellinger 2017).
pub fn central_moment_discrepancy(a: &Tensor, b: &Tensor, most: i32) -> Result<Tensor> {
    let (ma, mb) = (a.mean_dim(&[0], true)?, b.mean_dim(&[0], true)?);
    // A length's slope at zero is not a number.
    let length = |x: Tensor| -> Result<Tensor> { Ok(x.pow(2.0)?.sum()?.add_scalar(1e-12)?.sqrt()?) };
    let mut sum = length(ma.sub(&mb)?)?;
    let (ca, cb) = (a.sub(&ma)?, b.sub(&mb)?);
    let (mut pa, mut pb) = (ca.clone(), cb.clone());
    for _ in 2..=most {
        (pa, pb) = (pa.mul(&ca)?, pb.mul(&cb)?);
        sum = sum.add(&length(pa.mean_dim(&[0], false)?.sub(&pb.mean_dim(&[0], false)?)?)?)?;
    }
    Ok(sum)
}

/// Squared overlap of two sets of rows, both centred and of unit length, `‖Aᵀ B‖²` over the square of the width (MISA's code).
fn overlap(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let level = |x: &Tensor| -> Result<Tensor> { Ok(x.sub(&x.mean_dim(&[0], true)?)?.normalize()?) };
    Ok(level(a)?.transpose(0, 1)?.matmul(&level(b)?)?.pow(2.0)?.mean()?)
}

pub(crate) struct Invariant {
    own: Vec<Linear>,
    shared: Linear,
    restore: Vec<Linear>,
    transformer: Transformer,
    last: Linear,
    weights: [f64; 3],
}

impl Invariant {
    pub(crate) fn new(scope: &Scope<'_>, sizes: &Sizes<'_>, weights: [f64; 3], heads: i64) -> Result<Self> {
        one_width(sizes, "misa")?;
        let (width, input) = (sizes.width, sizes.parts[0]);
        let (mut own, mut restore) = (Vec::new(), Vec::new());
        for number in 0..sizes.parts.len() {
            own.push(Linear::new(&scope.pp("private").pp(number), input, width, true)?);
            restore.push(Linear::new(&scope.pp("recon").pp(number), width, input, true)?);
        }
        let block = super::block(width, heads, 0.1, false);
        Ok(Self {
            own,
            shared: Linear::new(&scope.pp("shared"), input, width, true)?,
            restore,
            transformer: Transformer::new(
                &scope.pp("transformer"),
                &TransformerConfig { num_layers: 1, block, final_norm: true },
            )?,
            last: Linear::new(&scope.pp("fusion"), 2 * width * sizes.parts.len() as i64, width, true)?,
            weights,
        })
    }
}

impl Body for Invariant {
    fn combine(&self, parts: &[Part], train: bool) -> Result<Combined> {
        let (mut own, mut shared) = (Vec::new(), Vec::new());
        for (part, layer) in parts.iter().zip(&self.own) {
            let flag = part.flag()?;
            own.push(layer.forward(&part.values, train)?.sigmoid()?.mul(&flag)?);
            shared.push(self.shared.forward(&part.values, train)?.sigmoid()?.mul(&flag)?);
        }
        let loss = if train { Some(self.loss(parts, &own, &shared)?) } else { None };
        let halves: Vec<&Tensor> = own.iter().chain(&shared).collect();
        let x = Tensor::stack(&halves, 1)?; // [rows, 2 · modalities, width]
        let flags: Vec<&Tensor> = parts.iter().chain(parts).map(|p| &p.present).collect();
        let mask = Tensor::stack(&flags, 1)?.gt_scalar(0.5)?; // [rows, 2 · modalities]
        let x = self
            .transformer
            .forward(&x, ForwardArgs { mask: Some(&Mask::Padding(mask.clone())), train, ..ForwardArgs::default() })?;
        let x = x.mul(&mask.unsqueeze(-1)?.to_dtype(DType::F32)?)?.flatten(1, 2)?;
        Ok(Combined { loss, ..Combined::of(self.last.forward(&x, train)?) })
    }
}

impl Invariant {
    fn loss(&self, parts: &[Part], own: &[Tensor], shared: &[Tensor]) -> Result<Tensor> {
        let count = parts.len();
        let mut total = Tensor::zeros(&[], DType::F32, own[0].device())?;
        let [similar, different, restore] = self.weights;
        // Rows that have both; a set needs two rows to have moments.
        let both = |a: usize, b: usize| -> Result<Option<Tensor>> {
            let places = parts[a].present.mul(&parts[b].present)?.gt_scalar(0.5)?.nonzero()?;
            Ok((places.size(0)? > 1).then_some(places))
        };
        let pairs = (count * (count - 1) / 2).max(1) as f64;
        for a in 0..count {
            for b in a..count {
                let Some(rows) = both(a, b)? else { continue };
                let pick = |x: &Tensor| x.index_select(0, &rows);
                if a == b {
                    let apart = overlap(&pick(&own[a])?, &pick(&shared[a])?)?;
                    total = total.add(&apart.mul_scalar(different)?)?;
                    let back = self.restore[a].forward(&pick(&own[a])?.add(&pick(&shared[a])?)?, true)?;
                    let off = back.sub(&pick(&parts[a].values)?.detach()?)?.pow(2.0)?.mean()?;
                    total = total.add(&off.mul_scalar(restore / count as f64)?)?;
                } else {
                    let near = central_moment_discrepancy(&pick(&shared[a])?, &pick(&shared[b])?, 5)?;
                    total = total.add(&near.mul_scalar(similar / pairs)?)?;
                    total = total.add(&overlap(&pick(&own[a])?, &pick(&own[b])?)?.mul_scalar(different)?)?;
                }
            }
        }
        Ok(total)
    }
}
