//! What a program or library links, and where it looks for it.

use anyhow::{Context, Result, bail};
use elf::{ElfBytes, abi, endian::AnyEndian};
use std::{collections::BTreeMap, ops::Range};

/// The dynamic section of a program or library.
#[derive(Debug)]
pub struct Dynamic {
    /// The libraries that it links, by name.
    pub needed: Vec<String>,
    /// Where it looks for them first.
    pub runpath: Option<String>,
    /// The bytes of that text in the file.
    place: Option<Range<usize>>,
    /// The highest version that it requires of each set of symbols, such as `GLIBC`.
    pub versions: BTreeMap<String, Vec<u32>>,
}

/// Reads the dynamic section of a file.
pub fn read(bytes: &[u8]) -> Result<Dynamic> {
    let elf = ElfBytes::<AnyEndian>::minimal_parse(bytes).context("not an ELF file")?;
    let strings = elf.section_header_by_name(".dynstr")?.context("it has no section .dynstr")?;
    let (start, size) = (usize::try_from(strings.sh_offset)?, usize::try_from(strings.sh_size)?);
    let table = bytes.get(start..start.saturating_add(size)).context("its section .dynstr is cut short")?;
    let text = |at: u64| -> Result<&str> {
        let rest = usize::try_from(at).ok().and_then(|at| table.get(at..)).context("a name outside of .dynstr")?;
        let end = rest.iter().position(|b| *b == 0).context("a name without an end")?;
        Ok(std::str::from_utf8(&rest[..end])?)
    };
    let mut found = Dynamic { needed: Vec::new(), runpath: None, place: None, versions: BTreeMap::new() };
    for entry in elf.dynamic()?.context("it is linked statically")? {
        match entry.d_tag {
            abi::DT_NEEDED => found.needed.push(text(entry.d_val())?.to_owned()),
            abi::DT_RUNPATH | abi::DT_RPATH => {
                let (path, at) = (text(entry.d_val())?, start + usize::try_from(entry.d_val())?);
                found.place = Some(at..at + path.len());
                found.runpath = Some(path.to_owned());
            }
            _ => {}
        }
    }
    found.versions = versions(&elf)?;
    Ok(found)
}

fn versions(elf: &ElfBytes<'_, AnyEndian>) -> Result<BTreeMap<String, Vec<u32>>> {
    let mut versions: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    let (Some((symbols, _)), Some(table)) = (elf.dynamic_symbol_table()?, elf.symbol_version_table()?) else {
        return Ok(versions);
    };
    for index in 0..symbols.len() {
        let Some(required) = table.get_requirement(index)? else { continue };
        let Some((set, version)) = required.name.split_once('_') else { continue };
        let Some(version) = version.split('.').map(|part| part.parse().ok()).collect::<Option<Vec<u32>>>() else {
            continue;
        };
        let highest = versions.entry(set.to_owned()).or_default();
        *highest = highest.clone().max(version);
    }
    Ok(versions)
}

/// Replaces where a program looks for its libraries. The file keeps its size, so the new text must not be longer.
pub fn set_runpath(bytes: &mut [u8], runpath: &str) -> Result<()> {
    let found = read(bytes)?;
    let place = found.place.context("it has no rpath; build it after `cargo xtask setup`")?;
    if runpath.len() > place.len() {
        bail!(
            "its rpath {} is shorter than {runpath}; set up with a libtorch in a folder with a longer name",
            found.runpath.unwrap_or_default()
        );
    }
    let text = &mut bytes[place];
    text.fill(0);
    text[..runpath.len()].copy_from_slice(runpath.as_bytes());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_program_is_read_and_still_runs_with_another_runpath() {
        let own = std::env::current_exe().unwrap();
        let mut bytes = std::fs::read(&own).unwrap();
        let before = read(&bytes).unwrap();
        assert!(before.needed.iter().any(|name| name == "libc.so.6"), "{before:?}");
        assert!(before.versions["GLIBC"] >= vec![2, 17], "{before:?}");
        if before.runpath.is_none() {
            eprintln!("skipped: built without an rpath");
            return;
        }
        set_runpath(&mut bytes, "$ORIGIN/../lib").unwrap();
        let after = read(&bytes).unwrap();
        assert_eq!((after.runpath.as_deref(), &after.needed), (Some("$ORIGIN/../lib"), &before.needed));
        assert!(set_runpath(&mut bytes, "$ORIGIN/../library").unwrap_err().to_string().contains("is shorter"));
        let folder = tempfile::tempdir().unwrap();
        let copy = folder.path().join("program");
        std::fs::write(&copy, bytes).unwrap();
        std::fs::set_permissions(&copy, std::fs::metadata(&own).unwrap().permissions()).unwrap();
        assert!(std::process::Command::new(copy).arg("--list").output().unwrap().status.success());
    }

    #[test]
    fn other_files_are_refused() {
        for bytes in [&b""[..], b"#!/bin/sh\n", b"\x7fELF", &[0x7f; 4096]] {
            assert!(read(bytes).is_err());
        }
    }
}
