//! A pipeline to start from.

use crate::temporary::{make_folders, remove_empty};
use anyhow::{Result, bail};
use mm_hub::paths::write_file;
use std::path::{Path, PathBuf};

/// A complete pipeline that explains every key.
const TEMPLATE: &str = include_str!("../../../docs/pipelines/template.toml");

/// Writes `DIR/NAME.toml`.
pub fn make(name: &str, dir: &Path) -> Result<PathBuf> {
    let is_plain = |c: char| c.is_alphanumeric() || c == '-' || c == '_';
    if name.is_empty() || !name.chars().all(is_plain) {
        bail!("NAME: found {name:?}, expected letters, digits, - and _, for instance birds");
    }
    let file = dir.join(format!("{name}.toml"));
    if std::fs::symlink_metadata(&file).is_ok() {
        bail!("{}: exists already; choose another NAME or --dir", file.display());
    }
    if dir.exists() && !dir.is_dir() {
        bail!("--dir {}: found a file, expected a folder", dir.display());
    }
    let made = make_folders(dir)?;
    if let Err(error) = write_file(&file, text(name).as_bytes()) {
        remove_empty(&made);
        return Err(error.into());
    }
    Ok(std::path::absolute(&file)?)
}

/// The template with the name of the file in its commands.
fn text(name: &str) -> String {
    let own = format!("Made by `cargo xtask new pipeline {name}`; change it, and run it from anywhere:");
    let text = TEMPLATE.replace("Copy this file anywhere, change it, and run it from anywhere:", &own);
    text.replace("docs/pipelines/template.toml", &format!("{name}.toml"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm_hub::pipeline::{Options, load};

    #[test]
    fn a_pipeline_is_made_that_loads_and_nothing_is_overwritten() {
        let top = tempfile::tempdir().unwrap();
        let dir = top.path().join("my projects/müsli");
        let file = make("birds", &dir).unwrap();
        assert_eq!(file, dir.join("birds.toml"));
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(
            text.contains("Made by `cargo xtask new pipeline birds`") && text.contains("# mm run birds.toml --dry-run")
        );
        assert!(!text.contains("template.toml") && !text.contains("Copy this file"), "{text}");
        let pipeline = load(&file, &Options::default()).unwrap();
        assert_eq!(pipeline.out, dir.canonicalize().unwrap().join("runs"));
        assert_eq!(pipeline.steps.iter().filter(|step| step.base == "embed").count(), 2);
        std::fs::write(&file, "mine").unwrap();
        assert!(make("birds", &dir).unwrap_err().to_string().contains("exists already"));
        assert_eq!(std::fs::read(&file).unwrap(), b"mine");
        for name in ["", "a/b", "..", "a b", "a.toml"] {
            assert!(make(name, &dir).unwrap_err().to_string().contains("expected letters"), "{name}");
        }
        assert!(make("birds", &file).unwrap_err().to_string().contains("expected a folder"));
        assert!(format!("{:#}", make("birds", &file.join("a/b")).unwrap_err()).contains("cannot be made there"));
    }
}
