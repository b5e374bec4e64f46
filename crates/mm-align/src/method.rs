//! The interface of alignment methods: fit on two feature matrices, get one projection per modality.

use crate::{
    Result,
    checks::{check_finite, invalid},
};
use mm_core::{DType, Tensor};

/// Training data: two feature matrices whose rows are paired.
#[derive(Debug, Clone)]
pub struct PairedFeatures {
    /// Features of the first modality, `[rows, dim a]`, float64.
    pub a: Tensor,
    /// Features of the second modality, `[rows, dim b]`, float64; row i is paired with row i of `a`.
    pub b: Tensor,
    /// Class index (from 0) of each row.
    pub labels: Option<Vec<i64>>,
    /// Rows of each modality whose counterpart is unknown, `[rows a, dim a]` and `[rows b, dim b]`, in any order.
    /// Methods that cannot use them ignore them.
    pub unpaired: Option<[Tensor; 2]>,
}

impl PairedFeatures {
    /// Checks the matrices and converts them to float64.
    ///
    /// # Errors
    /// When a matrix is not float32 or float64 `[rows, dim]`, contains NaN or infinity, or the numbers of rows differ.
    pub fn new(a: &Tensor, b: &Tensor) -> Result<Self> {
        for (index, x) in [a, b].into_iter().enumerate() {
            let shape = x.shape();
            let is_float = matches!(x.dtype()?, DType::F32 | DType::F64);
            if shape.len() != 2 || shape.contains(&0) || !is_float {
                let name = if index == 0 { "a" } else { "b" };
                return Err(invalid(name, format!("{:?} {shape:?}", x.dtype()?), "float32 or float64 [rows, dim]"));
            }
            check_finite("features", index, x)?;
        }
        if a.size(0)? != b.size(0)? {
            let found = format!("{} and {} rows", a.size(0)?, b.size(0)?);
            return Err(invalid("a and b", found, "the same number of rows: row i of a is paired with row i of b"));
        }
        Ok(Self { a: a.to_dtype(DType::F64)?, b: b.to_dtype(DType::F64)?, labels: None, unpaired: None })
    }

    /// Number of pairs.
    pub fn rows(&self) -> Result<i64> {
        Ok(self.a.size(0)?)
    }

    /// Number of classes, 0 without labels.
    pub fn num_classes(&self) -> i64 {
        self.labels.iter().flatten().max().map_or(0, |m| m + 1)
    }

    /// The labels.
    ///
    /// # Errors
    /// When there are none.
    pub fn labels(&self) -> Result<&[i64]> {
        self.labels.as_deref().ok_or_else(|| invalid("labels", "none", "one class index per row"))
    }

    /// The pairs at these row indices, with all unpaired rows.
    ///
    /// # Errors
    /// When an index is out of range.
    pub fn select(&self, rows: &[i64]) -> Result<Self> {
        let index = Tensor::from_slice(rows)?;
        let labels = self.labels.as_ref().map(|l| rows.iter().map(|r| l[*r as usize]).collect());
        let (a, b) = (self.a.index_select(0, &index)?, self.b.index_select(0, &index)?);
        Ok(Self { a, b, labels, unpaired: self.unpaired.clone() })
    }
}

/// Requirements of a method, and how a search over all methods treats it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Requirements {
    /// Class labels are required.
    pub labels: bool,
    /// The fit is iterative training rather than closed form. A search over all methods skips it and does not tune its
    /// regularization.
    pub training: bool,
    /// A search over all methods skips the method when there are more rows than this.
    pub max_search_rows: Option<i64>,
}

/// Settings of one fit.
#[derive(Debug, Clone)]
pub struct FitOptions {
    /// Dimension of the shared space; the method's default if absent.
    pub dim: Option<i64>,
    /// Strength of the regularization, in the units that the method documents.
    pub regularization: f64,
    /// Random seed.
    pub seed: u64,
}

/// A method that maps two modalities into one space. Object-safe; register implementations in a
/// [`MethodRegistry`](crate::MethodRegistry).
pub trait AlignmentMethod: Send + Sync {
    /// Unique name, as given on the command line.
    fn name(&self) -> &'static str;

    /// One line for `--list-methods`: what the method does, its source, what it needs.
    fn description(&self) -> &'static str;

    /// What the method needs; nothing by default.
    fn requirements(&self) -> Requirements {
        Requirements::default()
    }

    /// Regularization strengths that a search tries.
    fn regularization_grid(&self) -> &[f64] {
        &[0.0]
    }

    /// Whether a search chooses the dimension although the method has [`Requirements::training`].
    fn searches_dim(&self) -> bool {
        !self.requirements().training
    }

    /// Fits the method.
    ///
    /// # Errors
    /// When the pairs do not meet the method's requirements or the options do not fit the features.
    fn fit(&self, pairs: &PairedFeatures, options: &FitOptions) -> Result<Alignment>;
}

/// One step of a projection.
pub trait Transform {
    /// `[rows, dim]` → `[rows, new dim]`, float64.
    fn apply(&self, x: &Tensor) -> Result<Tensor>;

    /// The step as an affine map, if it is one.
    fn as_affine(&self) -> Option<&Affine> {
        None
    }
}

/// The affine map `(x − mean) · map`.
#[derive(Debug, Clone)]
pub struct Affine {
    /// `[1, dim]`.
    pub mean: Tensor,
    /// `[dim, new dim]`.
    pub map: Tensor,
}

impl Transform for Affine {
    fn apply(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.sub(&self.mean)?.matmul(&self.map)?)
    }

    fn as_affine(&self) -> Option<&Affine> {
        Some(self)
    }
}

/// Element-wise square root (of negative values 0): the cosine similarity of two histograms becomes their Bhattacharyya
/// coefficient (Hellinger kernel).
#[derive(Debug, Clone, Copy)]
pub struct SquareRoot;

impl Transform for SquareRoot {
    fn apply(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.clamp_min(0.0)?.sqrt()?)
    }
}

/// The map of one modality into the shared space: a sequence of [`Transform`]s.
pub struct Projection {
    steps: Vec<Box<dyn Transform>>,
}

impl Projection {
    /// A projection of one step.
    pub fn new(step: impl Transform + 'static) -> Self {
        Self { steps: vec![Box::new(step)] }
    }

    /// A projection of one affine step.
    pub fn affine(mean: Tensor, map: Tensor) -> Self {
        Self::new(Affine { mean, map })
    }

    /// Appends a step.
    #[must_use]
    pub fn then(mut self, step: impl Transform + 'static) -> Self {
        self.steps.push(Box::new(step));
        self
    }

    /// Prepends a step.
    #[must_use]
    pub fn after(mut self, step: impl Transform + 'static) -> Self {
        self.steps.insert(0, Box::new(step));
        self
    }

    /// Projects features `[rows, dim of the modality]` to `[rows, dim]`, float64.
    ///
    /// # Errors
    /// When the features have another dimension than those that were fitted.
    pub fn apply(&self, x: &Tensor) -> Result<Tensor> {
        let mut x = x.to_dtype(DType::F64)?;
        for step in &self.steps {
            x = step.apply(&x)?;
        }
        Ok(x)
    }

    /// The whole projection as an affine map, if it is one.
    pub fn as_affine(&self) -> Option<&Affine> {
        match self.steps.as_slice() {
            [step] => step.as_affine(),
            _ => None,
        }
    }

    fn truncate(&mut self, dim: i64) -> Result<()> {
        if let Some(last) = self.steps.last_mut()
            && let Some(affine) = last.as_affine()
        {
            let map = affine.map.narrow(1, 0, dim.min(affine.map.size(1)?))?;
            *last = Box::new(Affine { mean: affine.mean.clone(), map });
        }
        Ok(())
    }
}

/// A fitted method: one projection per modality into a space where paired rows have a high cosine similarity.
pub struct Alignment {
    /// Projection of the first modality.
    pub project_a: Projection,
    /// Projection of the second modality.
    pub project_b: Projection,
    /// Dimension of the shared space.
    pub dim: i64,
    /// Whether dimensions are sorted by importance and both projections end in an affine step, so that
    /// [`Alignment::truncate`] applies.
    pub sorted: bool,
}

impl Alignment {
    /// An alignment whose dimensions have no order.
    pub fn new(project_a: Projection, project_b: Projection, dim: i64) -> Self {
        Self { project_a, project_b, dim, sorted: false }
    }

    /// Keeps the first `dim` dimensions if they are sorted; otherwise the alignment is returned unchanged.
    ///
    /// # Errors
    /// When a tensor operation fails.
    pub fn truncate(mut self, dim: i64) -> Result<Self> {
        if self.sorted && dim < self.dim {
            self.project_a.truncate(dim)?;
            self.project_b.truncate(dim)?;
            self.dim = dim;
        }
        Ok(self)
    }
}
