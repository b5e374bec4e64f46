//! The content of files of stores and web servers. A connection that breaks within it is reported, and the rest is asked
//! for on the condition that the file is still the same (`If-Match`): two versions of a file are never mixed.

use super::{
    Location,
    retrying::{Attempts, Failure},
    root_cause,
};
use crate::error::{Error, Result};
use object_store::{Error as StoreError, GetOptions, GetRange, GetResult, ObjectStore};
use std::ops::Range;

/// What takes a content.
pub(super) trait Sink: Send {
    /// A content begins, that of the version with this ETag; what came before is dropped.
    fn begin(&mut self, e_tag: Option<&str>) -> Result<()>;

    fn write(&mut self, bytes: &[u8]) -> Result<()>;
}

/// A content in memory.
#[derive(Default)]
pub(super) struct Buffer {
    pub bytes: Vec<u8>,
    pub e_tag: Option<String>,
}

impl Sink for Buffer {
    fn begin(&mut self, e_tag: Option<&str>) -> Result<()> {
        self.bytes.clear();
        self.e_tag = e_tag.map(ToOwned::to_owned);
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }
}

/// A content of which a part has come.
struct Begun {
    e_tag: Option<String>,
    range: Range<u64>,
    received: u64,
}

impl Begun {
    fn new(found: &GetResult) -> Self {
        Self { e_tag: found.meta.e_tag.clone(), range: found.range.clone(), received: 0 }
    }

    fn missing(&self) -> Range<u64> {
        self.range.start + self.received..self.range.end
    }

    /// Whether the rest can be asked for. A weak ETag may be that of other bytes, and meets no `If-Match`.
    fn can_be_resumed(&self) -> bool {
        self.received > 0 && self.e_tag.as_ref().is_some_and(|e_tag| !e_tag.starts_with("W/"))
    }

    /// Why a content ended before its end.
    fn broken(&self, cause: &str) -> Failure {
        let Range { start, end } = self.range;
        let begin = if start > 0 { format!(" from byte {start} on") } else { String::new() };
        let (received, length) = (self.received, end - start);
        Failure::temporary(format!("the connection broke after {received} of {length} bytes{begin} ({cause})"))
    }
}

/// Passes a file, or a range of it, on to a sink. The inner error is one of the store.
pub(super) async fn read_content(
    location: &Location,
    range: Option<Range<u64>>,
    sink: &mut impl Sink,
) -> Result<Result<(), StoreError>> {
    let attempts = Attempts::new(location.retries);
    let mut begun: Option<Begun> = None;
    loop {
        let resumed = begun.take().filter(Begun::can_be_resumed);
        let options = options(range.clone(), resumed.as_ref(), &attempts);
        let found = match location.store.get_opts(&location.path, options).await {
            Ok(found) => found,
            Err(StoreError::Precondition { .. }) if resumed.is_some() => return Err(changed(location)),
            // The server sends no parts: from the beginning.
            Err(StoreError::NotSupported { .. }) if resumed.is_some() => continue,
            Err(error) => return Ok(Err(error)),
        };
        let mut content = match resumed {
            Some(resumed) if resumed.e_tag == found.meta.e_tag => resumed,
            Some(_) => return Err(changed(location)),
            None => {
                sink.begin(found.meta.e_tag.as_deref())?;
                Begun::new(&found)
            }
        };
        let Some(failure) = pass_on(found, &mut content, sink).await? else { return Ok(Ok(())) };
        match attempts.pause(&location.url, failure) {
            Ok(pause) => tokio::time::sleep(pause).await,
            Err(exhausted) => return Ok(Err(StoreError::Generic { store: "body", source: Box::new(exhausted) })),
        }
        begun = Some(content);
    }
}

/// The request of a range, or of what is missing of it.
fn options(range: Option<Range<u64>>, resumed: Option<&Begun>, attempts: &Attempts) -> GetOptions {
    let range = resumed.map(Begun::missing).or(range);
    let if_match = resumed.and_then(|begun| begun.e_tag.clone());
    let mut options = GetOptions { range: range.map(GetRange::Bounded), if_match, ..GetOptions::default() };
    options.extensions.insert(attempts.clone());
    options
}

/// Passes on what comes of an answer; how it broke, if it did.
async fn pass_on(found: GetResult, content: &mut Begun, sink: &mut impl Sink) -> Result<Option<Failure>> {
    use tokio_stream::StreamExt;
    let mut chunks = found.into_stream();
    loop {
        match chunks.next().await {
            Some(Ok(bytes)) => {
                content.received += bytes.len() as u64;
                sink.write(&bytes)?;
            }
            _ if content.missing().is_empty() => return Ok(None),
            Some(Err(error)) => return Ok(Some(content.broken(&root_cause(&error)))),
            None => return Ok(Some(content.broken("the server ended it"))),
        }
    }
}

/// The error of a file of which two versions would be mixed.
pub(super) fn changed(location: &Location) -> Error {
    Error::Other(format!("{}: it changed while it was copied; run again", location.url))
}
