//! TensorBoard event files: scalars as `TFRecord`s of `Event` messages, so that `tensorboard --logdir RUN` shows a run.

use crate::{Error, Result};
use std::{
    fs::File,
    io::{BufWriter, Write},
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

/// Writes scalars to a TensorBoard event file.
pub struct EventWriter {
    file: BufWriter<File>,
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |t| t.as_secs_f64())
}

impl EventWriter {
    /// Creates a new event file in `folder`.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn create(folder: &Path) -> Result<Self> {
        let path = folder.join(format!("events.out.tfevents.{}.mm.{}", now() as u64, std::process::id()));
        let file = File::options().create(true).append(true).open(&path).map_err(|e| Error::run(&path, e))?;
        let mut writer = Self { file: BufWriter::new(file) };
        let mut version = double_field(1, now());
        version.extend(bytes_field(3, b"brain.Event:2"));
        writer.write_record(&version).map_err(|e| Error::run(&path, e))?;
        Ok(writer)
    }

    /// Adds one scalar at a step.
    pub fn scalar(&mut self, tag: &str, value: f64, step: u64) -> std::io::Result<()> {
        let mut inner = bytes_field(1, tag.as_bytes());
        inner.extend([0x15]); // field 2, 32 bits: simple_value
        inner.extend((value as f32).to_le_bytes());
        let mut event = double_field(1, now());
        event.push(0x10); // field 2, varint: step
        event.extend(varint(step));
        event.extend(bytes_field(5, &bytes_field(1, &inner)));
        self.write_record(&event)
    }

    /// Writes buffered records to the file.
    pub fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }

    fn write_record(&mut self, data: &[u8]) -> std::io::Result<()> {
        let length = (data.len() as u64).to_le_bytes();
        self.file.write_all(&length)?;
        self.file.write_all(&masked_crc(&length).to_le_bytes())?;
        self.file.write_all(data)?;
        self.file.write_all(&masked_crc(data).to_le_bytes())
    }
}

fn varint(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push((value as u8) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

fn bytes_field(field: u8, bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![field << 3 | 2];
    out.extend(varint(bytes.len() as u64));
    out.extend(bytes);
    out
}

fn double_field(field: u8, value: f64) -> Vec<u8> {
    let mut out = vec![field << 3 | 1];
    out.extend(value.to_le_bytes());
    out
}

/// CRC-32C, rotated and offset as the TFRecord format requires.
fn masked_crc(bytes: &[u8]) -> u32 {
    let mut crc = !0u32;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0x82F6_3B78 } else { crc >> 1 };
        }
    }
    (!crc).rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksum_matches_rfc_3720() {
        // The check value that RFC 3720 gives for "123456789" is e3069283.
        assert_eq!(masked_crc(b"123456789"), 0xe306_9283u32.rotate_right(15).wrapping_add(0xa282_ead8));
    }
}
