//! Cargo's own work, after the set-up that it needs: tests, benches, docs, and all that must pass before a change lands.

use crate::{
    places::{cache, root},
    registry::{self, Kind},
    setup,
};
use anyhow::{Result, bail};
use std::process::Command;

/// Cargo, free of what it set for xtask itself, so that the settings that set-up has just written are read.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    if setup::from_environment().is_ok_and(|own| own.is_none()) {
        command.env_remove("LIBTORCH");
    }
    if let Some(nasm) = setup::fetched_nasm().parent().filter(|p| p.is_dir()) {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = std::env::split_paths(&path).chain([nasm.to_owned()]);
        if let Ok(path) = std::env::join_paths(folders) {
            command.env("PATH", path);
        }
    }
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text == "CARGO_MANIFEST_DIR" || text == "CARGO_MANIFEST_PATH" {
            command.env_remove(&name);
        }
    }
    command
}

fn run(what: &str, arguments: &[&str], rest: &[String], environment: &[(&str, &str)]) -> Result<()> {
    eprintln!("xtask: cargo {} {}", arguments.join(" "), rest.join(" "));
    let status = cargo().args(arguments).args(rest).envs(environment.iter().copied()).status()?;
    if !status.success() {
        bail!("{what} failed");
    }
    Ok(())
}

/// Every test. Real weights are fetched for those that hold mm against them; where that fails they say so and skip.
pub fn test(rest: &[String]) -> Result<()> {
    setup::run(false, false)?;
    for name in ["all-MiniLM-L6-v2", "efficientnet-lite0"] {
        if let Err(error) = registry::fetch(Kind::Models, name) {
            eprintln!("xtask: {name} could not be fetched, tests of it will skip: {error:#}");
        }
    }
    run("testing", &["test", "--release", "--workspace"], rest, &[])
}

/// Benches by name, or all.
pub fn bench(name: Option<&str>, rest: &[String]) -> Result<()> {
    setup::run(false, false)?;
    let tensor = || run("benching", &["bench", "--package", "mm-benches", "--bench", "tensor"], &[], &[]);
    match name {
        Some("list") => {
            println!(
                "tensor  a small operation through mm_core against tch alone\nloader  pictures a second against PIL and torchvision in a PyTorch DataLoader\npeers   pretrained models against transformers, sentence-transformers, ONNX Runtime, OpenVINO and candle (--quick: one turn each)\nwords   Word2Vec against gensim (--seeds N)\nalign   CCA, Sinkhorn and soft-DTW against scikit-learn, POT and tslearn\ntraining training steps of learned codes, fusion and reasoning networks against PyTorch (--quick, --only TEXT)\nloader, peers, words, align and training make a Python environment with the peers once (some GB)"
            );
            Ok(())
        }
        Some("loader") => loader(),
        Some("peers") => peers(rest),
        Some("words") => words(rest),
        Some("align") => align(),
        Some("training") => training(rest),
        Some("tensor") => tensor(),
        Some(other) => bail!("no bench `{other}`; `cargo xtask bench list` names them"),
        None => {
            tensor()?;
            loader()?;
            words(&[])?;
            align()?;
            training(rest)?;
            peers(rest)
        }
    }
}

/// An environment with the packages that a script needs, made once; its interpreter.
pub fn python_with(name: &str, packages: &[&str]) -> Result<std::path::PathBuf> {
    if let Some(own) = std::env::var_os("MM_PYTHON").filter(|v| !v.is_empty()) {
        return Ok(own.into());
    }
    let environment = cache().join("python").join(name);
    let (python, complete) = (environment.join("bin/python"), environment.join("complete"));
    let wanted = packages.join("\n");
    if std::fs::read_to_string(&complete).is_ok_and(|t| t == wanted) {
        return Ok(python);
    }
    eprintln!(
        "xtask: a Python environment with {} (some GB, once; MM_PYTHON names one of your own) …",
        packages.join(", ")
    );
    let made = Command::new(crate::fetch::python()?).args(["-m", "venv"]).arg(&environment).status()?.success()
        && Command::new(&python).args(["-m", "pip", "install", "--quiet"]).args(packages).status()?.success();
    if !made {
        bail!("the Python environment could not be made (is the network there? Debian: apt-get install python3-venv)");
    }
    std::fs::write(complete, wanted)?;
    Ok(python)
}

fn script(python: &std::path::Path, file: &str, arguments: &[std::path::PathBuf], rest: &[String]) -> Result<()> {
    let status = Command::new(python).arg(root().join(file)).args(arguments).args(rest).status()?;
    if !status.success() {
        bail!("{file} failed");
    }
    Ok(())
}

/// The peer is PyTorch's own stack.
fn loader() -> Result<()> {
    let python = python_with("loader", &["torch==2.11.0", "torchvision==0.26.0", "pillow", "numpy"])?;
    run("building", &["build", "--release", "--package", "mm-benches", "--bin", "loader"], &[], &[])?;
    script(&python, "benches/loader.py", &[root().join("target/release/loader")], &[])
}

/// Training steps against PyTorch's.
fn training(rest: &[String]) -> Result<()> {
    let python = python_with("references", REFERENCES)?;
    run("building", &["build", "--release", "--package", "mm-benches", "--bin", "training"], &[], &[])?;
    script(&python, "benches/training.py", &[root().join("target/release/training")], rest)
}

/// mm-align against what people use for each method.
fn align() -> Result<()> {
    let python = python_with("align-bench", &[ALIGN_REFERENCES, &["torch==2.11.0"]].concat())?;
    run("building", &["build", "--release", "--package", "mm-benches", "--bin", "align"], &[], &[])?;
    script(&python, "benches/align.py", &[root().join("target/release/align")], &[])
}

/// Word2Vec on dictionary text.
fn words(rest: &[String]) -> Result<()> {
    let python = python_with("words", &["gensim"])?;
    let (glosses, tests) =
        (registry::fetch(Kind::Data, "english-dictionary")?, registry::fetch(Kind::Data, "word-tests")?);
    let place = cache().join("bench/words");
    std::fs::create_dir_all(&place)?;
    let (mm, corpus) = (built_mm()?, place.join("dictionary.txt"));
    if !Command::new(&mm)
        .args(["prepare", "--dataset", "english-dictionary", "--data"])
        .arg(&glosses)
        .arg("--out")
        .arg(&corpus)
        .status()?
        .success()
    {
        bail!("the corpus could not be made");
    }
    script(&python, "benches/words.py", &[mm, corpus, tests, place], rest)
}

/// What the scripts that hold mm against reference programs need.
pub const REFERENCES: &[&str] = &[
    "torch==2.11.0",
    "torchvision==0.26.0",
    "torchaudio==2.11.0",
    "transformers==5.24.0",
    "peft==0.21.2",
    "sentence-transformers==6.2.0",
    "timm==1.0.31",
    "open_clip_torch==3.3.0",
    "onnx",
    "onnxruntime",
    "openvino",
    "pillow",
    "gensim",
    "soundfile",
    "sentencepiece",
    "protobuf",
];

/// Pretrained models against the programs that a user would pick instead.
fn peers(rest: &[String]) -> Result<()> {
    let python = python_with("references", REFERENCES)?;
    let minilm = registry::fetch(Kind::Models, "all-MiniLM-L6-v2")?;
    run("building", &["build", "--release", "--package", "mm-benches", "--package", "mm-cli", "--bins"], &[], &[])?;
    // candle is no part of this workspace; where it cannot be built the others are measured without it.
    let candle = Command::new("cargo")
        .args(["build", "--release", "--manifest-path"])
        .arg(root().join("benches/candle/Cargo.toml"))
        .arg("--target-dir")
        .arg(root().join("target/candle"))
        .status()?;
    if !candle.success() {
        eprintln!("xtask: candle was not built and is left out");
    }
    let binary = |name: &str| root().join("target/release").join(name);
    script(&python, "benches/peers.py", &[binary("forward"), binary("mm"), cache().join("bench/peers"), minilm], rest)
}

/// The program mm, built.
pub fn built_mm() -> Result<std::path::PathBuf> {
    run("building", &["build", "--release", "--package", "mm-cli"], &[], &[])?;
    Ok(root().join("target/release/mm"))
}

/// Holds mm against the answers that `xtask/parity/families.py` left in a folder; mm's own copies of the weights are kept beside.
pub fn hold_parity(folder: &std::path::Path) -> Result<()> {
    let place = folder.to_string_lossy();
    let test = ["test", "--release", "--package", "mm-repr", "--test", "references", "every_family"];
    run("parity", &test, &[], &[("MM_PARITY", &place), ("MM_PARITY_SAVE", "1")])
}

/// What mm-align is held against.
pub const ALIGN_REFERENCES: &[&str] =
    &["numpy", "scipy", "scikit-learn==1.9.1", "cca-zoo==4.0.1", "POT==0.9.7.post1", "tslearn==0.10.0"];

/// Holds a crate against the answers that a script of xtask/parity left in a file.
pub fn hold_answers(package: &str, variable: &str, answers: &std::path::Path) -> Result<()> {
    let test = ["test", "--release", "--package", package, "--test", "references"];
    run("parity", &test, &[], &[(variable, &answers.to_string_lossy())])
}

/// The documentation, warnings refused.
pub fn docs() -> Result<()> {
    setup::run(false, false)?;
    run("documenting", &["doc", "--release", "--workspace", "--no-deps"], &[], &[("RUSTDOCFLAGS", "-D warnings")])
}

/// All that must pass before a change lands.
pub fn ci() -> Result<()> {
    setup::run(false, false)?;
    run("formatting", &["fmt", "--all", "--check"], &[], &[])?;
    run(
        "linting",
        &["clippy", "--release", "--workspace", "--all-targets"],
        &["--".into(), "-D".into(), "warnings".into()],
        &[],
    )?;
    docs()?;
    test(&[])
}
