//! Files of data sets where they lie: in object stores (`s3://`, `gs://`, `az://`), on web servers (`https://`) and in
//! data sets of the Hugging Face Hub (`hf://datasets/ORG/NAME[@REVISION]/FILE`).
//!
//! A file is copied into a cache of bounded size when it is first read; the copy is used again as long as the server
//! states the same ETag, size and date. Credentials and endpoints are read from the environment as the stores' own tools
//! read them: `AWS_ACCESS_KEY_ID`, `AWS_ENDPOINT_URL` …, `GOOGLE_APPLICATION_CREDENTIALS`, `STORAGE_EMULATOR_HOST`,
//! `AZURE_STORAGE_ACCOUNT_NAME` …, `AZURE_STORAGE_CONNECTION_STRING`, `HF_TOKEN`, `HF_ENDPOINT`. Requests that fail with
//! 429 or 5xx, and connections that break, are tried again.

mod objects;
mod parts;
mod stores;

use crate::{
    error::{At, Context, Error, Result, bail},
    fetch::is_offline,
    hub::variable,
    paths::create_dir,
    report::note,
};
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, path::Path as ObjectPath};
pub use objects::Objects;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};
use tokio::runtime::Runtime;
use url::Url;

/// The most bytes of copies, unless `MM_STORAGE_CACHE_BYTES` says otherwise.
const CACHE_BYTES: u64 = 100 << 30;

/// For how long a copy that was given is not removed for others. What is open stays readable.
const IN_USE: Duration = Duration::from_secs(60);

/// The schemes of object stores, whose files can be written as well.
const STORES: [&str; 7] = ["s3", "s3a", "gs", "az", "abfs", "abfss", "azure"];

/// Copies files of object stores and web servers into a cache.
pub struct Storage {
    folder: PathBuf,
    runtime: Mutex<Option<Arc<Runtime>>>,
    /// The store of each bucket or host.
    stores: Mutex<BTreeMap<String, Arc<dyn ObjectStore>>>,
    /// The copies that this process was given, and when: they are not removed before they are opened.
    in_use: Mutex<BTreeMap<PathBuf, Instant>>,
}

/// What the server stated about a copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct CopyInfo {
    url: String,
    bytes: u64,
    e_tag: Option<String>,
    modified: i64,
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
        Self {
            folder: cache.join("storage"),
            runtime: Mutex::default(),
            stores: Mutex::default(),
            in_use: Mutex::default(),
        }
    }

    /// The path of a copy of the file at a URL, which is to be opened within a minute: after that it may be removed for
    /// others, and is copied again when it is asked for again.
    ///
    /// # Errors
    /// When the server has no such file, refuses it, or does not answer; when the cache has no space.
    pub fn fetch(&self, url: &str) -> Result<PathBuf> {
        let copy = self.copy_of(url);
        let info_file = copy.with_file_name("info.json");
        let cached = fs::read(&info_file).ok().and_then(|text| serde_json::from_slice::<CopyInfo>(&text).ok());
        let cached = cached.filter(|info| info.url == url && copy.metadata().is_ok_and(|m| m.len() == info.bytes));
        if is_offline() {
            return if cached.is_some() { Ok(self.used(copy)) } else { Err(Error::Offline { what: url.to_owned() }) };
        }
        let location = self.locate(url)?;
        let runtime = self.runtime()?;
        let meta = runtime.block_on(location.store.head(&location.path)).map_err(|e| describe(&location.url, e))?;
        let (bytes, e_tag, modified) = (meta.size, meta.e_tag.clone(), meta.last_modified.timestamp());
        let stated = CopyInfo { url: url.to_owned(), bytes, e_tag, modified };
        if cached.as_ref() == Some(&stated) {
            return Ok(self.used(copy));
        }
        self.make_room(bytes)?;
        let folder = copy.parent().context("the copy has no folder")?;
        create_dir(folder)?;
        let partial = folder.join(format!("{}-{:?}.partial", std::process::id(), std::thread::current().id()));
        let downloaded = runtime.block_on(download(&location, &meta, &partial));
        if let Err(error) = downloaded {
            let _ = fs::remove_file(&partial);
            return Err(error);
        }
        fs::rename(&partial, &copy).at(&copy, "written")?;
        let text = serde_json::to_vec(&stated).context("the state of a copy")?;
        fs::write(&info_file, text).at(&info_file, "written")?;
        Ok(self.used(copy))
    }

    /// The copy may be removed where others need its space.
    pub fn unpin(&self, url: &str) {
        self.in_use.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.copy_of(url));
    }

    /// Deletes the copy of a file that is not needed any more.
    pub fn release(&self, url: &str) {
        let copy = self.copy_of(url);
        self.unpin(url);
        if let Some(folder) = copy.parent() {
            let _ = fs::remove_file(folder.join("info.json"));
            let _ = fs::remove_file(&copy);
            let _ = fs::remove_dir(folder);
        }
    }

    /// Where the copy of a URL is; its name keeps the extension.
    fn copy_of(&self, url: &str) -> PathBuf {
        let hash = Sha256::digest(url.as_bytes()).iter().take(16).map(|byte| format!("{byte:02x}")).collect::<String>();
        let name = url.split(['?', '#']).next().unwrap_or(url).rsplit('/').next().unwrap_or_default();
        let plain = |c: char| if c.is_alphanumeric() || "._-".contains(c) { c } else { '_' };
        let name: String = name.chars().map(plain).rev().take(100).collect::<Vec<_>>().into_iter().rev().collect();
        self.folder.join(hash).join(format!("of-{name}"))
    }

    fn used(&self, copy: PathBuf) -> PathBuf {
        // The time of use decides which copies go first.
        let _ = File::options().append(true).open(&copy).and_then(|file| file.set_modified(SystemTime::now()));
        self.in_use.lock().unwrap_or_else(PoisonError::into_inner).insert(copy.clone(), Instant::now());
        copy
    }

    /// Deletes the copies that were not used for the longest time, until there is room for some bytes.
    fn make_room(&self, bytes: u64) -> Result<()> {
        let limit = cache_limit()?;
        let mut copies: Vec<(SystemTime, u64, PathBuf)> = Vec::new();
        for folder in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            for file in fs::read_dir(folder.path()).into_iter().flatten().flatten() {
                let Ok(metadata) = file.metadata() else { continue };
                if file.file_name().to_string_lossy().starts_with("of-") {
                    copies.push((metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH), metadata.len(), file.path()));
                }
            }
        }
        copies.sort();
        let mut total: u64 = copies.iter().map(|(_, size, _)| size).sum();
        let in_use = self.in_use.lock().unwrap_or_else(PoisonError::into_inner);
        let is_in_use = |copy: &PathBuf| in_use.get(copy).is_some_and(|given| given.elapsed() < IN_USE);
        for (_, size, copy) in copies.into_iter().filter(|(.., copy)| !is_in_use(copy)) {
            if total + bytes <= limit {
                break;
            }
            fs::remove_file(&copy).at(&copy, "deleted")?;
            let _ = fs::remove_file(copy.with_file_name("info.json"));
            total -= size;
        }
        if total + bytes > limit {
            bail!(
                "the files that are read at the moment need {} bytes in {}, where at most {} may be (MM_STORAGE_CACHE_BYTES)",
                total + bytes,
                self.folder.display(),
                limit
            );
        }
        Ok(())
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

/// The bytes of `MM_STORAGE_CACHE_BYTES`.
fn cache_limit() -> Result<u64> {
    let Ok(text) = std::env::var("MM_STORAGE_CACHE_BYTES") else { return Ok(CACHE_BYTES) };
    text.trim().parse().with_context(|| format!("MM_STORAGE_CACHE_BYTES: found `{text}`, expected a number of bytes"))
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
