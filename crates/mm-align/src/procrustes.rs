//! Orthogonal Procrustes, and its iterative refinement when few pairs are known.

use crate::{
    Result,
    checks::{check_paired, invalid, to_f64},
    correlation::pls,
    hubness::csls,
    method::{Alignment, AlignmentMethod, FitOptions, PairedFeatures, Projection},
};
use mm_core::Tensor;

/// The orthogonal map `[dim, dim]` with the smallest `‖a · map − b‖`, for paired rows `a` and `b` `[rows, dim]`.
///
/// From *A Generalized Solution of the Orthogonal Procrustes Problem* (Schönemann, 1966,
/// <https://doi.org/10.1007/BF02289451>).
///
/// # Errors
/// When the sets are not paired, not finite or of different dimension.
pub fn procrustes(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    check_paired("procrustes", &[a, b])?;
    if a.size(1)? != b.size(1)? {
        let found = format!("{:?} and {:?}", a.shape(), b.shape());
        return Err(invalid(
            "procrustes",
            found,
            "sets of the same dimension (project both onto principal components first)",
        ));
    }
    let (u, _, vt) = to_f64(a)?.transpose(0, 1)?.matmul(&to_f64(b)?)?.svd()?;
    Ok(u.matmul(&vt)?)
}

/// The result of [`iterative_procrustes`].
#[derive(Debug)]
pub struct RefinedProcrustes {
    /// Orthogonal map `[dim, dim]`.
    pub map: Tensor,
    /// Number of pairs in the last fit, the given ones included.
    pub pairs: usize,
    /// Number of iterations.
    pub iterations: usize,
}

/// The orthogonal map between two sets of which only a few rows are known to be pairs. It is fitted on the known pairs,
/// then refitted with the unpaired rows that are mutual nearest neighbors by [`csls`] added, until these do not change.
///
/// `a` and `b` are the known pairs, `unpaired_a` and `unpaired_b` rows in any order; all have the same dimension and
/// are centered.
///
/// From *Word Translation Without Parallel Data* (Conneau et al., 2018, <https://arxiv.org/abs/1710.04087>).
///
/// # Errors
/// When the known rows are not paired or the dimensions differ.
pub fn iterative_procrustes(
    [a, b]: [&Tensor; 2],
    [unpaired_a, unpaired_b]: [&Tensor; 2],
    neighbors: i64,
    max_iterations: usize,
) -> Result<RefinedProcrustes> {
    check_paired("iterative_procrustes", &[a, b])?;
    let dim = a.size(1)?;
    if [b, unpaired_a, unpaired_b].iter().any(|x| x.rank() != 2 || x.size(1).ok() != Some(dim)) {
        let found = [a, b, unpaired_a, unpaired_b].map(|x| format!("{:?}", x.shape())).join(", ");
        return Err(invalid("iterative_procrustes", found, "sets of the same dimension"));
    }
    let unit = |x: &Tensor| -> Result<Tensor> { Ok(to_f64(x)?.normalize()?) };
    let (a, b, unpaired_a, unpaired_b) = (unit(a)?, unit(b)?, unit(unpaired_a)?, unit(unpaired_b)?);
    let mut map = procrustes(&a, &b)?;
    let (mut previous, mut iterations) = (Vec::new(), 0);
    while iterations < max_iterations && unpaired_a.size(0)? > 0 && unpaired_b.size(0)? > 0 {
        let cosines = unpaired_a.matmul(&map)?.matmul(&unpaired_b.transpose(0, 1)?)?;
        let scores = csls(&cosines, neighbors)?;
        let nearest_b: Vec<i64> = scores.argmax(1)?.to_vec()?;
        let nearest_a: Vec<i64> = scores.argmax(0)?.to_vec()?;
        let mutual: Vec<(i64, i64)> =
            (0..).zip(&nearest_b).filter(|(i, j)| nearest_a[**j as usize] == *i).map(|(i, j)| (i, *j)).collect();
        iterations += 1;
        if mutual == previous {
            break;
        }
        let pick = |x: &Tensor, rows: Vec<i64>| x.index_select(0, &Tensor::from_slice(&rows)?.to_device(x.device())?);
        let more_a = pick(&unpaired_a, mutual.iter().map(|p| p.0).collect())?;
        let more_b = pick(&unpaired_b, mutual.iter().map(|p| p.1).collect())?;
        map = procrustes(&Tensor::cat(&[&a, &more_a], 0)?, &Tensor::cat(&[&b, &more_b], 0)?)?;
        previous = mutual;
    }
    Ok(RefinedProcrustes { map, pairs: a.size(0)? as usize + previous.len(), iterations })
}

/// Nearest neighbors per row for CSLS, and the limit of refinement iterations.
const NEIGHBORS: i64 = 10;
const MAX_ITERATIONS: usize = 20;

/// The method `procrustes`: [`procrustes`] between principal components, or [`iterative_procrustes`] where there are
/// unpaired rows.
pub struct Procrustes;

impl AlignmentMethod for Procrustes {
    fn name(&self) -> &'static str {
        "procrustes"
    }

    fn description(&self) -> &'static str {
        "an orthogonal map between principal components (Schönemann 1966); refined with unpaired rows where there are any (Conneau et al. 2018)"
    }

    fn fit(&self, pairs: &PairedFeatures, options: &FitOptions) -> Result<Alignment> {
        let (a, b) = (&pairs.a, &pairs.b);
        let (all_a, all_b) = match &pairs.unpaired {
            Some([more_a, more_b]) => (Tensor::cat(&[a, more_a], 0)?, Tensor::cat(&[b, more_b], 0)?),
            None => (a.clone(), b.clone()),
        };
        let rank = a.size(1)?.min(b.size(1)?).min(all_a.size(0)? - 1).min(all_b.size(0)? - 1);
        let dim = options.dim.unwrap_or(rank);
        if !(1..=rank).contains(&dim) {
            return Err(invalid("dim", dim.to_string(), format!("1 to {rank}, the rank of these features")));
        }
        // PLS of a set with itself gives its principal components.
        let (pca_a, pca_b) = (pls(&all_a, &all_a, Some(dim))?, pls(&all_b, &all_b, Some(dim))?);
        let (known_a, known_b) = (pca_a.project(0, a)?, pca_b.project(0, b)?);
        let map = match &pairs.unpaired {
            Some([more_a, more_b]) => {
                let unpaired = [&pca_a.project(0, more_a)?, &pca_b.project(0, more_b)?];
                iterative_procrustes([&known_a, &known_b], unpaired, NEIGHBORS, MAX_ITERATIONS)?.map
            }
            None => procrustes(&known_a, &known_b)?,
        };
        let ((mean_a, components_a), (mean_b, components_b)) = (&pca_a.sets[0], &pca_b.sets[0]);
        let project_a = Projection::affine(mean_a.clone(), components_a.matmul(&map)?);
        Ok(Alignment::new(project_a, Projection::affine(mean_b.clone(), components_b.clone()), dim))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm_core::{DType, Device, seed::manual_seed};

    fn randn(shape: &[i64]) -> Tensor {
        Tensor::randn(shape, DType::F64, Device::Cpu).unwrap()
    }

    #[test]
    fn a_rotation_is_recovered() {
        manual_seed(6);
        let (u, _, _) = randn(&[4, 4]).svd().unwrap();
        let a = randn(&[20, 4]);
        let map = procrustes(&a, &a.matmul(&u).unwrap()).unwrap();
        assert!(map.sub(&u).unwrap().abs().unwrap().max().unwrap().to_f64().unwrap() < 1e-9);
    }

    #[test]
    fn six_pairs_and_unpaired_rows_recover_the_map_that_all_pairs_give() {
        manual_seed(3);
        // Directions of unequal variance, rotated, with noise: six pairs of 400 are known, fewer than there are
        // dimensions.
        let std = Tensor::from_vec(&[3.0, 2.5, 2.0, 1.6, 1.3, 1.0, 0.8, 0.6], &[1, 8]).unwrap();
        let a = randn(&[400, 8]).mul(&std.to_dtype(DType::F64).unwrap()).unwrap();
        let (rotation, _, _) = randn(&[8, 8]).svd().unwrap();
        let b = a.matmul(&rotation).unwrap().add(&randn(&[400, 8]).mul_scalar(0.05).unwrap()).unwrap();
        let part = |x: &Tensor, start: i64, count: i64| x.narrow(0, start, count).unwrap();
        let order = Tensor::randperm(394, Device::Cpu).unwrap();
        let unpaired_b = part(&b, 6, 394).index_select(0, &order).unwrap();
        let error = |map: &Tensor| map.sub(&rotation).unwrap().abs().unwrap().max().unwrap().to_f64().unwrap();
        let few = procrustes(&part(&a, 0, 6), &part(&b, 0, 6)).unwrap();
        let known = [&part(&a, 0, 6), &part(&b, 0, 6)];
        let refined = iterative_procrustes(known, [&part(&a, 6, 394), &unpaired_b], 10, 20).unwrap();
        assert!(error(&few) > 0.2, "{}", error(&few));
        assert!(error(&refined.map) < 0.03 && refined.pairs > 350, "{} {refined:?}", error(&refined.map));
        assert!(iterative_procrustes(known, [&part(&a, 6, 394), &randn(&[5, 7])], 10, 20).is_err());
    }
}
