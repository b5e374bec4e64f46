//! What labels add: semantic matching, where each modality is mapped to class probabilities, and its correlated kind (Rasiwasia 2010);
//! regression of both modalities onto the labels together, features chosen on the way (Wang 2013).

use crate::{
    Result,
    correlation::{check, finite, wide, wrong},
};
use mm_core::{AdamStep, DType, Tensor, no_grad};

/// Multinomial logistic regression on features brought to mean zero and variance one.
#[derive(Debug, Clone)]
pub struct Logistic {
    mean: Tensor,
    deviation: Tensor,
    /// `[width + 1, classes]`, the last row the biases.
    weights: Tensor,
}

impl Logistic {
    /// Fits `[rows, width]` to class numbers `[rows]` below `classes`; `penalty` weighs half the squared weights. By Adam on all rows at
    /// once: the loss is convex and three hundred steps come near its end.
    pub fn fit(x: &Tensor, labels: &[i64], classes: i64, penalty: f64) -> Result<Self> {
        let rows = x.size(0)?;
        if rows as usize != labels.len() || rows < 1 {
            let found = format!("{} labels for {rows} rows", labels.len());
            return Err(wrong("logistic", found, "as many labels as rows, at least one"));
        }
        if let Some(label) = labels.iter().find(|l| !(0..classes).contains(l)) {
            return Err(wrong(
                "logistic",
                format!("label {label}"),
                format!("class numbers from 0 to {}", classes - 1),
            ));
        }
        finite("logistic", 0, x)?;
        no_grad(|| {
            let x = wide(x)?;
            let mean = x.mean_dims(&[0], true)?;
            let deviation = x.std_dims(&[0], false, true)?.add_scalar(1e-9)?;
            // A column of ones for the biases. The steps are in float32: they stop long before its precision would tell.
            let level = x.sub(&mean)?.div(&deviation)?.pad(&[0, 1], 1.0)?.to_dtype(DType::F32)?;
            let truth = Tensor::from_slice(labels)?.to_device(x.device())?.one_hot(classes)?.to_dtype(DType::F32)?;
            let weights = Tensor::zeros(&[level.size(1)?, classes], DType::F32, x.device())?;
            let (first, second) = (weights.zeros_like()?, weights.zeros_like()?);
            let turned = level.transpose(0, 1)?;
            for step in 1..=300u32 {
                let off = level.matmul(&weights)?.softmax(1)?.sub(&truth)?;
                let gradient =
                    turned.matmul(&off)?.mul_scalar(1.0 / rows as f64)?.add(&weights.mul_scalar(penalty)?)?;
                let rate = 0.1 * (1.0 - f64::from(step) / 301.0);
                weights.adam_(&gradient, &first, &second, &AdamStep::new(rate, step.into()))?;
            }
            Ok(Self { mean, deviation, weights: weights.to_dtype(DType::F64)? })
        })
    }

    /// What it consists of, to be kept: means, deviations, and weights `[width + 1, classes]` row by row.
    pub fn numbers(&self) -> Result<[Vec<f64>; 3]> {
        Ok([self.mean.to_vec()?, self.deviation.to_vec()?, self.weights.to_vec()?])
    }

    /// Back from [`Logistic::numbers`].
    pub fn from_numbers(mean: &[f64], deviation: &[f64], weights: &[f64]) -> Result<Self> {
        let width = mean.len();
        if deviation.len() != width || weights.is_empty() || !weights.len().is_multiple_of(width + 1) {
            let found = format!("{width} means, {} deviations, {} weights", deviation.len(), weights.len());
            return Err(wrong("logistic", found, "as many deviations as means, and weights for each and a bias"));
        }
        let line = |values: &[f64]| Tensor::from_vec(values, &[1, width as i64]);
        let classes = (weights.len() / (width + 1)) as i64;
        Ok(Self {
            mean: line(mean)?,
            deviation: line(deviation)?,
            weights: Tensor::from_vec(weights, &[width as i64 + 1, classes])?,
        })
    }

    /// Probabilities `[rows, classes]`, float64.
    pub fn probabilities(&self, x: &Tensor) -> Result<Tensor> {
        let level = wide(x)?.sub(&self.mean)?.div(&self.deviation)?.pad(&[0, 1], 1.0)?;
        Ok(level.matmul(&self.weights)?.softmax(1)?)
    }

    /// Likeliest classes.
    pub fn predict(&self, x: &Tensor) -> Result<Vec<i64>> {
        Ok(self.probabilities(x)?.argmax(1)?.to_vec()?)
    }
}

/// Where [`Logistic`] maps rows for matching: square roots of probabilities, whose dot product is the Bhattacharyya coefficient of two
/// distributions, so that a cosine compares them as distributions.
pub fn semantic(model: &Logistic, x: &Tensor) -> Result<Tensor> {
    Ok(model.probabilities(x)?.sqrt()?)
}

/// What [`joint_features`] learned.
#[derive(Debug, Clone)]
pub struct JointFeatures {
    /// Of each set: its mean `[1, width]` and its map `[width, classes]`; rows of a map near zero are features that are not used.
    pub sets: Vec<(Tensor, Tensor)>,
    /// The objective after each iteration; it never grows.
    pub objective: Vec<f64>,
}

/// One set while its map is learned.
struct Set {
    x: Tensor,
    mean: Tensor,
    level: f64,
    gram: Tensor,
    onto: Tensor,
    eye: Tensor,
    map: Tensor,
}

impl Set {
    /// Lengths of the map's rows: how far each feature is used.
    fn used(&self, small: f64) -> Result<Tensor> {
        Ok(self.map.pow(2.0)?.sum_dims(&[1], false)?.add_scalar(small)?.sqrt()?)
    }
}

/// What keeps roots of zero finite; the objective counts it.
const SMALL: f64 = 1e-8;

/// Coupled regression of several sets `[rows, width]` onto one label a row: each set's map is drawn to use few features (`sparse` weighs the
/// sum of its rows' lengths), and all maps together to give outputs of low rank (`low_rank` weighs the trace norm of the outputs side by
/// side), so that sets agree in more than the labels say (Wang 2013). `sparse` is relative to each set's mean squared column, `low_rank` to
/// the root of the rows. By iterated weighted ridge regressions, at most 30.
pub fn joint_features(
    sets: &[&Tensor],
    labels: &[i64],
    classes: i64,
    sparse: f64,
    low_rank: f64,
) -> Result<JointFeatures> {
    let rows = check("joint features", sets)?;
    let named = labels.iter().all(|l| (0..classes).contains(l));
    if rows as usize != labels.len() || !named || !(sparse >= 0.0 && low_rank >= 0.0) {
        let found = format!("{} labels for {rows} rows, weights {sparse} and {low_rank}", labels.len());
        return Err(wrong("joint features", found, format!("a label below {classes} a row and no negative weight")));
    }
    no_grad(|| {
        let hot = Tensor::from_slice(labels)?.to_device(sets[0].device())?.one_hot(classes)?.to_dtype(DType::F64)?;
        let y = hot.sub(&hot.mean_dims(&[0], true)?)?;
        let mut all = Vec::new();
        for set in sets {
            let x = wide(set)?;
            let mean = x.mean_dims(&[0], true)?;
            let x = x.sub(&mean)?;
            let level = x.pow(2.0)?.sum_dims(&[0], false)?.mean()?.to_f64()?.max(1e-12);
            let turned = x.transpose(0, 1)?;
            let (gram, onto) = (turned.matmul(&x)?, turned.matmul(&y)?);
            let eye = Tensor::eye(x.size(1)?, DType::F64, x.device())?;
            let map = gram.add(&eye.mul_scalar(sparse.max(1e-6) * level)?)?.solve(&onto)?;
            all.push(Set { x, mean, level, gram, onto, eye, map });
        }
        let mut objective: Vec<f64> = Vec::new();
        let rank = low_rank * (rows as f64).sqrt();
        let mut floor = 0.0;
        for _ in 0..30 {
            let outputs = all.iter().map(|s| s.x.matmul(&s.map)).collect::<mm_core::Result<Vec<_>>>()?;
            // The outputs side by side, `[rows, sets · classes]`: how long they are in which directions.
            let (directions, lengths, _) = Tensor::cat(&outputs.iter().collect::<Vec<_>>(), 1)?.svd()?;
            let squares = lengths.pow(2.0)?;
            if objective.is_empty() {
                floor = (1e-4 * squares.max()?.to_f64()?).max(SMALL);
            }
            let lengths = squares.add_scalar(floor)?.sqrt()?;
            let mut sum = rank * lengths.sum()?.to_f64()?;
            for (set, output) in all.iter().zip(&outputs) {
                sum += output.sub(&y)?.pow(2.0)?.sum()?.to_f64()?;
                sum += sparse * set.level * set.used(SMALL)?.sum()?.to_f64()?;
            }
            let done = objective.last().is_some_and(|last| (last - sum).abs() <= 1e-6 * last.abs());
            objective.push(sum);
            if done {
                break;
            }
            // Each norm is replaced by the quadratic that touches it here: what is short now costs most.
            let outside = floor.sqrt().recip();
            let inside = lengths.pow(-1.0)?.add_scalar(-outside)?.unsqueeze(1)?; // on top of what every direction costs
            for set in &mut all {
                let rows = set.eye.mul(&set.used(SMALL)?.pow(-1.0)?)?.mul_scalar(0.5 * sparse * set.level)?;
                let seen = directions.transpose(0, 1)?.matmul(&set.x)?; // [sets · classes, width]
                let spread = seen.transpose(0, 1)?.matmul(&seen.mul(&inside)?)?.add(&set.gram.mul_scalar(outside)?)?;
                let pull = rows.add(&spread.mul_scalar(0.5 * rank)?)?.add(&set.eye.mul_scalar(1e-9 * set.level)?)?;
                set.map = set.gram.add(&pull)?.solve(&set.onto)?;
            }
        }
        Ok(JointFeatures { sets: all.into_iter().map(|s| (s.mean, s.map)).collect(), objective })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm_core::{Device, seed::manual_seed};

    /// Two sets of which four and three columns tell the class: these are used, the noise beside them is not, and the objective falls.
    #[test]
    fn joint_features_are_those_that_tell_the_class() {
        manual_seed(5);
        let labels: Vec<i64> = (0..150).map(|n| n * 7 % 3).collect();
        let hot = Tensor::from_slice(&labels).unwrap().one_hot(3).unwrap().to_dtype(DType::F64).unwrap();
        let noise = |width: i64| Tensor::randn(&[150, width], DType::F64, Device::Cpu).unwrap();
        let set = |telling: i64, rest: i64| {
            let mix = Tensor::randn(&[3, telling], DType::F64, Device::Cpu).unwrap();
            let told = hot.matmul(&mix).unwrap().mul_scalar(2.0).unwrap().add(&noise(telling)).unwrap();
            Tensor::cat(&[&told, &noise(rest)], 1).unwrap()
        };
        let (a, b) = (set(4, 30), set(3, 20));
        let found = joint_features(&[&a, &b], &labels, 3, 0.2, 0.05).unwrap();
        assert!(found.objective.len() > 2);
        assert!(found.objective.windows(2).all(|w| w[1] <= w[0] * (1.0 + 1e-9)), "{:?}", found.objective);
        for ((_, map), telling) in found.sets.iter().zip([4usize, 3]) {
            let used: Vec<f64> = map.pow(2.0).unwrap().sum_dims(&[1], false).unwrap().sqrt().unwrap().to_vec().unwrap();
            let most = |some: &[f64]| some.iter().fold(0.0f64, |m, v| m.max(*v));
            assert!(most(&used[telling..]) < 0.1 * most(&used[..telling]), "{used:?}");
        }
        assert!(joint_features(&[&a, &b], &labels[1..], 3, 0.1, 0.1).is_err());
        assert!(joint_features(&[&a, &b], &[3; 150], 3, 0.1, 0.1).is_err());
        assert!(joint_features(&[&a, &b], &labels, 3, f64::NAN, 0.1).is_err());
    }

    #[test]
    fn classes_that_can_be_told_are_told_and_wrong_labels_are_named() {
        manual_seed(1);
        let x = Tensor::randn(&[120, 3], DType::F64, Device::Cpu).unwrap();
        let labels: Vec<i64> = x
            .to_vec::<f64>()
            .unwrap()
            .chunks(3)
            .map(|r| if r[0] > 0.0 { 1 } else { 2 * i64::from(r[1] > 0.0) })
            .collect();
        let model = Logistic::fit(&x, &labels, 3, 1e-4).unwrap();
        let right = model.predict(&x).unwrap().iter().zip(&labels).filter(|(a, b)| a == b).count();
        assert!(right > 112, "{right}");
        let rows = semantic(&model, &x).unwrap();
        assert!((rows.mul(&rows).unwrap().sum().unwrap().to_f64().unwrap() - 120.0).abs() < 1e-9);
        let text = |labels: &[i64]| Logistic::fit(&x, labels, 3, 1e-4).map(drop).unwrap_err().to_string();
        assert!(text(&labels[1..]).contains("119 labels for 120 rows"));
        assert!(text(&[3; 120]).contains("label 3"));
    }
}
