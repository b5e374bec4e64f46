//! Where torch-sys looks for libtorch, in its order.

use crate::VERSION;
use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

/// The variables that decide which libtorch is used.
pub const VARIABLES: [&str; 6] = [
    "LIBTORCH",
    "LIBTORCH_INCLUDE",
    "LIBTORCH_LIB",
    "LIBTORCH_USE_PYTORCH",
    "LIBTORCH_BYPASS_VERSION_CHECK",
    "DOCS_RS",
];

/// What is wrong with this machine's libtorch.
pub enum Problem {
    /// None is set up.
    Missing,
    /// A setting names a folder that holds none, or Python has no torch.
    Invalid { setting: String, found: String },
    /// It has another version.
    Version { setting: String, found: String },
}

/// The folder of the shared libraries; none when tch downloads them.
pub fn find() -> Result<Option<PathBuf>, Problem> {
    if env::var_os("LIBTORCH_USE_PYTORCH").is_some() {
        return of_python().map(Some);
    }
    if let Some(folder) = env::var_os("LIBTORCH") {
        let setting = format!("LIBTORCH={}", folder.display());
        return of_folder(&PathBuf::from(folder), &setting).map(Some);
    }
    if env::var("CARGO_CFG_TARGET_OS").is_ok_and(|os| os == "linux") && Path::new("/usr/lib/libtorch.so").exists() {
        return of_folder(Path::new("/usr"), "/usr/lib/libtorch.so").map(Some);
    }
    if env::var_os("CARGO_FEATURE_DOWNLOAD_LIBTORCH").is_some() { Ok(None) } else { Err(Problem::Missing) }
}

/// The libtorch of a folder with `lib` and `include`, each of which a variable of its own may replace.
fn of_folder(folder: &Path, setting: &str) -> Result<PathBuf, Problem> {
    let [include, lib] = [("LIBTORCH_INCLUDE", "include"), ("LIBTORCH_LIB", "lib")]
        .map(|(variable, name)| env::var_os(variable).map_or_else(|| folder.to_owned(), PathBuf::from).join(name));
    let missing = |path: &Path| {
        let found = format!("no {}", path.display());
        Problem::Invalid { setting: setting.to_owned(), found }
    };
    let names = ["libtorch_cpu.so", "libtorch_cpu.dylib", "torch_cpu.lib", "libtorch_cpu.a"];
    let Some(library) = names.iter().map(|n| lib.join(n)).find(|p| p.exists()) else {
        return Err(missing(&lib.join(names[0])));
    };
    let header = include.join("torch/csrc/api/include/torch/torch.h");
    if !header.exists() {
        return Err(missing(&header));
    }
    // The check is repeated when this libtorch is replaced by another.
    println!("cargo::rerun-if-changed={}", library.display());
    check_version(version_of(folder, &include), setting)?;
    Ok(lib)
}

/// The version as the folder states it: `build-version` of the archives, else the macros of the header.
fn version_of(folder: &Path, include: &Path) -> Option<String> {
    if let Ok(text) = std::fs::read_to_string(folder.join("build-version")) {
        return Some(text.trim().to_owned());
    }
    let headers = ["torch/headeronly/version.h", "torch/csrc/api/include/torch/version.h"];
    let text = headers.iter().find_map(|name| std::fs::read_to_string(include.join(name)).ok())?;
    let number = |name: &str| {
        text.lines().find_map(|line| line.strip_prefix("#define TORCH_VERSION_")?.strip_prefix(name)).map(str::trim)
    };
    Some(format!("{}.{}.{}", number("MAJOR ")?, number("MINOR ")?, number("PATCH ")?))
}

/// A folder that does not state its version passes, as in torch-sys.
fn check_version(found: Option<String>, setting: &str) -> Result<(), Problem> {
    let other = found.filter(|version| version.split('+').next() != Some(VERSION));
    match other {
        Some(found) if env::var_os("LIBTORCH_BYPASS_VERSION_CHECK").is_none() => {
            Err(Problem::Version { setting: setting.to_owned(), found })
        }
        _ => Ok(()),
    }
}

/// The libtorch of Python's torch; importing torch would take seconds, so its `version.py` is run alone.
fn of_python() -> Result<PathBuf, Problem> {
    const CODE: &str = "import importlib.util as u, os, runpy\n\
                        f = u.find_spec('torch').submodule_search_locations[0]\n\
                        print(f)\n\
                        print(runpy.run_path(os.path.join(f, 'version.py'))['__version__'])";
    let setting = "LIBTORCH_USE_PYTORCH".to_owned();
    let python = if env::var_os("VIRTUAL_ENV").is_some() { "python" } else { "python3" };
    let invalid = |found: String| Problem::Invalid { setting: setting.clone(), found };
    let output = Command::new(python).args(["-c", CODE]).output();
    let output = output.map_err(|e| invalid(format!("no {python} that runs ({e})")))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let Some((folder, version)) = text.trim().split_once('\n') else {
        return Err(invalid(format!("{python} without torch")));
    };
    check_version(Some(version.trim().to_owned()), &format!("LIBTORCH_USE_PYTORCH ({})", folder.trim()))?;
    Ok(Path::new(folder.trim()).join("lib"))
}
