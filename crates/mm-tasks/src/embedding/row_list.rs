//! Which values the rows of a data set have, in a temporary file: what is needed of all rows at once.

use crate::{Error, Result};
use mm_core::Modality;
use mm_data::{Manifest, ManifestPieces};
use std::{
    collections::{BTreeSet, HashMap, HashSet, hash_map::DefaultHasher},
    fs::File,
    hash::{Hash, Hasher},
    io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write},
    sync::Mutex,
};

/// Bytes that are read or written at once.
const BUFFER: usize = 1 << 20;

/// Hashes of ids that are in memory at a time, 8 bytes each.
const MAX_HASHES: usize = 1 << 22;

/// A data set whose rows are listed: the id of each and its number of values of each modality.
///
/// The list is an unnamed temporary file in mm's cache folder, of some 20 bytes a row. Nothing in memory grows with the
/// number of rows.
pub struct RowList {
    pub(super) data: ManifestPieces,
    /// Those that have a column, in the order of the counts.
    modalities: Vec<Modality>,
    rows: usize,
    /// Of each modality, the number of its values and of rows without any.
    totals: Vec<usize>,
    /// Those of which a row has a value.
    present: BTreeSet<Modality>,
    file: Mutex<File>,
}

/// A row of the list.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ListedRow {
    pub(super) id: String,
    /// Its number of values of each modality.
    counts: Vec<u32>,
}

/// One value of a data set, or its absence from a row.
pub(super) struct Entry<'a> {
    /// Its place among all entries.
    pub(super) index: usize,
    pub(super) id: String,
    /// The number of its row.
    pub(super) row: usize,
    pub(super) modality: &'a Modality,
    /// The index among the row's values of the modality; `None` when the row has none, whose vector is missing.
    pub(super) value: Option<usize>,
}

impl Entry<'_> {
    /// Why the row of an absent value has no vector.
    pub(super) fn absence(&self) -> String {
        format!("the row has no {}", self.modality)
    }
}

impl RowList {
    /// Reads a data set once.
    ///
    /// # Errors
    /// Those of [`Manifest::open`] that are about rows and their ids; when the list cannot be written.
    pub fn read(data: ManifestPieces) -> Result<Self> {
        Self::read_hashing(data, MAX_HASHES)
    }

    fn read_hashing(data: ManifestPieces, max_hashes: usize) -> Result<Self> {
        let modalities: Vec<Modality> = data.columns().modalities.keys().map(|m| Modality::from(m.as_str())).collect();
        let file = create_file()?;
        let mut writer = BufWriter::with_capacity(BUFFER, file);
        let (mut rows, mut totals, mut present) = (0, vec![0; modalities.len()], BTreeSet::new());
        let read = data.for_each_piece(false, |piece: Manifest| {
            for row in piece.rows {
                let counts = modalities.iter().map(|m| row.values.get(m).map_or(0, Vec::len) as u32).collect();
                let row = ListedRow { id: row.id, counts };
                for ((count, total), modality) in row.counts.iter().zip(&mut totals).zip(&modalities) {
                    *total += (*count as usize).max(1);
                    if *count > 0 && !present.contains(modality) {
                        present.insert(modality.clone());
                    }
                }
                row.write(&mut writer).map_err(unwritten)?;
                rows += 1;
            }
            Ok::<(), Error>(())
        });
        let file = Mutex::new(writer.into_inner().map_err(|e| unwritten(e.into_error()))?);
        let list = Self { data, modalities, rows, totals, present, file };
        // An id of an earlier row goes before what is wrong with a later one.
        list.check_ids(max_hashes)?;
        read.map(|()| list)
    }

    /// The modalities that at least one row has.
    pub(super) fn present(&self) -> &BTreeSet<Modality> {
        &self.present
    }

    /// The number of entries of a modality: its values, and the rows without.
    pub(super) fn entries_of(&self, modality: &Modality) -> usize {
        let at = self.modalities.iter().position(|known| known == modality);
        at.map_or(0, |at| self.totals[at])
    }

    /// The rows in order.
    pub(super) fn rows(&self) -> impl Iterator<Item = io::Result<ListedRow>> {
        let mut reader = BufReader::with_capacity(BUFFER, FileFromStart { file: &self.file, offset: 0 });
        (0..self.rows).map(move |_| ListedRow::read(&mut reader, self.modalities.len()))
    }

    /// All values of these modalities, and for each row without a value its absence: those of a modality after those of
    /// the one before it.
    pub(super) fn entries<'a>(&'a self, modalities: &'a [Modality]) -> impl Iterator<Item = io::Result<Entry<'a>>> {
        let of_row = move |modality: &'a Modality, listed: ListedRow, row: usize| -> Vec<io::Result<Entry<'a>>> {
            let count = self.count(&listed, modality);
            let entry = |place| {
                let value = (count > 0).then_some(place);
                Ok(Entry { index: 0, id: listed.id.clone(), row, modality, value })
            };
            (0..count.max(1)).map(entry).collect()
        };
        let of_modality = move |modality: &'a Modality| {
            let rows = self.rows().zip(1..);
            rows.flat_map(move |(listed, row)| match listed {
                Ok(listed) => of_row(modality, listed, row),
                Err(error) => vec![Err(error)],
            })
        };
        modalities.iter().flat_map(of_modality).enumerate().map(|(index, entry)| Ok(Entry { index, ..entry? }))
    }

    /// The number of values that a row has.
    fn count(&self, row: &ListedRow, modality: &Modality) -> usize {
        let at = self.modalities.iter().position(|known| known == modality);
        at.and_then(|at| row.counts.get(at)).map_or(0, |count| *count as usize)
    }

    /// Whether a listed row has this id, and this number of values of a modality.
    pub(super) fn is_listed(&self, row: &ListedRow, id: &str, modality: &Modality, count: usize) -> bool {
        row.id == id && self.count(row, modality) == count
    }

    /// Refuses ids that occur twice. Hashes of ids are compared, of as many as `max_hashes` at a time, and then the ids
    /// whose hashes are equal.
    fn check_ids(&self, max_hashes: usize) -> Result<()> {
        if self.data.columns().id.is_none() {
            return Ok(());
        }
        let parts = self.rows.div_ceil(max_hashes).max(1) as u64;
        let mut first: Option<(String, usize, usize)> = None;
        for part in 0..parts {
            let end = first.as_ref().map_or(self.rows, |(_, _, row)| *row);
            first = self.repeated_id(|hash| hash % parts == part, end).map_err(unread)?.or(first);
        }
        let Some((id, first, row)) = first else { return Ok(()) };
        let reason = format!("the id `{id}` was already used in row {first}; ids must be unique");
        Err(mm_data::Error::Row { path: self.data.path().to_owned(), row, reason }.into())
    }

    /// Among the first rows, up to `end`, the first with an id of an earlier one, of those ids whose hash is of a part:
    /// the id and both rows.
    fn repeated_id(&self, is_of_part: impl Fn(u64) -> bool, end: usize) -> io::Result<Option<(String, usize, usize)>> {
        let mut hashes = Vec::new();
        for row in self.rows().take(end) {
            hashes.extend(Some(hash(&row?.id)).filter(|hash| is_of_part(*hash)));
        }
        hashes.sort_unstable();
        let repeated: HashSet<u64> = hashes.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0]).collect();
        if repeated.is_empty() {
            return Ok(None);
        }
        drop(hashes);
        let mut seen: HashMap<String, usize> = HashMap::new();
        for (row, number) in self.rows().take(end).zip(1..) {
            let id = row?.id;
            if !repeated.contains(&hash(&id)) {
                continue;
            }
            if let Some(first) = seen.get(&id) {
                return Ok(Some((id, *first, number)));
            }
            seen.insert(id, number);
        }
        Ok(None)
    }
}

impl ListedRow {
    fn write(&self, out: &mut impl Write) -> io::Result<()> {
        out.write_all(&(self.id.len() as u32).to_le_bytes())?;
        out.write_all(self.id.as_bytes())?;
        self.counts.iter().try_for_each(|count| out.write_all(&count.to_le_bytes()))
    }

    fn read(from: &mut impl Read, modalities: usize) -> io::Result<Self> {
        let mut id = vec![0; read_number(from)? as usize];
        from.read_exact(&mut id)?;
        let counts = (0..modalities).map(|_| read_number(from)).collect::<io::Result<_>>()?;
        Ok(Self { id: String::from_utf8(id).map_err(io::Error::other)?, counts })
    }
}

fn read_number(from: &mut impl Read) -> io::Result<u32> {
    let mut bytes = [0; 4];
    from.read_exact(&mut bytes)?;
    Ok(u32::from_le_bytes(bytes))
}

/// Reads a file, which others read as well, from its start.
struct FileFromStart<'a> {
    file: &'a Mutex<File>,
    offset: u64,
}

impl Read for FileFromStart<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut file = self.file.lock().map_err(|_| io::Error::other("another thread that read it panicked"))?;
        file.seek(SeekFrom::Start(self.offset))?;
        let count = file.read(buffer)?;
        self.offset += count as u64;
        Ok(count)
    }
}

/// A file without a name.
fn create_file() -> Result<File> {
    let folder = mm_core::cache_dir();
    std::fs::create_dir_all(&folder).map_err(unwritten)?;
    tempfile::tempfile_in(folder).map_err(unwritten)
}

fn unwritten(error: io::Error) -> Error {
    let reason = format!("the list of rows cannot be written to a temporary file there: {error}");
    Error::file(mm_core::cache_dir(), reason)
}

/// The error of a list that cannot be read again.
pub(super) fn unread(error: io::Error) -> Error {
    Error::file(mm_core::cache_dir(), format!("the list of rows, a temporary file there, cannot be read: {error}"))
}

fn hash(id: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests;
