//! What a registry file says about a data set or a model.

use crate::{
    error::{Context, Result, bail},
    hub::parse_name,
    paths::is_below,
};
use serde::Deserialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

/// The items of a registry file: mm's own (`registry.toml` of this crate), one next to a pipeline, or a part of a pipeline.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Items {
    /// Data sets.
    #[serde(default)]
    pub data: Vec<Item>,
    /// Pretrained weights.
    #[serde(default)]
    pub models: Vec<Item>,
}

/// A data set or a model.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Item {
    /// The name, which is also that of its folder in the cache.
    pub name: String,
    /// What it is, in one line.
    #[serde(default)]
    pub about: String,
    /// The licence of its files.
    #[serde(default)]
    pub license: String,
    /// How much is fetched and unpacked, in words.
    #[serde(default)]
    pub size: String,
    /// Where it is fetched from.
    pub from: Source,
    /// Prefixes of the paths that are unpacked; all of them where there are none.
    #[serde(default)]
    pub keep: Vec<String>,
    /// The number of leading folders that are removed from the paths.
    #[serde(default)]
    pub strip: usize,
    /// SHA-256 of unpacked files, by path.
    #[serde(default)]
    pub sha256: BTreeMap<String, String>,
    /// Files that are added, by path, with their text.
    #[serde(default)]
    pub files: BTreeMap<String, String>,
}

/// Where an item is fetched from. The names of variants are part of the fingerprint of what is in the cache.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// Debian packages, by apt.
    Apt(Vec<String>),
    /// npm packages.
    Npm(Vec<String>),
    /// Python packages, by pip: a wheel or a source archive each.
    Pip(Vec<String>),
    /// Files at addresses.
    Url(Vec<UrlFile>),
    /// A repository of the Hugging Face Hub: `ORG/NAME[@REVISION]`.
    Hub(String),
}

/// A file at an address.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UrlFile {
    /// The address, `https://` or `http://`.
    pub url: String,
    /// Its SHA-256, in hexadecimal.
    pub sha256: String,
    /// The number of its bytes.
    #[serde(default)]
    pub size: Option<u64>,
    /// The name of the file [default: the end of the address].
    #[serde(default)]
    pub name: Option<String>,
    /// Whether an archive (.tar, .tar.gz, .tgz, .zip) or a .gz file is unpacked.
    #[serde(default = "yes")]
    pub unpack: bool,
}

fn yes() -> bool {
    true
}

impl UrlFile {
    /// The name that the file is kept under.
    pub(super) fn file_name(&self) -> &str {
        let end = || self.url.split(['?', '#']).next().unwrap_or("").rsplit('/').next().unwrap_or("");
        self.name.as_deref().unwrap_or_else(end)
    }

    fn check(&self) -> Result<()> {
        if !self.url.starts_with("https://") && !self.url.starts_with("http://") {
            bail!("from.url: found `{}`, expected an address that starts with https:// or http://", self.url);
        }
        check_sha256(&self.url, &self.sha256)?;
        if !is_plain(self.file_name()) {
            bail!("{}: the file would be called `{}`; set `name` to a file name", self.url, self.file_name());
        }
        Ok(())
    }
}

fn check_sha256(file: &str, sha256: &str) -> Result<()> {
    if sha256.len() != 64 || !sha256.bytes().all(|b| b.is_ascii_hexdigit()) {
        bail!("{file}: sha256 is `{sha256}`, expected 64 hexadecimal digits (sha256sum FILE)");
    }
    Ok(())
}

/// Whether a name can be that of one file or folder.
fn is_plain(name: &str) -> bool {
    is_below(Path::new(name)) && !name.starts_with('.') && !name.contains(['/', '\\', '\0'])
}

impl Item {
    /// Checks what the types do not.
    pub(super) fn check(&self) -> Result<()> {
        if !is_plain(&self.name) {
            bail!("`{}` cannot be the name of a folder; expected letters, digits, - and _", self.name);
        }
        if let Some(path) = self.files.keys().chain(self.sha256.keys()).find(|path| !is_below(Path::new(path))) {
            bail!("{}: the path `{path}` leads out of its folder", self.name);
        }
        self.sha256.iter().try_for_each(|(path, sha256)| check_sha256(&format!("{}: {path}", self.name), sha256))?;
        let is_empty = match &self.from {
            Source::Apt(list) | Source::Npm(list) | Source::Pip(list) => {
                // A client would take such a name for one of its options.
                if let Some(package) = list.iter().find(|p| p.is_empty() || p.starts_with('-')) {
                    bail!("{}: `{package}` is not the name of a package", self.name);
                }
                list.is_empty()
            }
            Source::Url(files) => {
                files.iter().try_for_each(UrlFile::check).with_context(|| self.name.clone())?;
                let mut names = BTreeSet::new();
                if let Some(file) = files.iter().find(|file| !names.insert(file.file_name())) {
                    bail!("{}: two files are called `{}`; set `name` of one", self.name, file.file_name());
                }
                files.is_empty()
            }
            Source::Hub(name) => {
                parse_name(name)?;
                false
            }
        };
        if is_empty {
            bail!("{}: `from` names nothing to fetch", self.name);
        }
        Ok(())
    }

    /// What the files in the cache depend on.
    pub(super) fn fingerprint(&self) -> String {
        format!("{:?} {:?} {} {:?} {:?}", self.from, self.keep, self.strip, self.files, self.sha256)
    }
}
