//! Checks the machine and prints how to fix each problem. It recognizes the three most frequent problems of tch's
//! users: a libtorch of another version, one with the old C++ ABI, and a shared library that is missing at run time.

use crate::{
    paths::root,
    setup::{cargo_settings, from_environment},
};
use anyhow::Result;
use mm_hub::{
    libtorch::{Libtorch, VERSION, matches, version_of},
    paths::{cache, program},
    tools::downloaded_ffmpeg,
};
use std::{
    path::{Path, PathBuf},
    process::Command,
};

struct Findings {
    num_problems: usize,
}

impl Findings {
    fn good(name: &str, found: impl std::fmt::Display) {
        println!("  ok   {name:14} {found}");
    }

    fn bad(&mut self, name: &str, found: impl std::fmt::Display, fix: &str) {
        self.num_problems += 1;
        println!("  BAD  {name:14} {found}\n       {:14} → {fix}", "");
    }

    fn note(name: &str, found: impl std::fmt::Display, fix: &str) {
        println!("  --   {name:14} {found}\n       {:14} → {fix}", "");
    }
}

pub fn run() -> Result<()> {
    let mut findings = Findings { num_problems: 0 };
    println!("libtorch");
    libtorch(&mut findings);
    println!("machine");
    machine(&mut findings);
    println!("programs");
    flags(&mut findings);
    programs(&mut findings);
    println!("caches");
    caches(&mut findings);
    match findings.num_problems {
        0 => println!("no problems found"),
        n => anyhow::bail!("found {n} problem{}; see the fixes above", if n == 1 { "" } else { "s" }),
    }
    Ok(())
}

/// The libtorch folder that cargo builds with, and where it is set.
pub fn configured() -> Result<Option<(PathBuf, &'static str)>> {
    if let Some(found) = from_environment()? {
        return Ok(Some((found.folder, found.origin)));
    }
    let text = std::fs::read_to_string(cargo_settings()).unwrap_or_default();
    let settings: toml::Table = toml::from_str(&text).unwrap_or_default();
    let folder = settings.get("env").and_then(|e| e.get("LIBTORCH")).and_then(toml::Value::as_str);
    Ok(folder.map(|f| (PathBuf::from(f), ".cargo/libtorch.toml")))
}

fn libtorch(findings: &mut Findings) {
    let (folder, origin) = match configured() {
        Ok(Some(found)) => found,
        Ok(None) => return findings.bad("libtorch", "none", "cargo xtask setup"),
        Err(error) => {
            return findings.bad(
                "libtorch",
                format!("{error:#}"),
                "unset LIBTORCH and LIBTORCH_USE_PYTORCH and run `cargo xtask setup`",
            );
        }
    };
    let library = folder.join("lib/libtorch_cpu.so");
    if !library.exists() {
        return findings.bad(
            "libtorch",
            format!("{} (from {origin}) does not contain lib/libtorch_cpu.so", folder.display()),
            "cargo xtask setup --force",
        );
    }
    let version = version_of(&folder);
    let shown = version.clone().unwrap_or_else(|| "unknown version".into());
    let found =
        Libtorch { folder: folder.clone(), origin, version, cuda: folder.join("lib/libtorch_cuda.so").exists() };
    if matches(&found) {
        Findings::good(
            "version",
            format!("{shown} at {} (from {origin}), the version that tch 0.24.0 requires", folder.display()),
        );
    } else {
        findings.bad(
            "version",
            format!(
                "found {shown} at {} (from {origin}), expected {VERSION} for tch 0.24.0 (wrong libtorch version, tch-rs issue 671)",
                folder.display()
            ),
            "unset LIBTORCH and run `cargo xtask setup`, or install libtorch of that version",
        );
    }
    match old_abi(&library) {
        Some(false) => Findings::good("C++ ABI", "cxx11"),
        Some(true) => findings.bad(
            "C++ ABI",
            "pre-cxx11 (C++ ABI mismatch, tch-rs issue 880: undefined symbols with std::string when linking)",
            "use the cxx11 libtorch, or set LIBTORCH_CXX11_ABI=0 for every build",
        ),
        None => Findings::note(
            "C++ ABI",
            "could not be read",
            "a link error that mentions std::string or std::__cxx11 means that the ABI is wrong",
        ),
    }
    let missing = missing_libraries(&library);
    if missing.is_empty() {
        Findings::good("libraries", "all dependencies of libtorch_cpu.so are found");
    } else {
        findings.bad(
            "libraries",
            format!("not found at run time: {} (missing shared library, tch-rs issue 699)", missing.join(", ")),
            "cargo xtask setup --force; with your own LIBTORCH, unpack the whole distribution",
        );
    }
    let text = std::fs::read_to_string(cargo_settings()).unwrap_or_default();
    if text.contains(&folder.join("lib").display().to_string()) {
        Findings::good("rpath", "set for every binary by .cargo/libtorch.toml");
    } else {
        findings.bad(
            "rpath",
            format!(
                "binaries will not find {}/lib at run time (missing shared library, tch-rs issue 699)",
                folder.display()
            ),
            "cargo xtask setup",
        );
    }
    if found.cuda {
        Findings::good("CUDA", "supported by this libtorch");
    } else {
        Findings::good("CUDA", "not supported: this libtorch is CPU-only");
    }
}

/// Whether libtorch's functions use the old std::string, by their mangled names; `None` when neither is found.
fn old_abi(library: &Path) -> Option<bool> {
    // libtorch_cpu has half a gigabyte; libc10 is small and contains such names too.
    let c10 = std::fs::read(library.with_file_name("libc10.so")).ok()?;
    let has = |needle: &[u8]| c10.windows(needle.len()).any(|w| w == needle);
    if has(b"__cxx1112basic_string") {
        Some(false)
    } else if has(b"Ss") {
        Some(true)
    } else {
        None
    }
}

fn missing_libraries(library: &Path) -> Vec<String> {
    let Some(ldd) = program(&["ldd"]) else { return Vec::new() };
    let output = Command::new(ldd).arg(library).output().ok();
    let text = output.map(|o| String::from_utf8_lossy(&o.stdout).into_owned()).unwrap_or_default();
    text.lines()
        .filter(|l| l.contains("not found"))
        .filter_map(|l| l.split_whitespace().next().map(ToOwned::to_owned))
        .collect()
}

fn machine(findings: &mut Findings) {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        info.lines()
            .find(|l| l.starts_with(name))
            .and_then(|l| l.split_once(':'))
            .map(|(_, v)| v.trim().to_owned())
            .unwrap_or_default()
    };
    let flags = field("flags");
    let features: Vec<&str> = ["avx2", "avx512f", "avx512_bf16", "amx_bf16"]
        .into_iter()
        .filter(|f| flags.split(' ').any(|w| w == *f))
        .collect();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    Findings::good(
        "CPU",
        format!(
            "{} ({cores} threads; {})",
            field("model name"),
            if features.is_empty() { "no AVX2, slow".into() } else { features.join(", ") }
        ),
    );
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kilobytes = memory
        .lines()
        .find_map(|l| l.strip_prefix("MemAvailable:")?.trim().strip_suffix(" kB")?.parse::<f64>().ok())
        .unwrap_or(0.0);
    if kilobytes > 0.0 && kilobytes < 3e6 {
        findings.bad(
            "memory",
            format!("{:.1} GB free", kilobytes / 1e6),
            "building libtorch's bindings takes about 3 GB; close something, or build with `-j 1`",
        );
    } else {
        Findings::good("memory", format!("{:.1} GB free", kilobytes / 1e6));
    }
    match program(&["nvidia-smi"])
        .and_then(|p| {
            Command::new(p)
                .args(["--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"])
                .output()
                .ok()
        })
        .filter(|o| o.status.success())
    {
        Some(output) => Findings::good("GPU", String::from_utf8_lossy(&output.stdout).trim().replace('\n', "; ")),
        None => Findings::good("GPU", "none (no nvidia-smi); mm runs on the CPU"),
    }
}

/// Cargo replaces the flags of its config files by those of the environment, which drops the rpath to libtorch.
fn flags(findings: &mut Findings) {
    for name in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS"] {
        let Some(value) = std::env::var(name).ok().filter(|v| !v.is_empty()) else { continue };
        if value.contains("-rpath") {
            Findings::good(name, format!("{value} (contains an rpath)"));
        } else {
            findings.bad(
                name,
                &value,
                "it replaces the flags that setup wrote, so binaries will not find libtorch: unset it, or add \
                 -Clink-arg=-Wl,-rpath,LIBTORCH/lib to it",
            );
        }
    }
}

fn programs(findings: &mut Findings) {
    match program(&["c++", "g++", "clang++"]) {
        Some(path) => Findings::good("C++ compiler", path.display()),
        None => findings.bad("C++ compiler", "none", "install one (Debian: apt-get install g++)"),
    }
    match program(&["ffmpeg"]).or_else(|| Some(downloaded_ffmpeg()).filter(|p| p.exists())) {
        Some(path) => Findings::good("ffmpeg", path.display()),
        None => {
            Findings::note("ffmpeg", "none; video cannot be decoded", "cargo xtask setup, or apt-get install ffmpeg")
        }
    }
    for (name, purpose) in [
        ("python3", "downloading libtorch and weights by pip"),
        ("npm", "the data set emoji"),
        ("apt-get", "the data set tuxpaint-stamps"),
    ] {
        match program(&[name]) {
            Some(path) => Findings::good(name, path.display()),
            None => Findings::note(name, format!("none; needed for: {purpose}"), "install it if you need that"),
        }
    }
}

fn caches(findings: &mut Findings) {
    let cache = cache();
    let size = |path: &Path| folder_size(path) as f64 / 1e9;
    Findings::good("cache", format!("{} ({:.2} GB)", cache.display(), size(&cache)));
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    Findings::good("target", format!("{} ({:.2} GB)", target.display(), size(&target)));
    for path in [&cache, &root()] {
        let existing = path.ancestors().find(|p| p.exists()).unwrap_or(path);
        match free_bytes(existing) {
            Some(bytes) if bytes < 4_000_000_000 => findings.bad(
                "disk",
                format!("{:.1} GB free at {}", bytes as f64 / 1e9, existing.display()),
                "libtorch, the build and the demo take about 4 GB; free some space, or move the cache with XDG_CACHE_HOME",
            ),
            Some(bytes) => Findings::good("disk", format!("{:.1} GB free at {}", bytes as f64 / 1e9, existing.display())),
            None => {}
        }
    }
}

fn folder_size(path: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(path) else { return 0 };
    entries
        .filter_map(Result::ok)
        .map(|e| match e.file_type() {
            Ok(kind) if kind.is_dir() => folder_size(&e.path()),
            Ok(kind) if kind.is_file() => e.metadata().map_or(0, |m| m.len()),
            _ => 0,
        })
        .sum()
}

/// Free bytes of the file system of `path`.
pub fn free_bytes(path: &Path) -> Option<u64> {
    use std::os::unix::ffi::OsStrExt;
    let name = std::ffi::CString::new(path.as_os_str().as_bytes()).ok()?;
    // SAFETY: `statvfs` only fills the struct that it is given; zeros are a valid one.
    unsafe {
        let mut stats: libc::statvfs = std::mem::zeroed();
        (libc::statvfs(name.as_ptr(), &raw mut stats) == 0).then(|| stats.f_bavail * stats.f_frsize)
    }
}
