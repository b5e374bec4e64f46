//! Finds or downloads libtorch and ffmpeg, and writes cargo settings so that no environment variable has to be set.

use crate::{
    archive::{MAX_BYTES, unzip},
    fetch::{Remote, download},
    packages::{from_apt, from_pip, python, unpack_deb},
    paths::{cache, program, root},
};
use anyhow::{Context, Result, bail};
use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    process::Command,
};

/// The version of libtorch that the pinned tch requires.
pub const VERSION: &str = "2.11.0";
/// The wheels of the CPU-only libtorch: torch, and two small ones that it links.
const WHEELS: [&str; 3] = ["torch==2.11.0", "nvidia-cuda-runtime>=13,<14", "nvidia-cuda-cupti>=13,<14"];

/// A libtorch that was found.
#[derive(Debug, Clone)]
pub struct Libtorch {
    pub folder: PathBuf,
    /// The setting or package that it was found through.
    pub origin: &'static str,
    pub version: Option<String>,
    pub cuda: bool,
}

/// The cargo settings that setup writes, which `.cargo/config.toml` includes.
pub fn cargo_settings() -> PathBuf {
    root().join(".cargo/libtorch.toml")
}

/// The content of [`cargo_settings`] for a libtorch.
fn settings(libtorch: &Path) -> String {
    let lib = libtorch.join("lib");
    let quoted = |p: &Path| toml::Value::String(p.display().to_string()).to_string();
    let rpath = toml::Value::String(format!("link-arg=-Wl,-rpath,{}", lib.display())).to_string();
    format!(
        "# Written by `cargo xtask setup`; LIBTORCH in the environment takes precedence.\n\
         [env]\nLIBTORCH = {}\n\n\
         # Binaries, tests and benchmarks find the shared libraries by their rpath.\n\
         [target.'cfg(target_os = \"linux\")']\nrustflags = [\"-C\", {rpath}]\n\n\
         # So do the examples in the documentation.\n\
         [build]\nrustdocflags = [\"-C\", {rpath}]\n",
        quoted(libtorch)
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
fn find(folder: PathBuf, origin: &'static str) -> Option<Libtorch> {
    let lib = folder.join("lib");
    lib.join("libtorch_cpu.so").exists().then(|| Libtorch {
        version: version_of(&folder),
        cuda: lib.join("libtorch_cuda.so").exists(),
        folder,
        origin,
    })
}

/// The libtorch of the environment: `LIBTORCH`, or Python's torch when `LIBTORCH_USE_PYTORCH` is set.
pub fn from_environment() -> Result<Option<Libtorch>> {
    if std::env::var_os("LIBTORCH_USE_PYTORCH").is_some() {
        let found = python_torch().context("LIBTORCH_USE_PYTORCH is set, but Python has no torch")?;
        return Ok(Some(found));
    }
    // Cargo sets LIBTORCH for xtask from the settings of an earlier setup; the user did not set that.
    let Some(folder) = std::env::var_os("LIBTORCH").filter(|v| !v.is_empty()).map(PathBuf::from) else {
        return Ok(None);
    };
    let is_from_setup = std::fs::read_to_string(cargo_settings()).is_ok_and(|t| t == settings(&folder));
    if is_from_setup {
        return Ok(None);
    }
    let shown = folder.display().to_string();
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

fn downloaded_folder() -> PathBuf {
    cache().join(format!("libtorch/{VERSION}-cpu"))
}

/// Finds or downloads everything.
pub fn run(cuda: bool, force: bool) -> Result<()> {
    let libtorch = find_libtorch(cuda, force)?;
    let (file, text) = (cargo_settings(), settings(&libtorch.folder));
    if std::fs::read_to_string(&file).ok().as_ref() != Some(&text) {
        std::fs::write(&file, &text)
            .with_context(|| format!("{} cannot be written; check that the clone is not read-only", file.display()))?;
    }
    ffmpeg(force)?;
    nasm(force);
    Ok(())
}

/// The libtorch of the environment, Python's with `cuda`, or the downloaded one.
fn find_libtorch(cuda: bool, force: bool) -> Result<Libtorch> {
    let mut found = from_environment()?;
    if let Some(libtorch) = &found
        && !matches(libtorch)
    {
        let version = libtorch.version.as_deref().unwrap_or("unknown");
        bail!(
            "{} at {} has version {version}, expected {VERSION}. Unset it and run `cargo xtask setup`, or set it to libtorch \
             {VERSION}",
            libtorch.origin,
            libtorch.folder.display()
        );
    }
    if found.is_none() && cuda {
        let torch = python_torch().filter(|t| t.cuda && matches(t));
        found = Some(torch.with_context(|| {
            format!(
                "--cuda: no libtorch {VERSION} with CUDA was found; run `pip install torch=={VERSION}`, or set LIBTORCH"
            )
        })?);
    }
    if let Some(found) = found {
        if cuda && !found.cuda {
            bail!("--cuda: {} at {} has no lib/libtorch_cuda.so", found.origin, found.folder.display());
        }
        return Ok(found);
    }
    let folder = downloaded_folder();
    if force || !folder.join("complete").exists() {
        download_libtorch(&folder)?;
    }
    find(folder.join("torch"), "downloaded")
        .with_context(|| format!("{} is damaged; run `cargo xtask setup --force`", folder.display()))
}

/// Downloads the wheels and unpacks a CPU-only libtorch, first to a temporary folder, so that `folder` is never
/// incomplete.
fn download_libtorch(folder: &Path) -> Result<()> {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        bail!(
            "libtorch is downloaded for Linux on x86_64 only; on this machine install Python's torch {VERSION} and set \
             LIBTORCH_USE_PYTORCH=1, or set LIBTORCH"
        );
    }
    let parent = folder.parent().context("the path has no parent folder")?;
    std::fs::create_dir_all(parent).with_context(|| format!("{} cannot be created", parent.display()))?;
    let lock = File::options().create(true).truncate(false).write(true).open(parent.join("lock"))?;
    lock.lock()?;
    if folder.join("complete").exists() && std::env::args().all(|a| a != "--force") {
        return Ok(());
    }
    eprintln!("libtorch {VERSION}: downloading (545 MB once, shared by all clones) …");
    let missing = "libtorch is required to build mm. Without a network connection, set LIBTORCH to an unpacked libtorch 2.11.0 \
                   (CPU), or copy ~/.cache/mm/libtorch from another machine";
    let partial = parent.join(format!("{VERSION}-cpu.partial"));
    let _ = std::fs::remove_dir_all(&partial);
    for package in WHEELS {
        let remote: Remote = from_pip(package).context(missing)?;
        let name = remote.url.rsplit('/').next().unwrap_or("wheel").to_owned();
        let wheel = parent.join("wheels").join(name);
        download(&remote, &wheel).context(missing)?;
        unzip(&wheel, &partial, MAX_BYTES, is_needed)?;
        std::fs::remove_file(&wheel)?;
    }
    let torch = partial.join("torch");
    // libtorch.so links the CUDA libraries that are left out; this linker script replaces it.
    std::fs::write(torch.join("lib/libtorch.so"), "INPUT(-ltorch_cpu -lc10)\n")?;
    std::fs::write(torch.join("build-version"), format!("{VERSION}+cpu\n"))?;
    std::fs::write(partial.join("complete"), VERSION)?;
    let _ = std::fs::remove_dir_all(folder);
    std::fs::rename(&partial, folder)?;
    let _ = std::fs::remove_dir_all(parent.join("wheels"));
    Ok(())
}

/// Whether a file of the wheels is needed to build and run: libraries and headers, but no CUDA kernels and nothing of
/// Python.
fn is_needed(name: &str) -> bool {
    let is_library = name.starts_with("torch/lib/")
        && name.contains(".so")
        && !["cuda", "python", "nvshmem", "nvrtc"].iter().any(|w| name.contains(w));
    is_library
        || name.starts_with("torch/include/")
        || name == "torch/version.py"
        || (name.starts_with("nvidia/")
            && name.contains("/lib/lib")
            && (name.contains("libcudart") || name.contains("libcupti")))
}

/// The downloaded ffmpeg, which mm uses when there is none on the `PATH`.
pub fn downloaded_ffmpeg() -> PathBuf {
    cache().join("ffmpeg/ffmpeg")
}

fn ffmpeg(force: bool) -> Result<()> {
    let target = downloaded_ffmpeg();
    if !force && (program(&["ffmpeg"]).is_some() || target.exists()) {
        return Ok(());
    }
    eprintln!("ffmpeg: downloading …");
    let missing = "ffmpeg is only needed for video; install it (Debian: apt-get install ffmpeg)";
    let remote = from_pip("imageio-ffmpeg").context(missing)?;
    let folder = target.parent().context("the path has no parent folder")?.to_owned();
    let wheel = folder.join("imageio-ffmpeg.whl");
    download(&remote, &wheel).context(missing)?;
    let partial = folder.join("unpacked.partial");
    let _ = std::fs::remove_dir_all(&partial);
    unzip(&wheel, &partial, MAX_BYTES, |n| n.contains("/binaries/ffmpeg"))?;
    let binaries = partial.join("imageio_ffmpeg/binaries");
    let found = std::fs::read_dir(&binaries)
        .with_context(|| format!("the package contains no ffmpeg for this machine; {missing}"))?
        .next()
        .context(missing)??
        .path();
    let mut start = [0u8; 4];
    File::open(&found)?.read_exact(&mut start)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(&found, std::fs::Permissions::from_mode(0o755))?;
    }
    std::fs::rename(&found, &target)?;
    std::fs::remove_dir_all(&partial)?;
    std::fs::remove_file(&wheel)?;
    Ok(())
}

/// The downloaded nasm; xtask adds its folder to cargo's `PATH`.
pub fn downloaded_nasm() -> PathBuf {
    cache().join("nasm/usr/bin/nasm")
}

/// Downloads nasm, which builds libjpeg-turbo's assembly. Without it, jpegs are decoded by its C code to the same
/// pixels but slower, so a failure is only a warning.
fn nasm(force: bool) {
    let (target, tried) = (downloaded_nasm(), cache().join("nasm/tried"));
    if program(&["nasm"]).is_some() || (!force && (target.exists() || tried.exists())) {
        return;
    }
    let folder = cache().join("nasm");
    let fetch = || -> Result<()> {
        std::fs::create_dir_all(&folder)?;
        std::fs::write(&tried, "")?;
        unpack_deb(&from_apt("nasm", &folder)?, &folder)?;
        let _ = std::fs::remove_dir_all(folder.join("apt"));
        Ok(())
    };
    if let Err(error) = fetch() {
        eprintln!(
            "xtask: no nasm, so jpegs are decoded without libjpeg's assembly, slower (Debian: apt-get install nasm): {error:#}"
        );
    }
}
