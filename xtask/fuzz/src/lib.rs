//! Fuzz targets: everything in mm that reads a file of a user.
//!
//! Each file of [`targets`] holds one function of an input's bytes. Whatever the bytes are, it must return: with a
//! value or a named error, in bounded time and memory, without a panic in mm's own code; a value that can be written
//! again must be read back the same. A target is added by its file, its line in the table below, and a folder of its
//! corpus below `corpus`.
//!
//! `cargo test -p mm-fuzz` runs the corpus inputs and random changes of them; `cargo xtask fuzz` runs libFuzzer on
//! them.

#![allow(clippy::missing_panics_doc, reason = "a panic of a target is a finding")]

mod bytes;
mod limits;
mod outcome;
#[cfg(test)]
mod replay;
pub mod targets;

pub use limits::{MAX_ALLOCATION, prepare_process};
pub use outcome::run;

/// A fuzz target.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name, that of its file and of its folder of its corpus.
    pub name: &'static str,
    /// Reads the bytes as a file of its kind.
    pub read: fn(&[u8]),
}

macro_rules! table {
    ($($name:ident)*) => {
        /// All targets.
        pub const TARGETS: &[Target] = &[$(Target { name: stringify!($name), read: targets::$name::read }),*];

        #[cfg(test)]
        mod tests {
            $(#[test]
            fn $name() {
                super::replay::check(stringify!($name));
            })*
        }
    };
}

table! {
    archive
    audio
    chat_template
    fasttext
    hdf5
    image
    model_config
    npy
    parquet
    pickle
    pipeline
    safetensors
    svg
    table
    task_config
    tokenizer
    word2vec
}
