//! Bad stores and bad input: an error, never a panic, never a wrong answer that nothing warns of.
#![allow(missing_docs)]

use mm_index::{Filter, Query, Row, SqliteStore, Store, StoreConfig, VectorConfig};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use std::path::Path;

const DIM: usize = 8;

fn config() -> StoreConfig {
    StoreConfig::new("v", VectorConfig::cosine(DIM))
}

fn values(seed: u64) -> Vec<f32> {
    let mut random = StdRng::seed_from_u64(seed);
    (0..DIM).map(|_| random.random_range(-1.0..1.0)).collect()
}

fn fill(folder: &Path) {
    let store = SqliteStore::create(folder, &config()).unwrap();
    let row = |n: u64| {
        Row::new(format!("row {n}"))
            .with_vector("v", values(n))
            .with_field("n", n)
            .with_text(format!("word{} common", n % 7))
    };
    store.upsert(&(0..150).map(row).collect::<Vec<_>>()).unwrap();
}

/// What three kinds of queries find, as text.
fn answers(store: &SqliteStore) -> Result<Vec<String>, mm_index::Error> {
    let filter = Filter::parse("n between 20 and 120")?;
    let queries = [
        Query::nearest("v", values(1000)).k(20),
        Query::nearest("v", values(1000)).filter(filter).k(20),
        Query::text("word3").k(20),
    ];
    queries.iter().map(|query| Ok(format!("{:?}", store.query(query)?.hits))).collect()
}

/// Opens a database of these bytes: an error, the right answers, or a problem that `check` reports.
fn assert_not_fooled(folder: &Path, bytes: &[u8], truth: &[String], what: &str) {
    let database = folder.join("index.sqlite");
    for left in ["index.sqlite-wal", "index.sqlite-shm"] {
        let _ = std::fs::remove_file(folder.join(left));
    }
    std::fs::write(&database, bytes).unwrap();
    let Ok(store) = SqliteStore::open(folder) else { return };
    if answers(&store).is_ok_and(|found| found != truth) {
        let report = store.check(&mut |_, _, _| {});
        assert!(
            report.is_err() || report.is_ok_and(|r| !r.problems.is_empty()),
            "{what}: wrong answers, but no problem"
        );
    }
}

#[test]
fn a_damaged_database_gives_errors_or_right_answers() {
    let folder = tempfile::tempdir().unwrap();
    fill(folder.path());
    let store = SqliteStore::open(folder.path()).unwrap();
    let truth = answers(&store).unwrap();
    assert!(truth.iter().all(|hits| hits.contains("row ")), "{truth:?}");
    drop(store);
    assert!(!folder.path().join("index.sqlite-wal").exists(), "the last connection writes the log back");
    let sound = std::fs::read(folder.path().join("index.sqlite")).unwrap();
    let check = |bytes: &[u8], what: &str| assert_not_fooled(folder.path(), bytes, &truth, what);
    for length in (0..sound.len()).step_by(4096) {
        check(&sound[..length], &format!("{length} bytes"));
    }
    let mut random = StdRng::seed_from_u64(3);
    for _ in 0..150 {
        let mut bytes = sound.clone();
        let at = random.random_range(0..sound.len());
        bytes[at] ^= 1 << random.random_range(0..8);
        check(&bytes, &format!("byte {at}"));
    }
    check(&sound, "the sound one");
}

fn message<T>(result: Result<T, mm_index::Error>) -> String {
    let error = result.err().expect("an error");
    let source = std::error::Error::source(&error).map(|s| format!(": {s}")).unwrap_or_default();
    format!("{error}{source}")
}

#[test]
fn folders_that_are_no_stores_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let open = || message(SqliteStore::open(folder.path()));
    assert!(open().contains("holds no store"), "{}", open());
    assert!(message(SqliteStore::open(&folder.path().join("none"))).contains("no such folder"));
    std::fs::write(folder.path().join("index.sqlite"), "x".repeat(8192)).unwrap();
    assert!(open().contains("damaged"), "{}", open());
    std::fs::write(folder.path().join("index.sqlite"), "").unwrap();
    assert!(open().contains("its creation was interrupted"), "{}", open());
    // An interrupted creation does not stand in the way of another: no file, an empty one, one without tables.
    let is_there = || mm_index::exists(folder.path()).unwrap();
    assert!(!is_there());
    let database = rusqlite::Connection::open(folder.path().join("index.sqlite")).unwrap();
    database.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get::<_, String>(0)).unwrap();
    drop(database);
    assert!(!is_there() && open().contains("its creation was interrupted"), "{}", open());
    drop(SqliteStore::create(folder.path(), &config()).unwrap());
    assert!(is_there());
    assert!(message(SqliteStore::create(folder.path(), &config())).contains("holds a store already"));
    let database = rusqlite::Connection::open(folder.path().join("index.sqlite")).unwrap();
    database.pragma_update(None, "user_version", 7).unwrap();
    assert!(open().contains("a store of version 7, this program reads version 1"), "{}", open());
    database.pragma_update(None, "application_id", 5).unwrap();
    assert!(open().contains("of another program"), "{}", open());
}
