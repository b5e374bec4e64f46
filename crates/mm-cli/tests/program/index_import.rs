//! Vectors that exist already, imported into a store.

use crate::{
    common::{mm, refused, text},
    index::{ids, workspace},
    json, json_lines, ok,
};
use serde_json::Value;
use std::path::Path;

fn rows(folder: &Path, store: &str, out: &str) -> Vec<Value> {
    ok(&mm(&["index", "export", "--store", store, "--modality", "image", "--out", out], folder));
    let text = std::fs::read_to_string(folder.join(out)).unwrap();
    let mut rows: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    rows.sort_by_key(|row| row["id"].as_str().unwrap().to_owned());
    rows
}

#[test]
fn shards_are_searched_as_a_store_that_embedded_them() {
    let workspace = workspace();
    let folder = workspace.path();
    let shard = ["data", "shard", "--data", "data.jsonl", "--out", "shards/d", "--max-rows", "5", "--json"];
    let shards = json(&mm(&shard, folder))["out"].as_str().unwrap().to_owned();
    let embed = ["embed", "--model", "clip", "--modality", "image", "--modality", "text", "--shards", &shards];
    ok(&mm(&[&embed[..], &["--out", "many"]].concat(), folder));
    let import = ["index", "import", "many", "--model", "clip", "--store", "imported", "--json"];
    let first = json(&mm(&import, folder));
    assert_eq!((&first["rows"], &first["added"], &first["changed"]), (&12.into(), &12.into(), &0.into()), "{first}");
    let again = json(&mm(&import, folder));
    assert_eq!((&again["rows"], &again["added"], &again["changed"]), (&12.into(), &0.into(), &12.into()), "{again}");
    let build = ["index", "build", "data.jsonl", "--model", "clip", "--store", "built"];
    ok(&mm(&[&build[..], &["--modality", "image", "--modality", "text"]].concat(), folder));
    for query in [["--text", "a quick dog"], ["--image", "4.png"]] {
        let search = |store: &str, id: &str| {
            let lines = json_lines(&mm(&[&["search", "--store", store, "--json"], &query[..]].concat(), folder));
            lines.iter().map(|line| line[id].clone()).collect::<Vec<Value>>()
        };
        assert_eq!(search("imported", "score"), search("built", "score"), "{query:?}");
    }
    // Numbers of the table are numbers, its captions the text.
    let found = json_lines(&mm(&["search", "--store", "imported", "--words", "fox", "--json"], folder));
    assert!(!found.is_empty() && found[0]["payload"]["split"].is_string(), "{found:?}");
    let wrong = ["index", "import", "many", "--model", "eyes", "--store", "other"];
    refused(&wrong, folder, &["--model eyes: found fingerprint", "the vectors were made by a model of fingerprint"]);
    assert!(!folder.join("other").exists());
}

#[test]
fn vectors_of_another_model_are_refused() {
    let workspace = workspace();
    let folder = workspace.path();
    for model in ["clip", "eyes"] {
        let embed = ["embed", "--model", model, "--modality", "image", "--shards", "data.jsonl", "--out"];
        ok(&mm(&[&embed[..], &[&format!("of-{model}")]].concat(), folder));
    }
    // A folder says what made it, in a new store too.
    let imported = mm(&["index", "import", "of-clip", "--store", "s"], folder);
    assert!(ok(&imported).contains("12 rows") && !text(&imported).contains("warning"), "{}", text(&imported));
    let config = json(&mm(&["index", "stats", "--store", "s", "--json"], folder))["vectors"][0]["config"].clone();
    assert_eq!(config["model"]["name"], "unknown", "{config}");
    let expected = ["vector `image` of the store: found the model unknown (fingerprint", "which made its vectors"];
    refused(&["index", "import", "of-eyes", "--store", "s"], folder, &expected);
    refused(
        &["index", "import", "of-eyes", "of-clip", "--store", "t"],
        folder,
        &["of a model of fingerprint", "of-clip"],
    );
    let search = ["search", "--store", "s", "--image", "7.png", "--k", "1", "--json"];
    refused(&search, folder, &["--model: this store does not name the model"]);
    refused(&[&search[..], &["--model", "eyes"]].concat(), folder, &["found the model that was loaded"]);
    assert_eq!(ids(&json_lines(&mm(&[&search[..], &["--model", "clip"]].concat(), folder))), ["7"]);
    // Where a file does not say it, that is said.
    ok(&mm(&["embed", "--model", "clip", "--data", "data.jsonl", "--modality", "image", "--out", "image.npy"], folder));
    let warned = |store: &str| {
        let output = mm(&["index", "import", "image.npy", "--store", store], folder);
        ok(&output);
        text(&output)
    };
    assert!(warned("s").contains("warning: vectors `image`: found files that do not say which model made them"));
    assert!(warned("t").contains("warning: vectors `image`: the store records no model"));
}

#[test]
fn arrays_of_the_same_rows_become_one_store() {
    let workspace = workspace();
    let folder = workspace.path();
    for modality in ["image", "text"] {
        let out = format!("{modality}.npy");
        ok(&mm(&["embed", "--model", "clip", "--data", "data.jsonl", "--modality", modality, "--out", &out], folder));
    }
    let both = json(&mm(&["index", "import", "image.npy", "text.npy", "--store", "s", "--json"], folder));
    assert_eq!((&both["rows"], &both["added"], &both["changed"]), (&12.into(), &12.into(), &12.into()), "{both}");
    let search = ["search", "--store", "s", "--model", "clip", "--image", "7.png", "--modality", "image", "--k", "1"];
    assert_eq!(ids(&json_lines(&mm(&[&search[..], &["--json"]].concat(), folder))), ["7"]);
    let search = ["search", "--store", "s", "--model", "clip", "--text", "lazy dog", "--modality", "text", "--k", "1"];
    assert_eq!(ids(&json_lines(&mm(&[&search[..], &["--json"]].concat(), folder))), ["2"]);
    // An array that says nothing of its rows takes them from a table.
    std::fs::remove_file(folder.join("image.rows.jsonl")).unwrap();
    let described = ["index", "import", "image.npy", "--modality", "image", "--metadata", "data.jsonl", "--store", "t"];
    assert!(ok(&mm(&described, folder)).contains("12 rows"));
    assert!(rows(folder, "t", "t.jsonl").iter().all(|row| row["payload"]["split"].is_string()));
    let found = json_lines(&mm(&["search", "--store", "t", "--words", "lazy", "--json"], folder));
    assert_eq!(ids(&found)[0], "2", "{found:?}");
}

#[test]
fn an_export_is_imported_without_a_difference() {
    let workspace = workspace();
    let folder = workspace.path();
    // Fields of every type, and of several.
    let values = ["[\"a\",\"b\"]", "{\"lat\":48.1,\"lon\":11.6}", "9007199254740993", "0.5", "\"x\"", "true"];
    let manifest = std::fs::read_to_string(folder.join("data.jsonl")).unwrap();
    let lines = manifest.lines().zip(values.iter().cycle()).enumerate().map(|(row, (line, value))| {
        let number = if row % 2 == 0 { "9007199254740993" } else { "0.5" };
        format!("{},\"mixed\":{value},\"number\":{number},\"tags\":[\"tag{row}\"]}}\n", line.strip_suffix('}').unwrap())
    });
    workspace.write("data.jsonl", lines.collect::<String>());
    ok(&mm(&["index", "build", "data.jsonl", "--model", "clip", "--modality", "image", "--store", "s"], folder));
    let expected = rows(folder, "s", "rows.jsonl");
    assert!(
        expected[0]["payload"]["mixed"].is_array() && expected[0]["payload"]["number"] == 9_007_199_254_740_993_i64
    );
    for out in ["rows.parquet", "vectors.npy", "vectors"] {
        ok(&mm(&["index", "export", "--store", "s", "--modality", "image", "--out", out], folder));
    }
    for (file, store) in [("rows.jsonl", "a"), ("rows.parquet", "b"), ("vectors.npy", "c"), ("vectors", "d")] {
        let imported = json(&mm(&["index", "import", file, "--modality", "image", "--store", store, "--json"], folder));
        assert_eq!((&imported["rows"], &imported["missing"]), (&12.into(), &0.into()), "{imported}");
        let found = rows(folder, store, "again.jsonl");
        for (found, expected) in found.iter().zip(&expected) {
            for field in ["id", "text", "payload"] {
                assert_eq!(found[field], expected[field], "{file}");
            }
            // Vectors have the length one again, and are rounded again.
            let values = |row: &Value| -> Vec<f64> {
                row["embedding"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
            };
            assert!(values(found).iter().zip(values(expected)).all(|(a, b)| (a - b).abs() < 1e-3), "{file}");
        }
        let found = ["search", "--store", store, "--filter", "tags = 'tag3' and number = 0.5", "--json"];
        assert_eq!(ids(&json_lines(&mm(&found, folder))), ["3"], "{file}");
    }
    // Without vectors there is nothing to import.
    ok(&mm(&["index", "export", "--store", "s", "--out", "fields.jsonl"], folder));
    let import = ["index", "import", "fields.jsonl", "--modality", "image", "--store", "none"];
    refused(&import, folder, &["found no column of vectors", "`mm index export` writes with --modality"]);
}

#[test]
fn a_store_is_exported_as_clip_retrieval_names_its_files() {
    let workspace = workspace();
    let folder = workspace.path();
    let run = |arguments: &[&str]| mm(&[&["index"], arguments].concat(), folder);
    let manifest = std::fs::read_to_string(folder.join("data.jsonl")).unwrap();
    workspace.write("data.jsonl", manifest + "{\"id\":\"image\",\"image\":\"4.png\",\"split\":\"test\"}\n");
    let build = ["build", "data.jsonl", "--model", "clip", "--modality", "image", "--modality", "text", "--store", "s"];
    ok(&run(&build));
    let export = ["export", "--store", "s", "--out", "vectors", "--json"];
    for _ in 0..2 {
        let exported = json(&run(&export));
        assert_eq!((&exported["rows"], &exported["left_out"]), (&12.into(), &1.into()), "{exported}");
    }
    for array in ["img_emb/img_emb_0.npy", "text_emb/text_emb_0.npy"] {
        assert_eq!(mm_data::npy_shape(&folder.join("vectors").join(array)).unwrap()[0], 12);
    }
    let metadata = folder.join("vectors/metadata/metadata_0.parquet");
    let table = mm_data::Table::read(&metadata, &mm_data::TableOptions::default()).unwrap();
    let row = |id: &str| table.rows.iter().find(|row| row.get("id") == Some(id)).unwrap();
    assert_eq!((row("2").get("caption"), row("2").get("split")), (Some("lazy dog"), Some("train")));
    assert!(row("2").get("image_path").unwrap().ends_with("2.png"));
    // The model is that of the store; searches of the new one find the same.
    refused(&["index", "import", "vectors", "--model", "eyes", "--store", "copy"], folder, &["found fingerprint"]);
    let imported = json(&run(&["import", "vectors", "--model", "clip", "--store", "copy", "--json"]));
    assert_eq!((&imported["rows"], &imported["missing"]), (&12.into(), &0.into()), "{imported}");
    let found = |store: &str| {
        let search = ["search", "--store", store, "--text", "a quick dog", "--k", "3", "--json"];
        ids(&json_lines(&mm(&search, folder))).iter().map(|id| (*id).to_owned()).collect::<Vec<_>>()
    };
    ok(&run(&["delete", "--store", "s", "--id", "image"]));
    assert_eq!(found("copy"), found("s"));
    // Folders of others stay as they are.
    let into = |out: &str, wanted: &[&str]| refused(&["index", "export", "--store", "s", "--out", out], folder, wanted);
    into("clip", &["clip: holds files that are not of an export", "an empty folder"]);
    into("vectors.csv", &["--out vectors.csv: expected", ".npy, or the name of a folder"]);
    let embed = ["embed", "--model", "clip", "--modality", "image", "--shards", "data.jsonl", "--out", "many"];
    ok(&mm(&embed, folder));
    into("many", &["was written by `mm embed --shards`, expected `mm index export`"]);
}

#[test]
fn arrays_without_ids_stay_apart() {
    let workspace = workspace();
    let folder = workspace.path();
    ok(&mm(&["embed", "--model", "clip", "--data", "data.jsonl", "--modality", "image", "--out", "image.npy"], folder));
    ok(&mm(&["embed", "--model", "clip", "--data", "data.jsonl", "--modality", "text", "--out", "text.npy"], folder));
    std::fs::create_dir(folder.join("other")).unwrap();
    for (from, to) in [("image.npy", "emb_0.npy"), ("image.npy", "emb_1.npy"), ("text.npy", "other/emb_1.npy")] {
        std::fs::copy(folder.join(from), folder.join(to)).unwrap();
    }
    let import = |file: &str, more: &[&str]| {
        let import = ["index", "import", file, "--modality", "image", "--store", "s", "--json"];
        let imported = json(&mm(&[&import[..], more].concat(), folder));
        ["rows", "added", "changed"].map(|key| imported[key].as_i64().unwrap())
    };
    assert_eq!(import("emb_0.npy", &[]), [12, 12, 0]);
    assert_eq!(import("emb_1.npy", &[]), [24, 12, 0]);
    // The same once more changes nothing; another file of the same name is not taken for it.
    assert_eq!(import("emb_1.npy", &[]), [24, 0, 12]);
    let before = rows(folder, "s", "before.jsonl");
    assert_eq!((before[0]["id"].as_str(), before[12]["id"].as_str()), (Some("emb_0/1"), Some("emb_1/1")));
    let other = ["index", "import", "other/emb_1.npy", "--modality", "image", "--store", "s"];
    refused(&other, folder, &["other/emb_1.npy: found image of row `emb_1/1`", "--id-prefix", "--replace"]);
    assert_eq!(rows(folder, "s", "after.jsonl"), before);
    assert_eq!(import("other/emb_1.npy", &["--id-prefix", "other/"]), [36, 12, 0]);
    assert_eq!(import("other/emb_1.npy", &["--replace"]), [36, 0, 12]);
    // Numbers alone, as rows of a manifest without ids have them.
    assert_eq!(import("emb_0.npy", &["--id-prefix", ""]), [48, 12, 0]);
    assert!(rows(folder, "s", "after.jsonl").iter().any(|row| row["id"] == "12"));
}

#[test]
fn files_that_do_not_fit_are_refused_before_anything_is_written() {
    let workspace = workspace();
    let folder = workspace.path();
    ok(&mm(&["embed", "--model", "clip", "--data", "data.jsonl", "--modality", "image", "--out", "image.npy"], folder));
    let import = |more: &[&str], wanted: &[&str]| {
        refused(&[&["index", "import"], more, &["--store", "s"]].concat(), folder, wanted);
        assert!(!folder.join("s").exists(), "{more:?}");
    };
    workspace.write("few.jsonl", "{\"id\":\"a\"}\n{\"id\":\"b\"}\n");
    import(&["image.npy", "--modality", "image", "--metadata", "few.jsonl"], &["few.jsonl: found 2 rows, expected 12"]);
    workspace.write("twice.jsonl", "{\"id\":\"a\",\"embedding\":[1,2]}\n{\"id\":\"b\"}\n");
    import(&["twice.jsonl", "--modality", "image"], &["twice.jsonl: row 2: found no column of vectors"]);
    workspace.write("twice.jsonl", "{\"id\":\"a\",\"embedding\":[1,2]}\n{\"id\":\"b\",\"embedding\":[1]}\n");
    import(&["twice.jsonl", "--modality", "image"], &["row `b`: found 1 values of image, expected 2"]);
    import(&["twice.jsonl"], &["modality: found not given"]);
    workspace.write(
        "twice.jsonl",
        "{\"id\":\"a\",\"embedding\":[1,2]}\n{\"id\":\"b\",\"embedding\":[1,2]}\n{\"id\":\"a\",\"embedding\":[1,2]}\n",
    );
    import(&["twice.jsonl", "--modality", "image"], &["found the id `a` in two places", "--id"]);
    let adjacent = "{\"id\":\"a\",\"embedding\":[1,2]}\n".repeat(2);
    workspace.write("adjacent.jsonl", adjacent);
    import(&["adjacent.jsonl", "--modality", "image"], &["found the id `a` in two places"]);
    workspace.write("text.jsonl", "{\"id\":\"a\",\"embedding\":\"x\"}\n");
    import(&["text.jsonl", "--modality", "image"], &["row 1: embedding: expected a list of numbers"]);
    workspace.write("zeros.jsonl", "{\"id\":\"a\",\"embedding\":[1,2]}\n{\"id\":\"b\",\"embedding\":[0,0]}\n");
    import(&["zeros.jsonl", "--modality", "image"], &["row `b`: image: found a vector of zeros"]);
    workspace.write("null.jsonl", "{\"id\":\"a\",\"embedding\":[1,2]}\n{\"id\":null,\"embedding\":[1,2]}\n");
    import(&["null.jsonl", "--modality", "image"], &["row 2: found no value in its column `id`", "--id"]);
    import(&["data.csv"], &["expected a file .npy"]);
    import(&["clip"], &["found no folder of arrays"]);
    // The same vectors in two files, of which one would be lost.
    workspace.write("one.jsonl", "{\"id\":\"a\",\"embedding\":[1,2]}\n");
    workspace.write("other.jsonl", "{\"id\":\"b\",\"embedding\":[1,2]}\n{\"id\":\"a\",\"embedding\":[2,1]}\n");
    let twice = ["other.jsonl: found image of row `a`, which one.jsonl has too"];
    import(&["one.jsonl", "other.jsonl", "--modality", "image"], &twice);
    for name in ["x", "y"] {
        std::fs::create_dir(folder.join(name)).unwrap();
        std::fs::copy(folder.join("image.npy"), folder.join(name).join("a.npy")).unwrap();
    }
    let numbered = ["y/a.npy: found image of row `a/1`, which x/a.npy has too", "named by their file", "--id-prefix"];
    import(&["x/a.npy", "y/a.npy", "--modality", "image"], &numbered);
    // Another program's index.
    workspace.write("photos.index", [&b"IxF2"[..], &16_i32.to_le_bytes(), &12_i64.to_le_bytes()].concat());
    import(
        &["photos.index"],
        &["photos.index: found an index of faiss", "reconstruct_n", "mm index import vectors.npy"],
    );
    // A store of another width.
    workspace.write("two.jsonl", "{\"id\":\"a\",\"embedding\":[1,2]}\n");
    workspace.write("three.jsonl", "{\"id\":\"a\",\"embedding\":[1,2,3]}\n");
    ok(&mm(&["index", "import", "two.jsonl", "--modality", "image", "--store", "s"], folder));
    let wider = ["index", "import", "three.jsonl", "--modality", "image", "--store", "s"];
    refused(&wider, folder, &["vectors `image`: found 3 values, expected 2 as in the store"]);
}
