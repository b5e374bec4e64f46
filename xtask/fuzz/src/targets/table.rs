//! Manifests as JSON Lines, CSV and TSV.

use crate::bytes::{folder, select, write};
use mm_data::{Manifest, ManifestConfig, read_table};

/// Extension and encoding.
const KINDS: [(&str, Option<&str>); 5] =
    [("jsonl", None), ("csv", None), ("tsv", None), ("csv", Some("gb18030")), ("csv", Some("utf-16le"))];

/// Reads a table, and a manifest.
pub fn read(input: &[u8]) {
    let Some(((extension, encoding), bytes)) = select(&KINDS, input) else { return };
    let folder = folder();
    let manifest = write(folder.path(), &format!("x.{extension}"), bytes);
    let encoding = encoding.map(ToOwned::to_owned);
    let rows = read_table(&manifest, encoding.as_deref());
    let opened = Manifest::open(&ManifestConfig { manifest, encoding, ..ManifestConfig::default() }, folder.path());
    if let (Ok(rows), Ok(opened)) = (rows, opened) {
        assert_eq!(rows.len(), opened.rows.len(), "no row is dropped");
    }
}
