//! `.cargo/config.toml`, changed without losing what it says.

use crate::libtorch::rpath_flag;
use cargo_platform::{Cfg, Platform};
use std::{
    env::consts::{ARCH, FAMILY, OS},
    path::{Path, PathBuf},
};
use toml_edit::{Array, DocumentMut, Item, TableLike, Value};

/// The target of the flags: every Linux.
const TARGET: &str = "cfg(target_os = \"linux\")";

/// Where settings have flags of rustc that cargo uses on this machine: those of the target, and where there are none, those
/// of `[build]`.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub(super) struct Flags {
    pub(super) target: bool,
    pub(super) build: bool,
}

impl Flags {
    /// Those of two files.
    pub(super) fn or(self, other: Self) -> Self {
        Self { target: self.target || other.target, build: self.build || other.build }
    }
}

/// Where settings have flags of rustc.
pub(super) fn flags_of(value: &toml::Value) -> Flags {
    let targets = value.get("target").and_then(toml::Value::as_table).into_iter().flatten();
    let target = targets.into_iter().any(|(name, target)| target.get("rustflags").is_some() && is_host(name));
    Flags { target, build: value.get("build").is_some_and(|build| build.get("rustflags").is_some()) }
}

/// This machine's name among rustc's targets.
pub(super) fn host() -> String {
    let env = if cfg!(target_env = "musl") { "musl" } else { "gnu" };
    format!("{ARCH}-unknown-linux-{env}")
}

/// Whether the settings of a target, a triple or `cfg(…)`, are used on this machine.
fn is_host(target: &str) -> bool {
    let pairs = [
        ("target_os", OS),
        ("target_arch", ARCH),
        ("target_family", FAMILY),
        ("target_env", if cfg!(target_env = "musl") { "musl" } else { "gnu" }),
        ("target_pointer_width", if cfg!(target_pointer_width = "64") { "64" } else { "32" }),
        ("target_endian", if cfg!(target_endian = "little") { "little" } else { "big" }),
        ("target_vendor", "unknown"),
        ("panic", "unwind"),
    ];
    let pairs = pairs.iter().map(|(name, value)| format!("{name}=\"{value}\""));
    let cfgs: Vec<Cfg> = pairs.chain([FAMILY.to_owned()]).filter_map(|text| text.parse().ok()).collect();
    target.parse::<Platform>().is_ok_and(|platform| platform.matches(&host(), &cfgs))
}

/// The folder of libtorch that settings name; `settings` is the folder that they lie in.
pub(super) fn libtorch_of(value: &toml::Value, settings: &Path) -> Option<PathBuf> {
    let entry = value.get("env")?.get("LIBTORCH")?;
    let text = entry.as_str().or_else(|| entry.get("value")?.as_str())?;
    let is_relative = entry.get("relative").and_then(toml::Value::as_bool).unwrap_or(false);
    // Relative to the folder that holds `.cargo`.
    let base = settings.parent().filter(|_| is_relative);
    Some(base.map_or_else(|| PathBuf::from(text), |base| base.join(text)))
}

/// Puts the folder of libtorch, its rpath and a short time of waiting for OpenMP's threads into the text of settings.
/// Flags for a libtorch below `downloads`, which an earlier set-up wrote, are replaced.
pub(super) fn merge(text: &str, libtorch: &Path, downloads: &Path, flags: Flags) -> Result<String, String> {
    let mut document: DocumentMut = text.parse().map_err(|e: toml_edit::TomlError| e.to_string())?;
    let is_new = document.is_empty();
    let env = table(document.as_table_mut(), "env")?;
    let shown = libtorch.display().to_string();
    match env.get_mut("LIBTORCH").and_then(Item::as_table_like_mut) {
        // One that is relative to the folder names the same.
        Some(table) if table.get("relative").and_then(Item::as_bool).unwrap_or(false) => {}
        Some(table) => set(table, "value", &shown),
        None => set(env, "LIBTORCH", &shown),
    }
    if env.get("GOMP_SPINCOUNT").is_none() && env.get("OMP_WAIT_POLICY").is_none() {
        set(env, "GOMP_SPINCOUNT", "1000");
        // An inline table holds no comments.
        let key = document.get_mut("env").and_then(Item::as_table_mut).and_then(|env| env.key_mut("GOMP_SPINCOUNT"));
        if let Some(mut key) = key {
            let text = "# libtorch's threads wait without computing, so that two programs can share the cores.\n";
            key.leaf_decor_mut().set_prefix(text);
        }
    }
    let rustc = if flags.build && !flags.target {
        table(document.as_table_mut(), "build")?
    } else {
        let targets = table(document.as_table_mut(), "target")?;
        table(targets, TARGET)?
    };
    add_flag(rustc, "rustflags", libtorch, downloads)?;
    add_flag(table(document.as_table_mut(), "build")?, "rustdocflags", libtorch, downloads)?;
    let text = document.to_string();
    Ok(if is_new { format!("{HEADER}{text}") } else { text })
}

const HEADER: &str = "# Written by `mm setup`: where libtorch is, and the rpath by which programs, tests and examples find it.\n\
                      # LIBTORCH in the environment takes precedence.\n";

/// A table of a table, which is made where it is missing.
fn table<'a>(parent: &'a mut dyn TableLike, key: &str) -> Result<&'a mut dyn TableLike, String> {
    let item = parent.entry(key).or_insert_with(|| {
        let mut table = toml_edit::Table::new();
        // `[target]` alone needs no header.
        table.set_implicit(true);
        Item::Table(table)
    });
    item.as_table_like_mut().ok_or_else(|| format!("`{key}` is not a table, as cargo expects"))
}

/// Sets a string and keeps the comments around it.
fn set(table: &mut dyn TableLike, key: &str, text: &str) {
    match table.get_mut(key).and_then(Item::as_value_mut) {
        Some(value) if value.as_str() == Some(text) => {}
        Some(value) => {
            let decor = value.decor().clone();
            *value = text.into();
            *value.decor_mut() = decor;
        }
        None => {
            table.insert(key, toml_edit::value(text));
        }
    }
}

/// Adds `-C` and the rpath to a list of flags: an array, or a string of words, which becomes one.
fn add_flag(table: &mut dyn TableLike, key: &str, libtorch: &Path, downloads: &Path) -> Result<(), String> {
    let flag = rpath_flag(libtorch);
    let old = format!("link-arg=-Wl,-rpath,{}", downloads.display());
    let item = table.entry(key).or_insert_with(|| toml_edit::value(Array::new()));
    let value = item.as_value_mut().ok_or_else(|| expected_flags(key))?;
    if let Some(text) = value.as_str() {
        *value = text.split_whitespace().collect::<Array>().into();
    }
    let array = value.as_array_mut().filter(|array| array.iter().all(Value::is_str));
    let array = array.ok_or_else(|| expected_flags(key))?;
    let is_old = |v: &Value| v.as_str().is_some_and(|word| word.starts_with(&old) && word != flag);
    // In its place, so that the comments around it stay.
    let place_of_old = |array: &Array| array.iter().position(is_old);
    while let Some(place) = place_of_old(array) {
        array.replace(place, flag.as_str());
    }
    if !array.iter().any(|v| v.as_str() == Some(&flag)) {
        array.push("-C");
        array.push(flag);
    }
    Ok(())
}

fn expected_flags(key: &str) -> String {
    format!("`{key}` is neither a string nor a list of strings, as cargo expects")
}
