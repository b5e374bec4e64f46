//! Names of crates: which are valid, and which are taken.

use super::kind::{Kind, Taken};
use crate::paths::root;
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};

/// Longer than any sensible name, and short enough for every file system.
const MAX_CHARS: usize = 64;

/// Names of crates that Rust itself has, and of folders that cargo makes.
const RUST_NAMES: [&str; 8] = ["alloc", "build", "core", "deps", "proc_macro", "std", "target", "test"];

/// Keywords of Rust, which no module can be called.
const KEYWORDS: [&str; 51] = [
    "abstract", "as", "async", "await", "become", "box", "break", "const", "continue", "crate", "do", "dyn", "else",
    "enum", "extern", "false", "final", "fn", "for", "gen", "if", "impl", "in", "let", "loop", "macro", "match", "mod",
    "move", "mut", "override", "priv", "pub", "ref", "return", "self", "static", "struct", "super", "trait", "true",
    "try", "type", "typeof", "unsafe", "unsized", "use", "virtual", "where", "while", "yield",
];

/// The name as an identifier of Rust, and as mm's `kind`: `body-motion` → `body_motion`.
pub fn snake(name: &str) -> String {
    name.replace('-', "_")
}

/// The name as a type of Rust: `body-motion` → `BodyMotion`.
pub fn camel(name: &str) -> String {
    let capitalized = |word: &str| {
        let mut chars = word.chars();
        chars.next().map(|first| first.to_ascii_uppercase().to_string() + chars.as_str()).unwrap_or_default()
    };
    name.split(['-', '_']).map(capitalized).collect()
}

/// Refuses a name that no crate can have, or that mm or one of its dependencies has already.
pub fn check(kind: &Kind, name: &str) -> Result<()> {
    let is_word = |word: &str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let is_valid = name.split(['-', '_']).all(is_word) && name.starts_with(|c: char| c.is_ascii_lowercase());
    if !is_valid || name.len() > MAX_CHARS {
        bail!(
            "NAME: found {name:?}, expected at most {MAX_CHARS} lower-case letters, digits and hyphens, the first a letter, for \
             instance body-motion"
        );
    }
    let identifier = snake(name);
    if RUST_NAMES.contains(&identifier.as_str()) || KEYWORDS.contains(&identifier.as_str()) {
        bail!("NAME: found `{name}`, which is a name of Rust itself; choose another");
    }
    let is_reserved = kind.reserved.contains(&identifier.as_str());
    if is_reserved || is_taken(&root(), kind, name)? {
        let Kind { article, title, .. } = kind;
        bail!("NAME: mm has {article} {title} `{identifier}` already; choose another name");
    }
    if packages(&root())?.contains(&identifier) {
        bail!(
            "NAME: `{name}` is a package that mm depends on, so cargo could not tell the two apart; choose another name"
        );
    }
    Ok(())
}

/// Whether a name is written where the names of a kind are registered.
pub fn is_taken(root: &Path, kind: &Kind, name: &str) -> Result<bool> {
    for Taken { path, pattern } in kind.taken {
        for file in sources(&root.join(path))? {
            let text = std::fs::read_to_string(&file).with_context(|| format!("{} cannot be read", file.display()))?;
            if [name.to_owned(), snake(name)].iter().any(|name| text.contains(&pattern.replace("{}", name))) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// The Rust files of a folder and its subfolders, or the file itself.
fn sources(path: &Path) -> Result<Vec<PathBuf>> {
    if path.is_file() {
        return Ok(vec![path.to_owned()]);
    }
    let (mut found, mut pending) = (Vec::new(), vec![path.to_owned()]);
    while let Some(next) = pending.pop() {
        let entries = std::fs::read_dir(&next).with_context(|| format!("{} cannot be read", next.display()))?;
        for entry in entries {
            let path = entry?.path();
            if path.is_dir() {
                pending.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(path);
            }
        }
    }
    Ok(found)
}

/// The packages of the workspace's lock file, as identifiers.
fn packages(root: &Path) -> Result<Vec<String>> {
    let file = root.join("Cargo.lock");
    let text = std::fs::read_to_string(&file).with_context(|| format!("{} cannot be read", file.display()))?;
    let name = |line: &str| Some(snake(line.strip_prefix("name = \"")?.strip_suffix('"')?));
    Ok(text.lines().filter_map(name).collect())
}
