//! Generalized CCA of two or more sets, and three-view CCA with labels.

use super::{
    Projections,
    linalg::{Centered, covariance, resolve_dim, whitening},
};
use crate::{
    Result,
    checks::{check_paired, invalid},
    method::{Alignment, AlignmentMethod, FitOptions, PairedFeatures, Requirements},
};
use mm_core::{DType, Tensor};

/// Generalized CCA (MAXVAR) of two or more paired sets `[rows, dim of the set]`: the shared space consists of the
/// leading left singular vectors of the concatenated whitened sets. `values` are eigenvalues between 0 and the number
/// of sets; `ridge` is a multiple of each set's mean variance.
///
/// From *Canonical Analysis of Several Sets of Variables* (Kettenring, 1971,
/// <https://doi.org/10.1093/biomet/58.3.433>).
///
/// # Errors
/// With fewer than two sets, when they are not paired or not finite, or `dim` exceeds the smallest rank.
pub fn gcca(sets: &[&Tensor], dim: Option<i64>, ridge: f64) -> Result<Projections> {
    if sets.len() < 2 {
        return Err(invalid("gcca", format!("{} sets", sets.len()), "at least two"));
    }
    check_paired("gcca", sets)?;
    let centered: Vec<Centered> = sets.iter().map(|s| Centered::new(s)).collect::<Result<_>>()?;
    let rows = (centered[0].x.size(0)? - 1) as f64;
    let maps: Vec<Tensor> = centered.iter().map(|c| whitening(&covariance(&c.x, ridge)?)).collect::<Result<_>>()?;
    let white: Vec<Tensor> = centered.iter().zip(&maps).map(|(c, w)| Ok(c.x.matmul(w)?)).collect::<Result<_>>()?;
    let joined = Tensor::cat(&white.iter().collect::<Vec<_>>(), 1)?; // [rows, sum of ranks]
    let (values, vectors) = joined.transpose(0, 1)?.matmul(&joined)?.mul_scalar(1.0 / rows)?.eigh()?;
    let size = values.size(0)?;
    let ranks = white.iter().map(|w| w.size(1)).collect::<mm_core::Result<Vec<_>>>()?;
    let dim = resolve_dim(dim, ranks.into_iter().min().unwrap_or(1))?;
    let vectors = vectors.narrow(1, size - dim, dim)?.flip(&[1])?; // [sum of ranks, dim]
    let mut projected = Vec::new();
    let mut start = 0;
    for (c, map) in centered.into_iter().zip(maps) {
        let rank = map.size(1)?;
        projected.push((c.mean, map.matmul(&vectors.narrow(0, start, rank)?)?));
        start += rank;
    }
    Ok(Projections { sets: projected, values: values.narrow(0, size - dim, dim)?.flip(&[0])? })
}

/// The method `three_view_cca`: [`gcca`] with one-hot labels as the third set.
///
/// From *A Multi-View Embedding Space for Modeling Internet Images, Tags, and their Semantics* (Gong et al., 2014,
/// <https://arxiv.org/abs/1212.4522>).
pub struct ThreeViewCca;

impl AlignmentMethod for ThreeViewCca {
    fn name(&self) -> &'static str {
        "three_view_cca"
    }

    fn description(&self) -> &'static str {
        "three-view CCA with the labels as third set (Gong et al. 2014); needs labels"
    }

    fn requirements(&self) -> Requirements {
        Requirements { labels: true, ..Requirements::default() }
    }

    fn regularization_grid(&self) -> &[f64] {
        &[1e-4, 1e-3, 1e-2, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0]
    }

    fn fit(&self, pairs: &PairedFeatures, options: &FitOptions) -> Result<Alignment> {
        let classes = pairs.num_classes();
        let one_hot = Tensor::from_slice(pairs.labels()?)?.one_hot(classes)?.to_dtype(DType::F64)?;
        let dim = options.dim.unwrap_or((classes - 1).max(1));
        let fit = gcca(&[&pairs.a, &pairs.b, &one_hot], Some(dim), options.regularization)?;
        fit.scale_by_values(2.0)?.into_alignment()
    }
}
