//! Unpacking of downloaded archives. Nothing is written outside of the folder, and not without bound.

use anyhow::{Context, Result, bail};
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
        std::fs::create_dir_all(parent)?;
    }
    let mut out = File::create(target).with_context(|| format!("{} cannot be written", target.display()))?;
    let written = std::io::copy(&mut entry.take(*left + 1), &mut out)?;
    *left = left
        .checked_sub(written)
        .with_context(|| format!("{} unpacks to more bytes than are allowed; it may be damaged", archive.display()))?;
    Ok(())
}

/// Reader of a .gz file.
pub fn gunzip(file: &Path) -> Result<impl Read> {
    Ok(flate2::read::GzDecoder::new(File::open(file)?))
}

/// Unpacks the files of a tar to their targets in `folder`, up to `max_bytes` in all; `file` names the archive in errors.
pub fn untar(
    tar: impl Read,
    file: &Path,
    folder: &Path,
    max_bytes: u64,
    target: impl Fn(&str) -> Option<PathBuf>,
) -> Result<()> {
    let mut left = max_bytes;
    let mut archive = tar::Archive::new(tar);
    for entry in archive.entries()? {
        let mut entry = entry.with_context(|| format!("{} is not a complete archive", file.display()))?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let inside = entry.path()?.to_string_lossy().into_owned();
        let is_inside = |t: &PathBuf| t.components().all(|c| matches!(c, std::path::Component::Normal(_)));
        let Some(path) = target(&inside).filter(is_inside).map(|t| folder.join(t)) else { continue };
        write_entry(&mut entry, &path, &mut left, file)?;
    }
    Ok(())
}

/// Unpacks the entries of a zip for which `keep` returns true, up to `max_bytes` in all.
pub fn unzip(file: &Path, folder: &Path, max_bytes: u64, keep: impl Fn(&str) -> bool) -> Result<()> {
    let mut left = max_bytes;
    let mut archive = zip::ZipArchive::new(File::open(file)?)
        .with_context(|| format!("{} is not a complete wheel", file.display()))?;
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index)?;
        let Some(inside) = entry.enclosed_name() else {
            bail!("{}: the path {} leads out of the folder", file.display(), entry.name())
        };
        if entry.is_dir() || !keep(&inside.to_string_lossy()) {
            continue;
        }
        let target = folder.join(&inside);
        write_entry(&mut entry, &target, &mut left, file)?;
        #[cfg(unix)]
        if let Some(mode) = entry.unix_mode() {
            use std::os::unix::fs::PermissionsExt;
            std::fs::set_permissions(&target, std::fs::Permissions::from_mode(mode & 0o777 | 0o600))?;
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
            unpack(&tar_of(name.as_bytes(), b"text"), 100).unwrap();
            assert!(std::fs::read_dir(top.path()).unwrap().next().is_none(), "{name}");
        }
        unpack(&tar_of(b"a/b.txt", b"text"), 100).unwrap();
        assert_eq!(std::fs::read(folder.join("a/b.txt")).unwrap(), b"text");
        let text = unpack(&tar_of(b"c.txt", &[0; 101]), 100).unwrap_err().to_string();
        assert!(text.contains("a.tar unpacks to more bytes"), "{text}");
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
