//! Files of web servers that state no size (chunked transfer): they are copied whole, up to a limit.

use super::{
    Location, Storage,
    copies::{CopyInfo, cache_limit},
    retrying::without_query,
};
use crate::{
    error::{At, Context, Error, Result, bail, describe},
    fetch::{Retries, agent, read_body, retry_after},
};
use object_store::Error as StoreError;
use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    sync::PoisonError,
    time::Duration,
};

/// The most bytes of such a file, where the cache may hold as many.
const MAX_BYTES: u64 = 16 << 30;
/// Time without data after which a connection is given up.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Whether a store's client refuses an answer because it states no size.
pub(super) fn lacks_size(error: &StoreError) -> bool {
    super::root_cause(error).contains("Content-Length Header missing")
}

/// What came of a request.
enum Answer {
    Unchanged,
    Received { bytes: u64, e_tag: Option<String> },
}

impl Storage {
    /// The path of a copy, which is made once by each process, unless the server states an ETag and it is the same.
    pub(super) fn fetch_unsized(&self, location: &Location) -> Result<PathBuf> {
        let url = &location.url;
        let copied = || self.unsized_files.lock().unwrap_or_else(PoisonError::into_inner);
        let info = copied().get(url).cloned();
        if let Some(copy) = info.and_then(|info| self.copies.give(url, &info)) {
            return Ok(copy);
        }
        let known = self.copies.info(url).filter(|info| info.e_tag.is_some());
        let partial = self.copies.partial(url)?;
        let made = download(location, known.as_ref(), &partial).and_then(|info| {
            if known.as_ref() == Some(&info) {
                return Ok((self.copies.give(url, &info).context("another process deleted the copy")?, info));
            }
            self.copies.make_room(info.bytes)?;
            Ok((self.copies.put(&partial, &info)?, info))
        });
        let _ = fs::remove_file(&partial);
        let (copy, info) = made?;
        copied().insert(url.clone(), info);
        Ok(copy)
    }
}

/// Downloads a file unless it is the known one; what is then known of it.
fn download(location: &Location, known: Option<&CopyInfo>, partial: &Path) -> Result<CopyInfo> {
    let mut retries = Retries::new(location.retries);
    loop {
        let error = match request(location, known.and_then(|info| info.e_tag.as_deref()), partial) {
            Ok(Answer::Received { bytes, e_tag }) => {
                return Ok(CopyInfo { url: location.url.clone(), bytes, e_tag, modified: 0 });
            }
            Ok(Answer::Unchanged) => return known.cloned().context("the server answered 304 unasked"),
            Err(error) => error,
        };
        let message = [&location.url, &location.address]
            .iter()
            .fold(describe(&error), |message, address| message.replace(address.as_str(), &without_query(address)));
        if retries.wait_after(&error, &message) {
            continue;
        }
        return match retries.summary() {
            tried if tried.is_empty() => Err(error),
            tried => Err(error).with_context(|| format!("{} cannot be read{tried}", location.url)),
        };
    }
}

/// Makes one attempt.
fn request(location: &Location, e_tag: Option<&str>, partial: &Path) -> Result<Answer> {
    let Location { url, address, token, .. } = location;
    let mut request = agent(TIMEOUT).get(address);
    if let Some(token) = token {
        request = request.header("Authorization", format!("Bearer {token}"));
    }
    if let Some(e_tag) = e_tag {
        request = request.header("If-None-Match", e_tag);
    }
    let response = request.call().with_context(|| format!("{url} cannot be read"))?;
    let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
    match response.status().as_u16() {
        200 => {}
        304 => return Ok(Answer::Unchanged),
        status => {
            return Err(Error::Status {
                url: url.clone(),
                status,
                retry_after: header("retry-after").and_then(retry_after),
            });
        }
    }
    let e_tag = header("etag").map(ToOwned::to_owned);
    let limit = MAX_BYTES.min(cache_limit()?);
    let mut file = File::create(partial).at(partial, "written")?;
    let mut received = 0;
    read_body(url, response.into_body(), TIMEOUT, |bytes| {
        received += bytes.len() as u64;
        if received > limit {
            bail!(
                "{url}: the server states no size, and more than {limit} bytes came, expected at most as many (the \
                 lesser of {MAX_BYTES} and MM_STORAGE_CACHE_BYTES); download the file, and give its path"
            );
        }
        file.write_all(bytes).at(partial, "written")
    })?;
    file.sync_all().at(partial, "written")?;
    Ok(Answer::Received { bytes: received, e_tag })
}
