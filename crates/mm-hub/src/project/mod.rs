//! The set-up of a project that depends on one of mm's crates: `.cargo/config.toml` says where libtorch is, and how its
//! programs and tests find it at run time, so that no environment variable has to be set.

mod config;

use crate::{
    error::{Error, Result},
    libtorch::{self, Libtorch, Request, VERSION, find_or_fetch, version_of},
    paths::{absolute, write_file},
};
use config::{Flags, flags_of, host, libtorch_of, merge};
use std::{
    fs::File,
    path::{Path, PathBuf},
};

/// How a project was set up.
#[derive(Debug)]
pub struct SetUp {
    /// The project's `.cargo/config.toml`.
    pub config: PathBuf,
    /// The libtorch that it names.
    pub libtorch: Libtorch,
    /// Whether the file was changed; it is not where an earlier set-up wrote the same.
    pub changed: bool,
    /// What keeps the settings from taking effect, each with a remedy.
    pub warnings: Vec<String>,
}

impl std::fmt::Display for SetUp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let what = if self.changed { "written" } else { "nothing changed" };
        write!(f, "{}: {what}; libtorch is {}", self.config.display(), self.libtorch.folder.display())
    }
}

/// Finds or fetches libtorch, and writes the settings of a project: what its `.cargo/config.toml` already says stays.
///
/// # Errors
/// When the folder holds no `Cargo.toml` or cannot be written, when its settings or those of a folder above it name a
/// libtorch elsewhere, or when there is no libtorch of the right version and none can be fetched. Nothing in the project
/// has been changed then.
pub fn set_up(folder: &Path, request: &Request) -> Result<SetUp> {
    let folder = absolute(folder)?;
    let config = check(&folder)?;
    let text = read(&config)?.unwrap_or_default();
    // Before anything is downloaded.
    let planned = planned_folder(request)?;
    let inherited = inherited(&folder)?;
    merge_into(&config, &text, &planned, &inherited)?;
    let libtorch = find_or_fetch(request)?;
    let merged = merge_into(&config, &text, &libtorch.folder, &inherited)?;
    let changed = merged != text;
    if changed {
        write_file(&config, merged.as_bytes())?;
    }
    let warnings = environment_warnings().chain(workspace_warning(&folder)).collect();
    Ok(SetUp { config, libtorch, changed, warnings })
}

fn refused(path: &Path, reason: impl Into<String>) -> Error {
    Error::Project { path: path.to_owned(), reason: reason.into() }
}

/// The path of the settings of a project that can be set up.
fn check(folder: &Path) -> Result<PathBuf> {
    if !folder.is_dir() {
        return Err(refused(folder, "no such folder; expected that of a Cargo project"));
    }
    if !folder.join("Cargo.toml").is_file() {
        return Err(refused(folder, "no Cargo.toml in it; make a project with `cargo new`, or name the folder of one"));
    }
    let settings = folder.join(".cargo");
    let legacy = settings.join("config");
    if legacy.is_file() {
        let text = "cargo reads this file and no config.toml next to it; rename it to config.toml and set up again";
        return Err(refused(&legacy, text));
    }
    if settings.exists() && !settings.is_dir() {
        return Err(refused(&settings, "found a file, expected the folder of cargo's settings"));
    }
    let place = if settings.is_dir() { settings.as_path() } else { folder };
    let probe = place.join(format!(".mm-setup-{}", std::process::id()));
    if let Err(error) = File::create(&probe) {
        return Err(refused(folder, format!("it cannot be written ({error}); check that it is not read-only")));
    }
    let _ = std::fs::remove_file(&probe);
    let config = settings.join("config.toml");
    if std::fs::metadata(&config).is_ok_and(|m| m.permissions().readonly()) {
        return Err(refused(&config, "it is read-only; make it writable and set up again"));
    }
    Ok(config)
}

/// The text of a file, if there is one.
fn read(file: &Path) -> Result<Option<String>> {
    match std::fs::read_to_string(file) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(refused(file, format!("it cannot be read: {error}"))),
    }
}

/// The folder of the libtorch that will be used, before it is there.
fn planned_folder(request: &Request) -> Result<PathBuf> {
    if request.cuda {
        return Ok(find_or_fetch(request)?.folder);
    }
    let found = libtorch::from_environment(request.settings.as_deref())?;
    Ok(found.map_or_else(|| libtorch::downloads().join(format!("{VERSION}-cpu/torch")), |found| found.folder))
}

/// What cargo reads from the folders above a project.
#[derive(Default)]
struct Inherited {
    /// The folder of libtorch that one of them names, and its file.
    libtorch: Option<(PathBuf, PathBuf)>,
    flags: Flags,
}

fn inherited(folder: &Path) -> Result<Inherited> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cargo")));
    let above = folder.ancestors().skip(1).map(|ancestor| ancestor.join(".cargo"));
    let mut found = Inherited::default();
    let is_set = |name: &str| std::env::var_os(name).is_some_and(|v| !v.is_empty());
    let of_host = format!("CARGO_TARGET_{}_RUSTFLAGS", host().to_uppercase().replace('-', "_"));
    found.flags = Flags { target: is_set(&of_host), build: is_set("CARGO_BUILD_RUSTFLAGS") };
    for settings in above.chain(home) {
        for name in ["config.toml", "config"] {
            let file = settings.join(name);
            let Some(text) = read(&file).ok().flatten() else { continue };
            let value: toml::Table = toml::from_str(&text).map_err(|e| refused(&file, e.to_string()))?;
            let value = toml::Value::Table(value);
            if let Some(folder) = libtorch_of(&value, &settings) {
                found.libtorch.get_or_insert((folder, file));
            }
            found.flags = found.flags.or(flags_of(&value));
        }
    }
    Ok(found)
}

/// The settings with libtorch put in; an error where they name another one, which is the user's.
fn merge_into(config: &Path, text: &str, libtorch: &Path, inherited: &Inherited) -> Result<String> {
    let value: toml::Table = toml::from_str(text).map_err(|e| refused(config, e.to_string()))?;
    let value = toml::Value::Table(value);
    let settings = config.parent().unwrap_or(Path::new(""));
    let own = libtorch_of(&value, settings).map(|folder| (folder, config.to_owned()));
    for (folder, file) in own.iter().chain(&inherited.libtorch) {
        // One that an earlier set-up fetched may be replaced by that of another version.
        let is_ours = folder.starts_with(libtorch::downloads()) && file == config;
        if folder != libtorch && !is_ours {
            let version = version_of(folder).map_or_else(|| "no libtorch".to_owned(), |v| format!("libtorch {v}"));
            let text = format!(
                "it sets LIBTORCH to {} ({version}), and mm needs libtorch {VERSION}, which would be {}. Remove that line and set up \
                 again; to use a libtorch {VERSION} of your own, set up with LIBTORCH={} in the environment",
                folder.display(),
                libtorch.display(),
                folder.display()
            );
            return Err(refused(file, text));
        }
    }
    if libtorch.to_str().is_none_or(|path| path.contains(',')) {
        let text = "its path has a comma or is not UTF-8, so it cannot be passed to the linker; move it (the cache: XDG_CACHE_HOME)";
        return Err(refused(libtorch, text));
    }
    let flags = inherited.flags.or(flags_of(&value));
    merge(text, libtorch, &libtorch::downloads(), flags).map_err(|reason| refused(config, reason))
}

/// Variables of the environment that replace what the settings say.
fn environment_warnings() -> impl Iterator<Item = String> {
    let is_set = |name: &&str| std::env::var(name).is_ok_and(|v| !v.is_empty() && !v.contains("-rpath"));
    let names = ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS"].into_iter().filter(is_set);
    names.map(|name| {
        format!(
            "{name} is set: cargo uses it instead of the flags in its settings, so programs will not find libtorch. Unset it"
        )
    })
}

/// Says that the settings of a member do not hold for the workspace: cargo reads those of the folder that it is run in.
fn workspace_warning(folder: &Path) -> Option<String> {
    let manifest = |folder: &Path| -> Option<toml::Table> {
        toml::from_str(&std::fs::read_to_string(folder.join("Cargo.toml")).ok()?).ok()
    };
    let workspace = |folder: &Path| manifest(folder)?.get("workspace")?.as_table().cloned();
    if workspace(folder).is_some() {
        return None;
    }
    let (root, table) = folder.ancestors().skip(1).find_map(|above| Some((above, workspace(above)?)))?;
    let excluded = table.get("exclude").and_then(toml::Value::as_array).into_iter().flatten();
    if excluded.filter_map(toml::Value::as_str).any(|path| folder.starts_with(root.join(path))) {
        return None;
    }
    Some(format!(
        "{} lies in the workspace {}: cargo reads these settings only when it is run in the former; to run it in the latter, \
         set up that folder",
        folder.display(),
        root.display()
    ))
}

#[cfg(test)]
mod tests;
