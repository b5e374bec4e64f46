//! The template of `cargo xtask new alignment-method`, compiled and tested as an outside crate would be.
#![allow(missing_docs)]

#[path = "../../../xtask/src/new/templates/alignment_method/lib.rs"]
#[allow(dead_code, unused_imports)]
mod template_name;
