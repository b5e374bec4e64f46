//! Checksums of stored rows and vectors.

use half::f16;

/// The checksum of a row.
pub(crate) fn row_checksum(number: i64, id: &str, payload: &str, text: Option<&str>, version: Option<&str>) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&number.to_le_bytes());
    for part in [Some(id), Some(payload), text, version] {
        // Lengths keep the parts apart; a missing text is not an empty one.
        hasher.update(&part.map_or(u64::MAX, |p| p.len() as u64).to_le_bytes());
        hasher.update(part.unwrap_or_default().as_bytes());
    }
    hasher.finalize()
}

/// Vectors as bytes: little-endian 16-bit floats.
pub(crate) fn to_bytes(values: &[f16]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// The checksum of a row's vectors.
pub(crate) fn vector_checksum(vector: i64, number: i64, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&vector.to_le_bytes());
    hasher.update(&number.to_le_bytes());
    hasher.update(bytes);
    hasher.finalize()
}
