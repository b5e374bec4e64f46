//! Where steps may write.

use super::{state::FOLDER, step::Step};
use crate::paths::resolved;
use std::path::{Path, PathBuf};

/// Refuses an output folder that holds the pipeline itself, or nearly everything.
pub(super) fn check_folder(out: &Path, file: &Path) -> Result<(), String> {
    let home = std::env::var_os("HOME").map(PathBuf::from);
    if file.starts_with(out) || out.parent().is_none() || home.is_some_and(|home| home.starts_with(out)) {
        return Err(format!(
            "out: {} holds the pipeline file or your home folder; expected a folder for outputs alone, such as `runs`",
            out.display()
        ));
    }
    Ok(())
}

/// Refuses an output folder, or outputs, that links lead elsewhere as things are on disk now.
pub(super) fn check_links(steps: &[Step], out: &Path, file: &Path) -> Result<(), String> {
    let real = resolved(out);
    check_folder(&real, file)?;
    for step in steps.iter().filter(|step| !step.is_download()) {
        for output in &step.outputs {
            let folder = resolved(output.parent().unwrap_or(out));
            if !folder.starts_with(&real) {
                return Err(format!(
                    "step `{}`: the output {} lies in {}, where a link leads; a pipeline writes nowhere but below its output \
                     folder {}",
                    step.name,
                    output.display(),
                    folder.display(),
                    out.display()
                ));
            }
        }
    }
    Ok(())
}

/// Refuses outputs that do not lie below the pipeline's output folder, and those that two steps write.
pub(super) fn check(steps: &[Step], out: &Path, cache: &Path) -> Result<(), String> {
    let mut seen: Vec<(&Path, &str)> = Vec::new();
    for step in steps {
        for output in &step.outputs {
            let in_cache = step.is_download() && output.starts_with(cache) && output != cache;
            if !in_cache && (!output.starts_with(out) || output == out) {
                return Err(format!(
                    "step `{}`: the output {} does not lie below the pipeline's output folder {} (`out`); a pipeline \
                     writes nowhere else",
                    step.name,
                    output.display(),
                    out.display()
                ));
            }
            if output.starts_with(out.join(FOLDER)) {
                return Err(format!(
                    "step `{}`: the output {} is the pipeline's own state",
                    step.name,
                    output.display()
                ));
            }
            if let Some((_, other)) = seen.iter().find(|(path, _)| path == output) {
                return Err(format!(
                    "steps `{other}` and `{}` both write {}; with a matrix, put its variables into the path",
                    step.name,
                    output.display()
                ));
            }
            if !in_cache {
                seen.push((output, &step.name));
            }
        }
    }
    Ok(())
}
