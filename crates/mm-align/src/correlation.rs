//! Projections of two sets of features (or more) into one space by their correlations: CCA (Hotelling 1936) with ridge (Vinod 1976),
//! partial least squares (Wold 1985), kernel CCA (Hardoon 2004), generalised CCA (MAXVAR, Kettenring 1971). Computed in float64.

use crate::{Error, Result};
use mm_core::{DType, Tensor};

/// What came of a fit: how each set goes into the common space.
#[derive(Debug, Clone)]
pub struct Projections {
    /// For each set its mean `[1, width]` and its map `[width, dim]`.
    pub sets: Vec<(Tensor, Tensor)>,
    /// What belongs to each dimension, largest first: canonical correlations of CCA, covariances of partial least squares, eigenvalues
    /// of the generalised kinds. `[dim]`.
    pub values: Tensor,
}

impl Projections {
    /// Features `[rows, width]` of set number `set` → `[rows, dim]`, float64.
    pub fn project(&self, set: usize, x: &Tensor) -> Result<Tensor> {
        let Some((mean, map)) = self.sets.get(set) else {
            return Err(wrong("project", format!("set {set}"), format!("0 to {}", self.sets.len().saturating_sub(1))));
        };
        let x = wide(x)?;
        if x.rank() != 2 || x.size(1)? != map.size(0)? {
            return Err(wrong("project", format!("{:?}", x.shape()), format!("[rows, {}]", map.size(0)?)));
        }
        Ok(x.sub(mean)?.matmul(map)?)
    }

    /// Each dimension multiplied by its value to a power: leading dimensions count more in a cosine (Gong 2014 takes 4 of eigenvalues).
    pub fn weighted(&self, power: f64) -> Result<Self> {
        let weights = self.values.clamp_min(0.0)?.pow(power)?;
        let sets =
            self.sets.iter().map(|(mean, map)| Ok((mean.clone(), map.mul(&weights)?))).collect::<Result<Vec<_>>>()?;
        Ok(Self { sets, values: self.values.clone() })
    }

    /// The first `dim` dimensions.
    pub fn narrowed(&self, dim: i64) -> Result<Self> {
        let dim = dim.clamp(1, self.values.size(0)?);
        let sets = self
            .sets
            .iter()
            .map(|(mean, map)| Ok((mean.clone(), map.narrow(1, 0, dim)?)))
            .collect::<Result<Vec<_>>>()?;
        Ok(Self { sets, values: self.values.narrow(0, 0, dim)? })
    }
}

pub(crate) fn wrong(what: &'static str, found: impl Into<String>, wanted: impl Into<String>) -> Error {
    Error::Features { what, found: found.into(), wanted: wanted.into() }
}

pub(crate) fn wide(x: &Tensor) -> Result<Tensor> {
    Ok(x.detach()?.to_dtype(DType::F64)?)
}

/// Sets whose rows belong together: as many rows each, at least two, every number finite.
pub(crate) fn check(what: &'static str, sets: &[&Tensor]) -> Result<i64> {
    let shapes = || sets.iter().map(|s| format!("{:?}", s.shape())).collect::<Vec<_>>().join(" and ");
    let first = sets.first().and_then(|s| s.size(0).ok()).unwrap_or(0);
    if sets.iter().any(|s| s.rank() != 2 || s.size(0).ok() != Some(first) || s.size(1).unwrap_or(0) == 0) || first < 2 {
        return Err(wrong(what, shapes(), "sets [rows, width] with as many rows each, at least two, and a width"));
    }
    for (number, set) in sets.iter().enumerate() {
        finite(what, number, set)?;
    }
    Ok(first)
}

/// Names the first number of a set that is none.
pub(crate) fn finite(what: &'static str, number: usize, set: &Tensor) -> Result<()> {
    if set.isfinite()?.to_dtype(DType::F32)?.min()?.to_f64()? > 0.5 {
        return Ok(());
    }
    let width = set.size(-1)?.max(1) as usize;
    let place = set.to_vec::<f64>()?.iter().position(|v| !v.is_finite()).unwrap_or(0);
    let name = (b'a' + number as u8) as char;
    let found =
        format!("a number that is infinite or none in set {name}, row {}, column {}", place / width, place % width);
    Err(wrong(what, found, "finite numbers; fill or drop such rows first"))
}

struct Centred {
    mean: Tensor,
    x: Tensor,
}

fn centre(x: &Tensor) -> Result<Centred> {
    let x = wide(x)?;
    let mean = x.mean_dims(&[0], true)?;
    Ok(Centred { x: x.sub(&mean)?, mean })
}

/// Covariance `[width, width]` of centred rows, its diagonal raised by `ridge` times its mean. (An absolute ridge would mean another
/// thing for each scale of features.)
fn covariance(x: &Tensor, ridge: f64) -> Result<Tensor> {
    let rows = (x.size(0)? - 1) as f64;
    let product = x.transpose(0, 1)?.matmul(x)?.mul_scalar(1.0 / rows)?;
    let level = product.diagonal()?.mean()?.to_f64()?;
    let width = x.size(1)?;
    Ok(product.add(&Tensor::eye(width, DType::F64, x.device())?.mul_scalar(ridge * level)?)?)
}

/// The map `[width, rank]` that makes a symmetric matrix the identity; directions without variance are left out, so that constant
/// columns and fewer rows than columns are ordinary cases.
fn whitening(covariance: &Tensor) -> Result<Tensor> {
    let (values, vectors) = covariance.eigh()?;
    let all = values.to_vec::<f64>()?;
    let largest = all.last().copied().unwrap_or(0.0).max(0.0);
    let least = largest * 1e-10 * all.len() as f64;
    let kept = all.iter().filter(|v| **v > least && **v > 0.0).count() as i64;
    if kept == 0 {
        return Err(wrong("correlation", "a set whose every column is constant", "columns that vary"));
    }
    let size = all.len() as i64;
    let values = values.narrow(0, size - kept, kept)?;
    Ok(vectors.narrow(1, size - kept, kept)?.mul(&values.rsqrt()?)?)
}

/// How many dimensions: what is asked for, or all there are; more than there are is an error that says how many.
fn dimensions(asked: Option<i64>, most: i64) -> Result<i64> {
    match asked {
        None => Ok(most),
        Some(dim) if (1..=most).contains(&dim) => Ok(dim),
        Some(dim) => Err(wrong("dim", dim.to_string(), format!("1 to {most}, the rank of these features"))),
    }
}

/// Regularised CCA of rows that belong together: `a` `[rows, width a]`, `b` `[rows, width b]`. The ridges are shares of each set's mean
/// variance; 0 is plain CCA. Projections have unit variance (of the ridged covariance) and `values` are the canonical correlations.
pub fn cca(a: &Tensor, b: &Tensor, dim: Option<i64>, ridge: [f64; 2]) -> Result<Projections> {
    check("cca", &[a, b])?;
    if ridge.iter().any(|r| r.is_nan() || *r < 0.0) {
        return Err(wrong("cca", format!("ridges {ridge:?}"), "numbers of at least 0"));
    }
    let (a, b) = (centre(a)?, centre(b)?);
    let rows = (a.x.size(0)? - 1) as f64;
    let (wa, wb) = (whitening(&covariance(&a.x, ridge[0])?)?, whitening(&covariance(&b.x, ridge[1])?)?);
    let cross = a.x.transpose(0, 1)?.matmul(&b.x)?.mul_scalar(1.0 / rows)?; // [width a, width b]
    let (u, s, vt) = wa.transpose(0, 1)?.matmul(&cross)?.matmul(&wb)?.svd()?;
    let dim = dimensions(dim, s.size(0)?)?;
    let left = wa.matmul(&u.narrow(1, 0, dim)?)?;
    let right = wb.matmul(&vt.narrow(0, 0, dim)?.transpose(0, 1)?)?;
    Ok(Projections { sets: vec![(a.mean, left), (b.mean, right)], values: s.narrow(0, 0, dim)? })
}

/// Partial least squares by one decomposition of the cross-covariance (PLS-SVD): directions of largest covariance, unit length each.
pub fn pls(a: &Tensor, b: &Tensor, dim: Option<i64>) -> Result<Projections> {
    check("pls", &[a, b])?;
    let (a, b) = (centre(a)?, centre(b)?);
    let rows = (a.x.size(0)? - 1) as f64;
    let (u, s, vt) = a.x.transpose(0, 1)?.matmul(&b.x)?.mul_scalar(1.0 / rows)?.svd()?;
    let dim = dimensions(dim, s.size(0)?)?;
    let left = u.narrow(1, 0, dim)?.contiguous()?;
    let right = vt.narrow(0, 0, dim)?.transpose(0, 1)?.contiguous()?;
    Ok(Projections { sets: vec![(a.mean, left), (b.mean, right)], values: s.narrow(0, 0, dim)? })
}

/// Generalised CCA (MAXVAR) of two sets or more: the common space is what all sets' whitened rows agree on. `values` are eigenvalues
/// between 0 and the number of sets. With class labels as a third set of ones and zeros it is three-view CCA (Gong 2014).
pub fn gcca(sets: &[&Tensor], dim: Option<i64>, ridge: f64) -> Result<Projections> {
    if sets.len() < 2 {
        return Err(wrong("gcca", format!("{} sets", sets.len()), "at least two"));
    }
    check("gcca", sets)?;
    let centred: Vec<Centred> = sets.iter().map(|s| centre(s)).collect::<Result<_>>()?;
    let rows = (centred[0].x.size(0)? - 1) as f64;
    let maps: Vec<Tensor> = centred.iter().map(|c| whitening(&covariance(&c.x, ridge)?)).collect::<Result<_>>()?;
    let white: Vec<Tensor> = centred.iter().zip(&maps).map(|(c, w)| Ok(c.x.matmul(w)?)).collect::<Result<_>>()?;
    let joined = Tensor::cat(&white.iter().collect::<Vec<_>>(), 1)?; // [rows, sum of ranks]
    let (values, vectors) = joined.transpose(0, 1)?.matmul(&joined)?.mul_scalar(1.0 / rows)?.eigh()?;
    let size = values.size(0)?;
    let dim = dimensions(
        dim,
        white.iter().map(|w| w.size(1)).collect::<mm_core::Result<Vec<_>>>()?.into_iter().min().unwrap_or(1),
    )?;
    let vectors = vectors.narrow(1, size - dim, dim)?.flip(&[1])?; // [sum of ranks, dim]
    let mut out = Vec::new();
    let mut from = 0;
    for (c, map) in centred.into_iter().zip(maps) {
        let rank = map.size(1)?;
        out.push((c.mean, map.matmul(&vectors.narrow(0, from, rank)?)?));
        from += rank;
    }
    Ok(Projections { sets: out, values: values.narrow(0, size - dim, dim)?.flip(&[0])? })
}

/// A kernel on pairs of rows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kernel {
    /// exp(−‖x − y‖² / (2 width²)).
    Gaussian {
        /// Its width.
        width: f64,
    },
    /// exp(−‖x − y‖ / width).
    Laplace {
        /// Its width.
        width: f64,
    },
    /// (x·y / columns + 1)^degree.
    Polynomial {
        /// Its degree.
        degree: f64,
    },
    /// x·y.
    Linear,
}

impl Kernel {
    /// `[rows of x, rows of y]`, differentiable.
    pub fn of(&self, x: &Tensor, y: &Tensor) -> Result<Tensor> {
        Ok(match self {
            Self::Gaussian { width } => squared_distances(x, y)?.mul_scalar(-0.5 / (width * width))?.exp()?,
            Self::Laplace { width } => {
                squared_distances(x, y)?.add_scalar(1e-12)?.sqrt()?.mul_scalar(-1.0 / width)?.exp()?
            }
            Self::Polynomial { degree } => {
                let columns = x.size(1)? as f64;
                x.matmul(&y.transpose(0, 1)?)?.mul_scalar(1.0 / columns)?.add_scalar(1.0)?.pow(*degree)?
            }
            Self::Linear => x.matmul(&y.transpose(0, 1)?)?,
        })
    }
}

/// ‖x − y‖² of all pairs `[rows of x, rows of y]`.
pub fn squared_distances(x: &Tensor, y: &Tensor) -> Result<Tensor> {
    let squares = |t: &Tensor| t.mul(t)?.sum_dims(&[1], true);
    let cross = x.matmul(&y.transpose(0, 1)?)?.mul_scalar(-2.0)?;
    Ok(cross.add(&squares(x)?)?.add(&squares(y)?.transpose(0, 1)?)?.clamp_min(0.0)?)
}

/// Kernel CCA: like [`Projections`], of rows compared with the training rows.
#[derive(Debug, Clone)]
pub struct KernelProjections {
    sides: [(Tensor, Kernel, Tensor); 2],
    /// Means of each side's kernel columns and of the whole, which centring takes off.
    centres: [(Tensor, f64); 2],
    /// The canonical correlations.
    pub values: Tensor,
}

/// Kernel CCA (Hardoon 2004). `ridge` is a share of each kernel's mean eigenvalue and must be positive: without it every pair of sets is
/// perfectly correlated. Memory and time grow with the square and the cube of the rows.
pub fn kernel_cca(
    a: &Tensor,
    b: &Tensor,
    kernels: [Kernel; 2],
    dim: Option<i64>,
    ridge: f64,
) -> Result<KernelProjections> {
    let rows = check("kernel_cca", &[a, b])?;
    if ridge.is_nan() || ridge <= 0.0 {
        return Err(wrong("kernel_cca", format!("a ridge of {ridge}"), "a positive number"));
    }
    let side = |x: &Tensor, kernel: Kernel| -> Result<(Tensor, (Tensor, f64))> {
        let x = wide(x)?;
        let k = kernel.of(&x, &x)?;
        let columns = k.mean_dims(&[0], true)?;
        let whole = columns.mean()?.to_f64()?;
        Ok((k.sub(&columns)?.sub(&columns.transpose(0, 1)?)?.add_scalar(whole)?, (columns, whole)))
    };
    let ((ka, ca), (kb, cb)) = (side(a, kernels[0])?, side(b, kernels[1])?);
    // Of each centred kernel its eigenvectors; a ridge on the eigenvalues is a ridge in the kernel's own space.
    let halves = |k: &Tensor| -> Result<(Tensor, Tensor)> {
        let (values, vectors) = k.eigh()?;
        let all = values.to_vec::<f64>()?;
        let largest = all.last().copied().unwrap_or(0.0);
        let kept = all.iter().filter(|v| **v > largest * 1e-9 && **v > 0.0).count() as i64;
        if kept == 0 {
            return Err(wrong("kernel_cca", "a set whose every row is alike", "rows that differ"));
        }
        Ok((values.narrow(0, rows - kept, kept)?, vectors.narrow(1, rows - kept, kept)?))
    };
    let ((sa, ua), (sb, ub)) = (halves(&ka)?, halves(&kb)?);
    let shrink = |s: &Tensor| -> Result<Tensor> {
        let level = ridge * s.sum()?.to_f64()? / rows as f64;
        Ok(s.div(&s.mul(s)?.add(&s.mul_scalar(level)?)?.sqrt()?)?) // s / √(s² + λ s)
    };
    let (ga, gb) = (shrink(&sa)?, shrink(&sb)?);
    let inner = ua.transpose(0, 1)?.matmul(&ub)?.mul(&gb)?.mul(&ga.unsqueeze(1)?)?;
    let (u, s, vt) = inner.svd()?;
    let dim = dimensions(dim, s.size(0)?)?;
    // Projection of a row: its kernel column · U · diag(g / s) · u.
    let back = |vectors: &Tensor, g: &Tensor, s: &Tensor, part: &Tensor| -> Result<Tensor> {
        Ok(vectors.mul(&g.div(s)?)?.matmul(part)?.mul_scalar((rows as f64).sqrt())?)
    };
    let left = back(&ua, &ga, &sa, &u.narrow(1, 0, dim)?)?;
    let right = back(&ub, &gb, &sb, &vt.narrow(0, 0, dim)?.transpose(0, 1)?)?;
    Ok(KernelProjections {
        sides: [(wide(a)?, kernels[0], left), (wide(b)?, kernels[1], right)],
        centres: [ca, cb],
        values: s.narrow(0, 0, dim)?,
    })
}

impl KernelProjections {
    /// The first `dim` dimensions; all where there are fewer.
    pub fn narrowed(mut self, dim: i64) -> Result<Self> {
        let dim = dim.clamp(1, self.values.size(0)?);
        for (_, _, map) in &mut self.sides {
            *map = map.narrow(1, 0, dim)?;
        }
        self.values = self.values.narrow(0, 0, dim)?;
        Ok(self)
    }

    /// Features `[rows, width]` of the first (0) or second (1) set → `[rows, dim]`, float64.
    pub fn project(&self, set: usize, x: &Tensor) -> Result<Tensor> {
        let ((train, kernel, map), (columns, whole)) = (&self.sides[set.min(1)], &self.centres[set.min(1)]);
        let k = kernel.of(&wide(x)?, train)?; // [rows, training rows]
        let centred = k.sub(&k.mean_dims(&[1], true)?)?.sub(columns)?.add_scalar(*whole)?;
        Ok(centred.matmul(map)?)
    }
}

/// The median distance between rows (of at most 1,000 of them, evenly taken), the usual width of a kernel.
pub fn median_distance(x: &Tensor) -> Result<f64> {
    let x = wide(x)?;
    let rows = x.size(0)?;
    let step = (rows / 1000).max(1);
    let some: Vec<i64> = (0..rows).step_by(step as usize).collect();
    let some = x.index_select(0, &Tensor::from_slice(&some)?.to_device(x.device())?)?;
    let all = squared_distances(&some, &some)?.to_vec::<f64>()?;
    let count = some.size(0)? as usize;
    let mut off: Vec<f64> =
        (0..count).flat_map(|i| (0..i).map(move |j| (i, j))).map(|(i, j)| all[i * count + j]).collect();
    if off.is_empty() {
        return Err(wrong("median_distance", "one row", "at least two"));
    }
    let middle = off.len() / 2;
    let (_, median, _) = off.select_nth_unstable_by(middle, f64::total_cmp);
    Ok(median.sqrt().max(1e-12))
}

/// Canonical correlation of two networks' outputs as a loss (deep CCA, Andrew 2013): minus the sum of the canonical correlations of a
/// batch, differentiable; `ridge` is added to each covariance's diagonal. Give it batches of several times the width.
pub fn deep_cca_loss(a: &Tensor, b: &Tensor, ridge: f64) -> Result<Tensor> {
    if a.rank() != 2 || a.size(0)? != b.size(0)? || a.size(0)? < 2 {
        return Err(wrong(
            "deep_cca_loss",
            format!("{:?} and {:?}", a.shape(), b.shape()),
            "two batches [rows, width]",
        ));
    }
    let rows = (a.size(0)? - 1) as f64;
    let level = |x: &Tensor| -> Result<Tensor> { Ok(x.sub(&x.mean_dims(&[0], true)?)?) };
    let (a, b) = (level(a)?, level(b)?);
    let root = |x: &Tensor| -> Result<Tensor> {
        let width = x.size(1)?;
        let eye = Tensor::eye(width, x.dtype()?, x.device())?.mul_scalar(ridge)?;
        Ok(x.transpose(0, 1)?.matmul(x)?.mul_scalar(1.0 / rows)?.add(&eye)?.cholesky()?)
    };
    let (la, lb) = (root(&a)?, root(&b)?);
    let cross = a.transpose(0, 1)?.matmul(&b)?.mul_scalar(1.0 / rows)?;
    // T = La⁻¹ C Lb⁻ᵀ; the sum of its singular values is the trace of the root of TᵀT.
    let half = la.solve_triangular(&cross, false)?; // La⁻¹ C
    let t = lb.solve_triangular(&half.transpose(0, 1)?, false)?; // (La⁻¹ C Lb⁻ᵀ)ᵀ
    let (_, s, _) = t.svd()?;
    Ok(s.sum()?.neg()?)
}

/// The orthogonal map `[width, width]` that brings `a` nearest to `b` (orthogonal Procrustes, Schönemann 1966): `a · map ≈ b`.
pub fn procrustes(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    check("procrustes", &[a, b])?;
    if a.size(1)? != b.size(1)? {
        let found = format!("{:?} and {:?}", a.shape(), b.shape());
        return Err(wrong("procrustes", found, "sets of one width (project both by principal components first)"));
    }
    let (u, _, vt) = wide(a)?.transpose(0, 1)?.matmul(&wide(b)?)?.svd()?;
    Ok(u.matmul(&vt)?)
}

/// What [`procrustes_from_few`] found.
#[derive(Debug)]
pub struct Grown {
    /// The orthogonal map `[width, width]`.
    pub map: Tensor,
    /// Pairs that it was fitted on in the end, the known ones among them.
    pub pairs: usize,
    /// Rounds made.
    pub rounds: usize,
}

/// The orthogonal map between two sets of which only some rows are known to be pairs (MUSE, Conneau 2018): fitted on those, it says which
/// rows of the loose heaps are each other's nearest by cross-domain similarity, these join the pairs, and so on until nothing changes.
/// `a` and `b` are known pairs, `loose_a` and `loose_b` rows in any order, of any number; all of one width and centred (project them by
/// principal components first).
pub fn procrustes_from_few(
    [a, b]: [&Tensor; 2],
    [loose_a, loose_b]: [&Tensor; 2],
    neighbours: i64,
    rounds: usize,
) -> Result<Grown> {
    check("procrustes_from_few", &[a, b])?;
    let width = a.size(1)?;
    if [b, loose_a, loose_b].iter().any(|x| x.rank() != 2 || x.size(1).ok() != Some(width)) {
        let found = [a, b, loose_a, loose_b].map(|x| format!("{:?}", x.shape())).join(", ");
        return Err(wrong("procrustes_from_few", found, "sets of one width"));
    }
    // Lengths say how usual a row is, not where it lies.
    let unit = |x: &Tensor| -> Result<Tensor> { Ok(wide(x)?.normalize()?) };
    let (a, b, loose_a, loose_b) = (unit(a)?, unit(b)?, unit(loose_a)?, unit(loose_b)?);
    let mut map = procrustes(&a, &b)?;
    let (mut before, mut made) = (Vec::new(), 0);
    while made < rounds && loose_a.size(0)? > 0 && loose_b.size(0)? > 0 {
        let cosines = loose_a.matmul(&map)?.matmul(&loose_b.transpose(0, 1)?)?;
        let near = crate::transport::csls(&cosines, neighbours)?;
        let forth: Vec<i64> = near.argmax(1)?.to_vec()?;
        let back: Vec<i64> = near.argmax(0)?.to_vec()?;
        let mutual: Vec<(i64, i64)> =
            (0..).zip(&forth).filter(|(i, j)| back[**j as usize] == *i).map(|(i, j)| (i, *j)).collect();
        made += 1;
        if mutual == before {
            break;
        }
        let pick =
            |x: &Tensor, places: Vec<i64>| x.index_select(0, &Tensor::from_slice(&places)?.to_device(x.device())?);
        let more_a = pick(&loose_a, mutual.iter().map(|p| p.0).collect())?;
        let more_b = pick(&loose_b, mutual.iter().map(|p| p.1).collect())?;
        map = procrustes(&Tensor::cat(&[&a, &more_a], 0)?, &Tensor::cat(&[&b, &more_b], 0)?)?;
        before = mutual;
    }
    Ok(Grown { map, pairs: a.size(0)? as usize + before.len(), rounds: made })
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm_core::{Device, seed::manual_seed};
    use proptest::prelude::*;

    #[test]
    fn a_few_pairs_grow_into_the_map_that_all_would_have_given() {
        manual_seed(3);
        // Directions of unequal strength, turned, with noise: six pairs of 400 are known, fewer than there are directions.
        let strength = Tensor::from_vec(&[3.0, 2.5, 2.0, 1.6, 1.3, 1.0, 0.8, 0.6], &[1, 8]).unwrap();
        let a = randn(&[400, 8]).mul(&strength.to_dtype(DType::F64).unwrap()).unwrap();
        let (turn, _, _) = randn(&[8, 8]).svd().unwrap();
        let b = a.matmul(&turn).unwrap().add(&randn(&[400, 8]).mul_scalar(0.05).unwrap()).unwrap();
        let part = |x: &Tensor, from: i64, count: i64| x.narrow(0, from, count).unwrap();
        let order = Tensor::randperm(394, Device::Cpu).unwrap();
        let loose_b = part(&b, 6, 394).index_select(0, &order).unwrap();
        let apart = |map: &Tensor| map.sub(&turn).unwrap().abs().unwrap().max().unwrap().to_f64().unwrap();
        let few = procrustes(&part(&a, 0, 6), &part(&b, 0, 6)).unwrap();
        let known = [&part(&a, 0, 6), &part(&b, 0, 6)];
        let grown = procrustes_from_few(known, [&part(&a, 6, 394), &loose_b], 10, 20).unwrap();
        assert!(apart(&few) > 0.2, "{}", apart(&few));
        assert!(apart(&grown.map) < 0.03 && grown.pairs > 350, "{} {grown:?}", apart(&grown.map));
        assert!(procrustes_from_few(known, [&part(&a, 6, 394), &randn(&[5, 7])], 10, 20).is_err());
    }

    fn randn(shape: &[i64]) -> Tensor {
        Tensor::randn(shape, DType::F64, Device::Cpu).unwrap()
    }

    fn numbers(x: &Tensor) -> Vec<f64> {
        x.to_vec().unwrap()
    }

    fn pair(rows: i64) -> (Tensor, Tensor) {
        let hidden = randn(&[rows, 2]);
        let noisy = |width: i64| {
            hidden.matmul(&randn(&[2, width])).unwrap().add(&randn(&[rows, width]).mul_scalar(0.5).unwrap()).unwrap()
        };
        (noisy(5), noisy(4))
    }

    #[test]
    fn canonical_variables_have_unit_variance_and_correlate_by_their_values() {
        manual_seed(1);
        let (a, b) = pair(200);
        let fit = cca(&a, &b, None, [0.0; 2]).unwrap();
        let (x, y) = (fit.project(0, &a).unwrap(), fit.project(1, &b).unwrap());
        let cross = numbers(&x.transpose(0, 1).unwrap().matmul(&y).unwrap().mul_scalar(1.0 / 199.0).unwrap());
        let own = numbers(&x.transpose(0, 1).unwrap().matmul(&x).unwrap().mul_scalar(1.0 / 199.0).unwrap());
        let values = numbers(&fit.values);
        for i in 0..4 {
            for j in 0..4 {
                let (want_cross, want_own) = if i == j { (values[i], 1.0) } else { (0.0, 0.0) };
                assert!((cross[i * 4 + j] - want_cross).abs() < 1e-8 && (own[i * 4 + j] - want_own).abs() < 1e-8);
            }
        }
        assert!(values[0] > 0.9 && values[3] < 0.5);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn correlations_do_not_change_under_invertible_maps(seed in 0u64..1000) {
            manual_seed(seed);
            let (a, b) = pair(60);
            let turned = a.matmul(&randn(&[5, 5])).unwrap().add_scalar(3.0).unwrap();
            let (x, y) = (cca(&a, &b, None, [0.0; 2]).unwrap(), cca(&turned, &b, None, [0.0; 2]).unwrap());
            for (p, q) in numbers(&x.values).iter().zip(numbers(&y.values)) {
                prop_assert!((p - q).abs() < 1e-6);
            }
            // Of two sets MAXVAR's eigenvalues are one plus the correlations.
            let both = gcca(&[&a, &b], Some(3), 0.0).unwrap();
            for (p, q) in numbers(&x.values).iter().zip(numbers(&both.values)) {
                prop_assert!((1.0 + p - q).abs() < 1e-6);
            }
        }
    }

    #[test]
    fn a_linear_kernel_is_plain_ridged_cca_and_new_rows_go_the_same_way() {
        manual_seed(3);
        let (a, b) = pair(80);
        let kernel = kernel_cca(&a, &b, [Kernel::Linear; 2], Some(3), 1e-9).unwrap();
        let plain = cca(&a, &b, Some(3), [0.0; 2]).unwrap();
        for (p, q) in numbers(&kernel.values).iter().zip(numbers(&plain.values)) {
            assert!((p - q).abs() < 1e-4, "{p} {q}");
        }
        let (x, y) = (kernel.project(0, &a).unwrap(), plain.project(0, &a).unwrap());
        let correlation = |i: i64| {
            let (u, v) = (x.select(1, i).unwrap(), y.select(1, i).unwrap());
            let dot = u.mul(&v).unwrap().sum().unwrap().to_f64().unwrap();
            dot / (u.norm_all().unwrap().to_f64().unwrap() * v.norm_all().unwrap().to_f64().unwrap())
        };
        assert!((0..3).all(|i| correlation(i).abs() > 0.999));
    }

    #[test]
    fn odd_sets_are_ordinary_or_named() {
        manual_seed(4);
        let (a, b) = pair(30);
        // A constant column, a column twice, fewer rows than columns: directions without variance are left out.
        let constant = Tensor::cat(
            &[&a, &Tensor::ones(&[30, 1], DType::F64, Device::Cpu).unwrap(), &a.narrow(1, 0, 1).unwrap()],
            1,
        )
        .unwrap();
        let (x, y) = (cca(&a, &b, None, [0.0; 2]).unwrap(), cca(&constant, &b, None, [0.0; 2]).unwrap());
        assert!(numbers(&x.values).iter().zip(numbers(&y.values)).all(|(p, q)| (p - q).abs() < 1e-6));
        assert!(cca(&randn(&[5, 9]), &randn(&[5, 7]), None, [0.1; 2]).is_ok());
        let text = |r: Result<Projections>| r.unwrap_err().to_string();
        assert!(text(cca(&a, &b, Some(5), [0.0; 2])).contains("1 to 4"));
        assert!(text(cca(&a, &randn(&[29, 3]), None, [0.0; 2])).contains("[29, 3]"));
        assert!(text(cca(&randn(&[1, 3]), &randn(&[1, 3]), None, [0.0; 2])).contains("at least two"));
        assert!(
            text(cca(&Tensor::ones(&[9, 2], DType::F64, Device::Cpu).unwrap(), &randn(&[9, 2]), None, [0.0; 2]))
                .contains("constant")
        );
        let broken = a
            .masked_fill(&Tensor::eye(30, DType::Bool, Device::Cpu).unwrap().narrow(1, 7, 5).unwrap(), f64::NAN)
            .unwrap();
        assert!(text(cca(&b, &broken, None, [0.0; 2])).contains("set b, row 7, column 0"));
    }

    #[test]
    fn deep_cca_is_the_negated_sum_and_has_the_right_gradient() {
        manual_seed(5);
        let (a, b) = pair(40);
        let a = a.set_requires_grad(true).unwrap();
        let loss = deep_cca_loss(&a, &b, 0.0).unwrap();
        let sum: f64 = numbers(&cca(&a, &b, None, [0.0; 2]).unwrap().values).iter().sum();
        assert!((loss.to_f64().unwrap() + sum).abs() < 1e-8);
        loss.backward().unwrap();
        let grad = numbers(&a.grad().unwrap());
        let base = numbers(&a);
        for place in [0, 17, 101] {
            let moved = |by: f64| {
                let mut values = base.clone();
                values[place] += by;
                let x = Tensor::from_vec(&values, &[40, 5]).unwrap();
                deep_cca_loss(&x, &b, 0.0).unwrap().to_f64().unwrap()
            };
            let slope = (moved(1e-5) - moved(-1e-5)) / 2e-5;
            assert!((slope - grad[place]).abs() < 1e-6, "{slope} {}", grad[place]);
        }
    }

    #[test]
    fn procrustes_finds_a_turn() {
        manual_seed(6);
        let (u, _, _) = randn(&[4, 4]).svd().unwrap();
        let a = randn(&[20, 4]);
        let map = procrustes(&a, &a.matmul(&u).unwrap()).unwrap();
        assert!(map.sub(&u).unwrap().abs().unwrap().max().unwrap().to_f64().unwrap() < 1e-9);
        assert!((median_distance(&Tensor::from_vec(&[0f64, 3.0, 7.0], &[3, 1]).unwrap()).unwrap() - 4.0).abs() < 1e-9);
    }
}
