//! Tables that are read piece by piece.

use super::{
    BlobWriter, MissingValues, Receiver, Rows, Table, TableOptions, existing_files, read_files, rows::RowPiece,
    stop_at_error, text,
};
use crate::{Error, Result};
use std::path::Path;

/// How much of a table is in memory at a time; a piece ends with the row by which it reaches one of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PieceSize {
    /// Rows.
    pub rows: usize,
    /// Bytes of their cells and of the encoded files in them.
    pub bytes: u64,
}

impl Default for PieceSize {
    fn default() -> Self {
        Self { rows: 16_384, bytes: 64 << 20 }
    }
}

impl PieceSize {
    pub(super) fn is_reached(self, rows: usize, bytes: u64) -> bool {
        rows >= self.rows || bytes >= self.bytes
    }
}

/// How a table is read in pieces.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct PieceOptions {
    pub(in super::super) size: PieceSize,
    /// Whether the encoded files in it are stored, so that they can be read.
    pub(in super::super) has_contents: bool,
}

/// Whether a piece of a table can be in memory without the others: not those of `.json`, which is one list, and of
/// `.tar`, whose columns are known at its end.
///
/// # Errors
/// Those of [`existing_files`].
pub(in super::super) fn is_read_in_pieces(path: &Path) -> Result<bool> {
    let kinds = ["parquet", "arrow", "jsonl", "ndjson", "csv", "tsv"];
    Ok(existing_files(path)?.iter().all(|file| kinds.contains(&text::kind_of(file).as_str())))
}

impl Table {
    /// Calls `each` with tables of rows that follow one another, and the number of the rows before them. Their columns
    /// are those that were found so far.
    ///
    /// # Errors
    /// As [`Self::read`], and those of `each`.
    pub(in super::super) fn for_each_piece<E: From<Error>>(
        path: &Path,
        options: &TableOptions<'_>,
        pieces: PieceOptions,
        mut each: impl FnMut(usize, Self) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut blobs = if pieces.has_contents { BlobWriter::new(path) } else { BlobWriter::without_contents(path) };
        let mut refused = None;
        let mut pass_on = |piece: RowPiece<'_>| {
            let RowPiece { first, columns, rows, blobs } = piece;
            let table = Self { path: path.to_owned(), columns: columns.to_vec(), rows, blobs };
            stop_at_error(each(first, table), &mut refused)
        };
        let missing = MissingValues::new(options.missing_values);
        let mut rows = Rows::new(Some(missing), Receiver::Pieces(pieces.size, &mut pass_on));
        let read = read_files(path, options, &mut blobs, &mut rows);
        let read = read.and_then(|()| rows.flush(&mut blobs)).map(|()| drop(rows.finish(path)));
        refused.map_or_else(|| read.map_err(E::from), Err)
    }
}
