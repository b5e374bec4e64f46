//! The templates of `cargo xtask new modality` and `cargo xtask new task`, compiled and tested as outside crates would
//! be.
#![allow(missing_docs)]

#[path = "../../../xtask/src/new/templates/modality/lib.rs"]
#[allow(dead_code, unused_imports)]
mod modality;
#[path = "../../../xtask/src/new/templates/task/lib.rs"]
#[allow(dead_code, unused_imports)]
mod task;
