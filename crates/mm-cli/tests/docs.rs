//! Commands of mm and config files in README.md and docs/ are valid: `cargo xtask docs --check` runs this test.
//!
//! Commands are parsed by the clap definition of mm. Configs, with the `--set` of the command that names them, are
//! parsed by the task registry; encoders, operators and models in them are built as far as unknown keys are found. No
//! data set or pretrained weight is read.
#![allow(missing_docs)]

#[path = "../../../xtask/src/docs/markdown.rs"]
#[allow(dead_code)]
mod markdown;

use markdown::{Command, Page, Program};
use mm_core::{BuildContext, Device, Modality, Params, Registry, config};
use mm_hub::pipeline::{Action, Options};
use mm_repr::generative::{InputSpec, ValueType};
use mm_tasks::{TaskContext, TaskRegistry};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

fn root() -> PathBuf {
    std::fs::canonicalize(Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")).unwrap()
}

/// Files of a folder and its folders with this extension, sorted.
fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, extension));
        } else if path.extension().is_some_and(|e| e == extension) {
            found.push(path);
        }
    }
    found.sort();
    found
}

struct Checker {
    definition: clap::Command,
    registry: Registry,
    tasks: TaskRegistry,
    problems: Vec<String>,
}

impl Checker {
    fn new() -> Self {
        let mut registry = mm_tasks::registry();
        mm_tabular::register(&mut registry);
        Self { definition: mm_cli::command(), registry, tasks: mm_tasks::tasks(), problems: Vec::new() }
    }

    /// The problems of a page whose file names are relative to `root`.
    fn check_page(&mut self, page: &Page, root: &Path) {
        for command in page.commands() {
            if let (Program::Mm, arguments) = command.program() {
                let checked = command.check(&self.definition, arguments);
                let checked = checked.and_then(|()| self.check_config_of(&command, arguments, root));
                self.problems.extend(checked.err().map(|text| page.problem(command.line, text)));
            }
        }
        for (line, name) in page.option_spans() {
            let is_used = || page.commands().iter().any(|c| c.complete && c.words.contains(&format!("--{name}")));
            if !has_option(&self.definition, name) && !is_used() && !OTHER_OPTIONS.contains(&name) {
                self.problems.push(page.problem(line, format!("mm has no option --{name}")));
            }
        }
        for block in page.code_blocks().iter().filter(|b| b.info.first().is_some_and(|l| l == "toml")) {
            let base = block.info.iter().find_map(|word| word.strip_prefix("config="));
            // ```toml serve: settings of a server.
            let checked = if block.info.iter().any(|word| word == "serve") {
                let read = mm_serve::ServeConfig::from_toml(&block.text);
                read.and_then(|config| config.check()).map_err(|e| e.to_string())
            } else {
                self.check_block(&block.text, base.map(|file| root.join(file)))
            };
            self.problems.extend(checked.err().map(|text| page.problem(block.line, text)));
        }
    }

    /// Checks the config that a command trains, with its `--set`.
    fn check_config_of(&self, command: &Command, arguments: &[String], root: &Path) -> Result<(), String> {
        let [name, file, rest @ ..] = arguments else { return Ok(()) };
        let path = root.join(file);
        if !command.complete || !["train", "fusion-search"].contains(&name.as_str()) || !path.exists() {
            return Ok(());
        }
        let is_concrete = |text: &str| !text.contains('$') && !text.contains("NAME");
        let pairs = rest.windows(2).filter(|pair| pair[0] == "--set" && is_concrete(&pair[1]));
        let overrides = pairs.map(|pair| pair[1].clone());
        let value = config::read(&path, &overrides.collect::<Vec<_>>()).map_err(|e| e.to_string())?;
        self.check_config(&value).map_err(|text| format!("{file}: {text}"))
    }

    /// Checks a TOML block: a whole config, or a part that replaces tables of the config file `base`.
    fn check_block(&self, text: &str, base: Option<PathBuf>) -> Result<(), String> {
        let part: toml::Value = toml::from_str(text).map_err(|e| e.to_string())?;
        let mut value = match (base, part.get("task")) {
            (_, Some(_)) => return self.check_config(&part),
            (Some(base), None) => config::read(&base, &[]).map_err(|e| e.to_string())?,
            (None, None) => {
                return Err("a part of a config: name the config that it changes, ```toml config=FILE".into());
            }
        };
        merge(&mut value, part);
        self.check_config(&value)
    }

    fn check_config(&self, value: &toml::Value) -> Result<(), String> {
        let context = TaskContext { encoders: &self.registry, tasks: &self.tasks, device: Device::Cpu };
        context.check(value).map_err(|e| e.to_string())?;
        let params = Params::new(Device::Cpu);
        let dims = [(Modality::TEXT, 8), (Modality::IMAGE, 8)];
        let mut problems = Vec::new();
        for (field, settings) in tables(value, &["encoder"]) {
            let mut settings = settings.clone();
            if settings.get("kind").and_then(toml::Value::as_str) == Some("pretrained") {
                settings["path"] = "/does/not/exist".into();
            }
            let scope = params.scope().pp(&field);
            let context = BuildContext { scope, base_dir: root(), field, registry: &self.registry };
            problems.extend(self.registry.build(&settings, &context).err().map(|e| e.to_string()));
        }
        if let Some(fusion) = value.get("fusion") {
            let mut fusion: mm_fusion::FusionConfig = config::parse(fusion, "fusion").map_err(|e| e.to_string())?;
            if fusion.operator.options.contains_key("main_modality") {
                fusion.operator = fusion.operator.with("main_modality", "text");
            }
            let scope = params.scope().pp("fusion");
            problems.extend(mm_fusion::Fusion::new(&scope, &fusion, &dims).err().map(|e| e.to_string()));
        }
        if let Some(reason) = value.get("reasoning") {
            let reason = config::parse(reason, "reasoning").map_err(|e| e.to_string())?;
            let scope = params.scope().pp("reason");
            problems.extend(mm_reason::reasoning::build(&scope, &reason, &dims).err().map(|e| e.to_string()));
        }
        if value.get("task").and_then(toml::Value::as_str) == Some("representation") {
            problems.extend(check_learner(value, &params).err());
        }
        // The rest needs weights, vocabularies or sizes that only the data give.
        problems.retain(|text| ["unknown", "did you mean", "invalid type"].iter().any(|part| text.contains(part)));
        if problems.is_empty() { Ok(()) } else { Err(problems.join("; ")) }
    }
}

/// Options of other programs that pages mention without a command.
const OTHER_OPTIONS: &[&str] = &["check", "only", "quick", "release"];

/// Whether a command or one of its sub-commands has this option.
fn has_option(command: &clap::Command, name: &str) -> bool {
    command.get_arguments().any(|argument| argument.get_long() == Some(name))
        || command.get_subcommands().any(|sub| has_option(sub, name))
}

/// Builds the model of a representation config for small inputs.
fn check_learner(value: &toml::Value, params: &Params) -> Result<(), String> {
    let spec = |input: &toml::Value| match input.get("kind").and_then(toml::Value::as_str) {
        Some("image") => InputSpec { shape: vec![3, 32, 32], value_type: ValueType::UnitInterval },
        Some("spectrogram") => InputSpec { shape: vec![1, 32, 32], value_type: ValueType::Real },
        Some("characters") => InputSpec { shape: vec![16], value_type: ValueType::Tokens(16) },
        _ => InputSpec { shape: vec![16], value_type: ValueType::Real },
    };
    let inputs = value.get("inputs").and_then(toml::Value::as_table).into_iter().flatten();
    let specs: BTreeMap<Modality, InputSpec> =
        inputs.map(|(name, input)| (Modality::from(name.as_str()), spec(input))).collect();
    let model = value.get("model").ok_or("no [model]")?;
    let learners = mm_repr::LearnerRegistry::default();
    let built = learners.build(model, "model", &specs, 2, &params.scope().pp("model"));
    built.map(drop).map_err(|e| e.to_string())
}

/// Tables under one of these keys, with their dotted paths.
fn tables<'a>(value: &'a toml::Value, keys: &[&str]) -> Vec<(String, &'a toml::Value)> {
    let mut found = Vec::new();
    for (name, value) in value.as_table().into_iter().flatten() {
        if keys.contains(&name.as_str()) && value.is_table() {
            found.push((name.clone(), value));
        }
        found.extend(tables(value, keys).into_iter().map(|(path, value)| (format!("{name}.{path}"), value)));
    }
    found
}

/// Puts a part into a config; a table with a `kind` replaces the old one.
fn merge(value: &mut toml::Value, part: toml::Value) {
    match (value, part) {
        (toml::Value::Table(old), toml::Value::Table(new)) if !new.contains_key("kind") => {
            for (key, part) in new {
                merge(old.entry(key).or_insert_with(|| toml::Value::Table(toml::Table::new())), part);
            }
        }
        (value, part) => *value = part,
    }
}

/// The arguments of the `mm` steps of a pipeline, with its variables put in.
fn pipeline_commands(file: &Path) -> Vec<Vec<String>> {
    let pipeline = mm_hub::pipeline::load(file, &Options::default()).unwrap();
    let arguments = |action| if let Action::Mm(arguments) = action { Some(arguments) } else { None };
    pipeline.steps.into_iter().filter_map(|step| arguments(step.action)).collect()
}

#[test]
fn commands_and_configs_of_the_documentation_are_valid() {
    let root = root();
    let mut checker = Checker::new();
    let mut pages = files(&root.join("docs"), "md");
    pages.push(root.join("README.md"));
    let mut num_commands = 0;
    for path in pages {
        let page = Page::new(path.strip_prefix(&root).unwrap(), &std::fs::read_to_string(&path).unwrap());
        num_commands += page.commands().iter().filter(|c| c.program().0 == Program::Mm).count();
        checker.check_page(&page, &root);
    }
    for path in files(&root.join("docs"), "toml") {
        let text = std::fs::read_to_string(&path).unwrap();
        let name = path.strip_prefix(&root).unwrap();
        checker.check_page(&Page::from_comments(name, &text), &root);
        if name.starts_with("docs/configs") {
            let value = config::read(&path, &[]).unwrap();
            let problem = checker.check_config(&value).err();
            checker.problems.extend(problem.map(|text| format!("{}: {text}", name.display())));
            continue;
        }
        if !name.starts_with("docs/pipelines") {
            continue;
        }
        for arguments in pipeline_commands(&path) {
            let words = std::iter::once("mm".to_owned()).chain(arguments.iter().cloned()).collect();
            let command = Command { line: 1, words, redirects: Vec::new(), complete: true };
            let checked = command.check(&checker.definition, &arguments);
            let checked = checked.and_then(|()| checker.check_config_of(&command, &arguments, &root));
            checker.problems.extend(checked.err().map(|text| format!("{}: {text}", name.display())));
        }
    }
    let problems = &checker.problems;
    assert!(problems.is_empty(), "{} problems:\n{}", problems.len(), problems.join("\n"));
    assert!(num_commands > 50, "{num_commands} commands");
}

#[test]
fn every_kind_of_problem_is_reported_with_file_and_line() {
    let root = root();
    let check = |text: &str| {
        let mut checker = Checker::new();
        checker.check_page(&Page::new(Path::new("page.md"), text), &root);
        checker.problems
    };
    assert_eq!(check("`mm embed --layer N`\n```sh\ncargo run -p mm-cli -- doctor --json | head\nmm …\n```\n"), [""; 0]);
    let train = "mm train docs/configs/vqa.toml --set";
    let base = "config=docs/configs/sentiment.toml";
    for (text, line, part) in [
        ("```sh\nmm fit --data t.csv \\\n  --lable-column y --out r\n```\n".to_owned(), 2, "--lable-column"),
        ("text\n\n```bash\nls\ntarget/release/mm embedd\n```\n".to_owned(), 5, "embedd"),
        ("```console\n$ mm eval\n```\n".to_owned(), 2, "--model"),
        ("see `--hold-out`\n".to_owned(), 1, "no option --hold-out"),
        ("see `mm embed --pool mean`\n".to_owned(), 1, "no option --pool"),
        (format!("```sh\n{train} train.epohcs=3\n```\n"), 2, "did you mean `epochs`"),
        (
            format!("```sh\n{train} inputs.text.encoder='{{kind=\"lstm\", layers=1}}'\n```\n"),
            2,
            "unknown field `layers`",
        ),
        (format!("```sh\n{train} reasoning.network='{{kind=\"flim\"}}'\n```\n"), 2, "flim"),
        (format!("```toml {base}\n[fusion]\nwidth = 64\n```\n"), 1, "width"),
        (format!("```toml {base}\n[fusion.operator]\nkind = \"mult\"\nhead = 2\n```\n"), 1, "head"),
        ("```toml\n[fusion]\ndim = 64\n```\n".to_owned(), 1, "name the config"),
        ("```toml\ntask = \"captoining\"\n```\n".to_owned(), 1, "captioning"),
    ] {
        let found = check(&text);
        let is_found =
            found.len() == 1 && found[0].starts_with(&format!("page.md:{line}: ")) && found[0].contains(part);
        assert!(is_found, "{text}: {found:?}");
    }
}
