//! Downloaded archives: `.tar`, `.tar.gz` and `.zip`. Nothing is written outside of their folder.

use crate::bytes::{folder, select, write};
use mm_hub::archive::{gunzip, untar, unzip};
use std::path::PathBuf;

/// Maximum number of bytes that an input may unpack to.
const MAX_BYTES: u64 = 16 << 20;

enum Kind {
    Tar,
    TarGz,
    Zip,
}

/// Reads an archive.
pub fn read(input: &[u8]) {
    let Some((kind, bytes)) = select(&[Kind::Tar, Kind::TarGz, Kind::Zip], input) else { return };
    let top = folder();
    let (file, inner) = (write(top.path(), "archive", bytes), top.path().join("inner"));
    let target = |inside: &str| Some(PathBuf::from(inside));
    let _ = match kind {
        Kind::Tar => untar(bytes, &file, &inner, MAX_BYTES, target),
        Kind::TarGz => gunzip(&file).and_then(|tar| untar(tar, &file, &inner, MAX_BYTES, target)),
        Kind::Zip => unzip(&file, &inner, MAX_BYTES, |_| true),
    };
    let outside = std::fs::read_dir(top.path()).into_iter().flatten().filter_map(|e| e.ok().map(|e| e.path()));
    let outside: Vec<PathBuf> = outside.filter(|p| *p != file && *p != inner).collect();
    assert!(outside.is_empty(), "written outside of the folder: {outside:?}");
}
