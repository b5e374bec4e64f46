//! Early fusion: modalities are put together before anything looks at them.

mod concat;
mod sequence;
pub mod words;

pub(crate) use concat::{Concat, Stack, beside as concat_beside};
pub(crate) use sequence::Sequence;
