//! Files that the cells of a table name by URL. This crate fetches nothing itself: a program installs a fetcher, and a
//! data set says whether it may be used ([`ManifestConfig::fetch_urls`](crate::ManifestConfig::fetch_urls)).

use crate::{Error, Result};
use mm_core::EncodedFile;
use std::{path::PathBuf, sync::OnceLock};

/// Fetches files by URL.
pub trait UrlFetcher: Send + Sync {
    /// The path of a local copy of the file at an http or https URL, which stays as it is. Called from several threads.
    ///
    /// # Errors
    /// Why there is none, in words, without the URL.
    fn fetch(&self, url: &str) -> Result<PathBuf, String>;
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

/// The file at a URL, fetched when it is first read.
pub(crate) fn remote_file(url: &str) -> EncodedFile {
    let owned = url.to_owned();
    EncodedFile::remote(url, move || {
        let fetched = FETCHER.get().ok_or_else(|| "no fetcher is installed".to_owned()).and_then(|f| f.fetch(&owned));
        fetched.map_err(|reason| mm_core::Error::Sample(format!("{owned}: cannot be fetched: {reason}")))
    })
}
