//! What a learned representation is held against: principal components, logistic regression on frozen vectors, ridge regression.

use crate::{Error, Result};
use mm_align::supervised::LogisticRegression;
use mm_core::{DType, Tensor, seed::Rng};

/// Principal components (Hotelling 1933) of rows.
pub struct Pca {
    mean: Tensor,
    /// `[components, width]`, each of unit length.
    components: Tensor,
    /// Variance along each component, and what is left on average along every other direction.
    variances: Tensor,
    rest: f64,
}

impl Pca {
    /// The `most` components (fewer where the rows have fewer) of `[rows, width]`.
    pub fn fit(x: &Tensor, most: i64) -> Result<Self> {
        let (rows, width) = (x.size(0)?, x.size(1)?);
        let mean = x.mean_dim(&[0], true)?;
        let centred = x.sub(&mean)?.to_dtype(DType::F64)?;
        let keep = most.min(width).min(rows - 1).max(1);
        // The smaller of the two products has the same eigenvalues.
        let by_width = width <= rows;
        let product = if by_width {
            centred.transpose(0, 1)?.matmul(&centred)?
        } else {
            centred.matmul(&centred.transpose(0, 1)?)?
        };
        let (values, vectors) = product.eigh()?;
        let size = values.size(0)?;
        let values = values.flip(&[0])?.clamp_min(0.0)?;
        let vectors = vectors.narrow(1, size - keep, keep)?.flip(&[1])?.transpose(0, 1)?; // [keep, size]
        let components = if by_width { vectors } else { vectors.matmul(&centred)?.normalize()? };
        let kept = values.narrow(0, 0, keep)?;
        let count = (rows - 1).max(1) as f64;
        let left = (values.sum()?.to_f64()? - kept.sum()?.to_f64()?).max(0.0);
        Ok(Self {
            mean,
            components: components.to_dtype(DType::F32)?,
            variances: kept.mul_scalar(1.0 / count)?.to_dtype(DType::F32)?,
            rest: left / count / (width - keep).max(1) as f64,
        })
    }

    /// `[rows, width]` → `[rows, components]`.
    pub fn project(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.sub(&self.mean)?.matmul(&self.components.transpose(0, 1)?)?)
    }

    /// And back.
    pub fn restore(&self, code: &Tensor) -> Result<Tensor> {
        Ok(code.matmul(&self.components)?.add(&self.mean)?)
    }

    /// What is likeliest where `seen` (`[rows, width]`, 1 or 0) is 0, given the rest (probabilistic components, Tipping 1999).
    pub fn fill(&self, x: &Tensor, seen: &Tensor) -> Result<Tensor> {
        let noise = self.rest.max(1e-6);
        let prior = self.variances.add_scalar(1e-9)?.pow(-1.0)?.mul_scalar(noise)?;
        let prior = Tensor::eye(prior.size(0)?, DType::F32, x.device())?.mul(&prior)?; // [components, components]
        let mut out = Vec::new();
        for row in 0..x.size(0)? {
            let mask = seen.select(0, row)?; // [width]
            let off = x.select(0, row)?.sub(&self.mean.squeeze(0)?)?.mul(&mask)?;
            let masked = self.components.mul(&mask)?;
            let left = masked.matmul(&self.components.transpose(0, 1)?)?.add(&prior)?;
            let code = left.solve(&masked.matmul(&off.unsqueeze(1)?)?)?; // [components, 1]
            out.push(self.restore(&code.transpose(0, 1)?)?);
        }
        Ok(Tensor::cat(&out.iter().collect::<Vec<_>>(), 0)?)
    }
}

/// Rows for fitting and for choosing among settings: a seeded fifth is for choosing.
fn inner_split(rows: i64) -> Result<(Tensor, Tensor)> {
    let mut order: Vec<i64> = (0..rows).collect();
    Rng::new(&[11, rows as u64]).shuffle(&mut order);
    let (choose, fit) = order.split_at((rows as usize / 5).max(1));
    Ok((Tensor::from_slice(fit)?, Tensor::from_slice(choose)?))
}

/// Multinomial logistic regression, its penalty chosen on a fifth of the training rows. Predicted classes `[test rows]`.
pub fn probe(train: &Tensor, labels: &[i64], test: &Tensor, classes: i64) -> Result<Vec<i64>> {
    if labels.len() < 5 || labels.len() as i64 != train.size(0)? {
        let found = format!("{} labels for {:?}", labels.len(), train.shape());
        return Err(Error::Config(format!("a probe: found {found}, wanted a label a row and at least five rows")));
    }
    let (fit, choose) = inner_split(train.size(0)?)?;
    let of = |places: &Tensor| -> Result<Vec<i64>> {
        Ok(places.to_vec::<i64>()?.into_iter().map(|p| labels[p as usize]).collect())
    };
    let (inner, held) = (train.index_select(0, &fit)?, train.index_select(0, &choose)?);
    let (truth, wanted) = (of(&fit)?, of(&choose)?);
    let mut best = (-1.0, 0.0);
    for penalty in [1e-4, 1e-3, 1e-2, 1e-1] {
        let right = accuracy(&LogisticRegression::fit(&inner, &truth, classes, penalty)?.predict(&held)?, &wanted);
        if right > best.0 {
            best = (right, penalty);
        }
    }
    Ok(LogisticRegression::fit(train, labels, classes, best.1)?.predict(test)?)
}

/// Share of predictions that are right.
pub fn accuracy(predicted: &[i64], labels: &[i64]) -> f64 {
    predicted.iter().zip(labels).filter(|(p, l)| p == l).count() as f64 / labels.len().max(1) as f64
}

/// Share of test rows that have the most frequent training label.
pub fn majority(labels: &[i64], test: &[i64], classes: i64) -> f64 {
    let count = |c: i64| labels.iter().filter(|l| **l == c).count();
    let most = (0..classes).max_by_key(|c| count(*c)).unwrap_or(0);
    test.iter().filter(|l| **l == most).count() as f64 / test.len().max(1) as f64
}

/// Ridge regression of `[rows, outputs]` on `[rows, inputs]`, its penalty chosen on a fifth of the rows; predictions for `test`.
pub fn ridge(x: &Tensor, y: &Tensor, test: &Tensor) -> Result<Tensor> {
    let (fit, choose) = inner_split(x.size(0)?)?;
    let pick = |t: &Tensor, places: &Tensor| t.index_select(0, places);
    let mut best = (f64::INFINITY, 1.0);
    for penalty in [1e-2, 1e-1, 1.0, 1e1, 1e2, 1e3, 1e4] {
        let guess = ridge_at(&pick(x, &fit)?, &pick(y, &fit)?, &pick(x, &choose)?, penalty)?;
        let error = guess.sub(&pick(y, &choose)?)?.pow(2.0)?.mean()?.to_f64()?;
        if error < best.0 {
            best = (error, penalty);
        }
    }
    ridge_at(x, y, test, best.1)
}

fn ridge_at(x: &Tensor, y: &Tensor, test: &Tensor, penalty: f64) -> Result<Tensor> {
    let wide = |t: &Tensor| t.to_dtype(DType::F64);
    let (mx, my) = (wide(x)?.mean_dim(&[0], true)?, wide(y)?.mean_dim(&[0], true)?);
    let (cx, cy) = (wide(x)?.sub(&mx)?, wide(y)?.sub(&my)?);
    let turned = cx.transpose(0, 1)?;
    let eye = Tensor::eye(cx.size(1)?, DType::F64, cx.device())?.mul_scalar(penalty)?;
    let weights = turned.matmul(&cx)?.add(&eye)?.solve(&turned.matmul(&cy)?)?;
    Ok(wide(test)?.sub(&mx)?.matmul(&weights)?.add(&my)?.to_dtype(DType::F32)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm_core::{Device, seed::manual_seed};

    #[test]
    fn components_of_rows_on_a_plane_restore_them_and_fill_what_is_hidden() {
        manual_seed(2);
        let plane = Tensor::randn(&[2, 7], DType::F32, Device::Cpu).unwrap();
        for rows in [5i64, 50] {
            let x = Tensor::randn(&[rows, 2], DType::F32, Device::Cpu).unwrap().matmul(&plane).unwrap();
            let x = x.add_scalar(3.0).unwrap();
            let pca = Pca::fit(&x, 2).unwrap();
            let worst = |y: &Tensor| y.sub(&x).unwrap().abs().unwrap().max().unwrap().to_f64().unwrap();
            assert!(worst(&pca.restore(&pca.project(&x).unwrap()).unwrap()) < 1e-3);
            let seen = Tensor::from_slice(&[1f32, 1.0, 0.0, 1.0, 0.0, 1.0, 1.0]).unwrap().expand(&[rows, 7]).unwrap();
            assert!(worst(&pca.fill(&x.mul(&seen).unwrap(), &seen).unwrap()) < 0.05);
        }
    }

    #[test]
    fn a_probe_reads_what_is_linear_and_ridge_finds_the_map() {
        manual_seed(4);
        let x = Tensor::randn(&[300, 6], DType::F32, Device::Cpu).unwrap();
        let labels: Vec<i64> = x.to_vec::<f32>().unwrap().chunks(6).map(|r| i64::from(r[1] + r[2] > 0.3)).collect();
        let found = probe(&x.narrow(0, 0, 200).unwrap(), &labels[..200], &x.narrow(0, 200, 100).unwrap(), 2).unwrap();
        assert!(accuracy(&found, &labels[200..]) > 0.9);
        let map = Tensor::randn(&[6, 3], DType::F32, Device::Cpu).unwrap();
        let y = x.matmul(&map).unwrap().add_scalar(2.0).unwrap();
        let guess = ridge(&x, &y, &x).unwrap();
        assert!(guess.sub(&y).unwrap().abs().unwrap().max().unwrap().to_f64().unwrap() < 0.01);
        assert!((majority(&[0, 1, 1], &[1, 0, 1, 1], 2) - 0.75).abs() < 1e-9);
    }
}
