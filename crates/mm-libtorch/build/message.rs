//! What the user reads, line by line: what was found, what was expected, and the command that sets it right.

use crate::{VERSION, search::Problem};
use std::{
    env,
    path::{Path, PathBuf},
};

/// The lines of the message.
pub fn lines(problem: &Problem) -> Vec<String> {
    let mut lines = vec![match problem {
        Problem::Missing => format!("found no libtorch, which mm computes with; expected libtorch {VERSION}."),
        Problem::Invalid { setting, found } => {
            format!("{setting}: found {found}; expected libtorch {VERSION} with its headers.")
        }
        Problem::Version { setting, found } => {
            format!("{setting}: found libtorch {found}; expected {VERSION}, the version that tch is made for.")
        }
    }];
    if !matches!(problem, Problem::Missing) {
        lines.push("Correct or unset that setting. Without it, libtorch is set up by one command:".into());
    }
    match project() {
        Some(project) if project.join("xtask/Cargo.toml").exists() => lines.push("    cargo xtask setup".into()),
        project => {
            let folder = project.map_or_else(|| "PROJECT".to_owned(), |path| path.display().to_string());
            lines.push(format!("    mm setup --project {folder}              (with the program mm)"));
            lines.push(format!("    cargo xtask setup --project {folder}     (in a clone of mm)"));
        }
    }
    lines.push(format!(
        "Or set LIBTORCH to an unpacked libtorch {VERSION}, or LIBTORCH_USE_PYTORCH=1 to use Python's torch {VERSION}, or \
         build with the feature `download-libtorch`."
    ));
    lines
}

/// The folder of the project that is built, where its target folder lies in it:
/// `PROJECT/target/debug/build/mm-libtorch-HASH/out`.
fn project() -> Option<PathBuf> {
    let out = PathBuf::from(env::var_os("OUT_DIR")?);
    out.ancestors().skip(5).find(|folder| folder.join("Cargo.toml").exists()).map(Path::to_owned)
}
