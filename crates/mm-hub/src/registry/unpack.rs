//! The packages, files and archives of an item are fetched and unpacked.

use super::item::{Item, Source, UrlFile};
use crate::{
    archive::{MAX_BYTES, gunzip, untar, unzip},
    error::{At, Context, Result, bail},
    fetch::{Remote, download},
    hub::Hub,
    packages::{from_apt, from_npm, from_pip, unpack_deb},
    paths::{create_dir, is_below},
};
use std::{
    fs::File,
    path::{Path, PathBuf},
};

/// Downloads what an item consists of into `downloads`, and unpacks it into `folder`.
pub(super) fn fetch_into(item: &Item, downloads: &Path, folder: &Path) -> Result<()> {
    match &item.from {
        Source::Apt(packages) => {
            let unpacked = unpacked(downloads)?;
            for package in packages {
                unpack_deb(&from_apt(package, downloads)?, &unpacked)?;
            }
            relocate(&unpacked, &unpacked, folder, item)?;
        }
        Source::Npm(packages) => {
            for package in packages {
                let remote = from_npm(package)?;
                let file = downloads.join(format!("{}.tgz", package.replace('/', "-")));
                download(&remote, &file)?;
                // npm's archives have one folder, `package`, which is replaced by the name of the package.
                untar(gunzip(&file)?, &file, folder, MAX_BYTES, |inside| {
                    target(item, &format!("{package}/{}", inside.split_once('/')?.1))
                })?;
            }
        }
        Source::Pip(packages) => {
            for package in packages {
                let remote = from_pip(package)?;
                let file = downloads.join(remote.url.rsplit('/').next().unwrap_or("package"));
                download(&remote, &file)?;
                if file.extension().is_some_and(|e| e == "gz") {
                    let inside = |path: &str| target(item, path.split_once('/')?.1);
                    untar(gunzip(&file)?, &file, folder, MAX_BYTES, inside)?;
                } else {
                    unzip_into(item, &file, downloads, folder)?;
                }
            }
        }
        Source::Url(files) => files.iter().try_for_each(|file| fetch_url(item, file, downloads, folder))?,
        Source::Hub(name) => {
            let snapshot = Hub::from_environment()?.pull(name)?;
            link_files(&snapshot, &snapshot, folder, item)?;
        }
    }
    Ok(())
}

/// The path of a file of an archive in the item's folder; `None` for files that are not kept.
fn target(item: &Item, inside: &str) -> Option<PathBuf> {
    let inside = inside.strip_prefix("./").unwrap_or(inside);
    // A path that leads out of the folder is passed on as it is, so that the archive is refused.
    if !is_below(Path::new(inside)) {
        return Some(PathBuf::from(inside));
    }
    if !item.keep.is_empty() && !item.keep.iter().any(|k| inside.starts_with(k.as_str())) {
        return None;
    }
    let rest: PathBuf = Path::new(inside).components().skip(item.strip).collect();
    (!rest.as_os_str().is_empty()).then_some(rest)
}

/// Downloads a file of an address, and unpacks it where it is an archive.
fn fetch_url(item: &Item, file: &UrlFile, downloads: &Path, folder: &Path) -> Result<()> {
    let (name, checksum) = (file.file_name(), ("sha256", file.sha256.to_lowercase()));
    let path = downloads.join(name);
    download(&Remote { size: file.size, ..Remote::public(file.url.clone(), checksum) }, &path)?;
    let keep = |path: &str| target(item, path);
    match Format::of(name).filter(|_| file.unpack) {
        Some(Format::TarGz) => untar(gunzip(&path)?, &path, folder, MAX_BYTES, keep),
        Some(Format::Tar) => untar(File::open(&path).at(&path, "read")?, &path, folder, MAX_BYTES, keep),
        Some(Format::Zip) => unzip_into(item, &path, downloads, folder),
        Some(Format::Gz) => {
            let target = folder.join(&name[..name.len() - ".gz".len()]);
            let mut out = File::create(&target).at(&target, "written")?;
            let damaged = || format!("{} cannot be unpacked; it may be damaged", path.display());
            let written = std::io::copy(&mut std::io::Read::take(gunzip(&path)?, MAX_BYTES), &mut out);
            if written.with_context(damaged)? == MAX_BYTES {
                bail!("{name} unpacks to more bytes than are allowed; it may be damaged");
            }
            Ok(())
        }
        Some(Format::Other(ending)) => bail!(
            "{name}: archives that end in {ending} are not unpacked; expected .tar, .tar.gz, .tgz, .zip or .gz, or `unpack = \
             false` to keep the file as it is"
        ),
        None => {
            let target = folder.join(name);
            // The download stays until all of the item is there.
            let linked = std::fs::hard_link(&path, &target).or_else(|_| std::fs::copy(&path, &target).map(drop));
            linked.at(&target, "written")
        }
    }
}

/// What a file is packed with, by its name.
enum Format {
    Tar,
    TarGz,
    Zip,
    Gz,
    /// Known, and not unpacked here.
    Other(&'static str),
}

impl Format {
    fn of(name: &str) -> Option<Self> {
        let name = name.to_lowercase();
        let ends = |endings: &[&'static str]| endings.iter().copied().find(|e| name.ends_with(e));
        if ends(&[".tar.gz", ".tgz"]).is_some() {
            Some(Self::TarGz)
        } else if ends(&[".tar"]).is_some() {
            Some(Self::Tar)
        } else if ends(&[".zip", ".whl"]).is_some() {
            Some(Self::Zip)
        } else if let Some(ending) = ends(&[".tar.xz", ".tar.bz2", ".tar.zst", ".7z", ".rar", ".xz", ".bz2"]) {
            Some(Self::Other(ending))
        } else {
            ends(&[".gz"]).map(|_| Self::Gz)
        }
    }
}

/// An empty folder among the downloads; no download begins with a dot.
fn unpacked(downloads: &Path) -> Result<PathBuf> {
    let folder = downloads.join(".unpacked");
    let _ = std::fs::remove_dir_all(&folder);
    create_dir(&folder)?;
    Ok(folder)
}

/// Unpacks the files of a zip that the item keeps.
fn unzip_into(item: &Item, file: &Path, downloads: &Path, folder: &Path) -> Result<()> {
    let unpacked = unpacked(downloads)?;
    unzip(file, &unpacked, MAX_BYTES, |inside| target(item, inside).is_some())?;
    relocate(&unpacked, &unpacked, folder, item)
}

/// Calls `place` with each file or link below `from`, and its path in the item's folder `to`, whose folder exists.
fn place_files(
    top: &Path,
    from: &Path,
    to: &Path,
    item: &Item,
    place: &dyn Fn(&Path, &Path) -> std::io::Result<()>,
) -> Result<()> {
    for entry in std::fs::read_dir(from).at(from, "read")? {
        let path = entry.at(from, "read")?.path();
        // What a link leads to is not ours.
        if path.is_dir() && !path.is_symlink() {
            place_files(top, &path, to, item, place)?;
        } else if let Some(inside) = path.strip_prefix(top).ok().and_then(|p| target(item, &p.to_string_lossy())) {
            let path_in_folder = to.join(inside);
            if let Some(parent) = path_in_folder.parent() {
                create_dir(parent)?;
            }
            place(&path, &path_in_folder).at(&path_in_folder, "written")?;
        }
    }
    Ok(())
}

/// Moves the files below `from` to their places in `to`.
pub(super) fn relocate(top: &Path, from: &Path, to: &Path, item: &Item) -> Result<()> {
    place_files(top, from, to, item, &|path, target| std::fs::rename(path, target))
}

/// Links the files of the hub's cache from `to`: they are large, and other programs share them.
fn link_files(top: &Path, from: &Path, to: &Path, item: &Item) -> Result<()> {
    place_files(top, from, to, item, &|path, target| {
        #[cfg(unix)]
        return std::os::unix::fs::symlink(std::fs::canonicalize(path)?, target);
        #[cfg(not(unix))]
        return std::fs::copy(path, target).map(drop);
    })
}
