//! The content of a file of a store, written to this machine.

use super::{Location, STORES, describe, is_of, unsized_files::lacks_size};
use crate::{
    error::{At, Context, Error, Result},
    report::note,
};
use indicatif::ProgressBar;
use object_store::{Error as StoreError, GetOptions, GetRange, ObjectMeta, ObjectStoreExt};
use std::{collections::VecDeque, fs::File, io::Write, path::Path};

/// Larger files are read in parts of this size: a request ends after 30 s, and what came until then is kept.
const PART_BYTES: u64 = 16 << 20;

/// How many parts are read at the same time.
const CONCURRENT_PARTS: usize = 4;

/// Writes a file, of which as many bytes have to come as the server stated, in a bucket with the ETag that it stated;
/// returns false where it does not state a size again.
pub(super) async fn download(
    location: &Location,
    meta: &ObjectMeta,
    partial: &Path,
    bar: &ProgressBar,
) -> Result<bool> {
    let mut file = File::create(partial).at(partial, "written")?;
    let mut received = 0;
    let mut write = |bytes: &[u8]| {
        received += bytes.len() as u64;
        bar.inc(bytes.len() as u64);
        file.write_all(bytes).at(partial, "written")
    };
    let in_parts = meta.size > PART_BYTES && read_parts(location, meta, &mut write).await?;
    if !in_parts && !read_whole(location, meta, &mut write).await? {
        return Ok(false);
    }
    if received != meta.size {
        return Err(Error::Size { url: location.url.clone(), found: received, expected: meta.size });
    }
    file.sync_all().at(partial, "written")?;
    if meta.size > 1 << 28 {
        note(format!("copied {} ({} MB)", location.url, meta.size >> 20));
    }
    Ok(true)
}

/// The content in one answer; false where the server states no size.
async fn read_whole(
    location: &Location,
    meta: &ObjectMeta,
    write: &mut impl FnMut(&[u8]) -> Result<()>,
) -> Result<bool> {
    use tokio_stream::StreamExt;
    let found = match location.store.get(&location.path).await {
        Ok(found) => found,
        Err(error) if lacks_size(&error) => return Ok(false),
        Err(error) => return Err(describe(&location.url, error)),
    };
    check_unchanged(location, meta, found.meta.e_tag.as_deref())?;
    let mut chunks = found.into_stream();
    while let Some(chunk) = chunks.next().await {
        write(&chunk.map_err(|e| describe(&location.url, e))?)?;
    }
    Ok(true)
}

/// The content in parts, several at the same time; false, and nothing written, where the server sends no parts.
async fn read_parts(
    location: &Location,
    meta: &ObjectMeta,
    write: &mut impl FnMut(&[u8]) -> Result<()>,
) -> Result<bool> {
    let (mut begin, mut running, mut e_tag, size) = (0, VecDeque::new(), None, meta.size);
    loop {
        // One at first, which shows whether the server sends parts.
        let most = if e_tag.is_none() { 1 } else { CONCURRENT_PARTS };
        while running.len() < most && begin < size {
            let range = begin..size.min(begin + PART_BYTES);
            begin = range.end;
            let (store, path) = (location.store.clone(), location.path.clone());
            let options = GetOptions { range: Some(GetRange::Bounded(range)), ..GetOptions::default() };
            running.push_back(Part(tokio::spawn(async move {
                let part = store.get_opts(&path, options).await?;
                let e_tag = part.meta.e_tag.clone();
                Ok::<_, StoreError>((e_tag, part.bytes().await?))
            })));
        }
        let Some(mut part) = running.pop_front() else { return Ok(true) };
        let (part_tag, bytes) = match (&mut part.0).await.context("a part of a download was not awaited")? {
            Ok(part) => part,
            Err(error) if e_tag.is_none() && sends_no_parts(&error) => return Ok(false),
            Err(error) => return Err(describe(&location.url, error)),
        };
        check_unchanged(location, meta, part_tag.as_deref())?;
        if *e_tag.get_or_insert_with(|| part_tag.clone()) != part_tag {
            return Err(changed(location));
        }
        write(&bytes)?;
    }
}

/// Refuses a content of a bucket that is not the one that was stated. (Web servers may state another ETag to `HEAD`.)
fn check_unchanged(location: &Location, meta: &ObjectMeta, found: Option<&str>) -> Result<()> {
    let plain = |e_tag: &str| e_tag.trim().trim_start_matches("W/").trim_matches('"').to_owned();
    let stated = meta.e_tag.as_deref().filter(|_| is_of(&location.url, &STORES));
    match (stated.map(plain), found.map(plain)) {
        (Some(stated), Some(found)) if stated != found => Err(changed(location)),
        _ => Ok(()),
    }
}

fn changed(location: &Location) -> Error {
    Error::Other(format!("{}: it changed while it was copied; run again", location.url))
}

fn sends_no_parts(error: &StoreError) -> bool {
    matches!(error, StoreError::NotSupported { .. }) || lacks_size(error)
}

/// A part that is being read; not any more once it is not awaited.
struct Part<T>(tokio::task::JoinHandle<T>);

impl<T> Drop for Part<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
