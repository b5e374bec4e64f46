//! Parity with scikit-learn, cca-zoo, POT, SciPy and tslearn (`cargo xtask parity align` recomputes their answers).
#![allow(missing_docs)]

use mm_align::{
    correlation::{cca, pls},
    discrepancy::{MmdEstimator, energy_distance, mmd},
    distance::squared_distances,
    dtw::{dtw, soft_dtw},
    kernel::Kernel,
    transport::{Masses, SinkhornConfig, sinkhorn, sinkhorn_divergence},
};
use mm_core::{DType, Tensor};
use serde_json::Value;

fn answers() -> Value {
    let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/references.json");
    let path = std::env::var("MM_PARITY_ALIGN").unwrap_or_else(|_| fixture.into());
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn flat(value: &Value) -> Vec<f64> {
    match value {
        Value::Array(items) => items.iter().flat_map(flat).collect(),
        other => vec![other.as_f64().unwrap()],
    }
}

fn tensor(value: &Value) -> Tensor {
    let values = flat(value);
    match &value[0] {
        Value::Array(row) => Tensor::from_vec(&values, &[(values.len() / row.len()) as i64, row.len() as i64]).unwrap(),
        _ => Tensor::from_slice(&values).unwrap(),
    }
}

fn near(name: &str, found: &[f64], expected: &Value) {
    let expected = flat(expected);
    assert_eq!(found.len(), expected.len(), "{name}");
    let largest = expected.iter().fold(1e-3f64, |m, v| m.max(v.abs()));
    let off = found.iter().zip(&expected).map(|(f, e)| (f - e).abs()).fold(0.0, f64::max);
    assert!(off <= 1e-4 * largest, "{name}: off by {off}");
}

fn correlations(x: &Tensor, y: &Tensor) -> Vec<f64> {
    (0..x.size(1).unwrap())
        .map(|i| {
            let of = |t: &Tensor| {
                let c = t.select(1, i).unwrap();
                c.sub(&c.mean().unwrap()).unwrap().normalize().unwrap()
            };
            of(x).mul(&of(y)).unwrap().sum().unwrap().to_f64().unwrap()
        })
        .collect()
}

#[test]
fn results_match_the_reference_libraries() {
    let answers = answers();
    let (a, b) = (tensor(&answers["a"]), tensor(&answers["b"]));
    let fit = cca(&a, &b, Some(2), [0.0; 2]).unwrap();
    near("scikit-learn's CCA", &fit.values.to_vec::<f64>().unwrap(), &answers["cca"]);
    let fit = pls(&a, &b, Some(2)).unwrap();
    near("scikit-learn's PLSSVD", &fit.values.to_vec::<f64>().unwrap(), &answers["pls"]);
    let scores = fit.project(0, &a).unwrap().abs().unwrap();
    near("scores of PLSSVD", &scores.to_vec::<f64>().unwrap(), &answers["pls_scores"]);

    // Shrinkage s is a ridge of s / (1 − s) on the covariance, here as a multiple of the mean variance.
    let shrinkage = answers["shrinkage"].as_f64().unwrap();
    let ridge = |x: &Tensor| {
        let variance = x.std_dim(&[0], true, false).unwrap().pow(2.0).unwrap().mean().unwrap().to_f64().unwrap();
        shrinkage / (1.0 - shrinkage) / variance
    };
    let fit = cca(&a, &b, Some(2), [ridge(&a), ridge(&b)]).unwrap();
    let found = correlations(&fit.project(0, &a).unwrap(), &fit.project(1, &b).unwrap());
    near("cca-zoo's RidgeCCA", &found, &answers["ridge_cca"]);

    let cost = tensor(&answers["cost"]);
    let exact = SinkhornConfig { epsilon: 0.05, max_iterations: 100_000, tolerance: 1e-12, marginal_relaxation: None };
    let plan = sinkhorn(&cost, Masses::default(), exact).unwrap().plan;
    near("POT's sinkhorn", &plan.to_vec::<f64>().unwrap(), &answers["sinkhorn"]);
    let unbalanced = SinkhornConfig { epsilon: 0.1, marginal_relaxation: Some(1.0), ..exact };
    let plan =
        sinkhorn(&cost, Masses { rows: Some(&tensor(&answers["masses"])), columns: None }, unbalanced).unwrap().plan;
    near("POT's unbalanced sinkhorn", &plan.to_vec::<f64>().unwrap(), &answers["unbalanced"]);

    let column = |x: &Tensor| x.narrow(1, 0, 1).unwrap().contiguous().unwrap();
    let energy = energy_distance(&column(&a), &column(&b)).unwrap().to_f64().unwrap();
    near("SciPy's energy distance", &[energy], &answers["energy"]);

    let sets = ["first", "second"].map(|n| tensor(&answers[n]));
    let smooth = SinkhornConfig { epsilon: 0.5, ..exact };
    let divergence = sinkhorn_divergence(&sets[0], &sets[1], smooth).unwrap().to_f64().unwrap();
    near("POT's regularized problem, debiased", &[divergence], &answers["divergence"]);
    let kernel = [Kernel::Gaussian { bandwidth: 1.5 }];
    let discrepancy = mmd(&sets[0], &sets[1], &kernel, MmdEstimator::Biased).unwrap().to_f64().unwrap();
    near("MMD with scikit-learn's kernel", &[discrepancy], &answers["mmd"]);

    let both = ["first", "second"].map(|n| tensor(&answers[n]).unsqueeze(0).unwrap().to_dtype(DType::F64).unwrap());
    let costs = squared_distances(&both[0], &both[1]).unwrap();
    near("tslearn's soft-DTW", &[soft_dtw(&costs, 0.5).unwrap().to_f64().unwrap()], &answers["soft_dtw"]);
    near("tslearn's DTW", &[dtw(&costs.squeeze(0).unwrap()).unwrap().cost], &answers["dtw"]);
}
