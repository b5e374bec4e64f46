//! Grid search over methods and their hyper-parameters.

use super::{
    data::{MIN_PAIRS, hold_out},
    evaluate::mean_average_precision,
};
use crate::{Error, Result};
use mm_align::{Alignment, AlignmentMethod, FitOptions, MethodRegistry, PairedFeatures, SquareRoot};
use mm_core::Tensor;
use serde::Serialize;

/// Name under which [`search`] tries all closed-form methods.
pub const AUTO: &str = "auto";

/// Fraction of the training pairs that settings are compared on.
const VALIDATION_FRACTION: f64 = 0.2;

/// Dimensions that are tried where they can be truncated.
const DIMS: [i64; 7] = [2, 4, 8, 16, 32, 64, 128];

/// Settings that the user fixes; the others are searched.
#[derive(Debug, Clone)]
pub struct SearchOptions {
    /// Dimension of the shared space; searched if absent.
    pub dim: Option<i64>,
    /// Regularization; searched if absent.
    pub regularization: Option<f64>,
    /// Seed of the validation split and of networks.
    pub seed: u64,
}

/// One setting tried on the validation pairs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Trial {
    /// The method.
    pub method: String,
    /// The regularization, 0 where it has none.
    pub regularization: f64,
    /// The dimension.
    pub dim: i64,
    /// Of which modality (a, b) square roots were taken first.
    pub square_root: [bool; 2],
    /// Validation mean average precision, mean of both directions.
    pub mean_average_precision: f64,
}

/// A fitted method with its settings.
pub struct FittedAlignment {
    /// The method.
    pub method: String,
    /// Both projections.
    pub alignment: Alignment,
    /// The regularization, 0 where it has none.
    pub regularization: f64,
    /// Of which modality (a, b) square roots are taken first.
    pub square_root: [bool; 2],
}

impl FittedAlignment {
    /// Projects features `[rows, dim]` of modality 0 (a) or 1 (b) into the shared space, unit length, float64.
    pub fn project(&self, modality: usize, x: &Tensor) -> Result<Tensor> {
        Ok(self.unnormalized(modality, x)?.normalize()?)
    }

    fn unnormalized(&self, modality: usize, x: &Tensor) -> Result<Tensor> {
        let projection = if modality == 0 { &self.alignment.project_a } else { &self.alignment.project_b };
        Ok(projection.apply(x)?)
    }

    fn truncate(self, dim: i64) -> Result<Self> {
        Ok(Self { alignment: self.alignment.truncate(dim)?, ..self })
    }
}

/// One point of the grid.
struct Setting<'a> {
    method: &'a dyn AlignmentMethod,
    regularization: f64,
    square_root: [bool; 2],
}

impl Setting<'_> {
    fn fit(&self, pairs: &PairedFeatures, options: &SearchOptions) -> Result<FittedAlignment> {
        let rooted = |x: &Tensor, root: bool| -> Result<Tensor> {
            if root { Ok(x.clamp_min(0.0)?.sqrt()?) } else { Ok(x.clone()) }
        };
        let [root_a, root_b] = self.square_root;
        let unpaired = match &pairs.unpaired {
            Some([a, b]) => Some([rooted(a, root_a)?, rooted(b, root_b)?]),
            None => None,
        };
        let (a, b) = (rooted(&pairs.a, root_a)?, rooted(&pairs.b, root_b)?);
        let input = PairedFeatures { a, b, labels: pairs.labels.clone(), unpaired };
        let fit_options = FitOptions { dim: options.dim, regularization: self.regularization, seed: options.seed };
        let mut alignment = self.method.fit(&input, &fit_options)?;
        if root_a {
            alignment.project_a = alignment.project_a.after(SquareRoot);
        }
        if root_b {
            alignment.project_b = alignment.project_b.after(SquareRoot);
        }
        Ok(FittedAlignment {
            method: self.method.name().to_owned(),
            alignment,
            regularization: self.regularization,
            square_root: self.square_root,
        })
    }
}

/// Fits a method by name, or the best closed-form method for [`AUTO`]. What the options leave open is chosen by the
/// mean average precision on held-out training pairs; the best setting is then fitted on all pairs. Returns the trials
/// too (none where nothing was open).
///
/// # Errors
/// When the method is unknown or needs labels that are absent, an option is out of range, there are fewer than four
/// pairs, or no setting can be fitted.
pub fn search(
    registry: &MethodRegistry,
    method: &str,
    pairs: &PairedFeatures,
    options: &SearchOptions,
) -> Result<(FittedAlignment, Vec<Trial>)> {
    let methods = candidates(registry, method, pairs)?;
    if let Some(value) = options.regularization.filter(|r| !(r.is_finite() && *r >= 0.0)) {
        return Err(Error::Config(format!("regularization: found {value}, expected auto or a number of at least 0")));
    }
    if let Some(dim) = options.dim.filter(|dim| *dim < 1) {
        return Err(Error::invalid("dim", dim, "at least 1"));
    }
    if pairs.rows()? < MIN_PAIRS {
        return Err(Error::Config(format!("found {} pairs of rows, expected at least {MIN_PAIRS}", pairs.rows()?)));
    }
    if let [method] = methods.as_slice()
        && let Some(regularization) = fixed(*method, options)
    {
        let setting = Setting { method: *method, regularization, square_root: [false; 2] };
        return Ok((setting.fit(pairs, options)?, Vec::new()));
    }
    let (train, valid) = hold_out(pairs, VALIDATION_FRACTION, options.seed)?;
    // Square roots are tried on modalities without negative values.
    let non_negative = [pairs.a.min()?.to_f64()? >= 0.0, pairs.b.min()?.to_f64()? >= 0.0];
    let mut trials: Vec<(Setting<'_>, Trial)> = Vec::new();
    let mut first_error = None;
    for setting in grid(&methods, non_negative, options) {
        match setting.fit(&train, options).and_then(|fitted| try_dims(&fitted, &valid, options)) {
            Ok(found) => {
                let method = setting.method;
                trials.extend(found.into_iter().map(|trial| {
                    let setting =
                        Setting { method, regularization: trial.regularization, square_root: trial.square_root };
                    (setting, trial)
                }));
            }
            // Settings that cannot be fitted are skipped.
            Err(error) => first_error = first_error.or(Some(error)),
        }
    }
    let best = trials.iter().max_by(|x, y| x.1.mean_average_precision.total_cmp(&y.1.mean_average_precision));
    let Some((setting, trial)) = best else {
        return Err(
            first_error.unwrap_or_else(|| Error::Config(format!("method {method}: no setting could be fitted")))
        );
    };
    let fitted = setting.fit(pairs, options)?.truncate(trial.dim)?;
    Ok((fitted, trials.into_iter().map(|(_, trial)| trial).collect()))
}

/// The methods to try.
fn candidates<'a>(
    registry: &'a MethodRegistry,
    name: &str,
    pairs: &PairedFeatures,
) -> Result<Vec<&'a dyn AlignmentMethod>> {
    let has_labels = pairs.labels.is_some();
    if name != AUTO {
        let known = registry.iter().map(AlignmentMethod::name).chain([AUTO]);
        let Some(method) = registry.iter().find(|m| m.name() == name) else {
            return Err(mm_core::Error::unknown("alignment method", name, known).into());
        };
        if method.requirements().labels && !has_labels {
            return Err(Error::Config(format!("method {name} needs labels (--labels)")));
        }
        return Ok(vec![method]);
    }
    let rows = pairs.rows()?;
    let usable = |m: &&dyn AlignmentMethod| {
        let needs = m.requirements();
        !needs.training && (has_labels || !needs.labels) && needs.max_search_rows.is_none_or(|most| rows <= most)
    };
    Ok(registry.iter().filter(usable).collect())
}

/// The regularization of a single method where nothing has to be searched.
fn fixed(method: &dyn AlignmentMethod, options: &SearchOptions) -> Option<f64> {
    let is_trained = method.requirements().training;
    let dim_is_fixed = options.dim.is_some() || !method.searches_dim();
    options.regularization.or(is_trained.then_some(0.0)).filter(|_| dim_is_fixed)
}

fn grid<'a>(methods: &[&'a dyn AlignmentMethod], non_negative: [bool; 2], options: &SearchOptions) -> Vec<Setting<'a>> {
    let mut settings = Vec::new();
    for method in methods {
        let regularizations =
            options.regularization.map_or_else(|| method.regularization_grid().to_vec(), |value| vec![value]);
        let tries_roots =
            non_negative.contains(&true) && options.regularization.is_none() && !method.requirements().training;
        let roots = if tries_roots { vec![[false; 2], non_negative] } else { vec![[false; 2]] };
        for square_root in roots {
            for regularization in &regularizations {
                settings.push(Setting { method: *method, regularization: *regularization, square_root });
            }
        }
    }
    settings
}

/// The trials of one fit: its dimension and, where dimensions are sorted and none is fixed, smaller ones.
fn try_dims(fitted: &FittedAlignment, valid: &PairedFeatures, options: &SearchOptions) -> Result<Vec<Trial>> {
    let largest = fitted.alignment.dim;
    let mut dims = vec![largest];
    if options.dim.is_none() && fitted.alignment.sorted {
        dims.extend(DIMS.iter().copied().filter(|d| *d < largest));
    }
    let (a, b) = (fitted.unnormalized(0, &valid.a)?, fitted.unnormalized(1, &valid.b)?);
    let mut trials = Vec::new();
    for dim in dims {
        let truncated = |x: &Tensor| x.narrow(1, 0, dim.min(x.size(1)?))?.normalize();
        let [forward, backward] = mean_average_precision(&truncated(&a)?, &truncated(&b)?, valid.labels.as_deref())?;
        trials.push(Trial {
            method: fitted.method.clone(),
            regularization: fitted.regularization,
            dim,
            square_root: fitted.square_root,
            mean_average_precision: f64::midpoint(forward, backward),
        });
    }
    Ok(trials)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alignment::{evaluate, methods, paired_features};
    use mm_core::{DType, Device, seed::manual_seed};

    fn rotated(rows: i64) -> PairedFeatures {
        // One rotation, whatever the number of rows.
        manual_seed(4);
        let (rotation, _, _) = Tensor::randn(&[6, 6], DType::F64, Device::Cpu).unwrap().svd().unwrap();
        let a = Tensor::randn(&[rows, 6], DType::F64, Device::Cpu).unwrap();
        paired_features(&a, &a.matmul(&rotation).unwrap(), None).unwrap()
    }

    #[test]
    fn the_search_over_all_methods_finds_a_rotation() {
        let options = SearchOptions { dim: None, regularization: None, seed: 0 };
        let (fitted, trials) = search(&methods(), AUTO, &rotated(80), &options).unwrap();
        let best = trials.iter().map(|t| t.mean_average_precision).fold(0.0, f64::max);
        assert!(best > 0.99 && trials.iter().any(|t| t.method != fitted.method));
        assert!(trials.iter().all(|t| !methods().get(&t.method).unwrap().requirements().training));
        assert!(evaluate(&fitted, &rotated(30)).unwrap().a_to_b.recall[0] > 0.99);
    }

    #[test]
    fn a_fully_specified_method_is_fitted_without_trials_and_invalid_requests_are_errors() {
        let pairs = rotated(40);
        let options = SearchOptions { dim: Some(3), regularization: Some(0.1), seed: 0 };
        let (fitted, trials) = search(&methods(), "cca", &pairs, &options).unwrap();
        assert_eq!((fitted.alignment.dim, trials.len()), (3, 0));
        let text = |method: &str, pairs: &PairedFeatures, options: &SearchOptions| {
            search(&methods(), method, pairs, options).map(drop).unwrap_err().to_string()
        };
        assert!(text("cac", &pairs, &options).contains("cca"));
        assert!(text("semantic_matching", &pairs, &options).contains("needs labels"));
        let negative = SearchOptions { regularization: Some(-1.0), ..options.clone() };
        assert!(text("cca", &pairs, &negative).contains("found -1"));
        let narrow = SearchOptions { dim: Some(-3), ..options.clone() };
        assert!(text("cca", &pairs, &narrow).contains("dim: found -3, expected at least 1"));
        // One pair is too few to split, which is an error.
        assert!(text("cca", &pairs.select(&[0]).unwrap(), &options).contains("found 1 pairs"));
        assert!(text("cca", &pairs.select(&[0, 1, 2]).unwrap(), &options).contains("at least 4"));
    }
}
