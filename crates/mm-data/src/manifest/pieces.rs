//! Manifests whose rows are read piece by piece.

use super::{
    ColumnInference, Columns, Manifest, ManifestConfig,
    infer::infer_columns,
    row_reader::RowReader,
    sampling::{PieceSamples, Sampled},
    schema::check_columns,
    table::{PieceOptions, PieceSize, Table, is_read_in_pieces},
    values::Files,
};
use crate::{
    Error, Result,
    fetch::{check_fetcher, resolve},
};
use std::{
    cell::RefCell,
    path::{Path, PathBuf},
};

/// A data set of one manifest that is read as often as its rows are needed, one piece after the other, so that memory
/// does not grow with their number. Its columns and rows are those of [`Manifest::open`].
///
/// A `.json` file, which is one list, and a `.tar` archive are in memory as a whole.
///
/// ```
/// # use mm_data::{ColumnInference, ManifestConfig, ManifestPieces, PieceSize};
/// # let folder = tempfile::tempdir()?;
/// std::fs::write(folder.path().join("data.csv"), "text\na red apple\ntwo green pears\na plum\n")?;
/// let config = ManifestConfig { manifest: "data.csv".into(), ..ManifestConfig::default() };
/// let size = PieceSize { rows: 2, ..PieceSize::default() };
/// let data = ManifestPieces::open(&config, folder.path(), &ColumnInference::default(), size)?;
/// let mut rows = Vec::new();
/// data.for_each_piece(true, |piece| {
///     rows.push(piece.rows.len());
///     Ok::<(), mm_data::Error>(())
/// })?;
/// assert_eq!(rows, [2, 1]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct ManifestPieces {
    path: PathBuf,
    config: ManifestConfig,
    columns: Columns,
    size: PieceSize,
    /// All rows, where they cannot be read in pieces.
    whole: Option<Manifest>,
}

impl ManifestPieces {
    /// Opens a data set as [`Manifest::open_inferring`] does. What is inferred about its columns is inferred from all
    /// rows: the table is read once to count them, and up to three times more where the config names no columns.
    ///
    /// # Errors
    /// Those of [`Manifest::open_inferring`] but for what is wrong with the cells of a row, and ids that occur twice;
    /// when the config names separate manifests for splits.
    pub fn open(
        config: &ManifestConfig,
        base: &Path,
        inference: &ColumnInference<'_>,
        size: PieceSize,
    ) -> Result<Self> {
        if config.valid.is_some() || config.test.is_some() {
            let found = "found manifests for validation or test, expected one manifest";
            return Err(Error::Config(format!("data: {found} where rows are read in pieces")));
        }
        let path = resolve(base, &config.manifest);
        config.split.check()?;
        if config.fetch_urls {
            check_fetcher()?;
        }
        if !is_read_in_pieces(&path)? {
            let manifest = Manifest::open_inferring(config, base, inference)?;
            let columns = manifest.columns.clone();
            return Ok(Self { path, config: config.clone(), columns, size, whole: Some(manifest) });
        }
        let options = PieceOptions { size, has_contents: false };
        let samples = PieceSamples::read(&path, config.columns.modalities.is_empty(), &|each| {
            Table::for_each_piece(&path, &config.table_options(), options, |first, table| {
                each(first, table);
                Ok(())
            })
        })?;
        if samples.rows == 0 {
            return Err(Error::file(path, "the manifest has no rows"));
        }
        let columns = infer_columns(&samples, &config.columns, inference);
        check_columns(&path, samples.columns(), &columns, &config.split)?;
        Ok(Self { path, config: config.clone(), columns, size, whole: None })
    }

    /// The file that is read.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How it is read.
    pub fn config(&self) -> &ManifestConfig {
        &self.config
    }

    /// Which column is what, inferred columns included.
    pub fn columns(&self) -> &Columns {
        &self.columns
    }

    /// Calls `each` with manifests of rows that follow one another. Without `has_contents` the encoded files inside the
    /// table are not stored: the rows have as many values, which cannot be read.
    ///
    /// Ids that occur twice are no error here.
    ///
    /// # Errors
    /// Those of [`Manifest::open`] that are about rows, after the rows before, and those of `each`.
    pub fn for_each_piece<E: From<Error>>(
        &self,
        has_contents: bool,
        mut each: impl FnMut(Manifest) -> Result<(), E>,
    ) -> Result<(), E> {
        let piece = |rows| Manifest { path: self.path.clone(), rows, columns: self.columns.clone() };
        if let Some(Manifest { rows, .. }) = &self.whole {
            return rows.chunks(self.size.rows.max(1)).try_for_each(|rows| each(piece(rows.to_vec())));
        }
        let folder = self.path.parent().unwrap_or(Path::new(".")).to_owned();
        let options = PieceOptions { size: self.size, has_contents };
        Table::for_each_piece(&self.path, &self.config.table_options(), options, |first, table| {
            let (blobs, fetch_urls) = (table.blobs.as_deref(), self.config.fetch_urls);
            let reader = RowReader {
                path: &self.path,
                files: Files::OfTable { folder: &folder, blobs, fetch_urls },
                columns: &self.columns,
                split: &self.config.split,
                file_split: None,
                packer: RefCell::default(),
            };
            let (mut rows, mut refused) = (Vec::with_capacity(table.rows.len()), None);
            for (number, cells) in (first + 1..).zip(table.rows) {
                match reader.read(number, cells) {
                    Ok(row) => rows.push(row),
                    Err(error) => {
                        refused = Some(error);
                        break;
                    }
                }
            }
            each(piece(rows))?;
            refused.map_or(Ok(()), |error| Err(error.into()))
        })
    }
}
