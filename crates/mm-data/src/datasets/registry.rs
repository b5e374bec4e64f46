//! Readers of known data sets by name: the built-in ones and those of other crates.

use super::{
    coco, dictionary_text, easy_vqa, emoji, mosi, multimodal_sentiment, reader::DatasetReader, sort_of_clevr,
    tuxpaint_stamps,
};
use crate::Result;

/// Readers by name, in order of registration. Open to other crates: [`DatasetRegistry::register`].
///
/// ```
/// use mm_data::datasets::{DatasetReader, datasets, write_manifest};
///
/// let mut readers = datasets();
/// readers.register(DatasetReader {
///     name: "lines",
///     description: "the lines of text files",
///     prepare: |file, manifest| {
///         let text = std::fs::read_to_string(file).map_err(|e| mm_data::Error::file(file, e))?;
///         let rows: Vec<_> = text.lines().map(|line| serde_json::json!({"text": line})).collect();
///         write_manifest(manifest, &rows)
///     },
/// });
/// # let folder = tempfile::tempdir()?;
/// let (file, manifest) = (folder.path().join("a.txt"), folder.path().join("a.jsonl"));
/// std::fs::write(&file, "one line\nanother\n")?;
/// assert_eq!((readers.get("lines")?.prepare)(&file, &manifest)?, 2);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct DatasetRegistry {
    readers: Vec<DatasetReader>,
}

impl DatasetRegistry {
    /// An empty registry; [`datasets`] has the built-in readers.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a reader, or replaces the one of that name.
    pub fn register(&mut self, reader: DatasetReader) -> &mut Self {
        self.readers.retain(|known| known.name != reader.name);
        self.readers.push(reader);
        self
    }

    /// All readers.
    pub fn iter(&self) -> impl Iterator<Item = &DatasetReader> {
        self.readers.iter()
    }

    /// The reader of this name.
    ///
    /// # Errors
    /// When there is none; the nearest name is suggested.
    pub fn get(&self, name: &str) -> Result<&DatasetReader> {
        let known = self.readers.iter().map(|reader| reader.name);
        let found = self.readers.iter().find(|reader| reader.name == name);
        Ok(found.ok_or_else(|| mm_core::Error::unknown("data set", name, known))?)
    }
}

/// The readers of the data sets that mm knows.
pub fn datasets() -> DatasetRegistry {
    let mut readers = DatasetRegistry::new();
    readers
        .register(tuxpaint_stamps::READER)
        .register(emoji::READER)
        .register(dictionary_text::READER)
        .register(mosi::READER)
        .register(multimodal_sentiment::READER)
        .register(easy_vqa::READER)
        .register(easy_vqa::UNSEEN)
        .register(sort_of_clevr::READER)
        .register(coco::QUESTIONS)
        .register(coco::CAPTIONS);
    readers
}
