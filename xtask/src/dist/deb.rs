//! A Debian package: an `ar` archive of a version, the control files and the files.

use super::tree::{Content, Entry, size, write_tar};
use anyhow::{Context, Result, bail};
use flate2::{Compression, write::GzEncoder};
use std::{
    collections::BTreeMap,
    fs::File,
    io::{Seek, SeekFrom, Write},
    path::Path,
};

/// What the control file says.
pub struct Control {
    pub version: String,
    /// The highest versions of system libraries' symbols that the files require.
    pub versions: BTreeMap<String, Vec<u32>>,
}

/// The version of GCC that each version of libstdc++'s symbols came with, which is that of Debian's package.
const LIBSTDCXX: &[(u32, &str)] =
    &[(25, "8"), (26, "9"), (28, "10"), (29, "11"), (30, "12"), (31, "13"), (32, "13.1"), (33, "14"), (34, "15")];

impl Control {
    fn depends(&self) -> String {
        let dotted = |v: &[u32]| v.iter().map(u32::to_string).collect::<Vec<_>>().join(".");
        let libc = self.versions.get("GLIBC").map_or_else(String::new, |v| format!(" (>= {})", dotted(v)));
        let last = self.versions.get("GLIBCXX").and_then(|v| v.get(2).copied());
        let gcc = last.and_then(|last| LIBSTDCXX.iter().find(|(symbols, _)| *symbols >= last));
        let libstdcxx = gcc.map_or_else(String::new, |(_, gcc)| format!(" (>= {gcc})"));
        format!("libc6{libc}, libgcc-s1, libstdc++6{libstdcxx}")
    }

    fn text(&self, entries: &[Entry]) -> String {
        format!(
            "Package: mm\nVersion: {}\nArchitecture: amd64\nMaintainer: {}\nInstalled-Size: {}\n\
             Depends: {}\nRecommends: ca-certificates\nSuggests: ffmpeg, python3-pip\nSection: science\nPriority: optional\n\
             Description: multimodal learning from raw files to embeddings, training and search\n \
             mm takes text, images, audio and video from raw files to embeddings, alignment,\n \
             fusion, reasoning, training, evaluation and search. libtorch is included.\n",
            self.version,
            maintainer(),
            size(entries).div_ceil(1024),
            self.depends()
        )
    }
}

/// Who answers for the package: DEBFULLNAME and DEBEMAIL, as Debian's tools read them.
pub fn maintainer() -> String {
    let variable = |name: &str, default: &str| {
        std::env::var(name)
            .ok()
            .filter(|v| !v.trim().is_empty() && !v.contains('\n'))
            .unwrap_or_else(|| default.to_owned())
    };
    format!("{} <{}>", variable("DEBFULLNAME", "mm contributors"), variable("DEBEMAIL", "mm@localhost"))
}

/// Writes a package.
pub fn write(control: &Control, entries: &[Entry], time: u64, file: &Path) -> Result<()> {
    let text = control.text(entries).into_bytes();
    let control = Entry { path: "control".into(), content: Content::Bytes(text), is_executable: false };
    let control = write_tar(&[control], time, GzEncoder::new(Vec::new(), Compression::default()))?.finish()?;
    let mut out = File::create(file).with_context(|| file.display().to_string())?;
    out.write_all(b"!<arch>\n")?;
    member(&mut out, "debian-binary", time, 4)?;
    out.write_all(b"2.0\n")?;
    member(&mut out, "control.tar.gz", time, control.len() as u64)?;
    out.write_all(&control)?;
    pad(&mut out, control.len() as u64)?;
    // The size of the last member is known once it is written.
    let start = out.stream_position()?;
    member(&mut out, "data.tar.gz", time, 0)?;
    write_tar(entries, time, GzEncoder::new(&mut out, Compression::default()))?.finish()?;
    let length = out.stream_position()? - start - 60;
    pad(&mut out, length)?;
    out.seek(SeekFrom::Start(start))?;
    member(&mut out, "data.tar.gz", time, length)?;
    out.sync_all()?;
    Ok(())
}

/// The header of a member: name, time, owner, group, mode, size, each in a column of its own.
fn member(out: &mut impl Write, name: &str, time: u64, length: u64) -> Result<()> {
    let header = format!("{name:<16}{time:<12}{:<6}{:<6}{:<8}{length:<10}`\n", 0, 0, 100_644);
    if header.len() != 60 {
        bail!("{name} has {length} bytes, more than a Debian package can hold");
    }
    Ok(out.write_all(header.as_bytes())?)
}

/// Members begin at even positions.
fn pad(out: &mut impl Write, length: u64) -> Result<()> {
    if length % 2 == 1 {
        out.write_all(b"\n")?;
    }
    Ok(())
}

/// The members of an `ar` archive.
#[cfg(test)]
pub fn members(mut archive: impl std::io::Read) -> Result<Vec<(String, Vec<u8>)>> {
    let mut bytes = Vec::new();
    archive.read_to_end(&mut bytes)?;
    let mut rest = bytes.strip_prefix(b"!<arch>\n").context("not an archive")?;
    let mut members = Vec::new();
    while rest.len() >= 60 {
        let (header, after) = rest.split_at(60);
        let column = |range: std::ops::Range<usize>| String::from_utf8_lossy(&header[range]).trim().to_owned();
        let length: usize = column(48..58).parse()?;
        members.push((column(0..16), after.get(..length).context("cut short")?.to_vec()));
        rest = after.get(length + length % 2..).context("cut short")?;
    }
    Ok(members)
}
