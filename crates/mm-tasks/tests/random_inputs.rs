//! Metrics of random predictions against scikit-learn and SciPy: `cargo xtask parity random --seed N` runs
//! `xtask/parity/random_inputs.py` and this test, which is skipped without it.
#![allow(missing_docs)]

use mm_core::Tensor;
use mm_tasks::metrics::{classification_metrics, regression_metrics, score_metrics};
use serde_json::Value;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn parse<T: serde::de::DeserializeOwned>(value: &Value) -> Result<T> {
    Ok(serde_json::from_value(value.clone())?)
}

/// The metrics that mm computes for a case, by the names that the reference's have.
fn found(case: &Value) -> Result<Vec<(&'static str, f64)>> {
    let metrics = match case["kind"].as_str() {
        Some("retrieval") => {
            let (scores, matches): (Vec<Vec<f64>>, Vec<Vec<bool>>) =
                (parse(&case["scores"])?, parse(&case["matches"])?);
            let shape = [scores.len() as i64, scores[0].len() as i64];
            let found = score_metrics(&Tensor::from_vec(&scores.concat(), &shape)?, |q, g| matches[q][g])?;
            assert_eq!(Some(found.queries as u64), case["queries"].as_u64());
            assert_eq!(parse::<[f64; 3]>(&case["recall"])?.map(f64::to_bits), found.recall.map(f64::to_bits));
            return Ok(vec![("map", found.map), ("median_rank", found.median_rank)]);
        }
        Some("classification") => {
            classification_metrics(&parse::<Vec<_>>(&case["probabilities"])?, &parse::<Vec<_>>(&case["labels"])?)?
        }
        _ => regression_metrics(&parse::<Vec<_>>(&case["found"])?, &parse::<Vec<_>>(&case["labels"])?)?,
    };
    let names = [
        "accuracy",
        "balanced_accuracy",
        "f1_macro",
        "f1_weighted",
        "auroc",
        "log_loss",
        "mae",
        "rmse",
        "r2",
        "pearson",
    ];
    Ok(names.into_iter().filter_map(|name| Some((name, metrics.get(name)?))).collect())
}

#[test]
fn metrics_of_random_predictions_equal_those_of_scikit_learn() -> Result<()> {
    let Some(file) = std::env::var_os("MM_PARITY_METRICS") else {
        println!("skipped: MM_PARITY_METRICS names no file; `cargo xtask parity random` makes one");
        return Ok(());
    };
    let expected: Value = serde_json::from_slice(&std::fs::read(file)?)?;
    println!("seed {}", expected["seed"]);
    let mut compared = 0;
    for case in expected["cases"].as_array().into_iter().flatten() {
        for (name, value) in found(case)? {
            let reference = case[name].as_f64().ok_or_else(|| format!("no {name} in {case}"))?;
            let difference = (value - reference).abs() / reference.abs().max(1.0);
            assert!(
                difference < 1e-9,
                "seed {}: {name}: found {value}, expected {reference}: {case}",
                expected["seed"]
            );
            compared += 1;
        }
    }
    assert!(compared > 100, "{compared}");
    Ok(())
}
