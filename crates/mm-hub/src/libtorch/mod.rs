//! libtorch: found, or downloaded once into the cache.

mod download;

use crate::{
    error::{Context, Result, bail},
    packages::python,
    paths::{absolute, cache},
};
use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// The version of libtorch that the pinned tch requires.
pub const VERSION: &str = "2.11.0";

/// A libtorch that was found.
#[derive(Debug, Clone)]
pub struct Libtorch {
    /// The folder with `lib` and `include`.
    pub folder: PathBuf,
    /// The setting or package that it was found through.
    pub origin: &'static str,
    /// Its version, such as `2.11.0+cpu`, where it states one.
    pub version: Option<String>,
    /// Whether it can compute on NVIDIA GPUs.
    pub cuda: bool,
}

/// Which libtorch is wanted.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// One with CUDA, from `LIBTORCH` or Python's torch; the downloaded one is CPU-only.
    pub cuda: bool,
    /// Download it again.
    pub force: bool,
    /// The file with [`settings`] that an earlier set-up wrote: a `LIBTORCH` that comes from it was not set by the user.
    pub settings: Option<PathBuf>,
}

/// The flag by which binaries, tests and benchmarks find the shared libraries at run time.
pub fn rpath_flag(libtorch: &Path) -> String {
    format!("link-arg=-Wl,-rpath,{}", libtorch.join("lib").display())
}

/// The cargo settings of this workspace for a libtorch: the content of `.cargo/libtorch.toml`.
pub fn settings(libtorch: &Path) -> String {
    let quoted = |text: String| toml::Value::String(text).to_string();
    let rpath = quoted(rpath_flag(libtorch));
    format!(
        "# Written by `cargo xtask setup`; LIBTORCH in the environment takes precedence.\n\
         [env]\nLIBTORCH = {}\n\n\
         # Binaries, tests and benchmarks find the shared libraries by their rpath.\n\
         [target.'cfg(target_os = \"linux\")']\nrustflags = [\"-C\", {rpath}]\n\n\
         # So do the examples in the documentation.\n\
         [build]\nrustdocflags = [\"-C\", {rpath}]\n",
        quoted(libtorch.display().to_string())
    )
}

/// The version of the libtorch in a folder.
pub fn version_of(folder: &Path) -> Option<String> {
    if let Ok(text) = std::fs::read_to_string(folder.join("build-version")) {
        return Some(text.trim().to_owned());
    }
    let text = std::fs::read_to_string(folder.join("version.py")).ok()?;
    let line = text.lines().find(|l| l.starts_with("__version__"))?;
    Some(line.split('\'').nth(1)?.to_owned())
}

/// The libtorch in a folder, if there is one.
pub(crate) fn find(folder: PathBuf, origin: &'static str) -> Option<Libtorch> {
    let lib = folder.join("lib");
    lib.join("libtorch_cpu.so").exists().then(|| Libtorch {
        version: version_of(&folder),
        cuda: lib.join("libtorch_cuda.so").exists(),
        folder,
        origin,
    })
}

/// The libtorch of the environment: `LIBTORCH`, or Python's torch when `LIBTORCH_USE_PYTORCH` is set. A `LIBTORCH` that cargo
/// took from the file `settings` of an earlier set-up does not count.
///
/// # Errors
/// When a variable is set and there is no libtorch where it says.
pub fn from_environment(settings: Option<&Path>) -> Result<Option<Libtorch>> {
    if std::env::var_os("LIBTORCH_USE_PYTORCH").is_some() {
        let found = python_torch().context("LIBTORCH_USE_PYTORCH is set, but Python has no torch")?;
        return Ok(Some(found));
    }
    let Some(folder) = std::env::var_os("LIBTORCH").filter(|v| !v.is_empty()).map(PathBuf::from) else {
        return Ok(None);
    };
    let text = settings.and_then(|file| std::fs::read_to_string(file).ok());
    if text.is_some_and(|text| text == self::settings(&folder)) {
        return Ok(None);
    }
    let shown = folder.display().to_string();
    // Settings and rpaths are read from other folders than this one.
    let folder = absolute(&folder)?;
    Ok(Some(find(folder, "LIBTORCH").with_context(|| {
        format!(
            "LIBTORCH={shown} does not contain lib/libtorch_cpu.so; unset it, or set it to an unpacked libtorch {VERSION}"
        )
    })?))
}

fn python_torch() -> Option<Libtorch> {
    // Importing it would take seconds.
    let code = "import importlib.util as u;s=u.find_spec('torch');print(s.submodule_search_locations[0] if s else '')";
    let output = Command::new(python().ok()?).args(["-c", code]).output().ok()?;
    let folder = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if folder.is_empty() { None } else { find(PathBuf::from(folder), "Python's torch") }
}

/// Whether a libtorch has the version that tch requires.
pub fn matches(libtorch: &Libtorch) -> bool {
    libtorch.version.as_deref().is_some_and(|v| v.split('+').next() == Some(VERSION))
}

/// The folder in the cache with every libtorch that was downloaded.
pub(crate) fn downloads() -> PathBuf {
    cache().join("libtorch")
}

/// The libtorch of the environment, Python's with `cuda`, or the downloaded one, which is fetched where it is missing.
///
/// # Errors
/// When the one that is asked for is missing or has another version, or cannot be downloaded.
pub fn find_or_fetch(request: &Request) -> Result<Libtorch> {
    let mut found = from_environment(request.settings.as_deref())?;
    if let Some(libtorch) = &found
        && !matches(libtorch)
    {
        let version = libtorch.version.as_deref().unwrap_or("unknown");
        bail!(
            "{} at {} has version {version}, expected {VERSION}. Unset it and set up again, or set it to libtorch {VERSION}",
            libtorch.origin,
            libtorch.folder.display()
        );
    }
    if found.is_none() && request.cuda {
        let torch = python_torch().filter(|t| t.cuda && matches(t));
        found = Some(torch.with_context(|| {
            format!(
                "--cuda: no libtorch {VERSION} with CUDA was found; run `pip install torch=={VERSION}`, or set LIBTORCH"
            )
        })?);
    }
    if let Some(found) = found {
        if request.cuda && !found.cuda {
            bail!("--cuda: {} at {} has no lib/libtorch_cuda.so", found.origin, found.folder.display());
        }
        return Ok(found);
    }
    let folder = downloads().join(format!("{VERSION}-cpu"));
    if request.force || !folder.join("complete").exists() {
        download::download(&folder, request.force)?;
    }
    find(folder.join("torch"), "downloaded")
        .with_context(|| format!("{} is damaged; set up again with --force", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_settings_are_valid_and_name_the_folder_with_its_rpath() {
        let value: toml::Table = toml::from_str(&settings(Path::new("/a b/torch"))).unwrap();
        assert_eq!(value["env"]["LIBTORCH"].as_str(), Some("/a b/torch"));
        let flags = value["target"]["cfg(target_os = \"linux\")"]["rustflags"].as_array().unwrap();
        assert_eq!(flags[1].as_str(), Some("link-arg=-Wl,-rpath,/a b/torch/lib"));
    }

    #[test]
    fn the_version_is_read_from_libtorch_and_from_pytorch() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        assert!(find(folder.path().to_owned(), "here").is_none());
        std::fs::create_dir(at("lib")).unwrap();
        std::fs::write(at("lib/libtorch_cpu.so"), "").unwrap();
        let found = || find(folder.path().to_owned(), "here").unwrap();
        assert_eq!((found().version, matches(&found()), found().cuda), (None, false, false));
        std::fs::write(at("version.py"), "__version__ = '2.10.0+cu128'\n").unwrap();
        assert_eq!((found().version.as_deref(), matches(&found())), (Some("2.10.0+cu128"), false));
        std::fs::write(at("build-version"), "2.11.0+cpu\n").unwrap();
        assert!(matches(&found()));
    }
}
