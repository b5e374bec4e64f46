//! Files of data sets, and folders of models, where they lie: in object stores (`s3://`, `gs://`, `az://`), on web servers
//! (`https://`, files alone) and in the Hugging Face Hub (`hf://datasets/ORG/NAME[@REVISION]/FILE`,
//! `hf://ORG/NAME[@REVISION]`).
//!
//! A file is copied into a cache of bounded size when it is first read; the copy is used again as long as the server
//! states the same ETag, size and date. Credentials and endpoints are read from the environment as the stores' own tools
//! read them: `AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL` …, `GOOGLE_APPLICATION_CREDENTIALS`, `STORAGE_EMULATOR_HOST`,
//! `AZURE_STORAGE_ACCOUNT_NAME` …, `AZURE_STORAGE_CONNECTION_STRING`, `HF_TOKEN`, `HF_ENDPOINT`; where they are not set, the
//! profile in `~/.aws` and the token that `hf auth login` wrote are used. Requests that fail with
//! 429 or 5xx, and connections that break, are tried again up to 13 times within 3 minutes; each time is reported on standard
//! error. Where a connection breaks within a file, the rest is asked for on the condition that the file has the same ETag;
//! a file without one is read from its beginning.

mod copies;
mod credentials;
mod download;
mod folders;
mod objects;
mod parts;
mod profile;
mod reading;
mod retrying;
mod stores;
mod unsized_files;

use crate::{
    error::{At, Context, Error, Result, bail},
    fetch::{RetryPolicy, is_offline},
    hub,
};
use copies::{Copies, CopyInfo};
use download::download;
use indicatif::ProgressBar;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, path::Path as ObjectPath};
pub use objects::Objects;
use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};
use tokio::runtime::Runtime;
use unsized_files::lacks_size;
use url::Url;

/// The schemes of object stores, whose files can be written as well.
const STORES: [&str; 7] = ["s3", "s3a", "gs", "az", "abfs", "abfss", "azure"];

/// Copies files and folders of object stores and web servers into a cache.
pub struct Storage {
    copies: Copies,
    runtime: Mutex<Option<Arc<Runtime>>>,
    /// The store of each bucket or host.
    stores: Mutex<BTreeMap<String, Arc<dyn ObjectStore>>>,
    /// What this process has copied of servers that state no size.
    unsized_files: Mutex<BTreeMap<String, CopyInfo>>,
    /// The folders that this process was given, with the lock that keeps each.
    folders: Mutex<BTreeMap<String, (PathBuf, Option<File>)>>,
    retries: RetryPolicy,
}

/// A file of a store.
#[derive(Clone)]
struct Location {
    url: String,
    /// The URL of the request; another one for a file of the hub.
    address: String,
    token: Option<String>,
    store: Arc<dyn ObjectStore>,
    path: ObjectPath,
    retries: RetryPolicy,
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
        Self::with_retries(cache, RetryPolicy::STORE)
    }

    fn with_retries(cache: &Path, retries: RetryPolicy) -> Self {
        Self {
            copies: Copies::new(cache.join("storage")),
            runtime: Mutex::default(),
            stores: Mutex::default(),
            unsized_files: Mutex::default(),
            folders: Mutex::default(),
            retries,
        }
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
        let location = self.locate_file(url)?;
        let Some(meta) = self.head(&location)? else { return self.fetch_unsized(&location) };
        let (bytes, e_tag, modified) = (meta.size, meta.e_tag.clone(), meta.last_modified.timestamp());
        let stated = CopyInfo { url: url.to_owned(), bytes, e_tag, modified };
        if let Some(copy) = self.copies.give(url, &stated) {
            return Ok(copy);
        }
        self.copies.make_room(bytes)?;
        let partial = self.copies.partial(url)?;
        let downloaded = self.runtime()?.block_on(download(&location, &meta, &partial, &ProgressBar::hidden()));
        let put = downloaded.and_then(|is_sized| is_sized.then(|| self.copies.put(&partial, &stated)).transpose());
        if !matches!(put, Ok(Some(_))) {
            let _ = fs::remove_file(&partial);
        }
        put?.map_or_else(|| self.fetch_unsized(&location), Ok)
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
        let location = self.locate_file(url)?;
        if let Some(meta) = self.head(&location)? {
            return Ok(meta.size);
        }
        let copy = self.fetch_unsized(&location)?;
        Ok(copy.metadata().at(&copy, "read")?.len())
    }

    /// The copy may be removed where others need its space.
    pub fn unpin(&self, url: &str) {
        self.copies.unpin(url);
    }

    /// Deletes the copy of a file that is not needed any more; one that another process reads stays.
    pub fn release(&self, url: &str) {
        self.copies.release(url);
    }

    /// What a server states of a file; `None` where it states no size.
    fn head(&self, location: &Location) -> Result<Option<ObjectMeta>> {
        match self.runtime()?.block_on(location.store.head(&location.path)) {
            Ok(meta) => Ok(Some(meta)),
            Err(error) if lacks_size(&error) => Ok(None),
            Err(error @ object_store::Error::NotFound { .. }) if self.lacks_bucket(location)? => {
                Err(describe_as(&location.url, "cannot be read", "the server has no such bucket", error))
            }
            Err(error) => Err(describe(&location.url, error)),
        }
    }

    /// Whether a file is missing because its bucket is; false where the server does not say.
    fn lacks_bucket(&self, location: &Location) -> Result<bool> {
        use tokio_stream::StreamExt;
        if !is_of(&location.url, &STORES) {
            return Ok(false);
        }
        let mut listed = location.store.list(Some(&location.path));
        let first = self.runtime()?.block_on(listed.next());
        Ok(first.is_some_and(|first| first.is_err_and(|e| root_cause(&e).contains("404"))))
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

    /// The place of a file; refuses the URL of a bucket or a server alone.
    fn locate_file(&self, url: &str) -> Result<Location> {
        let location = self.locate(url)?;
        if location.path.as_ref().is_empty() {
            let (found, expected) =
                if is_of(url, &STORES) { ("a bucket", "BUCKET/FILE") } else { ("a server", "HOST/FILE") };
            let scheme = url.split("://").next().unwrap_or_default();
            bail!("{url}: names {found} and no file in it; expected {scheme}://{expected}");
        }
        Ok(location)
    }

    fn locate(&self, url: &str) -> Result<Location> {
        let (address, token) = match url.strip_prefix("hf://") {
            Some(rest) => (stores::of_hub(url, rest)?, hub::token()),
            None => (url.to_owned(), None),
        };
        let parsed = Url::parse(&address).with_context(|| format!("{url} is no URL"))?;
        // A page of the hub that is asked for by https:// gets no token.
        let sends_token = if token.is_some() { "token " } else { "" };
        let key = format!("{sends_token}{}://{}", parsed.scheme(), parsed.authority());
        let mut stores = self.stores.lock().unwrap_or_else(PoisonError::into_inner);
        let store = if let Some(store) = stores.get(&key) {
            store.clone()
        } else {
            if let Some(reason) = credentials::lack(parsed.scheme()) {
                bail!("{url}: {reason}");
            }
            let store = stores::build(&parsed, token.clone(), self.retries).map_err(|e| describe(url, e))?;
            stores.insert(key, store.clone());
            store
        };
        let path = ObjectPath::from_url_path(parsed.path()).with_context(|| format!("{url}: not a path of a file"))?;
        Ok(Location { url: url.to_owned(), address, token, store, path, retries: self.retries })
    }
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
    Error::Context { what, source: root_cause(&error).trim_end_matches([':', ' ']).into() }
}

/// The text of the error below all others: those of the store's client repeat those below them.
fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut root = error;
    while let Some(below) = root.source() {
        root = below;
    }
    without_markup(&root.to_string())
}

/// The text of an error with the message of the store's answer in place of its XML.
fn without_markup(text: &str) -> String {
    let message = text.split_once("<Message>").and_then(|(_, rest)| rest.split_once("</Message>"));
    match (text.split_once(": <"), message) {
        (Some((before, _)), Some((message, _))) => format!("{before}: {}", message.trim()),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests;
