//! The template of `cargo xtask new fusion-operator`, compiled and tested as an outside crate would be.
#![allow(missing_docs)]

#[path = "../../../xtask/src/new/templates/fusion_operator/lib.rs"]
#[allow(dead_code, unused_imports)]
mod template_name;
