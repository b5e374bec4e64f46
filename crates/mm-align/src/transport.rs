//! Optimal transport: which rows of one set go to which of another, at what cost. Sinkhorn's iteration with entropy (Cuturi 2013) in the
//! logarithmic domain (Peyré 2019), masses that need not match (Chizat 2018), spaces without a common distance (Gromov–Wasserstein,
//! Peyré 2016). And the correction of hubs (CSLS, Conneau 2018).

use crate::{
    Result,
    correlation::{squared_distances, wide, wrong},
};
use mm_core::{DType, Tensor, no_grad};

/// A plan and what it costs.
#[derive(Debug, Clone)]
pub struct Plan {
    /// `[rows of a, rows of b]`: how much mass goes from where to where.
    pub plan: Tensor,
    /// Sum of plan times cost, without the entropy. Differentiable in the cost (the plan is held fixed: Danskin's theorem).
    pub cost: Tensor,
    /// Iterations that were made.
    pub iterations: usize,
    /// How far the plan's rows were from their masses, summed, when it stopped. Above the tolerance (the iterations were too few) the
    /// balanced plan is rounded to its masses.
    pub error: f64,
}

/// Settings of [`sinkhorn`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sinkhorn {
    /// Weight of the entropy, in units of the cost; smaller is sharper and slower.
    pub entropy: f64,
    /// Weight of each side's divergence from its mass; masses are met exactly when absent.
    pub unbalanced: Option<f64>,
    /// Most iterations.
    pub iterations: usize,
    /// Error at which it stops.
    pub tolerance: f64,
}

impl Default for Sinkhorn {
    fn default() -> Self {
        Self { entropy: 0.05, unbalanced: None, iterations: 1000, tolerance: 1e-6 }
    }
}

fn masses(given: Option<&Tensor>, count: i64, like: &Tensor) -> Result<Tensor> {
    let Some(mass) = given else {
        return Ok(Tensor::full(&[count], 1.0 / count as f64, like.dtype()?, like.device())?);
    };
    let mass = mass.to_dtype(like.dtype()?)?;
    if mass.shape() != [count] || mass.min()?.to_f64()? < 0.0 || mass.sum()?.to_f64()? <= 0.0 {
        return Err(wrong(
            "transport",
            format!("masses {:?}", mass.shape()),
            format!("{count} numbers of at least 0, not all 0"),
        ));
    }
    Ok(mass)
}

/// Transport of masses (uniform when absent) at a cost `[rows of a, rows of b]`.
///
/// While it is safe the scaling is multiplicative (two matrix–vector products an iteration); when a number would leave the range of
/// floats it is absorbed into the potentials (Schmitzer 2019), which is the logarithmic domain at the price of the plain one.
pub fn sinkhorn(cost: &Tensor, a: Option<&Tensor>, b: Option<&Tensor>, settings: Sinkhorn) -> Result<Plan> {
    let shape = cost.shape();
    if shape.len() != 2 || shape.contains(&0) || settings.entropy.is_nan() || settings.entropy <= 0.0 {
        let found = format!("cost {shape:?}, entropy {}", settings.entropy);
        return Err(wrong("sinkhorn", found, "a cost [rows, rows] and a positive entropy"));
    }
    crate::correlation::finite("sinkhorn", 0, cost)?;
    let (a, b) = (masses(a, shape[0], cost)?, masses(b, shape[1], cost)?);
    let balanced = (a.sum()?.to_f64()? / b.sum()?.to_f64()? - 1.0).abs() < 1e-4;
    if settings.unbalanced.is_none() && !balanced {
        return Err(wrong("sinkhorn", "masses of different sums", "equal sums, or an unbalanced weight"));
    }
    let (plan, iterations, error) = no_grad(|| {
        let cost = cost.detach()?;
        let epsilon = settings.entropy;
        // In unbalanced transport each scaling is damped by this power.
        let power = settings.unbalanced.map_or(1.0, |rho| rho / (rho + epsilon));
        let log = |t: &Tensor| t.clamp_min(1e-300)?.log();
        let zero = |t: &Tensor| t.zeros_like();
        let (mut f, mut g) = (zero(&a)?, zero(&b)?);
        // The first half-steps by logsumexp give potentials from which plain scaling is safe.
        let soft = |f: &Tensor, dim: i64| -> mm_core::Result<Tensor> {
            let side = if dim == 0 { f.unsqueeze(1)? } else { f.unsqueeze(0)? };
            side.sub(&cost)?.mul_scalar(1.0 / epsilon)?.logsumexp(dim)
        };
        let (log_a, log_b) = (log(&a)?, log(&b)?);
        let half = |own: &Tensor, other: &Tensor, dim: i64| -> mm_core::Result<Tensor> {
            own.sub(&soft(other, dim)?)?.mul_scalar(epsilon * power)
        };
        for _ in 0..2 {
            f = half(&log_a, &g, 1)?;
            g = half(&log_b, &f, 0)?;
        }
        let kernel = |f: &Tensor, g: &Tensor| -> mm_core::Result<Tensor> {
            f.unsqueeze(1)?.add(&g.unsqueeze(0)?)?.sub(&cost)?.mul_scalar(1.0 / epsilon)?.exp()
        };
        let tiny = if cost.dtype()? == DType::F64 { 1e-200 } else { 1e-30 };
        let far = if cost.dtype()? == DType::F64 { 1e50 } else { 1e8 };
        let mut k = kernel(&f, &g)?;
        let mut turned = k.transpose(0, 1)?.contiguous()?;
        let (mut u, mut v) = (a.ones_like()?, b.ones_like()?);
        // Of the damped kind the potentials themselves enter: u = (a / K v)^power · exp(−(1 − power) f / ε).
        let damp = |t: &Tensor| t.mul_scalar((power - 1.0) / epsilon)?.exp();
        let (mut df, mut dg) = (damp(&f)?, damp(&g)?);
        let (mut made, mut error) = (2, f64::INFINITY);
        while made < settings.iterations.max(3) {
            let row = k.matmul(&v)?.clamp_min(tiny)?;
            let before = u.clone();
            u = a.div(&row)?;
            if power < 1.0 {
                u = u.pow(power)?.mul(&df)?;
            }
            v = b.div(&turned.matmul(&u)?.clamp_min(tiny)?)?;
            if power < 1.0 {
                v = v.pow(power)?.mul(&dg)?;
            }
            made += 1;
            // Looking costs as much as a tenth of an iteration on small sets: not each time.
            if made % 10 == 0 || made >= settings.iterations {
                error = if power < 1.0 {
                    u.div(&before)?.log()?.abs()?.max()?.to_f64()?
                } else {
                    u.mul(&k.matmul(&v)?)?.sub(&a)?.abs()?.sum()?.to_f64()?
                };
                if error < settings.tolerance {
                    break;
                }
                let wild = u.max()?.to_f64()?.max(v.max()?.to_f64()?) > far
                    || u.min()?.to_f64()?.min(v.min()?.to_f64()?) < 1.0 / far;
                if wild {
                    g = g.add(&log(&v)?.mul_scalar(epsilon)?)?;
                    // A half-step in logarithms mends what absorption rounded.
                    f = half(&log_a, &g, 1)?;
                    g = half(&log_b, &f, 0)?;
                    k = kernel(&f, &g)?;
                    turned = k.transpose(0, 1)?.contiguous()?;
                    (u, v) = (a.ones_like()?, b.ones_like()?);
                    (df, dg) = (damp(&f)?, damp(&g)?);
                }
            }
        }
        let mut plan = k.mul(&u.unsqueeze(1)?)?.mul(&v.unsqueeze(0)?)?;
        if power == 1.0 && error >= settings.tolerance {
            plan = rounded(&plan, &a, &b)?;
        }
        Ok::<_, crate::Error>((plan, made, error))
    })?;
    Ok(Plan { cost: plan.mul(cost)?.sum()?, plan, iterations, error })
}

/// The nearest way to a plan that meets its masses (Altschuler 2017, algorithm 2): what is too much is scaled down, and what then lacks is spread.
/// Where several plans cost the same, scaling alone comes near one of them as slowly as one over its steps.
fn rounded(plan: &Tensor, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let down = |mass: &Tensor, found: &Tensor| mass.div(&found.clamp_min(1e-30)?)?.clamp(0.0, 1.0);
    let plan = plan.mul(&down(a, &plan.sum_dims(&[1], false)?)?.unsqueeze(1)?)?;
    let plan = plan.mul(&down(b, &plan.sum_dims(&[0], false)?)?.unsqueeze(0)?)?;
    let (rows, columns) = (a.sub(&plan.sum_dims(&[1], false)?)?, b.sub(&plan.sum_dims(&[0], false)?)?);
    let lacking = rows.abs()?.sum()?.clamp_min(1e-30)?;
    Ok(plan.add(&rows.unsqueeze(1)?.mul(&columns.unsqueeze(0)?)?.div(&lacking)?)?)
}

/// The debiased divergence of two sets under squared distance (Feydy 2019): zero for equal sets, never negative, differentiable. Of each
/// plan its cost counts and, by the entropy's weight, its divergence from one that pays no heed to the cost.
pub fn sinkhorn_divergence(x: &Tensor, y: &Tensor, settings: Sinkhorn) -> Result<Tensor> {
    let value = |a: &Tensor, b: &Tensor| -> Result<Tensor> {
        let Plan { plan, cost, .. } = sinkhorn(&squared_distances(a, b)?, None, None, settings)?;
        let even = 1.0 / plan.count() as f64;
        let heed = plan.mul(&plan.mul_scalar(1.0 / even)?.clamp_min(1e-30)?.log()?)?.sum()?;
        Ok(cost.add(&heed.mul_scalar(settings.entropy)?)?)
    };
    Ok(value(x, y)?.sub(&value(x, x)?.add(&value(y, y)?)?.mul_scalar(0.5)?)?)
}

/// Which rows of one space correspond to which of another when only distances within each are known: `[rows, rows]` each, squared loss.
/// The plan is a local optimum, begun from the masses' product.
pub fn gromov_wasserstein(within_a: &Tensor, within_b: &Tensor, entropy: f64, iterations: usize) -> Result<Plan> {
    let square = |x: &Tensor| x.rank() == 2 && x.size(0).ok() == x.size(1).ok() && x.size(0).unwrap_or(0) > 1;
    if !square(within_a) || !square(within_b) {
        let found = format!("{:?} and {:?}", within_a.shape(), within_b.shape());
        return Err(wrong("gromov_wasserstein", found, "two square matrices of distances"));
    }
    let (ca, cb) = (wide(within_a)?, wide(within_b)?);
    let (m, n) = (ca.size(0)?, cb.size(0)?);
    let (a, b) = (masses(None, m, &ca)?, masses(None, n, &cb)?);
    // Of squares the tensor product falls apart: constant − 2 Ca P Cbᵀ (Peyré 2016, proposition 1).
    let left = ca.pow(2.0)?.matmul(&a)?.unsqueeze(1)?;
    let right = cb.pow(2.0)?.matmul(&b)?.unsqueeze(0)?;
    let constant = left.add(&right)?;
    let mut plan = a.unsqueeze(1)?.mul(&b.unsqueeze(0)?)?;
    let (mut made, mut moved) = (0, f64::INFINITY);
    let local = |plan: &Tensor| constant.sub(&ca.matmul(plan)?.matmul(&cb.transpose(0, 1)?)?.mul_scalar(2.0)?);
    while made < iterations.max(1) && moved > 1e-9 {
        let step = sinkhorn(
            &local(&plan)?.mul_scalar(2.0)?,
            Some(&a),
            Some(&b),
            Sinkhorn { entropy, tolerance: 1e-9, ..Sinkhorn::default() },
        )?;
        moved = step.plan.sub(&plan)?.abs()?.sum()?.to_f64()?;
        plan = step.plan;
        made += 1;
    }
    let cost = local(&plan)?.mul(&plan)?.sum()?;
    Ok(Plan { plan, cost, iterations: made, error: moved })
}

/// Cosines less the mean of each side's `k` nearest on the other (cross-domain similarity local scaling): hubs, near to everything, lose
/// what they gained. `[rows of a, rows of b]`.
pub fn csls(cosines: &Tensor, k: i64) -> Result<Tensor> {
    let shape = cosines.shape();
    if shape.len() != 2 || k < 1 {
        return Err(wrong("csls", format!("{shape:?}, k {k}"), "cosines [rows, rows] and at least one neighbour"));
    }
    let near = |x: &Tensor| -> Result<Tensor> { Ok(x.topk(k.min(x.size(1)?))?.0.mean_dims(&[1], false)?) };
    let (forth, back) = (near(cosines)?, near(&cosines.transpose(0, 1)?)?);
    Ok(cosines.mul_scalar(2.0)?.sub(&forth.unsqueeze(1)?)?.sub(&back.unsqueeze(0)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm_core::{Device, seed::manual_seed};
    use proptest::prelude::*;

    fn numbers(x: &Tensor) -> Vec<f64> {
        x.to_vec().unwrap()
    }

    fn close(a: &[f64], b: &[f64], within: f64) -> bool {
        a.len() == b.len() && a.iter().zip(b).all(|(x, y)| (x - y).abs() < within)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]
        #[test]
        fn a_plan_keeps_its_masses_whatever_the_cost(seed in 0u64..1000, entropy in 0.01f64..1.0) {
            manual_seed(seed);
            let cost = Tensor::rand(&[7, 5], DType::F64, Device::Cpu).unwrap().mul_scalar(3.0).unwrap();
            let a = Tensor::from_slice(&[0.1, 0.2, 0.05, 0.25, 0.15, 0.15, 0.1]).unwrap();
            let settings = Sinkhorn { entropy, iterations: 20_000, tolerance: 1e-9, ..Sinkhorn::default() };
            let plan = sinkhorn(&cost, Some(&a), None, settings).unwrap();
            let (rows, columns) = (plan.plan.sum_dims(&[1], false).unwrap(), plan.plan.sum_dims(&[0], false).unwrap());
            prop_assert!(close(&numbers(&rows), &numbers(&a), 1e-6));
            prop_assert!(close(&numbers(&columns), &[0.2; 5], 1e-6));
        }
    }

    #[test]
    fn a_plan_that_was_stopped_early_keeps_its_masses_too() {
        manual_seed(5);
        let cost = Tensor::rand(&[4, 3], DType::F32, Device::Cpu).unwrap();
        let a = Tensor::from_slice(&[0.5f32, 0.0, 0.3, 0.2]).unwrap();
        let hasty = Sinkhorn { entropy: 0.02, iterations: 3, ..Sinkhorn::default() };
        let plan = sinkhorn(&cost, Some(&a), None, hasty).unwrap();
        assert!(plan.error > hasty.tolerance, "{plan:?}");
        let sums = |dim: i64| numbers(&plan.plan.sum_dims(&[dim], false).unwrap());
        assert!(close(&sums(1), &numbers(&a), 1e-6) && close(&sums(0), &[1.0 / 3.0; 3], 1e-6));
        assert!(plan.plan.min().unwrap().to_f64().unwrap() >= 0.0);
    }

    #[test]
    fn a_sharp_plan_is_the_assignment_and_a_loose_mass_stays_where_it_is() {
        // The cheapest assignment is the mirrored diagonal.
        let cost = Tensor::from_vec(&[5f64, 3.0, 1.0, 4.0, 1.0, 3.0, 1.0, 4.0, 5.0], &[3, 3]).unwrap();
        let sharp = Sinkhorn { entropy: 0.005, iterations: 5000, tolerance: 1e-9, ..Sinkhorn::default() };
        let plan = sinkhorn(&cost, None, None, sharp).unwrap();
        assert!((plan.cost.to_f64().unwrap() - 1.0).abs() < 1e-6, "{plan:?}");
        // Far masses are destroyed rather than moved when divergence is cheap.
        let far = Tensor::from_vec(&[0f64, 100.0, 100.0, 0.0], &[2, 2]).unwrap();
        let (a, b) = (Tensor::from_slice(&[0.9, 0.1]).unwrap(), Tensor::from_slice(&[0.5, 0.5]).unwrap());
        let loose = Sinkhorn { entropy: 0.1, unbalanced: Some(1.0), ..Sinkhorn::default() };
        let plan = numbers(&sinkhorn(&far, Some(&a), Some(&b), loose).unwrap().plan);
        assert!(plan[1] < 1e-9 && plan[2] < 1e-9 && plan[0] > 0.5 && plan[0] < 0.9, "{plan:?}");
    }

    #[test]
    fn a_divergence_vanishes_on_equal_sets_and_has_the_right_gradient() {
        manual_seed(1);
        let y = Tensor::randn(&[6, 2], DType::F64, Device::Cpu).unwrap();
        let x = Tensor::randn(&[5, 2], DType::F64, Device::Cpu).unwrap().set_requires_grad(true).unwrap();
        let settings = Sinkhorn { entropy: 0.5, iterations: 5000, tolerance: 1e-12, ..Sinkhorn::default() };
        assert!(sinkhorn_divergence(&y, &y, settings).unwrap().to_f64().unwrap().abs() < 1e-9);
        let loss = sinkhorn_divergence(&x, &y, settings).unwrap();
        loss.backward().unwrap();
        assert!(loss.to_f64().unwrap() > 0.0);
        let (slopes, base) = (x.grad().unwrap().to_vec::<f64>().unwrap(), x.to_vec::<f64>().unwrap());
        for (place, slope) in slopes.iter().enumerate() {
            let at = |by: f64| {
                let mut moved = base.clone();
                moved[place] += by;
                let x = Tensor::from_vec(&moved, &[5, 2]).unwrap();
                sinkhorn_divergence(&x, &y, settings).unwrap().to_f64().unwrap()
            };
            let wanted = (at(1e-5) - at(-1e-5)) / 2e-5;
            assert!((slope - wanted).abs() < 1e-5, "{place}: {slope}, {wanted}");
        }
    }

    #[test]
    fn a_divergence_is_a_number_where_a_plan_has_nothing() {
        manual_seed(2);
        // Far apart, at a small entropy: in float32 most of the plan is exactly zero.
        let far = Tensor::randn(&[8, 3], DType::F32, Device::Cpu).unwrap().mul_scalar(30.0).unwrap();
        let other = Tensor::randn(&[8, 3], DType::F32, Device::Cpu).unwrap().mul_scalar(30.0).unwrap();
        let settings = Sinkhorn { entropy: 0.5, ..Sinkhorn::default() };
        let plan = sinkhorn(&squared_distances(&far, &far).unwrap(), None, None, settings).unwrap().plan;
        assert_eq!(plan.min().unwrap().to_f64().unwrap(), 0.0);
        assert!(sinkhorn_divergence(&far, &other, settings).unwrap().to_f64().unwrap() > 0.0);
    }

    #[test]
    fn a_turned_space_is_recognised_by_its_distances() {
        manual_seed(3);
        let x = Tensor::randn(&[6, 3], DType::F64, Device::Cpu).unwrap();
        let order = Tensor::from_slice(&[3i64, 0, 5, 1, 4, 2]).unwrap();
        let y = x.index_select(0, &order).unwrap().neg().unwrap();
        let within = |t: &Tensor| squared_distances(t, t).unwrap().sqrt().unwrap();
        let plan = gromov_wasserstein(&within(&x), &within(&y), 0.01, 200).unwrap();
        let found = plan.plan.transpose(0, 1).unwrap().argmax(1).unwrap().to_vec::<i64>().unwrap();
        assert_eq!(found, [3, 0, 5, 1, 4, 2]);
        assert!(plan.cost.to_f64().unwrap() < 0.05);
    }

    #[test]
    fn a_hub_loses_what_it_gained() {
        // The last column is near to everything; each row's own is nearer to it alone than the hub is to others.
        let cosines = Tensor::from_vec(&[0.7f64, 0.1, 0.75, 0.1, 0.7, 0.75, 0.1, 0.1, 0.8], &[3, 3]).unwrap();
        assert_eq!(cosines.argmax(1).unwrap().to_vec::<i64>().unwrap(), [2, 2, 2]);
        assert_eq!(csls(&cosines, 2).unwrap().argmax(1).unwrap().to_vec::<i64>().unwrap(), [0, 1, 2]);
    }
}
