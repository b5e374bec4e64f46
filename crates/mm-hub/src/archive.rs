//! Unpacking of downloaded archives. Nothing is written outside of the folder, and not without bound.

use crate::{
    error::{At, Context, Error, Result},
    paths::{create_dir, is_below},
};
use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

/// Maximum number of bytes that an archive may unpack to.
pub const MAX_BYTES: u64 = 32 << 30;

/// Copies an entry to a file; `left` is the number of bytes that the archive may still unpack to.
fn write_entry(entry: &mut impl Read, target: &Path, left: &mut u64, archive: &Path) -> Result<()> {
    if let Some(parent) = target.parent() {
        create_dir(parent)?;
    }
    let mut out = File::create(target).at(target, "written")?;
    let damaged = || format!("{} cannot be unpacked; it may be damaged, or the disk full", archive.display());
    let written = std::io::copy(&mut entry.take(*left + 1), &mut out).with_context(damaged)?;
    *left = left.checked_sub(written).ok_or_else(|| Error::Archive {
        file: archive.to_owned(),
        reason: "it unpacks to more bytes than are allowed; it may be damaged".into(),
    })?;
    Ok(())
}

/// The error of an entry whose path leads out of the folder.
fn outside(archive: &Path, inside: &str) -> Error {
    let reason = format!("the path `{inside}` in it leads out of the folder; do not use this archive");
    Error::Archive { file: archive.to_owned(), reason }
}

/// Reader of a .gz file.
pub fn gunzip(file: &Path) -> Result<impl Read> {
    Ok(flate2::read::GzDecoder::new(File::open(file).at(file, "read")?))
}

/// Unpacks the files of a tar to their targets in `folder`, up to `max_bytes` in all; `file` names the archive in errors.
/// Folders, links and devices in it are left out.
///
/// # Errors
/// When the archive is damaged, unpacks to more bytes, or has a path that leads out of the folder.
pub fn untar(
    tar: impl Read,
    file: &Path,
    folder: &Path,
    max_bytes: u64,
    target: impl Fn(&str) -> Option<PathBuf>,
) -> Result<()> {
    let mut left = max_bytes;
    let mut archive = tar::Archive::new(tar);
    let incomplete = || format!("{} is not a complete archive", file.display());
    for entry in archive.entries().with_context(incomplete)? {
        let mut entry = entry.with_context(incomplete)?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let inside = entry.path().with_context(incomplete)?.to_string_lossy().into_owned();
        let Some(path) = target(&inside) else { continue };
        if !is_below(&path) {
            return Err(outside(file, &inside));
        }
        write_entry(&mut entry, &folder.join(path), &mut left, file)?;
    }
    Ok(())
}

/// Unpacks the entries of a zip for which `keep` returns true, up to `max_bytes` in all.
///
/// # Errors
/// When the archive is damaged, unpacks to more bytes, or has a path that leads out of the folder.
pub fn unzip(file: &Path, folder: &Path, max_bytes: u64, keep: impl Fn(&str) -> bool) -> Result<()> {
    let mut left = max_bytes;
    let incomplete = || format!("{} is not a complete zip archive", file.display());
    let mut archive = zip::ZipArchive::new(File::open(file).at(file, "read")?).with_context(incomplete)?;
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).with_context(incomplete)?;
        let Some(inside) = entry.enclosed_name() else { return Err(outside(file, entry.name())) };
        if entry.is_dir() || entry.is_symlink() || !keep(&inside.to_string_lossy()) {
            continue;
        }
        let target = folder.join(&inside);
        write_entry(&mut entry, &target, &mut left, file)?;
        #[cfg(unix)]
        if let Some(mode) = entry.unix_mode() {
            use std::os::unix::fs::PermissionsExt;
            let permissions = std::fs::Permissions::from_mode(mode & 0o777 | 0o600);
            std::fs::set_permissions(&target, permissions).at(&target, "written")?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn tar_of(name: &[u8], contents: &[u8]) -> Vec<u8> {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name);
        header.set_size(contents.len() as u64);
        header.set_cksum();
        let mut builder = tar::Builder::new(Vec::new());
        builder.append(&header, contents).unwrap();
        builder.into_inner().unwrap()
    }

    #[test]
    fn nothing_is_written_outside_of_the_folder_or_beyond_the_limit() {
        let top = tempfile::tempdir().unwrap();
        let folder = top.path().join("in");
        let file = Path::new("a.tar");
        let unpack = |bytes: &[u8], max| untar(bytes, file, &folder, max, |inside| Some(PathBuf::from(inside)));
        for name in ["../out.txt", "/tmp/mm-out.txt", "a/../../out.txt"] {
            let text = unpack(&tar_of(name.as_bytes(), b"text"), 100).unwrap_err().to_string();
            assert!(text.contains("a.tar: the path") && text.contains("leads out of the folder"), "{text}");
            assert!(std::fs::read_dir(top.path()).unwrap().next().is_none(), "{name}");
        }
        unpack(&tar_of(b"a/b.txt", b"text"), 100).unwrap();
        assert_eq!(std::fs::read(folder.join("a/b.txt")).unwrap(), b"text");
        let text = unpack(&tar_of(b"c.txt", &[0; 101]), 100).unwrap_err().to_string();
        assert!(text.contains("a.tar: it unpacks to more bytes"), "{text}");
        assert_eq!(std::fs::metadata(folder.join("c.txt")).unwrap().len(), 101);

        let file = top.path().join("a.zip");
        let mut writer = zip::ZipWriter::new(File::create(&file).unwrap());
        let options = zip::write::SimpleFileOptions::default().unix_permissions(0o4711);
        writer.start_file("bomb.txt", options).unwrap();
        writer.write_all(&vec![0; 1 << 20]).unwrap();
        writer.finish().unwrap();
        assert!(unzip(&file, &folder, 1 << 16, |_| true).unwrap_err().to_string().contains("unpacks to more bytes"));
        unzip(&file, &folder, 1 << 20, |_| true).unwrap();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = std::fs::metadata(folder.join("bomb.txt")).unwrap().permissions().mode();
            assert_eq!(mode & 0o7777, 0o711, "without the set-user-id bit");
        }
    }
}
