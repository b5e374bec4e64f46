//! Compiles `src/shim.cpp`: the few functions of libtorch that tch does not wrap.

use std::{env, path::PathBuf};

fn main() {
    println!("cargo:rerun-if-changed=src/shim.cpp");
    println!("cargo:rerun-if-env-changed=LIBTORCH_INCLUDE");
    println!("cargo:rerun-if-env-changed=LIBTORCH_CXX11_ABI");
    // torch-sys reports the libtorch it found.
    let library = PathBuf::from(env::var("DEP_TCH_LIBTORCH_LIB").expect("torch-sys reports the folder of libtorch"));
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
