//! What can be made: for each kind its files, its dependencies, and where its taken names are written.

/// A file of a template: its path in the crate, and its text.
pub struct TemplateFile {
    pub path: &'static str,
    pub text: &'static str,
}

/// Where names of a kind are taken: source files that contain `pattern`, whose `{}` stands for the name.
pub struct Taken {
    /// A file, or a folder with files, below the root of the workspace.
    pub path: &'static str,
    pub pattern: &'static str,
}

/// A kind of crate.
pub struct Kind {
    /// The sub-command.
    pub command: &'static str,
    /// What it is called in messages and descriptions, with its article.
    pub article: &'static str,
    pub title: &'static str,
    pub files: &'static [TemplateFile],
    /// How it is used, for the README.
    pub usage: &'static str,
    /// Crates of this workspace.
    pub mm_crates: &'static [&'static str],
    /// Crates of crates.io with their versions.
    pub crates: &'static [(&'static str, &'static str)],
    pub dev_mm_crates: &'static [&'static str],
    pub dev_crates: &'static [(&'static str, &'static str)],
    pub taken: &'static [Taken],
    /// Names that are taken whatever the sources say.
    pub reserved: &'static [&'static str],
}

macro_rules! files {
    ($folder:literal: $($file:literal),+) => {
        &[
            $(TemplateFile {
                path: concat!("src/", $file),
                text: include_str!(concat!("templates/", $folder, "/", $file)),
            },)+
        ]
    };
}

macro_rules! usage {
    ($folder:literal) => {
        include_str!(concat!("templates/", $folder, "/USAGE.md"))
    };
}

const SERDE: (&str, &str) = ("serde", r#"{ version = "1", features = ["derive"] }"#);
const SERDE_JSON: (&str, &str) = ("serde_json", r#""1""#);
const TOML: (&str, &str) = ("toml", r#"{ version = "0.9", features = ["preserve_order"] }"#);
const TEMPFILE: (&str, &str) = ("tempfile", r#""3""#);

pub const MODALITY: Kind = Kind {
    command: "modality",
    article: "a",
    title: "modality",
    files: files!("modality": "encoder.rs", "lib.rs", "main.rs", "processor.rs", "register.rs", "tests.rs"),
    usage: usage!("modality"),
    mm_crates: &["mm-cli", "mm-core"],
    crates: &[SERDE, SERDE_JSON, TOML],
    dev_mm_crates: &["mm-tasks", "mm-train"],
    dev_crates: &[TEMPFILE],
    taken: &[
        Taken { path: "crates/mm-repr/src", pattern: "register_encoder(\"{}\"" },
        Taken { path: "crates/mm-repr/src", pattern: "register_factory(\"{}\"" },
        Taken { path: "crates/mm-repr/src", pattern: "register_proposer(\"{}\"" },
        Taken { path: "crates/mm-tabular/src", pattern: "register_encoder(\"{}\"" },
        Taken { path: "crates/mm-tasks/src", pattern: "register_encoder(\"{}\"" },
    ],
    // What options and columns of tables are called.
    reserved: &["id", "image", "audio", "video", "text", "question", "label", "item", "input"],
};

pub const FUSION_OPERATOR: Kind = Kind {
    command: "fusion-operator",
    article: "a",
    title: "fusion operator",
    files: files!("fusion_operator": "lib.rs", "main.rs"),
    usage: usage!("fusion_operator"),
    mm_crates: &["mm-cli", "mm-core", "mm-fusion"],
    crates: &[SERDE],
    dev_mm_crates: &[],
    dev_crates: &[],
    taken: &[Taken { path: "crates/mm-fusion/src", pattern: "kind: \"{}\"" }],
    reserved: &[],
};

pub const ALIGNMENT_METHOD: Kind = Kind {
    command: "alignment-method",
    article: "an",
    title: "alignment method",
    files: files!("alignment_method": "lib.rs", "main.rs"),
    usage: usage!("alignment_method"),
    mm_crates: &["mm-align", "mm-cli", "mm-core"],
    crates: &[],
    dev_mm_crates: &[],
    dev_crates: &[],
    taken: &[
        Taken { path: "crates/mm-align/src", pattern: "        \"{}\"\n" },
        Taken { path: "crates/mm-tasks/src/alignment/objectives.rs", pattern: "\"{}\"" },
    ],
    reserved: &["auto"],
};

pub const REASONING_NETWORK: Kind = Kind {
    command: "reasoning-network",
    article: "a",
    title: "reasoning network",
    files: files!("reasoning_network": "lib.rs", "main.rs"),
    usage: usage!("reasoning_network"),
    mm_crates: &["mm-cli", "mm-core", "mm-reason"],
    crates: &[SERDE],
    dev_mm_crates: &[],
    dev_crates: &[],
    taken: &[Taken { path: "crates/mm-reason/src/reasoning", pattern: "kind: \"{}\"" }],
    reserved: &[],
};

pub const TASK: Kind = Kind {
    command: "task",
    article: "a",
    title: "task",
    files: files!("task": "config.rs", "lib.rs", "main.rs", "model.rs", "spec.rs", "tests.rs", "training.rs"),
    usage: usage!("task"),
    mm_crates: &["mm-cli", "mm-core", "mm-data", "mm-tasks", "mm-train"],
    crates: &[SERDE, TOML],
    dev_mm_crates: &[],
    dev_crates: &[SERDE_JSON, TEMPFILE],
    taken: &[Taken { path: "crates/mm-tasks/src", pattern: "TASK: &str = \"{}\"" }],
    reserved: &[],
};

pub const READER: Kind = Kind {
    command: "reader",
    article: "a",
    title: "data set reader",
    files: files!("reader": "lib.rs", "main.rs"),
    usage: usage!("reader"),
    mm_crates: &["mm-cli", "mm-data"],
    crates: &[SERDE_JSON],
    dev_mm_crates: &["mm-core"],
    dev_crates: &[TEMPFILE],
    taken: &[Taken { path: "crates/mm-data/src/datasets", pattern: "name: \"{}\"" }],
    reserved: &[],
};

/// All kinds.
pub const KINDS: [&Kind; 6] = [&MODALITY, &FUSION_OPERATOR, &ALIGNMENT_METHOD, &REASONING_NETWORK, &TASK, &READER];
