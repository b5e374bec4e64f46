//! What the result of a step depends on.

use super::step::{Action, Step};
use crate::fetch::hex;
use sha2::{Digest, Sha256};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

/// What a step does and what it reads, and a digest of both.
pub(super) struct Key {
    /// The digest, by which a completed step is known again, whatever its name.
    pub(super) digest: String,
    /// What it does, in words.
    pub(super) command: String,
    /// The digest of each input, by path.
    pub(super) inputs: BTreeMap<String, String>,
}

/// The key of a step as its inputs are now. The program `mm` counts by its version, not by its bytes, so that a rebuilt one
/// repeats nothing.
pub(super) fn key(step: &Step) -> Key {
    let command = command(step);
    let path = |p: &PathBuf| (p.display().to_string(), digest(p));
    let inputs: BTreeMap<String, String> = step.inputs.iter().map(path).collect();
    let outputs: Vec<String> = step.outputs.iter().map(|p| p.display().to_string()).collect();
    let text = format!("2 {command:?} {inputs:?} {outputs:?}");
    Key { digest: hex(&Sha256::digest(text)), command, inputs }
}

/// What a step does, in words that tell any two commands apart.
pub(super) fn command(step: &Step) -> String {
    let action = match &step.action {
        Action::Fetch(name) => format!("fetch {name:?}"),
        Action::Pull(name) => format!("pull {name:?}"),
        Action::Mm(arguments) => format!("mm {} {arguments:?}", env!("CARGO_PKG_VERSION")),
        Action::Run(words) => format!("run {words:?}"),
    };
    let env = if step.env.is_empty() { String::new() } else { format!(" with {:?}", step.env) };
    format!("{action} in {}{env}", step.cwd.display())
}

/// A digest of a file or folder: of the contents of small files, of the sizes and modification times of large ones.
fn digest(path: &Path) -> String {
    let mut hasher = Sha256::new();
    add(path, &mut hasher, &mut BTreeSet::new());
    hex(&hasher.finalize())
}

/// Adds what is at a path; `seen` are the folders so far, which links can lead back to.
fn add(path: &Path, hasher: &mut Sha256, seen: &mut BTreeSet<PathBuf>) {
    let Ok(metadata) = std::fs::metadata(path) else {
        return hasher.update(b"missing");
    };
    if metadata.is_dir() {
        hasher.update(b"folder");
        if !path.canonicalize().is_ok_and(|real| seen.insert(real)) {
            return hasher.update(b"seen");
        }
        let entries = std::fs::read_dir(path).into_iter().flatten();
        let mut entries: Vec<PathBuf> = entries.filter_map(|e| e.ok().map(|e| e.path())).collect();
        entries.sort();
        hasher.update(entries.len().to_le_bytes());
        for entry in entries {
            let name = entry.file_name().unwrap_or_default().as_encoded_bytes();
            hasher.update(name.len().to_le_bytes());
            hasher.update(name);
            add(&entry, hasher, seen);
        }
        return;
    }
    hasher.update(b"file");
    hasher.update(metadata.len().to_le_bytes());
    if metadata.len() < 1 << 20 {
        // A clone or a `touch` changes only the modification time.
        hasher.update(std::fs::read(path).unwrap_or_default());
    } else {
        let modified = metadata.modified().ok().and_then(|t| t.duration_since(std::time::UNIX_EPOCH).ok());
        hasher.update(modified.map_or(0, |d| d.as_nanos()).to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_tells_names_and_contents_apart_and_ends_where_links_lead_back() {
        let top = tempfile::tempdir().unwrap();
        let folder = |name: &str, files: &[(&str, &str)]| {
            std::fs::create_dir(top.path().join(name)).unwrap();
            for (file, text) in files {
                std::fs::write(top.path().join(name).join(file), text).unwrap();
            }
            digest(&top.path().join(name))
        };
        // The same bytes, divided in another way.
        assert_ne!(folder("a", &[("x", "1y2")]), folder("b", &[("x", "1"), ("y", "2")]));
        assert_eq!(folder("c", &[("x", "1")]), folder("d", &[("x", "1")]));
        #[cfg(unix)]
        {
            let before = folder("loop", &[("x", "1")]);
            for n in 0..4 {
                std::os::unix::fs::symlink("..", top.path().join(format!("loop/up{n}"))).unwrap();
            }
            assert_ne!(digest(&top.path().join("loop")), before);
        }
    }
}
