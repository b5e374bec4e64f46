//! Multimodal sentiment analysis: CMU-MOSI, CMU-MOSEI and CH-SIMS in the formats in which they are published.
//!
//! These are the pickles of MMSA and MultiBench, CMU's computational sequences (`.csd`, which are HDF5), and the
//! `X_train.h5` and `y_train.h5` of the authors of [MFN](https://arxiv.org/abs/1802.00927) (Zadeh et al., 2018).

#[cfg(feature = "pickle")]
use super::sentiment_pickles::read_file;
use super::{DatasetReader, sequence_store::SequenceStore, write_manifest};
use crate::{Error, Result};
use serde_json::Value;
use std::path::{Path, PathBuf};

pub(super) const READER: DatasetReader = DatasetReader {
    name: "mosei",
    description: "CMU-MOSEI or CH-SIMS: the same with features over time (MMSA's or MultiBench's .pkl, a folder of .csd files, or \
                  X_train.h5 and y_train.h5)",
    prepare: |from, manifest| write_manifest(manifest, &rows(from, manifest)?),
};

/// Rows of a pickle, or of a folder of `.csd` or `.h5` files.
pub(super) fn rows(from: &Path, manifest: &Path) -> Result<Vec<Value>> {
    if let Some(parent) = manifest.parent() {
        std::fs::create_dir_all(parent).map_err(|e| Error::file(parent, e))?;
    }
    let mut store = SequenceStore::new(manifest);
    let read = || if from.is_file() { read_file(from, &mut store) } else { read_folder(from, &mut store) };
    let rows = crate::catching_panics(read).map_err(|e| Error::file(from, e))??;
    store.finish()?;
    Ok(rows)
}

/// Detects which format the files of a folder are in.
fn read_folder(folder: &Path, store: &mut SequenceStore<'_>) -> Result<Vec<Value>> {
    let files = super::walk(folder)?;
    let with_extension = |known: &[&str]| -> Vec<&PathBuf> {
        files
            .iter()
            .filter(|f| f.extension().is_some_and(|e| known.iter().any(|k| e.eq_ignore_ascii_case(k))))
            .collect()
    };
    let pickles = with_extension(&["pkl", "pickle"]);
    if let [one] = pickles.as_slice() {
        return read_file(one, store);
    }
    let (csd, h5) = (with_extension(&["csd", "hdf5"]), with_extension(&["h5"]));
    #[cfg(feature = "hdf5")]
    if !csd.is_empty() {
        return super::computational_sequences::labeled_intervals(folder, &csd, store);
    } else if !h5.is_empty() {
        return super::computational_sequences::aligned_arrays(folder, store);
    }
    #[cfg(not(feature = "hdf5"))]
    if let Some(file) = csd.first().or(h5.first()) {
        return Err(Error::file(
            file.as_path(),
            "HDF5 is not supported by this build; build mm-data with its `hdf5` feature",
        ));
    }
    let names = pickles.iter().take(5).filter_map(|p| p.file_name()).map(|n| n.to_string_lossy()).collect::<Vec<_>>();
    let found = if names.is_empty() {
        "none of these".to_owned()
    } else {
        format!("the pickles {} (pass the path of one)", names.join(", "))
    };
    Err(Error::file(
        folder,
        format!(
            "found {found}, expected utterances.csv with its arrays, one .pkl, .csd files, or X_train.h5 and y_train.h5"
        ),
    ))
}

#[cfg(not(feature = "pickle"))]
fn read_file(path: &Path, _: &mut SequenceStore<'_>) -> Result<Vec<Value>> {
    Err(Error::file(path, "pickles are not supported by this build; build mm-data with its `pickle` feature"))
}
