//! Writes the files of a crate.

use super::{
    kind::{Kind, TemplateFile},
    name::{camel, snake},
};
use crate::{
    paths::root,
    setup::cargo_settings,
    temporary::{make_folders, remove_empty},
};
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};

const MANIFEST: &str = include_str!("templates/common/Cargo.toml.in");
const README: &str = include_str!("templates/common/README.md.in");
const GITIGNORE: &str = include_str!("templates/common/gitignore.in");
const RUSTFMT: &str = include_str!("templates/common/rustfmt.toml.in");

/// Refuses a target that exists, or a folder that cannot hold it.
pub fn check_target(name: &str, dir: &Path) -> Result<()> {
    let target = dir.join(name);
    if std::fs::symlink_metadata(&target).is_ok() {
        bail!("{}: exists already; choose another NAME or --dir", target.display());
    }
    if dir.exists() && !dir.is_dir() {
        bail!("--dir {}: found a file, expected a folder", dir.display());
    }
    Ok(())
}

/// Makes the crate below `dir`: first under a temporary name, so that the folder is either complete or not there.
pub fn generate(kind: &Kind, name: &str, dir: &Path) -> Result<PathBuf> {
    let made = make_folders(dir)?;
    let target = std::path::absolute(dir).with_context(|| format!("--dir {}", dir.display()))?.join(name);
    let partial = target.with_file_name(format!(".{name}.{}.partial", std::process::id()));
    let written = write_crate(kind, name, &partial).and_then(|()| {
        check_target(name, dir)?;
        std::fs::rename(&partial, &target).with_context(|| format!("{} cannot be written", target.display()))
    });
    if let Err(error) = written {
        // What this call made, and nothing else.
        let _ = std::fs::remove_dir_all(&partial);
        remove_empty(&made);
        return Err(error);
    }
    Ok(target)
}

fn write_crate(kind: &Kind, name: &str, folder: &Path) -> Result<()> {
    let settings = cargo_settings();
    let libtorch = std::fs::read_to_string(&settings)
        .with_context(|| format!("{} cannot be read; run `cargo xtask setup`", settings.display()))?;
    write(&folder.join("Cargo.toml"), &manifest(kind, name)?)?;
    // The versions that mm is tested with, and what is downloaded already.
    let lock = root().join("Cargo.lock");
    let lock = std::fs::read_to_string(&lock).with_context(|| format!("{} cannot be read", lock.display()))?;
    write(&folder.join("Cargo.lock"), &lock)?;
    write(&folder.join(".cargo/config.toml"), &cargo_config(&libtorch))?;
    write(&folder.join(".gitignore"), GITIGNORE)?;
    write(&folder.join("rustfmt.toml"), RUSTFMT)?;
    let readme = README.replace("KIND", kind.command).replace("USAGE", kind.usage.trim_end());
    write(&folder.join("README.md"), &fill(&readme.replace("DESCRIPTION", &description(kind)), name))?;
    for TemplateFile { path, text } in kind.files {
        write(&folder.join(path), &fill(text, name))?;
    }
    Ok(())
}

fn description(kind: &Kind) -> String {
    let mut article = kind.article.to_owned();
    article[..1].make_ascii_uppercase();
    format!("{article} {} of mm", kind.title)
}

/// The text of a template for this name.
pub fn fill(template: &str, name: &str) -> String {
    template.replace("template-name", name).replace("template_name", &snake(name)).replace("TemplateName", &camel(name))
}

fn manifest(kind: &Kind, name: &str) -> Result<String> {
    let of_mm = |name: &&str| -> Result<String> {
        let path = root().join("crates").join(name);
        let path = path.to_str().with_context(|| format!("{}: not UTF-8, which cargo needs", path.display()))?;
        Ok(format!("{name} = {{ path = {} }}", toml::Value::from(path)))
    };
    let list = |mm_crates: &[&str], crates: &[(&str, &str)]| -> Result<String> {
        let mut lines = mm_crates.iter().map(of_mm).collect::<Result<Vec<_>>>()?;
        lines.extend(crates.iter().map(|(name, version)| format!("{name} = {version}")));
        Ok(lines.join("\n"))
    };
    let text = MANIFEST
        .replace("DEV_DEPENDENCIES", &list(kind.dev_mm_crates, kind.dev_crates)?)
        .replace("DEPENDENCIES", &list(kind.mm_crates, kind.crates)?)
        .replace("DESCRIPTION", &description(kind));
    Ok(fill(&text, name))
}

/// The settings of libtorch, and those of mm's own tests.
fn cargo_config(libtorch: &str) -> String {
    let random = "# libtorch has one random generator per process, so tests that sample cannot run in parallel.\n\
                  RUST_TEST_THREADS = \"1\"\n";
    let copied = "# Copied from mm's .cargo/libtorch.toml when this crate was made.\n";
    copied.to_owned() + &libtorch.replacen("[env]\n", &format!("[env]\n{random}"), 1)
}

fn write(file: &Path, text: &str) -> Result<()> {
    let parent = file.parent().context("the path has no parent folder")?;
    let cannot_write = |path: &Path| format!("{} cannot be written", path.display());
    std::fs::create_dir_all(parent).with_context(|| cannot_write(parent))?;
    std::fs::write(file, text).with_context(|| cannot_write(file))
}
