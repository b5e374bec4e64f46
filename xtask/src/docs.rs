//! `cargo xtask docs --check`: commands, paths, links and anchors of README.md and docs/.
//!
//! Commands of `mm`, task configs and pipelines are checked by `crates/mm-cli/tests/docs.rs`, which links mm; this
//! module links nothing.

pub mod markdown;

use crate::{cargo::cargo, paths::root, pipeline};
use anyhow::{Context, Result, bail};
use clap::{CommandFactory, Parser};
use markdown::{Command, Page, Program};
use mm_hub::registry::{Kind, Registry};
use std::path::{Path, PathBuf};

/// Checks the pages, then runs the test that checks commands of mm and config files.
pub fn check() -> Result<()> {
    let problems = problems(&root())?;
    if !problems.is_empty() {
        bail!("{} problems in the documentation:\n{}", problems.len(), problems.join("\n"));
    }
    crate::setup::run(false, false)?;
    if !cargo().args(["test", "--package", "mm-cli", "--test", "docs"]).status()?.success() {
        bail!("commands or config files in the documentation are wrong, see above");
    }
    Ok(())
}

/// Everything wrong with the pages of a workspace, as `path:line: text`.
fn problems(root: &Path) -> Result<Vec<String>> {
    let mut problems = Vec::new();
    for page in pages(root)? {
        let checker = Checker { root, page: &page, outputs: Vec::new(), problems: &mut problems };
        checker.check()?;
    }
    Ok(problems)
}

/// README.md, docs/*.md, and the comments of configs and pipelines in docs/.
pub fn pages(root: &Path) -> Result<Vec<Page>> {
    let mut files = vec![root.join("README.md")];
    let mut folders = vec![root.join("docs")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
            let path = entry?.path();
            match path.extension().and_then(|e| e.to_str()) {
                _ if path.is_dir() => folders.push(path),
                Some("md" | "toml") => files.push(path),
                _ => {}
            }
        }
    }
    files.sort();
    let read = |path: PathBuf| {
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let name = path.strip_prefix(root).unwrap_or(&path);
        let is_markdown = path.extension().is_some_and(|e| e == "md");
        Ok(if is_markdown { Page::new(name, &text) } else { Page::from_comments(name, &text) })
    };
    files.into_iter().map(read).collect()
}

struct Checker<'a> {
    root: &'a Path,
    page: &'a Page,
    /// Files and folders that the page's earlier commands write.
    outputs: Vec<String>,
    problems: &'a mut Vec<String>,
}

impl Checker<'_> {
    fn check(mut self) -> Result<()> {
        for block in self.page.code_blocks() {
            if block.info.is_empty() {
                self.problem(block.line, "a code block without a language");
            }
        }
        for line in self.page.indented_commands() {
            self.problem(line, "a command in an indented block; use a fenced sh block");
        }
        for (line, target) in self.page.links() {
            self.check_link(line, &target)?;
        }
        for command in self.page.commands() {
            if let (Program::Xtask, arguments) = command.program() {
                if let Err(text) = command.check(&crate::Cli::command(), arguments) {
                    self.problem(command.line, text);
                } else if command.complete {
                    self.check_xtask(&command, arguments);
                }
            }
            if command.complete {
                self.add_outputs(&command);
                self.check_paths(&command);
            }
        }
        Ok(())
    }

    fn problem(&mut self, line: usize, text: impl std::fmt::Display) {
        self.problems.push(self.page.problem(line, text));
    }

    fn check_link(&mut self, line: usize, target: &str) -> Result<()> {
        if target.contains("://") || target.starts_with("mailto:") {
            return Ok(());
        }
        let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
        let file = match path {
            "" => self.root.join(&self.page.path),
            _ => self.root.join(self.page.path.parent().unwrap_or(Path::new(""))).join(path),
        };
        if !file.exists() {
            self.problem(line, format!("the link {target} leads nowhere"));
        } else if !anchor.is_empty() {
            let anchors = Page::new(&file, &std::fs::read_to_string(&file)?).anchors();
            if !anchors.iter().any(|known| known == anchor) {
                self.problem(line, format!("{target}: no heading has this anchor; there are {}", anchors.join(", ")));
            }
        }
        Ok(())
    }

    /// Names of the registry, and pipelines with their `--set`, whose outputs count as written.
    fn check_xtask(&mut self, command: &Command, arguments: &[String]) {
        let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let known = match words.as_slice() {
            ["data", "fetch", name] => is_known(Kind::Data, name),
            ["models", "pull", name] if !name.contains('/') => is_known(Kind::Models, name),
            ["dist", ..] => {
                self.outputs.push("target/dist".into());
                return;
            }
            ["demo" | "run", ..] => pipeline_outputs(arguments).map(|outputs| {
                self.outputs.extend(outputs);
                true
            }),
            _ => return,
        };
        match known {
            Ok(true) => {}
            Ok(false) => self.problem(command.line, format!("`{}`: unknown name", command.words.join(" "))),
            Err(error) => self.problem(command.line, format!("{error:#}")),
        }
    }

    fn add_outputs(&mut self, command: &Command) {
        const FLAGS: &[&str] = &["--out", "--report", "--explain", "--clean", "--robustness"];
        let words = &command.words;
        let values = words.windows(2).filter(|pair| FLAGS.contains(&pair[0].as_str())).map(|pair| &pair[1]);
        self.outputs.extend(values.chain(&command.redirects).cloned());
        let value = |flag: &str| words.iter().position(|w| w == flag).and_then(|n| words.get(n + 1));
        if let (Program::Mm, [sub, config, ..]) = command.program()
            && sub == "train"
            && value("--out").is_none()
            && let Some(name) = Path::new(config).file_stem()
        {
            self.outputs.push(format!("runs/{}", name.display()));
        }
        // This data set is generated into --data.
        if value("--dataset").is_some_and(|name| name == "sort-of-clevr") {
            self.outputs.extend(value("--data").cloned());
        }
    }

    fn check_paths(&mut self, command: &Command) {
        for (n, word) in command.words.iter().enumerate() {
            let before = n.checked_sub(1).map_or("", |n| command.words[n].as_str());
            if let Some(text) = self.path_problem(word, before) {
                self.problem(command.line, text);
            }
        }
    }

    /// What is wrong with a word of a command as a path; `before` is the word before it.
    fn path_problem(&self, word: &str, before: &str) -> Option<String> {
        let value = word.rsplit('=').next().unwrap_or(word).trim_matches('"');
        let is_placeholder =
            |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_uppercase() || c == '_' || c == '-');
        let is_other = value.contains(['$', '…', '{', '}', '*', ' ', '@', '|', ':', '(', '?']);
        if !value.contains('/') || is_other || value.split('/').any(is_placeholder) || value.starts_with("/tmp/") {
            return None;
        }
        if before == "--model" || word.starts_with("model=") || before == "pull" || before == "MODEL" {
            // ORG/NAME of the hub; folders of the repository and outputs are longer or exist.
            let is_hub_name = value.split('/').count() == 2 && !value.starts_with("runs/");
            if is_hub_name {
                return None;
            }
        }
        for (kind, folder) in [(Kind::Data, "~/.cache/mm/data/"), (Kind::Models, "~/.cache/mm/models/")] {
            if let Some(name) = value.strip_prefix(folder).map(|rest| rest.split('/').next().unwrap_or(rest)) {
                let known = is_known(kind, name).unwrap_or(false);
                return (!known).then(|| format!("{value}: {name} is not in crates/mm-hub/registry.toml"));
            }
        }
        // Folders of the user.
        if value.starts_with("~/") {
            return None;
        }
        let path = value.trim_start_matches("../");
        if let Some(name) = path.strip_prefix("target/release/") {
            let benches = self.root.join("benches").join(name).with_extension("rs");
            return (name != "mm" && !benches.exists()).then(|| format!("{value}: no such program"));
        }
        let is_output = |output: &String| {
            let output = output.trim_start_matches("../");
            Path::new(path).starts_with(output) || Path::new(output).starts_with(path)
        };
        if self.root.join(path).exists() || self.outputs.iter().any(is_output) {
            return None;
        }
        Some(format!("{value} is not in the repository, and no earlier command of the page writes it"))
    }
}

/// Whether the registry has an item of that name.
fn is_known(kind: Kind, name: &str) -> Result<bool> {
    Ok(Registry::built_in()?.contains(kind, name))
}

/// The outputs of the pipeline that `cargo xtask demo …` or `cargo xtask run …` names.
fn pipeline_outputs(arguments: &[String]) -> Result<Vec<String>> {
    let words = std::iter::once("cargo xtask").chain(arguments.iter().map(String::as_str));
    match crate::Cli::try_parse_from(words)?.command {
        crate::Command::Run(arguments) => pipeline::outputs(&arguments),
        crate::Command::Demo(arguments) => pipeline::outputs(&arguments.into()),
        _ => Ok(Vec::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documentation_has_no_dead_links_wrong_xtask_commands_or_missing_files() {
        let found = problems(&root()).unwrap();
        assert!(found.is_empty(), "{} problems:\n{}", found.len(), found.join("\n"));
    }

    #[test]
    fn every_kind_of_problem_is_reported_with_file_and_line() {
        let folder = tempfile::tempdir().unwrap();
        let page = |text: &str| {
            std::fs::create_dir_all(folder.path().join("docs")).unwrap();
            std::fs::write(folder.path().join("README.md"), text).unwrap();
            problems(folder.path()).unwrap()
        };
        assert_eq!(page("# A b, c\n[x](#a-b-c) [y](README.md#a-b-c) [z](https://a.b/c)\n"), [""; 0]);
        let good = "```sh\nmm fit --data t.csv --out runs/a \\\n    --report runs/a.html && mm eval --model runs/a/run\ncargo xtask data list\n```\n";
        assert_eq!(page(good), [""; 0]);
        for (text, line, part) in [
            ("text\n[x](missing.md)\n", 2, "missing.md leads nowhere"),
            ("# A\n\n[x](#b)\n", 3, "no heading has this anchor; there are a"),
            ("```sh\n\ncargo xtask demo --sedes 3\n```\n", 3, "--sedes"),
            ("`cargo xtask dmeo`\n", 1, "no command dmeo"),
            ("```sh\ncargo xtask data fetch stamp\n```\n", 2, "unknown name"),
            ("```sh\nmm train docs/configs/none.toml\n```\n", 2, "docs/configs/none.toml is not in the repository"),
            ("```sh\nmm eval --model runs/b\nmm train c.toml --out runs/b\n```\n", 2, "no earlier command"),
            ("```sh\nls ~/.cache/mm/data/none/a.png\n```\n", 2, "not in crates/mm-hub/registry.toml"),
            ("```\nmm\n```\n", 1, "without a language"),
            ("text\n\n    cargo doc\n", 3, "indented block"),
        ] {
            let found = page(text);
            let is_found = found.len() == 1 && found[0].contains(part);
            assert!(is_found && found[0].starts_with(&format!("README.md:{line}: ")), "{text}: {found:?}");
        }
    }

    #[test]
    fn shell_text_is_split_into_commands_and_words() {
        let text = "A=1 mm a --b 'c d' \\\n  --e # f\n\nmm g | head > h; x $(y | z)/lib\n";
        let commands = markdown::shell_commands(text, 5);
        let words: Vec<(usize, String)> = commands.iter().map(|c| (c.line, c.words.join("_"))).collect();
        let expected = [(5, "mm_a_--b_c d_--e"), (8, "mm_g"), (8, "head"), (8, "x_$(y | z)/lib")];
        assert_eq!(words, expected.map(|(line, words)| (line, words.to_owned())));
        assert_eq!(commands[2].redirects, ["h"]);
    }
}
