//! `cargo xtask nccl`: the library through which several processes train on GPUs, compiled from one C++ file of mm-dist
//! against a libtorch with CUDA.

use crate::{doctor::configured, paths::root, setup};
use anyhow::{Context, Result, bail};
use mm_hub::{
    libtorch::{self, Libtorch, VERSION},
    paths::program,
};
use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

#[derive(clap::Args)]
pub struct Arguments {
    /// The file of the library [default: target/nccl/libmm_nccl.so of this workspace, where its programs look for it].
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Headers that are asked for before the compiler is, and the package of each in Python's registry.
const HEADERS: [(&str, &str); 7] = [
    ("cuda_runtime_api.h", "nvidia-cuda-runtime"),
    ("crt/host_defines.h", "nvidia-cuda-crt"),
    ("nv/target", "nvidia-cuda-cccl"),
    ("cublas_v2.h", "nvidia-cublas"),
    ("cusparse.h", "nvidia-cusparse"),
    ("cusolverDn.h", "nvidia-cusolver"),
    ("nccl.h", "nvidia-nccl-cu13"),
];

/// Compiles the library.
pub fn run(arguments: &Arguments) -> Result<()> {
    if !cfg!(target_os = "linux") {
        bail!("NCCL runs on Linux");
    }
    let libtorch = with_cuda()?;
    let home = std::env::var_os("CUDA_HOME").filter(|home| !home.is_empty()).map(PathBuf::from);
    let cuda = cuda_folders(&libtorch.folder, home.as_deref());
    check_headers(&cuda)?;
    let out = arguments.out.clone().unwrap_or_else(|| root().join("target/nccl/libmm_nccl.so"));
    if let Some(folder) = out.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("--out: {} cannot be made", folder.display()))?;
    }
    let begun = Instant::now();
    let partial = out.with_extension(format!("{}.partial", std::process::id()));
    let compiled = compile(&libtorch.folder, &cuda, &partial);
    if compiled.is_err() {
        let _ = std::fs::remove_file(&partial);
    }
    compiled?;
    std::fs::rename(&partial, &out).with_context(|| format!("--out: {} cannot be written", out.display()))?;
    println!(
        "{} ({} kB, {:.0} s) for libtorch {} at {}",
        out.display(),
        std::fs::metadata(&out)?.len() / 1000,
        begun.elapsed().as_secs_f64(),
        libtorch.version.as_deref().unwrap_or(VERSION),
        libtorch.folder.display()
    );
    Ok(())
}

/// The libtorch that this workspace is built with where it has CUDA, else that of `LIBTORCH` or Python's torch.
fn with_cuda() -> Result<Libtorch> {
    if let Some((folder, origin)) = configured()? {
        let version = libtorch::version_of(&folder);
        let found = Libtorch { cuda: folder.join("lib/libtorch_cuda.so").exists(), folder, origin, version };
        if found.cuda && libtorch::matches(&found) {
            return Ok(found);
        }
    }
    libtorch::find_or_fetch(&setup::request(true, false)).context("NCCL needs a libtorch with CUDA")
}

/// The folders in which headers of CUDA and NCCL may be: those of the wheels next to torch, a toolkit's, the system's.
fn cuda_folders(torch: &Path, cuda_home: Option<&Path>) -> Vec<PathBuf> {
    let wheels = torch.parent().map(|site| site.join("nvidia")).and_then(|folder| folder.read_dir().ok());
    let mut wheels: Vec<PathBuf> = wheels.into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path())).collect();
    wheels.sort();
    let toolkits = cuda_home.map(Path::to_owned).into_iter().chain([PathBuf::from("/usr/local/cuda")]);
    let folders = wheels.into_iter().chain(toolkits).map(|folder| folder.join("include"));
    // From CUDA 13 on the headers of libcu++ are in a folder of their own.
    folders.flat_map(|folder| [folder.join("cccl"), folder]).filter(|folder| folder.is_dir()).collect()
}

fn check_headers(folders: &[PathBuf]) -> Result<()> {
    let system = PathBuf::from("/usr/include");
    let has = |header: &str| folders.iter().chain([&system]).any(|folder| folder.join(header).exists());
    let missing: Vec<_> = HEADERS.into_iter().filter(|(header, _)| !has(header)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let list = |names: Vec<&str>| names.join(", ");
    let searched = folders.iter().map(|folder| folder.display().to_string()).collect::<Vec<_>>().join(", ");
    bail!(
        "found no {} in {}, expected the headers of the CUDA and the NCCL that libtorch was built with; install the wheels {} \
         of these versions where torch is (pip install 'nvidia-cuda-crt==13.0.*' 'nvidia-cuda-cccl==13.0.*' for torch \
         {VERSION} of PyPI), or set CUDA_HOME",
        list(missing.iter().map(|(header, _)| *header).collect()),
        if searched.is_empty() { "the folders next to torch".to_owned() } else { searched },
        list(missing.iter().map(|(_, package)| *package).collect())
    )
}

fn compile(torch: &Path, cuda: &[PathBuf], out: &Path) -> Result<()> {
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".into());
    if std::env::var_os("CXX").is_none() && program(&["c++"]).is_none() {
        bail!(
            "found no c++ on the PATH, expected a C++ compiler; install one (Debian: apt-get install g++), or set CXX"
        );
    }
    let abi = std::env::var("LIBTORCH_CXX11_ABI").unwrap_or_else(|_| "1".into());
    let include = torch.join("include");
    let lib = torch.join("lib");
    let mut command = Command::new(&compiler);
    // -z defs: a function that libtorch lacks is an error now instead of when the library is opened.
    command.args(["-std=c++17", "-O1", "-fPIC", "-shared", "-Wl,-z,defs", "-Wl,-z,now"]);
    command.arg(format!("-D_GLIBCXX_USE_CXX11_ABI={abi}"));
    // Headers of others: their warnings are not ours.
    for folder in [include.clone(), include.join("torch/csrc/api/include")].iter().chain(cuda) {
        command.arg("-isystem").arg(folder);
    }
    command.arg(root().join("crates/mm-dist/src/nccl.cpp")).arg("-o").arg(out).arg("-L").arg(&lib);
    command.args(["-ltorch_cuda", "-ltorch_cpu", "-lc10_cuda", "-lc10"]);
    let status = command.status().with_context(|| format!("{compiler} cannot be started"))?;
    if !status.success() {
        bail!("{compiler} could not compile crates/mm-dist/src/nccl.cpp, see above");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_searched_next_to_torch_and_in_the_toolkit_and_missing_ones_are_named() {
        let site = tempfile::tempdir().unwrap();
        let make = |path: &str| {
            let file = site.path().join(path);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, "").unwrap();
        };
        for header in ["cuda_runtime_api.h", "cccl/nv/target", "cublas_v2.h", "cusparse.h", "cusolverDn.h"] {
            make(&format!("nvidia/cu13/include/{header}"));
        }
        make("nvidia/nccl/include/nccl.h");
        let toolkit = site.path().join("toolkit");
        let folders = |home: Option<&Path>| {
            let found = cuda_folders(&site.path().join("torch"), home);
            // This machine's own toolkit, if it has one.
            found.into_iter().filter(|folder| folder.starts_with(site.path())).collect::<Vec<_>>()
        };
        let next_to_torch =
            ["cu13/include/cccl", "cu13/include", "nccl/include"].map(|f| site.path().join("nvidia").join(f));
        assert_eq!(folders(Some(&toolkit)), next_to_torch);
        if !Path::new("/usr/include/crt/host_defines.h").exists() {
            let text = check_headers(&folders(None)).unwrap_err().to_string();
            assert!(text.starts_with("found no crt/host_defines.h in ") && text.contains("nvidia-cuda-crt"), "{text}");
        }
        make("toolkit/include/crt/host_defines.h");
        check_headers(&folders(Some(&toolkit))).unwrap();
    }
}
