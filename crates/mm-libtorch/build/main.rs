//! Finds the libtorch that torch-sys is going to use, and ends the build with a message that says what to do when there
//! is none or one of another version.
//!
//! The order of the search is that of torch-sys. Which of the two build scripts cargo runs first depends on how many
//! packages wait for each; this one is ready first, but torch-sys's has more behind it.

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
