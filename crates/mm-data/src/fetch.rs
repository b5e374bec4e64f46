//! Files that the cells of a table name by URL. This crate fetches nothing itself: a program installs a fetcher, and a
//! data set says whether it may be used ([`ManifestConfig::fetch_urls`](crate::ManifestConfig::fetch_urls)).

use crate::{Error, OutputFolder, Result};
use mm_core::{EncodedFile, read_part};
use std::{
    fs::File,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

/// Fetches files by URL.
pub trait UrlFetcher: Send + Sync {
    /// The path of a local copy of the file at an http or https URL, which stays as it is. Called from several threads.
    ///
    /// # Errors
    /// Why there is none, in words, without the URL.
    fn fetch(&self, url: &str) -> Result<PathBuf, String>;

    /// The path of a local copy of a file of a data set that is itself named by URL (`s3://`, `gs://`, `az://`, `https://`,
    /// `hf://`): a table, a shard, or a file next to it. It is opened at once, so that the fetcher may remove it later.
    /// Called from several threads.
    ///
    /// # Errors
    /// Why there is none, in words.
    fn fetch_data(&self, url: &str) -> Result<PathBuf, String> {
        let _ = url;
        Err("this program reads no data sets by URL".to_owned())
    }

    /// The path of a local copy of the folder of a model or a run at a URL (`s3://`, `gs://`, `az://`, `hf://`), which
    /// stays as it is as long as the process lives.
    ///
    /// # Errors
    /// Why there is none, in words, without the URL.
    fn fetch_folder(&self, url: &str) -> Result<PathBuf, String> {
        let _ = url;
        Err("this program reads no models by URL".to_owned())
    }

    /// Some bytes of a file of a data set, from its copy where there is one: archives that together are larger than the
    /// cache are read like this. Called from several threads.
    ///
    /// # Errors
    /// Why they cannot be read, in words.
    fn read_data(&self, url: &str, offset: u64, length: usize) -> Result<Vec<u8>, String> {
        let copy = self.fetch_data(url)?;
        let read = File::open(&copy).and_then(|mut file| read_part(&mut file, offset, length));
        read.map_err(|e| format!("{}: {e}", copy.display()))
    }

    /// The size in bytes of a file of a data set.
    ///
    /// # Errors
    /// Why it is not known, in words.
    fn data_size(&self, url: &str) -> Result<u64, String> {
        let copy = self.fetch_data(url)?;
        copy.metadata().map(|m| m.len()).map_err(|e| format!("{}: {e}", copy.display()))
    }

    /// The copy may be removed where others need its space.
    fn unpin_data(&self, url: &str) {
        let _ = url;
    }

    /// The copy is not needed any more.
    fn release_data(&self, url: &str) {
        let _ = url;
    }

    /// The folder at a URL of an object store (`s3://`, `gs://`, `az://`), to write to.
    ///
    /// # Errors
    /// Why there is none, in words.
    fn output_folder(&self, url: &str) -> Result<Box<dyn OutputFolder>, String> {
        let _ = url;
        Err("this program writes to no URL".to_owned())
    }
}

static FETCHER: OnceLock<Box<dyn UrlFetcher>> = OnceLock::new();

/// Installs the fetcher of this process, once. Returns false, and changes nothing, where there is one.
///
/// ```
/// struct Refuse;
///
/// impl mm_data::UrlFetcher for Refuse {
///     fn fetch(&self, _: &str) -> Result<std::path::PathBuf, String> {
///         Err("there is no network here".into())
///     }
/// }
///
/// assert!(mm_data::set_url_fetcher(Refuse));
/// assert!(!mm_data::set_url_fetcher(Refuse));
/// ```
pub fn set_url_fetcher(fetcher: impl UrlFetcher + 'static) -> bool {
    FETCHER.set(Box::new(fetcher)).is_ok()
}

/// Refuses data sets whose URLs are to be fetched where the program cannot.
pub(crate) fn check_fetcher() -> Result<()> {
    match FETCHER.get() {
        Some(_) => Ok(()),
        None => Err(Error::Config(
            "data.fetch_urls: found true, but this program has nothing to fetch with; install a fetcher with \
             mm_data::set_url_fetcher, or download the files"
                .into(),
        )),
    }
}

/// Whether a text is a URL that fetchers take: http or https.
pub(crate) fn is_fetchable(text: &str) -> bool {
    let scheme = text.split_once("://").map_or("", |(scheme, _)| scheme);
    scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https")
}

/// Whether a path is the URL of a file that is not on this machine.
pub fn is_remote(path: &Path) -> bool {
    path.to_str()
        .and_then(|text| text.split_once("://"))
        .is_some_and(|(scheme, _)| !scheme.eq_ignore_ascii_case("file"))
}

/// The fetcher of this process; else what the program cannot do without one, in words.
fn fetcher(lacking: &str) -> Result<&'static dyn UrlFetcher, String> {
    let none = || format!("this program {lacking}; install a fetcher with mm_data::set_url_fetcher");
    FETCHER.get().map(Box::as_ref).ok_or_else(none)
}

/// A file's path on this machine: of a URL, that of a copy, which the program's [`UrlFetcher`] makes.
///
/// # Errors
/// When there is no copy.
pub fn local_copy(path: &Path) -> Result<PathBuf> {
    let Some(url) = path.to_str().filter(|_| is_remote(path)) else { return Ok(path.to_owned()) };
    let copy = fetcher("reads no data sets by URL").and_then(|fetcher| fetcher.fetch_data(url));
    copy.map_err(|reason| Error::file(path, reason))
}

/// The path on this machine of the folder of a model or a run: of a URL, that of a copy, which the program's
/// [`UrlFetcher`] makes, and which is not to be written to.
///
/// # Errors
/// When there is no copy.
pub fn local_folder(path: &Path) -> Result<PathBuf> {
    let Some(url) = path.to_str().filter(|_| is_remote(path)) else { return Ok(path.to_owned()) };
    let copy = fetcher("reads no models by URL").and_then(|fetcher| fetcher.fetch_folder(url));
    copy.map_err(|reason| Error::file(path, reason))
}

/// Opens a file to be read, wherever it lies. The copy of a URL may be removed for others from then on.
///
/// # Errors
/// When it cannot be read, or there is no copy.
pub fn open_file(path: &Path) -> Result<File> {
    let opened = File::open(local_copy(path)?).map_err(|e| Error::file(path, e));
    unpin_copy(path);
    opened
}

/// The size of a file in bytes, wherever it lies.
///
/// # Errors
/// When there is no such file, or its server does not say.
pub fn file_size(path: &Path) -> Result<u64> {
    let Some(url) = path.to_str().filter(|_| is_remote(path)) else {
        return path.metadata().map(|m| m.len()).map_err(|e| Error::file(path, e));
    };
    let size = fetcher("reads no data sets by URL").and_then(|fetcher| fetcher.data_size(url));
    size.map_err(|reason| Error::file(path, reason))
}

/// Says that the copy of a URL ([`local_copy`]) is not needed any more; other files stay.
pub fn release_copy(path: &Path) {
    if let Some((fetcher, url)) = fetcher_of(path) {
        fetcher.release_data(url);
    }
}

/// Says that the copy of a URL may be removed where others need its space.
pub(crate) fn unpin_copy(path: &Path) {
    if let Some((fetcher, url)) = fetcher_of(path) {
        fetcher.unpin_data(url);
    }
}

/// The fetcher of this process, and the URL that a path is; `None` where either lacks.
fn fetcher_of(path: &Path) -> Option<(&'static dyn UrlFetcher, &str)> {
    let url = path.to_str().filter(|_| is_remote(path))?;
    Some((FETCHER.get()?.as_ref(), url))
}

/// A part of the file at a URL, whether there is a copy or not.
pub(crate) fn remote_part(url: &Arc<str>, name: String, offset: u64, length: usize, digest: [u8; 32]) -> EncodedFile {
    let from = url.clone();
    let read = move |offset, length| {
        let bytes = fetcher("reads no data sets by URL").and_then(|f| f.read_data(&from, offset, length));
        bytes.map_err(|reason| mm_core::Error::Sample(format!("{from}: {reason}")))
    };
    EncodedFile::in_remote(name, Arc::new(read), offset, length, digest)
}

/// The folder at a URL, which the program's [`UrlFetcher`] writes to.
pub(crate) fn remote_output_folder(path: &Path, url: &str) -> Result<Box<dyn OutputFolder>> {
    let folder = fetcher("writes to no URL").and_then(|fetcher| fetcher.output_folder(url));
    folder.map_err(|reason| Error::file(path, reason))
}

/// A path of a config or a table, relative to a folder; a URL is not relative.
pub(crate) fn resolve(base: &Path, path: &Path) -> PathBuf {
    if is_remote(path) { path.to_owned() } else { base.join(path) }
}

/// The file next to a table that is named by URL, copied when it is first read.
pub(crate) fn remote_data_file(url: &str) -> EncodedFile {
    let owned = PathBuf::from(url);
    EncodedFile::remote(url, move || local_copy(&owned).map_err(|e| mm_core::Error::Sample(e.to_string())))
}

/// The file at a URL, fetched when it is first read.
pub(crate) fn remote_file(url: &str) -> EncodedFile {
    let owned = url.to_owned();
    EncodedFile::remote(url, move || {
        let fetched = FETCHER.get().ok_or_else(|| "no fetcher is installed".to_owned()).and_then(|f| f.fetch(&owned));
        fetched.map_err(|reason| mm_core::Error::Sample(format!("{owned}: cannot be fetched: {reason}")))
    })
}
