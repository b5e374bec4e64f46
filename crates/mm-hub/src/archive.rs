//! Unpacking of downloaded archives. Nothing is written outside of the folder, and not without bound.

use crate::{
    error::{At, Context, Error, Result},
    paths::{create_dir, is_below},
    report::note,
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

/// What is left out of an archive, reported once.
#[derive(Default)]
struct LeftOut {
    count: usize,
    first: String,
}

impl LeftOut {
    fn add(&mut self, inside: &str) {
        if self.count == 0 {
            inside.clone_into(&mut self.first);
        }
        self.count += 1;
    }

    fn report(&self, archive: &Path) {
        if self.count > 0 {
            let (file, first) = (archive.display(), &self.first);
            note(format!("{file}: links and devices in it were left out ({}, the first `{first}`)", self.count));
        }
    }
}

/// Reader of a .gz file, which may consist of several parts.
pub fn gunzip(file: &Path) -> Result<impl Read> {
    Ok(flate2::read::MultiGzDecoder::new(File::open(file).at(file, "read")?))
}

/// Unpacks the files of a tar to their targets in `folder`, up to `max_bytes` in all; `file` names the archive in errors.
/// Second names of a file (hard links) become copies; symbolic links and devices are left out.
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
    let mut left_out = LeftOut::default();
    let mut archive = tar::Archive::new(tar);
    let incomplete = || format!("{} is not a complete archive", file.display());
    for entry in archive.entries().with_context(incomplete)? {
        let mut entry = entry.with_context(incomplete)?;
        let kind = entry.header().entry_type();
        if kind.is_dir() || kind.is_pax_global_extensions() {
            continue;
        }
        let destination = |inside: &str| match target(inside) {
            Some(path) if !is_below(&path) => Err(outside(file, inside)),
            path => Ok(path),
        };
        let inside = entry.path().with_context(incomplete)?.to_string_lossy().into_owned();
        let Some(path) = destination(&inside)? else { continue };
        let path = folder.join(path);
        if kind.is_file() || kind.is_contiguous() || kind.is_gnu_sparse() {
            write_entry(&mut entry, &path, &mut left, file)?;
            continue;
        }
        // The file of a hard link came before it.
        let original = entry.link_name().with_context(incomplete)?.filter(|_| kind.is_hard_link());
        let original = original.map(|name| destination(&name.to_string_lossy())).transpose()?.flatten();
        match original.map(|inside| folder.join(inside)).filter(|original| original.is_file()) {
            Some(original) => {
                let mut open = File::open(&original).at(&original, "read")?;
                write_entry(&mut open, &path, &mut left, file)?;
            }
            None => left_out.add(&inside),
        }
    }
    left_out.report(file);
    Ok(())
}

/// Unpacks the entries of a zip for which `keep` returns true, up to `max_bytes` in all; symbolic links are left out.
///
/// # Errors
/// When the archive is damaged, unpacks to more bytes, or has a path that leads out of the folder.
pub fn unzip(file: &Path, folder: &Path, max_bytes: u64, keep: impl Fn(&str) -> bool) -> Result<()> {
    let (mut left, mut left_out) = (max_bytes, LeftOut::default());
    let incomplete = || format!("{} is not a complete zip archive", file.display());
    let mut archive = zip::ZipArchive::new(File::open(file).at(file, "read")?).with_context(incomplete)?;
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).with_context(incomplete)?;
        let Some(inside) = entry.enclosed_name() else { return Err(outside(file, entry.name())) };
        if entry.is_dir() || !keep(&inside.to_string_lossy()) {
            continue;
        }
        if entry.is_symlink() {
            left_out.add(&inside.to_string_lossy());
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
    left_out.report(file);
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

    #[test]
    fn second_names_of_a_file_are_copied_and_links_and_devices_left_out() {
        let mut builder = tar::Builder::new(Vec::new());
        let mut add = |kind: tar::EntryType, name: &str, link: &str, contents: &[u8]| {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(kind);
            header.set_size(contents.len() as u64);
            if link.is_empty() {
                builder.append_data(&mut header, name, contents).unwrap();
            } else {
                builder.append_link(&mut header, name, link).unwrap();
            }
        };
        add(tar::EntryType::Regular, "d/é ü.txt", "", b"text");
        add(tar::EntryType::Link, "d/second.txt", "d/é ü.txt", b"");
        add(tar::EntryType::Symlink, "d/escape", "/etc", b"");
        add(tar::EntryType::Regular, "d/escape/passwd", "", b"mine");
        add(tar::EntryType::Char, "d/device", "", b"");
        add(tar::EntryType::Link, "d/other", "d/none", b"");
        let bytes = builder.into_inner().unwrap();
        let top = tempfile::tempdir().unwrap();
        let unpack = |max| untar(&bytes[..], Path::new("a.tar"), top.path(), max, |i| Some(PathBuf::from(i)));
        unpack(100).unwrap();
        let read = |name: &str| std::fs::read(top.path().join("d").join(name)).unwrap();
        assert_eq!(
            (read("é ü.txt"), read("second.txt"), read("escape/passwd")),
            (b"text".into(), b"text".into(), b"mine".into())
        );
        assert_eq!(std::fs::read_dir(top.path().join("d")).unwrap().count(), 3);
        // Copies count as bytes too.
        assert!(unpack(7).unwrap_err().to_string().contains("unpacks to more bytes"));
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Link);
        header.set_size(0);
        builder.append_link(&mut header, "passwd", "../../etc/passwd").unwrap();
        let bytes = builder.into_inner().unwrap();
        let linked = untar(&bytes[..], Path::new("a.tar"), top.path(), 100, |i| Some(PathBuf::from(i)));
        assert!(linked.unwrap_err().to_string().contains("`../../etc/passwd` in it leads out"));
    }

    #[test]
    fn a_gz_of_several_parts_is_read_to_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let part = |text: &[u8]| {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(text).unwrap();
            encoder.finish().unwrap()
        };
        let file = folder.path().join("a.gz");
        std::fs::write(&file, [part(b"one,"), part(b"two")].concat()).unwrap();
        let mut text = String::new();
        gunzip(&file).unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "one,two");
    }
}
