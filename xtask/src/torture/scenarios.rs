//! What is interrupted: small inputs, the command, and the outputs that must come out the same.

use super::{
    compare::Part::{self, Bytes, Steps, Tensors},
    hub,
    process::{Programs, Running},
};
use crate::paths::root;
use anyhow::{Context, Result};
use std::{path::Path, process::Command};

/// A command over inputs in a folder.
pub struct Scenario {
    pub name: &'static str,
    pub about: &'static str,
    /// Whether xtask runs instead of mm.
    is_xtask: bool,
    arguments: &'static [&'static str],
    /// Arguments that are added after an interruption.
    resume: &'static [&'static str],
    /// What the command says of outputs that are complete, where it refuses to run again: the kill came between its last
    /// write and its end.
    pub complete: Option<&'static str>,
    /// Writes the inputs into a folder.
    pub prepare: fn(&Path) -> Result<()>,
    /// The outputs in that folder.
    pub outputs: &'static [(&'static str, Part)],
    /// A command that writes what is compared from what the first left behind, where that itself differs in what does
    /// not matter (times, the order of pages).
    export: &'static [&'static str],
    /// Arguments for a second process that shares the cache with the first, and its outputs in the order of `outputs`.
    pub shared_cache: Option<(&'static [&'static str], &'static [(&'static str, Part)])>,
}

/// A command of mm that is started again as it was, and whose outputs are compared as they are.
const MM: Scenario = Scenario {
    name: "",
    about: "",
    is_xtask: false,
    arguments: &[],
    resume: &[],
    complete: None,
    prepare: |_| Ok(()),
    outputs: &[],
    export: &[],
    shared_cache: None,
};

/// The outputs of a training.
const TRAINED: &[(&str, Part)] = &[
    ("out/checkpoints/last.safetensors", Tensors),
    ("out/checkpoints/best.safetensors", Tensors),
    ("out/metrics.jsonl", Steps),
];

pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "train",
        about: "mm train of a retrieval model with a feature cache, a checkpoint at each step",
        arguments: &["train", "config.toml", "--out", "out"],
        resume: &["--resume"],
        prepare: prepare_train,
        outputs: TRAINED,
        shared_cache: Some((
            &["--out", "other"],
            &[
                ("other/checkpoints/last.safetensors", Tensors),
                ("other/checkpoints/best.safetensors", Tensors),
                ("other/metrics.jsonl", Steps),
            ],
        )),
        ..MM
    },
    Scenario {
        name: "distributed",
        about: "the same training in two processes, of which one is killed, or both",
        arguments: &["launch", "--nproc", "2", "--", "mm", "train", "config.toml", "--out", "out"],
        resume: &["--resume"],
        prepare: prepare_train,
        outputs: TRAINED,
        ..MM
    },
    Scenario {
        name: "embed",
        about: "mm embed of a table into an array",
        arguments: &["embed", "--model", "words", "--data", "rows.jsonl", "--modality", "text", "--out", "out.npy"],
        prepare: prepare_embed,
        outputs: &[("out.npy", Bytes)],
        ..MM
    },
    Scenario {
        name: "caption",
        about: "mm caption of a table of images",
        arguments: &[
            "caption",
            "--model",
            "captioner",
            "--data",
            "images.jsonl",
            "--max-new-tokens",
            "8",
            "--out",
            "out.jsonl",
        ],
        prepare: prepare_caption,
        outputs: &[("out.jsonl", Bytes)],
        ..MM
    },
    Scenario {
        name: "shards",
        about: "mm caption of several tables by a worker with leases",
        arguments: &[
            "caption",
            "--model",
            "captioner",
            "--shards",
            "images-{0..3}.jsonl",
            "--max-new-tokens",
            "8",
            "--out",
            "out",
        ],
        prepare: prepare_shards,
        outputs: &[
            ("out/shards", Bytes),
            ("out/images-0.jsonl", Bytes),
            ("out/images-1.jsonl", Bytes),
            ("out/images-2.jsonl", Bytes),
            ("out/images-3.jsonl", Bytes),
        ],
        ..MM
    },
    Scenario {
        name: "index",
        about: "mm index build of a table into a store",
        arguments: &["index", "build", "rows.jsonl", "--model", "words", "--modality", "text", "--store", "store"],
        prepare: prepare_embed,
        outputs: &[("rows.exported.jsonl", Bytes)],
        export: &["index", "export", "--store", "store", "--modality", "text", "--out", "rows.exported.jsonl"],
        ..MM
    },
    Scenario {
        name: "words",
        about: "mm words train, a checkpoint after each epoch",
        arguments: &[
            "words",
            "train",
            "--data",
            "corpus.txt",
            "--vector-size",
            "40",
            "--epochs",
            "12",
            "--min-count",
            "2",
            "--out",
            "out.bin",
            "--format",
            "binary",
        ],
        prepare: prepare_words,
        outputs: &[("out.bin", Bytes)],
        ..MM
    },
    Scenario {
        name: "fit",
        about: "mm fit of a table of numbers, categories and texts",
        arguments: &["fit", "--data", "table.csv", "--label-column", "label", "--preset", "fast", "--out", "out"],
        complete: Some("holds a run already"),
        prepare: prepare_fit,
        outputs: &[("out/member-0/checkpoints/best.safetensors", Tensors), ("out/ensemble.json", Bytes)],
        ..MM
    },
    Scenario {
        name: "pipeline",
        about: "cargo xtask run of a pipeline of four steps",
        is_xtask: true,
        arguments: &["run", "pipeline.toml"],
        prepare: prepare_pipeline,
        outputs: &[("runs/a", Bytes), ("runs/b", Bytes), ("runs/c", Bytes), ("runs/d", Bytes)],
        ..MM
    },
    Scenario {
        name: "download",
        about: "cargo xtask models pull from a slow hub on this machine",
        is_xtask: true,
        arguments: &["models", "pull", "org/name"],
        prepare: |folder| Ok(std::fs::create_dir_all(folder)?),
        outputs: &[("hub/models--org--name/snapshots", Bytes)],
        ..MM
    },
];

impl Scenario {
    /// Whether its processes are killed one by one as well.
    pub fn kills_children(&self) -> bool {
        self.arguments.first() == Some(&"launch")
    }

    /// Writes what is compared.
    pub fn export(&self, programs: &Programs, folder: &Path) -> Result<()> {
        if self.export.is_empty() {
            return Ok(());
        }
        let mut command = Command::new(&programs.mm);
        command.args(self.export).current_dir(folder);
        Running::start(command, &folder.join("export.log"))?.finish()
    }

    /// Starts the command in the folder, `wrapper` before it.
    pub fn start(&self, programs: &Programs, folder: &Path, is_resumed: bool, wrapper: &[&str]) -> Result<Running> {
        self.start_as("first", programs, folder, is_resumed, wrapper, &[])
    }

    /// [`Self::start`] with a name for the log and more arguments; an option among them takes the place of the same
    /// option.
    pub fn start_as(
        &self,
        log: &str,
        programs: &Programs,
        folder: &Path,
        is_resumed: bool,
        wrapper: &[&str],
        extra: &[&str],
    ) -> Result<Running> {
        let program = if self.is_xtask { &programs.xtask } else { &programs.mm };
        let mut command = match wrapper.split_first() {
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command.args(rest).arg(program);
                command
            }
            None => Command::new(program),
        };
        let mut arguments: Vec<String> = self.arguments.iter().map(ToString::to_string).collect();
        if self.name == "pipeline" {
            arguments[1] = folder.join("pipeline.toml").display().to_string();
        }
        for pair in extra.chunks(2) {
            if let Some(position) = arguments.iter().position(|a| a == pair[0]) {
                arguments.splice(position..position + 2, pair.iter().map(ToString::to_string));
            }
        }
        if is_resumed {
            arguments.extend(self.resume.iter().map(ToString::to_string));
        }
        if !self.is_xtask {
            arguments.extend(["--device", "cpu", "--threads", "1"].map(String::from));
        }
        command
            .args(arguments)
            .current_dir(folder)
            .env("GOMP_SPINCOUNT", "1000")
            .env("MM_LEASE_SECONDS", "0.5")
            .env_remove("HF_HUB_OFFLINE");
        command.env("HF_ENDPOINT", hub::endpoint()?).env("HF_HUB_CACHE", folder.join("hub")).env_remove("MM_OFFLINE");
        Running::start(command, &folder.join(format!("{log}.log")))
    }
}

/// Copies files of a test fixture.
fn copy_fixture(fixture: &str, files: &[&str], to: &Path) -> Result<()> {
    let from = root().join("crates").join(fixture);
    std::fs::create_dir_all(to)?;
    for file in files {
        std::fs::copy(from.join(file), to.join(file)).with_context(|| from.join(file).display().to_string())?;
    }
    Ok(())
}

/// An uncompressed image with a pattern that depends on the number.
fn write_image(path: &Path, number: usize) -> Result<()> {
    let (width, height) = (40u32, 36u32);
    let size = 54 + width * height * 3;
    let mut bytes = b"BM".to_vec();
    for value in [size, 0, 54, 40, width, height, 1 | 24 << 16, 0, width * height * 3, 2835, 2835, 0, 0] {
        bytes.extend(value.to_le_bytes());
    }
    for y in 0..height as usize {
        for x in 0..width as usize {
            let (a, b) = ((number * 20) as u8, (number * 53) as u8);
            bytes.extend(if (x / 5 + y / 7) % 2 == 0 { [a, b, 90] } else { [b, 200, a] });
        }
    }
    Ok(std::fs::write(path, bytes)?)
}

const WORDS: [&str; 12] = [
    "a dog",
    "the quick fox",
    "lazy dog",
    "brown fox",
    "over the dog",
    "a cafe",
    "twice",
    "elan naive",
    "jump",
    "jumps over",
    "quick dog",
    "lazy cafe",
];

fn prepare_train(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder)?;
    let bert = ["config.json", "tokenizer.json", "model.safetensors"];
    copy_fixture("mm-repr/tests/fixtures/bert-plain", &bert, &folder.join("words"))?;
    let efficientnet = ["config.json", "preprocessor_config.json", "weights.pth"];
    copy_fixture("mm-repr/tests/fixtures/efficientnet-lite", &efficientnet, &folder.join("eyes"))?;
    let mut manifest = String::new();
    for (number, text) in WORDS.iter().enumerate() {
        write_image(&folder.join(format!("{number}.bmp")), number)?;
        let split = if number >= 8 { "test" } else { "train" };
        let row = serde_json::json!({ "id": number.to_string(), "image": format!("{number}.bmp"), "text": text, "split": split });
        manifest += &format!("{row}\n");
    }
    std::fs::write(folder.join("data.jsonl"), manifest)?;
    Ok(std::fs::write(folder.join("config.toml"), TRAIN_CONFIG)?)
}

const TRAIN_CONFIG: &str = r#"
task = "retrieval"
embed_dim = 16
cache_dir = "cache"
[data]
manifest = "data.jsonl"
split = { column = "split" }
[loader]
batch_size = 4
[towers.image]
num_views = 1
encoder = { kind = "pretrained", path = "eyes" }
projection = { hidden_dim = 16, dropout = 0.1 }
[towers.text]
encoder = { kind = "pretrained", path = "words" }
projection = { hidden_dim = 16, dropout = 0.1 }
[train]
epochs = 12
log_every_steps = 1
save_every_steps = 1
keep_last = 2
ema_decay = 0.9
"#;

fn prepare_embed(folder: &Path) -> Result<()> {
    let bert = ["config.json", "tokenizer.json", "model.safetensors"];
    copy_fixture("mm-repr/tests/fixtures/bert-plain", &bert, &folder.join("words"))?;
    let row = |number: usize| {
        let text = format!("{} {}", WORDS[number % 12], WORDS[number * 7 / 3 % 12]);
        serde_json::json!({ "id": number.to_string(), "text": text }).to_string()
    };
    let rows: Vec<String> = (0..6000).map(row).collect();
    Ok(std::fs::write(folder.join("rows.jsonl"), rows.join("\n"))?)
}

/// The images of [`prepare_caption`] in four tables.
fn prepare_shards(folder: &Path) -> Result<()> {
    prepare_caption(folder)?;
    let rows = std::fs::read_to_string(folder.join("images.jsonl"))?;
    for (number, rows) in rows.lines().collect::<Vec<_>>().chunks(15).enumerate() {
        std::fs::write(folder.join(format!("images-{number}.jsonl")), rows.join("\n"))?;
    }
    Ok(())
}

fn prepare_caption(folder: &Path) -> Result<()> {
    let git = [
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "preprocessor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ];
    copy_fixture("mm-reason/tests/fixtures/git-caption", &git, &folder.join("captioner"))?;
    let mut rows = String::new();
    for number in 0..60 {
        write_image(&folder.join(format!("{number}.bmp")), number)?;
        let row = serde_json::json!({ "id": number.to_string(), "image": format!("{number}.bmp") });
        rows += &format!("{row}\n");
    }
    Ok(std::fs::write(folder.join("images.jsonl"), rows)?)
}

fn prepare_words(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder)?;
    let text = std::fs::read_to_string(root().join("docs/architecture.md"))?;
    Ok(std::fs::write(folder.join("corpus.txt"), text.repeat(20))?)
}

fn prepare_fit(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder)?;
    let mut table = "a,b,review,label\n".to_owned();
    for number in 0..160u32 {
        let value = |n: u32| f64::from(number.wrapping_mul(n) >> 8 & 0xffff) / 65536.0;
        let (a, b) = (value(2_654_435_761), value(2_246_822_519));
        let label = if a + b > 1.0 { "yes" } else { "no" };
        table += &format!("{a:.4},{b:.4},{} {},{label}\n", WORDS[number as usize % 12], WORDS[number as usize % 7]);
    }
    Ok(std::fs::write(folder.join("table.csv"), table)?)
}

fn prepare_pipeline(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder)?;
    std::fs::write(folder.join("start"), "0\n")?;
    let mut text = "about = \"Four steps, each of which appends to what the one before it wrote\"\n".to_owned();
    for (from, to) in [("start", "a"), ("a", "b"), ("b", "c"), ("c", "d")] {
        let path = |name: &str| if name == "start" { name.to_owned() } else { format!("runs/{name}") };
        let (input, output) = (path(from), path(to));
        let script =
            format!("cat {input} > {output}; sleep 0.05; echo {to} >> {output}; sleep 0.05; echo end >> {output}");
        let run = ["sh", "-c", &script];
        text += &format!(
            "[[step]]\nname = \"{to}\"\nrun = {}\ninputs = [{:?}]\noutputs = [{:?}]\n",
            serde_json::to_string(&run)?,
            input,
            output
        );
    }
    Ok(std::fs::write(folder.join("pipeline.toml"), text)?)
}
