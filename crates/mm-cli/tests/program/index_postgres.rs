//! The commands of a store in PostgreSQL, compared with those of a folder. The server is that of mm-index's tests.

use crate::{
    common::{mm, refused, text},
    index::{ids, workspace},
    json, json_lines, ok,
};
use serde_json::Value;
use std::{path::Path, time::Duration};

#[path = "../../../mm-index/tests/engines/server.rs"]
#[allow(dead_code, reason = "the tests of mm-index use the rest")]
mod server;

/// What the tests of mm-index ask of a place for a store.
#[allow(dead_code, reason = "a schema is one of its engines, which this test does not compare by the crate")]
trait Engine {
    fn location(&self) -> std::path::PathBuf;

    fn few_writes(&self) -> Duration;
}

/// Runs a command of a store, and checks that nothing it prints has the password.
fn run(arguments: &[&str], folder: &Path) -> std::process::Output {
    let output = mm(arguments, folder);
    assert!(!text(&output).contains("cret"), "{}", text(&output));
    output
}

/// What searches of a store find: ids, and scores where there are any.
fn searches(store: &str, folder: &Path) -> Vec<Vec<(String, Option<f64>)>> {
    let queries: [&[&str]; 5] = [
        &["--text", "a quick dog", "--modality", "text", "--k", "5"],
        &["--image", "7.png", "--modality", "image", "--k", "5", "--filter", "split = 'train'"],
        &["--words", "fox"],
        &["--text", "lazy dog", "--hybrid", "--k", "4"],
        &["--filter", "split = 'test' and id > 8"],
    ];
    let found = |query: &&[&str]| {
        let lines = json_lines(&run(&[&["search", "--store", store, "--json"], *query].concat(), folder));
        lines.iter().map(|line| (line["id"].as_str().unwrap().to_owned(), line["score"].as_f64())).collect()
    };
    queries.iter().map(found).collect()
}

fn assert_same(store: &str, other: &str, folder: &Path) {
    let (found, expected) = (searches(store, folder), searches(other, folder));
    for (found, expected) in found.iter().zip(&expected) {
        assert!(!found.is_empty());
        let ids = |found: &[(String, Option<f64>)]| found.iter().map(|(id, _)| id.clone()).collect::<Vec<_>>();
        assert_eq!(ids(found), ids(expected));
        for ((id, score), (_, other)) in found.iter().zip(expected) {
            assert!((score.unwrap_or_default() - other.unwrap_or_default()).abs() < 1e-6, "{id}: {score:?} {other:?}");
        }
    }
}

/// The rows that a store exports, by id.
fn exported(store: &str, folder: &Path) -> Vec<Value> {
    let export = ["index", "export", "--store", store, "--modality", "image", "--out", "rows.jsonl"];
    ok(&run(&export, folder));
    let text = std::fs::read_to_string(folder.join("rows.jsonl")).unwrap();
    let mut rows: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    rows.sort_by_key(|row| row["id"].as_str().unwrap().to_owned());
    rows
}

#[test]
fn a_store_in_a_database_is_used_as_one_in_a_folder() {
    let Some(server) = server::Server::start() else { return };
    let schema = server.schema();
    let (database, workspace) = (schema.address(), workspace());
    let (store, folder) = (database.as_str(), workspace.path());
    refused(&["search", "--store", store, "--words", "fox"], folder, &[]);
    let build = |store: &str| {
        let build = ["index", "build", "data.jsonl", "--model", "clip", "--store", store, "--json"];
        let built = json(&run(&[&build[..], &["--modality", "image", "--modality", "text"]].concat(), folder));
        ["rows", "added", "changed", "unchanged", "deleted"].map(|key| built[key].as_i64().unwrap())
    };
    for place in [store, "folder"] {
        assert_eq!(build(place), [12, 12, 0, 0, 0], "{place}");
        assert_eq!(build(place), [12, 0, 0, 12, 0], "{place}");
    }
    assert_same(store, "folder", folder);
    assert_eq!(exported(store, folder), exported("folder", folder));
    // Rows of another manifest, and deleted ones.
    workspace
        .write("more.jsonl", "{\"id\":\"more\",\"image\":\"4.png\",\"text\":\"a copy of a fox\",\"split\":\"test\"}\n");
    for place in [store, "folder"] {
        let index = |arguments: &[&str]| run(&[&["index"], arguments, &["--store", place, "--json"]].concat(), folder);
        assert_eq!(json(&index(&["add", "more.jsonl"]))["added"], 1);
        assert_eq!(json(&index(&["delete", "--id", "3"])), serde_json::json!({"deleted": 1, "rows": 12}));
        let deleted = json(&index(&["delete", "--filter", "split = 'test' and id = 8"]));
        assert_eq!(deleted, serde_json::json!({"deleted": 1, "rows": 11}));
        let graphs = json(&index(&["optimize", "--rebuild"]))["graphs"].as_array().unwrap().len();
        assert_eq!(graphs, 2, "{place}");
        let stats = json(&index(&["stats"]));
        assert_eq!((&stats["rows"], &stats["texts"]), (&11.into(), &11.into()), "{stats}");
        assert_eq!((&stats["vectors"][0]["name"], &stats["vectors"][0]["rows"]), (&"image".into(), &11.into()));
        let check = json(&index(&["check"]));
        assert_eq!((&check["rows"], check["problems"].as_array().unwrap().len()), (&11.into(), 0), "{check}");
    }
    assert_same(store, "folder", folder);
    let rows = exported(store, folder);
    assert_eq!(rows, exported("folder", folder));
    assert!(rows.iter().any(|row| row["id"] == "more") && rows.iter().all(|row| row["id"] != "3"));
    // What a database holds is imported into a folder, and the other way round.
    ok(&run(&["index", "export", "--store", store, "--out", "vectors"], folder));
    let import = |from: &str, store: &str| {
        let import = ["index", "import", from, "--model", "clip", "--store", store, "--json"];
        json(&run(&import, folder))["added"].as_i64().unwrap()
    };
    assert_eq!(import("vectors", "copy"), 11);
    let second = server.schema();
    assert_eq!(import("vectors", &second.address()), 11);
    assert_same("copy", &second.address(), folder);
    assert_eq!(exported("copy", folder), exported(&second.address(), folder));
    // One message that names the store without its password.
    let build = ["index", "build", "data.jsonl", "--model", "eyes", "--store", store];
    refused(&build, folder, &["found the model", "which made its vectors"]);
    let found = json_lines(&run(&["search", "--store", store, "--words", "copy", "--json"], folder));
    assert_eq!(ids(&found), ["more"]);
}
