//! Writing below a URL of an object store.

use super::{
    Location, STORES, Storage, describe, describe_as, is_of,
    reading::{Buffer, read_content},
};
use crate::error::{At, Error, Result, bail};
use object_store::{Error as StoreError, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, WriteMultipart};
use std::{
    fs::{self, File},
    io::Read,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

/// Larger files are sent in parts of this size, of which stores take 10,000.
const PART_BYTES: usize = 16 << 20;

/// How many parts are sent at the same time.
const CONCURRENT_PARTS: usize = 4;

/// The resolution of a store's times.
const RESOLUTION: Duration = Duration::from_secs(1);

/// The files below a URL, by their names relative to it.
pub struct Objects {
    storage: Arc<Storage>,
    /// Ends with `/`.
    base: String,
    /// The store's time at an instant of this process.
    clock: Mutex<Option<(Instant, SystemTime)>>,
}

impl Objects {
    /// The files below a URL, which may be none.
    ///
    /// # Errors
    /// When the URL is none of a store whose files can be written.
    pub fn new(storage: Arc<Storage>, url: &str) -> Result<Self> {
        if !is_of(url, &STORES) {
            bail!("{url}: expected a folder, or s3://, gs:// or az:// with a bucket; other URLs cannot be written to");
        }
        let objects = Self { storage, base: format!("{}/", url.trim_end_matches('/')), clock: Mutex::default() };
        objects.locate("")?;
        Ok(objects)
    }

    /// The URL of a file.
    pub fn url(&self, name: &str) -> String {
        format!("{}{name}", self.base)
    }

    fn locate(&self, name: &str) -> Result<Location> {
        self.storage.locate(&self.url(name))
    }

    /// The content of a file; `None` where there is none.
    ///
    /// # Errors
    /// When the store refuses it, or does not answer.
    pub fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let (location, mut content) = (self.locate(name)?, Buffer::default());
        match self.storage.runtime()?.block_on(read_content(&location, None, &mut content))? {
            Ok(()) => Ok(Some(content.bytes)),
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(error) => Err(describe(&location.url, error)),
        }
    }

    /// Writes a file; others see all of it or nothing.
    ///
    /// # Errors
    /// When the store refuses it, or does not answer.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        self.put(name, bytes, PutMode::Overwrite)?.map_err(|error| self.describe_put(name, error))
    }

    /// Writes a file unless there is one; whether it was written. The content has to be the caller's own: a file with
    /// the same is taken for one that this call wrote before its answer was lost.
    ///
    /// # Errors
    /// When the store refuses it, does not answer, or knows no such condition.
    pub fn create(&self, name: &str, bytes: &[u8]) -> Result<bool> {
        match self.put(name, bytes, PutMode::Create)? {
            Ok(()) => Ok(true),
            Err(StoreError::AlreadyExists { .. }) => Ok(self.read(name)?.is_some_and(|found| found == bytes)),
            Err(error) => Err(self.describe_put(name, error)),
        }
    }

    /// Copies a file of this machine unless there is one of that name; whether it was copied. Others see all of it or
    /// nothing. As with [`Objects::create`], the content has to be the caller's own.
    ///
    /// # Errors
    /// When the file cannot be read; when the store refuses it, or does not answer.
    pub fn upload(&self, name: &str, file: &Path) -> Result<bool> {
        let mut content = File::open(file).at(file, "read")?;
        let size = content.metadata().at(file, "read")?.len();
        if size <= PART_BYTES as u64 {
            return self.create(name, &fs::read(file).at(file, "read")?);
        }
        // Stores know no condition for files in parts.
        if self.modified(name)?.is_some() {
            return Ok(false);
        }
        let Location { store, path, .. } = self.locate(name)?;
        let failed = |error| self.describe_put(name, error);
        let runtime = self.storage.runtime()?;
        let mut upload = WriteMultipart::new_with_chunk_size(
            runtime.block_on(store.put_multipart(&path)).map_err(failed)?,
            PART_BYTES,
        );
        let mut sent = 0;
        let read = loop {
            let mut part = Vec::with_capacity(PART_BYTES);
            match (&mut content).take(PART_BYTES as u64).read_to_end(&mut part) {
                Ok(0) => break Ok(()),
                Ok(bytes) => sent += bytes as u64,
                Err(error) => break Err(error),
            }
            let _guard = runtime.enter();
            upload.put(part.into());
            if let Err(error) = runtime.block_on(upload.wait_for_capacity(CONCURRENT_PARTS)) {
                let _ = runtime.block_on(upload.abort());
                return Err(failed(error));
            }
        };
        if read.is_err() || sent != size {
            let _ = runtime.block_on(upload.abort());
            read.at(file, "read")?;
            bail!("{}: has {sent} bytes, and had {size} before; it changed while it was sent", file.display());
        }
        runtime.block_on(upload.finish()).map(|_| true).map_err(failed)
    }

    fn put(&self, name: &str, bytes: &[u8], mode: PutMode) -> Result<Result<(), StoreError>> {
        let Location { store, path, .. } = self.locate(name)?;
        let options = PutOptions { mode, ..PutOptions::default() };
        let put = store.put_opts(&path, PutPayload::from(bytes.to_vec()), options);
        Ok(self.storage.runtime()?.block_on(put).map(drop))
    }

    /// The error of a file that cannot be written.
    fn describe_put(&self, name: &str, error: StoreError) -> Error {
        describe_as(&self.url(name), "cannot be written", "the server has no such bucket", error)
    }

    /// Deletes a file, where there is one.
    ///
    /// # Errors
    /// When the store refuses it, or does not answer.
    pub fn remove(&self, name: &str) -> Result<()> {
        let Location { url, store, path, .. } = self.locate(name)?;
        match self.storage.runtime()?.block_on(store.delete(&path)) {
            Ok(()) | Err(StoreError::NotFound { .. }) => Ok(()),
            Err(error) => Err(describe(&url, error)),
        }
    }

    /// The names of the files that lie directly below a folder, without it.
    ///
    /// # Errors
    /// When the store refuses it, or does not answer.
    pub fn list(&self, folder: &str) -> Result<Vec<String>> {
        let Location { url, store, path, .. } = self.locate(folder)?;
        let listed = self.storage.runtime()?.block_on(store.list_with_delimiter(Some(&path)));
        let objects = listed.map_err(|error| describe(&url, error))?.objects;
        Ok(objects.iter().filter_map(|o| o.location.filename()).map(ToOwned::to_owned).collect())
    }

    /// For how long at least a file was not written, by the clock of the store, which is read from a file `clock` that
    /// is written and deleted; `None` where there is none.
    ///
    /// # Errors
    /// When the store refuses it, or does not answer.
    pub fn age(&self, name: &str, clock: &str) -> Result<Option<Duration>> {
        let Some(written) = self.modified(name)? else { return Ok(None) };
        let known = *self.clock.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, time) = match known {
            Some(known) => known,
            None => self.read_clock(clock)?,
        };
        let now = time + at.elapsed();
        Ok(Some(now.duration_since(written).unwrap_or_default().saturating_sub(RESOLUTION)))
    }

    /// The time of the store, which it writes on a file that is removed again.
    fn read_clock(&self, name: &str) -> Result<(Instant, SystemTime)> {
        self.write(name, b"")?;
        let at = Instant::now();
        let time = self.modified(name)?.unwrap_or_else(SystemTime::now);
        self.remove(name)?;
        *self.clock.lock().unwrap_or_else(PoisonError::into_inner) = Some((at, time));
        Ok((at, time))
    }

    fn modified(&self, name: &str) -> Result<Option<SystemTime>> {
        let Location { url, store, path, .. } = self.locate(name)?;
        match self.storage.runtime()?.block_on(store.head(&path)) {
            Ok(meta) => Ok(Some(meta.last_modified.into())),
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(error) => Err(describe(&url, error)),
        }
    }
}
