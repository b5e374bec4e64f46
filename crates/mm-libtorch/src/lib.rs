#![doc = include_str!("../README.md")]
#![allow(clippy::needless_doctest_main)] // the example is a build script

use std::{env, path::PathBuf};

/// The version of libtorch that the mm crates compute with.
pub const VERSION: &str = env!("MM_LIBTORCH_VERSION");

/// The folder of libtorch's shared libraries; none in a build without libtorch, or with the one that tch downloads,
/// which `cargo run` and `cargo test` find by themselves.
pub fn library_folder() -> Option<&'static str> {
    Some(env!("MM_LIBTORCH_LIB")).filter(|folder| !folder.is_empty())
}

/// Makes the binaries, tests and examples of a package find libtorch when they start, to be called from its `build.rs`.
/// Not needed where `mm setup` or `cargo xtask setup` wrote the project's `.cargo/config.toml`.
///
/// ```no_run
/// // build.rs, with mm-libtorch under [build-dependencies]
/// fn main() {
///     mm_libtorch::link();
/// }
/// ```
pub fn link() {
    println!("cargo::rerun-if-changed=build.rs");
    if let Some(folder) = library_folder() {
        println!("cargo::rustc-link-arg=-Wl,-rpath,{folder}");
    }
}

/// What a C++ file that includes libtorch's headers is compiled with.
pub struct CppSettings {
    /// The folders of the headers.
    pub include: [PathBuf; 2],
    /// The value of the macro `_GLIBCXX_USE_CXX11_ABI`.
    pub cxx11_abi: String,
}

/// The settings for the C++ files of a package, to be called from its `build.rs`. They are those of the libtorch that
/// torch-sys found, which it tells to the packages that depend on it directly; `None` elsewhere.
pub fn cpp_settings() -> Option<CppSettings> {
    println!("cargo::rerun-if-env-changed=LIBTORCH_INCLUDE");
    println!("cargo::rerun-if-env-changed=LIBTORCH_CXX11_ABI");
    let library = env::var_os("DEP_TCH_LIBTORCH_LIB").map(PathBuf::from)?;
    let root = env::var_os("LIBTORCH_INCLUDE").map_or_else(|| library.join(".."), PathBuf::from);
    let include = root.join("include");
    Some(CppSettings {
        include: [include.clone(), include.join("torch/csrc/api/include")],
        cxx11_abi: env::var("LIBTORCH_CXX11_ABI").unwrap_or_else(|_| "1".into()),
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_folder_of_this_build_holds_libtorch() {
        assert_eq!(super::VERSION, "2.11.0");
        let folder = std::path::Path::new(super::library_folder().unwrap());
        assert!(folder.join("libtorch_cpu.so").exists() || folder.join("libtorch_cpu.dylib").exists());
    }
}
