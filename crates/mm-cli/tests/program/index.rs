//! Stores: built from folders and manifests, kept up to date, searched by vectors, words and fields.

use crate::{
    common::{Workspace, fixture, mm, refused},
    json, json_lines, ok,
};
use serde_json::Value;
use std::path::Path;

/// A workspace with a tiny dual encoder of images and texts.
pub fn workspace() -> Workspace {
    let workspace = Workspace::new();
    let from = fixture("mm-repr", "families/clip-eos-gelu");
    std::fs::create_dir(workspace.path().join("clip")).unwrap();
    for file in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        std::fs::copy(file.path(), workspace.path().join("clip").join(file.file_name())).unwrap();
    }
    workspace
}

pub fn ids(lines: &[Value]) -> Vec<&str> {
    lines.iter().filter_map(|line| line["id"].as_str()).collect()
}

#[test]
fn a_manifest_is_indexed_and_searched() {
    let workspace = workspace();
    let folder = workspace.path();
    let run = |arguments: &[&str]| mm(arguments, folder);
    let build = [
        "index",
        "build",
        "data.jsonl",
        "--model",
        "clip",
        "--store",
        "s",
        "--modality",
        "image",
        "--modality",
        "text",
        "--json",
    ];
    let built = json(&run(&build));
    assert_eq!(
        (&built["rows"], &built["added"], &built["failed"]["count"]),
        (&12.into(), &12.into(), &0.into()),
        "{built}"
    );
    let again = json(&run(&build));
    assert_eq!((&again["added"], &again["unchanged"]), (&0.into(), &12.into()), "{again}");
    // An image finds itself among the images, as `mm embed` computes its vector.
    let search = |more: &[&str]| json_lines(&run(&[&["search", "--store", "s", "--json"], more].concat()));
    let found = search(&["--image", "7.png", "--modality", "image", "--k", "3"]);
    assert_eq!((found.len(), found[0]["id"].as_str(), found[0]["rank"].as_i64()), (3, Some("7"), Some(1)), "{found:?}");
    assert!((found[0]["score"].as_f64().unwrap() - 1.0).abs() < 2e-3, "{found:?}");
    // A text finds itself among the texts, a word its rows, a filter only those that it selects.
    assert_eq!(ids(&search(&["--text", "lazy dog", "--modality", "text", "--k", "1"])), ["2"]);
    let words = search(&["--words", "fox", "--filter", "split = \"train\" and id < 3"]);
    assert_eq!(ids(&words), ["1"], "{words:?}");
    assert_eq!(words[0]["payload"]["id"], 1, "columns of numbers are numbers");
    let joined = search(&["--text", "quick dog", "--hybrid", "--k", "2", "--explain"]);
    assert_eq!((ids(&joined)[0], joined.len()), ("10", 3), "{joined:?}");
    assert_eq!(joined[0]["contributions"].as_array().unwrap().len(), 3, "two vectors and the words");
    assert_eq!(joined[2]["steps"].as_array().unwrap().len(), 3);
    // Any value of a modality, and a filter alone.
    assert_eq!(ids(&search(&["--input", "text=lazy dog", "--modality", "text", "--k", "1"])), ["2"]);
    let listed = search(&["--filter", "split = \"train\" and id < 3"]);
    assert_eq!((ids(&listed), listed[0].get("score")), (vec!["0", "1", "2"], None), "{listed:?}");
    let shown = ok(&run(&["search", "--store", "s", "--words", "brown", "--explain", "--report", "found.html"]));
    let page = std::fs::read_to_string(folder.join("found.html")).unwrap();
    assert!(page.contains("brown fox") && page.contains("data:image/jpeg"), "{page}");
    assert!(shown.contains("3  brown fox") && shown.contains("text: words"), "{shown}");
}

#[test]
fn a_folder_is_followed() {
    let workspace = workspace();
    let folder = workspace.path();
    std::fs::create_dir_all(folder.join("photos/old")).unwrap();
    for (from, to) in [("0.png", "a.png"), ("1.png", "old/b.png"), ("2.png", "c.png")] {
        std::fs::copy(folder.join(from), folder.join("photos").join(to)).unwrap();
    }
    std::fs::write(folder.join("photos/note.txt"), "a quick fox").unwrap();
    std::fs::write(folder.join("photos/broken.png"), "no image").unwrap();
    let build = || json(&mm(&["index", "build", "photos", "--model", "clip", "--store", "s", "--json"], folder));
    let first = build();
    assert_eq!((&first["added"], &first["failed"]["count"]), (&5.into(), &1.into()), "{first}");
    assert!(first["failed"]["examples"][0]["row"] == "broken.png", "{first}");
    let nearest = |image: &str| {
        let search = ["search", "--store", "s", "--image", image, "--modality", "image", "--json", "--k", "1"];
        json_lines(&mm(&search, folder))[0]["id"].as_str().unwrap().to_owned()
    };
    assert_eq!(nearest("1.png"), "old/b.png");
    let in_folder = json_lines(&mm(
        &["search", "--store", "s", "--image", "0.png", "--filter", "folder = 'old'", "--json"],
        folder,
    ));
    assert_eq!(ids(&in_folder), ["old/b.png"]);
    // One file changes, one goes, one is repaired.
    std::fs::copy(folder.join("5.png"), folder.join("photos/a.png")).unwrap();
    std::fs::remove_file(folder.join("photos/c.png")).unwrap();
    std::fs::copy(folder.join("6.png"), folder.join("photos/broken.png")).unwrap();
    let second = build();
    let counts = ["added", "changed", "unchanged", "deleted"].map(|key| second[key].as_i64().unwrap());
    assert_eq!(counts, [0, 2, 2, 1], "{second}");
    assert_eq!((nearest("5.png").as_str(), nearest("6.png").as_str()), ("a.png", "broken.png"));
    // That the last text is gone does not change the images.
    std::fs::remove_file(folder.join("photos/note.txt")).unwrap();
    let third = build();
    let counts = ["added", "changed", "unchanged", "deleted"].map(|key| third[key].as_i64().unwrap());
    assert_eq!(counts, [0, 0, 3, 1], "{third}");
    // Rows of another source are added to them, and stay when the folder is followed again.
    let add = ["index", "add", "data.jsonl", "--store", "s", "--modality", "image", "--json"];
    assert_eq!(json(&mm(&add, folder))["added"], 12);
    assert_eq!(build()["rows"], 3 + 12);
}

/// The ids of the rows that have vectors of a modality.
fn with_vectors(folder: &Path, modality: &str) -> Vec<String> {
    ok(&mm(&["index", "export", "--store", "s", "--modality", modality, "--out", "vectors.jsonl"], folder));
    let text = std::fs::read_to_string(folder.join("vectors.jsonl")).unwrap();
    let rows = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let mut ids: Vec<String> =
        rows.filter(|row| row["embedding"].is_array()).map(|row| row["id"].as_str().unwrap().to_owned()).collect();
    ids.sort();
    ids
}

#[test]
fn vectors_of_other_modalities_stay() {
    let workspace = workspace();
    let folder = workspace.path();
    let build = |more: &[&str]| {
        let built = json(&mm(
            &[&["index", "build", "data.jsonl", "--model", "clip", "--store", "s", "--json"], more].concat(),
            folder,
        ));
        ["added", "changed", "unchanged"].map(|key| built[key].as_i64().unwrap())
    };
    let change = |from: &str, to: &str| {
        let manifest = std::fs::read_to_string(folder.join("data.jsonl")).unwrap();
        assert!(manifest.contains(from));
        workspace.write("data.jsonl", manifest.replace(from, to));
    };
    assert_eq!(build(&["--modality", "image", "--modality", "text"]), [12, 0, 0]);
    assert_eq!(build(&["--modality", "image"]), [0, 0, 12]);
    // An image changes, and a text, which is embedded when texts are.
    change("\"7.png\"", "\"8.png\"");
    change("\"lazy dog\"", "\"elan elan fox\"");
    assert_eq!(build(&["--modality", "image"]), [0, 2, 10]);
    assert_eq!((with_vectors(folder, "image").len(), with_vectors(folder, "text").len()), (12, 12));
    assert_eq!(build(&[]), [0, 1, 11]);
    assert_eq!(build(&[]), [0, 0, 12]);
    let search = ["search", "--store", "s", "--text", "elan elan fox", "--modality", "text", "--k", "1", "--json"];
    assert_eq!(ids(&json_lines(&mm(&search, folder))), ["2"]);
    // A row that has lost its text loses the vector of it alone.
    change(",\"text\":\"elan elan fox\"", "");
    assert_eq!(build(&[]), [0, 1, 11]);
    assert_eq!((with_vectors(folder, "image").len(), with_vectors(folder, "text").len()), (12, 11));
}

#[test]
fn imported_vectors_stay_when_others_are_embedded() {
    let workspace = workspace();
    let folder = workspace.path();
    for modality in ["image", "text"] {
        let out = format!("{modality}.npy");
        ok(&mm(&["embed", "--model", "clip", "--data", "data.jsonl", "--modality", modality, "--out", &out], folder));
    }
    ok(&mm(&["index", "import", "image.npy", "text.npy", "--model", "clip", "--store", "s"], folder));
    let build = ["index", "build", "data.jsonl", "--model", "clip", "--modality", "image", "--store", "s", "--json"];
    refused(&build, folder, &["12 that other data in this store have", "--replace"]);
    let first = json(&mm(&[&build[..], &["--replace"]].concat(), folder));
    assert_eq!((&first["changed"], &first["without_vectors"]), (&12.into(), &0.into()), "{first}");
    let manifest = std::fs::read_to_string(folder.join("data.jsonl")).unwrap();
    workspace.write("data.jsonl", manifest.replace("\"7.png\"", "\"8.png\""));
    assert_eq!(json(&mm(&build, folder))["changed"], 1);
    assert_eq!((with_vectors(folder, "image").len(), with_vectors(folder, "text").len()), (12, 12));
}

#[test]
fn replaced_rows_belong_to_the_data_that_replaced_them() {
    let workspace = workspace();
    let folder = workspace.path();
    let row = |id: &str| format!("{{\"id\":\"{id}\",\"text\":\"a dog\"}}\n");
    workspace.write("a.jsonl", row("both") + &row("a"));
    workspace.write("b.jsonl", row("both"));
    let build = |from: &str, more: &[&str]| {
        let built =
            json(&mm(&[&["index", "build", from, "--model", "clip", "--store", "s", "--json"], more].concat(), folder));
        ["added", "changed", "unchanged", "deleted"].map(|key| built[key].as_i64().unwrap())
    };
    assert_eq!(build("a.jsonl", &[]), [2, 0, 0, 0]);
    assert_eq!(build("b.jsonl", &["--replace"]), [0, 1, 0, 0]);
    assert_eq!(build("b.jsonl", &[]), [0, 0, 1, 0]);
    workspace.write("a.jsonl", row("a"));
    assert_eq!(build("a.jsonl", &[]), [0, 0, 1, 0], "the row is of b by now");
}

#[test]
fn rows_are_written_while_another_process_optimizes() {
    let workspace = workspace();
    let folder = workspace.path();
    workspace.write("one.jsonl", "{\"id\":\"one\",\"text\":\"a dog\"}\n");
    ok(&mm(&["index", "build", "data.jsonl", "--model", "clip", "--modality", "text", "--store", "s"], folder));
    let lock = std::fs::File::options().write(true).open(folder.join("s/graphs/optimize.lock")).unwrap();
    lock.lock().unwrap();
    let added = mm(&["index", "add", "one.jsonl", "--store", "s"], folder);
    assert!(ok(&added).contains("13 rows"));
    let notes = String::from_utf8_lossy(&added.stderr).into_owned();
    assert!(notes.contains("note: s: another process optimizes it at the moment; all rows are stored"), "{notes}");
    refused(&["index", "optimize", "--store", "s"], folder, &["is being optimized by another process"]);
}

#[test]
fn rows_of_other_data_are_not_replaced_by_accident() {
    let workspace = workspace();
    let folder = workspace.path();
    for (from, to) in [("0.png", "one/a.png"), ("1.png", "two/a.png"), ("2.png", "two/b.png")] {
        let to = folder.join(to);
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(folder.join(from), to).unwrap();
    }
    ok(&mm(&["index", "build", "one", "--model", "clip", "--store", "s"], folder));
    refused(&["index", "add", "two", "--store", "s"], folder, &["1 that other data", "`a.png`", "--replace"]);
    let add = json(&mm(&["index", "add", "two", "--store", "s", "--replace", "--json"], folder));
    assert_eq!((&add["added"], &add["changed"], &add["rows"]), (&1.into(), &1.into(), &2.into()), "{add}");
}

#[test]
fn what_the_model_does_not_see_is_said() {
    let workspace = workspace();
    let folder = workspace.path();
    let long = "a quick brown fox ".repeat(100);
    let rows =
        [serde_json::json!({"id": "long\u{1b}[2J", "text": long}), serde_json::json!({"id": "none", "year": 1999})];
    workspace.write("m.jsonl", rows.map(|row| row.to_string()).join("\n"));
    let output = mm(&["index", "build", "m.jsonl", "--model", "clip", "--store", "s"], folder);
    let warnings = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(warnings.contains("1 text input(s) were longer than the model takes"), "{warnings}");
    assert!(ok(&output).contains("1 rows have no vector"));
    // Names of files and rows do not move the cursor.
    let found = ok(&mm(&["search", "--store", "s", "--words", "fox"], folder));
    assert!(found.contains("long\\u{1b}[2J"), "{found:?}");
}

#[test]
fn rows_are_deleted_exported_compared_and_checked() {
    let workspace = workspace();
    let folder = workspace.path();
    let mut manifest = std::fs::read_to_string(folder.join("data.jsonl")).unwrap();
    manifest += "{\"id\":\"copy\",\"image\":\"4.png\",\"text\":\"a copy\",\"split\":\"test\"}\n";
    workspace.write("data.jsonl", manifest);
    let run = |arguments: &[&str]| mm(&[&["index"], arguments].concat(), folder);
    ok(&run(&["build", "data.jsonl", "--model", "clip", "--modality", "image", "--store", "s"]));
    let groups = json_lines(&run(&["duplicates", "--store", "s", "--threshold", "0.9999", "--json"]));
    assert!(groups.iter().any(|group| group["ids"] == serde_json::json!(["4", "copy"])), "{groups:?}");
    let delete = |option: &str, which: &str| json(&run(&["delete", "--store", "s", option, which, "--json"]));
    assert_eq!(delete("--id", "copy"), serde_json::json!({"deleted": 1, "rows": 12}));
    assert_eq!(delete("--filter", "split = 'test'"), serde_json::json!({"deleted": 4, "rows": 8}));
    let optimized = json(&run(&["optimize", "--store", "s", "--rebuild", "--json"]));
    assert_eq!(optimized["graphs"][0]["rows"], 8, "{optimized}");
    let stats = json(&run(&["stats", "--store", "s", "--json"]));
    assert_eq!((&stats["rows"], &stats["vectors"][0]["graph"]["fresh"]), (&8.into(), &0.into()), "{stats}");
    assert!(ok(&run(&["stats", "--store", "s"])).contains("vector image: 8 rows"));
    // The vectors are those that `mm embed` computes, of unit length and rounded to 16 bits.
    ok(&run(&["export", "--store", "s", "--modality", "image", "--filter", "id = '2'", "--out", "v.npy"]));
    let ours = mm_data::read_npy(&folder.join("v.npy")).unwrap();
    let embed = ["embed", "--model", "clip", "--image", "2.png", "--normalize", "--json"];
    let theirs = json(&mm(&embed, folder))["embedding"].clone();
    let theirs: Vec<f64> = theirs.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
    assert_eq!(ours.shape(), [1, theirs.len() as i64]);
    assert!(ours.to_vec::<f64>().unwrap().iter().zip(&theirs).all(|(a, b)| (a - b).abs() < 1e-3));
    ok(&run(&["export", "--store", "s", "--out", "rows.jsonl"]));
    let rows = std::fs::read_to_string(folder.join("rows.jsonl")).unwrap();
    assert_eq!(rows.lines().count(), 8);
    let parquet = ["export", "--store", "s", "--modality", "image", "--out", "rows.parquet"];
    assert!(ok(&run(&parquet)).contains("8 rows"));
    let table = mm_data::Table::read(&folder.join("rows.parquet"), &mm_data::TableOptions::default()).unwrap();
    for (cells, line) in table.rows.iter().zip(rows.lines()) {
        let row: Value = serde_json::from_str(line).unwrap();
        let cell = |name: &str| cells.get(name).unwrap().to_owned();
        assert_eq!(
            (cell("id"), cell("text")),
            (row["id"].as_str().unwrap().into(), row["text"].as_str().unwrap().into())
        );
        assert_eq!(cell("split"), row["payload"]["split"].as_str().unwrap());
        assert_eq!(cells.value("embedding").unwrap().as_array().unwrap().len(), theirs.len());
    }
    let clusters = ["clusters", "--store", "s", "--k", "3", "--examples", "2", "--json"];
    let output = run(&[&clusters[..], &["--out", "clusters.jsonl", "--report", "clusters.html"]].concat());
    let mut clusters = json_lines(&output);
    let files = serde_json::json!({"out": "clusters.jsonl", "report": "clusters.html"});
    assert_eq!(clusters.pop(), Some(files));
    let sizes: Vec<u64> = clusters.iter().map(|cluster| cluster["vectors"].as_u64().unwrap()).collect();
    assert!(sizes.len() == 3 && sizes.is_sorted_by(|a, b| a >= b) && sizes.iter().sum::<u64>() == 8, "{clusters:?}");
    let assigned = std::fs::read_to_string(folder.join("clusters.jsonl")).unwrap();
    for (number, size) in sizes.iter().enumerate() {
        let of = |line: &&str| serde_json::from_str::<Value>(line).unwrap()["cluster"] == number;
        assert_eq!(assigned.lines().filter(of).count() as u64, *size);
    }
    let page = std::fs::read_to_string(folder.join("clusters.html")).unwrap();
    assert!(page.contains("8 vectors in 3 clusters") && page.contains("<h2>Cluster 2</h2>"));
    assert!(ok(&run(&["check", "--store", "s"])).contains("8 rows, no problem"));
    // A damaged graph is reported, and built again.
    let graph = folder.join("s/graphs/1-1.usearch");
    let mut bytes = std::fs::read(&graph).unwrap();
    bytes.truncate(100);
    std::fs::write(&graph, bytes).unwrap();
    refused(&["index", "check", "--store", "s"], folder, &["1 problems", "mm index optimize"]);
    ok(&run(&["optimize", "--store", "s", "--rebuild"]));
    ok(&run(&["check", "--store", "s"]));
}

#[test]
fn bad_input_is_refused_with_the_reason() {
    let workspace = workspace();
    let folder = workspace.path();
    ok(&mm(&["index", "build", "data.jsonl", "--model", "clip", "--modality", "image", "--store", "s"], folder));
    let search =
        |more: &[&str], wanted: &[&str]| refused(&[&["search", "--store", "s"], more].concat(), folder, wanted);
    search(
        &["--image", "1.png", "--filter", "split >"],
        &["filter, column 8: found the end, expected a value", "\n         ^"],
    );
    search(
        &["--image", "1.png", "--filter", "spilt = 'a'"],
        &["unknown field in the filter `spilt`: did you mean `split`?"],
    );
    search(&["--image", "1.png", "--modality", "imag"], &["unknown vector `imag`: did you mean `image`?"]);
    search(&["--audio", "1.wav"], &["--audio: the store's model embeds"]);
    search(&["--image", "1.png", "--model", "eyes"], &["found the model", "which made its vectors", "--dtype"]);
    search(&["--image", "1.png", "--hybrid"], &["--hybrid", "--words"]);
    search(&["--image", "gone.png"], &["gone.png"]);
    // What only a query by vectors needs.
    search(&["--words", "a", "--modality", "imag"], &["--modality, --model: are of a query", "--text"]);
    search(&["--filter", "split = 'test'", "--model", "none"], &["--modality, --model: are of a query"]);
    search(&["--words", "a", "--dtype", "f99"], &["--dtype: found f99"]);
    search(&[], &["no query"]);
    refused(&["search", "--text", "a"], folder, &["--store", "--model"]);
    refused(&["search", "--store", "none", "--words", "a"], folder, &["none: no such folder", "mm index build"]);
    refused(
        &["index", "build", "data.jsonl", "--model", "eyes", "--store", "s"],
        folder,
        &["found the model", "which made its vectors"],
    );
    refused(
        &["index", "build", "data.jsonl", "--model", "clip", "--store", "s", "--quantization", "i8"],
        folder,
        &["--quantization: the store is there already"],
    );
    refused(&["index", "add", "none", "--store", "s"], folder, &["none: no such file or folder"]);
    let add = |modality| ["index", "add", "data.jsonl", "--store", "s", "--modality", modality];
    refused(&add("imag"), folder, &["unknown vector `imag`: did you mean `image`?"]);
    workspace.write("texts.jsonl", "{\"id\":\"t\",\"text\":\"a dog\"}\n");
    let expected = ["modality: found none in common", "the data (text), the model (text, image) and the store (image)"];
    refused(&["index", "add", "texts.jsonl", "--store", "s"], folder, &expected);
    let export = ["index", "export", "--store", "s", "--out", "v.jsonl", "--filter", "spilt = 1"];
    refused(&export, folder, &["error: unknown field in the filter `spilt`"]);
    refused(
        &["index", "build", "data.jsonl", "--model", "eyes", "--modality", "text", "--store", "t"],
        folder,
        &["the model takes image"],
    );
    refused(&["index", "delete", "--store", "s"], folder, &["nothing to delete"]);
    refused(&["index", "delete", "--store", "s", "--id", "1", "--filter", "id = 2"], folder, &["--id", "--filter"]);
    refused(
        &["index", "duplicates", "--store", "s", "--modality", "image", "--threshold", "2"],
        folder,
        &["from -1 to 1"],
    );
    refused(&["index", "export", "--store", "s", "--out", "v.npy"], folder, &["--modality: not given"]);
    refused(&["index", "clusters", "--store", "s", "--k", "99"], folder, &["k: found 99, expected 1 to"]);
    refused(&["index", "clusters", "--store", "s", "--k", "0"], folder, &["k: found 0, expected 1 to"]);
    refused(&["index", "duplicates", "--store", "s", "--modality", "text"], folder, &["unknown vector `text`"]);
    assert!(!folder.join("t").exists(), "nothing is made where there is nothing to do");
}
