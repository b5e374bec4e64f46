//! Raw values of samples.

use super::{DecodedAudio, DecodedImage};
use crate::{Error, Result, cells::Record};
use std::{
    borrow::Cow,
    fmt,
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

/// One raw value of a sample.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Source {
    /// Text itself.
    Text(String),
    /// A file to be read.
    Path(PathBuf),
    /// An encoded file (jpeg, wav, …) that is not a file of its own, such as an image inside a Parquet table.
    Bytes(EncodedFile),
    /// An image that is decoded already.
    Image(DecodedImage),
    /// Audio that is decoded already.
    Samples(DecodedAudio),
    /// Any other value (numbers, lists, objects), for modalities of other crates.
    Value(serde_json::Value),
    /// The cells of several columns of a row, for modalities of other crates: an object of cells by column name.
    Record(Record),
}

impl Source {
    /// The value of [`Source::Value`] and, as an object, of [`Source::Record`]; `None` of texts and files.
    ///
    /// ```
    /// use mm_core::{Source, cells::RecordPacker};
    /// let cells = serde_json::json!({"age": 4, "breed": "husky"});
    /// let record = RecordPacker::default().pack(cells.as_object().unwrap());
    /// assert_eq!(Source::Record(record).json().as_deref(), Some(&cells));
    /// assert_eq!(Source::Text("a dog".into()).json(), None);
    /// ```
    pub fn json(&self) -> Option<Cow<'_, serde_json::Value>> {
        match self {
            Self::Value(value) => Some(Cow::Borrowed(value)),
            Self::Record(record) => Some(Cow::Owned(record.to_object().into())),
            _ => None,
        }
    }
}

macro_rules! from {
    ($($kind:ty => $variant:ident;)*) => {$(
        impl From<$kind> for Source {
            fn from(value: $kind) -> Self {
                Self::$variant(value)
            }
        }
    )*};
}
from! {
    String => Text;
    PathBuf => Path;
    EncodedFile => Bytes;
    DecodedImage => Image;
    DecodedAudio => Samples;
    serde_json::Value => Value;
    Record => Record;
}

impl From<&str> for Source {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

/// An encoded file (jpeg, wav, …) that is not named by its path: held in memory, a part of a larger file from which it
/// is read whenever it is needed, or downloaded when it is first read. Copies share the bytes.
///
/// ```
/// let file = mm_core::EncodedFile::in_memory("dot.png", vec![1, 2, 3]);
/// assert_eq!((file.name(), file.len(), &*file.read()?), ("dot.png", 3, &[1u8, 2, 3][..]));
/// # Ok::<(), mm_core::Error>(())
/// ```
#[derive(Clone)]
pub struct EncodedFile {
    name: Arc<str>,
    digest: [u8; 32],
    length: usize,
    data: Data,
}

#[derive(Clone)]
enum Data {
    Memory(Arc<[u8]>),
    Part { file: Arc<Mutex<File>>, offset: u64 },
    PartOf { path: Arc<Path>, offset: u64 },
    PartOfRemote { read: ReadPart, offset: u64 },
    Remote(Arc<dyn Fn() -> Result<PathBuf> + Send + Sync>),
}

/// Reads so many bytes of a file that is elsewhere, from an offset on.
pub type ReadPart = Arc<dyn Fn(u64, usize) -> Result<Vec<u8>> + Send + Sync>;

impl EncodedFile {
    /// Bytes in memory. The name is used in messages; its extension helps decoders that need one.
    pub fn in_memory(name: impl Into<Arc<str>>, bytes: impl Into<Arc<[u8]>>) -> Self {
        let bytes = bytes.into();
        let digest = *blake3::hash(&bytes).as_bytes();
        Self { name: name.into(), digest, length: bytes.len(), data: Data::Memory(bytes) }
    }

    /// `length` bytes of `file` from `offset` on, whose blake3 hash is `digest`.
    pub fn in_file(
        name: impl Into<Arc<str>>,
        file: Arc<Mutex<File>>,
        offset: u64,
        length: usize,
        digest: [u8; 32],
    ) -> Self {
        Self { name: name.into(), digest, length, data: Data::Part { file, offset } }
    }

    /// `length` bytes of the file at `path` from `offset` on, whose blake3 hash is `digest`. The file is opened whenever
    /// they are read, so that any number of files can be in use.
    pub fn in_path(
        name: impl Into<Arc<str>>,
        path: impl Into<Arc<Path>>,
        offset: u64,
        length: usize,
        digest: [u8; 32],
    ) -> Self {
        Self { name: name.into(), digest, length, data: Data::PartOf { path: path.into(), offset } }
    }

    /// `length` bytes from `offset` on of a file that is elsewhere, whose blake3 hash is `digest`. They are requested
    /// whenever they are read; other bytes than these are an error.
    ///
    /// ```
    /// use mm_core::EncodedFile;
    /// let digest = *blake3::hash(b"cat").as_bytes();
    /// let read = |offset: u64, length: usize| Ok(b"a cat sleeps"[offset as usize..][..length].to_vec());
    /// let file = EncodedFile::in_remote("cat.txt", std::sync::Arc::new(read), 2, 3, digest);
    /// assert_eq!(&*file.read()?, b"cat");
    /// # Ok::<(), mm_core::Error>(())
    /// ```
    pub fn in_remote(name: impl Into<Arc<str>>, read: ReadPart, offset: u64, length: usize, digest: [u8; 32]) -> Self {
        Self { name: name.into(), digest, length, data: Data::PartOfRemote { read, offset } }
    }

    /// The file at a URL; `fetch` downloads it, unless it is there, and returns where it is. The file is identified by
    /// its URL: what is derived from it (a cached feature, say) stays valid until mm's cache is deleted.
    ///
    /// ```
    /// # let folder = tempfile::tempdir()?;
    /// let copy = folder.path().join("dot.png");
    /// std::fs::write(&copy, [1, 2, 3])?;
    /// let file = mm_core::EncodedFile::remote("https://example.org/dot.png", move || Ok(copy.clone()));
    /// assert_eq!((file.name(), &*file.read()?), ("https://example.org/dot.png", &[1u8, 2, 3][..]));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn remote(url: impl Into<Arc<str>>, fetch: impl Fn() -> Result<PathBuf> + Send + Sync + 'static) -> Self {
        let name = url.into();
        let digest = *blake3::hash(format!("url {name}").as_bytes()).as_bytes();
        Self { name, digest, length: 0, data: Data::Remote(Arc::new(fetch)) }
    }

    /// The name for messages; of a remote file, its URL.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Number of bytes; 0 of a remote file, which is not fetched for it.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether there are no bytes; false of a remote file.
    pub fn is_empty(&self) -> bool {
        self.length == 0 && !matches!(self.data, Data::Remote(_))
    }

    /// The blake3 hash of the bytes; of a remote file, that of its URL.
    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// The path of a file that holds these bytes and nothing else: that of a remote file, which is fetched; none of
    /// bytes in memory or inside a larger file.
    ///
    /// # Errors
    /// When the file cannot be fetched.
    pub fn path(&self) -> Result<Option<PathBuf>> {
        match &self.data {
            Data::Remote(fetch) => fetch().map(Some),
            Data::Memory(_) | Data::Part { .. } | Data::PartOf { .. } | Data::PartOfRemote { .. } => Ok(None),
        }
    }

    /// The bytes.
    ///
    /// # Errors
    /// When the larger file cannot be read, or a remote file cannot be fetched.
    pub fn read(&self) -> Result<Cow<'_, [u8]>> {
        match &self.data {
            Data::Memory(bytes) => Ok(Cow::Borrowed(bytes)),
            Data::Part { file, offset } => {
                let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
                read_part(&mut file, *offset, self.length).map(Cow::Owned).map_err(|e| self.unreadable(&e))
            }
            Data::PartOf { path, offset } => {
                let read = File::open(path).and_then(|mut file| read_part(&mut file, *offset, self.length));
                let within = |e| Error::Sample(format!("{}: {} cannot be read: {e}", path.display(), self.name));
                read.map(Cow::Owned).map_err(within)
            }
            Data::PartOfRemote { read, offset } => {
                let bytes = read(*offset, self.length)?;
                if *blake3::hash(&bytes).as_bytes() != self.digest {
                    let reason = "found other bytes than when the table was read: its file has changed meanwhile";
                    return Err(Error::Sample(format!("{}: {reason}; start again", self.name)));
                }
                Ok(Cow::Owned(bytes))
            }
            Data::Remote(fetch) => std::fs::read(fetch()?).map(Cow::Owned).map_err(|e| self.unreadable(&e)),
        }
    }

    fn unreadable(&self, error: &std::io::Error) -> Error {
        Error::Sample(format!("{}: cannot be read: {error}", self.name))
    }
}

/// `length` bytes of a file from `offset` on.
///
/// # Errors
/// When the file cannot be read, or has no such bytes.
pub fn read_part(file: &mut File, offset: u64, length: usize) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    file.seek(SeekFrom::Start(offset)).and_then(|_| file.read_exact(&mut bytes)).map(|()| bytes)
}

impl PartialEq for EncodedFile {
    fn eq(&self, other: &Self) -> bool {
        self.digest == other.digest
    }
}

impl fmt::Debug for EncodedFile {
    /// Name, length and hash: different bytes are written differently.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digest: String = self.digest[..16].iter().map(|b| format!("{b:02x}")).collect();
        write!(f, "EncodedFile({}, {} bytes, {digest})", self.name, self.length)
    }
}
