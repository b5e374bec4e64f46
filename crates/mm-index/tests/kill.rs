//! A process that writes is killed at random instants: what it reported as done is there, whole, and nothing else.
#![allow(missing_docs)]

mod engines;

use engines::{Engine, on_each_engine, open};
use mm_index::{OptimizeOptions, Row, SearchSettings, Store, StoreConfig, VectorConfig, Vectors};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read as _},
    path::Path,
    process::{Child, Command, Stdio},
    sync::atomic::AtomicBool,
};

const LOCATION: &str = "MM_INDEX_TEST_LOCATION";
const SEED: &str = "MM_INDEX_TEST_SEED";
const DIM: usize = 8;
const IDS: u32 = 40;

/// Rows by id: the value that was written last.
type Rows = BTreeMap<String, u32>;

fn config() -> StoreConfig {
    StoreConfig::new("v", VectorConfig::cosine(DIM))
}

fn values(value: u32) -> Vec<f32> {
    let mut random = StdRng::seed_from_u64(u64::from(value));
    (0..DIM).map(|_| random.random_range(-1.0..1.0)).collect()
}

fn row(id: u32, value: u32) -> Row {
    Row::new(format!("{id}"))
        .with_vector("v", values(value))
        .with_field("value", value)
        .with_text(format!("word{value}"))
}

fn settings() -> SearchSettings {
    SearchSettings { exact_below: 10, ..SearchSettings::default() }
}

/// What is done next, as a text that parent and child understand.
fn operation(random: &mut StdRng, value: u32) -> String {
    let id = random.random_range(0..IDS);
    match random.random_range(0..10) {
        0..6 => format!("upsert {id} {value}"),
        6..9 => format!("delete {id} 0"),
        _ => "optimize 0 0".to_owned(),
    }
}

fn parse(operation: &str) -> (&str, u32, u32) {
    let mut parts = operation.split(' ');
    let kind = parts.next().unwrap();
    let mut number = || parts.next().unwrap().parse().unwrap();
    (kind, number(), number())
}

/// An upsert writes ten rows with consecutive ids at once.
fn apply_to_model(rows: &mut Rows, operation: &str) {
    let (kind, id, value) = parse(operation);
    match kind {
        "upsert" => rows.extend((id..id + 10).map(|id| (id.to_string(), value))),
        "delete" => drop(rows.remove(&id.to_string())),
        _ => {}
    }
}

fn apply(store: &dyn Store, operation: &str) {
    let (kind, id, value) = parse(operation);
    match kind {
        "upsert" => store.upsert(&(id..id + 10).map(|id| row(id, value)).collect::<Vec<_>>()).unwrap(),
        "delete" => drop(store.delete(&[&id.to_string()]).unwrap()),
        _ => {
            let options = OptimizeOptions { stop: &AtomicBool::new(false), rebuild: true };
            store.optimize(&options, &mut |_, _, _| {}).unwrap();
        }
    }
}

fn spawn(test: &str, location: &Path, seed: u64) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--ignored", "--nocapture"]).env(LOCATION, location).env(SEED, seed.to_string());
    command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
}

#[test]
#[ignore = "the process that acknowledged_rows_survive_kills starts"]
fn child_writes_until_it_is_killed() {
    let (Some(location), Ok(seed)) = (std::env::var_os(LOCATION), std::env::var(SEED)) else { return };
    let store = open(Path::new(&location), settings());
    let mut random = StdRng::seed_from_u64(seed.parse().unwrap());
    for value in 0.. {
        let operation = operation(&mut random, value);
        println!("\nbegin {operation}");
        apply(store.as_ref(), &operation);
        println!("\ndone {operation}");
    }
}

/// What a child began, and whether it reported each as done.
fn reported(output: impl BufRead) -> Vec<(String, bool)> {
    let mut operations: Vec<(String, bool)> = Vec::new();
    for line in output.lines().map_while(Result::ok) {
        if let Some(operation) = line.strip_prefix("begin ") {
            operations.push((operation.to_owned(), false));
        } else if let Some(last) = operations.last_mut().filter(|(o, _)| line.strip_prefix("done ") == Some(o)) {
            last.1 = true;
        }
    }
    operations
}

fn stored(store: &dyn Store) -> Rows {
    let page = store.page(None, usize::MAX).unwrap();
    let value = |row: &Row| {
        let value = u32::try_from(row.payload["value"].as_u64().unwrap()).unwrap();
        let Some(Vectors::Single(stored)) = row.vectors.get("v") else { panic!("{row:?} has no vector") };
        let norm = values(value).iter().map(|v| v * v).sum::<f32>().sqrt();
        assert!(stored.iter().zip(values(value)).all(|(a, b)| (a - b / norm).abs() < 1e-3), "{row:?}");
        assert_eq!(row.text, Some(format!("word{value}")));
        value
    };
    page.rows.iter().map(|row| (row.id.clone(), value(row))).collect()
}

/// Twenty kills, or as many as `MM_INDEX_KILLS` says.
fn acknowledged_rows_survive_kills(engine: &dyn Engine) {
    let kills: u64 = std::env::var("MM_INDEX_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(20);
    drop(engine.create(&config()));
    let mut random = StdRng::seed_from_u64(7);
    let (mut rows, mut acknowledged) = (Rows::new(), 0);
    for seed in 0..kills {
        let mut child = spawn("child_writes_until_it_is_killed", &engine.location(), seed);
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut first = String::new();
        while !first.starts_with("begin ") {
            first.clear();
            assert_ne!(output.read_line(&mut first).unwrap(), 0, "the process ended before its first operation");
        }
        std::thread::sleep(engine.few_writes().mul_f64(random.random_range(0.0..1.0)));
        child.kill().unwrap();
        child.wait().unwrap();
        // The pipe keeps what was written before the kill.
        let operations = reported(first.as_bytes().chain(output));
        let mut after = rows.clone();
        for (index, (operation, done)) in operations.iter().enumerate() {
            assert!(*done || index + 1 == operations.len(), "only the last can be unfinished");
            apply_to_model(&mut after, operation);
            if *done {
                rows = after.clone();
                acknowledged += 1;
            }
        }
        let store = engine.open(settings());
        // A server may still do what the killed process asked for last: this waits until it has, or has undone it.
        assert_eq!(store.delete(&["none"]).unwrap(), 0);
        let found = stored(store.as_ref());
        assert!(found == rows || found == after, "kill {seed}: {found:?}, expected {rows:?} or {after:?}");
        rows = found;
        let report = store.check(&mut |_, _, _| {}).unwrap();
        assert_eq!(report.problems, [], "kill {seed}");
    }
    assert!(acknowledged > kills, "{acknowledged} operations in {kills} processes");
}

#[test]
#[ignore = "the processes that two_processes_write_at_the_same_time starts"]
fn child_writes_its_rows() {
    let (Some(location), Ok(seed)) = (std::env::var_os(LOCATION), std::env::var(SEED)) else { return };
    let store = open(Path::new(&location), settings());
    for value in 0..60 {
        let id = |n: u32| format!("{seed}-{n}");
        store.upsert(&[Row { id: id(value), ..row(0, value) }]).unwrap();
        if value % 3 == 0 {
            assert_eq!(store.delete(&[&id(value)]).unwrap(), 1);
        }
    }
    println!("\ndone");
}

fn two_processes_write_at_the_same_time(engine: &dyn Engine) {
    drop(engine.create(&config()));
    let store = engine.open(settings());
    let children: Vec<Child> = (0..2).map(|seed| spawn("child_writes_its_rows", &engine.location(), seed)).collect();
    // A third one optimizes and searches meanwhile.
    for _ in 0..5 {
        apply(store.as_ref(), "optimize 0 0");
        store.query(&mm_index::Query::nearest("v", values(1))).unwrap();
    }
    for child in children {
        assert!(child.wait_with_output().unwrap().status.success());
    }
    assert_eq!(stored(store.as_ref()).len(), 2 * 40);
    assert_eq!(store.stats().unwrap().vectors[0].rows, 80);
    assert_eq!(store.check(&mut |_, _, _| {}).unwrap().problems, []);
}

on_each_engine!(acknowledged_rows_survive_kills, two_processes_write_at_the_same_time);
