//! The checkpoint that parameters are loaded from.

use super::TensorRef;
use crate::{Checkpoint, DType, Device, Error, Result, Tensor};
use std::collections::BTreeSet;

/// Number of missing or misshapen tensors after which loading ends: the config describes another model.
const MAX_PROBLEMS: usize = 10_000;

/// A checkpoint, how its names map to parameters, and what was found missing so far.
pub(super) struct CheckpointSource {
    checkpoint: Checkpoint,
    rename: Box<dyn Fn(&str) -> TensorRef + Send>,
    /// Prefixes of names in the checkpoint whose tensors are reinitialized.
    reinitialized: Vec<String>,
    used: BTreeSet<String>,
    problems: Vec<String>,
}

/// Where a parameter came from, with the shape of the full tensor there.
#[derive(Clone)]
pub(super) struct Stored {
    pub(super) tensor: TensorRef,
    pub(super) shape: Vec<i64>,
}

impl CheckpointSource {
    pub(super) fn new(checkpoint: Checkpoint, rename: Box<dyn Fn(&str) -> TensorRef + Send>) -> Self {
        Self { checkpoint, rename, reinitialized: Vec::new(), used: BTreeSet::new(), problems: Vec::new() }
    }

    pub(super) fn reinitialize(&mut self, prefixes: &[String]) {
        self.reinitialized = prefixes.to_vec();
    }

    /// Where the parameter at `path` is stored.
    pub(super) fn locate(&self, path: &str) -> TensorRef {
        (self.rename)(path)
    }

    fn is_reinitialized(&self, reference: &TensorRef) -> bool {
        self.reinitialized.iter().any(|prefix| reference.name.starts_with(prefix.as_str()))
    }

    /// Whether the parameter at `path` exists: in the checkpoint, or because it is reinitialized.
    pub(super) fn contains(&self, path: &str) -> bool {
        let reference = self.locate(path);
        self.is_reinitialized(&reference) || self.checkpoint.shape(&reference.name).is_some()
    }

    /// Whether a parameter that [`CheckpointSource::load`] did not return is missing, and will be reported.
    pub(super) fn lacks(&self, path: &str) -> bool {
        !self.is_reinitialized(&self.locate(path))
    }

    /// The parameter at `path`; none where it is reinitialized, or missing or of another shape, which
    /// [`CheckpointSource::finish`] reports, or this function when there are too many. A `view` stays in the mapped
    /// file where possible.
    pub(super) fn load(
        &mut self,
        path: &str,
        shape: &[i64],
        view: bool,
        (dtype, device): (DType, Device),
    ) -> Result<Option<(Tensor, Stored)>> {
        let reference = self.locate(path);
        if self.is_reinitialized(&reference) {
            return Ok(None);
        }
        if self.problems.len() >= MAX_PROBLEMS {
            return Err(self.error());
        }
        let Some(found) = self.checkpoint.shape(&reference.name) else {
            self.problems.push(match self.checkpoint.unsupported_type(&reference.name) {
                Some(kind) => format!("{} is of type {kind}, which is not supported", reference.name),
                None => format!("missing {} {shape:?}", reference.name),
            });
            return Ok(None);
        };
        let expected = reference.stored_shape(shape);
        // Dimensions of size one may differ.
        let squeezed = |shape: &[i64]| shape.iter().copied().filter(|s| *s != 1).collect::<Vec<_>>();
        if squeezed(found) != squeezed(&expected) {
            self.problems.push(format!("{}: found {found:?}, expected {expected:?}", reference.name));
            return Ok(None);
        }
        let found = found.to_vec();
        let mut tensor =
            if view { self.checkpoint.view(&reference.name)? } else { self.checkpoint.get(&reference.name)? };
        if reference.transposed && tensor.rank() == 2 {
            tensor = tensor.transpose(0, 1)?;
        }
        if let Some((index, count)) = reference.chunk {
            let rows = tensor.size(0)? / count.max(1);
            tensor = tensor.narrow(0, index * rows, rows)?;
        }
        let tensor = tensor.reshape(shape)?.to_dtype(dtype)?.to_device(device)?;
        self.used.insert(reference.name.clone());
        Ok(Some((tensor, Stored { tensor: reference, shape: found })))
    }

    /// The error that lists all problems.
    fn error(&self) -> Error {
        let problems = self.problems.iter().map(|p| format!("  {p}")).collect::<Vec<_>>().join("\n");
        Error::Checkpoint { path: self.checkpoint.path().into(), problems }
    }

    /// The names that no parameter asked for.
    ///
    /// # Errors
    /// If tensors were missing or had another shape: one error that lists them all.
    pub(super) fn finish(self) -> Result<Vec<String>> {
        if !self.problems.is_empty() {
            return Err(self.error());
        }
        Ok(self.checkpoint.names().filter(|n| !self.used.contains(*n)).map(ToOwned::to_owned).collect())
    }
}
