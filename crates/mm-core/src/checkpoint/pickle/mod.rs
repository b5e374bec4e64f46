//! Python's pickles: tensors out of `PyTorch`'s files, plain objects and `NumPy` arrays out of data sets.

mod globals;
mod machine;
mod numpy;
mod object;
mod torch;
mod value;

pub use object::{Array, Object, read_pickle};
pub(super) use torch::read_tensors;
