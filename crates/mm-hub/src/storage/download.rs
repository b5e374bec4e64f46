//! The content of a file of a store, written to this machine.

use super::{
    Location, STORES, describe, is_of,
    reading::{Buffer, Sink, changed, read_content},
    unsized_files::lacks_size,
};
use crate::{
    error::{At, Context, Error, Result},
    report::note,
};
use indicatif::ProgressBar;
use object_store::{Error as StoreError, ObjectMeta};
use std::{
    collections::VecDeque,
    fs::File,
    io::{Seek, Write},
    path::Path,
};

/// Larger files are read in parts of this size: a request ends after 30 s, and what came until then is kept.
const PART_BYTES: u64 = 16 << 20;

/// How many parts are read at the same time.
const CONCURRENT_PARTS: usize = 4;

/// A copy of a file on this machine, of which so many bytes are written.
struct LocalCopy<'a> {
    location: &'a Location,
    meta: &'a ObjectMeta,
    partial: &'a Path,
    file: File,
    written: u64,
    bar: &'a ProgressBar,
}

impl Sink for LocalCopy<'_> {
    fn begin(&mut self, e_tag: Option<&str>) -> Result<()> {
        check_unchanged(self.location, self.meta, e_tag)?;
        self.bar.set_position(self.bar.position().saturating_sub(self.written));
        self.written = 0;
        self.file.set_len(0).and_then(|()| self.file.rewind()).at(self.partial, "written")
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.written += bytes.len() as u64;
        self.bar.inc(bytes.len() as u64);
        self.file.write_all(bytes).at(self.partial, "written")
    }
}

/// Writes a file, of which as many bytes have to come as the server stated, in a bucket with the ETag that it stated;
/// returns false where it does not state a size again.
pub(super) async fn download(
    location: &Location,
    meta: &ObjectMeta,
    partial: &Path,
    bar: &ProgressBar,
) -> Result<bool> {
    let file = File::create(partial).at(partial, "written")?;
    let mut copy = LocalCopy { location, meta, partial, file, written: 0, bar };
    let in_parts = meta.size > PART_BYTES && read_parts(&mut copy).await?;
    if !in_parts && !read_whole(&mut copy).await? {
        return Ok(false);
    }
    if copy.written != meta.size {
        return Err(Error::Size { url: location.url.clone(), found: copy.written, expected: meta.size });
    }
    copy.file.sync_all().at(partial, "written")?;
    if meta.size > 1 << 28 {
        note(format!("copied {} ({} MB)", location.url, meta.size >> 20));
    }
    Ok(true)
}

/// The content in one answer; false where the server states no size.
async fn read_whole(copy: &mut LocalCopy<'_>) -> Result<bool> {
    let location = copy.location;
    match read_content(location, None, copy).await? {
        Ok(()) => Ok(true),
        Err(error) if lacks_size(&error) => Ok(false),
        Err(error) => Err(describe(&location.url, error)),
    }
}

/// The content in parts, several at the same time; false, and nothing written, where the server sends no parts.
async fn read_parts(copy: &mut LocalCopy<'_>) -> Result<bool> {
    let (location, meta) = (copy.location, copy.meta);
    let (mut begin, mut running, mut e_tag, size) = (0, VecDeque::new(), None, meta.size);
    loop {
        // One at first, which shows whether the server sends parts.
        let most = if e_tag.is_none() { 1 } else { CONCURRENT_PARTS };
        while running.len() < most && begin < size {
            let range = begin..size.min(begin + PART_BYTES);
            begin = range.end;
            let location = location.clone();
            running.push_back(Part(tokio::spawn(async move {
                let mut part = Buffer::default();
                Ok::<_, Error>(read_content(&location, Some(range), &mut part).await?.map(|()| part))
            })));
        }
        let Some(mut part) = running.pop_front() else { return Ok(true) };
        let part = match (&mut part.0).await.context("a part of a download was not awaited")?? {
            Ok(part) => part,
            Err(error) if e_tag.is_none() && sends_no_parts(&error) => return Ok(false),
            Err(error) => return Err(describe(&location.url, error)),
        };
        check_unchanged(location, meta, part.e_tag.as_deref())?;
        if *e_tag.get_or_insert_with(|| part.e_tag.clone()) != part.e_tag {
            return Err(changed(location));
        }
        copy.write(&part.bytes)?;
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
