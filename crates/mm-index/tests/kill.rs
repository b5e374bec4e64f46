//! A process that writes is killed at random instants: what it reported as done is there, whole, and nothing else; searches
//! by vectors, with filters and by words find exactly these rows.
#![allow(missing_docs)]

mod engines;
mod writes;

use engines::{Engine, on_each_engine, open};
use mm_index::Query;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use std::{
    io::{BufRead, BufReader, Read as _},
    path::Path,
    process::{Child, Command, Stdio},
};
use writes::{Operation, Rows, assert_finds, config, row, settings, stored, vector};

const LOCATION: &str = "MM_INDEX_TEST_LOCATION";
const SEED: &str = "MM_INDEX_TEST_SEED";

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
        let operation = Operation::random(&mut random, value);
        let text = serde_json::to_string(&operation).unwrap();
        println!("\nbegin {text}");
        operation.apply(store.as_ref());
        println!("\ndone {text}");
    }
}

/// What a child began, and whether it reported each as done.
fn reported(output: impl BufRead) -> Vec<(Operation, bool)> {
    let mut operations: Vec<(Operation, bool)> = Vec::new();
    let parse = |text: &str| serde_json::from_str::<Operation>(text).unwrap();
    for line in output.lines().map_while(Result::ok) {
        if let Some(text) = line.strip_prefix("begin ") {
            operations.push((parse(text), false));
        } else if let Some(text) = line.strip_prefix("done ") {
            let last = operations.last_mut().expect("a beginning before an end");
            assert_eq!(last.0, parse(text));
            last.1 = true;
        }
    }
    operations
}

/// Starts a process that writes, and kills it at a random instant. Returns what it reported.
fn write_and_kill(engine: &dyn Engine, seed: u64, random: &mut StdRng) -> Vec<(Operation, bool)> {
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
    reported(first.as_bytes().chain(output))
}

/// Twenty kills, or as many as `MM_INDEX_KILLS` states.
fn acknowledged_rows_survive_kills(engine: &dyn Engine) {
    let kills: usize = std::env::var("MM_INDEX_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(20);
    drop(engine.create(&config()));
    let mut random = StdRng::seed_from_u64(7);
    let (mut rows, mut acknowledged, mut walked) = (Rows::new(), 0, 0);
    let store = engine.open(settings());
    for operation in Operation::fill(0).chain([Operation::Optimize { rebuild: false }]) {
        operation.apply(store.as_ref());
        operation.apply_to(&mut rows);
    }
    drop(store);
    for kill in 0..kills {
        let operations = write_and_kill(engine, kill as u64, &mut random);
        let mut after = rows.clone();
        for (index, (operation, done)) in operations.iter().enumerate() {
            assert!(*done || index + 1 == operations.len(), "only the last can be unfinished");
            operation.apply_to(&mut after);
            if *done {
                rows = after.clone();
                acknowledged += 1;
            }
        }
        let store = engine.open(settings());
        // A server may still do what the killed process asked for last: this waits until it has, or has undone it.
        assert_eq!(store.delete(&["none"]).unwrap(), 0);
        let found = stored(store.as_ref());
        assert!(found == rows || found == after, "kill {kill}: {found:?}, expected {rows:?} or {after:?}");
        rows = found;
        walked += assert_finds(store.as_ref(), &rows, &mut random, &format!("kill {kill}"));
        let report = store.check(&mut |_, _, _| {}).unwrap();
        assert_eq!(report.problems, [], "kill {kill}");
    }
    assert!(acknowledged > kills / 4, "{acknowledged} operations in {kills} processes");
    assert!(walked >= kills, "{walked} searches walked a graph");
}

#[test]
#[ignore = "the processes that two_processes_write_at_the_same_time starts"]
fn child_writes_its_rows() {
    let (Some(location), Ok(seed)) = (std::env::var_os(LOCATION), std::env::var(SEED)) else { return };
    let store = open(Path::new(&location), settings());
    for value in 0..60 {
        let id = format!("{seed}-{value}");
        store.upsert(&[row(&id, value)]).unwrap();
        if value % 3 == 0 {
            assert_eq!(store.delete(&[&id]).unwrap(), 1);
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
        Operation::Optimize { rebuild: true }.apply(store.as_ref());
        store.query(&Query::nearest("v", vector("query", 1))).unwrap();
    }
    for child in children {
        assert!(child.wait_with_output().unwrap().status.success());
    }
    assert_eq!(stored(store.as_ref()).len(), 2 * 40);
    assert_eq!(store.stats().unwrap().vectors[0].rows, 80);
    assert_eq!(store.check(&mut |_, _, _| {}).unwrap().problems, []);
}

on_each_engine!(acknowledged_rows_survive_kills, two_processes_write_at_the_same_time);
