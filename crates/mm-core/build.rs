//! The one piece of C++: a product that libtorch has no way back for (`src/four_bit.cpp`).

use std::{env, path::PathBuf};

fn main() {
    println!("cargo:rerun-if-changed=src/four_bit.cpp");
    println!("cargo:rerun-if-env-changed=LIBTORCH_INCLUDE");
    println!("cargo:rerun-if-env-changed=LIBTORCH_CXX11_ABI");
    // torch-sys says which libtorch it has found.
    let library = PathBuf::from(env::var("DEP_TCH_LIBTORCH_LIB").expect("torch-sys tells where libtorch lies"));
    let top = env::var_os("LIBTORCH_INCLUDE").map_or_else(|| library.join(".."), PathBuf::from);
    let include = top.join("include");
    let abi = env::var("LIBTORCH_CXX11_ABI").unwrap_or_else(|_| "1".into());
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .pic(true)
        .warnings(false)
        .define("_GLIBCXX_USE_CXX11_ABI", abi.as_str())
        .include(&include)
        .include(include.join("torch/csrc/api/include"))
        .file("src/four_bit.cpp")
        .compile("mm_four_bit");
}
