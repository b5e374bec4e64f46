//! Checksums of files.

use crate::error::{At, Context, Result};
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha512};
use std::{fs::File, io::Read, path::Path};

/// The digest of a file, in hexadecimal: `sha256`, `sha512` or `git` (SHA-1 of a git blob).
pub(crate) fn digest(file: &Path, kind: &str) -> Result<String> {
    fn hash<D: Digest>(mut file: File, mut hasher: D) -> std::io::Result<String> {
        let mut buffer = vec![0u8; 1 << 20];
        loop {
            let count = file.read(&mut buffer)?;
            if count == 0 {
                break;
            }
            hasher.update(&buffer[..count]);
        }
        Ok(hex(&hasher.finalize()))
    }
    let open = File::open(file).at(file, "read")?;
    let result = match kind {
        "sha512" => hash(open, Sha512::new()),
        "git" => {
            let length = open.metadata().at(file, "read")?.len();
            hash(open, Sha1::new().chain_update(format!("blob {length}\0")))
        }
        _ => hash(open, Sha256::new()),
    };
    result.at(file, "read")
}

/// Bytes in hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Hexadecimal digits of a checksum in base64, as npm states it.
pub(crate) fn base64_to_hex(text: &str) -> Result<String> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bits, mut count, mut out) = (0u32, 0, String::new());
    for byte in text.bytes().filter(|b| *b != b'=') {
        let value = ALPHABET.iter().position(|a| *a == byte).context("a checksum that is not base64")?;
        bits = (bits << 6) | value as u32;
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push_str(&format!("{:02x}", (bits >> count) & 0xff));
        }
    }
    Ok(out)
}
