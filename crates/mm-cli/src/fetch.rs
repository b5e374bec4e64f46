//! What is named by URL: the files of tables (`--fetch-urls`, `data.fetch_urls`), fetched over http and https within
//! limits and kept in mm's cache; data sets, and the folders of models.

use mm_core::checkpoint::shared_tempfile;
use mm_data::{OutputFolder, UrlFetcher};
use mm_hub::storage::{Objects, Storage};
use std::{
    collections::HashMap,
    io::{Read, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// What one file may take.
#[derive(Clone, Copy)]
struct Limits {
    bytes: u64,
    time: Duration,
}

/// The limits on each file: that of images, audio and video clips of a data set, not of films.
const LIMITS: Limits = Limits { bytes: 256 << 20, time: Duration::from_secs(60) };

/// Fetches files into a folder. A URL that failed is not tried again by this process.
pub(crate) struct CachedFetcher {
    folder: PathBuf,
    limits: Limits,
    agent: ureq::Agent,
    /// Files of data sets, which have no limits.
    storage: Arc<Storage>,
    failed: Mutex<HashMap<String, String>>,
}

impl CachedFetcher {
    /// A fetcher with mm's cache, within [`LIMITS`].
    pub(crate) fn new() -> Self {
        Self::with_limits(mm_core::cache_dir().join("urls"), LIMITS)
    }

    fn with_limits(folder: PathBuf, limits: Limits) -> Self {
        let tls = ureq::tls::TlsConfig::builder().root_certs(ureq::tls::RootCerts::PlatformVerifier).build();
        let agent = ureq::Agent::config_builder()
            .tls_config(tls)
            .user_agent(concat!("mm/", env!("CARGO_PKG_VERSION")))
            .timeout_connect(Some(limits.time.min(Duration::from_secs(10))))
            .timeout_global(Some(limits.time))
            .max_redirects(5)
            .http_status_as_error(false)
            .build()
            .new_agent();
        let storage = Arc::new(Storage::new(&mm_core::cache_dir()));
        Self { folder, limits, agent, storage, failed: Mutex::default() }
    }

    /// Where the copy of a URL is: its extension helps decoders, where it has one.
    fn path(&self, url: &str) -> PathBuf {
        let name = url.split(['?', '#']).next().unwrap_or(url).rsplit('/').next().unwrap_or_default();
        let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
        let is_usual = (1..=5).contains(&extension.len()) && extension.bytes().all(|b| b.is_ascii_alphanumeric());
        let end = if is_usual { format!(".{}", extension.to_ascii_lowercase()) } else { String::new() };
        self.folder.join(format!("{}{end}", blake3::hash(url.as_bytes()).to_hex()))
    }

    fn download(&self, url: &str, path: &Path) -> Result<(), String> {
        let response = self.agent.get(url).call().map_err(|e| self.describe(&e))?;
        let status = response.status();
        if !status.is_success() {
            return Err(format!("the server answered {status}"));
        }
        let stated = response.body().content_length();
        if let Some(length) = stated.filter(|length| *length > self.limits.bytes) {
            return Err(self.too_large(&format!("{length} bytes")));
        }
        if response.body().mime_type().is_some_and(|kind| kind == "text/html") {
            return Err("found a web page (text/html), expected a file".to_owned());
        }
        let cannot_write = |e: &std::io::Error| format!("{} cannot be written: {e}", path.display());
        std::fs::create_dir_all(&self.folder).map_err(|e| cannot_write(&e))?;
        let mut file = shared_tempfile(&self.folder, path).map_err(|e| cannot_write(&e))?;
        // One byte more than allowed shows that there are more.
        let mut body = response.into_body().into_reader().take(self.limits.bytes + 1);
        let (mut buffer, mut received) = (vec![0; 1 << 16], 0);
        loop {
            let count = body.read(&mut buffer).map_err(|e| self.describe(&ureq::Error::from(e)))?;
            if count == 0 {
                break;
            }
            file.write_all(&buffer[..count]).map_err(|e| cannot_write(&e))?;
            received += count as u64;
        }
        if received > self.limits.bytes {
            return Err(self.too_large("more"));
        }
        if let Some(length) = stated.filter(|length| *length != received) {
            return Err(format!("the connection ended after {received} of {length} bytes"));
        }
        file.as_file().sync_all().map_err(|e| cannot_write(&e))?;
        file.persist(path).map_err(|e| cannot_write(&e.error))?;
        Ok(())
    }

    fn too_large(&self, found: &str) -> String {
        format!("found {found}, expected at most {} bytes", self.limits.bytes)
    }

    fn describe(&self, error: &ureq::Error) -> String {
        let is_timeout = matches!(error, ureq::Error::Timeout(_));
        let limit = if is_timeout { format!(" (at most {} s)", self.limits.time.as_secs()) } else { String::new() };
        format!("{error}{limit}")
    }
}

impl UrlFetcher for CachedFetcher {
    fn fetch(&self, url: &str) -> Result<PathBuf, String> {
        let path = self.path(url);
        if path.is_file() {
            return Ok(path);
        }
        let failed = || self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(reason) = failed().get(url) {
            return Err(reason.clone());
        }
        match self.download(url, &path) {
            Ok(()) => Ok(path),
            Err(reason) => {
                failed().insert(url.to_owned(), reason.clone());
                Err(reason)
            }
        }
    }

    fn fetch_data(&self, url: &str) -> Result<PathBuf, String> {
        if !mm_hub::storage::is_url(url) {
            return Err("expected a path, or s3://, gs://, az://, https:// or hf://".to_owned());
        }
        // The URL is in front of it already.
        self.storage.fetch(url).map_err(|error| without_url(url, &error))
    }

    fn fetch_folder(&self, url: &str) -> Result<PathBuf, String> {
        self.storage.fetch_folder(url).map_err(|error| without_url(url.trim_end_matches('/'), &error))
    }

    fn read_data(&self, url: &str, offset: u64, length: usize) -> Result<Vec<u8>, String> {
        self.storage.read(url, offset, length).map_err(|error| without_url(url, &error))
    }

    fn data_size(&self, url: &str) -> Result<u64, String> {
        self.storage.size(url).map_err(|error| without_url(url, &error))
    }

    fn unpin_data(&self, url: &str) {
        self.storage.unpin(url);
    }

    fn release_data(&self, url: &str) {
        self.storage.release(url);
    }

    fn output_folder(&self, url: &str) -> Result<Box<dyn OutputFolder>, String> {
        let objects = Objects::new(Arc::clone(&self.storage), url).map_err(|error| without_url(url, &error))?;
        Ok(Box::new(StoreFolder(objects)))
    }
}

/// An error without the URL in front of it.
fn without_url(url: &str, error: &mm_hub::Error) -> String {
    let reason = mm_hub::describe(error);
    reason.strip_prefix(url).map_or(reason.clone(), |rest| rest.trim_start_matches([':', ' ']).to_owned())
}

/// A folder in an object store.
struct StoreFolder(Objects);

impl StoreFolder {
    /// The error of a file, without its URL, which whoever reports it puts in front.
    fn failed(&self, name: &str) -> impl Fn(mm_hub::Error) -> std::io::Error {
        let url = self.0.url(name);
        move |error| std::io::Error::other(without_url(&url, &error))
    }
}

impl OutputFolder for StoreFolder {
    fn read(&self, name: &str) -> std::io::Result<Option<Vec<u8>>> {
        self.0.read(name).map_err(self.failed(name))
    }

    fn write(&self, name: &str, bytes: &[u8], _unfinished: &str) -> std::io::Result<()> {
        self.0.write(name, bytes).map_err(self.failed(name))
    }

    fn create(&self, name: &str, bytes: &[u8]) -> std::io::Result<bool> {
        self.0.create(name, bytes).map_err(self.failed(name))
    }

    fn upload(&self, name: &str, file: &Path) -> std::io::Result<bool> {
        self.0.upload(name, file).map_err(self.failed(name))
    }

    fn remove(&self, name: &str) -> std::io::Result<()> {
        self.0.remove(name).map_err(self.failed(name))
    }

    fn list(&self, folder: &str) -> std::io::Result<Vec<String>> {
        self.0.list(folder).map_err(self.failed(folder))
    }

    fn age(&self, name: &str, clock: &str) -> std::io::Result<Option<Duration>> {
        self.0.age(name, clock).map_err(self.failed(name))
    }

    /// Requests cost time and money.
    fn polling_interval(&self) -> Duration {
        Duration::from_secs(5)
    }
}

#[cfg(test)]
mod tests;
