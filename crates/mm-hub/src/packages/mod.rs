//! Files of packages: where pip and npm download them from, and Debian packages by apt.

mod index;

use crate::{
    error::{At, Context, Error, Result, bail},
    fetch::{Remote, base64_to_hex, is_offline},
    paths::{create_dir, program},
    report::note,
};
use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// An error where a package would have to be looked up and `MM_OFFLINE=1` forbids it.
pub(crate) fn check_online(package: &str) -> Result<()> {
    if is_offline() { Err(Error::Offline { what: package.to_owned() }) } else { Ok(()) }
}

/// A variable of the environment, or what stands for it.
fn variable(name: &str, default: &str) -> String {
    std::env::var(name).ok().filter(|v| !v.is_empty()).unwrap_or_else(|| default.to_owned())
}

/// The standard output of a client that looks up `package`; `hint` is added to errors.
fn query(mut command: Command, package: &str, hint: &str) -> Result<String> {
    check_online(package)?;
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("{name} cannot be run"))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        // pip warns of each attempt at length, and says in the end what is wrong.
        let is_telling = |line: &&str| !line.trim().is_empty() && !line.starts_with("WARNING: Retrying");
        let last: Vec<&str> = text.lines().filter(is_telling).rev().take(4).collect();
        let last: Vec<&str> = last.into_iter().rev().collect();
        bail!("{name} could not find {package}: {}\nCheck the network connection. {hint}", last.join(" / "));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The Python interpreter on the `PATH`.
pub fn python() -> Result<PathBuf> {
    program(&["python3", "python"]).context("no Python was found; install it (Debian: apt-get install python3-pip)")
}

/// The wheel (or source archive) that pip would download for a package; without pip, what the index offers.
pub(crate) fn from_pip(package: &str) -> Result<Remote> {
    let Ok(python) = python() else {
        check_online(package)?;
        return index::from_pypi(package, &variable("PIP_INDEX_URL", "https://pypi.org/simple"));
    };
    let mut command = Command::new(&python);
    command.args([
        "-m",
        "pip",
        "install",
        "--dry-run",
        "--quiet",
        "--ignore-installed",
        "--no-deps",
        "--disable-pip-version-check",
        "--report",
        "-",
        package,
    ]);
    // Debian's pip refuses to install into the system; nothing is installed here.
    command.env("PIP_BREAK_SYSTEM_PACKAGES", "1");
    let found = query(
        command,
        package,
        "Check that pip 22.2 or newer is installed (`python3 -m pip --version`; Debian: apt-get install python3-pip).",
    );
    // Debian's python3 comes without pip.
    let text = match found {
        Err(error) if error.to_string().contains("No module named pip") => {
            return index::from_pypi(package, &variable("PIP_INDEX_URL", "https://pypi.org/simple"));
        }
        other => other?,
    };
    let report: serde_json::Value =
        serde_json::from_str(&text).context("pip's report cannot be parsed; pip 22.2 or newer is required")?;
    let info = &report["install"][0]["download_info"];
    let url = info["url"].as_str().context("pip's report names no file")?.to_owned();
    let hash = info["archive_info"]["hashes"]["sha256"].as_str().map(ToOwned::to_owned);
    let hash = hash.or_else(|| {
        info["archive_info"]["hash"].as_str().and_then(|h| h.strip_prefix("sha256=")).map(ToOwned::to_owned)
    });
    Ok(Remote::public(url, ("sha256", hash.context("pip's report has no checksum")?)))
}

/// The archive of an npm package, looked up by npm where it is installed.
pub(crate) fn from_npm(package: &str) -> Result<Remote> {
    let Some(npm) = program(&["npm"]) else {
        check_online(package)?;
        return index::from_npm_registry(package, &variable("npm_config_registry", "https://registry.npmjs.org"));
    };
    let mut command = Command::new(npm);
    command.args(["view", package, "dist.tarball", "dist.integrity", "--json"]);
    let text = query(command, package, "Check that `npm ping` succeeds.")?;
    let answer: serde_json::Value = serde_json::from_str(&text).context("npm's output cannot be parsed")?;
    let answer = answer.as_array().and_then(|a| a.last()).cloned().unwrap_or(answer);
    let url = answer["dist.tarball"].as_str().context("npm states no archive")?.to_owned();
    let integrity =
        answer["dist.integrity"].as_str().and_then(|i| i.strip_prefix("sha512-")).context("npm states no sha512")?;
    Ok(Remote::public(url, ("sha512", base64_to_hex(integrity)?)))
}

/// Downloads a Debian package by apt with its own lists and cache, which needs no root.
pub(crate) fn from_apt(package: &str, folder: &Path) -> Result<PathBuf> {
    let apt = program(&["apt-get"]).context(
        "no apt-get was found, which this Debian package needs; the data set emoji needs only npm, easy-vqa only pip",
    )?;
    check_online(package)?;
    let (state, cache) = (folder.join("apt/state"), folder.join("apt/cache"));
    for path in [state.join("lists/partial"), cache.join("archives/partial")] {
        create_dir(&path)?;
    }
    let status = state.join("status");
    std::fs::write(&status, "").at(&status, "written")?;
    let settings = [
        format!("Dir::State={}", state.display()),
        format!("Dir::State::status={}", state.join("status").display()),
        format!("Dir::Cache={}", cache.display()),
        "APT::Sandbox::User=".to_owned(),
        "Debug::NoLocking=1".to_owned(),
        "Acquire::Languages=none".to_owned(),
    ];
    let run = |arguments: &[&str]| -> Result<()> {
        let mut command = Command::new(&apt);
        for setting in &settings {
            command.args(["-o", setting]);
        }
        command.args(arguments).current_dir(folder).stdout(std::process::Stdio::null());
        let status = command.status().at(&apt, "run")?;
        if !status.success() {
            bail!(
                "apt-get {} failed; check the network connection and the Debian mirrors in /etc/apt",
                arguments.join(" ")
            );
        }
        Ok(())
    };
    let find_deb = |folder: &Path| -> Option<PathBuf> {
        let entries = std::fs::read_dir(folder).ok()?;
        let mut found: Vec<PathBuf> = entries
            .filter_map(|e| e.ok().map(|e| e.path()))
            .filter(|p| p.extension().is_some_and(|e| e == "deb"))
            .filter(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with(&format!("{package}_"))))
            .collect();
        found.sort();
        found.pop()
    };
    if let Some(found) = find_deb(folder) {
        return Ok(found);
    }
    note("apt-get update …");
    run(&["update", "-qq"])?;
    note(format!("apt-get download {package} …"));
    // apt verifies the package against its signed lists, and resumes downloads.
    run(&["download", package])?;
    find_deb(folder).with_context(|| format!("apt-get did not download {package}"))
}

/// Unpacks a Debian package into a folder.
pub(crate) fn unpack_deb(deb: &Path, folder: &Path) -> Result<()> {
    let dpkg = program(&["dpkg-deb"])
        .context("no dpkg-deb was found, which unpacks Debian packages (in Debian's package dpkg)")?;
    let status = Command::new(&dpkg).arg("-x").arg(deb).arg(folder).status().at(&dpkg, "run")?;
    if !status.success() {
        // The file may be truncated; the next run downloads it again.
        let _ = std::fs::remove_file(deb);
        bail!("{} could not be unpacked; run the command again to download it again", deb.display());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_checksums_are_decoded() {
        assert_eq!(base64_to_hex("SGVsbG8=").unwrap(), "48656c6c6f");
        assert!(base64_to_hex("*").is_err());
    }
}
