//! mm against the programs that its pretrained families come from: their own tiny checkpoints with random weights and odd sizes, their
//! own answers for the same files.

use crate::{cargo, places::cache, setup};
use anyhow::{Result, bail};
use std::{
    path::{Path, PathBuf},
    process::Command,
};

#[derive(clap::Args)]
pub struct Arguments {
    /// Families (`bert`, `whisper` …), variants of them (`bert/gelu`), or `words` (gensim), `align` (scikit-learn, cca-zoo,
    /// POT, tslearn), `fusion` (its operators on PyTorch's layers); all when none is named.
    families: Vec<String>,
    /// Makes other weights, pictures and sounds.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Where the checkpoints and answers are kept [default: a folder of the cache for each seed].
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// The families that answer, describe and transcribe, and PEFT's adapters on them.
const SPEAKERS: &[&str] = &["vilt", "blip", "git", "vision-encoder-decoder", "whisper", "llava", "qwen2_vl", "adapter"];

pub fn run(arguments: &Arguments) -> Result<()> {
    setup::run(false, false)?;
    let python = cargo::python_with("references", cargo::REFERENCES)?;
    let out = arguments.out.clone().unwrap_or_else(|| cache().join("parity").join(format!("seed-{}", arguments.seed)));
    // What an earlier call left of other families would be held against mm too.
    if out.join("inputs").exists() {
        std::fs::remove_dir_all(&out)?;
    }
    std::fs::create_dir_all(&out)?;
    if arguments.families.iter().any(|f| f == "words") || arguments.families.is_empty() {
        words(&python, &out)?;
    }
    if arguments.families.iter().any(|f| f == "align") || arguments.families.is_empty() {
        align(&out, arguments.seed)?;
    }
    if arguments.families.iter().any(|f| f == "fusion") || arguments.families.is_empty() {
        answers(&python, "fusion.py", &out.join("fusion.safetensors"), arguments.seed + 11)?;
        cargo::hold_answers("mm-fusion", "MM_PARITY_FUSION", &out.join("fusion.safetensors"))?;
    }
    let speak = |f: &String| SPEAKERS.iter().any(|s| f.split('/').next() == Some(s));
    if arguments.families.iter().any(speak) || arguments.families.is_empty() {
        let file = crate::places::root().join("xtask/parity/reason.py");
        let (place, seed) = (out.join("reason"), arguments.seed.to_string());
        let wanted = arguments.families.iter().filter(|f| speak(f));
        if !Command::new(&python).arg(file).arg(&place).args(wanted).args(["--seed", &seed]).status()?.success() {
            bail!("xtask/parity/reason.py failed");
        }
        cargo::hold_answers("mm-reason", "MM_PARITY_REASON", &place)?;
        if place.join("adapter-vilt").exists() {
            // What mm learned, PEFT loads.
            let (file, mm) = (crate::places::root().join("xtask/parity/adapters.py"), cargo::built_mm()?);
            if !Command::new(&python).arg(file).arg(mm).arg(&place).status()?.success() {
                bail!("xtask/parity/adapters.py failed");
            }
        }
    }
    // Whisper is an encoder too, and BLIP puts pictures and texts into one space.
    let both = |f: &String| ["whisper", "blip"].contains(&f.as_str());
    let own = |f: &String| ["words", "align", "fusion"].contains(&f.as_str()) || (speak(f) && !both(f));
    if !arguments.families.is_empty() && arguments.families.iter().all(own) {
        return Ok(());
    }
    let script = |more: &[String]| -> Result<()> {
        let file = crate::places::root().join("xtask/parity/families.py");
        if !Command::new(&python).arg(file).arg(&out).args(more).status()?.success() {
            bail!("xtask/parity/families.py failed");
        }
        Ok(())
    };
    let mut make: Vec<String> = arguments.families.iter().filter(|f| !own(f)).cloned().collect();
    make.extend(["--seed".into(), arguments.seed.to_string()]);
    script(&make)?;
    cargo::hold_parity(&out)?;
    // What mm wrote of each checkpoint is loaded by the program that it came from.
    script(&["--round-trip".into()])?;
    println!("every answer held; checkpoints and answers are in {}", out.display());
    Ok(())
}

/// mm-align's numbers against those of the programs that people use for each method.
fn align(out: &Path, seed: u64) -> Result<()> {
    let python = cargo::python_with("align", cargo::ALIGN_REFERENCES)?;
    let file = out.join("align.json");
    answers(&python, "align.py", &file, seed + 3)?;
    cargo::hold_answers("mm-align", "MM_PARITY_ALIGN", &file)
}

/// Runs a script of xtask/parity that writes answers into a file.
fn answers(python: &Path, script: &str, file: &Path, seed: u64) -> Result<()> {
    let path = crate::places::root().join("xtask/parity").join(script);
    if !Command::new(python).arg(path).arg(file).args(["--seed", &seed.to_string()]).status()?.success() {
        bail!("xtask/parity/{script} failed");
    }
    Ok(())
}

/// gensim reads what `mm words` writes.
fn words(python: &Path, out: &Path) -> Result<()> {
    let mm = cargo::built_mm()?;
    let text = crate::places::root().join("docs/architecture.md");
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
    let check = crate::places::root().join("xtask/parity/words.py");
    run(python, &[check.as_os_str(), "check".as_ref(), plain.as_os_str(), binary.as_os_str(), model.as_os_str()])
}
