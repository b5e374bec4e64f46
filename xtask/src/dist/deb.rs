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
            "Package: mm\nVersion: {}\nArchitecture: amd64\nMaintainer: {MAINTAINER}\nInstalled-Size: {}\n\
             Depends: {}\nRecommends: ca-certificates\nSuggests: ffmpeg, python3-pip\nSection: science\nPriority: optional\n\
             Description: multimodal learning from raw files to embeddings, training and search\n \
             mm takes text, images, audio and video from raw files to embeddings, alignment,\n \
             fusion, reasoning, training, evaluation and search. libtorch is included.\n",
            self.version,
            size(entries).div_ceil(1024),
            self.depends()
        )
    }
}

const MAINTAINER: &str = "mm contributors <mm@localhost>";

/// The change log that every package has.
pub fn changelog(version: &str, time: u64) -> String {
    format!(
        "mm ({version}) unstable; urgency=medium\n\n  * Built by cargo xtask dist.\n\n -- {MAINTAINER}  {}\n",
        date(time)
    )
}

/// A time in seconds since 1970 as mails have it, in UTC.
fn date(time: u64) -> String {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    let days = time / 86400;
    // The days since 1 March of the year 0, in eras of 400 years.
    let (era, day_of_era) = ((days + 719_468) / 146_097, (days + 719_468) % 146_097);
    let year = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year + year / 4 - year / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = (from_march + 2) % 12;
    let year = year + era * 400 + u64::from(month < 2);
    let (name, month) = (DAYS[(days % 7) as usize], MONTHS[month as usize]);
    let (hour, minute, second) = (time / 3600 % 24, time / 60 % 60, time % 60);
    format!("{name}, {day:02} {month} {year} {hour:02}:{minute:02}:{second:02} +0000")
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (time, expected) in [
            (0, "Thu, 01 Jan 1970 00:00:00 +0000"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 +0000"),
            (1_700_000_000, "Tue, 14 Nov 2023 22:13:20 +0000"),
            (4_107_542_399, "Sun, 28 Feb 2100 23:59:59 +0000"),
            (4_107_542_400, "Mon, 01 Mar 2100 00:00:00 +0000"),
        ] {
            assert_eq!(date(time), expected);
        }
    }
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
