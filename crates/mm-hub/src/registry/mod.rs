//! The registry of data sets and pretrained weights, and their download into the cache.

mod item;
mod unpack;

pub use item::{Item, Items, Source, UrlFile};

use crate::{
    error::{At, Context, Error, Result, bail},
    fetch::{digest, hex},
    hub::Hub,
    paths::{cache, create_dir, lock, with_suffix},
    report::note,
};
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// A part of the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Data sets.
    Data,
    /// Pretrained weights.
    Models,
}

impl Kind {
    /// The name of the kind in commands, in pipelines and in the cache.
    pub fn name(self) -> &'static str {
        match self {
            Self::Data => "data",
            Self::Models => "models",
        }
    }
}

/// An item as it is listed.
#[derive(Debug, Serialize)]
pub struct Entry {
    /// The name to fetch it by.
    pub name: String,
    /// What it is.
    pub about: String,
    /// The licence of its files.
    pub license: String,
    /// How much is fetched and unpacked.
    pub size: String,
    /// The client and the packages that it is fetched from.
    pub from: String,
    /// Whether it is in the cache.
    pub cached: bool,
    /// Its folder in the cache.
    pub path: PathBuf,
}

/// Items that can be fetched: those of mm, and those of a pipeline.
#[derive(Debug, Clone)]
pub struct Registry {
    cache: PathBuf,
    items: Vec<(Kind, Item, PathBuf)>,
}

impl Registry {
    /// The registry of mm.
    pub fn built_in() -> Result<Self> {
        Self::at(cache())
    }

    /// The registry of mm with its files in another cache folder.
    pub(crate) fn at(cache: PathBuf) -> Result<Self> {
        let items: Items = toml::from_str(include_str!("../../registry.toml")).context("mm's own registry")?;
        let mut registry = Self { cache: cache.clone(), items: Vec::new() };
        registry.insert(items, |kind, item| cache.join(kind.name()).join(&item.name))?;
        Ok(registry)
    }

    /// Adds the items of a registry file or a pipeline. Their folders in the cache have names that depend on where they
    /// are fetched from, so that two pipelines can use one name.
    pub fn add(&mut self, items: Items) -> Result<()> {
        let cache = self.cache.clone();
        self.insert(items, |kind, item| {
            let mut digest = hex(&Sha256::digest(item.fingerprint()));
            digest.truncate(12);
            cache.join(kind.name()).join(format!("{}-{digest}", item.name))
        })
    }

    /// The folder that everything is fetched into.
    pub(crate) fn cache(&self) -> &Path {
        &self.cache
    }

    fn insert(&mut self, items: Items, folder: impl Fn(Kind, &Item) -> PathBuf) -> Result<()> {
        let data = items.data.into_iter().map(|item| (Kind::Data, item));
        let models = items.models.into_iter().map(|item| (Kind::Models, item));
        for (kind, item) in data.chain(models) {
            item.check()?;
            if self.contains(kind, &item.name) {
                bail!("[[{}]]: the name `{}` is taken; choose another one", kind.name(), item.name);
            }
            let folder = folder(kind, &item);
            self.items.push((kind, item, folder));
        }
        Ok(())
    }

    fn find(&self, kind: Kind, name: &str) -> Option<(&Item, &Path)> {
        let found = self.items.iter().find(|(k, item, _)| *k == kind && item.name == name);
        found.map(|(_, item, folder)| (item, folder.as_path()))
    }

    /// Whether there is an item of that name.
    pub fn contains(&self, kind: Kind, name: &str) -> bool {
        self.find(kind, name).is_some()
    }

    /// The folder of an item in the cache, whether it is there or not.
    ///
    /// # Errors
    /// When there is no item of that name; the error suggests the nearest one.
    pub fn folder(&self, kind: Kind, name: &str) -> Result<PathBuf> {
        self.find(kind, name).map(|(_, folder)| folder.to_owned()).ok_or_else(|| self.unknown(kind, name))
    }

    /// Whether an item is complete in the cache.
    pub fn is_cached(&self, kind: Kind, name: &str) -> bool {
        self.find(kind, name).is_some_and(|(item, folder)| is_complete(item, folder))
    }

    /// All items of a kind, in the order of the file.
    pub fn entries(&self, kind: Kind) -> Vec<Entry> {
        let items = self.items.iter().filter(|(k, ..)| *k == kind);
        let entry = |(_, item, folder): &(Kind, Item, PathBuf)| Entry {
            name: item.name.clone(),
            about: item.about.clone(),
            license: item.license.clone(),
            size: item.size.clone(),
            from: describe_source(&item.from),
            cached: is_complete(item, folder),
            path: folder.clone(),
        };
        items.map(entry).collect()
    }

    fn unknown(&self, kind: Kind, name: &str) -> Error {
        let names = self.items.iter().filter(|(k, ..)| *k == kind).map(|(_, item, _)| &item.name);
        let likeness = |a: &str| strsim::jaro_winkler(a, name);
        let nearest = names.max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
        let hub = if kind == Kind::Models { "; models of the Hugging Face Hub have the form ORG/NAME" } else { "" };
        Error::Unknown {
            name: name.to_owned(),
            nearest: nearest.cloned().unwrap_or_default(),
            hint: format!("`{} list` lists all{hub}", kind.name()),
        }
    }

    /// Downloads an item into the cache, unless it is there, and returns its folder.
    ///
    /// # Errors
    /// When there is no such item, or it cannot be downloaded, or is not what the registry states. The cache holds either
    /// all of it or nothing; what was downloaded is used by the next attempt.
    pub fn fetch(&self, kind: Kind, name: &str) -> Result<PathBuf> {
        let (item, folder) = self.find(kind, name).ok_or_else(|| self.unknown(kind, name))?;
        if is_complete(item, folder) {
            return Ok(folder.to_owned());
        }
        let parent = folder.parent().context("the path has no parent folder")?;
        create_dir(parent)?;
        let _lock = lock(&with_suffix(folder, "lock"), &format!("another process downloads {name}; waiting for it …"))?;
        if is_complete(item, folder) {
            return Ok(folder.to_owned());
        }
        check_replaceable(folder)?;
        note(format!("{name}: downloading{} …", about_download(item)));
        let (downloads, partial) = (with_suffix(folder, "downloads"), with_suffix(folder, "partial"));
        create_dir(&downloads)?;
        let _ = std::fs::remove_dir_all(&partial);
        create_dir(&partial)?;
        let fetched = complete(item, &downloads, &partial);
        if let Err(error) = &fetched {
            let _ = std::fs::remove_dir_all(&partial);
            // What can be of no use to the next attempt: archives that are refused, or nothing.
            if is_refused(error) || is_without_files(&downloads) {
                let _ = std::fs::remove_dir_all(&downloads);
            }
        }
        fetched.with_context(|| format!("{name} could not be fetched"))?;
        let _ = std::fs::remove_dir_all(folder);
        std::fs::rename(&partial, folder).at(folder, "written")?;
        let _ = std::fs::remove_dir_all(&downloads);
        Ok(folder.to_owned())
    }
}

/// Whether an error, or one of its causes, is that of an archive.
fn is_refused(error: &Error) -> bool {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = next {
        if matches!(error.downcast_ref(), Some(Error::Archive { .. })) {
            return true;
        }
        next = error.source();
    }
    false
}

/// Whether a folder holds nothing but locks.
fn is_without_files(folder: &Path) -> bool {
    let is_lock = |entry: std::io::Result<std::fs::DirEntry>| {
        entry.is_ok_and(|entry| entry.path().extension().is_some_and(|e| e == "lock"))
    };
    std::fs::read_dir(folder).is_ok_and(|mut entries| entries.all(is_lock))
}

/// Refuses a folder in the cache that holds files and was not written here, which marks what it writes.
fn check_replaceable(folder: &Path) -> Result<()> {
    let is_empty = || std::fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none());
    if folder.join(".complete").exists() || !crate::paths::exists(folder) || is_empty() {
        return Ok(());
    }
    bail!(
        "{} exists and was not fetched by mm, so it is not replaced; move it away, and run the command again",
        folder.display()
    )
}

/// Size and licence, as far as they are known.
fn about_download(item: &Item) -> String {
    let license = (!item.license.is_empty()).then(|| format!("license: {}", item.license));
    let known: Vec<String> = Some(item.size.clone()).filter(|s| !s.is_empty()).into_iter().chain(license).collect();
    if known.is_empty() { String::new() } else { format!(" ({})", known.join("; ")) }
}

fn describe_source(source: &Source) -> String {
    match source {
        Source::Apt(list) => format!("apt {}", list.join(", ")),
        Source::Npm(list) => format!("npm {}", list.join(", ")),
        Source::Pip(list) => format!("pip {}", list.join(", ")),
        Source::Url(files) => files.iter().map(|f| f.url.as_str()).collect::<Vec<_>>().join(", "),
        Source::Hub(name) => format!("hub {name}"),
    }
}

/// Fetches all of an item into `partial`, checks it and marks it as complete.
fn complete(item: &Item, downloads: &Path, partial: &Path) -> Result<()> {
    unpack::fetch_into(item, downloads, partial)?;
    for (name, text) in &item.files {
        let file = partial.join(name);
        create_dir(file.parent().unwrap_or(partial))?;
        std::fs::write(&file, text.trim_start()).at(&file, "written")?;
    }
    for (file, expected) in &item.sha256 {
        let found = digest(&partial.join(file), "sha256")?;
        if !found.eq_ignore_ascii_case(expected) {
            return Err(Error::Checksum {
                file: file.clone(),
                algorithm: "sha256",
                found,
                expected: expected.clone(),
                remedy: "the package has changed or was tampered with",
            });
        }
    }
    let marker = partial.join(".complete");
    std::fs::write(&marker, item.fingerprint()).at(&marker, "written")
}

fn is_complete(item: &Item, folder: &Path) -> bool {
    std::fs::read_to_string(folder.join(".complete")).is_ok_and(|t| t == item.fingerprint())
}

/// Downloads an item of mm's registry into the cache, unless it is there, and returns its folder.
pub fn fetch(kind: Kind, name: &str) -> Result<PathBuf> {
    Registry::built_in()?.fetch(kind, name)
}

/// Downloads weights: a name of mm's registry, or `ORG/NAME[@REVISION]` of the Hugging Face Hub.
pub fn pull(name: &str) -> Result<PathBuf> {
    if is_hub_name(name) { Hub::from_environment()?.pull(name) } else { fetch(Kind::Models, name) }
}

/// Whether the name of a model is one of the hub.
pub(crate) fn is_hub_name(name: &str) -> bool {
    name.contains(['/', '@'])
}

#[cfg(test)]
mod tests;
