//! Where a parameter is stored in a checkpoint that names or shapes it differently.

use std::fmt;

/// A tensor of a checkpoint, or a part of it: its name, which of several equal chunks along the first dimension, and
/// whether it is stored transposed.
///
/// As text: `name`, `name#1/3` (the second of three chunks), `name^T` (transposed, before it is split); the marks may
/// stand anywhere in the name, so that they can be part of a renamed prefix.
///
/// ```
/// use mm_core::TensorRef;
/// let query = TensorRef::from("h.0.attn.c_attn.weight#0/3^T");
/// assert_eq!(query, TensorRef::new("h.0.attn.c_attn.weight").chunk(0, 3).transposed());
/// assert_eq!(query.name(), "h.0.attn.c_attn.weight");
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorRef {
    pub(super) name: String,
    /// Index of the chunk and number of chunks.
    pub(super) chunk: Option<(i64, i64)>,
    pub(super) transposed: bool,
}

impl TensorRef {
    /// A whole tensor, stored as it is used.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), chunk: None, transposed: false }
    }

    /// The chunk at `index` of `count` equal chunks along the first dimension (packed projections).
    #[must_use]
    pub fn chunk(self, index: i64, count: i64) -> Self {
        Self { chunk: Some((index, count)), ..self }
    }

    /// A matrix that is stored with its two dimensions swapped.
    #[must_use]
    pub fn transposed(self) -> Self {
        Self { transposed: true, ..self }
    }

    /// The tensor's name in the checkpoint.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Shape that the whole stored tensor must have for a parameter of this shape.
    pub(super) fn stored_shape(&self, shape: &[i64]) -> Vec<i64> {
        let mut stored = shape.to_vec();
        if let (Some((_, count)), Some(first)) = (self.chunk, stored.first_mut()) {
            *first *= count;
        }
        if self.transposed {
            stored.reverse();
        }
        stored
    }
}

impl From<&str> for TensorRef {
    fn from(text: &str) -> Self {
        let mut name = text.replace("^T", "");
        let transposed = name.len() < text.len();
        let mut chunk = None;
        if let Some(at) = name.find('#') {
            let mark: String = name[at + 1..].chars().take_while(|c| c.is_ascii_digit() || *c == '/').collect();
            chunk = mark.split_once('/').and_then(|(i, n)| Some((i.parse().ok()?, n.parse().ok()?)));
            name.replace_range(at..=at + mark.len(), "");
        }
        Self { name, chunk, transposed }
    }
}

impl From<String> for TensorRef {
    fn from(text: String) -> Self {
        Self::from(text.as_str())
    }
}

impl fmt::Display for TensorRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        if let Some((index, count)) = self.chunk {
            write!(f, "#{index}/{count}")?;
        }
        if self.transposed { f.write_str("^T") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_read_anywhere_in_the_name() {
        let reference = TensorRef::from("attn.c_attn#1/3^T.weight");
        assert_eq!(reference, TensorRef::new("attn.c_attn.weight").chunk(1, 3).transposed());
        assert_eq!(TensorRef::from(reference.to_string()), reference);
        assert_eq!(reference.stored_shape(&[4, 5]), [5, 12]);
    }
}
