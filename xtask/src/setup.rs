//! libtorch and ffmpeg: found or fetched, and written down for cargo, so that no environment variable has to be set.

use crate::{
    fetch::{Remote, download, from_apt, from_pip, python, unpack_deb},
    places::{cache, program, root},
};
use anyhow::{Context, Result, bail};
use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    process::Command,
};

/// The libtorch that the pinned tch goes with.
pub const VERSION: &str = "2.11.0";
/// The wheels that the processor-only libtorch is made of: torch, and the two small ones that it links.
const WHEELS: [&str; 3] = ["torch==2.11.0", "nvidia-cuda-runtime>=13,<14", "nvidia-cuda-cupti>=13,<14"];

/// Where a libtorch was found.
#[derive(Debug, Clone)]
pub struct Libtorch {
    pub folder: PathBuf,
    pub origin: &'static str,
    pub version: Option<String>,
    pub cuda: bool,
}

/// What cargo reads: see `.cargo/config.toml`.
pub fn cargo_settings() -> PathBuf {
    root().join(".cargo/libtorch.toml")
}

/// What is written there for a libtorch.
fn settings(libtorch: &Path) -> String {
    let lib = libtorch.join("lib");
    let quoted = |p: &Path| toml::Value::String(p.display().to_string()).to_string();
    let rpath = toml::Value::String(format!("link-arg=-Wl,-rpath,{}", lib.display())).to_string();
    format!(
        "# Written by `cargo xtask setup`; a LIBTORCH of your own in the environment wins over this one.\n\
         [env]\nLIBTORCH = {}\n\n\
         # Every binary, test and bench finds the shared libraries by itself.\n\
         [target.'cfg(target_os = \"linux\")']\nrustflags = [\"-C\", {rpath}]\n\n\
         # Examples in the documentation are programs too.\n\
         [build]\nrustdocflags = [\"-C\", {rpath}]\n",
        quoted(libtorch)
    )
}

/// Version of a libtorch folder, from the file that each distribution of it has.
pub fn version_of(folder: &Path) -> Option<String> {
    if let Ok(text) = std::fs::read_to_string(folder.join("build-version")) {
        return Some(text.trim().to_owned());
    }
    let text = std::fs::read_to_string(folder.join("version.py")).ok()?;
    let line = text.lines().find(|l| l.starts_with("__version__"))?;
    Some(line.split('\'').nth(1)?.to_owned())
}

fn look(folder: PathBuf, origin: &'static str) -> Option<Libtorch> {
    let lib = folder.join("lib");
    lib.join("libtorch_cpu.so").exists().then(|| Libtorch {
        version: version_of(&folder),
        cuda: lib.join("libtorch_cuda.so").exists(),
        folder,
        origin,
    })
}

/// The libtorch of the environment: `LIBTORCH`, or the torch of a Python when `LIBTORCH_USE_PYTORCH` is set.
pub fn from_environment() -> Result<Option<Libtorch>> {
    if std::env::var_os("LIBTORCH_USE_PYTORCH").is_some() {
        let found = python_torch().context("LIBTORCH_USE_PYTORCH is set, but this Python has no torch")?;
        return Ok(Some(found));
    }
    // Cargo itself sets LIBTORCH for xtask from the settings of an earlier set-up: that is not the user's own.
    let Some(folder) = std::env::var_os("LIBTORCH").filter(|v| !v.is_empty()).map(PathBuf::from) else {
        return Ok(None);
    };
    let ours = std::fs::read_to_string(cargo_settings()).is_ok_and(|t| t == settings(&folder));
    if ours {
        return Ok(None);
    }
    let shown = folder.display().to_string();
    Ok(Some(look(folder, "LIBTORCH").with_context(|| {
        format!(
            "LIBTORCH={shown} holds no lib/libtorch_cpu.so; unset it, or point it at an unpacked libtorch {VERSION}"
        )
    })?))
}

fn python_torch() -> Option<Libtorch> {
    // Without importing it: that would take seconds.
    let code = "import importlib.util as u;s=u.find_spec('torch');print(s.submodule_search_locations[0] if s else '')";
    let output = Command::new(python().ok()?).args(["-c", code]).output().ok()?;
    let folder = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if folder.is_empty() { None } else { look(PathBuf::from(folder), "Python's torch") }
}

/// Whether a libtorch is of the version that tch wants.
pub fn matches(libtorch: &Libtorch) -> bool {
    libtorch.version.as_deref().is_some_and(|v| v.split('+').next() == Some(VERSION))
}

fn fetched_folder() -> PathBuf {
    cache().join(format!("libtorch/{VERSION}-cpu"))
}

/// Finds or fetches everything.
pub fn run(cuda: bool, force: bool) -> Result<()> {
    let libtorch = choose(cuda, force)?;
    let (file, text) = (cargo_settings(), settings(&libtorch.folder));
    if std::fs::read_to_string(&file).ok().as_ref() != Some(&text) {
        std::fs::write(&file, &text)
            .with_context(|| format!("{} cannot be written; is the clone read-only?", file.display()))?;
    }
    ffmpeg(force)?;
    nasm(force);
    Ok(())
}

fn choose(cuda: bool, force: bool) -> Result<Libtorch> {
    let mut found = from_environment()?;
    if let Some(own) = &found
        && !matches(own)
    {
        let version = own.version.as_deref().unwrap_or("unknown");
        bail!(
            "{} at {} is of version {version}; this tch goes with {VERSION}. Unset it and run `cargo xtask setup`, or point it at libtorch {VERSION}",
            own.origin,
            own.folder.display()
        );
    }
    if found.is_none() && cuda {
        let torch = python_torch().filter(|t| t.cuda && matches(t));
        found = Some(torch.with_context(|| format!("--cuda: no libtorch {VERSION} with CUDA was found; `pip install torch=={VERSION}` brings one, or set LIBTORCH"))?);
    }
    if let Some(found) = found {
        if cuda && !found.cuda {
            bail!("--cuda: {} at {} has no lib/libtorch_cuda.so", found.origin, found.folder.display());
        }
        return Ok(found);
    }
    let folder = fetched_folder();
    if force || !folder.join("complete").exists() {
        assemble(&folder)?;
    }
    look(folder.join("torch"), "fetched")
        .with_context(|| format!("{} is damaged; run `cargo xtask setup --force`", folder.display()))
}

/// The wheels become a libtorch for the processor: unpacked beside its final place, then renamed, so that a half-finished one is
/// never taken for whole.
fn assemble(folder: &Path) -> Result<()> {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        bail!(
            "libtorch is fetched for Linux on x86_64 only; on this machine install torch {VERSION} for a Python and set LIBTORCH_USE_PYTORCH=1, or set LIBTORCH"
        );
    }
    let parent = folder.parent().context("a folder without a parent")?;
    std::fs::create_dir_all(parent).with_context(|| format!("{} cannot be made", parent.display()))?;
    let lock = File::options().create(true).truncate(false).write(true).open(parent.join("lock"))?;
    lock.lock()?;
    if folder.join("complete").exists() && std::env::args().all(|a| a != "--force") {
        return Ok(());
    }
    eprintln!("libtorch {VERSION}: fetching (545 MB once, shared by all clones) …");
    let missing = "libtorch is needed to build mm. Without a network: unpack libtorch 2.11.0 (CPU) from another machine and set LIBTORCH to it, or copy its ~/.cache/mm/libtorch here";
    let partial = parent.join(format!("{VERSION}-cpu.partial"));
    let _ = std::fs::remove_dir_all(&partial);
    for package in WHEELS {
        let remote: Remote = from_pip(package).context(missing)?;
        let name = remote.url.rsplit('/').next().unwrap_or("wheel").to_owned();
        let wheel = parent.join("wheels").join(name);
        download(&remote, &wheel).context(missing)?;
        unzip(&wheel, &partial, wanted)?;
        std::fs::remove_file(&wheel)?;
    }
    let torch = partial.join("torch");
    // The umbrella library links the CUDA ones that were left out; a linker script names what is there.
    std::fs::write(torch.join("lib/libtorch.so"), "INPUT(-ltorch_cpu -lc10)\n")?;
    std::fs::write(torch.join("build-version"), format!("{VERSION}+cpu\n"))?;
    std::fs::write(partial.join("complete"), VERSION)?;
    let _ = std::fs::remove_dir_all(folder);
    std::fs::rename(&partial, folder)?;
    let _ = std::fs::remove_dir_all(parent.join("wheels"));
    Ok(())
}

/// What of the wheels is needed to build and run: libraries and headers, none of CUDA's kernels and nothing of Python's.
fn wanted(name: &str) -> bool {
    let library = name.starts_with("torch/lib/")
        && name.contains(".so")
        && !["cuda", "python", "nvshmem", "nvrtc"].iter().any(|w| name.contains(w));
    library
        || name.starts_with("torch/include/")
        || name == "torch/version.py"
        || (name.starts_with("nvidia/")
            && name.contains("/lib/lib")
            && (name.contains("libcudart") || name.contains("libcupti")))
}

/// Unpacks the entries of a zip that `keep` wants.
pub fn unzip(file: &Path, folder: &Path, keep: impl Fn(&str) -> bool) -> Result<()> {
    let mut archive =
        zip::ZipArchive::new(File::open(file)?).with_context(|| format!("{} is not a whole wheel", file.display()))?;
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index)?;
        let Some(inside) = entry.enclosed_name() else {
            bail!("{}: {} lies outside of it", file.display(), entry.name())
        };
        if entry.is_dir() || !keep(&inside.to_string_lossy()) {
            continue;
        }
        let target = folder.join(&inside);
        if let Some(parent) = target.parent() {
            std::fs::create_dir_all(parent)?;
        }
        let mut out = File::create(&target).with_context(|| format!("{} cannot be written", target.display()))?;
        std::io::copy(&mut entry, &mut out)?;
        #[cfg(unix)]
        if let Some(mode) = entry.unix_mode() {
            use std::os::unix::fs::PermissionsExt;
            std::fs::set_permissions(&target, std::fs::Permissions::from_mode(mode | 0o600))?;
        }
    }
    Ok(())
}

/// Where a fetched ffmpeg lies; mm looks there after the PATH.
pub fn fetched_ffmpeg() -> PathBuf {
    cache().join("ffmpeg/ffmpeg")
}

fn ffmpeg(force: bool) -> Result<()> {
    let target = fetched_ffmpeg();
    if !force && (program(&["ffmpeg"]).is_some() || target.exists()) {
        return Ok(());
    }
    eprintln!("ffmpeg: fetching …");
    let missing = "ffmpeg is needed for video only; install it (Debian: apt-get install ffmpeg)";
    let remote = from_pip("imageio-ffmpeg").context(missing)?;
    let folder = target.parent().context("a file without a folder")?.to_owned();
    let wheel = folder.join("imageio-ffmpeg.whl");
    download(&remote, &wheel).context(missing)?;
    let partial = folder.join("unpacked.partial");
    let _ = std::fs::remove_dir_all(&partial);
    unzip(&wheel, &partial, |n| n.contains("/binaries/ffmpeg"))?;
    let binaries = partial.join("imageio_ffmpeg/binaries");
    let found = std::fs::read_dir(&binaries)
        .with_context(|| format!("the package holds no ffmpeg for this machine; {missing}"))?
        .next()
        .context(missing)??
        .path();
    let mut head = [0u8; 4];
    File::open(&found)?.read_exact(&mut head)?;
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

/// Where a fetched nasm lies; xtask puts its folder on cargo's PATH.
pub fn fetched_nasm() -> PathBuf {
    cache().join("nasm/usr/bin/nasm")
}

/// libjpeg-turbo's assembly needs nasm to be built. Without it jpegs are read by its C alone: the same pixels, not as fast, so a
/// failure here is only told.
fn nasm(force: bool) {
    let (target, tried) = (fetched_nasm(), cache().join("nasm/tried"));
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
            "xtask: no nasm, so jpegs are read without libjpeg's assembly (Debian: apt-get install nasm): {error:#}"
        );
    }
}
