//! Lookup tables of vectors.

use crate::{Init, Result, Scope, Tensor};
use std::cell::RefCell;

/// A table of `num_embeddings` vectors of `dim` dimensions.
pub struct Embedding {
    weight: Tensor,
}

impl Embedding {
    /// A table under `scope`; a new one is normal with standard deviation 0.02.
    pub fn new(scope: &Scope<'_>, num_embeddings: i64, dim: i64) -> Result<Self> {
        Self::with_std(scope, num_embeddings, dim, 0.02)
    }

    /// A table that starts with another standard deviation. Recurrent networks do not normalize word vectors as
    /// transformers do, and vectors that start almost equal take long to differ.
    pub fn with_std(scope: &Scope<'_>, num_embeddings: i64, dim: i64, std: f64) -> Result<Self> {
        Ok(Self { weight: scope.param("weight", &[num_embeddings, dim], Init::Normal(std))? })
    }

    /// `[…]` int64 → `[…, dim]`.
    pub fn forward(&self, indices: &Tensor) -> Result<Tensor> {
        capture(indices, self.weight.embedding(indices)?)
    }

    /// The table, `[num_embeddings, dim]`.
    pub fn weight(&self) -> &Tensor {
        &self.weight
    }
}

/// An embedding lookup that [`capture_embeddings`] recorded, `[rows, positions, dim]` each.
type Captured = (Tensor, Tensor);

struct Capture {
    /// Indices `[rows, positions]` to capture, in the order of their lookup, and the factor of each row, `[rows]`.
    wanted: Vec<(Tensor, Tensor)>,
    captured: Vec<Captured>,
}

thread_local! {
    static CAPTURE: RefCell<Option<Capture>> = const { RefCell::new(None) };
}

/// Runs `body` and captures the lookups of the given indices `[rows, positions]`, in order: their vectors are
/// multiplied by a factor per row `[rows]` and become leaves that require gradients. Attribution methods need this for
/// tokens, which have no gradient themselves.
///
/// Returns the output of `body` and, for each lookup, the original vectors and those that were used, `[rows, positions,
/// dim]` each.
pub fn capture_embeddings<T>(
    wanted: Vec<(Tensor, Tensor)>,
    body: impl FnOnce() -> Result<T>,
) -> Result<(T, Vec<Captured>)> {
    /// Ends capturing however the body ends.
    struct End;
    impl Drop for End {
        fn drop(&mut self) {
            CAPTURE.take();
        }
    }
    CAPTURE.set(Some(Capture { wanted, captured: Vec::new() }));
    let _end = End;
    let out = body()?;
    Ok((out, CAPTURE.take().map(|c| c.captured).unwrap_or_default()))
}

/// The vectors of a lookup, captured if they are the next ones wanted.
fn capture(indices: &Tensor, vectors: Tensor) -> Result<Tensor> {
    CAPTURE.with_borrow_mut(|capture| {
        let Some(capture) = capture else { return Ok(vectors) };
        let next = capture.wanted.get(capture.captured.len());
        // The values must agree too, not only the shape: positions and segment ids are looked up as well.
        let Some((next, factor)) = next.filter(|(n, _)| n.shape() == indices.shape()) else { return Ok(vectors) };
        if next.eq(indices)?.logical_not()?.nonzero()?.size(0)? > 0 {
            return Ok(vectors);
        }
        let original = vectors.detach()?;
        let used = original.mul(&factor.reshape(&[-1, 1, 1])?)?.detach()?.set_requires_grad(true)?;
        capture.captured.push((original, used.clone()));
        Ok(used)
    })
}
