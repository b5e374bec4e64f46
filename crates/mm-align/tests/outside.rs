//! A method defined outside the crate is registered and used like the built-in ones.
#![allow(missing_docs)]

use mm_align::{
    Affine, Alignment, AlignmentMethod, FitOptions, PairedFeatures, Projection, Result, Transform, alignment_methods,
};
use mm_core::{DType, Device, Tensor, seed::manual_seed};

/// Keeps the first `dim` columns of each modality.
struct FirstColumns;

struct Columns(i64);

impl Transform for Columns {
    fn apply(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.narrow(1, 0, self.0)?)
    }
}

impl AlignmentMethod for FirstColumns {
    fn name(&self) -> &'static str {
        "first_columns"
    }

    fn description(&self) -> &'static str {
        "the first columns of each modality"
    }

    fn fit(&self, pairs: &PairedFeatures, options: &FitOptions) -> Result<Alignment> {
        let dim = options.dim.unwrap_or(pairs.a.size(1)?.min(pairs.b.size(1)?));
        Ok(Alignment::new(Projection::new(Columns(dim)), Projection::new(Columns(dim)), dim))
    }
}

#[test]
fn a_method_of_another_crate_is_registered_and_fitted() {
    manual_seed(1);
    let mut methods = alignment_methods();
    methods.register(FirstColumns);
    let x = Tensor::randn(&[10, 4], DType::F32, Device::Cpu).unwrap();
    let pairs = PairedFeatures::new(&x, &x).unwrap();
    let options = FitOptions { dim: Some(2), regularization: 0.0, seed: 0 };
    let fitted = methods.get("first_columns").unwrap().fit(&pairs, &options).unwrap();
    assert_eq!((fitted.dim, fitted.project_a.apply(&x).unwrap().shape()), (2, vec![10, 2]));
    assert!(fitted.project_a.as_affine().is_none());
    assert_eq!(methods.iter().last().map(AlignmentMethod::name), Some("first_columns"));
}

#[test]
fn an_unknown_name_suggests_the_nearest_and_a_later_registration_replaces_an_earlier_one() {
    let mut methods = alignment_methods();
    let text = methods.get("procrusts").map(drop).unwrap_err().to_string();
    assert!(text.contains("procrustes"), "{text}");
    let count = methods.iter().count();
    methods.register(FirstColumns);
    methods.register(FirstColumns);
    assert_eq!(methods.iter().count(), count + 1);
}

#[test]
fn every_built_in_method_projects_both_modalities_to_its_dimension() {
    manual_seed(2);
    let latent = Tensor::randn(&[60, 3], DType::F64, Device::Cpu).unwrap();
    let set = |dim: i64| latent.matmul(&Tensor::randn(&[3, dim], DType::F64, Device::Cpu).unwrap()).unwrap();
    let noise = |dim: i64| Tensor::randn(&[60, dim], DType::F64, Device::Cpu).unwrap().mul_scalar(0.1).unwrap();
    let (a, b) = (set(6).add(&noise(6)).unwrap(), set(5).add(&noise(5)).unwrap());
    let labels = (0..60).map(|row| row % 3).collect();
    let pairs = PairedFeatures { labels: Some(labels), ..PairedFeatures::new(&a, &b).unwrap() };
    for method in alignment_methods().iter() {
        let options = FitOptions { dim: None, regularization: 0.1, seed: 0 };
        let fitted = method.fit(&pairs, &options).unwrap();
        for (projection, x) in [(&fitted.project_a, &a), (&fitted.project_b, &b)] {
            assert_eq!(projection.apply(x).unwrap().shape(), [60, fitted.dim], "{}", method.name());
        }
        if fitted.sorted {
            let truncated = fitted.truncate(1).unwrap();
            assert_eq!(truncated.project_b.apply(&b).unwrap().shape(), [60, 1], "{}", method.name());
        } else if let Some(Affine { map, .. }) = fitted.project_a.as_affine() {
            assert_eq!(map.size(1).unwrap(), fitted.dim, "{}", method.name());
        }
    }
}
