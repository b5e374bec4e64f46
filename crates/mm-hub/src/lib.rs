//! What mm fetches and sets up, without linking libtorch, so that it works before libtorch is there: model weights and
//! data sets ([`registry`], [`hub`]), libtorch itself ([`libtorch`]), the settings of a project that depends on one of
//! mm's crates ([`project`]), and pipelines ([`pipeline`]).
//!
//! `mm` and `cargo xtask` are both made of it.
//!
//! ```no_run
//! use mm_hub::registry::{self, Kind};
//!
//! # fn main() -> mm_hub::Result<()> {
//! let weights = registry::pull("all-MiniLM-L6-v2")?; // a folder in ~/.cache/mm
//! let images = registry::fetch(Kind::Data, "emoji")?;
//! # Ok(())
//! # }
//! ```

pub mod archive;
mod error;
mod fetch;
pub mod hub;
pub mod libtorch;
mod model_files;
mod packages;
pub mod paths;
pub mod pipeline;
pub mod project;
pub mod registry;
mod report;
#[cfg(feature = "storage")]
pub mod storage;
#[cfg(test)]
mod testing;
pub mod tools;

pub use error::{Error, Result, describe};
pub use packages::python;
pub use report::set_quiet;
