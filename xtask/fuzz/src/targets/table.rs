//! Manifests as JSON Lines, CSV and TSV.

use crate::bytes::{folder, select, write};
use mm_data::{Manifest, ManifestConfig};

/// Extension and encoding.
const KINDS: [(&str, Option<&str>); 5] =
    [("jsonl", None), ("csv", None), ("tsv", None), ("csv", Some("gb18030")), ("csv", Some("utf-16le"))];

/// Reads a manifest. Its rows are numbered in their order, without a gap.
pub fn read(input: &[u8]) {
    let Some(((extension, encoding), bytes)) = select(&KINDS, input) else { return };
    let folder = folder();
    let manifest = write(folder.path(), &format!("x.{extension}"), bytes);
    let encoding = encoding.map(ToOwned::to_owned);
    let config = ManifestConfig { manifest, encoding, ..ManifestConfig::default() };
    if let Ok(manifest) = Manifest::open(&config, folder.path()) {
        let numbers = manifest.rows.iter().map(|row| row.number);
        assert!(numbers.eq(1..=manifest.rows.len()), "a row was dropped");
    }
}
