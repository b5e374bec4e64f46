//! Rows of a table by number.

use crate::{Init, Result, Scope, Tensor};
use std::cell::RefCell;

/// A table `[entries, width]`.
pub struct Embedding {
    weight: Tensor,
}

impl Embedding {
    /// A table under `scope`; a fresh one is normal with standard deviation 0.02.
    pub fn new(scope: &Scope<'_>, entries: i64, width: i64) -> Result<Self> {
        Self::with_std(scope, entries, width, 0.02)
    }

    /// The same with another standard deviation: nothing brings the vectors of a recurrent network's words to one, as a transformer's norms do,
    /// and words that begin almost alike take long to be told apart.
    pub fn with_std(scope: &Scope<'_>, entries: i64, width: i64, deviation: f64) -> Result<Self> {
        Ok(Self { weight: scope.param("weight", &[entries, width], Init::Normal(deviation))? })
    }

    /// `[…]` int64 → `[…, width]`.
    pub fn forward(&self, indices: &Tensor) -> Result<Tensor> {
        scaled(indices, self.weight.embedding(indices)?)
    }

    /// The table.
    pub fn weight(&self) -> &Tensor {
        &self.weight
    }
}

/// What is watched while [`capture_embeddings`] runs.
struct Watch {
    /// Numbers `[rows, positions]` whose rows are wanted, in the order in which they are looked up, and what each row's vectors are multiplied
    /// by, `[rows]`.
    wanted: Vec<(Tensor, Tensor)>,
    found: Vec<(Tensor, Tensor)>,
}

thread_local! {
    static WATCH: RefCell<Option<Watch>> = const { RefCell::new(None) };
}

/// Runs `body`, in which the vectors of these numbers `[rows, positions]` (in the order in which they are looked up) are multiplied by
/// what stands beside them, `[rows]`, and ask for their gradient: what attribution to words needs, which are no numbers that could grow. What
/// comes back beside the body's own: for each of them its vectors as they are and as they were used, `[rows, positions, width]` both.
pub fn capture_embeddings<T>(
    wanted: Vec<(Tensor, Tensor)>,
    body: impl FnOnce() -> Result<T>,
) -> Result<(T, Vec<(Tensor, Tensor)>)> {
    /// Nothing is watched any longer, however the body ends.
    struct End;
    impl Drop for End {
        fn drop(&mut self) {
            WATCH.take();
        }
    }
    WATCH.set(Some(Watch { wanted, found: Vec::new() }));
    let _end = End;
    let out = body()?;
    Ok((out, WATCH.take().map(|w| w.found).unwrap_or_default()))
}

/// A table's rows, maybe watched.
fn scaled(indices: &Tensor, rows: Tensor) -> Result<Tensor> {
    WATCH.with_borrow_mut(|watch| {
        let Some(watch) = watch else { return Ok(rows) };
        let next = watch.wanted.get(watch.found.len());
        // The same numbers, not only as many: positions and kinds of text are looked up too.
        let Some((next, scale)) = next.filter(|(n, _)| n.shape() == indices.shape()) else { return Ok(rows) };
        if next.eq(indices)?.logical_not()?.nonzero()?.size(0)? > 0 {
            return Ok(rows);
        }
        let full = rows.detach()?;
        let used = full.mul(&scale.reshape(&[-1, 1, 1])?)?.detach()?.set_requires_grad(true)?;
        watch.found.push((full, used.clone()));
        Ok(used)
    })
}
