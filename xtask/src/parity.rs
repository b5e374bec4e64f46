//! Compares mm with the reference libraries of its model families: tiny checkpoints with random weights and unusual
//! sizes that the libraries write, and their outputs for the same files.

use crate::{cargo, setup};
use anyhow::{Result, bail};
use mm_hub::paths::cache;
use std::{
    path::{Path, PathBuf},
    process::Command,
};

#[derive(clap::Args)]
pub struct Arguments {
    /// Model families (`bert`, `whisper` …), variants of them (`bert/gelu`), `words` (gensim), `align` (scikit-learn,
    /// cca-zoo, POT, tslearn), `fusion` (PyTorch), `scores` (searches of mm-index: NumPy), `random` (random images,
    /// audio, videos and predictions: Pillow, torchvision, torchaudio, transformers, scikit-learn), `captions`
    /// (pycocoevalcap, needs Java), `serve` (the clients of OpenAI, Hugging Face and langchain, and schemathesis),
    /// `page` (the page of `mm serve` in Chromium), `index` (what `mm index export` and `mm index import` exchange with
    /// faiss and clip-retrieval) or `cluster` (torchrun, mpirun, Slurm, network namespaces, Ray, clocks that differ)
    /// [default: all].
    families: Vec<String>,
    /// Seed of the random weights, images, audio and texts.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Folder for the checkpoints and outputs [default: a folder in the cache for each seed].
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Parts of `cluster`, separated by commas: torchrun, mpirun, slurm, namespaces, ray, clocks [default: all].
    #[arg(long, value_name = "PARTS")]
    only: Option<String>,
}

/// The families that generate text or answer questions, and PEFT's adapters on them.
const GENERATIVE_FAMILIES: &[&str] =
    &["vilt", "blip", "git", "vision-encoder-decoder", "whisper", "llava", "qwen2_vl", "adapter"];

/// What has a script of its own, apart from the model families.
const OTHERS: &[&str] =
    &["words", "align", "fusion", "scores", "random", "captions", "serve", "page", "index", "cluster"];

/// Says that a folder was made here, so that it may be deleted.
const MARKER: &str = ".mm-parity";

/// Makes an empty folder. Checkpoints of other families from an earlier run would be compared too, so the folder of an
/// earlier run is deleted; another one is not, unless it is in the cache.
fn new_folder(out: &Path, in_cache: bool) -> Result<()> {
    let is_used = std::fs::read_dir(out).is_ok_and(|mut entries| entries.next().is_some());
    if is_used && !in_cache && !out.join(MARKER).exists() {
        bail!(
            "--out {}: holds files that are not of an earlier comparison; expected a new or an empty folder",
            out.display()
        );
    }
    if is_used {
        std::fs::remove_dir_all(out)?;
    }
    std::fs::create_dir_all(out)?;
    Ok(std::fs::write(out.join(MARKER), "")?)
}

pub fn run(arguments: &Arguments) -> Result<()> {
    setup::run(false, false)?;
    let python = cargo::python_with("references", cargo::REFERENCES)?;
    let out = arguments.out.clone().unwrap_or_else(|| cache().join("parity").join(format!("seed-{}", arguments.seed)));
    new_folder(&out, arguments.out.is_none())?;
    let is_selected = |name: &str| arguments.families.is_empty() || arguments.families.iter().any(|f| f == name);
    println!("seed {}", arguments.seed);
    if is_selected("words") {
        words(&python, &out)?;
    }
    if is_selected("align") {
        align(&out, arguments.seed)?;
    }
    if is_selected("fusion") {
        write_expected(&python, "fusion.py", &out.join("fusion.safetensors"), arguments.seed + 11)?;
        cargo::check_references("mm-fusion", "MM_PARITY_FUSION", &out.join("fusion.safetensors"))?;
    }
    if is_selected("scores") {
        write_expected(&python, "scores.py", &out.join("scores.json"), arguments.seed)?;
        cargo::check_test("mm-index", "scores", "MM_PARITY_SCORES", &out.join("scores.json"))?;
    }
    if is_selected("random") {
        let folder = out.join("random");
        write_expected(&python, "random_inputs.py", &folder, arguments.seed)?;
        cargo::check_test("mm-data", "random_inputs", "MM_PARITY_DATA", &folder)?;
        cargo::check_test("mm-tasks", "random_inputs", "MM_PARITY_METRICS", &folder.join("metrics.json"))?;
    }
    if is_selected("captions") {
        captions(&out, arguments.seed)?;
    }
    if is_selected("serve") {
        clients()?;
    }
    if is_selected("page") {
        page()?;
    }
    if is_selected("index") {
        index(&out.join("index"), arguments.seed)?;
    }
    if is_selected("cluster") {
        cluster(&python, arguments.only.as_deref())?;
    }
    let is_generative = |f: &String| GENERATIVE_FAMILIES.iter().any(|s| f.split('/').next() == Some(s));
    if arguments.families.iter().any(is_generative) || arguments.families.is_empty() {
        let file = crate::paths::root().join("xtask/parity/reason.py");
        let (folder, seed) = (out.join("reason"), arguments.seed.to_string());
        let families = arguments.families.iter().filter(|f| is_generative(f));
        if !Command::new(&python).arg(file).arg(&folder).args(families).args(["--seed", &seed]).status()?.success() {
            bail!("xtask/parity/reason.py failed");
        }
        cargo::check_references("mm-reason", "MM_PARITY_REASON", &folder)?;
        if folder.join("adapter-vilt").exists() {
            // PEFT loads the adapters that mm trained.
            let (file, mm) = (crate::paths::root().join("xtask/parity/adapters.py"), cargo::built_mm()?);
            if !Command::new(&python).arg(file).arg(mm).arg(&folder).status()?.success() {
                bail!("xtask/parity/adapters.py failed");
            }
        }
    }
    // Whisper is an encoder too, and BLIP embeds images and texts in a joint space.
    let is_both = |f: &String| ["whisper", "blip"].contains(&f.as_str());
    let has_own_script = |f: &String| OTHERS.contains(&f.as_str()) || (is_generative(f) && !is_both(f));
    if !arguments.families.is_empty() && arguments.families.iter().all(has_own_script) {
        return Ok(());
    }
    let run_families = |extra: &[String]| -> Result<()> {
        let file = crate::paths::root().join("xtask/parity/families.py");
        if !Command::new(&python).arg(file).arg(&out).args(extra).status()?.success() {
            bail!("xtask/parity/families.py failed");
        }
        Ok(())
    };
    let mut selected: Vec<String> = arguments.families.iter().filter(|f| !has_own_script(f)).cloned().collect();
    selected.extend(["--seed".into(), arguments.seed.to_string()]);
    run_families(&selected)?;
    cargo::check_parity(&out)?;
    // The reference library loads the checkpoints that mm saved.
    run_families(&["--round-trip".into()])?;
    println!("all outputs match; the checkpoints and outputs are in {}", out.display());
    Ok(())
}

/// Compares mm-align with a reference library for each method.
fn align(out: &Path, seed: u64) -> Result<()> {
    let python = cargo::python_with("align", cargo::ALIGN_REFERENCES)?;
    let file = out.join("align.json");
    write_expected(&python, "align.py", &file, seed + 3)?;
    cargo::check_references("mm-align", "MM_PARITY_ALIGN", &file)
}

/// Compares the caption metrics on random captions with COCO's evaluation, whose tokenizer is a Java program.
fn captions(out: &Path, seed: u64) -> Result<()> {
    if mm_hub::paths::program(&["java"]).is_none() {
        println!("skipped: captions: no java on the PATH, which the reference's tokenizer needs");
        return Ok(());
    }
    let python = cargo::python_with("captions", &["pycocoevalcap"])?;
    let file = out.join("captions.json");
    write_expected(&python, "captions.py", &file, seed + 5)?;
    cargo::check_test("mm-tasks", "captions", "MM_PARITY_CAPTIONS", &file)
}

/// Uses `mm serve` by the clients of other servers.
fn clients() -> Result<()> {
    let packages = ["openai", "huggingface_hub", "langchain-openai", "mcp", "schemathesis", "numpy"];
    let (python, mm) = (cargo::python_with("clients", &packages)?, cargo::built_mm()?);
    let root = crate::paths::root();
    let fixtures = ["crates/mm-repr/tests/fixtures", "crates/mm-reason/tests/fixtures"].map(|path| root.join(path));
    let files = [fixtures[0].join("photo.png"), fixtures[0].join("families/inputs/short16.wav")];
    let script = root.join("xtask/parity/clients.py");
    if !Command::new(python).arg(script).arg(mm).args(&fixtures).args(&files).status()?.success() {
        bail!("xtask/parity/clients.py failed");
    }
    Ok(())
}

/// Drives the page of `mm serve` in Chromium: with invented answers, and those of the server itself.
fn page() -> Result<()> {
    let chromium = std::env::var_os("CHROMIUM").map_or_else(|| PathBuf::from("/usr/bin/chromium"), PathBuf::from);
    let has = |program: &str| Command::new(program).arg("--version").output().is_ok_and(|found| found.status.success());
    if !has("node") || !has("npm") || !chromium.exists() {
        println!("skipped: page, which needs node, npm and {} (CHROMIUM names another browser)", chromium.display());
        return Ok(());
    }
    let (mm, root) = (cargo::built_mm()?, crate::paths::root());
    let folder = root.join("crates/mm-serve/tests/page");
    let fixtures = ["mm-repr/tests/fixtures/families/clip-eos-gelu", "mm-reason/tests/fixtures/blip-vqa"];
    let fixtures = fixtures.map(|path| root.join("crates").join(path));
    let run = |command: &mut Command, what: &str| -> Result<()> {
        if !command.current_dir(&folder).status()?.success() {
            bail!("{what} failed in {}", folder.display());
        }
        Ok(())
    };
    run(Command::new("npm").args(["install", "--silent", "--no-package-lock"]), "npm install")?;
    run(Command::new("node").arg("test_page.mjs"), "test_page.mjs")?;
    run(Command::new("node").arg("test_server.mjs").arg(mm).args(fixtures), "test_server.mjs")
}

/// Searches what `mm index export` writes with faiss, and imports what users of faiss and clip-retrieval have.
fn index(out: &Path, seed: u64) -> Result<()> {
    let (python, mm, root) =
        (cargo::python_with("index", cargo::INDEX_PACKAGES)?, cargo::built_mm()?, crate::paths::root());
    let model = root.join("crates/mm-repr/tests/fixtures/families/clip-eos-gelu");
    let mut command = Command::new(python);
    command.arg(root.join("xtask/parity/index.py")).arg(mm).arg(model).arg(out).args(["--seed", &seed.to_string()]);
    if !command.status()?.success() {
        bail!("xtask/parity/index.py failed");
    }
    Ok(())
}

/// Trains and embeds under launchers, schedulers and faults of a cluster on this host. torchrun is that of the reference
/// libraries' environment.
fn cluster(references: &Path, only: Option<&str>) -> Result<()> {
    let packages = ["ray[data]==2.60.*", "pyarrow", "numpy", "pillow", "safetensors"];
    let (python, mm) = (cargo::python_with("cluster", &packages)?, cargo::built_mm()?);
    let root = crate::paths::root();
    let mut command = Command::new(python);
    command.arg(root.join("xtask/parity/cluster.py")).arg(mm).arg(references.with_file_name("torchrun")).arg(root);
    command.args(only.map(|parts| format!("--only={parts}")));
    if !command.status()?.success() {
        bail!("xtask/parity/cluster.py failed");
    }
    Ok(())
}

/// Runs a script of xtask/parity that writes the expected outputs into a file.
fn write_expected(python: &Path, script: &str, file: &Path, seed: u64) -> Result<()> {
    let path = crate::paths::root().join("xtask/parity").join(script);
    if !Command::new(python).arg(path).arg(file).args(["--seed", &seed.to_string()]).status()?.success() {
        bail!("xtask/parity/{script} failed");
    }
    Ok(())
}

/// Checks that gensim loads what `mm words` writes.
fn words(python: &Path, out: &Path) -> Result<()> {
    let mm = cargo::built_mm()?;
    let text = crate::paths::root().join("docs/architecture.md");
    let file = |name: &str| out.join(name);
    let run = |program: &Path, arguments: &[&std::ffi::OsStr]| -> Result<()> {
        if !Command::new(program).args(arguments).status()?.success() {
            bail!("{} failed", program.display());
        }
        Ok(())
    };
    let (model, plain, binary) = (file("words-fasttext.bin"), file("words.txt"), file("words.bin"));
    let train = ["words", "train", "--data"].map(std::ffi::OsStr::new);
    let settings = ["--subwords", "2,4", "--bucket", "200", "--min-count", "1", "--vector-size", "17", "--out"]
        .map(std::ffi::OsStr::new);
    run(&mm, &[&train, [text.as_os_str()].as_slice(), &settings, &[model.as_os_str()]].concat())?;
    for (target, format) in [(&plain, "text"), (&binary, "binary")] {
        let start = ["words", "convert", "--model"].map(std::ffi::OsStr::new);
        let end = ["--format", format].map(std::ffi::OsStr::new);
        run(&mm, &[&start, [model.as_os_str(), "--out".as_ref(), target.as_os_str()].as_slice(), &end].concat())?;
    }
    let check = crate::paths::root().join("xtask/parity/words.py");
    run(python, &[check.as_os_str(), "check".as_ref(), plain.as_os_str(), binary.as_os_str(), model.as_os_str()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_folder_of_an_earlier_comparison_is_deleted() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        new_folder(&out, false).unwrap();
        std::fs::create_dir(out.join("inputs")).unwrap();
        new_folder(&out, false).unwrap();
        assert!(!out.join("inputs").exists());
        let mine = folder.path().join("mine");
        std::fs::create_dir_all(mine.join("inputs")).unwrap();
        assert!(new_folder(&mine, false).unwrap_err().to_string().contains("mine"));
        assert!(mine.join("inputs").exists());
    }
}
