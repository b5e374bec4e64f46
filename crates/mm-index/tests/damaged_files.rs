//! Files of a store that are cut or changed: of a graph that is damaged nothing is believed, and of a damaged write-ahead
//! log the transactions before the damage are found, whole, and none after it.
#![allow(missing_docs)]

mod writes;

use mm_index::{Filter, Hit, Method, OptimizeOptions, Optimized, Query, Row, SqliteStore, Store};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
};
use writes::{Operation, Rows, assert_finds, config, row, settings, stored, vector};

/// Files are cut at each multiple of this.
const STEP: usize = 4096;

fn open(folder: &Path) -> SqliteStore {
    SqliteStore::open(folder).unwrap().with_settings(settings())
}

fn optimize(store: &SqliteStore) -> Optimized {
    let options = OptimizeOptions { stop: &AtomicBool::new(false), rebuild: false };
    store.optimize(&options, &mut |_, _, _| {}).unwrap()
}

/// Copies of a file, each with one changed bit, and the place of it.
fn flipped(sound: &[u8], count: usize, seed: u64) -> impl Iterator<Item = (usize, Vec<u8>)> {
    let mut random = StdRng::seed_from_u64(seed);
    (0..count).map(move |_| {
        let (place, mut bytes) = (random.random_range(0..sound.len()), sound.to_vec());
        bytes[place] ^= 1 << random.random_range(0..8);
        (place, bytes)
    })
}

fn graph_file(folder: &Path) -> PathBuf {
    let mut files = std::fs::read_dir(folder.join("graphs")).unwrap().map(|entry| entry.unwrap().path());
    files.find(|path| path.extension().is_some_and(|e| e == "usearch")).unwrap()
}

/// Searches by vectors, two of them with a filter.
fn queries() -> Vec<Query> {
    let query = |n: u32| Query::nearest("v", vector("query", n)).k(10);
    let filter = || Filter::parse("value < 350").unwrap();
    vec![query(0), query(1), query(2).filter(filter()), query(3).filter(filter())]
}

fn hits(store: &SqliteStore) -> Vec<Vec<Hit>> {
    queries().iter().map(|query| store.query(query).unwrap().hits).collect()
}

#[test]
fn a_damaged_graph_is_not_believed_and_built_again() {
    const ROWS: u32 = 700;
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::create(folder.path(), &config()).unwrap();
    let rows: Vec<Row> = (0..ROWS).map(|n| row(&n.to_string(), n)).collect();
    store.upsert(&rows).unwrap();
    let truth = hits(&store);
    drop(store);
    optimize(&open(folder.path()));
    let path = graph_file(folder.path());
    let sound = std::fs::read(&path).unwrap();
    let cut: Vec<usize> = (0..sound.len()).step_by(STEP).collect();
    assert!((60..150).contains(&cut.len()), "{} places", cut.len());
    let cut = cut.into_iter().map(|length| (format!("{length} bytes"), sound[..length].to_vec()));
    let changed = flipped(&sound, 100, 8).map(|(place, bytes)| (format!("byte {place}"), bytes));
    for (index, (what, bytes)) in cut.chain(changed).enumerate() {
        std::fs::write(&path, &bytes).unwrap();
        let store = open(folder.path());
        for (query, truth) in queries().iter().zip(&truth) {
            let answer = store.query(query).unwrap();
            assert_eq!(answer.hits, *truth, "{what}");
            let step = &answer.steps[0];
            assert_eq!(step.method, Method::Exact, "{what}");
            assert!(step.note.as_ref().is_some_and(|note| note.contains("mm index optimize")), "{what}: {step:?}");
        }
        // Reading everything takes longer than the searches: every eighth time.
        if index % 8 == 0 {
            let problems = store.check(&mut |_, _, _| {}).unwrap().problems;
            assert!(problems.len() == 1 && problems[0].repairable, "{what}: {problems:?}");
        }
    }
    std::fs::write(&path, &sound).unwrap();
    assert_eq!(open(folder.path()).query(&queries()[0]).unwrap().steps[0].method, Method::Graph);
    std::fs::remove_file(&path).unwrap();
    assert_eq!(hits(&open(folder.path())), truth);
    let graphs = optimize(&open(folder.path())).graphs;
    assert_eq!((graphs[0].rows, graphs[0].kept), (ROWS as usize, 0));
    assert_eq!(open(folder.path()).query(&queries()[0]).unwrap().steps[0].method, Method::Graph);
    assert_eq!(open(folder.path()).check(&mut |_, _, _| {}).unwrap().problems, []);
}

/// A store of which the last transactions are in its write-ahead log alone.
struct Logged {
    folder: tempfile::TempDir,
    /// The bytes of the database, and of its log.
    database: Vec<u8>,
    log: Vec<u8>,
    /// The rows before the log, and after each of its transactions.
    states: Vec<Rows>,
    /// The length of the log after each transaction.
    ends: Vec<usize>,
}

impl Logged {
    fn new(transactions: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let [database, log, _] = files(folder.path());
        let store = SqliteStore::create(folder.path(), &config()).unwrap().with_settings(settings());
        let mut rows = Rows::new();
        for operation in Operation::fill(0) {
            operation.apply(&store);
            operation.apply_to(&mut rows);
        }
        let length = || usize::try_from(std::fs::metadata(&log).unwrap().len()).unwrap();
        optimize(&store);
        assert_eq!(length(), 0, "optimizing writes the log back");
        let (mut states, mut ends, mut random) = (vec![rows.clone()], Vec::new(), StdRng::seed_from_u64(5));
        for value in 1..=transactions {
            let operation = Operation::random_write(&mut random, value);
            operation.apply(&store);
            operation.apply_to(&mut rows);
            states.push(rows.clone());
            ends.push(length());
        }
        // Before the store is closed, which writes the log back.
        let [database, log] = [database, log].map(|file| std::fs::read(file).unwrap());
        drop(store);
        Self { folder, database, log, states, ends }
    }

    /// How many transactions end before a place of the log.
    fn before(&self, place: usize) -> usize {
        self.ends.iter().filter(|end| **end <= place).count()
    }

    /// Opens the store with such a log, without the file by which processes share it: the rows are those after so many
    /// transactions, and searches find exactly these.
    fn assert_state(&self, log: &[u8], transactions: usize, what: &str) -> SqliteStore {
        let [database_file, log_file, shared_file] = files(self.folder.path());
        std::fs::write(database_file, &self.database).unwrap();
        std::fs::write(log_file, log).unwrap();
        let _ = std::fs::remove_file(shared_file);
        let store = open(self.folder.path());
        let (found, expected) = (stored(&store), &self.states[transactions]);
        assert!(found == *expected, "{what}: {found:?}, expected the rows after {transactions} writes: {expected:?}");
        let walked = assert_finds(&store, expected, &mut StdRng::seed_from_u64(log.len() as u64), what);
        assert!(walked > 0, "{what}: no search walked the graph");
        store
    }
}

/// The files of the database of a store: it, its write-ahead log, and the file by which processes share the log.
fn files(folder: &Path) -> [PathBuf; 3] {
    ["index.sqlite", "index.sqlite-wal", "index.sqlite-shm"].map(|name| folder.join(name))
}

#[test]
fn of_a_damaged_log_the_transactions_before_the_damage_are_found() {
    let logged = Logged::new(12);
    let all = logged.states.len() - 1;
    let mut reached = BTreeMap::new();
    let mut assert_state = |log: &[u8], transactions: usize, what: String| {
        let store = logged.assert_state(log, transactions, &what);
        let count: &mut usize = reached.entry(transactions).or_default();
        // The first time of each state everything is read.
        if *count == 0 {
            assert_eq!(store.check(&mut |_, _, _| {}).unwrap().problems, [], "{what}");
        }
        *count += 1;
    };
    assert_state(&logged.log, all, "the sound log".to_owned());
    for length in (0..logged.log.len()).step_by(STEP) {
        assert_state(&logged.log[..length], logged.before(length), format!("{length} bytes of the log"));
    }
    for (place, log) in flipped(&logged.log, 150, 9) {
        assert_state(&log, logged.before(place), format!("byte {place} of the log"));
    }
    // The header of the log, and that of its first page.
    for place in 0..56 {
        let mut log = logged.log.clone();
        log[place] ^= 1 << (place % 8);
        assert_state(&log, 0, format!("byte {place} of the log"));
    }
    assert!(reached.len() > 8, "{reached:?}");
}
