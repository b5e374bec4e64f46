//! Which checkpoint of a run is used.

use mm_train::Run;
use std::path::Path;

/// The checkpoint of a run folder that is used: the best, or the last where training was stopped before its first
/// evaluation.
pub(crate) fn checkpoint_name(run: &Path) -> &'static str {
    if Run::checkpoint_path(run, "best").exists() { "best" } else { "last" }
}
