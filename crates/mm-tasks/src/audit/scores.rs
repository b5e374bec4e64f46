//! Mismatch scores without labels.

use crate::Result;
use mm_align::correlation::cca;
use mm_core::{DType, Tensor};

/// Three scores of each pair, and their mean rank.
pub struct MismatchScores {
    /// Cosine similarity, ranked as in *Confident Learning: Estimating Uncertainty in Dataset Labels* (Northcutt, Jiang
    /// and Chuang, 2021, <https://arxiv.org/abs/1911.00068>).
    pub similarity: Vec<f64>,
    /// Contrastive loss, the mean of both directions; wrong pairs have a large one (*Co-teaching*, Han et al., 2018,
    /// <https://arxiv.org/abs/1804.06872>).
    pub loss: Vec<f64>,
    /// Mean similarity to the partners of the nearest neighbors, in both directions.
    pub neighborhood: Vec<f64>,
    /// Mean rank of the three, 0 (matches) to 1 (does not).
    pub mismatch: Vec<f64>,
}

const NEIGHBORS: i64 = 10;
const INVERSE_TEMPERATURE: f64 = 20.0;
/// Rows scored at a time; memory is this times the number of rows.
const BLOCK_ROWS: i64 = 1024;

/// Scores pairs of unit-length embeddings `a` and `b` `[rows, dim]`.
pub fn mismatch_scores(a: &Tensor, b: &Tensor) -> Result<MismatchScores> {
    let rows = a.size(0)?;
    let (mut similarity, mut loss, mut neighborhood) = (Vec::new(), Vec::new(), Vec::new());
    let k = NEIGHBORS.min(rows - 1);
    for start in (0..rows).step_by(BLOCK_ROWS as usize) {
        let count = BLOCK_ROWS.min(rows - start);
        let (x, y) = (a.narrow(0, start, count)?, b.narrow(0, start, count)?);
        let pair = x.mul(&y)?.sum_dim(&[1], false)?; // [count]
        let cosines = |x: &Tensor, all: &Tensor| x.matmul(&all.transpose(0, 1)?);
        let cross_entropy = |x: &Tensor, all: &Tensor| -> Result<Tensor> {
            let normalizer = cosines(x, all)?.mul_scalar(INVERSE_TEMPERATURE)?.logsumexp(1)?;
            Ok(normalizer.sub(&pair.mul_scalar(INVERSE_TEMPERATURE)?)?)
        };
        loss.extend(cross_entropy(&x, b)?.add(&cross_entropy(&y, a)?)?.mul_scalar(0.5)?.to_vec::<f64>()?);
        let near = neighbor_similarity(&cosines(&x, a)?, k, &y, b)?;
        let near = near.add(&neighbor_similarity(&cosines(&y, b)?, k, &x, a)?)?;
        neighborhood.extend(near.mul_scalar(0.5)?.to_vec::<f64>()?);
        similarity.extend(pair.to_vec::<f64>()?);
    }
    let ranks = [ranks(&similarity, true), ranks(&loss, false), ranks(&neighborhood, true)];
    let mismatch = (0..similarity.len()).map(|row| ranks.iter().map(|r| r[row]).sum::<f64>() / 3.0).collect();
    Ok(MismatchScores { similarity, loss, neighborhood, mismatch })
}

/// Mean similarity of the other modality's rows `y` `[count, dim]` with the partners (rows of `partners`) of their
/// nearest neighbors by `cosines` `[count, rows]`, the row itself included.
fn neighbor_similarity(cosines: &Tensor, k: i64, y: &Tensor, partners: &Tensor) -> Result<Tensor> {
    let (_, neighbors) = cosines.topk(k + 1)?;
    let found = partners.embedding(&neighbors)?; // [count, k + 1, dim]
    Ok(found.mul(&y.unsqueeze(1)?)?.sum_dim(&[2], false)?.mean_dim(&[1], false)?)
}

/// Ranks scaled to [0, 1]; the largest value has rank 0 when `descending`. Ties are in row order.
fn ranks(values: &[f64], descending: bool) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|p, q| {
        let by_value = values[*p].total_cmp(&values[*q]);
        if descending { by_value.reverse() } else { by_value }
    });
    let mut ranks = vec![0.0; values.len()];
    for (rank, row) in order.into_iter().enumerate() {
        ranks[row] = rank as f64 / (values.len() - 1).max(1) as f64;
    }
    ranks
}

const FOLDS: i64 = 5;
/// Folds are truncated to the same dimension.
const MAX_CCA_DIM: i64 = 64;

/// Brings embeddings `a` `[rows, dim a]` and `b` `[rows, dim b]` of separate spaces into one by CCA on the pairs
/// themselves, cross-fitted: each fifth is projected by a fit on the other four, so that no pair supports itself.
/// Unit-length float32 rows.
pub fn cross_fitted_cca(a: &Tensor, b: &Tensor, ridge: f64) -> Result<(Tensor, Tensor)> {
    let rows = a.size(0)?;
    let fold_rows =
        |fold: i64, inside: bool| -> Vec<i64> { (0..rows).filter(|r| (r % FOLDS == fold) == inside).collect() };
    let (mut left, mut right, mut order) = (Vec::new(), Vec::new(), Vec::new());
    for fold in 0..FOLDS.min(rows) {
        let train = Tensor::from_slice(&fold_rows(fold, false))?;
        let held_out = Tensor::from_slice(&fold_rows(fold, true))?;
        let fit = cca(&a.index_select(0, &train)?, &b.index_select(0, &train)?, None, [ridge; 2])?;
        let fit = fit.scale_by_values(1.0)?.truncate(MAX_CCA_DIM)?;
        left.push(fit.project(0, &a.index_select(0, &held_out)?)?.normalize()?);
        right.push(fit.project(1, &b.index_select(0, &held_out)?)?.normalize()?);
        order.extend(fold_rows(fold, true));
    }
    let inverse = Tensor::from_slice(&order)?.argsort(0, false)?;
    let join = |folds: &[Tensor]| {
        Tensor::cat(&folds.iter().collect::<Vec<_>>(), 0)?.index_select(0, &inverse)?.to_dtype(DType::F32)
    };
    Ok((join(&left)?, join(&right)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::auroc;
    use mm_core::{Device, seed::manual_seed};

    #[test]
    fn shuffled_pairs_are_ranked_first() {
        manual_seed(1);
        let latent = Tensor::randn(&[300, 6], DType::F32, Device::Cpu).unwrap();
        let noisy = |scale: f64| {
            let noise = Tensor::randn(&[300, 6], DType::F32, Device::Cpu).unwrap().mul_scalar(scale).unwrap();
            latent.add(&noise).unwrap().normalize().unwrap()
        };
        let (a, b) = (noisy(0.4), noisy(0.4));
        // Every tenth caption belongs to another image.
        let order: Vec<i64> = (0..300).map(|r| if r % 10 == 0 { (r + 130) % 300 } else { r }).collect();
        let wrong: Vec<bool> = (0..300).map(|r| r % 10 == 0).collect();
        let b = b.index_select(0, &Tensor::from_slice(&order).unwrap()).unwrap();
        let found = mismatch_scores(&a, &b).unwrap();
        assert!(auroc(&found.mismatch, &wrong) > Some(0.95), "{:?}", auroc(&found.mismatch, &wrong));
        let (x, y) = cross_fitted_cca(&a.to_dtype(DType::F64).unwrap(), &b.to_dtype(DType::F64).unwrap(), 0.1).unwrap();
        assert!(auroc(&mismatch_scores(&x, &y).unwrap().mismatch, &wrong) > Some(0.9));
    }

    #[test]
    fn ties_keep_row_order() {
        assert_eq!(ranks(&[1.0, 1.0, 0.0], true), [0.0, 0.5, 1.0]);
        assert_eq!(ranks(&[1.0, 1.0, 0.0], false), [0.5, 1.0, 0.0]);
    }
}
