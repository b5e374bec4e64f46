//! Finds the libtorch that torch-sys is going to use, and ends the build with a message that says what to do when there
//! is none or one of another version.
//!
//! This crate depends on nothing, and torch-sys's own build script on a minute of dependencies, so that cargo runs this
//! one first. The order of the search is that of torch-sys.

mod message;
mod search;

use std::env;

/// The libtorch that tch 0.24 is made for.
const VERSION: &str = "2.11.0";

fn main() {
    println!("cargo::rerun-if-changed=build");
    for variable in search::VARIABLES {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    println!("cargo::rustc-env=MM_LIBTORCH_VERSION={VERSION}");
    // Empty where the folder is not known: cargo itself sets the library path for a downloaded libtorch.
    let mut folder = String::new();
    if env::var_os("CARGO_FEATURE_DOC_ONLY").is_none() && env::var_os("DOCS_RS").is_none() {
        match search::find() {
            Ok(found) => folder = found.map(|path| path.display().to_string()).unwrap_or_default(),
            Err(problem) => message::lines(&problem).iter().for_each(|line| println!("cargo::error={line}")),
        }
    }
    println!("cargo::rustc-env=MM_LIBTORCH_LIB={folder}");
}
