//! Two arrays of features whose rows belong together → one space in which each finds the other, by any of mm-align's methods; the best
//! settings by validation inside the training rows.

use crate::{
    Error, Result,
    metrics::{RetrievalMetrics, retrieval_metrics},
};
use mm_align::{
    contrastive::{self, Similarity},
    correlation::{self, Kernel, KernelProjections},
    discrepancy::{self, Estimate},
    supervised::{Logistic, joint_features, semantic},
};
use mm_core::{
    DType, Device, Module, Params, Tensor,
    nn::Linear,
    no_grad,
    seed::{Rng, manual_seed, mix},
};
use mm_train::{Optimizer, OptimizerConfig};
use serde::Serialize;
use std::collections::BTreeMap;

/// A method by its name, and what it is.
pub const METHODS: &[(&str, &str)] = &[
    ("cca", "canonical correlations with a ridge (Hotelling 1936, Vinod 1976)"),
    ("pls", "partial least squares: directions of largest covariance (Wold 1985)"),
    ("kcca", "kernel CCA with Gaussian kernels of the median distance (Hardoon 2004)"),
    ("cca3", "three-view CCA, the labels as the third set (Gong 2014); wants labels"),
    ("sm", "semantic matching: class probabilities by logistic regression (Rasiwasia 2010); wants labels"),
    ("scm", "semantic matching on canonical variables (Rasiwasia 2010); wants labels"),
    ("jfs", "both sets regressed onto the labels together, with joint feature selection (Wang 2013); wants labels"),
    ("ridge", "the first set mapped onto the second by ridge regression"),
    (
        "procrustes",
        "an orthogonal map between principal components (Schönemann 1966); with --known, grown from few pairs (Conneau 2018)",
    ),
    ("infonce", "two networks, contrastive loss over the batch (van den Oord 2018)"),
    ("siglip", "two networks, each pair judged by itself (Zhai 2023)"),
    ("triplet", "two networks, hardest negatives (Faghri 2018)"),
    ("cyclip", "two networks, InfoNCE with symmetric cosines (Goel 2022)"),
    ("barlow", "two networks, Barlow Twins (Zbontar 2021)"),
    ("vicreg", "two networks, VICReg (Bardes 2022)"),
    ("dcca", "two networks, deep CCA (Andrew 2013)"),
    ("dccae", "two networks, deep CCA, and each set rebuilt from its own half (Wang 2015)"),
    ("infonce-mmd", "InfoNCE, and the discrepancy of both sides made small (Gretton 2012)"),
    ("infonce-coral", "InfoNCE, and their covariances brought together (Sun 2016)"),
    ("supcon", "two networks, all rows of a label are partners (Khosla 2020); wants labels"),
];

/// What `method = "auto"` tries: what is fitted in closed form.
const QUICK: &[&str] = &["cca", "pls", "kcca", "cca3", "sm", "scm", "jfs", "ridge", "procrustes"];

/// Rows of training features.
pub struct Pairs {
    /// `[rows, width]`.
    pub a: Tensor,
    /// `[rows, width]`.
    pub b: Tensor,
    /// Class numbers from 0, where they are known.
    pub labels: Option<Vec<i64>>,
    /// Rows of either set whose partners are not known, in any order; `procrustes` learns from them too.
    pub loose: Option<[Tensor; 2]>,
}

impl Pairs {
    /// Checks that rows belong together and every number is one; labels become class numbers from 0.
    pub fn new(a: Tensor, b: Tensor, labels: Option<&Tensor>) -> Result<Self> {
        for (name, x) in [("a", &a), ("b", &b)] {
            let shape = x.shape();
            let numbers = matches!(x.dtype()?, DType::F32 | DType::F64);
            if shape.len() != 2 || shape.contains(&0) || !numbers {
                let found = format!("{:?} {shape:?}", x.dtype()?);
                return Err(Error::Config(format!("{name}: found {found}, wanted float32 or float64 [rows, width]")));
            }
            if x.isfinite()?.to_dtype(DType::F32)?.min()?.to_f64()? < 0.5 {
                let place = x.to_vec::<f64>()?.iter().position(|v| !v.is_finite()).unwrap_or(0) as i64;
                let (row, column) = (place / shape[1], place % shape[1]);
                return Err(Error::Config(format!(
                    "{name}: row {row}, column {column} is infinite or no number; fill or drop such rows first"
                )));
            }
        }
        if a.size(0)? != b.size(0)? {
            let found = format!("{} and {} rows", a.size(0)?, b.size(0)?);
            return Err(Error::Config(format!(
                "a and b: found {found}, wanted as many: row i of one belongs with row i of the other"
            )));
        }
        let labels = labels.map(|l| classes(l, a.size(0)?)).transpose()?;
        Ok(Self { a: a.to_dtype(DType::F64)?, b: b.to_dtype(DType::F64)?, labels, loose: None })
    }

    fn rows(&self) -> Result<i64> {
        Ok(self.a.size(0)?)
    }

    /// Some of the rows.
    pub fn pick(&self, places: &[i64]) -> Result<Self> {
        let index = Tensor::from_slice(places)?;
        let labels = self.labels.as_ref().map(|l| places.iter().map(|p| l[*p as usize]).collect());
        let loose = self.loose.clone();
        Ok(Self { a: self.a.index_select(0, &index)?, b: self.b.index_select(0, &index)?, labels, loose })
    }

    /// Only so many pairs stay known, a seeded choice; the rest become two heaps without an order.
    pub fn forget_all_but(&self, known: usize, seed: u64) -> Result<Self> {
        let rows = self.rows()?;
        if known < 4 || known as i64 > rows {
            return Err(Error::Config(format!("known: found {known}, wanted 4 to {rows}, the rows to fit on")));
        }
        let mut order: Vec<i64> = (0..rows).collect();
        Rng::at(&[seed, 31]).shuffle(&mut order);
        let (pairs, rest) = order.split_at(known);
        let mut other = rest.to_vec();
        Rng::at(&[seed, 37]).shuffle(&mut other);
        let heap = |x: &Tensor, places: &[i64]| x.index_select(0, &Tensor::from_slice(places)?);
        Ok(Self { loose: Some([heap(&self.a, rest)?, heap(&self.b, &other)?]), ..self.pick(pairs)? })
    }

    /// A seeded part held out: (the rest, the part).
    pub fn hold_out(&self, share: f64, seed: u64) -> Result<(Self, Self)> {
        let rows = self.rows()?;
        let held = ((rows as f64 * share).round() as i64).clamp(1, rows - 1);
        let mut order: Vec<i64> = (0..rows).collect();
        Rng::at(&[seed, 29]).shuffle(&mut order);
        Ok((self.pick(&order[held as usize..])?, self.pick(&order[..held as usize])?))
    }

    fn classes(&self) -> i64 {
        self.labels.iter().flatten().max().map_or(0, |m| m + 1)
    }
}

/// Labels as class numbers from 0, in the order of their values; whole numbers are wanted, one a row.
fn classes(labels: &Tensor, rows: i64) -> Result<Vec<i64>> {
    let flat = labels.squeeze(-1).ok().filter(|l| l.rank() == 1).unwrap_or_else(|| labels.clone());
    if flat.rank() != 1 || flat.size(0)? != rows || flat.dtype()? != DType::I64 {
        let found = format!("{:?} {:?}", labels.dtype()?, labels.shape());
        return Err(Error::Config(format!(
            "labels: found {found}, wanted {rows} whole numbers (int64), one for each row"
        )));
    }
    Ok(flat.to_vec::<i64>()?)
}

/// Labels of training and test rows share their numbering: whatever values they have become 0, 1, 2 …
pub fn renumber(all: &mut [&mut Option<Vec<i64>>]) {
    let mut known: Vec<i64> = all.iter().flat_map(|l| l.iter().flatten().copied()).collect();
    known.sort_unstable();
    known.dedup();
    for labels in all.iter_mut().filter_map(|l| l.as_mut()) {
        labels.iter_mut().for_each(|l| *l = known.binary_search(l).unwrap_or(0) as i64);
    }
}

/// One side of a fitted method, step by step.
enum Step {
    /// Square roots: of histograms and other shares a better measure (Hellinger).
    Root,
    /// Less a mean, times a map.
    Affine(Tensor, Tensor),
    /// Class probabilities, as rows whose dot product compares distributions.
    Semantic(Logistic),
    Kernel(std::rc::Rc<KernelProjections>, usize),
    Network(Box<Side>),
}

impl Step {
    fn apply(&self, x: &Tensor) -> Result<Tensor> {
        Ok(match self {
            Self::Root => x.clamp_min(0.0)?.sqrt()?,
            Self::Affine(mean, map) => x.sub(mean)?.matmul(map)?,
            Self::Semantic(model) => semantic(model, x)?,
            Self::Kernel(fit, side) => fit.project(*side, x)?,
            Self::Network(side) => no_grad(|| side.forward(x, false))?.to_dtype(DType::F64)?,
        })
    }
}

/// A fitted method: rows of either side → the common space, to be compared by cosines.
pub struct Fitted {
    sides: [Vec<Step>; 2],
    /// The method.
    pub method: String,
    /// Its dimensions.
    pub dim: i64,
    /// Its regularisation; 0 where it has none.
    pub reg: f64,
    /// Of which sides square roots were taken first.
    pub root: [bool; 2],
}

impl Fitted {
    /// `[rows, width]` of side 0 or 1 → `[rows, dim]` of unit length, float64.
    pub fn project(&self, side: usize, x: &Tensor) -> Result<Tensor> {
        Ok(self.through(side, x)?.normalize()?)
    }

    fn through(&self, side: usize, x: &Tensor) -> Result<Tensor> {
        let mut x = x.to_dtype(DType::F64)?;
        for step in &self.sides[side.min(1)] {
            x = step.apply(&x)?;
        }
        Ok(x)
    }

    /// The mean and map of each side where the method is one affine map a side: what can be saved for other programs.
    pub fn affine(&self) -> Option<[(&Tensor, &Tensor); 2]> {
        match (self.sides[0].as_slice(), self.sides[1].as_slice()) {
            ([Step::Affine(ma, a)], [Step::Affine(mb, b)]) => Some([(ma, a), (mb, b)]),
            _ => None,
        }
    }
}

/// What is asked of a fit.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Dimensions; chosen inside when absent.
    pub dim: Option<i64>,
    /// Regularisation; chosen inside when absent.
    pub reg: Option<f64>,
    /// Seed of inner splits and networks.
    pub seed: u64,
}

/// One setting that was tried on the inner validation rows.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Tried {
    /// The method.
    pub method: String,
    /// Its regularisation.
    pub reg: f64,
    /// Its dimensions.
    pub dim: i64,
    /// Of which sides square roots were taken first.
    pub root: [bool; 2],
    /// Mean of both directions' mean average precision there.
    pub map: f64,
}

/// Figures of one pair of sides.
#[derive(Debug, Clone, Serialize)]
pub struct Scores {
    /// The second side found from the first.
    pub a2b: RetrievalMetrics,
    /// The first from the second.
    pub b2a: RetrievalMetrics,
    /// The same with rows of a label counted as right; of the rows alone where there are no labels.
    pub by_label: [f64; 2],
    /// Mean average precision of random orders, likewise.
    pub chance: [f64; 2],
}

/// How well each side of held-out pairs finds the other.
pub fn measure(fitted: &Fitted, pairs: &Pairs) -> Result<Scores> {
    let (a, b) = (fitted.project(0, &pairs.a)?, fitted.project(1, &pairs.b)?);
    let same = |p: usize, q: usize| p == q;
    let labels = pairs.labels.as_deref();
    let (a2b, b2a) = (retrieval_metrics(&a, &b, same)?, retrieval_metrics(&b, &a, same)?);
    let by_label = maps(&a, &b, labels)?;
    // Random directions rank at random.
    let rows = pairs.rows()?;
    manual_seed(7);
    let random = || Tensor::randn(&[rows, 64], DType::F64, Device::Cpu)?.normalize();
    let chance = maps(&random()?, &random()?, labels)?;
    Ok(Scores { a2b, b2a, by_label, chance })
}

/// Mean average precision both ways over the whole ranking, rows of a label counted as right, or each row's own alone.
fn maps(a: &Tensor, b: &Tensor, labels: Option<&[i64]>) -> Result<[f64; 2]> {
    let alike = |p: usize, q: usize| labels.map_or(p == q, |l| l[p] == l[q]);
    Ok([retrieval_metrics(a, b, alike)?.map, retrieval_metrics(b, a, alike)?.map])
}

fn needs_labels(method: &str) -> bool {
    ["cca3", "sm", "scm", "jfs", "supcon"].contains(&method)
}

/// Regularisations that are tried, by method.
fn grid(method: &str) -> &'static [f64] {
    match method {
        "cca" | "cca3" => &[1e-4, 1e-3, 1e-2, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0],
        "kcca" => &[0.1, 1.0, 10.0, 100.0],
        "sm" => &[1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3],
        "scm" => &[1e-3, 1e-2, 0.1, 1.0],
        "jfs" => &[1e-4, 1e-3, 1e-2, 3e-2, 0.1],
        "ridge" => &[1e-4, 1e-2, 0.1, 1.0, 10.0],
        _ => &[0.0],
    }
}

/// Fits a method, or the best of the quick ones when it is `auto`; what was tried inside comes beside it.
pub fn fit(method: &str, pairs: &Pairs, wanted: &Wanted) -> Result<(Fitted, Vec<Tried>)> {
    let known = METHODS.iter().map(|(n, _)| *n).chain(["auto"]);
    if method != "auto" && !METHODS.iter().any(|(n, _)| *n == method) {
        return Err(mm_core::Error::unknown("method", method, known).into());
    }
    if needs_labels(method) && pairs.labels.is_none() {
        return Err(Error::Config(format!("method {method} wants labels (--labels)")));
    }
    if let Some(reg) = wanted.reg.filter(|r| !(r.is_finite() && *r >= 0.0)) {
        return Err(Error::Config(format!("reg: found {reg}, wanted auto or a number of at least 0")));
    }
    if pairs.rows()? < 4 {
        return Err(Error::Config(format!("found {} pairs of rows, wanted at least 4", pairs.rows()?)));
    }
    let methods: Vec<&str> = if method == "auto" {
        QUICK
            .iter()
            .copied()
            .filter(|m| pairs.labels.is_some() || !needs_labels(m))
            .filter(|m| *m != "kcca" || pairs.rows().is_ok_and(|r| r <= 3000))
            .collect()
    } else {
        vec![method]
    };
    // Nothing to choose: nothing is held back, and what learns does not learn twice.
    if let [one] = methods.as_slice() {
        let learned = !QUICK.contains(one);
        let reg = wanted.reg.or(learned.then_some(0.0));
        let dim_is_said = wanted.dim.is_some() || (learned && !is_deep_cca(one));
        if let (Some(reg), true) = (reg, dim_is_said) {
            return Ok((fit_one(one, pairs, wanted.dim, reg, [false; 2], wanted.seed)?, Vec::new()));
        }
    }
    let (inner, held) = pairs.hold_out(0.2, wanted.seed)?;
    // Roots are for sides without a negative number; the other side stays as it is.
    let positive = [pairs.a.min()?.to_f64()? >= 0.0, pairs.b.min()?.to_f64()? >= 0.0];
    let shares = positive.contains(&true);
    let mut tried = Vec::new();
    for method in methods {
        let regs = wanted.reg.map_or_else(|| grid(method).to_vec(), |r| vec![r]);
        let deep = !QUICK.contains(&method);
        let rooted = shares && wanted.reg.is_none() && !deep;
        for root in if rooted { vec![[false; 2], positive] } else { vec![[false; 2]] } {
            for reg in &regs {
                // A setting that cannot be fitted on these rows is none to choose.
                let fitted = match fit_one(method, &inner, wanted.dim, *reg, root, wanted.seed) {
                    Ok(fitted) => fitted,
                    Err(error) if regs.len() == 1 && !shares => return Err(error),
                    Err(_) => continue,
                };
                let most = fitted.dim;
                let mut dims = vec![most];
                if wanted.dim.is_none() && fitted.affine_end() {
                    dims.extend([2, 4, 8, 16, 32, 64, 128].iter().copied().filter(|d| *d < most));
                }
                let (a, b) = (fitted.through(0, &held.a)?, fitted.through(1, &held.b)?);
                for dim in dims {
                    let cut = |x: &Tensor| x.narrow(1, 0, dim.min(x.size(1)?))?.normalize();
                    let [forth, back] = maps(&cut(&a)?, &cut(&b)?, held.labels.as_deref())?;
                    let map = f64::midpoint(forth, back);
                    tried.push(Tried { method: method.into(), reg: *reg, dim, root, map });
                }
            }
        }
    }
    let best = tried.iter().max_by(|x, y| x.map.total_cmp(&y.map)).cloned();
    let Some(best) = best else {
        // The error of the first setting says why.
        return Err(fit_one(method, &inner, wanted.dim, wanted.reg.unwrap_or(0.1), [false; 2], wanted.seed)
            .err()
            .unwrap_or_else(|| Error::Config(format!("method {method} could be fitted with no setting"))));
    };
    let fitted = fit_one(&best.method, pairs, wanted.dim, best.reg, best.root, wanted.seed)?.narrowed(best.dim)?;
    Ok((fitted, tried))
}

impl Fitted {
    /// Whether its dimensions are in an order that can be cut.
    fn affine_end(&self) -> bool {
        matches!(self.sides[0].last(), Some(Step::Affine(..)))
            && !["jfs", "ridge", "procrustes"].contains(&self.method.as_str())
    }

    fn narrowed(mut self, dim: i64) -> Result<Self> {
        let dim = dim.min(self.dim);
        if dim == self.dim {
            return Ok(self);
        }
        for side in &mut self.sides {
            if let Some(Step::Affine(_, map)) = side.last_mut() {
                *map = map.narrow(1, 0, dim)?;
            }
        }
        self.dim = dim;
        Ok(self)
    }
}

fn steps(sets: &[(Tensor, Tensor)], root: [bool; 2]) -> [Vec<Step>; 2] {
    let side = |number: usize| {
        let (mean, map) = &sets[number];
        let mut steps = if root[number] { vec![Step::Root] } else { Vec::new() };
        steps.push(Step::Affine(mean.clone(), map.clone()));
        steps
    };
    [side(0), side(1)]
}

fn fit_one(method: &str, pairs: &Pairs, dim: Option<i64>, reg: f64, root: [bool; 2], seed: u64) -> Result<Fitted> {
    let rooted =
        |x: &Tensor, root: bool| -> Result<Tensor> { if root { Ok(x.clamp_min(0.0)?.sqrt()?) } else { Ok(x.clone()) } };
    let (a, b) = (rooted(&pairs.a, root[0])?, rooted(&pairs.b, root[1])?);
    let labels = pairs.labels.as_deref();
    let made = |sides: [Vec<Step>; 2], dim: i64| Fitted { sides, method: method.to_owned(), dim, reg, root };
    let first = |side: usize| if root[side] { vec![Step::Root] } else { Vec::new() };
    let semantic_sides = |x: &Tensor, y: &Tensor, before: [Vec<Step>; 2], penalty: f64| -> Result<Fitted> {
        let (labels, classes) = (labels.unwrap_or_default(), pairs.classes());
        let [mut left, mut right] = before;
        left.push(Step::Semantic(Logistic::fit(x, labels, classes, penalty)?));
        right.push(Step::Semantic(Logistic::fit(y, labels, classes, penalty)?));
        Ok(made([left, right], classes))
    };
    match method {
        "cca" => {
            // Canonical variables that correlate more count more in a cosine.
            let fit = correlation::cca(&a, &b, dim, [reg; 2])?.weighted(1.0)?;
            Ok(made(steps(&fit.sets, root), fit.values.size(0)?))
        }
        "pls" => {
            let fit = correlation::pls(&a, &b, dim)?;
            Ok(made(steps(&fit.sets, root), fit.values.size(0)?))
        }
        "cca3" => {
            let classes = pairs.classes();
            let hot = Tensor::from_slice(labels.unwrap_or_default())?.one_hot(classes)?.to_dtype(DType::F64)?;
            let most = (classes - 1).max(1);
            let fit = correlation::gcca(&[&a, &b, &hot], Some(dim.unwrap_or(most)), reg)?;
            let fit = fit.weighted(2.0)?;
            Ok(made(steps(&fit.sets, root), fit.values.size(0)?))
        }
        "kcca" => {
            let kernel =
                |x: &Tensor| -> Result<Kernel> { Ok(Kernel::Gaussian { width: correlation::median_distance(x)? }) };
            let fit = correlation::kernel_cca(&a, &b, [kernel(&a)?, kernel(&b)?], dim, reg)?.narrowed(128)?;
            let dim = fit.values.size(0)?;
            let fit = std::rc::Rc::new(fit);
            let side = |number: usize| {
                let mut steps = first(number);
                steps.push(Step::Kernel(fit.clone(), number));
                steps
            };
            Ok(made([side(0), side(1)], dim))
        }
        "sm" => semantic_sides(&a, &b, [first(0), first(1)], reg),
        "scm" => {
            let fit = correlation::cca(&a, &b, dim, [reg; 2])?;
            semantic_sides(&fit.project(0, &a)?, &fit.project(1, &b)?, steps(&fit.sets, root), 1e-2)
        }
        "jfs" => {
            let classes = pairs.classes();
            let fit = joint_features(&[&a, &b], labels.unwrap_or_default(), classes, reg, reg)?;
            Ok(made(steps(&fit.sets, root), classes))
        }
        "ridge" => {
            let (ma, mb) = (a.mean_dims(&[0], true)?, b.mean_dims(&[0], true)?);
            let (x, y) = (a.sub(&ma)?, b.sub(&mb)?);
            let turned = x.transpose(0, 1)?;
            let product = turned.matmul(&x)?;
            let level = product.diagonal()?.mean()?.to_f64()?.max(1e-12);
            let width = x.size(1)?;
            let eye = Tensor::eye(width, DType::F64, Device::Cpu)?.mul_scalar(reg.max(1e-9) * level)?;
            let map = product.add(&eye)?.solve(&turned.matmul(&y)?)?;
            let dim = b.size(1)?;
            let (mut left, mut right) = (first(0), first(1));
            left.push(Step::Affine(ma, map));
            right.push(Step::Affine(mb, Tensor::eye(dim, DType::F64, Device::Cpu)?));
            Ok(made([left, right], dim))
        }
        "procrustes" => {
            let loose = match &pairs.loose {
                Some([la, lb]) => [rooted(la, root[0])?, rooted(lb, root[1])?],
                None => [a.narrow(0, 0, 0)?, b.narrow(0, 0, 0)?],
            };
            let (all_a, all_b) = (Tensor::cat(&[&a, &loose[0]], 0)?, Tensor::cat(&[&b, &loose[1]], 0)?);
            let rank = a.size(1)?.min(b.size(1)?).min(all_a.size(0)? - 1).min(all_b.size(0)? - 1);
            let keep = dim.unwrap_or(rank);
            if !(1..=rank).contains(&keep) {
                return Err(Error::Config(format!(
                    "dim: found {keep}, wanted 1 to {rank}, the rank of these features"
                )));
            }
            let (pa, pb) =
                (correlation::pls(&all_a, &all_a, Some(keep))?, correlation::pls(&all_b, &all_b, Some(keep))?);
            let (known_a, known_b) = (pa.project(0, &a)?, pb.project(0, &b)?);
            let map = if pairs.loose.is_some() {
                let heaps = [&pa.project(0, &loose[0])?, &pb.project(0, &loose[1])?];
                correlation::procrustes_from_few([&known_a, &known_b], heaps, 10, 20)?.map
            } else {
                correlation::procrustes(&known_a, &known_b)?
            };
            let ((ma, wa), (mb, wb)) = (&pa.sets[0], &pb.sets[0]);
            let (mut left, mut right) = (first(0), first(1));
            left.push(Step::Affine(ma.clone(), wa.matmul(&map)?));
            right.push(Step::Affine(mb.clone(), wb.clone()));
            Ok(made([left, right], keep))
        }
        deep => {
            let dim = dim.unwrap_or_else(|| 128.min(a.size(1).unwrap_or(1)).min(b.size(1).unwrap_or(1)).max(8));
            let [left, right] = learn(deep, &a, &b, labels, dim, seed)?;
            let mut sides = [vec![Step::Network(Box::new(left))], vec![Step::Network(Box::new(right))]];
            if is_deep_cca(deep) {
                // Its loss does not care how either side is turned: the canonical variables of what was learned are the common space.
                let made = |side: usize, x: &Tensor| sides[side][0].apply(x);
                let fit = correlation::cca(&made(0, &a)?, &made(1, &b)?, None, [0.1; 2])?.weighted(1.0)?;
                for (side, (mean, map)) in sides.iter_mut().zip(&fit.sets) {
                    side.push(Step::Affine(mean.clone(), map.clone()));
                }
            }
            Ok(made(sides, dim))
        }
    }
}

/// One side of a learned method: standardised, two layers.
struct Side {
    mean: Tensor,
    deviation: Tensor,
    first: Linear,
    second: Linear,
    skip: Linear,
}

impl Side {
    fn new(scope: &mm_core::Scope<'_>, x: &Tensor, dim: i64) -> Result<Self> {
        let width = x.size(1)?;
        Ok(Self {
            mean: x.mean_dims(&[0], true)?.to_dtype(DType::F32)?,
            deviation: x.std_dims(&[0], false, true)?.add_scalar(1e-6)?.to_dtype(DType::F32)?,
            first: Linear::new(&scope.pp("fc1"), width, 256, true)?,
            second: Linear::new(&scope.pp("fc2"), 256, dim, true)?,
            skip: Linear::new(&scope.pp("skip"), width, dim, false)?,
        })
    }

    /// Standardised by the training rows.
    fn level(&self, x: &Tensor) -> mm_core::Result<Tensor> {
        x.to_dtype(DType::F32)?.sub(&self.mean)?.div(&self.deviation)
    }

    fn forward(&self, x: &Tensor, train: bool) -> mm_core::Result<Tensor> {
        let x = self.level(x)?.dropout(0.3, train)?;
        let hidden = self.first.forward(&x, train)?.gelu()?.dropout(0.3, train)?;
        self.second.forward(&hidden, train)?.add(&self.skip.forward(&x, train)?)
    }
}

/// Whether a learned method ends in canonical variables of what it learned.
fn is_deep_cca(method: &str) -> bool {
    matches!(method, "dcca" | "dccae")
}

/// Weight of what is rebuilt beside the correlations, which are as many as there are dimensions.
const REBUILT: f64 = 10.0;

/// Two networks by one of the losses: 60 passes in batches of 256 (deep CCA wants many rows for its covariances: 512).
fn learn(kind: &str, a: &Tensor, b: &Tensor, labels: Option<&[i64]>, dim: i64, seed: u64) -> Result<[Side; 2]> {
    manual_seed(seed);
    let params = Params::new(Device::Cpu);
    let root = params.scope();
    let sides = [Side::new(&root.pp("a"), a, dim)?, Side::new(&root.pp("b"), b, dim)?];
    // Of deep CCA with reconstruction alone: they are forgotten afterwards.
    let mut decoders = Vec::new();
    if kind == "dccae" {
        for (name, x) in [("a", a), ("b", b)] {
            decoders.push(Linear::new(&root.pp("decoder").pp(name), dim, x.size(1)?, true)?);
        }
    }
    let scale = root.param("logit_scale", &[1], mm_core::Init::Constant((1.0f64 / 0.07).ln()))?;
    let bias = root.param("logit_bias", &[1], mm_core::Init::Constant(-10.0))?;
    let mut optimizer =
        Optimizer::new(&OptimizerConfig { lr: 1e-3, weight_decay: 0.05, ..OptimizerConfig::default() }, &params)?;
    let (a, b) = (a.to_dtype(DType::F32)?, b.to_dtype(DType::F32)?);
    let rows = a.size(0)? as usize;
    let batch = (if is_deep_cca(kind) { 512 } else { 256 }).min(rows);
    let (epochs, batches) = (60, rows.div_ceil(batch).max(1));
    let steps = (epochs * rows / batch).max(1);
    let mut order: Vec<i64> = (0..rows as i64).collect();
    let mut step = 0;
    for epoch in 0..epochs as u64 {
        Rng::at(&[seed, epoch]).shuffle(&mut order);
        for places in order.chunks(batch).take(batches) {
            if places.len() < 2 || step >= steps {
                continue;
            }
            manual_seed(mix(&[seed, epoch, step as u64]));
            let index = Tensor::from_slice(places)?;
            let x = sides[0].forward(&a.index_select(0, &index)?, true)?;
            let y = sides[1].forward(&b.index_select(0, &index)?, true)?;
            let sharp = scale.clamp(0.0, 100f64.ln())?.exp()?;
            let cosines = Similarity::cosine(&x, &y)?;
            let nce = || contrastive::info_nce(&cosines, &sharp, None, 0.0);
            let loss = match kind {
                "siglip" => contrastive::sigmoid(&cosines, &sharp, &bias, None)?,
                "triplet" => contrastive::triplet(&cosines, 0.2, None)?,
                "cyclip" => nce()?.add(&contrastive::cyclic(&x, &y)?.mul_scalar(0.25 * places.len() as f64)?)?,
                "barlow" => contrastive::barlow_twins(&x, &y, 0.005)?,
                "vicreg" => contrastive::vicreg(&x, &y)?,
                deep if is_deep_cca(deep) => {
                    let mut loss = correlation::deep_cca_loss(&x, &y, 1e-1)?;
                    for ((side, decoder), (code, plain)) in sides.iter().zip(&decoders).zip([(&x, &a), (&y, &b)]) {
                        let wanted = side.level(&plain.index_select(0, &index)?)?;
                        let off = decoder.forward(code, true)?.sub(&wanted)?.pow(2.0)?.mean()?;
                        loss = loss.add(&off.mul_scalar(REBUILT)?)?;
                    }
                    loss
                }
                "infonce-mmd" => {
                    let (u, v) = (x.normalize()?, y.normalize()?);
                    let kernels = discrepancy::kernels_around_median(&u, &v)?;
                    nce()?.add(&discrepancy::mmd(&u, &v, &kernels, Estimate::Biased)?.mul_scalar(5.0)?)?
                }
                "infonce-coral" => {
                    let (u, v) = (x.normalize()?, y.normalize()?);
                    nce()?.add(&discrepancy::coral(&u, &v)?.mul_scalar(1e4)?)?
                }
                "supcon" => {
                    let labels = labels.unwrap_or_default();
                    let own: Vec<i64> = places.iter().map(|p| labels[*p as usize]).collect();
                    let own = Tensor::from_slice(&own)?;
                    let same = own.unsqueeze(0)?.eq(&own.unsqueeze(1)?)?;
                    contrastive::supervised(&cosines, &sharp, &same)?
                }
                _ => nce()?,
            };
            optimizer.zero_grad();
            loss.backward()?;
            let factor = 0.5 * (1.0 + (std::f64::consts::PI * step as f64 / steps as f64).cos());
            optimizer.step(factor.max(0.01), 1.0)?;
            step += 1;
        }
    }
    Ok(sides)
}

/// Recall at 1, 5 and 10 by its place.
pub fn recalls(metrics: &RetrievalMetrics, chance: bool) -> BTreeMap<String, f64> {
    let values = if chance { metrics.chance } else { metrics.recall };
    ["1", "5", "10"].into_iter().map(ToOwned::to_owned).zip(values).collect()
}
