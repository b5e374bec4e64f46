//! Finding a model's folder by its name.

use std::path::{Path, PathBuf};

/// The folder of a model: `name` below `base` if that is a folder, else a model fetched by `mm models pull`,
/// else `ORG/NAME[@REVISION]` in the cache of Python's `huggingface_hub`, which `models pull` fills too.
///
/// If there is none, `base/name` is returned, so that the error of whoever opens it names that path. A URL is returned as
/// it is; [`ModelPaths::locate`](crate::ModelPaths::locate) copies its folder.
pub fn locate(name: &Path, base: &Path) -> PathBuf {
    if mm_data::is_remote(name) {
        return name.to_owned();
    }
    let local = base.join(name);
    if local.is_dir() {
        return local;
    }
    let fetched = mm_core::cache_dir().join("models").join(name);
    if name.is_relative() && fetched.is_dir() {
        return fetched;
    }
    name.to_str().and_then(hub_snapshot).unwrap_or(local)
}

/// A model's snapshot in the hub cache (`HF_HUB_CACHE`, `HF_HOME` or `XDG_CACHE_HOME`).
fn hub_snapshot(name: &str) -> Option<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let cache = variable("HF_HUB_CACHE").or_else(|| variable("HUGGINGFACE_HUB_CACHE")).or_else(|| {
        let base = variable("HF_HOME").or_else(|| Some(variable("XDG_CACHE_HOME")?.join("huggingface")));
        Some(base.or_else(|| Some(variable("HOME")?.join(".cache/huggingface")))?.join("hub"))
    })?;
    let (repository, revision) = name.split_once('@').unwrap_or((name, "main"));
    let folder = cache.join(format!("models--{}", repository.replace('/', "--")));
    let commit = std::fs::read_to_string(folder.join("refs").join(revision)).unwrap_or_else(|_| revision.to_owned());
    Some(folder.join("snapshots").join(commit.trim())).filter(|f| f.is_dir())
}
