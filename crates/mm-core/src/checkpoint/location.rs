//! Where a tensor's values are stored.

use super::mmap::MappedFile;
use crate::DType;
use std::sync::Arc;

/// Position, shape and type of one tensor in a mapped file.
#[derive(Clone)]
pub(super) struct Location {
    pub(super) file: Arc<MappedFile>,
    /// First byte in the file.
    pub(super) start: usize,
    /// Number of bytes from there that the tensor may use.
    pub(super) bytes: usize,
    pub(super) shape: Vec<i64>,
    /// Strides in elements, where the values are not contiguous.
    pub(super) strides: Option<Vec<i64>>,
    pub(super) dtype: DType,
}
