//! Where the readers of tables put rows.

use super::{BlobWriter, Blobs, Cells, PieceSize, missing::MissingValues};
use crate::Result;
use mm_core::cells::{Record, RecordPacker};
use std::{collections::HashSet, path::Path, sync::Arc};

/// Rows that follow one another.
pub(super) struct RowPiece<'a> {
    /// The number of rows before them.
    pub(super) first: usize,
    /// The columns so far.
    pub(super) columns: &'a [String],
    pub(super) rows: Vec<Record>,
    /// Their encoded files.
    pub(super) blobs: Option<Arc<Blobs>>,
}

/// What becomes of rows.
pub(super) enum Receiver<'a> {
    /// All stay in memory.
    Table,
    /// Whenever those in memory have this size, they are passed on.
    Pieces(PieceSize, &'a mut dyn FnMut(RowPiece<'_>) -> Result<()>),
    /// Each is passed on.
    Single(&'a mut dyn FnMut(Cells) -> Result<()>),
}

/// Rows and columns as readers find them; only one row at a time is in memory as a map.
pub(super) struct Rows<'a> {
    columns: Vec<String>,
    known: HashSet<String>,
    records: Vec<Record>,
    /// Bytes of the records in memory.
    size: usize,
    /// The number of rows so far.
    count: usize,
    packer: RecordPacker,
    /// What stands for a missing value; nothing does where rows are passed on as they are.
    missing: Option<MissingValues>,
    /// The split of the rows that follow, where a folder says so.
    split: Option<String>,
    /// Whether the rows that follow are of one piece, whatever their size.
    is_joined: bool,
    receiver: Receiver<'a>,
}

impl<'a> Rows<'a> {
    pub(super) fn new(missing: Option<MissingValues>, receiver: Receiver<'a>) -> Self {
        let (columns, known, records, packer) = Default::default();
        Self { columns, known, records, size: 0, count: 0, packer, missing, split: None, is_joined: false, receiver }
    }

    /// Adds a column to those of all rows, which are in the order in which they occur.
    pub(super) fn declare(&mut self, column: &str) {
        if !self.known.contains(column) {
            self.known.insert(column.to_owned());
            self.columns.push(column.to_owned());
        }
    }

    /// Gives the rows that follow, until the next call, the split that they are in, unless they name one themselves.
    pub(super) fn set_split(&mut self, split: Option<String>) {
        self.split = split;
    }

    /// Whether the rows that follow, until the next call, are of one piece: those whose files are stored before any of
    /// them is pushed.
    pub(super) fn set_joined(&mut self, is_joined: bool) {
        self.is_joined = is_joined;
    }

    /// The number of rows so far.
    #[cfg(feature = "arrow")]
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// Keeps a row in memory.
    pub(super) fn add(&mut self, mut row: Cells) {
        self.prepare(&mut row);
        let record = self.packer.pack(&row);
        self.size += record.size();
        self.records.push(record);
    }

    /// Counts a row and its columns, and puts null for missing values.
    fn prepare(&mut self, row: &mut Cells) {
        if let Some(split) = &self.split {
            row.entry("split").or_insert_with(|| split.as_str().into());
        }
        row.keys().for_each(|column| self.declare(column));
        if let Some(missing) = &mut self.missing {
            missing.remove(row);
        }
        self.count += 1;
    }

    /// Takes a row, whose encoded files are in `blobs`, and passes on what is to be passed on.
    pub(super) fn push(&mut self, mut row: Cells, blobs: &mut BlobWriter<'_>) -> Result<()> {
        if matches!(self.receiver, Receiver::Single(_)) {
            self.prepare(&mut row);
            let Receiver::Single(each) = &mut self.receiver else { return Ok(()) };
            return each(row);
        }
        self.add(row);
        let is_full = match &self.receiver {
            Receiver::Pieces(limit, _) => limit.is_reached(self.records.len(), self.size as u64 + blobs.size()),
            _ => false,
        };
        if is_full && !self.is_joined { self.flush(blobs) } else { Ok(()) }
    }

    /// Passes on the rows in memory where they are read in pieces.
    pub(super) fn flush(&mut self, blobs: &mut BlobWriter<'_>) -> Result<()> {
        let Receiver::Pieces(_, each) = &mut self.receiver else { return Ok(()) };
        if self.records.is_empty() {
            return Ok(());
        }
        let rows = std::mem::take(&mut self.records);
        self.size = 0;
        each(RowPiece { first: self.count - rows.len(), columns: &self.columns, rows, blobs: blobs.finish() })
    }

    /// The columns of the table `path`, and the rows in memory; says which texts were read as missing values.
    pub(super) fn finish(self, path: &Path) -> (Vec<String>, Vec<Record>) {
        if let Some(missing) = &self.missing {
            missing.tell(path);
        }
        (self.columns, self.records)
    }
}
