//! The files of a distribution, and where they go.

use anyhow::{Context, Result};
use std::{
    collections::BTreeSet,
    io::Write,
    path::{Path, PathBuf},
};

/// What a file consists of.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    Bytes(Vec<u8>),
    /// A file of this machine, which may be large.
    File(PathBuf),
    /// A symbolic link to this path.
    Link(String),
}

/// A file of a distribution.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Its path, without a slash at the start.
    pub path: String,
    pub content: Content,
    pub is_executable: bool,
}

impl Entry {
    fn new(path: String, content: Content) -> Self {
        Self { path, content, is_executable: false }
    }

    fn size(&self) -> u64 {
        match &self.content {
            Content::Bytes(bytes) => bytes.len() as u64,
            Content::File(file) => std::fs::metadata(file).map_or(0, |m| m.len()),
            Content::Link(_) => 0,
        }
    }
}

/// What is distributed.
#[derive(Debug, Default)]
pub struct Parts {
    /// The program, which looks for its libraries in `lib` next to its own folder.
    pub mm: Vec<u8>,
    /// The shared libraries, each under the name by which it is linked.
    pub libraries: Vec<(String, PathBuf)>,
    /// Manual pages by file name.
    pub manual: Vec<(String, Vec<u8>)>,
    /// Completions by their path below `share`.
    pub completions: Vec<(String, Vec<u8>)>,
    /// Documents by file name: licences above all.
    pub documents: Vec<(String, Vec<u8>)>,
}

impl Parts {
    /// The files, with the program and its libraries below `program` and everything else below `share`, such as
    /// `usr/lib/mm` and `usr/share`.
    pub fn entries(&self, program: &str, share: &str) -> Vec<Entry> {
        let bytes = |path: String, bytes: &Vec<u8>| Entry::new(path, Content::Bytes(bytes.clone()));
        let mut entries = vec![Entry { is_executable: true, ..bytes(format!("{program}/bin/mm"), &self.mm) }];
        let library =
            |(name, file): &(String, PathBuf)| Entry::new(format!("{program}/lib/{name}"), Content::File(file.clone()));
        entries.extend(self.libraries.iter().map(library));
        for (folder, files) in [("man/man1/", &self.manual), ("", &self.completions), ("doc/mm/", &self.documents)] {
            entries.extend(files.iter().map(|(name, text)| bytes(format!("{share}/{folder}{name}"), text)));
        }
        entries
    }
}

/// The number of bytes of all files together.
pub fn size(entries: &[Entry]) -> u64 {
    entries.iter().map(Entry::size).sum()
}

/// Writes the files as a tar, folders before what they hold, everything owned by root.
pub fn write_tar<W: Write>(entries: &[Entry], time: u64, out: W) -> Result<W> {
    let mut builder = tar::Builder::new(out);
    let mut folders = BTreeSet::new();
    for entry in entries {
        let path = Path::new(&entry.path);
        let mut above: Vec<&Path> = path.ancestors().skip(1).filter(|p| !p.as_os_str().is_empty()).collect();
        above.reverse();
        for folder in above {
            if folders.insert(folder.to_owned()) {
                let mut header = header(tar::EntryType::Directory, 0o755, time);
                header.set_size(0);
                builder.append_data(&mut header, format!("{}/", folder.display()), std::io::empty())?;
            }
        }
        append(&mut builder, entry, time).with_context(|| entry.path.clone())?;
    }
    Ok(builder.into_inner()?)
}

fn header(kind: tar::EntryType, mode: u32, time: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_mtime(time);
    header.set_uid(0);
    header.set_gid(0);
    // Both names fit into their fields.
    let _ = header.set_username("root");
    let _ = header.set_groupname("root");
    header
}

fn append<W: Write>(builder: &mut tar::Builder<W>, entry: &Entry, time: u64) -> Result<()> {
    let mode = if entry.is_executable { 0o755 } else { 0o644 };
    let mut header = header(tar::EntryType::Regular, mode, time);
    header.set_size(entry.size());
    match &entry.content {
        Content::Bytes(bytes) => builder.append_data(&mut header, &entry.path, bytes.as_slice())?,
        Content::File(file) => {
            let open = std::fs::File::open(file).with_context(|| file.display().to_string())?;
            builder.append_data(&mut header, &entry.path, open)?;
        }
        Content::Link(target) => {
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_mode(0o777);
            builder.append_link(&mut header, &entry.path, target)?;
        }
    }
    Ok(())
}
