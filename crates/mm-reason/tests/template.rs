//! The template of `cargo xtask new reasoning-network`, compiled and tested as an outside crate would be.
#![allow(missing_docs)]

#[path = "../../../xtask/src/new/templates/reasoning_network/lib.rs"]
#[allow(dead_code, unused_imports)]
mod template_name;
