//! Manifests in Parquet.

use crate::bytes::{folder, write};
use mm_data::{Manifest, ManifestConfig, cell_text, read_table};

/// Reads a table, and a manifest.
pub fn read(input: &[u8]) {
    let folder = folder();
    let path = write(folder.path(), "x.parquet", input);
    if let Ok(rows) = read_table(&path, None) {
        rows.iter().flat_map(|row| row.values()).for_each(|cell| drop(cell_text(cell)));
        let config = ManifestConfig { manifest: path, ..ManifestConfig::default() };
        let _ = Manifest::open(&config, folder.path());
    }
}
