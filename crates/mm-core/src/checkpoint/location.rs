//! Where a tensor's values are stored.

use crate::DType;
use memmap2::MmapMut;
use std::sync::Arc;

/// Position, shape and type of one tensor in a mapped file.
#[derive(Clone)]
pub(super) struct Location {
    pub(super) map: Arc<MmapMut>,
    /// First byte in the file.
    pub(super) start: usize,
    /// Number of bytes from there that the tensor may use.
    pub(super) bytes: usize,
    pub(super) shape: Vec<i64>,
    /// Strides in elements, where the values are not contiguous.
    pub(super) strides: Option<Vec<i64>>,
    pub(super) dtype: DType,
}
