//! The licences of everything inside a distribution.

use crate::cargo::cargo;
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

/// A crate that the program is made of.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Package {
    name: String,
    version: String,
    license: String,
    repository: String,
    folder: PathBuf,
}

/// The crates that `mm-cli` links, with their licences and the texts of these, as one document.
pub fn of_crates() -> Result<String> {
    let output = cargo()
        .args(["metadata", "--format-version", "1", "--locked", "--filter-platform", "x86_64-unknown-linux-gnu"])
        .output()?;
    if !output.status.success() {
        bail!("cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    document(&packages(&serde_json::from_slice(&output.stdout)?, "mm-cli")?)
}

/// The packages that one links, itself included, sorted: no build scripts, no macros, no tests.
fn packages(metadata: &Value, root: &str) -> Result<Vec<Package>> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let nodes: BTreeMap<String, Value> =
        list(&metadata["resolve"]["nodes"]).into_iter().map(|node| (text(&node["id"]), node)).collect();
    let all = list(&metadata["packages"]);
    let start = all.iter().find(|p| p["name"] == root).with_context(|| format!("no package {root}"))?;
    let (mut found, mut queue) = (BTreeSet::new(), vec![text(&start["id"])]);
    while let Some(id) = queue.pop() {
        if !found.insert(id.clone()) {
            continue;
        }
        for dependency in list(&nodes.get(&id).context("a package without a node")?["deps"]) {
            if list(&dependency["dep_kinds"]).iter().any(|kind| kind["kind"].is_null()) {
                queue.push(text(&dependency["pkg"]));
            }
        }
    }
    let is_macro = |p: &Value| list(&p["targets"]).iter().any(|t| list(&t["kind"]).iter().any(|k| k == "proc-macro"));
    let chosen = all.iter().filter(|p| found.contains(&text(&p["id"])) && !is_macro(p));
    let mut packages: Vec<Package> = chosen
        .map(|p| Package {
            name: text(&p["name"]),
            version: text(&p["version"]),
            license: text(&p["license"]),
            repository: text(&p["repository"]),
            folder: Path::new(&text(&p["manifest_path"])).parent().unwrap_or(Path::new("")).to_owned(),
        })
        .collect();
    packages.sort();
    Ok(packages)
}

/// The text of the Mozilla Public License, which the crates under it state without including it.
const MPL: &str = include_str!("MPL-2.0.txt");

/// The list of packages, then each text once with the packages that it belongs to.
fn document(packages: &[Package]) -> Result<String> {
    let mut out = "mm is made of these crates, each under the licence that it states.\n\n".to_owned();
    let mut texts: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for package in packages {
        let title = format!("{} {}", package.name, package.version);
        let found = license_files_below(&package.folder, 5)?;
        if package.license.is_empty() && found.is_empty() {
            bail!("{title} states no licence; a distribution must not include it");
        }
        let license = if package.license.is_empty() { "see its text below" } else { &package.license };
        out += &format!("{title}: {license}  {}\n", package.repository);
        let mut add = |text: &str| {
            let titles = texts.entry(text.trim().to_owned()).or_default();
            if titles.last() != Some(&title) {
                titles.push(title.clone());
            }
        };
        if found.is_empty() && package.license.contains("MPL-2.0") {
            add(MPL);
        }
        for file in found {
            let text = std::fs::read(&file).with_context(|| file.display().to_string())?;
            add(&String::from_utf8_lossy(&text));
        }
    }
    for (text, titles) in texts {
        out += &format!("\n{}\n{}\n\n{text}\n", "=".repeat(80), titles.join(", "));
    }
    Ok(out)
}

/// Those of a folder and its subfolders: of what a crate includes, such as the sources of zstd.
fn license_files_below(folder: &Path, depth: usize) -> Result<Vec<PathBuf>> {
    // What is not compiled in.
    const OTHER: [&str; 6] = ["benches", "doc", "docs", "examples", "scripts", "tests"];
    let mut found = license_files(folder)?;
    let entries = std::fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let mut folders: Vec<PathBuf> = entries.filter_map(|e| e.ok().map(|e| e.path())).filter(|p| p.is_dir()).collect();
    folders.sort();
    for below in folders.iter().filter(|_| depth > 0) {
        let name = below.file_name().unwrap_or_default().to_string_lossy();
        // Nor is the target folder of a crate of this workspace, or another crate in its folder.
        if !OTHER.contains(&&*name) && name != "target" && !below.join("Cargo.toml").exists() && !below.is_symlink() {
            found.extend(license_files_below(below, depth - 1)?);
        }
    }
    Ok(found)
}

/// The files of a folder whose names say that they hold a licence or a notice.
fn license_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let starts = ["license", "licence", "copying", "notice", "unlicense", "copyright"];
    let is_license = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        path.is_file()
            && path.extension().is_none_or(|e| e != "rs")
            && starts.iter().any(|start| name.starts_with(start))
    };
    let entries = std::fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let mut files: Vec<PathBuf> = entries.filter_map(|e| e.ok().map(|e| e.path())).filter(is_license).collect();
    files.sort();
    Ok(files)
}

/// The licence files of the wheels that libtorch was unpacked from, which lie next to it, as one document.
pub fn of_libtorch(wheels: &Path) -> Result<String> {
    let names = ["torch-", "nvidia_cuda_runtime-", "nvidia_cuda_cupti-"];
    let mut out = String::new();
    for name in names {
        let entries = std::fs::read_dir(wheels).with_context(|| wheels.display().to_string())?;
        let is_wheel = |path: &PathBuf| {
            let file = path.file_name().unwrap_or_default().to_string_lossy();
            file.starts_with(name) && file.ends_with(".dist-info")
        };
        let folder = entries.filter_map(|e| e.ok().map(|e| e.path())).find(is_wheel);
        let mut files = Vec::new();
        if let Some(folder) = &folder {
            files.extend(license_files(folder)?);
            if folder.join("licenses").is_dir() {
                files.extend(license_files(&folder.join("licenses"))?);
            }
        }
        if files.is_empty() {
            bail!(
                "{} holds no licence of {}*: run `cargo xtask setup --force` once, which unpacks them, or name another folder with \
                 --licenses",
                wheels.display(),
                name
            );
        }
        for file in files {
            let text = std::fs::read(&file).with_context(|| file.display().to_string())?;
            let title = file.strip_prefix(wheels).unwrap_or(&file).display().to_string();
            out += &format!("{}\n{title}\n\n{}\n\n", "=".repeat(80), String::from_utf8_lossy(&text).trim());
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn linked_packages_are_listed_and_each_text_comes_once() {
        let top = tempfile::tempdir().unwrap();
        let package = |name: &str, license: Option<&str>, kind: &str| {
            let folder = top.path().join(name);
            std::fs::create_dir_all(&folder).unwrap();
            json!({ "id": name, "name": name, "version": "1.0.0", "license": license, "repository": "https://r/",
                    "manifest_path": folder.join("Cargo.toml"), "targets": [{ "kind": [kind] }] })
        };
        let node = |id: &str, deps: &[(&str, Option<&str>)]| {
            let deps: Vec<Value> =
                deps.iter().map(|(id, kind)| json!({ "pkg": id, "dep_kinds": [{ "kind": kind }] })).collect();
            json!({ "id": id, "deps": deps })
        };
        let all = ["mm-cli", "a", "b", "m", "t"];
        let mut packages_json: Vec<Value> = all.iter().map(|n| package(n, Some("MIT"), "lib")).collect();
        packages_json[3] = package("m", Some("MIT"), "proc-macro");
        let dependencies = [("a", None), ("m", None), ("t", Some("dev"))];
        let nodes =
            [node("mm-cli", &dependencies), node("a", &[("b", None)]), node("b", &[]), node("m", &[]), node("t", &[])];
        let metadata = json!({ "packages": packages_json, "resolve": { "nodes": nodes } });
        for (name, file) in [("a", "LICENSE-MIT"), ("b", "LICENSE")] {
            std::fs::write(top.path().join(name).join(file), "Permission is hereby granted\n").unwrap();
        }
        for (folder, text) in [("zstd", "Redistribution and use"), ("tests/fonts", "of fonts"), ("src", "no licence")] {
            std::fs::create_dir_all(top.path().join("b").join(folder)).unwrap();
            let name = if folder == "src" { "license.rs" } else { "COPYING" };
            std::fs::write(top.path().join("b").join(folder).join(name), text).unwrap();
        }
        let found = packages(&metadata, "mm-cli").unwrap();
        assert_eq!(found.iter().map(|p| p.name.as_str()).collect::<Vec<_>>(), ["a", "b", "mm-cli"]);
        let text = document(&found).unwrap();
        assert!(text.contains("a 1.0.0: MIT  https://r/\nb 1.0.0: MIT"), "{text}");
        assert_eq!(text.matches("Permission is hereby granted").count(), 1, "{text}");
        assert!(text.contains("\na 1.0.0, b 1.0.0\n\nPermission"), "{text}");
        assert!(text.contains("\nb 1.0.0\n\nRedistribution and use"), "{text}");
        assert!(!text.contains("of fonts") && !text.contains("no licence"), "{text}");
        let mozilla = Package { license: "MPL-2.0".into(), ..packages(&metadata, "mm-cli").unwrap().remove(2) };
        assert!(document(&[mozilla]).unwrap().contains("\nmm-cli 1.0.0\n\nMozilla Public License Version 2.0"));
        let unknown = Package { license: String::new(), ..packages(&metadata, "mm-cli").unwrap().remove(2) };
        assert!(document(&[unknown]).unwrap_err().to_string().contains("mm-cli 1.0.0 states no licence"));
    }

    #[test]
    fn libtorch_without_its_licences_is_not_distributed() {
        let top = tempfile::tempdir().unwrap();
        assert!(of_libtorch(top.path()).unwrap_err().to_string().contains("setup --force"));
        for name in ["torch-2.11.0", "nvidia_cuda_runtime-13.0", "nvidia_cuda_cupti-13.0"] {
            let folder = top.path().join(format!("{name}.dist-info/licenses"));
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join("LICENSE"), name).unwrap();
        }
        let text = of_libtorch(top.path()).unwrap();
        assert!(text.contains("torch-2.11.0.dist-info/licenses/LICENSE\n\ntorch-2.11.0"), "{text}");
    }
}
