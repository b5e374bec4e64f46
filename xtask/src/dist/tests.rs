//! The layout of the archive and of the package.

use super::*;
use std::io::Read;

fn parts(folder: &Path) -> Parts {
    let library = folder.join("libtorch_cpu.so");
    std::fs::write(&library, "library").unwrap();
    let text = |name: &str| (name.to_owned(), name.as_bytes().to_vec());
    Parts {
        mm: b"program".to_vec(),
        libraries: vec![("libtorch_cpu.so".into(), library)],
        manual: vec![text("mm.1")],
        completions: vec![text("bash-completion/completions/mm")],
        documents: vec![text("copyright")],
    }
}

/// Path, mode, owner, time, and text or target of a link of each entry of a tar.
fn listing(tar: &[u8]) -> Vec<(String, u32, u64, u64, String)> {
    let mut archive = tar::Archive::new(tar);
    let read = |entry: std::io::Result<tar::Entry<'_, &[u8]>>| {
        let mut entry = entry.unwrap();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        let mut text = String::new();
        if flate2::read::GzDecoder::new(bytes.as_slice()).read_to_string(&mut text).is_err() {
            text = String::from_utf8(bytes).unwrap();
        }
        if let Some(target) = entry.link_name().unwrap() {
            text = target.display().to_string();
        }
        let (header, path) = (entry.header(), entry.path().unwrap().display().to_string());
        (path, header.mode().unwrap(), header.uid().unwrap(), header.mtime().unwrap(), text)
    };
    archive.entries().unwrap().map(read).collect()
}

#[test]
fn the_archive_holds_the_program_its_libraries_and_everything_to_read() {
    let folder = tempfile::tempdir().unwrap();
    let parts = parts(folder.path());
    let tar = tree::write_tar(&parts.entries("mm-1", "mm-1/share"), 1_700_000_000, Vec::new()).unwrap();
    let found = listing(&tar);
    let files: Vec<(&str, u32, &str)> = found
        .iter()
        .filter(|(path, ..)| !path.ends_with('/'))
        .map(|(p, mode, _, _, text)| (p.as_str(), *mode, text.as_str()))
        .collect();
    let expected = [
        ("mm-1/bin/mm", 0o755, "program"),
        ("mm-1/lib/libtorch_cpu.so", 0o644, "library"),
        ("mm-1/share/man/man1/mm.1", 0o644, "mm.1"),
        ("mm-1/share/bash-completion/completions/mm", 0o644, "bash-completion/completions/mm"),
        ("mm-1/share/doc/mm/copyright", 0o644, "copyright"),
    ];
    assert_eq!(files, expected);
    assert!(found.iter().all(|(_, _, owner, time, _)| (*owner, *time) == (0, 1_700_000_000)));
    // Each folder comes once, before what it holds.
    for (n, (path, ..)) in found.iter().enumerate() {
        let parent = Path::new(path).parent().map(|p| format!("{}/", p.display())).filter(|p| p != "/");
        let place = parent.as_ref().map(|parent| found.iter().position(|(other, ..)| other == parent));
        assert!(place.is_none_or(|place| place.is_some_and(|place| place < n)), "{path}");
        assert_eq!(found.iter().filter(|(other, ..)| other == path).count(), 1, "{path}");
    }
}

#[test]
fn the_package_is_one_that_dpkg_reads() {
    let folder = tempfile::tempdir().unwrap();
    let parts = parts(folder.path());
    let versions = BTreeMap::from([("GLIBC".to_owned(), vec![2, 34]), ("GLIBCXX".to_owned(), vec![3, 4, 29])]);
    let (control, file) = (Control { version: "0.1.0".into(), versions }, folder.path().join("mm.deb"));
    let entries = package_entries(&parts, &control, 1_700_000_000).unwrap();
    deb::write(&control, &entries, 1_700_000_000, &file).unwrap();
    let members = deb::members(File::open(&file).unwrap()).unwrap();
    let names: Vec<&str> = members.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["debian-binary", "control.tar.gz", "data.tar.gz"]);
    assert_eq!(members[0].1, b"2.0\n");
    let unpack = |bytes: &[u8]| {
        let mut tar = Vec::new();
        flate2::read::GzDecoder::new(bytes).read_to_end(&mut tar).unwrap();
        listing(&tar)
    };
    let control = &unpack(&members[1].1)[0];
    assert_eq!(control.0, "control");
    for part in ["Package: mm\n", "Architecture: amd64\n", "Depends: libc6 (>= 2.34), libgcc-s1, libstdc++6 (>= 11)\n"]
    {
        assert!(control.4.contains(part), "{}", control.4);
    }
    let files = unpack(&members[2].1);
    let link = files.iter().find(|(path, ..)| path == "usr/bin/mm").unwrap();
    assert_eq!(link.4, "../lib/mm/bin/mm");
    let text = |name: &str| &files.iter().find(|(path, ..)| path == name).unwrap().4;
    assert_eq!(text("usr/lib/mm/lib/libtorch_cpu.so"), "library");
    assert_eq!(text("usr/share/man/man1/mm.1.gz"), "mm.1");
    assert!(text("usr/share/doc/mm/changelog.gz").contains("+0000\n"));
    assert!(text("usr/share/doc/mm/changelog.gz").starts_with("mm (0.1.0) unstable; urgency=medium\n"));
    let Ok(listed) = Command::new("dpkg-deb").arg("--contents").arg(&file).output() else {
        eprintln!("skipped: no dpkg-deb");
        return;
    };
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    assert!(String::from_utf8_lossy(&listed.stdout).contains("usr/bin/mm -> ../lib/mm/bin/mm"));
}
