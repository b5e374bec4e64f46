//! Semantic matching: both modalities are mapped to class probabilities.
//!
//! From *A New Approach to Cross-Modal Multimedia Retrieval* (Rasiwasia et al., 2010,
//! <https://doi.org/10.1145/1873951.1873987>).

use super::LogisticRegression;
use crate::{
    Result,
    correlation::cca,
    method::{Alignment, AlignmentMethod, FitOptions, PairedFeatures, Projection, Requirements, Transform},
};
use mm_core::Tensor;

/// Square roots of class probabilities: their dot product is the Bhattacharyya coefficient, so a cosine compares
/// distributions.
struct ClassPosterior(LogisticRegression);

impl Transform for ClassPosterior {
    fn apply(&self, x: &Tensor) -> Result<Tensor> {
        Ok(self.0.predict_proba(x)?.sqrt()?)
    }
}

/// The method `semantic_matching`: class probabilities by a logistic regression on each modality's features; the
/// regularization is its L2 penalty.
pub struct SemanticMatching;

impl AlignmentMethod for SemanticMatching {
    fn name(&self) -> &'static str {
        "semantic_matching"
    }

    fn description(&self) -> &'static str {
        "semantic matching: class probabilities by logistic regression (Rasiwasia et al. 2010); needs labels"
    }

    fn requirements(&self) -> Requirements {
        Requirements { labels: true, ..Requirements::default() }
    }

    fn regularization_grid(&self) -> &[f64] {
        &[1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3]
    }

    fn fit(&self, pairs: &PairedFeatures, options: &FitOptions) -> Result<Alignment> {
        let (labels, classes) = (pairs.labels()?, pairs.num_classes());
        let posterior = |x: &Tensor| -> Result<ClassPosterior> {
            Ok(ClassPosterior(LogisticRegression::fit(x, labels, classes, options.regularization)?))
        };
        let (a, b) = (posterior(&pairs.a)?, posterior(&pairs.b)?);
        Ok(Alignment::new(Projection::new(a), Projection::new(b), classes))
    }
}

/// L2 penalty of the logistic regressions on canonical variables.
const SCM_L2: f64 = 1e-2;

/// The method `semantic_correlation_matching`: semantic matching on canonical variables (semantic correlation
/// matching); the regularization is the ridge of the CCA.
pub struct SemanticCorrelationMatching;

impl AlignmentMethod for SemanticCorrelationMatching {
    fn name(&self) -> &'static str {
        "semantic_correlation_matching"
    }

    fn description(&self) -> &'static str {
        "semantic matching on canonical variables (Rasiwasia et al. 2010); needs labels"
    }

    fn requirements(&self) -> Requirements {
        Requirements { labels: true, ..Requirements::default() }
    }

    fn regularization_grid(&self) -> &[f64] {
        &[1e-3, 1e-2, 0.1, 1.0]
    }

    fn fit(&self, pairs: &PairedFeatures, options: &FitOptions) -> Result<Alignment> {
        let (labels, classes) = (pairs.labels()?, pairs.num_classes());
        let fit = cca(&pairs.a, &pairs.b, options.dim, [options.regularization; 2])?;
        let posterior = |x: &Tensor| -> Result<ClassPosterior> {
            Ok(ClassPosterior(LogisticRegression::fit(x, labels, classes, SCM_L2)?))
        };
        let (a, b) = (posterior(&fit.project(0, &pairs.a)?)?, posterior(&fit.project(1, &pairs.b)?)?);
        let canonical = fit.into_alignment()?;
        Ok(Alignment::new(canonical.project_a.then(a), canonical.project_b.then(b), classes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm_core::{DType, Device, seed::manual_seed};

    #[test]
    fn projections_are_square_roots_of_distributions() {
        manual_seed(1);
        let x = Tensor::randn(&[60, 3], DType::F64, Device::Cpu).unwrap();
        let labels = (0..60).map(|row| row % 3).collect();
        let pairs = PairedFeatures { labels: Some(labels), ..PairedFeatures::new(&x, &x).unwrap() };
        let options = FitOptions { dim: None, regularization: 1e-3, seed: 0 };
        for method in [&SemanticMatching as &dyn AlignmentMethod, &SemanticCorrelationMatching] {
            let rows = method.fit(&pairs, &options).unwrap().project_a.apply(&x).unwrap();
            assert!((rows.mul(&rows).unwrap().sum().unwrap().to_f64().unwrap() - 60.0).abs() < 1e-9);
            let unlabeled = PairedFeatures::new(&x, &x).unwrap();
            assert!(method.fit(&unlabeled, &options).map(drop).unwrap_err().to_string().contains("labels"));
        }
    }
}
