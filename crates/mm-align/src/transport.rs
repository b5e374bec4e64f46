//! Entropic optimal transport: Sinkhorn's algorithm, balanced and unbalanced, and the debiased Sinkhorn divergence.

use crate::{
    Result,
    checks::{check_finite, invalid},
    distance::squared_distances,
};
use mm_core::{DType, Tensor, no_grad};

/// The result of [`sinkhorn`].
#[derive(Debug, Clone)]
pub struct TransportPlan {
    /// Mass moved from each row of a to each row of b, `[n, m]`.
    pub plan: Tensor,
    /// Sum of plan times cost, without the entropy. Differentiable in the cost (the plan is constant: Danskin's
    /// theorem).
    pub cost: Tensor,
    /// Number of iterations.
    pub iterations: usize,
    /// ℓ1 distance of the plan's row sums from the masses at the end. If it is above the tolerance, a balanced plan is
    /// rounded so that its marginals equal the masses.
    pub marginal_error: f64,
}

/// Settings of [`sinkhorn`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SinkhornConfig {
    /// Weight of the entropy, in units of the cost; a smaller value gives a sparser plan and needs more iterations.
    pub epsilon: f64,
    /// Weight of the Kullback–Leibler divergence of the plan's marginals from the masses (unbalanced transport); if
    /// absent, transport is balanced: the marginals equal the masses.
    pub marginal_relaxation: Option<f64>,
    /// Maximum number of iterations.
    pub max_iterations: usize,
    /// Marginal error at which the iteration stops.
    pub tolerance: f64,
}

impl Default for SinkhornConfig {
    fn default() -> Self {
        Self { epsilon: 0.05, marginal_relaxation: None, max_iterations: 1000, tolerance: 1e-6 }
    }
}

/// The masses between which is transported: those of the rows and of the columns of the cost matrix.
#[derive(Debug, Clone, Copy, Default)]
pub struct Masses<'a> {
    /// Masses of the rows, `[n]`; uniform with sum 1 if absent.
    pub rows: Option<&'a Tensor>,
    /// Masses of the columns, `[m]`; uniform with sum 1 if absent.
    pub columns: Option<&'a Tensor>,
}

fn masses(given: Option<&Tensor>, count: i64, like: &Tensor) -> Result<Tensor> {
    let Some(mass) = given else {
        return Ok(Tensor::full(&[count], 1.0 / count as f64, like.dtype()?, like.device())?);
    };
    let mass = mass.to_dtype(like.dtype()?)?;
    check_finite("transport masses", 0, &mass)?;
    if mass.shape() != [count] || mass.min()?.to_f64()? < 0.0 || mass.sum()?.to_f64()? <= 0.0 {
        let expected = format!("{count} values of at least 0, not all 0");
        return Err(invalid("transport", format!("masses {:?}", mass.shape()), expected));
    }
    Ok(mass)
}

/// Entropic optimal transport of masses at a cost `[n, m]`.
///
/// An iteration is two matrix–vector products. Before a scaling vector leaves the range of floats it is absorbed into
/// the dual potentials, which is as stable as iterating in the log domain and as fast as iterating without it.
///
/// From *Sinkhorn Distances: Lightspeed Computation of Optimal Transport* (Cuturi, 2013,
/// <https://arxiv.org/abs/1306.0895>); unbalanced: *Scaling Algorithms for Unbalanced Transport Problems* (Chizat et
/// al., 2018, <https://arxiv.org/abs/1607.05816>); absorption: *Stabilized Sparse Scaling Algorithms for Entropy
/// Regularized Transport Problems* (Schmitzer, 2019, <https://arxiv.org/abs/1610.06519>).
///
/// ```
/// use mm_align::transport::{Masses, SinkhornConfig, sinkhorn};
/// use mm_core::{Device, Tensor};
/// # fn main() -> mm_align::Result<()> {
/// let cost = Tensor::new([[1f64, 0.0], [0.0, 1.0]], Device::Cpu)?;
/// let sharp = SinkhornConfig { epsilon: 0.01, ..SinkhornConfig::default() };
/// let plan = sinkhorn(&cost, Masses::default(), sharp)?.plan;
/// assert_eq!(plan.argmax(1)?.to_vec::<i64>()?, [1, 0]);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// When the cost is no finite matrix, epsilon or the relaxation is not positive, masses are invalid, or balanced masses
/// have different sums.
pub fn sinkhorn(cost: &Tensor, mass: Masses<'_>, config: SinkhornConfig) -> Result<TransportPlan> {
    let shape = cost.shape();
    if shape.len() != 2 || shape.contains(&0) || config.epsilon.is_nan() || config.epsilon <= 0.0 {
        let found = format!("cost {shape:?}, epsilon {}", config.epsilon);
        return Err(invalid("sinkhorn", found, "a cost [rows, rows] and a positive epsilon"));
    }
    if let Some(rho) = config.marginal_relaxation.filter(|rho| !(*rho > 0.0 && rho.is_finite())) {
        return Err(invalid("sinkhorn", format!("marginal relaxation {rho}"), "a positive number"));
    }
    check_finite("sinkhorn", 0, cost)?;
    let (a, b) = (masses(mass.rows, shape[0], cost)?, masses(mass.columns, shape[1], cost)?);
    let equal_sums = (a.sum()?.to_f64()? / b.sum()?.to_f64()? - 1.0).abs() < 1e-4;
    if config.marginal_relaxation.is_none() && !equal_sums {
        return Err(invalid("sinkhorn", "masses of different sums", "equal sums, or a marginal relaxation"));
    }
    let (plan, iterations, marginal_error) = no_grad(|| -> Result<_> {
        let mut solver = Solver::new(cost.detach()?, a, b, config)?;
        let (iterations, error) = solver.iterate()?;
        let mut plan = solver.plan()?;
        if solver.power == 1.0 && error >= config.tolerance {
            plan = round_to_marginals(&plan, &solver.a, &solver.b)?;
        }
        Ok((plan, iterations, error))
    })?;
    Ok(TransportPlan { cost: plan.mul(cost)?.sum()?, plan, iterations, marginal_error })
}

/// State of the iteration: the plan is `diag(u) · kernel · diag(v)` with `kernel = exp((f + g − cost) / ε)`.
struct Solver {
    cost: Tensor,
    a: Tensor,
    b: Tensor,
    log_a: Tensor,
    log_b: Tensor,
    config: SinkhornConfig,
    /// Exponent of each scaling: 1 for balanced transport, `ρ / (ρ + ε)` for unbalanced.
    power: f64,
    /// Absorbed dual potentials, `[n]` and `[m]`.
    f: Tensor,
    g: Tensor,
    kernel: Tensor,
    kernel_t: Tensor,
    /// Scalings on top of the potentials, `[n]` and `[m]`.
    u: Tensor,
    v: Tensor,
    /// In unbalanced transport the potentials enter the scalings: u = (a / K v)^power · exp(−(1 − power) f / ε).
    damping_f: Tensor,
    damping_g: Tensor,
    /// Where a and b have no mass: potentials are −∞ and scalings zero there.
    empty_a: Tensor,
    empty_b: Tensor,
    /// The smallest positive number that the type represents in full precision.
    smallest: f64,
}

impl Solver {
    fn new(cost: Tensor, a: Tensor, b: Tensor, config: SinkhornConfig) -> Result<Self> {
        let smallest = if cost.dtype()? == DType::F64 { f64::MIN_POSITIVE } else { f64::from(f32::MIN_POSITIVE) };
        let log = |t: &Tensor| t.clamp_min(smallest)?.log();
        let mut solver = Self {
            log_a: log(&a)?,
            log_b: log(&b)?,
            power: config.marginal_relaxation.map_or(1.0, |rho| rho / (rho + config.epsilon)),
            f: a.zeros_like()?,
            g: b.zeros_like()?,
            kernel: cost.clone(),
            kernel_t: cost.clone(),
            u: a.ones_like()?,
            v: b.ones_like()?,
            damping_f: a.ones_like()?,
            damping_g: b.ones_like()?,
            empty_a: a.gt_scalar(0.0)?.logical_not()?,
            empty_b: b.gt_scalar(0.0)?.logical_not()?,
            smallest,
            cost,
            a,
            b,
            config,
        };
        // Two iterations in the log domain give potentials from which plain scaling is safe.
        for _ in 0..2 {
            solver.f = solver.update_f()?;
            solver.g = solver.update_g()?;
        }
        solver.reset_scalings()?;
        Ok(solver)
    }

    /// Half-step for `f` in the log domain.
    fn update_f(&self) -> Result<Tensor> {
        let epsilon = self.config.epsilon;
        let logs = self.g.unsqueeze(0)?.sub(&self.cost)?.mul_scalar(1.0 / epsilon)?.logsumexp(1)?;
        Ok(self.log_a.sub(&logs)?.mul_scalar(epsilon * self.power)?.masked_fill(&self.empty_a, f64::NEG_INFINITY)?)
    }

    /// Half-step for `g` in the log domain.
    fn update_g(&self) -> Result<Tensor> {
        let epsilon = self.config.epsilon;
        let logs = self.f.unsqueeze(1)?.sub(&self.cost)?.mul_scalar(1.0 / epsilon)?.logsumexp(0)?;
        Ok(self.log_b.sub(&logs)?.mul_scalar(epsilon * self.power)?.masked_fill(&self.empty_b, f64::NEG_INFINITY)?)
    }

    fn reset_scalings(&mut self) -> Result<()> {
        let epsilon = self.config.epsilon;
        let exponent = self.f.unsqueeze(1)?.add(&self.g.unsqueeze(0)?)?.sub(&self.cost)?;
        self.kernel = exponent.mul_scalar(1.0 / epsilon)?.exp()?;
        self.kernel_t = self.kernel.transpose(0, 1)?.contiguous()?;
        (self.u, self.v) = (self.a.ones_like()?, self.b.ones_like()?);
        let damping = |potential: &Tensor, empty: &Tensor| {
            potential.mul_scalar((self.power - 1.0) / epsilon)?.exp()?.masked_fill(empty, 0.0)
        };
        (self.damping_f, self.damping_g) = (damping(&self.f, &self.empty_a)?, damping(&self.g, &self.empty_b)?);
        Ok(())
    }

    /// Iterates until the tolerance or the limit; the number of iterations and the last error.
    fn iterate(&mut self) -> Result<(usize, f64)> {
        let is_f64 = self.cost.dtype()? == DType::F64;
        let (smallest, largest) = if is_f64 { (1e-200, 1e50) } else { (1e-30, 1e8) };
        let limit = self.config.max_iterations;
        let (mut iterations, mut error) = (2, f64::INFINITY);
        while iterations < limit.max(3) {
            let row_sums = self.kernel.matmul(&self.v)?.clamp_min(smallest)?;
            let previous_u = self.u.clone();
            self.u = self.a.div(&row_sums)?;
            if self.power < 1.0 {
                self.u = self.u.pow(self.power)?.mul(&self.damping_f)?;
            }
            self.v = self.b.div(&self.kernel_t.matmul(&self.u)?.clamp_min(smallest)?)?;
            if self.power < 1.0 {
                self.v = self.v.pow(self.power)?.mul(&self.damping_g)?;
            }
            iterations += 1;
            // On small problems a check costs a tenth of an iteration or more, so it is not done every time.
            if iterations % 10 == 0 || iterations >= limit {
                error = self.error(&previous_u)?;
                if error < self.config.tolerance {
                    break;
                }
                self.absorb(largest)?;
            }
        }
        Ok((iterations, error))
    }

    fn error(&self, previous_u: &Tensor) -> Result<f64> {
        Ok(if self.power < 1.0 {
            let log = |t: &Tensor| t.masked_fill(&self.empty_a, 1.0)?.clamp_min(self.smallest)?.log();
            log(&self.u)?.sub(&log(previous_u)?)?.abs()?.max()?.to_f64()?
        } else {
            self.u.mul(&self.kernel.matmul(&self.v)?)?.sub(&self.a)?.abs()?.sum()?.to_f64()?
        })
    }

    /// Moves the scalings into the potentials where they leave the safe range.
    fn absorb(&mut self, largest: f64) -> Result<()> {
        let (u, v) = (&self.u.masked_fill(&self.empty_a, 1.0)?, &self.v.masked_fill(&self.empty_b, 1.0)?);
        let unsafe_range = u.max()?.to_f64()?.max(v.max()?.to_f64()?) > largest
            || u.min()?.to_f64()?.min(v.min()?.to_f64()?) < 1.0 / largest;
        if unsafe_range {
            self.g = self.g.add(&v.clamp_min(self.smallest)?.log()?.mul_scalar(self.config.epsilon)?)?;
            // One iteration in the log domain repairs rounding.
            self.f = self.update_f()?;
            self.g = self.update_g()?;
            self.reset_scalings()?;
        }
        Ok(())
    }

    fn plan(&self) -> Result<Tensor> {
        Ok(self.kernel.mul(&self.u.unsqueeze(1)?)?.mul(&self.v.unsqueeze(0)?)?)
    }
}

/// Rounds a plan to the given masses: rows and columns in excess are scaled down, and the deficit is added as the outer
/// product of what rows and columns lack.
///
/// Algorithm 2 of *Near-Linear Time Approximation Algorithms for Optimal Transport via Sinkhorn Iteration* (Altschuler,
/// Weed and Rigollet, 2017, <https://arxiv.org/abs/1705.09634>).
fn round_to_marginals(plan: &Tensor, a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let scale = |mass: &Tensor, found: &Tensor| mass.div(&found.clamp_min(1e-30)?)?.clamp(0.0, 1.0);
    let plan = plan.mul(&scale(a, &plan.sum_dim(&[1], false)?)?.unsqueeze(1)?)?;
    let plan = plan.mul(&scale(b, &plan.sum_dim(&[0], false)?)?.unsqueeze(0)?)?;
    let (rows, columns) = (a.sub(&plan.sum_dim(&[1], false)?)?, b.sub(&plan.sum_dim(&[0], false)?)?);
    let deficit = rows.abs()?.sum()?.clamp_min(1e-30)?;
    Ok(plan.add(&rows.unsqueeze(1)?.mul(&columns.unsqueeze(0)?)?.div(&deficit)?)?)
}

/// Debiased Sinkhorn divergence of `x` `[n, dim]` and `y` `[m, dim]` under squared Euclidean cost: zero for equal sets,
/// non-negative, differentiable. The value of each plan is its cost plus epsilon times its divergence from the uniform
/// product plan.
///
/// From *Interpolating between Optimal Transport and MMD using Sinkhorn Divergences* (Feydy et al., 2019,
/// <https://arxiv.org/abs/1810.08278>).
///
/// # Errors
/// Those of [`sinkhorn`]; also when the dimensions differ.
pub fn sinkhorn_divergence(x: &Tensor, y: &Tensor, config: SinkhornConfig) -> Result<Tensor> {
    let value = |a: &Tensor, b: &Tensor| -> Result<Tensor> {
        let TransportPlan { plan, cost, .. } = sinkhorn(&squared_distances(a, b)?, Masses::default(), config)?;
        let uniform = 1.0 / plan.numel() as f64;
        let divergence = plan.mul(&plan.mul_scalar(1.0 / uniform)?.clamp_min(1e-30)?.log()?)?.sum()?;
        Ok(cost.add(&divergence.mul_scalar(config.epsilon)?)?)
    };
    Ok(value(x, y)?.sub(&value(x, x)?.add(&value(y, y)?)?.mul_scalar(0.5)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm_core::{Device, seed::manual_seed};
    use proptest::prelude::*;

    fn values(x: &Tensor) -> Vec<f64> {
        x.to_vec().unwrap()
    }

    fn close(a: &[f64], b: &[f64], within: f64) -> bool {
        a.len() == b.len() && a.iter().zip(b).all(|(x, y)| (x - y).abs() < within)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]
        #[test]
        fn a_plan_meets_its_masses_at_any_cost(seed in 0u64..1000, epsilon in 0.01f64..1.0) {
            manual_seed(seed);
            let cost = Tensor::rand(&[7, 5], DType::F64, Device::Cpu).unwrap().mul_scalar(3.0).unwrap();
            let a = Tensor::from_slice(&[0.1, 0.2, 0.05, 0.25, 0.15, 0.15, 0.1]).unwrap();
            let config =
                SinkhornConfig { epsilon, max_iterations: 20_000, tolerance: 1e-9, ..SinkhornConfig::default() };
            let plan = sinkhorn(&cost, Masses { rows: Some(&a), ..Masses::default() }, config).unwrap();
            let (rows, columns) = (plan.plan.sum_dim(&[1], false).unwrap(), plan.plan.sum_dim(&[0], false).unwrap());
            prop_assert!(close(&values(&rows), &values(&a), 1e-6));
            prop_assert!(close(&values(&columns), &[0.2; 5], 1e-6));
        }
    }

    /// Balanced or unbalanced transport in float64, by plain loops in the log domain.
    fn oracle(cost: &[f64], a: &[f64], b: &[f64], epsilon: f64, power: f64) -> Vec<f64> {
        let (n, m) = (a.len(), b.len());
        let (mut f, mut g) = (vec![0.0; n], vec![0.0; m]);
        let log_sum = |logs: &mut dyn Iterator<Item = f64>| {
            let logs: Vec<f64> = logs.collect();
            let most = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            most + logs.iter().map(|l| (l - most).exp()).sum::<f64>().ln()
        };
        for _ in 0..5_000 {
            for i in 0..n {
                let sum = log_sum(&mut (0..m).filter(|j| b[*j] > 0.0).map(|j| (g[j] - cost[i * m + j]) / epsilon));
                f[i] = epsilon * power * (a[i].ln() - sum);
            }
            for j in 0..m {
                let sum = log_sum(&mut (0..n).filter(|i| a[*i] > 0.0).map(|i| (f[i] - cost[i * m + j]) / epsilon));
                g[j] = epsilon * power * (b[j].ln() - sum);
            }
        }
        (0..n * m).map(|c| ((f[c / m] + g[c % m] - cost[c]) / epsilon).exp()).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]
        #[test]
        fn plans_equal_those_of_plain_loops(
            cost in prop::collection::vec(0f64..4.0, 20),
            a in prop::collection::vec(0.05f64..1.0, 5),
            b in prop::collection::vec(0.05f64..1.0, 4),
            empty in prop::option::of((0usize..5, 0usize..4)),
            epsilon in 0.1f64..1.0,
            relaxation in prop::option::of(0.05f64..5.0),
        ) {
            let (mut a, mut b) = (a, b);
            if let Some((row, column)) = empty {
                (a[row], b[column]) = (0.0, 0.0);
            }
            if relaxation.is_none() {
                let ratio = a.iter().sum::<f64>() / b.iter().sum::<f64>();
                b.iter_mut().for_each(|mass| *mass *= ratio);
            }
            let expected = oracle(&cost, &a, &b, epsilon, relaxation.map_or(1.0, |rho| rho / (rho + epsilon)));
            let config = SinkhornConfig { epsilon, marginal_relaxation: relaxation, max_iterations: 20_000, tolerance: 1e-10 };
            let all = [Tensor::from_vec(&cost, &[5, 4]), Tensor::from_slice(&a), Tensor::from_slice(&b)].map(Result::unwrap);
            for (dtype, tolerance, within) in [(DType::F64, 1e-10, 1e-6), (DType::F32, 1e-5, 1e-3)] {
                let [cost, a, b] = all.each_ref().map(|t| t.to_dtype(dtype).unwrap());
                let found = sinkhorn(&cost, Masses { rows: Some(&a), columns: Some(&b) }, SinkhornConfig { tolerance, ..config }).unwrap();
                prop_assert!(close(&values(&found.plan), &expected, within), "{dtype:?}: {found:?}\n{expected:?}");
                prop_assert!(found.marginal_error.is_finite());
            }
        }
    }

    #[test]
    fn unbalanced_transport_in_float32_ignores_what_has_no_mass() {
        let cost = Tensor::from_vec(&[0f32, 1.0, 1.0, 0.0, 0.5, 0.5], &[3, 2]).unwrap();
        let (a, b) = (Tensor::from_slice(&[0.6f32, 0.4, 0.0]).unwrap(), Tensor::from_slice(&[0.5f32, 0.5]).unwrap());
        let config = SinkhornConfig { marginal_relaxation: Some(1.0), ..SinkhornConfig::default() };
        let found = sinkhorn(&cost, Masses { rows: Some(&a), columns: Some(&b) }, config).unwrap();
        let some = a.narrow(0, 0, 2).unwrap();
        let without =
            sinkhorn(&cost.narrow(0, 0, 2).unwrap(), Masses { rows: Some(&some), columns: Some(&b) }, config).unwrap();
        let plan = values(&found.plan);
        assert!(close(&plan[..4], &values(&without.plan), 1e-6) && plan[4..] == [0.0; 2], "{found:?}");
        assert!(found.marginal_error < config.tolerance && found.iterations < config.max_iterations, "{found:?}");
        let bad = Tensor::from_slice(&[0.6f32, f32::NAN, 0.4]).unwrap();
        assert!(sinkhorn(&cost, Masses { rows: Some(&bad), columns: Some(&b) }, config).is_err());
        let negative = SinkhornConfig { marginal_relaxation: Some(-1.0), ..config };
        assert!(sinkhorn(&cost, Masses { rows: Some(&a), columns: Some(&b) }, negative).is_err());
    }

    #[test]
    fn a_plan_stopped_early_is_rounded_onto_its_masses() {
        manual_seed(5);
        let cost = Tensor::rand(&[4, 3], DType::F32, Device::Cpu).unwrap();
        let a = Tensor::from_slice(&[0.5f32, 0.0, 0.3, 0.2]).unwrap();
        let config = SinkhornConfig { epsilon: 0.02, max_iterations: 3, ..SinkhornConfig::default() };
        let plan = sinkhorn(&cost, Masses { rows: Some(&a), ..Masses::default() }, config).unwrap();
        assert!(plan.marginal_error > config.tolerance, "{plan:?}");
        let sums = |dim: i64| values(&plan.plan.sum_dim(&[dim], false).unwrap());
        assert!(close(&sums(1), &values(&a), 1e-6) && close(&sums(0), &[1.0 / 3.0; 3], 1e-6));
        assert!(plan.plan.min().unwrap().to_f64().unwrap() >= 0.0);
    }

    #[test]
    fn a_small_epsilon_gives_the_assignment_and_unbalanced_transport_destroys_distant_mass() {
        // The cheapest assignment is the anti-diagonal.
        let cost = Tensor::from_vec(&[5f64, 3.0, 1.0, 4.0, 1.0, 3.0, 1.0, 4.0, 5.0], &[3, 3]).unwrap();
        let sharp =
            SinkhornConfig { epsilon: 0.005, max_iterations: 5000, tolerance: 1e-9, ..SinkhornConfig::default() };
        let plan = sinkhorn(&cost, Masses::default(), sharp).unwrap();
        assert!((plan.cost.to_f64().unwrap() - 1.0).abs() < 1e-6, "{plan:?}");
        let far = Tensor::from_vec(&[0f64, 100.0, 100.0, 0.0], &[2, 2]).unwrap();
        let (a, b) = (Tensor::from_slice(&[0.9, 0.1]).unwrap(), Tensor::from_slice(&[0.5, 0.5]).unwrap());
        let unbalanced = SinkhornConfig { epsilon: 0.1, marginal_relaxation: Some(1.0), ..SinkhornConfig::default() };
        let plan = values(&sinkhorn(&far, Masses { rows: Some(&a), columns: Some(&b) }, unbalanced).unwrap().plan);
        assert!(plan[1] < 1e-9 && plan[2] < 1e-9 && plan[0] > 0.5 && plan[0] < 0.9, "{plan:?}");
    }

    #[test]
    fn the_divergence_of_equal_sets_is_zero_and_gradients_match_finite_differences() {
        manual_seed(1);
        let y = Tensor::randn(&[6, 2], DType::F64, Device::Cpu).unwrap();
        let x = Tensor::randn(&[5, 2], DType::F64, Device::Cpu).unwrap().set_requires_grad(true).unwrap();
        let config =
            SinkhornConfig { epsilon: 0.5, max_iterations: 5000, tolerance: 1e-12, ..SinkhornConfig::default() };
        assert!(sinkhorn_divergence(&y, &y, config).unwrap().to_f64().unwrap().abs() < 1e-9);
        let loss = sinkhorn_divergence(&x, &y, config).unwrap();
        loss.backward().unwrap();
        assert!(loss.to_f64().unwrap() > 0.0);
        let (grads, base) = (x.grad().unwrap().to_vec::<f64>().unwrap(), x.to_vec::<f64>().unwrap());
        for (index, grad) in grads.iter().enumerate() {
            let perturbed = |by: f64| {
                let mut values = base.clone();
                values[index] += by;
                let x = Tensor::from_vec(&values, &[5, 2]).unwrap();
                sinkhorn_divergence(&x, &y, config).unwrap().to_f64().unwrap()
            };
            let numeric = (perturbed(1e-5) - perturbed(-1e-5)) / 2e-5;
            assert!((grad - numeric).abs() < 1e-5, "{index}: {grad}, {numeric}");
        }
    }

    #[test]
    fn the_divergence_is_finite_where_a_plan_underflows_to_zero() {
        manual_seed(2);
        // Distant points at a small epsilon: in float32 most of the plan is exactly zero.
        let far = Tensor::randn(&[8, 3], DType::F32, Device::Cpu).unwrap().mul_scalar(30.0).unwrap();
        let other = Tensor::randn(&[8, 3], DType::F32, Device::Cpu).unwrap().mul_scalar(30.0).unwrap();
        let config = SinkhornConfig { epsilon: 0.5, ..SinkhornConfig::default() };
        let plan = sinkhorn(&squared_distances(&far, &far).unwrap(), Masses::default(), config).unwrap().plan;
        assert_eq!(plan.min().unwrap().to_f64().unwrap(), 0.0);
        assert!(sinkhorn_divergence(&far, &other, config).unwrap().to_f64().unwrap() > 0.0);
    }
}
