//! Compiles `src/shim.cpp` for the feature `nf4`.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    #[cfg(feature = "nf4")]
    if std::env::var_os("CARGO_FEATURE_DOC_ONLY").is_none() {
        shim::compile();
    }
}

#[cfg(feature = "nf4")]
mod shim {
    use std::{env, path::PathBuf};

    pub fn compile() {
        println!("cargo::rerun-if-changed=src/shim.cpp");
        println!("cargo::rerun-if-env-changed=LIBTORCH_INCLUDE");
        println!("cargo::rerun-if-env-changed=LIBTORCH_CXX11_ABI");
        // torch-sys reports the libtorch it found.
        let Some(library) = env::var_os("DEP_TCH_LIBTORCH_LIB").map(PathBuf::from) else {
            println!(
                "cargo::error=torch-sys does not say where it found libtorch; build without the feature nf4 of mm-core"
            );
            return;
        };
        let root = env::var_os("LIBTORCH_INCLUDE").map_or_else(|| library.join(".."), PathBuf::from);
        let include = root.join("include");
        let abi = env::var("LIBTORCH_CXX11_ABI").unwrap_or_else(|_| "1".into());
        cc::Build::new()
            .cpp(true)
            .std("c++17")
            .pic(true)
            .warnings(false)
            .define("_GLIBCXX_USE_CXX11_ABI", abi.as_str())
            .include(&include)
            .include(include.join("torch/csrc/api/include"))
            .file("src/shim.cpp")
            .compile("mm_shim");
    }
}
