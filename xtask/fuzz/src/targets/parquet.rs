//! Manifests in Parquet.

use crate::bytes::{folder, write};
use mm_data::{Manifest, ManifestConfig};

/// Reads a manifest.
pub fn read(input: &[u8]) {
    let folder = folder();
    let manifest = write(folder.path(), "x.parquet", input);
    let _ = Manifest::open(&ManifestConfig { manifest, ..ManifestConfig::default() }, folder.path());
}
