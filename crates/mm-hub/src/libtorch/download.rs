//! The wheels that libtorch is unpacked from.

use super::VERSION;
use crate::{
    archive::{MAX_BYTES, unzip},
    error::{At, Context, Result, bail},
    fetch::{Remote, download as fetch},
    packages::{check_online, from_pip},
    paths::{create_dir, lock},
    report::note,
};
use std::path::Path;

/// The wheels of the CPU-only libtorch: torch, and two small ones that it links.
const WHEELS: [&str; 3] = ["torch==2.11.0", "nvidia-cuda-runtime>=13,<14", "nvidia-cuda-cupti>=13,<14"];

/// What to do without a network connection.
const MISSING: &str = "libtorch is required to build mm. Without a network connection, set LIBTORCH to an unpacked libtorch 2.11.0 \
    (CPU), or copy ~/.cache/mm/libtorch from another machine";

/// Downloads the wheels and unpacks a CPU-only libtorch, first to a temporary folder, so that `folder` is never
/// incomplete.
pub(super) fn download(folder: &Path, force: bool) -> Result<()> {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        bail!(
            "libtorch is downloaded for Linux on x86_64 only; on this machine install Python's torch {VERSION} and set \
             LIBTORCH_USE_PYTORCH=1, or set LIBTORCH"
        );
    }
    let parent = folder.parent().context("the path has no parent folder")?;
    create_dir(parent)?;
    let _lock = lock(&parent.join("lock"), "another process downloads libtorch; waiting for it …")?;
    if folder.join("complete").exists() && !force {
        return Ok(());
    }
    check_online("libtorch").context(MISSING)?;
    note(format!("libtorch {VERSION}: downloading (545 MB once, shared by all clones and projects) …"));
    let partial = parent.join(format!("{VERSION}-cpu.partial"));
    let _ = std::fs::remove_dir_all(&partial);
    for package in WHEELS {
        let remote: Remote = from_pip(package).context(MISSING)?;
        let name = remote.url.rsplit('/').next().unwrap_or("wheel").to_owned();
        let wheel = parent.join("wheels").join(name);
        fetch(&remote, &wheel).context(MISSING)?;
        unzip(&wheel, &partial, MAX_BYTES, is_needed)?;
        std::fs::remove_file(&wheel).at(&wheel, "deleted")?;
    }
    let write = |path: &str, text: &str| {
        let path = partial.join(path);
        std::fs::write(&path, text).at(&path, "written")
    };
    // libtorch.so links the CUDA libraries that are left out; this linker script replaces it.
    write("torch/lib/libtorch.so", "INPUT(-ltorch_cpu -lc10)\n")?;
    write("torch/build-version", &format!("{VERSION}+cpu\n"))?;
    write("complete", VERSION)?;
    // Programs that use the old one keep what they have open; a build finds one of the two.
    let old = parent.join(format!("{VERSION}-cpu.old"));
    let _ = std::fs::remove_dir_all(&old);
    let _ = std::fs::rename(folder, &old);
    std::fs::rename(&partial, folder).at(folder, "written")?;
    let _ = std::fs::remove_dir_all(&old);
    let _ = std::fs::remove_dir_all(parent.join("wheels"));
    Ok(())
}

/// Whether a file of the wheels is needed to build, run and pass on: libraries, headers and licences, but no CUDA kernels
/// and nothing of Python.
fn is_needed(name: &str) -> bool {
    let is_library = name.starts_with("torch/lib/")
        && name.contains(".so")
        && !["cuda", "python", "nvshmem", "nvrtc"].iter().any(|w| name.contains(w));
    is_library
        || name.starts_with("torch/include/")
        || name == "torch/version.py"
        || (name.contains(".dist-info/") && (name.contains("/licenses/") || name.to_lowercase().contains("/license")))
        || (name.starts_with("nvidia/")
            && name.contains("/lib/lib")
            && (name.contains("libcudart") || name.contains("libcupti")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_headers_and_licences_are_kept_and_cuda_and_python_are_not() {
        for name in [
            "torch/lib/libtorch_cpu.so",
            "torch/include/ATen/ATen.h",
            "torch-2.11.0.dist-info/licenses/LICENSE",
            "nvidia_cuda_runtime-13.0.96.dist-info/licenses/License.txt",
            "nvidia/cu13/lib/libcudart.so.13",
        ] {
            assert!(is_needed(name), "{name}");
        }
        for name in ["torch/lib/libtorch_cuda.so", "torch/lib/libtorch_python.so", "torch/nn/modules/linear.py"] {
            assert!(!is_needed(name), "{name}");
        }
    }
}
