//! Compiles `src/shim.cpp` for the feature `c10d`.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    #[cfg(feature = "c10d")]
    if std::env::var_os("CARGO_FEATURE_DOC_ONLY").is_none() {
        shim::compile();
    }
}

#[cfg(feature = "c10d")]
mod shim {
    use std::{env, path::PathBuf};

    pub fn compile() {
        println!("cargo::rerun-if-changed=src/shim.cpp");
        println!("cargo::rerun-if-changed=gloo");
        println!("cargo::rerun-if-env-changed=LIBTORCH_INCLUDE");
        println!("cargo::rerun-if-env-changed=LIBTORCH_CXX11_ABI");
        // torch-sys reports the libtorch it found.
        let Some(library) = env::var_os("DEP_TCH_LIBTORCH_LIB").map(PathBuf::from) else {
            println!(
                "cargo::error=torch-sys does not say where it found libtorch; build without the feature c10d of mm-dist"
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
            // Calls into libtorch alone, where the time is spent.
            .opt_level(1)
            .define("_GLIBCXX_USE_CXX11_ABI", abi.as_str())
            .include("gloo")
            .include(&include)
            .include(include.join("torch/csrc/api/include"))
            .file("src/shim.cpp")
            .compile("mm_dist_shim");
    }
}
