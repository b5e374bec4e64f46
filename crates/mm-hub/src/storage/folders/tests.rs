//! Copies of folders of a store in memory.

use super::*;
use crate::error::describe as text_of;
use object_store::{ObjectStore, PutPayload, memory::InMemory};
use std::sync::Arc;

const URL: &str = "s3://bucket/models/bert";

struct Bucket {
    cache: tempfile::TempDir,
    store: Arc<InMemory>,
}

impl Bucket {
    fn new(files: &[&str]) -> Self {
        let bucket = Self { cache: tempfile::tempdir().unwrap(), store: Arc::default() };
        files.iter().for_each(|name| bucket.put(name, name));
        bucket
    }

    /// What another process has.
    fn storage(&self) -> Storage {
        let storage = Storage::new(self.cache.path());
        let store: Arc<dyn ObjectStore> = self.store.clone();
        storage.stores.lock().unwrap().insert("s3://bucket".to_owned(), store);
        storage
    }

    fn put(&self, name: &str, content: &str) {
        let (path, content) = (ObjectPath::from(format!("models/bert/{name}")), content.to_owned());
        self.storage().runtime().unwrap().block_on(self.store.put(&path, PutPayload::from(content))).unwrap();
    }

    fn delete(&self, name: &str) {
        let path = ObjectPath::from(format!("models/bert/{name}"));
        self.storage().runtime().unwrap().block_on(self.store.delete(&path)).unwrap();
    }

    fn error(&self, url: &str) -> String {
        text_of(&self.storage().fetch_folder(url).unwrap_err())
    }
}

/// The files below a folder, with their contents.
fn contents(folder: &Path) -> Vec<(String, String)> {
    fn add(folder: &Path, below: &str, found: &mut Vec<(String, String)>) {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            let name = format!("{below}{}", entry.file_name().to_string_lossy());
            if entry.path().is_dir() {
                add(&entry.path(), &format!("{name}/"), found);
            } else {
                found.push((name, fs::read_to_string(entry.path()).unwrap()));
            }
        }
    }
    let mut found = Vec::new();
    add(folder, "", &mut found);
    found.sort();
    found
}

fn names(folder: &Path) -> Vec<String> {
    contents(folder).into_iter().map(|(name, _)| name).collect()
}

#[test]
fn a_folder_is_copied_as_the_store_lists_it_without_what_mm_does_not_read() {
    let bucket =
        Bucket::new(&["1_Pooling/config.json", "config.json", "model.safetensors", "pytorch_model.bin", ".git"]);
    // As written by programs that show buckets as folders.
    bucket.put("1_Pooling", "");
    let storage = bucket.storage();
    let folder = storage.fetch_folder(URL).unwrap();
    assert_eq!(names(&folder), ["1_Pooling/config.json", "config.json", "model.safetensors"]);
    assert!(contents(&folder).iter().all(|(name, content)| name == content));
    // A process reads one snapshot; another finds what is unchanged.
    bucket.put("config.json", "new");
    assert_eq!(storage.fetch_folder(&format!("{URL}/")).unwrap(), folder);
    ["1_Pooling", "1_Pooling/config.json"].iter().for_each(|name| bucket.delete(name));
    let newer = bucket.storage().fetch_folder(URL).unwrap();
    assert_ne!(newer, folder);
    assert_eq!(bucket.storage().fetch_folder(URL).unwrap(), newer);
    assert_eq!(names(&newer), ["config.json", "model.safetensors"]);
    assert_eq!(fs::read_to_string(newer.join("config.json")).unwrap(), "new");
    // The first process still has what it was given.
    assert_eq!(fs::read_to_string(folder.join("config.json")).unwrap(), "config.json");
    assert_eq!(names(&folder).len(), 3);
}

#[cfg(unix)]
#[test]
fn what_is_unchanged_is_kept_and_what_nobody_uses_is_deleted() {
    use std::os::unix::fs::MetadataExt;
    let bucket = Bucket::new(&["config.json", "model.safetensors"]);
    let inode = |folder: &Path| folder.join("model.safetensors").metadata().unwrap().ino();
    let folder = bucket.storage().fetch_folder(URL).unwrap();
    let before = inode(&folder);
    bucket.put("config.json", "new");
    let newer = bucket.storage().fetch_folder(URL).unwrap();
    assert_eq!(inode(&newer), before);
    assert!(!folder.exists());
    let blobs = newer.parent().unwrap().with_file_name("blobs");
    assert_eq!(fs::read_dir(&blobs).unwrap().count(), 2);
    // A content that was cut is copied again.
    fs::write(newer.join("config.json"), "").unwrap();
    let again = bucket.storage().fetch_folder(URL).unwrap();
    assert_eq!((fs::read_to_string(again.join("config.json")).unwrap(), again), ("new".to_owned(), newer));
}

#[test]
fn without_a_network_the_last_snapshot_is_used() {
    let bucket = Bucket::new(&["config.json"]);
    let folder = bucket.storage().copies.folder_of(URL).unwrap();
    assert!(matches!(offline(folder.clone(), URL), Err(Error::Offline { .. })));
    let snapshot = bucket.storage().fetch_folder(URL).unwrap();
    assert_eq!(offline(folder, URL).unwrap().1, snapshot);
}

#[test]
fn the_copy_of_a_folder_goes_as_a_whole_and_not_while_it_is_used() {
    let bucket = Bucket::new(&["config.json"]);
    let storage = bucket.storage();
    let snapshot = storage.fetch_folder(URL).unwrap();
    let folder = storage.copies.folder_of(URL).unwrap();
    assert_eq!(snapshot::usage(&folder).unwrap().1, "config.json".len() as u64);
    assert!(!snapshot::remove_unused(&folder).unwrap() && snapshot.exists());
    drop(storage);
    assert!(snapshot::remove_unused(&folder).unwrap() && !snapshot.exists());
    assert_eq!(snapshot::usage(&folder), None);
    // Who waits for the lock and who comes later lock the same file.
    assert_eq!(names(&folder), ["lock"]);
    assert_eq!(bucket.storage().fetch_folder(URL).unwrap(), snapshot);
}

#[test]
fn a_folder_that_was_replaced_needs_no_room_for_what_nobody_uses() {
    let bucket = Bucket::new(&["config.json"]);
    bucket.put("model.safetensors", &"a".repeat(60));
    let limited = || {
        let mut storage = bucket.storage();
        storage.copies.limit = || Ok(100);
        storage
    };
    let user = limited();
    let folder = user.fetch_folder(URL).unwrap();
    let stale = user.copies.folder_of(URL).unwrap().join("blobs/abc.1.partial");
    fs::write(&stale, "a".repeat(20)).unwrap();
    bucket.put("model.safetensors", &"b".repeat(60));
    // Somebody uses it.
    let text = text_of(&limited().fetch_folder(URL).unwrap_err());
    assert!(text.contains("MM_STORAGE_CACHE_BYTES") && !stale.exists(), "{text}");
    assert_eq!(fs::read_to_string(folder.join("model.safetensors")).unwrap(), "a".repeat(60));
    drop(user);
    let newer = limited().fetch_folder(URL).unwrap();
    assert_eq!(fs::read_to_string(newer.join("model.safetensors")).unwrap(), "b".repeat(60));
    assert!(!folder.exists());
}

#[test]
fn a_file_that_is_not_the_one_that_was_listed_is_not_copied() {
    let bucket = Bucket::new(&["config.json", "model.safetensors"]);
    let storage = bucket.storage();
    let location = storage.locate(URL).unwrap();
    let listed = storage.list_model(&location).unwrap();
    bucket.put("model.safetensors", "MODEL.SAFETENSORS");
    let [partial, blob] = ["partial", "blob"].map(|name| bucket.cache.path().join(name));
    let copy = |listed| storage.copy_file(&location, listed, &partial, &blob, &indicatif::ProgressBar::hidden());
    copy(&listed[0]).unwrap();
    fs::remove_file(&blob).unwrap();
    let text = text_of(&copy(&listed[1]).unwrap_err());
    assert!(text.contains("model.safetensors: it changed while it was copied") && !blob.exists(), "{text}");
    // Stores write ETags with and without quotes.
    let mut quoted = storage.list_model(&location).unwrap().remove(1);
    quoted.meta.e_tag = quoted.meta.e_tag.map(|e_tag| format!("W/\"{e_tag}\""));
    copy(&quoted).unwrap();
}

#[test]
fn what_is_no_model_is_named() {
    let bucket = Bucket::new(&["readme.md", "weights/a.bin"]);
    for (url, parts) in [
        (URL, &[URL, "found readme.md and 1 more below it", "config.json", "config.toml"][..]),
        ("s3://bucket/nothing", &["s3://bucket/nothing", "no file below it", "check the bucket and the path"]),
        ("s3://bucket/models/bert/readme.md", &["readme.md", "found a file", "expected the folder of a model"]),
        ("https://host/bert", &["https://host/bert", "does not list", "s3://", "hf://ORG/NAME"]),
        ("https://huggingface.co/org/name/tree/main", &["a page of the hub", "hf://org/name"]),
        ("ftp://host/bert", &["ftp://host/bert", "expected s3://"]),
        ("hf://datasets/org/name", &["hf://datasets/org/name", "hf://ORG/NAME[@REVISION]"]),
        ("hf://org/name/folder", &["hf://org/name/folder", "hf://ORG/NAME[@REVISION]"]),
        ("s3://", &["expected s3://BUCKET/FOLDER"]),
    ] {
        let text = bucket.error(url);
        assert!(parts.iter().all(|part| text.contains(part)), "{url}: {text}");
    }
    assert!(!bucket.cache.path().join("storage").exists());
}

#[test]
fn names_outside_of_the_folder_are_refused() {
    let name = |file: &str| name_below(&ObjectPath::from("m"), &ObjectPath::parse(file).unwrap(), "s3://b/m");
    assert_eq!(name("m/a/b.json").unwrap(), "a/b.json");
    for file in ["other/a.json", "mm/a.json", "m/..\\..\\a.json"] {
        let text = name(file).unwrap_err().to_string();
        assert!(text.contains(file) && text.contains("nothing was copied"), "{text}");
    }
    assert!(ObjectPath::parse("m/../a.json").is_err());
}
