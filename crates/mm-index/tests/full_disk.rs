//! A full disk: an error that names the store, no acknowledged row is lost, and the store goes on when there is space.
#![allow(missing_docs)]

mod writes;

use mm_index::{Error, OptimizeOptions, Optimized, Result, Row, SearchSettings, SqliteStore, Store};
use rand::{SeedableRng as _, rngs::StdRng};
use std::{
    fs::File,
    io::{ErrorKind, Write as _},
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::AtomicBool,
};
use writes::{Rows, assert_finds, config, row, stored};

const LOCATION: &str = "MM_INDEX_TEST_LOCATION";

/// Megabytes of the file system, and bytes of a file in it that is deleted later. What is left takes two files of the
/// database and its log, which SQLite writes back at about eight megabytes.
const DISK: u32 = 36;
const BALLAST: u64 = 16 << 20;

/// Bytes that the file system gives at a time.
const BLOCK: u64 = 4096;

/// Bytes of a row, by the text of its version.
const ROW_BYTES: usize = 100_000;

/// The beginning of a command whose program has a file system of its own at a folder, as long as it runs. None where
/// that is not allowed, with the reason on standard error.
fn with_small_disk(folder: &Path) -> Option<Command> {
    let script = format!("mount -t tmpfs -o size={DISK}m tmpfs \"$0\" && exec \"$@\"");
    let mut reason = String::new();
    // As a user who may make namespaces, else as one who may mount.
    for options in [["--mount", "--map-root-user"].as_slice(), &["--mount"]] {
        let command = || {
            let mut command = Command::new("unshare");
            command.args(options).args(["sh", "-c", &script]).arg(folder);
            command
        };
        match command().arg("true").output() {
            Ok(output) if output.status.success() => return Some(command()),
            Ok(output) => reason = String::from_utf8_lossy(&output.stderr).into_owned(),
            Err(error) => reason = format!("unshare: {error}"),
        }
    }
    eprintln!("skipped: a process with a small disk of its own cannot be started here: {}", reason.trim());
    None
}

#[test]
fn a_full_disk_is_an_error_and_loses_no_acknowledged_row() {
    let folder = tempfile::tempdir().unwrap();
    let Some(mut command) = with_small_disk(folder.path()) else { return };
    command.arg(std::env::current_exe().unwrap());
    command.args(["--exact", "child_fills_its_disk", "--ignored", "--nocapture"]).env(LOCATION, folder.path());
    let output = command.output().unwrap();
    let [text, errors] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    assert!(output.status.success() && text.contains("1 passed"), "{text}\n{errors}");
}

/// Searches walk the graph, which links each row to all others: there are fewer than these.
fn settings() -> SearchSettings {
    SearchSettings { connectivity: Some(256), expansion_add: 256, expansion_search: Some(256), ..writes::settings() }
}

fn open(folder: &Path) -> SqliteStore {
    SqliteStore::open(folder).unwrap().with_settings(settings())
}

fn optimize(store: &SqliteStore) -> Result<Optimized> {
    let options = OptimizeOptions { stop: &AtomicBool::new(false), rebuild: false };
    store.optimize(&options, &mut |_, _, _| {})
}

/// Ten rows of one value.
fn batch(value: u32) -> Vec<Row> {
    let row = |n: u32| Row { version: Some("x".repeat(ROW_BYTES)), ..row(&(10 * value + n).to_string(), value) };
    (0..10).map(row).collect()
}

fn add_to(rows: &mut Rows, batch: &[Row], value: u32) {
    rows.extend(batch.iter().map(|row| (row.id.clone(), value)));
}

fn assert_is_full(error: &Error, folder: &Path) {
    assert!(matches!(error, Error::DiskFull { path } if path.starts_with(folder)), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("the disk is full") && text.contains("free some space and repeat it"), "{text}");
}

/// Writes a file until there is no block left.
fn fill(path: &Path) {
    let mut file = File::create(path).unwrap();
    let block = vec![1u8; usize::try_from(BLOCK).unwrap()];
    let error = (0..).find_map(|_: u32| file.write_all(&block).err()).unwrap();
    assert_eq!(error.kind(), ErrorKind::StorageFull, "{error}");
}

/// Asserts that a store has exactly these rows, by itself and for another process. Returns how many searches of the other
/// one walked a graph.
fn assert_has(store: &SqliteStore, rows: &Rows, what: &str) -> usize {
    let mut random = StdRng::seed_from_u64(2);
    let other = open(store.folder());
    for store in [store, &other] {
        assert!(stored(store) == *rows, "{what}: {:?}, expected {rows:?}", stored(store));
        assert_eq!(store.check(&mut |_, _, _| {}).unwrap().problems, [], "{what}");
    }
    assert_finds(store, rows, &mut random, what);
    assert_finds(&other, rows, &mut random, what)
}

#[test]
#[ignore = "the process that a_full_disk_is_an_error_and_loses_no_acknowledged_row starts"]
fn child_fills_its_disk() {
    let Some(disk) = std::env::var_os(LOCATION).map(PathBuf::from) else { return };
    let (folder, ballast) = (disk.join("store"), disk.join("ballast"));
    std::fs::write(&ballast, vec![1u8; usize::try_from(BALLAST).unwrap()]).unwrap();
    drop(SqliteStore::create(&folder, &config()).unwrap());
    let (store, mut rows, mut value) = (open(&folder), Rows::new(), 0);
    let error = loop {
        let batch = batch(value);
        if let Err(error) = store.upsert(&batch) {
            break error;
        }
        add_to(&mut rows, &batch, value);
        value += 1;
    };
    assert_is_full(&error, &folder);
    assert!((100..256).contains(&rows.len()), "{} rows", rows.len());
    let database = std::fs::metadata(folder.join("index.sqlite")).unwrap().len();
    assert!(database > 1 << 20, "the log was never written back: {database} bytes");
    assert_has(&store, &rows, "full");
    // The log may have room for the few pages of a deletion.
    match store.delete(&["0"]) {
        Ok(deleted) => assert_eq!((deleted, rows.remove("0")), (1, Some(0))),
        Err(error) => assert_is_full(&error, &folder),
    }
    assert_has(&store, &rows, "full, after a deletion");
    optimize_with_too_few_blocks(&store, &rows, &batch(value), &ballast);
    std::fs::remove_file(&ballast).unwrap();
    let refused = batch(value);
    store.upsert(&refused).unwrap();
    add_to(&mut rows, &refused, value);
    optimize(&store).unwrap();
    assert!(assert_has(&store, &rows, "with space again") >= 2);
    assert_eq!(store.stats().unwrap().vectors[0].graph.as_ref().unwrap().fresh, 0);
    drop(store);
    open_and_create_without_a_block(&disk, &rows);
}

/// Optimizes with one more free block each time. A graph is whole, or there is none.
fn optimize_with_too_few_blocks(store: &SqliteStore, rows: &Rows, too_much: &[Row], ballast: &Path) {
    const BLOCKS_OF_LOG: u64 = 64;
    let graphs = store.folder().join("graphs");
    let cut = |bytes: u64| File::options().write(true).open(ballast).unwrap().set_len(bytes).unwrap();
    let (mut bytes, mut refused) = (BALLAST - BLOCKS_OF_LOG * BLOCK, 0);
    cut(bytes);
    // The log keeps the blocks of a write that was undone: the record of a graph has room in it, whole or not.
    assert_is_full(&store.upsert(too_much).unwrap_err(), store.folder());
    while store.stats().unwrap().vectors[0].graph.is_none() {
        // The last one may have recorded the graph before there was no room for what else it does.
        let error = optimize(store).err();
        error.iter().for_each(|error| assert_is_full(error, store.folder()));
        if store.stats().unwrap().vectors[0].graph.is_none() {
            assert!(error.is_some(), "it did not make a graph");
            let files: Vec<_> = std::fs::read_dir(&graphs).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            assert_eq!(files, ["optimize.lock"]);
            refused += 1;
        }
        bytes = bytes.checked_sub(BLOCK).expect("a graph is smaller than the ballast");
        cut(bytes);
    }
    assert!(refused > 10, "{refused} times without enough space");
    assert!(assert_has(store, rows, "with a graph") >= 2, "the graph was not walked");
}

/// Opening a store and creating one without space: errors, after which both work as soon as there is some.
fn open_and_create_without_a_block(disk: &Path, rows: &Rows) {
    let (folder, new, rest) = (disk.join("store"), disk.join("new"), disk.join("rest"));
    assert!(!folder.join("index.sqlite-shm").exists(), "the last connection deletes it");
    fill(&rest);
    assert_is_full(&SqliteStore::open(&folder).err().expect("no room for the shared file"), &folder);
    assert_is_full(&SqliteStore::create(&new, &config()).err().expect("no room for the tables"), &new);
    std::fs::remove_file(&rest).unwrap();
    assert_has(&open(&folder), rows, "opened again");
    drop(SqliteStore::create(&new, &config()).unwrap());
}
