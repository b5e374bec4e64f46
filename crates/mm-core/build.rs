//! Compiles `src/shim.cpp` for the feature `nf4`.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    #[cfg(feature = "nf4")]
    if std::env::var_os("CARGO_FEATURE_DOC_ONLY").is_none() {
        compile();
    }
}

#[cfg(feature = "nf4")]
fn compile() {
    println!("cargo::rerun-if-changed=src/shim.cpp");
    let Some(settings) = mm_libtorch::cpp_settings() else {
        println!(
            "cargo::error=torch-sys does not say where it found libtorch; build without the feature nf4 of mm-core"
        );
        return;
    };
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .pic(true)
        .warnings(false)
        .define("_GLIBCXX_USE_CXX11_ABI", settings.cxx11_abi.as_str())
        .includes(settings.include)
        .file("src/shim.cpp")
        .compile("mm_shim");
}
