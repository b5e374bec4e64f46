//! What the result of a step depends on.

use super::step::{Action, Step};
use crate::fetch::hex;
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
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
    let text = format!("1 {command:?} {inputs:?} {outputs:?}");
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
    fn add(path: &Path, hasher: &mut Sha256) {
        hasher.update(path.display().to_string());
        let Ok(metadata) = std::fs::metadata(path) else {
            hasher.update(b"missing");
            return;
        };
        if metadata.is_dir() {
            let entries = std::fs::read_dir(path).into_iter().flatten();
            let mut entries: Vec<PathBuf> = entries.filter_map(|e| e.ok().map(|e| e.path())).collect();
            entries.sort();
            entries.iter().for_each(|e| add(e, hasher));
        } else if metadata.len() < 1 << 20 {
            // A clone or a `touch` changes only the modification time.
            hasher.update(std::fs::read(path).unwrap_or_default());
        } else {
            let modified = metadata.modified().ok().and_then(|t| t.duration_since(std::time::UNIX_EPOCH).ok());
            hasher.update(metadata.len().to_le_bytes());
            hasher.update(modified.map_or(0, |d| d.as_nanos()).to_le_bytes());
        }
    }
    let mut hasher = Sha256::new();
    add(path, &mut hasher);
    hex(&hasher.finalize())
}
