//! Folders that Hugging Face's `datasets` saves (`save_to_disk`), and folders of Parquet files as in its repositories.

use crate::{Error, Result};
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// A file of a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FolderFile {
    /// Its path.
    pub(super) path: PathBuf,
    /// The split that its rows are in, where the folder says so.
    pub(super) split: Option<String>,
}

/// The files of a data set in a folder, in order: those that `dataset_dict.json` and `state.json` name, else the Parquet
/// files in it or in its folder `data`, whose names begin with their split (`train-00000-of-00004.parquet`).
pub(super) fn files(folder: &Path) -> Result<Vec<FolderFile>> {
    if let Some(splits) = read_json(&folder.join("dataset_dict.json"))? {
        let names = splits.get("splits").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
        let of_split = |split: &str| {
            let files = saved(&folder.join(split))?;
            Ok(files.into_iter().map(|path| FolderFile { path, split: Some(split.to_owned()) }).collect::<Vec<_>>())
        };
        return Ok(names.map(of_split).collect::<Result<Vec<_>>>()?.concat());
    }
    if folder.join("state.json").is_file() {
        return Ok(saved(folder)?.into_iter().map(|path| FolderFile { path, split: None }).collect());
    }
    let found = [folder.to_owned(), folder.join("data")].iter().map(|f| parquet(f)).collect::<Result<Vec<_>>>()?;
    let found = found.into_iter().find(|files| !files.is_empty()).unwrap_or_default();
    if found.is_empty() {
        let expected = "dataset_dict.json or state.json (datasets' save_to_disk), or .parquet files here or in data/";
        return Err(Error::file(folder, format!("found a folder without a data set, expected {expected}")));
    }
    let splits: Option<Vec<String>> = found.iter().map(|path| split_of(path)).collect();
    let mut splits = splits.into_iter().flatten();
    Ok(found.into_iter().map(|path| FolderFile { path, split: splits.next() }).collect())
}

fn read_json(path: &Path) -> Result<Option<Value>> {
    match fs::read(path) {
        Ok(text) => serde_json::from_slice(&text).map(Some).map_err(|e| Error::file(path, format!("not JSON: {e}"))),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::file(path, format!("cannot be read: {e}"))),
    }
}

/// The Arrow files of one split.
fn saved(folder: &Path) -> Result<Vec<PathBuf>> {
    let state = folder.join("state.json");
    let Some(value) = read_json(&state)? else {
        return Err(Error::file(state, "is missing, expected the list of files"));
    };
    let files = value.get("_data_files").and_then(Value::as_array);
    let name = |file: &Value| file.get("filename").and_then(Value::as_str).map(ToOwned::to_owned);
    let names: Option<Vec<String>> = files.and_then(|files| files.iter().map(name).collect());
    let names = names.ok_or_else(|| Error::file(&state, "found no list _data_files with the filename of each"))?;
    if let Some(outside) = names.iter().find(|name| Path::new(name).file_name() != Some(name.as_ref())) {
        return Err(Error::file(&state, format!("found the file `{outside}`, expected one in the same folder")));
    }
    Ok(names.into_iter().map(|name| folder.join(name)).collect())
}

/// The Parquet files that lie directly in a folder, by name.
fn parquet(folder: &Path) -> Result<Vec<PathBuf>> {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(Vec::new()) };
    let paths = entries.map(|entry| entry.map(|e| e.path())).collect::<std::io::Result<Vec<_>>>();
    let mut paths = paths.map_err(|e| Error::file(folder, format!("cannot be read: {e}")))?;
    paths.retain(|path| path.extension().is_some_and(|e| e.eq_ignore_ascii_case("parquet")) && path.is_file());
    paths.sort();
    Ok(paths)
}

/// `train` of `train-00000-of-00004.parquet`.
fn split_of(path: &Path) -> Option<String> {
    let is_number = |text: &str| text.len() >= 5 && text.bytes().all(|b| b.is_ascii_digit());
    let stem = path.file_stem()?.to_str()?;
    // A hash may follow.
    let (split, rest) = stem.split_once('-')?;
    let mut parts = rest.split('-');
    let is_part =
        parts.next().is_some_and(is_number) && parts.next() == Some("of") && parts.next().is_some_and(is_number);
    is_part.then(|| split.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_found_as_datasets_lays_them_out() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let error = files(root).unwrap_err().to_string();
        assert!(error.contains("dataset_dict.json") && error.contains(".parquet"), "{error}");
        fs::create_dir_all(root.join("data")).unwrap();
        for name in
            ["validation-00000-of-00001.parquet", "train-00001-of-00002.parquet", "train-00000-of-00002-0a1b.parquet"]
        {
            fs::write(root.join("data").join(name), "").unwrap();
        }
        let splits = |root: &Path| files(root).unwrap().into_iter().map(|f| f.split).collect::<Vec<_>>();
        let named = |names: &[&str]| names.iter().map(|n| Some((*n).to_owned())).collect::<Vec<_>>();
        assert_eq!(splits(root), named(&["train", "train", "validation"]));
        fs::write(root.join("data/more.parquet"), "").unwrap();
        assert_eq!(splits(root), [None, None, None, None]);
        for (split, state) in [
            ("train", r#"{"_data_files": [{"filename": "a.arrow"}, {"filename": "b.arrow"}]}"#),
            ("test", r#"{"_data_files": []}"#),
        ] {
            fs::create_dir_all(root.join(split)).unwrap();
            fs::write(root.join(split).join("state.json"), state).unwrap();
        }
        fs::write(root.join("dataset_dict.json"), r#"{"splits": ["train", "test"]}"#).unwrap();
        assert_eq!(splits(root), named(&["train", "train"]));
        assert_eq!(files(&root.join("train")).unwrap()[1].path, root.join("train/b.arrow"));
        fs::write(root.join("test/state.json"), r#"{"_data_files": [{"filename": "../a.arrow"}]}"#).unwrap();
        assert!(files(root).unwrap_err().to_string().contains("in the same folder"));
    }
}
