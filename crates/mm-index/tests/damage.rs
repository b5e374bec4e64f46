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

/// Opens a database of these bytes: an error, the right answers, or what `check` reports: a problem, or a note on what it
/// could not compare.
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
            report.is_err() || report.is_ok_and(|r| !r.problems.is_empty() || !r.notes.is_empty()),
            "{what}: wrong answers, but neither a problem nor a note"
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

/// The database of a store, as another program sees it.
fn database(folder: &Path) -> rusqlite::Connection {
    rusqlite::Connection::open(folder.join("index.sqlite")).unwrap()
}

fn run(database: &rusqlite::Connection, sql: &str) {
    assert_eq!(database.execute(sql, []).unwrap(), 1, "{sql}");
}

fn problems(store: &SqliteStore) -> Vec<String> {
    let report = store.check(&mut |_, _, _| {}).unwrap();
    assert_eq!(report.notes, Vec::<String>::new());
    report.problems.into_iter().map(|problem| format!("{}: {}", problem.what, problem.reason)).collect()
}

fn filtered(text: &str) -> Filter {
    Filter::parse(text).unwrap()
}

#[test]
fn a_damaged_row_takes_its_fields_and_words_with_it() {
    let folder = tempfile::tempdir().unwrap();
    fill(folder.path());
    let store = SqliteStore::open(folder.path()).unwrap();
    let other = database(folder.path());
    run(&other, "UPDATE row_data SET text = 'other' WHERE id = 'row 3'");
    run(&other, "UPDATE row_data SET payload = '{\"n\": 99}' WHERE id = 'row 4'");
    run(&other, "UPDATE row_data SET payload = x'00' WHERE id = 'row 5'");
    run(&other, "UPDATE row_data SET text = NULL WHERE id = 'row 6'");
    let found = problems(&store).join("\n");
    for id in [3, 4, 5, 6] {
        assert!(found.contains(&format!("row row {id}: its checksum is wrong")), "{found}");
    }
    let sound = |id: &str| Row::new(id).with_vector("v", values(1)).with_field("n", 1000).with_text("whole");
    store.upsert(&[sound("row 3")]).unwrap();
    assert_eq!(store.delete(&["row 4", "row 5", "row 6"]).unwrap(), 3);
    assert_eq!(problems(&store), Vec::<String>::new());
    assert_eq!(store.select(&filtered("n < 10"), 99).unwrap().len(), 6);
    assert_eq!(store.select(&filtered("n = 1000"), 99).unwrap(), ["row 3"]);
    // Of each word there were 21 rows.
    for (word, count) in [("word3", 20), ("word4", 20), ("word5", 20), ("word6", 20), ("whole", 1), ("other", 0)] {
        assert_eq!(store.query(&Query::text(word).k(99)).unwrap().hits.len(), count, "{word}");
    }
}

#[test]
fn what_a_filter_finds_is_compared_with_the_row() {
    let folder = tempfile::tempdir().unwrap();
    fill(folder.path());
    let store = SqliteStore::open(folder.path()).unwrap();
    run(&database(folder.path()), "UPDATE field_values SET value = 2001 WHERE value = 20");
    let (filter, nearest) = (filtered("n = 2001"), Query::nearest("v", values(1)).filter(filtered("n = 2001")));
    let fused = Query::fusion(vec![(1.0, nearest.clone()), (1.0, Query::text("word3"))]).k(200);
    let over = Query::max_sim_over("v", vec![values(2)], nearest.clone());
    let found = [&nearest, &fused, &over].map(|query| message(store.query(query)));
    for found in found.into_iter().chain([message(store.select(&filter, 9))]) {
        assert!(found.contains("the filter `n = 2001` found the row `row 20`, whose fields do not meet it"), "{found}");
        assert!(found.contains("`mm index check` lists what is damaged"), "{found}");
    }
    let found = problems(&store).join("\n");
    assert!(found.contains("row row 20: filters do not see all of its fields; delete the row and write it"), "{found}");
    assert!(found.contains("row row 20: filters see values that it does not have"), "{found}");
    // Deleting it is enough.
    assert_eq!(store.delete(&["row 20"]).unwrap(), 1);
    assert_eq!(problems(&store), Vec::<String>::new());
    assert_eq!(store.select(&filter, 9).unwrap(), Vec::<String>::new());
}

#[test]
fn fields_and_vectors_of_rows_that_are_not_there_are_errors_and_problems() {
    let folder = tempfile::tempdir().unwrap();
    fill(folder.path());
    let store = SqliteStore::open(folder.path()).unwrap();
    let other = database(folder.path());
    // An earlier version left these where a row was damaged.
    run(&other, "DELETE FROM row_data WHERE id = 'row 7'");
    for found in [message(store.select(&filtered("n = 7"), 9)), message(store.query(&Query::nearest("v", values(7))))] {
        assert!(found.contains("row number 8 was found but is not there; `mm index check` lists"), "{found}");
    }
    let found = problems(&store).join("\n");
    assert!(found.contains("fields of row number 8: the row is not there"), "{found}");
    assert!(found.contains("vector `v` of row number 8: the row is not there"), "{found}");
    assert!(found.contains("words: their index is not that of the texts"), "{found}");
}

#[test]
fn wrong_places_and_values_of_other_rows_are_problems() {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::create(folder.path(), &config()).unwrap();
    let place = serde_json::json!([{"lat": 1.0, "lon": 2.0}, {"lat": 1, "lon": 2}]);
    let row = |id: &str| Row::new(id).with_field("place", place.clone()).with_field("n", vec![1.0, 1.0, 2.0]);
    store.upsert(&[row("a"), row("b").with_field("n", serde_json::json!([1, 1.0]))]).unwrap();
    assert_eq!(problems(&store), Vec::<String>::new());
    let other = database(folder.path());
    run(&other, "INSERT INTO field_points SELECT field, 5.0, 5.0, number FROM field_points WHERE number = 2");
    run(&other, "INSERT INTO field_values VALUES (1, 77, 1)");
    let found = problems(&store);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].starts_with("row a: filters see values that it does not have"), "{found:?}");
    assert!(found[1].starts_with("row b: filters see values that it does not have"), "{found:?}");
}
