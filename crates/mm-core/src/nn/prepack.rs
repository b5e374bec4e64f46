//! Cache of a layer's weight in oneDNN's own layout.

use crate::{Result, Tensor};
use std::cell::{Ref, RefCell};

/// Factors of weight and bias in the packed copy, so that a scaled activation needs no pass of its own.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct PackScale {
    pub(crate) weight: f64,
    pub(crate) bias: f64,
}

impl PackScale {
    /// Weight and bias as they are.
    pub(crate) const ONE: Self = Self { weight: 1.0, bias: 1.0 };
}

/// A weight in oneDNN's layout with its bias.
pub(super) struct Packed {
    pub(super) weight: Tensor,
    pub(super) bias: Option<Tensor>,
    scale: PackScale,
    /// Version of the trainable weight that it was packed from; none for a frozen weight.
    version: Option<i64>,
}

impl Packed {
    pub(super) fn new(weight: Tensor, bias: Option<Tensor>, scale: PackScale, version: Option<i64>) -> Self {
        Self { weight, bias, scale, version }
    }
}

/// At most one packed copy, replaced when another scale or another version of the weight is asked for.
#[derive(Default)]
pub(super) struct PackedCache(RefCell<Option<Packed>>);

impl PackedCache {
    /// The packed copy for this scale and version, made by `pack` if it is not cached.
    pub(super) fn get(
        &self,
        scale: PackScale,
        version: Option<i64>,
        pack: impl FnOnce() -> Result<Packed>,
    ) -> Result<Ref<'_, Packed>> {
        let found = |cached: &Option<Packed>| cached.as_ref().is_some_and(|p| p.scale == scale && p.version == version);
        if !found(&self.0.borrow()) {
            let packed = pack()?;
            self.0.replace(Some(packed));
        }
        Ref::filter_map(self.0.borrow(), Option::as_ref)
            .map_err(|_| crate::Error::Sample("a packed weight is missing".into()))
    }

    /// Drops the packed copy.
    pub(super) fn clear(&self) {
        self.0.take();
    }
}
