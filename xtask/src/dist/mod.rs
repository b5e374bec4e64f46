//! `cargo xtask dist`: mm with the libraries of libtorch that it links, as an archive that runs from any folder and as a
//! Debian package.

mod changelog;
mod deb;
mod dynamic;
mod licenses;
mod tree;

use crate::{cargo, paths::root, setup};
use anyhow::{Context, Result, bail};
use deb::Control;
use flate2::{Compression, write::GzEncoder};
use mm_hub::libtorch;
use std::{
    collections::BTreeMap,
    fs::File,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};
use tree::{Content, Entry, Parts};

#[derive(clap::Args)]
pub struct Arguments {
    /// The folder for the archive and the package [default: target/dist of this workspace].
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// The program to distribute [default: a release build of this workspace].
    #[arg(long, value_name = "FILE")]
    mm: Option<PathBuf>,
    /// The folder with the .dist-info folders of the wheels that libtorch comes from, for their licences [default: the one
    /// that libtorch lies in].
    #[arg(long, value_name = "DIR")]
    licenses: Option<PathBuf>,
}

/// Where the program of the archive looks for its libraries.
const RUNPATH: &str = "$ORIGIN/../lib";

/// Where that of the package does: the dynamic linker needs no /proc to find it.
const PACKAGE_RUNPATH: &str = "/usr/lib/mm/lib";

/// Builds the archive and the package.
pub fn run(arguments: &Arguments) -> Result<()> {
    if !cfg!(all(target_os = "linux", target_arch = "x86_64")) {
        bail!("distributions are made on Linux on x86_64");
    }
    setup::run(false, false)?;
    let mm = match &arguments.mm {
        Some(mm) => mm.clone(),
        None => cargo::built_mm()?,
    };
    let request = libtorch::Request { settings: Some(setup::cargo_settings()), ..libtorch::Request::default() };
    let libtorch = libtorch::find_or_fetch(&request)?.folder;
    let wheels = arguments.licenses.clone().or_else(|| libtorch.parent().map(Path::to_owned));
    let (mut parts, versions) = collect(&mm, &libtorch, &wheels.context("libtorch lies in no folder")?)?;
    let version = env!("CARGO_PKG_VERSION");
    let out = arguments.out.clone().unwrap_or_else(|| root().join("target/dist"));
    std::fs::create_dir_all(&out).with_context(|| out.display().to_string())?;
    let time = source_date()?;

    let name = format!("mm-{version}-x86_64-linux");
    let archive = out.join(format!("{name}.tar.gz"));
    let program = std::mem::take(&mut parts.mm);
    parts.mm = with_runpath(&program, RUNPATH).with_context(|| mm.display().to_string())?;
    write_atomic(&archive, |file| {
        let entries = parts.entries(&name, &format!("{name}/share"));
        let gz = GzEncoder::new(File::create(file)?, Compression::default());
        Ok(tree::write_tar(&entries, time, gz)?.finish()?.sync_all()?)
    })?;
    let package = out.join(format!("mm_{version}_amd64.deb"));
    let control = Control { version: version.to_owned(), versions: versions.clone() };
    parts.mm = with_runpath(&program, PACKAGE_RUNPATH).with_context(|| mm.display().to_string())?;
    let entries = package_entries(&parts, &control, time)?;
    write_atomic(&package, |file| deb::write(&control, &entries, time, file))?;

    for file in [&archive, &package] {
        println!("{} ({:.1} MB)", file.display(), std::fs::metadata(file)?.len() as f64 / 1e6);
    }
    println!("{:.1} MB unpacked", tree::size(&parts.entries("", "share")) as f64 / 1e6);
    for (set, version) in versions.iter().filter(|(set, _)| ["GLIBC", "GLIBCXX"].contains(&set.as_str())) {
        let version: Vec<String> = version.iter().map(u32::to_string).collect();
        println!("requires {set} {}", version.join("."));
    }
    Ok(())
}

/// The files of the Debian package: the program with its libraries in a folder of its own, a link to it on the PATH; manual
/// pages compressed and a change log, as Debian's policy has it.
fn package_entries(parts: &Parts, control: &Control, time: u64) -> Result<Vec<Entry>> {
    let mut entries = parts.entries("usr/lib/mm", "usr/share");
    for entry in entries.iter_mut().filter(|entry| entry.path.starts_with("usr/share/man/")) {
        if let Content::Bytes(bytes) = &mut entry.content {
            *bytes = compressed(bytes)?;
            entry.path += ".gz";
        }
    }
    let mut add = |path: &str, content| entries.push(Entry { path: path.into(), content, is_executable: false });
    let changes = compressed(changelog::text(&control.version, time).as_bytes())?;
    add("usr/share/doc/mm/changelog.gz", Content::Bytes(changes));
    add("usr/bin/mm", Content::Link("../lib/mm/bin/mm".into()));
    Ok(entries)
}

/// A program that looks for its libraries in another folder.
fn with_runpath(program: &[u8], runpath: &str) -> Result<Vec<u8>> {
    let mut program = program.to_vec();
    dynamic::set_runpath(&mut program, runpath)?;
    Ok(program)
}

/// The same bytes for the same text, since no time and no name is part of them.
fn compressed(text: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(text)?;
    Ok(encoder.finish()?)
}

/// Seconds since 1970 that every file gets: SOURCE_DATE_EPOCH, else now.
fn source_date() -> Result<u64> {
    match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(text) => text.parse().with_context(|| format!("SOURCE_DATE_EPOCH={text}: expected seconds since 1970")),
        Err(_) => Ok(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs()),
    }
}

/// Writes a file next to its place, then renames it.
fn write_atomic(file: &Path, write: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let partial = PathBuf::from(format!("{}.partial", file.display()));
    let written = write(&partial).with_context(|| format!("{} cannot be written", file.display()));
    if written.is_err() {
        let _ = std::fs::remove_file(&partial);
    }
    written?;
    std::fs::rename(&partial, file).with_context(|| file.display().to_string())
}

/// The versions of symbols that files require of the system.
type Versions = BTreeMap<String, Vec<u32>>;

/// Everything that is distributed; the program as it was built.
fn collect(mm: &Path, libtorch: &Path, wheels: &Path) -> Result<(Parts, Versions)> {
    let program = std::fs::read(mm).with_context(|| format!("--mm {}", mm.display()))?;
    let dynamic = dynamic::read(&program).with_context(|| mm.display().to_string())?;
    let (libraries, versions) = libraries(&dynamic, libtorch)?;
    let read = |name: &str| std::fs::read(root().join(name)).with_context(|| name.to_owned());
    let documents = vec![
        ("README.md".into(), read("README.md")?),
        ("copyright".into(), [copyright().as_bytes(), &read("LICENSE-MIT")?].concat()),
        // What `mm run --help` refers to.
        ("pipeline.toml".into(), read("docs/pipelines/template.toml")?),
        ("LICENSE-MIT".into(), read("LICENSE-MIT")?),
        ("LICENSE-APACHE".into(), read("LICENSE-APACHE")?),
        ("licenses-crates.txt".into(), licenses::of_crates()?.into_bytes()),
        ("licenses-libtorch.txt".into(), licenses::of_libtorch(wheels)?.into_bytes()),
    ];
    let parts = Parts { mm: program, libraries, manual: manual(mm)?, completions: completions(mm)?, documents };
    Ok((parts, versions))
}

fn copyright() -> String {
    "mm: MIT OR Apache-2.0 (LICENSE-MIT, LICENSE-APACHE).\n\
     The crates that the program is made of: licenses-crates.txt.\n\
     libtorch and the libraries that it comes with (lib/): licenses-libtorch.txt.\n\n\
     LICENSE-APACHE is what Debian has as /usr/share/common-licenses/Apache-2.0. LICENSE-MIT says:\n\n"
        .to_owned()
}

/// The libraries of libtorch that a program links, directly or not, by the names by which they are linked; and the
/// versions that all of them require of the system's libraries.
fn libraries(program: &dynamic::Dynamic, libtorch: &Path) -> Result<(Vec<(String, PathBuf)>, Versions)> {
    let mut folders = vec![libtorch.join("lib")];
    // The wheels of libtorch's own dependencies are unpacked next to it.
    let wheels = libtorch.with_file_name("nvidia");
    let entries = std::fs::read_dir(&wheels).into_iter().flatten();
    folders.extend(entries.filter_map(|e| e.ok().map(|e| e.path().join("lib"))));
    let (mut found, mut queue) = (BTreeMap::new(), program.needed.clone());
    let mut versions = program.versions.clone();
    while let Some(name) = queue.pop() {
        let Some(file) = folders.iter().map(|folder| folder.join(&name)).find(|file| file.is_file()) else {
            // One of the system's.
            continue;
        };
        if found.contains_key(&name) {
            continue;
        }
        let bytes = std::fs::read(&file).with_context(|| file.display().to_string())?;
        let dynamic = dynamic::read(&bytes).with_context(|| file.display().to_string())?;
        for (set, version) in dynamic.versions {
            let highest = versions.entry(set).or_default();
            *highest = highest.clone().max(version);
        }
        queue.extend(dynamic.needed);
        found.insert(name, file);
    }
    if !found.contains_key("libtorch_cpu.so") {
        bail!("the program does not link libtorch_cpu.so of {}", libtorch.display());
    }
    Ok((found.into_iter().collect(), versions))
}

/// The standard output of mm.
fn output(mm: &Path, arguments: &[&str]) -> Result<Vec<u8>> {
    let output = Command::new(mm).args(arguments).output().with_context(|| mm.display().to_string())?;
    if !output.status.success() {
        bail!("mm {} failed: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(output.stdout)
}

fn manual(mm: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    let folder = std::env::temp_dir().join(format!("mm-dist-{}", std::process::id()));
    let written = output(mm, &["man", "--out", &folder.display().to_string()]);
    let read = || -> Result<Vec<(String, Vec<u8>)>> {
        let mut pages = Vec::new();
        for entry in std::fs::read_dir(&folder)? {
            let entry = entry?;
            pages.push((entry.file_name().to_string_lossy().into_owned(), std::fs::read(entry.path())?));
        }
        pages.sort();
        Ok(pages)
    };
    let pages = written.and_then(|_| read());
    let _ = std::fs::remove_dir_all(&folder);
    pages.context("the manual pages")
}

fn completions(mm: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    let places = [
        ("bash", "bash-completion/completions/mm"),
        ("zsh", "zsh/vendor-completions/_mm"),
        ("fish", "fish/vendor_completions.d/mm.fish"),
    ];
    places.iter().map(|(shell, path)| Ok(((*path).to_owned(), output(mm, &["completions", shell])?))).collect()
}

#[cfg(test)]
mod tests;
