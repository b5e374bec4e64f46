//! What a pipeline has done: its completed steps, and the outputs that it made and may replace.

use crate::paths::root;
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Component, Path, PathBuf},
};

/// The state of a pipeline, in a file of its own below `runs/.pipelines`.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// The digests of the completed steps, by name.
    completed: BTreeMap<String, String>,
    /// Absolute paths that did not exist before a step of this pipeline wrote them.
    made: BTreeSet<String>,
    #[serde(skip)]
    file: PathBuf,
}

/// The state file of a pipeline.
pub fn state_file(pipeline: &Path) -> PathBuf {
    let name: String =
        pipeline.display().to_string().chars().map(|c| if c.is_alphanumeric() { c } else { '-' }).collect();
    root().join("runs/.pipelines").join(format!("{name}.json"))
}

impl State {
    /// The state of a pipeline; an empty one when there is none.
    pub fn open(pipeline: &Path) -> Self {
        let file = state_file(pipeline);
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        // Before outputs were recorded, the file held the completed steps alone.
        let completed = || serde_json::from_str(&text).map(|completed| Self { completed, ..Self::default() });
        let state = serde_json::from_str::<Self>(&text).or_else(|_| completed()).unwrap_or_default();
        Self { file, ..state }
    }

    /// Whether a step was completed with this digest.
    pub fn is_complete(&self, step: &str, digest: &str) -> bool {
        self.completed.get(step).is_some_and(|found| found == digest)
    }

    /// Records that a step is complete.
    pub fn complete(&mut self, step: &str, digest: String) -> Result<()> {
        self.completed.insert(step.to_owned(), digest);
        self.save()
    }

    /// Deletes the outputs of a step that is to write them afresh.
    ///
    /// # Errors
    /// When one of them was not made by this pipeline, or holds the workspace or the pipeline itself; nothing is deleted
    /// then.
    pub fn delete_outputs(&self, outputs: &[String], pipeline: &Path) -> Result<()> {
        let paths: Vec<PathBuf> = outputs.iter().map(|output| absolute(output)).filter(|p| exists(p)).collect();
        for path in &paths {
            let display = path.display();
            if [root().as_path(), pipeline].into_iter().any(|kept| normalized(kept).starts_with(path)) {
                bail!(
                    "output {display} holds the workspace or the pipeline, which a step must not replace; choose another path"
                );
            }
            if !self.made.contains(&key(path)) {
                bail!(
                    "output {display} exists and was not made by this pipeline, so it is not replaced; move or delete it, \
                     or choose another path"
                );
            }
        }
        for path in paths {
            let is_dir = std::fs::symlink_metadata(&path).is_ok_and(|m| m.is_dir());
            let deleted = if is_dir { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
            deleted.with_context(|| format!("{} cannot be deleted", path.display()))?;
        }
        Ok(())
    }

    /// Records the outputs of a step that do not exist yet, before it runs.
    pub fn record_outputs(&mut self, outputs: &[String]) -> Result<()> {
        let missing = outputs.iter().map(|output| absolute(output)).filter(|path| !exists(path));
        let before = self.made.len();
        self.made.extend(missing.map(|path| key(&path)));
        if self.made.len() == before { Ok(()) } else { self.save() }
    }

    fn save(&self) -> Result<()> {
        std::fs::create_dir_all(self.file.parent().unwrap_or(Path::new(".")))?;
        let partial = self.file.with_extension("partial");
        std::fs::write(&partial, serde_json::to_string_pretty(self)?)?;
        Ok(std::fs::rename(&partial, &self.file)?)
    }
}

fn key(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// Whether there is anything at a path, a broken link included.
fn exists(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok()
}

/// The path of an output, relative to the workspace.
fn absolute(output: &str) -> PathBuf {
    normalized(&root().join(output))
}

/// A path without `.` and `..`.
fn normalized(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                out.pop();
            }
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_pipeline_made_is_deleted() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).display().to_string();
        let pipeline = folder.path().join("own/p.toml");
        std::fs::create_dir_all(folder.path().join("own")).unwrap();
        std::fs::write(&pipeline, "").unwrap();
        let mut state = State { file: folder.path().join("state.json"), ..State::default() };
        state.record_outputs(&[at("run"), at("table.csv"), at("own")]).unwrap();
        for made in ["run", "own"] {
            std::fs::create_dir_all(folder.path().join(made).join("checkpoints")).unwrap();
        }
        std::fs::write(at("table.csv"), "a").unwrap();
        std::fs::create_dir(at("mine")).unwrap();
        std::fs::write(at("mine/thesis.tex"), "years").unwrap();
        // Nothing is deleted where one of the outputs may not be.
        let text = |outputs: &[String]| state.delete_outputs(outputs, &pipeline).unwrap_err().to_string();
        assert!(text(&[at("run"), at("mine")]).contains("was not made by this pipeline"));
        assert!(text(&[at("run"), at("run/../mine/./")]).contains("was not made by this pipeline"));
        assert!(text(&[at("run"), at("own")]).contains("holds the workspace or the pipeline"));
        assert!(text(&[".".into()]).contains("holds the workspace"));
        assert!(text(&["..".into()]).contains("holds the workspace"));
        assert!(Path::new(&at("run")).exists() && Path::new(&at("mine/thesis.tex")).exists());
        state.delete_outputs(&[at("run"), at("table.csv"), at("never-written")], &pipeline).unwrap();
        assert!(!Path::new(&at("run")).exists() && !Path::new(&at("table.csv")).exists());
    }
}
