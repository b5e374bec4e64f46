//! The alignment method `template_name`: reduced-rank regression of the second modality on the first.
//!
//! A program registers [`TemplateName`]; `mm align --method template_name` then fits it.
//!
//! *Reduced-rank regression for the multivariate linear model* (Izenman, 1975),
//! <https://doi.org/10.1016/0047-259X(75)90042-1>.

use mm_align::{Alignment, AlignmentMethod, FitOptions, PairedFeatures, Projection, Result};
use mm_core::{DType, Error, Tensor};

/// The map of the first modality onto the second by ridge regression, restricted to the directions in which its predictions
/// vary most; both modalities are projected onto these directions.
pub struct TemplateName;

impl AlignmentMethod for TemplateName {
    fn name(&self) -> &'static str {
        "template_name"
    }

    fn description(&self) -> &'static str {
        "reduced-rank regression of the second modality on the first (Izenman 1975)"
    }

    fn regularization_grid(&self) -> &[f64] {
        &[1e-3, 1e-1, 1.0]
    }

    fn fit(&self, pairs: &PairedFeatures, options: &FitOptions) -> Result<Alignment> {
        let (a, b) = (&pairs.a, &pairs.b);
        if pairs.rows()? < 2 {
            return Err(Error::config("template_name", format!("{} pairs", pairs.rows()?), "at least two").into());
        }
        let (mean_a, mean_b) = (a.mean_dim(&[0], true)?, b.mean_dim(&[0], true)?);
        let (x, y) = (a.sub(&mean_a)?, b.sub(&mean_b)?);
        let transposed = x.transpose(0, 1)?;
        let gram = transposed.matmul(&x)?; // [dim a, dim a]
        // The regularization is a multiple of the mean square of a column, so that it means the same at every scale.
        let ridge = options.regularization.max(1e-9) * gram.diagonal()?.mean()?.to_f64()?.max(1e-12);
        let penalty = Tensor::eye(x.size(1)?, DType::F64, x.device())?.mul_scalar(ridge)?;
        let map = gram.add(&penalty)?.solve(&transposed.matmul(&y)?)?; // [dim a, dim b]
        let predicted = x.matmul(&map)?;
        // Eigenvalues ascend: the last columns are the directions in which predictions vary most.
        let (_, directions) = predicted.transpose(0, 1)?.matmul(&predicted)?.eigh()?; // [dim b, dim b]
        let (all, rank) = (b.size(1)?, a.size(1)?.min(b.size(1)?));
        let dim = options.dim.unwrap_or(rank);
        if !(1..=rank).contains(&dim) {
            return Err(Error::config("dim", dim, format!("1 to {rank}")).into());
        }
        let directions = directions.narrow(1, all - dim, dim)?.flip(&[1])?; // [dim b, dim]
        let alignment = Alignment::new(
            Projection::affine(mean_a, map.matmul(&directions)?),
            Projection::affine(mean_b, directions),
            dim,
        );
        Ok(Alignment { sorted: true, ..alignment })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm_align::alignment_methods;
    use mm_core::{Device, seed::manual_seed};

    fn random(shape: &[i64]) -> Tensor {
        Tensor::randn(shape, DType::F64, Device::Cpu).unwrap()
    }

    /// Pairs of two views of a latent vector of three dimensions, with noise.
    fn pairs(rows: i64, mixing: &[Tensor; 2]) -> PairedFeatures {
        let latent = random(&[rows, 3]);
        let [a, b] = mixing.each_ref().map(|mixing| {
            let noise = random(&[rows, mixing.size(1).unwrap()]).mul_scalar(0.1).unwrap();
            latent.matmul(mixing).unwrap().add(&noise).unwrap()
        });
        PairedFeatures::new(&a, &b).unwrap()
    }

    /// The share of rows of the first modality whose nearest row of the second, by cosine, is their own.
    fn recall_at_1(a: &Tensor, b: &Tensor) -> f64 {
        let cosines = a.normalize().unwrap().matmul(&b.normalize().unwrap().transpose(0, 1).unwrap()).unwrap();
        let nearest = cosines.argmax(1).unwrap().to_vec::<i64>().unwrap();
        nearest.iter().enumerate().filter(|(row, found)| *row as i64 == **found).count() as f64 / nearest.len() as f64
    }

    #[test]
    fn held_out_pairs_are_found_in_the_common_space_and_not_without_it() {
        manual_seed(4);
        let mixing = [random(&[3, 8]), random(&[3, 8])];
        let (train, test) = (pairs(200, &mixing), pairs(50, &mixing));
        let mut methods = alignment_methods();
        methods.register(TemplateName);
        let options = FitOptions { dim: Some(3), regularization: 1e-3, seed: 0 };
        let fitted = methods.get("template_name").unwrap().fit(&train, &options).unwrap();
        let projected = (fitted.project_a.apply(&test.a).unwrap(), fitted.project_b.apply(&test.b).unwrap());
        assert_eq!((projected.0.shape(), projected.1.shape()), (vec![50, 3], vec![50, 3]));
        let (found, raw) = (recall_at_1(&projected.0, &projected.1), recall_at_1(&test.a, &test.b));
        assert!(found > 0.6 && raw < 0.3, "{found} against {raw} without a common space");
    }

    #[test]
    fn dimensions_are_sorted_and_wrong_ones_are_errors() {
        manual_seed(5);
        let mixing = [random(&[3, 6]), random(&[3, 5])];
        let train = pairs(100, &mixing);
        let fit = |dim| TemplateName.fit(&train, &FitOptions { dim, regularization: 0.1, seed: 0 });
        let (whole, two) = (fit(None).unwrap(), fit(Some(2)).unwrap());
        assert_eq!(whole.dim, 5);
        let truncated = whole.truncate(2).unwrap().project_b.apply(&train.b).unwrap();
        let difference = truncated.sub(&two.project_b.apply(&train.b).unwrap()).unwrap().abs().unwrap();
        assert!(difference.max().unwrap().to_f64().unwrap() < 1e-8);
        assert!(fit(Some(6)).map(drop).unwrap_err().to_string().contains("1 to 5"));
    }
}
