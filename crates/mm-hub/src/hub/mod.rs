//! The Hugging Face Hub: `models pull ORG/NAME[@REVISION]`. Uses the cache, the layout and the environment variables of
//! Python's `huggingface_hub`, so that both find each other's downloads.

mod api;

use crate::{
    error::{At, Context, Result, bail, status_of},
    fetch::{Remote, download_to, is_offline, is_on},
    model_files::is_unused,
    paths::{create_dir, is_below, link_blob, write_file},
};
use api::{HubFile, escape, status_message};
use serde_json::Value;
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::Duration,
};

/// A client of the hub, configured from the environment as `huggingface_hub` is.
pub struct Hub {
    endpoint: String,
    cache: PathBuf,
    token: Option<String>,
    offline: bool,
    /// Time without data after which a connection is given up.
    timeout: Duration,
}

/// A variable of the environment that says something.
pub(crate) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|v| !v.is_empty())
}

/// The folder of `huggingface_hub`; `None` where no variable says where it is.
fn base_folder(variable: &dyn Fn(&str) -> Option<String>) -> Option<PathBuf> {
    if let Some(folder) = variable("HF_HOME") {
        return Some(folder.into());
    }
    let cache = variable("XDG_CACHE_HOME").map(PathBuf::from);
    Some(cache.or_else(|| Some(Path::new(&variable("HOME")?).join(".cache")))?.join("huggingface"))
}

/// The token of the hub: `HF_TOKEN`, else the file that `hf auth login` writes.
fn find_token(variable: &dyn Fn(&str) -> Option<String>) -> Option<String> {
    let written = || {
        let named = variable("HF_TOKEN_PATH").map(PathBuf::from);
        std::fs::read_to_string(named.or_else(|| Some(base_folder(variable)?.join("token")))?).ok()
    };
    let token = variable("HF_TOKEN").or_else(written)?;
    Some(token.trim().to_owned()).filter(|token| !token.is_empty())
}

/// The token with which the files of the hub are asked for, as [`Hub::from_environment`] finds it.
#[cfg(feature = "storage")]
pub(crate) fn token() -> Option<String> {
    find_token(&variable)
}

impl Hub {
    /// The client that the environment describes.
    pub fn from_environment() -> Result<Self> {
        let base = base_folder(&variable).context("HOME is not set; set HF_HOME to the folder for models")?;
        let cache = variable("HF_HUB_CACHE").or_else(|| variable("HUGGINGFACE_HUB_CACHE"));
        let timeout = variable("HF_HUB_DOWNLOAD_TIMEOUT").and_then(|v| v.parse().ok()).unwrap_or(10);
        Ok(Self {
            endpoint: variable("HF_ENDPOINT")
                .unwrap_or_else(|| "https://huggingface.co".into())
                .trim_end_matches('/')
                .into(),
            cache: cache.map_or_else(|| base.join("hub"), PathBuf::from),
            token: find_token(&variable),
            offline: variable("HF_HUB_OFFLINE").is_some_and(|v| is_on(&v)) || is_offline(),
            timeout: Duration::from_secs(timeout),
        })
    }

    /// Downloads the files of a repository that the model needs, and returns the folder with them.
    pub fn pull(&self, name: &str) -> Result<PathBuf> {
        let (repository, revision) = parse_name(name)?;
        let folder = self.folder(repository);
        if self.offline {
            return self.cached(&folder, repository, revision);
        }
        let (metadata, _) =
            self.get_json(&format!("/api/models/{repository}/revision/{}", escape(revision)), repository, revision)?;
        let commit = metadata["sha"].as_str().context("the hub's response has no commit (`sha`)")?.to_owned();
        if !is_plain(&commit) {
            bail!("the hub's response has an invalid commit: {commit}");
        }
        let files = self.list_files(&metadata, repository, &commit)?;
        let needed = needed_files(&files);
        let snapshot = folder.join("snapshots").join(&commit);
        // Indices first: the index of a sharded checkpoint lists its shards.
        let mut ordered: Vec<&HubFile> = files.iter().filter(|f| needed.contains(f.path.as_str())).collect();
        ordered.sort_by_key(|f| !f.path.ends_with(".index.json"));
        let mut shards: Option<BTreeSet<String>> = None;
        for file in ordered {
            if let Some(listed) = &shards
                && is_shard(&file.path)
                && !listed.contains(&file.path)
            {
                continue;
            }
            self.fetch_file(file, repository, &commit, &folder, &snapshot)?;
            if file.path.ends_with(".index.json") {
                let path = snapshot.join(&file.path);
                let text = std::fs::read_to_string(&path).at(&path, "read")?;
                let index: Value =
                    serde_json::from_str(&text).with_context(|| format!("{}: not an index", file.path))?;
                let weight_map = index["weight_map"].as_object().context("an index without `weight_map`")?;
                let listed = weight_map.values().filter_map(Value::as_str).map(ToOwned::to_owned);
                shards.get_or_insert_default().extend(listed);
            }
        }
        if let Some(missing) = shards.iter().flatten().find(|s| !snapshot.join(s).exists()) {
            bail!("{repository}: its index lists {missing}, which the repository does not have");
        }
        // Last, so that a revision only refers to a complete snapshot; a commit refers to itself.
        write_file(&folder.join("refs").join(revision), commit.as_bytes())?;
        Ok(snapshot)
    }

    /// The folder of a repository in the cache.
    fn folder(&self, repository: &str) -> PathBuf {
        self.cache.join(format!("models--{}", repository.replace('/', "--")))
    }

    /// The snapshot of `ORG/NAME[@REVISION]`, where the cache has it: a revision refers to complete snapshots only.
    pub fn find(&self, name: &str) -> Option<PathBuf> {
        let (repository, revision) = parse_name(name).ok()?;
        let folder = self.folder(repository);
        let commit = std::fs::read_to_string(folder.join("refs").join(revision)).ok()?;
        Some(folder.join("snapshots").join(commit.trim())).filter(|snapshot| snapshot.is_dir())
    }

    /// The snapshot in the cache.
    fn cached(&self, folder: &Path, repository: &str, revision: &str) -> Result<PathBuf> {
        let commit =
            std::fs::read_to_string(folder.join("refs").join(revision)).unwrap_or_else(|_| revision.to_owned());
        let snapshot = folder.join("snapshots").join(commit.trim());
        if snapshot.is_dir() {
            return Ok(snapshot);
        }
        bail!(
            "{repository}@{revision} is not in {} and HF_HUB_OFFLINE forbids downloads; unset it, or copy that folder from a machine that has \
             the model",
            self.cache.display()
        )
    }

    /// Downloads a file to `blobs` and links it from the snapshot.
    fn fetch_file(&self, file: &HubFile, repository: &str, commit: &str, folder: &Path, snapshot: &Path) -> Result<()> {
        let relative = Path::new(&file.path);
        let digest = &file.digest;
        let kind = match digest.len() {
            64 => "sha256",
            40 => "git",
            _ => bail!("{}: its checksum `{digest}` is neither SHA-256 nor git's SHA-1", file.path),
        };
        if !is_below(relative) || !digest.bytes().all(|b| b.is_ascii_hexdigit()) {
            bail!("{}: found a path outside of the folder or an invalid checksum", file.path);
        }
        let blob = folder.join("blobs").join(digest);
        // An existing blob was verified when it was downloaded.
        if !blob.exists() {
            let locks = self.cache.join(".locks").join(folder.file_name().unwrap_or_default());
            create_dir(&locks)?;
            let remote = Remote {
                url: format!("{}/{repository}/resolve/{commit}/{}", self.endpoint, escape(&file.path)),
                checksum: (kind, digest.clone()),
                size: None,
                bearer: self.token.clone(),
                timeout: self.timeout,
            };
            download_to(
                &remote,
                &blob,
                &folder.join("blobs").join(format!("{digest}.incomplete")),
                &locks.join(format!("{digest}.lock")),
            )
            .or_else(|error| match status_of(&error) {
                Some(status) => Err(error).with_context(|| {
                    status_message(&remote.url, repository, commit, status, None, self.token.is_some())
                }),
                None => Err(error),
            })?;
        }
        link_blob(snapshot, relative, &blob)
    }
}

fn is_plain(part: &str) -> bool {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    !part.is_empty() && !part.starts_with('.') && part.chars().all(is_allowed)
}

/// The repository and the revision of `ORG/NAME[@REVISION]`.
pub(crate) fn parse_name(name: &str) -> Result<(&str, &str)> {
    let (repository, revision) = name.split_once('@').unwrap_or((name, "main"));
    let parts: Vec<&str> = repository.split('/').collect();
    // The revision is a path in the cache.
    if parts.len() > 2 || !parts.iter().all(|p| is_plain(p)) || !is_below(Path::new(revision)) {
        bail!("`{name}` is not a name of the hub; expected ORG/NAME or ORG/NAME@REVISION");
    }
    Ok((repository, revision))
}

fn is_shard(path: &str) -> bool {
    path.contains("-of-") && [".safetensors", ".bin"].iter().any(|e| path.ends_with(e))
}

/// The files of a repository that a model needs: configs and tokenizers, and the weights in one format, preferably
/// safetensors.
fn needed_files(files: &[HubFile]) -> BTreeSet<&str> {
    let all: BTreeSet<&str> = files.iter().map(|file| file.path.as_str()).collect();
    let known = [".json", ".txt", ".model", ".jinja", "README.md", "LICENSE", "LICENSE.txt", ".tiktoken"];
    let weights = [".safetensors", ".bin", ".pt", ".pth"];
    let is_known = |path: &str| known.iter().chain(&weights).any(|end| path.ends_with(end));
    all.iter().copied().filter(|path| is_known(path) && !is_unused(path, &all)).collect()
}

#[cfg(test)]
mod tests;
