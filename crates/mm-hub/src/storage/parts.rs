//! Parts of files, from their copies or from the server: archives that together are larger than the cache are read like
//! this.

use super::{
    Storage, describe,
    reading::{Buffer, read_content},
    unsized_files::lacks_size,
};
use crate::{
    error::{At, Error, Result},
    fetch::is_offline,
};
use object_store::Error as StoreError;
use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::Path,
};

impl Storage {
    /// Some bytes of the file at a URL: of its copy where there is one, else from the server, of the whole file where
    /// the server sends no parts.
    ///
    /// # Errors
    /// As [`Storage::fetch`], and when the file has no such bytes.
    pub fn read(&self, url: &str, offset: u64, length: usize) -> Result<Vec<u8>> {
        if let Ok(bytes) = read_part(&self.copies.path(url), offset, length) {
            return Ok(bytes);
        }
        if is_offline() {
            return Err(Error::Offline { what: url.to_owned() });
        }
        let location = self.locate_file(url)?;
        let range = offset..offset + length as u64;
        let mut part = Buffer::default();
        match self.runtime()?.block_on(read_content(&location, Some(range), &mut part))? {
            Ok(()) => Ok(part.bytes),
            Err(error) if matches!(error, StoreError::NotSupported { .. }) || lacks_size(&error) => {
                let copy = self.fetch(url)?;
                let bytes = read_part(&copy, offset, length).at(&copy, "read");
                self.unpin(url);
                bytes
            }
            Err(error) => Err(describe(url, error)),
        }
    }
}

fn read_part(path: &Path, offset: u64, length: usize) -> std::io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let mut bytes = vec![0; length];
    file.seek(SeekFrom::Start(offset)).and_then(|_| file.read_exact(&mut bytes)).map(|()| bytes)
}
