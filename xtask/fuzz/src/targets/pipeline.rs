//! Pipelines (TOML).

use crate::pipeline_file::parse;

/// Parses a pipeline and expands its variables.
pub fn read(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let built_in = [("cache", "/cache".to_owned()), ("here", "/here".to_owned())];
    let _ = parse(text, &[], &built_in);
    let _ = parse(text, &["vars.seeds=2", "epochs=3"], &built_in);
}
