//! Files of data sets where they lie: in object stores (`s3://`, `gs://`, `az://`), on web servers (`https://`) and in
//! data sets of the Hugging Face Hub (`hf://datasets/ORG/NAME[@REVISION]/FILE`).
//!
//! A file is copied into a cache of bounded size when it is first read; the copy is used again as long as the server
//! states the same ETag, size and date. Credentials and endpoints are read from the environment as the stores' own tools
//! read them: `AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL` …, `GOOGLE_APPLICATION_CREDENTIALS`, `STORAGE_EMULATOR_HOST`,
//! `AZURE_STORAGE_ACCOUNT_NAME` …, `AZURE_STORAGE_CONNECTION_STRING`, `HF_TOKEN`, `HF_ENDPOINT`. Requests that fail with
//! 429 or 5xx, and connections that break, are tried again.

mod copies;
mod objects;
mod parts;
mod stores;

use crate::{
    error::{At, Context, Error, Result},
    fetch::is_offline,
    hub::variable,
    report::note,
};
use copies::{Copies, CopyInfo};
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, path::Path as ObjectPath};
pub use objects::Objects;
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};
use tokio::runtime::Runtime;
use url::Url;

/// The schemes of object stores, whose files can be written as well.
const STORES: [&str; 7] = ["s3", "s3a", "gs", "az", "abfs", "abfss", "azure"];

/// Copies files of object stores and web servers into a cache.
pub struct Storage {
    copies: Copies,
    runtime: Mutex<Option<Arc<Runtime>>>,
    /// The store of each bucket or host.
    stores: Mutex<BTreeMap<String, Arc<dyn ObjectStore>>>,
}

/// A file of a store.
struct Location {
    url: String,
    store: Arc<dyn ObjectStore>,
    path: ObjectPath,
}

/// Whether a text names a file of an object store, a web server or the hub.
pub fn is_url(text: &str) -> bool {
    is_of(text, &STORES) || is_of(text, &["http", "https", "hf"])
}

/// Whether a text is a URL of one of these schemes.
fn is_of(text: &str, schemes: &[&str]) -> bool {
    let scheme = text.split_once("://").map_or("", |(scheme, _)| scheme);
    schemes.iter().any(|known| scheme.eq_ignore_ascii_case(known))
}

impl Storage {
    /// Copies go to `storage` in mm's cache folder.
    pub fn new(cache: &Path) -> Self {
        Self { copies: Copies::new(cache.join("storage")), runtime: Mutex::default(), stores: Mutex::default() }
    }

    /// The path of a copy of the file at a URL, which is to be opened within a minute: after that it may be removed for
    /// others, and is copied again when it is asked for again.
    ///
    /// # Errors
    /// When the server has no such file, refuses it, or does not answer; when the cache has no space.
    pub fn fetch(&self, url: &str) -> Result<PathBuf> {
        if is_offline() {
            let copy = self.copies.info(url).and_then(|info| self.copies.give(url, &info));
            return copy.ok_or_else(|| Error::Offline { what: url.to_owned() });
        }
        let location = self.locate(url)?;
        let meta = self.head(&location)?;
        let (bytes, e_tag, modified) = (meta.size, meta.e_tag.clone(), meta.last_modified.timestamp());
        let stated = CopyInfo { url: url.to_owned(), bytes, e_tag, modified };
        if let Some(copy) = self.copies.give(url, &stated) {
            return Ok(copy);
        }
        self.copies.make_room(bytes)?;
        let partial = self.copies.partial(url)?;
        let put = self.runtime()?.block_on(download(&location, &meta, &partial));
        let put = put.and_then(|()| self.copies.put(&partial, &stated));
        put.inspect_err(|_| drop(fs::remove_file(&partial)))
    }

    /// The size in bytes of the file at a URL.
    ///
    /// # Errors
    /// As [`Storage::fetch`].
    pub fn size(&self, url: &str) -> Result<u64> {
        if is_offline() {
            let bytes = self.copies.info(url).map(|info| info.bytes);
            return bytes.ok_or_else(|| Error::Offline { what: url.to_owned() });
        }
        Ok(self.head(&self.locate(url)?)?.size)
    }

    /// The copy may be removed where others need its space.
    pub fn unpin(&self, url: &str) {
        self.copies.unpin(url);
    }

    /// Deletes the copy of a file that is not needed any more; one that another process reads stays.
    pub fn release(&self, url: &str) {
        self.copies.release(url);
    }

    fn head(&self, location: &Location) -> Result<ObjectMeta> {
        self.runtime()?.block_on(location.store.head(&location.path)).map_err(|e| describe(&location.url, e))
    }

    fn runtime(&self) -> Result<Arc<Runtime>> {
        let mut runtime = self.runtime.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(runtime) = &*runtime {
            return Ok(runtime.clone());
        }
        let built = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let built = Arc::new(built.context("the threads for downloads cannot be started")?);
        *runtime = Some(built.clone());
        Ok(built)
    }

    fn locate(&self, url: &str) -> Result<Location> {
        let (address, token) = match url.strip_prefix("hf://") {
            Some(rest) => (stores::of_hub(url, rest)?, variable("HF_TOKEN")),
            None => (url.to_owned(), None),
        };
        let parsed = Url::parse(&address).with_context(|| format!("{url} is no URL"))?;
        let key = format!("{}://{}", parsed.scheme(), parsed.authority());
        let mut stores = self.stores.lock().unwrap_or_else(PoisonError::into_inner);
        let store = if let Some(store) = stores.get(&key) {
            store.clone()
        } else {
            let store = stores::build(&parsed, token).map_err(|e| describe(url, e))?;
            stores.insert(key, store.clone());
            store
        };
        let path = ObjectPath::from_url_path(parsed.path()).with_context(|| format!("{url}: not a path of a file"))?;
        Ok(Location { url: url.to_owned(), store, path })
    }
}

/// Writes a file, of which as many bytes have to come as the server stated.
async fn download(location: &Location, meta: &ObjectMeta, partial: &Path) -> Result<()> {
    use tokio_stream::StreamExt;
    let found = location.store.get(&location.path).await.map_err(|e| describe(&location.url, e))?;
    let mut chunks = found.into_stream();
    let mut file = File::create(partial).at(partial, "written")?;
    let mut received = 0;
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|e| describe(&location.url, e))?;
        received += chunk.len() as u64;
        file.write_all(&chunk).at(partial, "written")?;
    }
    if received != meta.size {
        return Err(Error::Size { url: location.url.clone(), found: received, expected: meta.size });
    }
    file.sync_all().at(partial, "written")?;
    if meta.size > 1 << 28 {
        note(format!("copied {} ({} MB)", location.url, meta.size >> 20));
    }
    Ok(())
}

/// An error of reading from a store, with what to do about it.
fn describe(url: &str, error: object_store::Error) -> Error {
    describe_as(url, "cannot be read", "the server has no such file", error)
}

/// An error of a store, with what to do about it; what failed, and what is missing where something is.
fn describe_as(url: &str, failed: &str, missing: &str, error: object_store::Error) -> Error {
    use object_store::Error as Store;
    let what = match &error {
        Store::NotFound { .. } => format!("{url}: {missing}"),
        Store::PermissionDenied { .. } | Store::Unauthenticated { .. } => {
            format!("{url}: the server refuses it; check the credentials in the environment, and who may read it")
        }
        _ => format!("{url} {failed}"),
    };
    // The errors of the store's client repeat those below them.
    let mut root: &(dyn std::error::Error + 'static) = &error;
    while let Some(below) = root.source() {
        root = below;
    }
    let reason = root.to_string();
    Error::Context { what, source: reason.trim_end_matches([':', ' ']).into() }
}
