//! Registry of alignment methods.

use crate::{
    Result,
    correlation::{Cca, KernelCca, Pls, ThreeViewCca},
    method::AlignmentMethod,
    procrustes::Procrustes,
    ridge::RidgeRegression,
    supervised::{JointFeatureSelection, SemanticCorrelationMatching, SemanticMatching},
};

/// Alignment methods by name, in order of registration; other crates add theirs with [`MethodRegistry::register`].
#[derive(Default)]
pub struct MethodRegistry {
    methods: Vec<Box<dyn AlignmentMethod>>,
}

impl MethodRegistry {
    /// An empty registry.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a method, replacing one of the same name.
    pub fn register(&mut self, method: impl AlignmentMethod + 'static) {
        self.methods.retain(|m| m.name() != method.name());
        self.methods.push(Box::new(method));
    }

    /// All methods.
    pub fn iter(&self) -> impl Iterator<Item = &dyn AlignmentMethod> {
        self.methods.iter().map(AsRef::as_ref)
    }

    /// The method of this name.
    ///
    /// # Errors
    /// When there is none; the nearest name is suggested.
    pub fn get(&self, name: &str) -> Result<&dyn AlignmentMethod> {
        let found = self.iter().find(|m| m.name() == name);
        found.ok_or_else(|| {
            mm_core::Error::unknown("alignment method", name, self.iter().map(AlignmentMethod::name)).into()
        })
    }
}

/// The methods of this crate. All are computed in closed form or by convex optimization; those that train networks are
/// in mm-tasks.
///
/// ```
/// use mm_align::{FitOptions, PairedFeatures, alignment_methods};
/// use mm_core::{DType, Device, Tensor};
/// # fn main() -> mm_align::Result<()> {
/// let a = Tensor::randn(&[50, 8], DType::F32, Device::Cpu)?;
/// let b = Tensor::randn(&[50, 6], DType::F32, Device::Cpu)?;
/// let options = FitOptions { dim: Some(4), regularization: 0.1, seed: 0 };
/// let alignment = alignment_methods().get("cca")?.fit(&PairedFeatures::new(&a, &b)?, &options)?;
/// assert_eq!(alignment.project_a.apply(&a)?.shape(), [50, 4]);
/// # Ok(())
/// # }
/// ```
pub fn alignment_methods() -> MethodRegistry {
    let mut registry = MethodRegistry::new();
    registry.register(Cca);
    registry.register(Pls);
    registry.register(KernelCca);
    registry.register(ThreeViewCca);
    registry.register(SemanticMatching);
    registry.register(SemanticCorrelationMatching);
    registry.register(JointFeatureSelection);
    registry.register(RidgeRegression);
    registry.register(Procrustes);
    registry
}
