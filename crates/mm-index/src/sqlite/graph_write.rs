//! Writing the file of a graph, so that a crash or a full disk leaves the former one.

use super::{
    NamedVector, SqliteStore,
    graph::{Graph, hash_file},
};
use crate::{Error, Result};
use std::{
    fs::File,
    io::{ErrorKind, Read as _, Seek as _, SeekFrom},
    path::Path,
};

/// How the name of an unfinished file begins and ends.
const PARTIAL: (&str, &str) = (".mm-", ".partial");

/// Bytes that are written at most to learn why a file is too short.
const PROBE: u64 = 1 << 20;

impl SqliteStore {
    /// Writes a graph next to the others, flushes and renames it; returns its size and hash.
    pub(super) fn put_in_place(&self, vector: &NamedVector, graph: &Graph, file: &str) -> Result<(u64, String)> {
        let folder = self.graphs();
        let path = folder.join(file);
        let named = |reason| Error::Graph { vector: vector.name.clone(), reason };
        let failed = |error: std::io::Error| {
            if is_full(&error) {
                return Error::DiskFull { path: path.clone() };
            }
            named(format!("{}: cannot be written: {error}", path.display()))
        };
        let temporary = temporary_file(&folder).map_err(failed)?;
        let saved = graph.save(temporary.path());
        let complete = check_length(temporary.as_file(), graph.file_bytes());
        if let Err(reason) = saved
            && !complete.as_ref().is_err_and(is_full)
        {
            return Err(named(reason));
        }
        complete.map_err(failed)?;
        File::open(temporary.path()).and_then(|f| f.sync_all()).map_err(failed)?;
        let hash = hash_file(temporary.path()).map_err(failed)?;
        let bytes = std::fs::metadata(temporary.path()).map_err(failed)?.len();
        temporary.persist(&path).map_err(|e| failed(e.error))?;
        // The rename must reach the disk too; not every file system can sync a folder.
        let _ = File::open(&folder).and_then(|f| f.sync_all());
        Ok((bytes, hash))
    }

    /// Deletes the unfinished files of an interrupted call, which nobody else writes while the lock is held.
    pub(super) fn remove_partial_files(&self) {
        for entry in std::fs::read_dir(self.graphs()).into_iter().flatten().flatten() {
            let name = entry.file_name();
            if name.to_str().is_some_and(|name| name.starts_with(PARTIAL.0) && name.ends_with(PARTIAL.1)) {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }

    /// Deletes the graphs that this one replaces. A process that still has one has read it whole.
    pub(super) fn remove_old_files(&self, vector: &NamedVector, current: &str) {
        let of_vector = format!("{}-", vector.number);
        for entry in std::fs::read_dir(self.graphs()).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let is_old = |name: &str| name.starts_with(&of_vector) && name.ends_with(".usearch") && name != current;
            if name.to_str().is_some_and(is_old) {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }
}

/// A temporary file with the permissions that the process's umask leaves.
fn temporary_file(folder: &Path) -> std::io::Result<tempfile::NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(PARTIAL.0).suffix(PARTIAL.1);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    builder.tempfile_in(folder)
}

/// Whether there was no room for a write.
fn is_full(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded)
}

/// Refuses a file that is shorter than expected. usearch does not report why a write failed, and ignores an error of the
/// last one, when it closes the file: a further write fails for the same reason.
fn check_length(mut file: &File, expected: u64) -> std::io::Result<()> {
    let found = file.metadata()?.len();
    let missing = expected.saturating_sub(found);
    if missing == 0 {
        return Ok(());
    }
    file.seek(SeekFrom::End(0))?;
    std::io::copy(&mut std::io::repeat(0).take(missing.min(PROBE)), &mut file)?;
    file.sync_all()?;
    Err(std::io::Error::other(format!("found {found} bytes, expected {expected} bytes")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Distance, Quantization, SearchSettings, VectorConfig};
    use half::f16;

    #[test]
    fn a_file_that_is_too_short_is_refused() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(10).unwrap();
        check_length(&file, 10).unwrap();
        let error = check_length(&file, 12).unwrap_err();
        assert_eq!((error.to_string().as_str(), is_full(&error)), ("found 10 bytes, expected 12 bytes", false));
        if cfg!(target_os = "linux") {
            let full = File::options().write(true).open("/dev/full").unwrap();
            assert!(is_full(&check_length(&full, 12).unwrap_err()));
        }
    }

    #[test]
    fn a_file_has_the_length_that_the_graph_states() {
        let folder = tempfile::tempdir().unwrap();
        for (quantization, rows) in [(Quantization::F16, 1), (Quantization::F16, 300), (Quantization::I8, 301)] {
            let config = VectorConfig { quantization, distance: Distance::Dot, ..VectorConfig::cosine(5) };
            let graph = Graph::new(&config, &SearchSettings::default(), rows, 1.0).unwrap();
            graph.reserve(rows, 1).unwrap();
            for number in 1..=rows {
                let values: Vec<f16> = (0..5).map(|n| f16::from_f32(((number * 7 + n * 3) % 11) as f32)).collect();
                graph.add(number as i64, &values).unwrap();
            }
            let path = folder.path().join(format!("{rows}"));
            graph.save(&path).unwrap();
            assert_eq!(std::fs::metadata(&path).unwrap().len(), graph.file_bytes(), "{quantization:?}, {rows} rows");
        }
    }
}
