//! A table with the values of a modality of another crate: its column is recognized, and cells that name files are
//! paths.
#![allow(missing_docs)]

use mm_core::{Modality, Source};
use mm_data::{ColumnInference, Columns, Manifest, ManifestConfig};
use serde_json::{Value, json};

#[test]
fn the_column_of_another_modality_is_recognized_next_to_text() {
    let folder = tempfile::tempdir().unwrap();
    let rows = "{\"id\":\"a\",\"path\":[[1,2],[3,4]],\"note\":\"two words\"}\n{\"id\":\"b\",\"path\":null,\"note\":\"more words\"}\n";
    std::fs::write(folder.path().join("m.jsonl"), rows).unwrap();
    let config = ManifestConfig { manifest: "m.jsonl".into(), ..ManifestConfig::default() };
    let is_path = |cell: &&Value| cell.pointer("/0/1").is_some_and(Value::is_number);
    let recognize =
        |_: &str, cells: &[&Value]| (!cells.is_empty() && cells.iter().all(is_path)).then(|| "trajectory".to_owned());
    let open = |modalities: Option<&[&str]>| {
        let inference = ColumnInference { modalities, recognize: Some(&recognize) };
        Manifest::open_inferring(&config, folder.path(), &inference).unwrap()
    };
    let manifest = open(None);
    let bound: Vec<&String> = manifest.columns.modalities.keys().collect();
    assert_eq!(bound, ["text", "trajectory"]);
    assert_eq!(manifest.rows[0].values[&Modality::new("trajectory")], [Source::Value(json!([[1, 2], [3, 4]]))]);
    assert!(!manifest.rows[1].values.contains_key(&Modality::new("trajectory")), "an empty cell is missing");
    let bound: Vec<String> = open(Some(&["trajectory"])).columns.modalities.into_keys().collect();
    assert_eq!(bound, ["trajectory"]);
}

#[test]
fn a_cell_that_names_a_file_is_a_path_and_any_other_text_a_value() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("a.csv"), "1,2\n").unwrap();
    std::fs::write(
        folder.path().join("m.csv"),
        "sensor,note\na.csv,a.csv\nnone.csv,some words\n\"[[1,2]]\",more words\n",
    )
    .unwrap();
    let modalities = [("sensor", "sensor"), ("text", "note")].map(|(name, column)| (name.to_owned(), column.into()));
    let columns = Columns { modalities: modalities.into(), ..Columns::default() };
    let config = ManifestConfig { manifest: "m.csv".into(), columns, ..ManifestConfig::default() };
    let rows = Manifest::open(&config, folder.path()).unwrap().rows;
    let found: Vec<&Source> = rows.iter().map(|row| &row.values[&Modality::new("sensor")][0]).collect();
    let path = Source::Path(folder.path().join("a.csv"));
    assert_eq!(found, [&path, &Source::Value(json!("none.csv")), &Source::Value(json!("[[1,2]]"))]);
    assert_eq!(rows[0].values[&Modality::TEXT], [Source::Text("a.csv".into())], "a text is never a file name");
}
