//! Downloads over HTTPS, with resumption, checksums and a progress bar.

mod digest;
mod query;
mod retry;

pub(crate) use digest::{base64_to_hex, digest, hex};
pub(crate) use query::{FailedQuery, Query};
#[cfg(feature = "storage")]
pub(crate) use retry::is_temporary;
pub(crate) use retry::{Retries, RetryPolicy, retry_after};

use crate::{
    error::{At, Context, Error, Result, describe},
    paths::{create_dir, lock, with_suffix},
    report::is_quiet,
};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::{
    fs::File,
    io::{Read, Write},
    path::Path,
    time::Duration,
};

/// Whether `MM_OFFLINE=1` forbids downloads.
pub(crate) fn is_offline() -> bool {
    std::env::var("MM_OFFLINE").is_ok_and(|v| is_on(&v))
}

/// Whether the value of a variable means yes, as Python's `huggingface_hub` reads it.
pub(crate) fn is_on(value: &str) -> bool {
    ["1", "on", "yes", "true"].contains(&value.to_lowercase().as_str())
}

/// A file to download, with the checksum that its registry states.
pub(crate) struct Remote {
    pub url: String,
    /// `sha256`, `sha512` or `git` (SHA-1 of a git blob), and the digest in hexadecimal.
    pub checksum: (&'static str, String),
    /// The number of bytes, where it is known beforehand.
    pub size: Option<u64>,
    /// A bearer token, sent to the host of `url` but not to hosts that it redirects to.
    pub bearer: Option<String>,
    /// Time without data after which the connection is given up.
    pub timeout: Duration,
}

impl Remote {
    /// A public file.
    pub fn public(url: String, checksum: (&'static str, String)) -> Self {
        Self { url, checksum, size: None, bearer: None, timeout: Duration::from_secs(60) }
    }
}

/// Downloads to `file`, resuming an earlier attempt. A file with a wrong checksum is deleted and downloaded again.
pub(crate) fn download(remote: &Remote, file: &Path) -> Result<()> {
    if file.exists() && digest(file, remote.checksum.0)? == remote.checksum.1 {
        return Ok(());
    }
    download_to(remote, file, &with_suffix(file, "partial"), &with_suffix(file, "lock"))
}

/// Like [`download`], with the paths of the incomplete file and of the lock.
pub(crate) fn download_to(remote: &Remote, file: &Path, partial: &Path, lock: &Path) -> Result<()> {
    let folder = file.parent().context("the path has no parent folder")?;
    create_dir(folder)?;
    // A second process waits here instead of writing to the same file.
    let waiting = format!("another process downloads {}; waiting for it …", file.display());
    let _lock = self::lock(lock, &waiting)?;
    if file.exists() && digest(file, remote.checksum.0)? == remote.checksum.1 {
        return Ok(());
    }
    if is_offline() {
        return Err(Error::Offline { what: remote.url.clone() });
    }
    let mut retries = Retries::new(RetryPolicy {
        first_pause: remote.timeout.min(Duration::from_secs(1)) * 2,
        ..RetryPolicy::DOWNLOAD
    });
    let last = loop {
        let is_resumed = partial.exists();
        let error = match transfer(remote, partial).and_then(|()| keep_if_right(remote, partial, file)) {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        let reason = describe(&error);
        // What an earlier attempt left may have been wrong; the whole file is what the server has.
        let is_stale = is_resumed && matches!(error, Error::Checksum { .. });
        let is_tried_again = if is_stale { retries.wait(&reason, None) } else { retries.wait_after(&error, &reason) };
        if !is_tried_again {
            break error;
        }
    };
    let hint = if partial.exists() { "; the next run resumes this download" } else { "" };
    Err(last).with_context(|| format!("{} could not be downloaded{}{hint}", remote.url, retries.summary()))
}

/// Moves a complete download to its place; deletes one that has another checksum.
fn keep_if_right(remote: &Remote, partial: &Path, file: &Path) -> Result<()> {
    let (algorithm, expected) = &remote.checksum;
    let found = digest(partial, algorithm)?;
    if found == *expected {
        return std::fs::rename(partial, file).at(file, "written");
    }
    std::fs::remove_file(partial).at(partial, "deleted")?;
    Err(Error::Checksum {
        file: remote.url.clone(),
        algorithm,
        found,
        expected: expected.clone(),
        remedy: "the download was deleted",
    })
}

/// The HTTP client; error statuses are returned as responses.
pub(crate) fn agent(timeout: Duration) -> ureq::Agent {
    let tls = ureq::tls::TlsConfig::builder().root_certs(ureq::tls::RootCerts::PlatformVerifier).build();
    ureq::Agent::config_builder()
        .tls_config(tls)
        .user_agent(concat!("mm/", env!("CARGO_PKG_VERSION")))
        .timeout_connect(Some(Duration::from_secs(30)))
        .timeout_recv_response(Some(timeout.max(Duration::from_secs(1)) * 2))
        .http_status_as_error(false)
        .build()
        .new_agent()
}

/// Makes one attempt to download the rest of a file.
fn transfer(remote: &Remote, partial: &Path) -> Result<()> {
    let url = &remote.url;
    let existing = std::fs::metadata(partial).map_or(0, |m| m.len());
    let mut request = agent(remote.timeout).get(url);
    if existing > 0 {
        request = request.header("Range", format!("bytes={existing}-"));
    }
    if let Some(token) = &remote.bearer {
        request = request.header("Authorization", format!("Bearer {token}"));
    }
    let response = request.call().with_context(|| format!("{url} cannot be reached; check the network connection"))?;
    let status = response.status().as_u16();
    let header = |name: &str| response.headers().get(name).and_then(|v| v.to_str().ok());
    let resumed = match status {
        200 => false,
        206 => true,
        // There is nothing left to send; the checksum shows whether the file is complete.
        416 => return Ok(()),
        status => {
            return Err(Error::Status {
                url: url.clone(),
                status,
                retry_after: header("retry-after").and_then(retry_after),
            });
        }
    };
    let length: Option<u64> = header("content-length").and_then(|v| v.parse().ok());
    let start = if resumed { existing } else { 0 };
    let wrong_size = |found, expected| Error::Size { url: url.clone(), found, expected };
    if let (Some(expected), Some(length)) = (remote.size, length)
        && start + length != expected
    {
        return Err(wrong_size(start + length, expected));
    }
    let bar = progress_bar(url, start, length);
    let file = File::options().create(true).write(true).append(resumed).truncate(!resumed).open(partial);
    let mut file = file.at(partial, "written")?;
    let mut received = 0u64;
    read_body(url, response.into_body(), remote.timeout, |bytes| {
        received += bytes.len() as u64;
        if let Some(expected) = remote.size.filter(|expected| start + received > *expected) {
            return Err(wrong_size(start + received, expected));
        }
        bar.inc(bytes.len() as u64);
        file.write_all(bytes).at(partial, "written")
    })?;
    file.sync_all().at(partial, "written")?;
    bar.finish_and_clear();
    if length.is_some_and(|l| l != received) {
        let reason = format!("the connection ended after {received} of {} bytes", length.unwrap_or(0));
        return Err(Error::Connection { url: url.clone(), reason });
    }
    Ok(())
}

/// Passes on what comes of a body; an error when nothing comes for a time.
pub(crate) fn read_body(
    url: &str,
    body: ureq::Body,
    timeout: Duration,
    mut each: impl FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    // A thread reads it, so that a stalled connection can be detected.
    let (sender, receiver) = std::sync::mpsc::sync_channel::<std::io::Result<Vec<u8>>>(8);
    let mut reader = body.into_reader();
    std::thread::spawn(move || {
        loop {
            let mut buffer = vec![0u8; 1 << 18];
            let read = reader.read(&mut buffer).map(|count| {
                buffer.truncate(count);
                buffer
            });
            let done = read.as_ref().map_or(true, Vec::is_empty);
            if sender.send(read).is_err() || done {
                return;
            }
        }
    });
    let mut received = 0;
    loop {
        let Ok(bytes) = receiver.recv_timeout(timeout) else {
            let reason = format!("no data for {} seconds after {received} bytes", timeout.as_secs());
            return Err(Error::Connection { url: url.to_owned(), reason });
        };
        let bytes = bytes.with_context(|| format!("{url}: the connection was interrupted"))?;
        if bytes.is_empty() {
            return Ok(());
        }
        received += bytes.len();
        each(&bytes)?;
    }
}

pub(crate) fn progress_bar(url: &str, start: u64, length: Option<u64>) -> ProgressBar {
    let target = if is_quiet() { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
    let bar = ProgressBar::with_draw_target(Some(length.unwrap_or(0) + start), target);
    bar.set_style(
        ProgressStyle::with_template("{msg:.dim} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}")
            .unwrap_or_else(|_| ProgressStyle::default_bar()),
    );
    bar.set_message(url.rsplit('/').next().unwrap_or("").chars().take(40).collect::<String>());
    bar.set_position(start);
    bar
}

#[cfg(test)]
mod tests;
