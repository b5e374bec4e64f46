//! Vectors of a store as an array.

use std::io::{self, Seek, SeekFrom, Write};

/// Writes vectors one after the other as an array `[count, dim]` of float32 (`.npy`), whose number is known at the end.
pub struct ArrayWriter<W: Write + Seek> {
    out: W,
    dim: usize,
    /// Bytes of the header.
    header: usize,
    count: usize,
}

impl<W: Write + Seek> ArrayWriter<W> {
    /// An array of vectors of this width.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn new(mut out: W, dim: usize) -> io::Result<Self> {
        // As long as the header of any number of vectors: a header is padded to 64 bytes.
        let header = mm_data::npy_header("<f4", &[usize::MAX / dim.max(1), dim]).len();
        out.write_all(&vec![0; header])?;
        Ok(Self { out, dim, header, count: 0 })
    }

    /// The number of vectors so far.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Writes a vector.
    ///
    /// # Errors
    /// When it has another width, or cannot be written.
    pub fn add(&mut self, vector: &[f32]) -> io::Result<()> {
        if vector.len() != self.dim {
            return Err(io::Error::other(format!("found a vector of {} values, expected {}", vector.len(), self.dim)));
        }
        let bytes: Vec<u8> = vector.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.out.write_all(&bytes)?;
        self.count += 1;
        Ok(())
    }

    /// Writes the header, and returns what was written to.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn finish(mut self) -> io::Result<W> {
        let header = mm_data::npy_header("<f4", &[self.count, self.dim]);
        if header.len() != self.header {
            return Err(io::Error::other(format!(
                "found a header of {} bytes, expected {}",
                header.len(),
                self.header
            )));
        }
        self.out.seek(SeekFrom::Start(0))?;
        self.out.write_all(&header)?;
        self.out.seek(SeekFrom::End(0))?;
        Ok(self.out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    #[test]
    fn the_header_has_room_for_any_number_of_vectors() {
        let folder = tempfile::tempdir().unwrap();
        for (dim, count) in [(1, 0), (1, 1), (3, 1000), (512, 2), (65_536, 1)] {
            let mut array = ArrayWriter::new(Cursor::new(Vec::new()), dim).unwrap();
            for number in 0..count {
                array.add(&vec![number as f32; dim]).unwrap();
            }
            assert!(array.add(&vec![0.0; dim + 1]).is_err());
            assert_eq!(array.count(), count);
            let path = folder.path().join(format!("{dim}.npy"));
            std::fs::write(&path, array.finish().unwrap().into_inner()).unwrap();
            assert_eq!(mm_data::npy_shape(&path).unwrap(), [count, dim]);
            if count > 0 {
                let last = mm_data::read_npy_rows(&path, count - 1, 1).unwrap().to_vec::<f32>().unwrap();
                assert_eq!(last, vec![(count - 1) as f32; dim]);
            }
        }
    }
}
