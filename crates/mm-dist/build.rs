//! Compiles `src/shim.cpp` for the feature `c10d`.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    #[cfg(feature = "c10d")]
    if std::env::var_os("CARGO_FEATURE_DOC_ONLY").is_none() {
        compile();
    }
}

#[cfg(feature = "c10d")]
fn compile() {
    println!("cargo::rerun-if-changed=src/shim.cpp");
    println!("cargo::rerun-if-changed=gloo");
    let Some(settings) = mm_libtorch::cpp_settings() else {
        println!(
            "cargo::error=torch-sys does not say where it found libtorch; build without the feature c10d of mm-dist"
        );
        return;
    };
    cc::Build::new()
        .cpp(true)
        .std("c++17")
        .pic(true)
        .warnings(false)
        // Calls into libtorch alone, where the time is spent.
        .opt_level(1)
        .include("gloo")
        .define("_GLIBCXX_USE_CXX11_ABI", settings.cxx11_abi.as_str())
        .includes(settings.include)
        .file("src/shim.cpp")
        .compile("mm_dist_shim");
}
