//! Rows that are exported and imported again, and tables of other programs.

use super::{
    super::{FieldTypes, ParquetRows, VectorFolder},
    Import, ImportOptions,
};
use mm_index::{Payload, Quantization, Row, StoreConfig, VectorConfig, Vectors};
use serde_json::{Value, json};
use std::{collections::BTreeSet, fs::File, path::Path, sync::atomic::AtomicBool};

const VECTORS: [[f32; 2]; 3] = [[0.6, 0.8], [1.0, 0.0], [-0.6, 0.8]];

/// Rows with these payloads and texts, each with a vector.
fn rows(payloads: &[(Value, Option<&str>)]) -> Vec<Row> {
    let row = |(number, (payload, text)): (usize, &(Value, Option<&str>))| {
        let payload: Payload = payload.as_object().unwrap().clone();
        let row = Row { payload, text: text.map(Into::into), ..Row::new(number.to_string()) };
        row.with_vector("image", VECTORS[number % VECTORS.len()].to_vec())
    };
    payloads.iter().enumerate().map(row).collect()
}

/// The rows of a new store into which a source is imported.
fn imported(source: &Path, modality: Option<&str>) -> Vec<Row> {
    let options = ImportOptions { modality: modality.map(Into::into), ..ImportOptions::default() };
    let (stop, folder) = (AtomicBool::new(false), tempfile::tempdir().unwrap());
    let import = Import::open(&[source.to_owned()], options, &stop, &mut |_| {}).unwrap();
    let config = import.store_config(Quantization::F16, None);
    let store = mm_index::create(&folder.path().join("store"), &config).unwrap();
    import.write(store.as_ref(), &stop, &mut |_, _| {}).unwrap();
    store.page(None, 1000).unwrap().rows
}

fn assert_equal(found: &[Row], expected: &[Row], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!((&found.id, &found.text), (&expected.id, &expected.text), "{what}");
        assert_eq!(found.payload, expected.payload, "{what}");
        let values = |row: &Row| -> Vec<f32> { row.vectors["image"].iter().flatten().copied().collect() };
        assert!(values(found).iter().zip(values(expected)).all(|(a, b)| (a - b).abs() < 1e-3), "{what}");
    }
}

fn field_types(rows: &[Row]) -> FieldTypes {
    let mut fields = FieldTypes::default();
    rows.iter().for_each(|row| fields.add(&row.payload));
    fields
}

/// Exports rows as Parquet and as a folder, and imports them again.
fn assert_restored(rows: &[Row]) {
    let (folder, fields) = (tempfile::tempdir().unwrap(), field_types(rows));
    let path = folder.path().join("rows.parquet");
    let mut file = ParquetRows::new(File::create(&path).unwrap(), &fields, Some("image")).unwrap();
    rows.iter().for_each(|row| file.add(row.clone()).unwrap());
    file.finish().unwrap();
    assert_equal(&imported(&path, Some("image")), rows, "Parquet");
    let (path, config) = (folder.path().join("folder"), StoreConfig::new("image", VectorConfig::cosine(2)));
    let mut files = VectorFolder::create(&path, &config, &["image".to_owned()], &fields).unwrap();
    rows.iter().for_each(|row| assert!(files.add(row.clone()).unwrap()));
    assert_eq!(files.finish().unwrap(), rows.len());
    assert_equal(&imported(&path, None), rows, "folder");
}

#[test]
fn fields_named_as_columns_of_an_export_are_restored() {
    let payloads = [
        (json!({"payload": {"a": 1}, "year": 1999}), Some("a text")),
        (json!({"payload": {"a": 1}}), None),
        (json!({"id": 1, "payload_id": 2}), None),
        (json!({"payload_text": "x"}), Some("")),
        (json!({"text": "a", "embedding": [1], "payload_payload_id": true, "payload_x": 0.5}), None),
        (json!({"caption": "no text", "image_path": "a.png", "vector": [0.5], "key": "k"}), None),
        (json!({"caption": "no text", "payload_caption": "x"}), Some("a text")),
        // As `mm embed` names the values of its vectors.
        (json!({"row": 1, "modality": "image", "value": 0}), None),
        // Texts of digits, which would be numbers in a table of another program.
        (json!({"year": "1999", "seen": "true"}), None),
    ];
    // Each in a file of its own, and all in one.
    rows(&payloads).iter().for_each(|row| assert_restored(std::slice::from_ref(row)));
    assert_restored(&rows(&payloads));
}

#[test]
fn a_folder_has_the_rows_with_all_vectors() {
    let (folder, fields) = (tempfile::tempdir().unwrap(), FieldTypes::default());
    let vector = |name: &str| (name.to_owned(), VectorConfig::cosine(2));
    let mut config = StoreConfig { vectors: [vector("image"), vector("text")].into() };
    let names = ["image".to_owned(), "text".to_owned()];
    let path = folder.path().join("folder");
    let of_image = || Row::new("image").with_vector("image", vec![1.0, 0.0]);
    let of_both = || Row::new("both").with_vector("image", vec![0.6, 0.8]).with_vector("text", vec![0.0, 1.0]);
    // Written twice: the files of an export are replaced by those of the next.
    for _ in 0..2 {
        let mut files = VectorFolder::create(&path, &config, &names, &fields).unwrap();
        assert!(!files.add(of_image()).unwrap() && files.add(of_both()).unwrap());
        assert_eq!(files.finish().unwrap(), 1);
    }
    let found = imported(&path, None);
    assert_eq!((found.len(), found[0].id.as_str(), found[0].vectors.len()), (1, "both", 2));
    assert_eq!(found[0].vectors["text"], Vectors::Single(vec![0.0, 1.0]));
    // One that is interrupted leaves the files as they were.
    let mut files = VectorFolder::create(&path, &config, &names, &fields).unwrap();
    files.add(of_both()).unwrap();
    drop(files);
    assert_eq!(imported(&path, None).len(), 1);
    let files_of = |folder: &Path| -> Vec<String> {
        let entries = folder.read_dir().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        entries.collect::<BTreeSet<_>>().into_iter().collect()
    };
    // No temporary file, and no folder of workers.
    assert_eq!(files_of(&path), ["img_emb", "metadata", "provenance.json", "text_emb"]);
    assert_eq!(files_of(&path.join("img_emb")), ["img_emb_0.npy"]);
    assert_eq!(files_of(&path.join("metadata")), ["metadata_0.parquet"]);
    let refused = |path: &Path, config: &StoreConfig, names: &[String]| {
        VectorFolder::create(path, config, names, &fields).err().unwrap().to_string()
    };
    assert!(refused(&path, &config, &names[..1]).contains("modalities"));
    std::fs::create_dir(folder.path().join("other")).unwrap();
    std::fs::write(folder.path().join("other/file"), "").unwrap();
    assert!(refused(&folder.path().join("other"), &config, &names).contains("expected a new or an empty folder"));
    // A folder without rows is no export, and the former files stay.
    let mut empty = VectorFolder::create(&path, &config, &names, &fields).unwrap();
    assert!(!empty.add(of_image()).unwrap());
    let message = empty.finish().unwrap_err().to_string();
    assert!(message.contains("rows: found none with a vector of image and text"), "{message}");
    assert_eq!(imported(&path, None).len(), 1);
    // `img_emb` has the vectors `image`.
    let img = StoreConfig { vectors: [vector("img")].into() };
    let message = refused(&folder.path().join("img"), &img, &["img".to_owned()]);
    assert!(message.contains("found the name `img`, expected another name"), "{message}");
    assert!(!folder.path().join("img").exists());
    config.vectors.get_mut("text").unwrap().multi = true;
    assert!(refused(&path, &config, &names).contains("vectors `text`: found several in a row"));
}

/// Imports lines of JSON.
fn of_lines(lines: &[Value], modality: Option<&str>) -> Vec<Row> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("table.jsonl");
    std::fs::write(&path, lines.iter().map(|line| format!("{line}\n")).collect::<String>()).unwrap();
    imported(&path, modality)
}

#[test]
fn columns_of_other_programs_are_fields() {
    let embedding = [0.6, 0.8];
    // As `mm embed` writes it.
    let value =
        |number: usize| json!({"id": "a", "row": 1, "modality": "audio", "value": number, "embedding": embedding});
    let found = of_lines(&[value(0), value(1)], None);
    assert_eq!((found.len(), found[0].payload.len(), found[0].vectors["audio"].iter().count()), (1, 0, 2));
    // Columns of the same names with other values, or next to others.
    let others = [
        json!({"id": "a", "row": "left", "modality": "audio", "value": 1, "embedding": embedding}),
        json!({"id": "a", "row": 1, "modality": "audio", "value": 0.5, "embedding": embedding}),
        json!({"id": "a", "row": 1, "modality": "audio", "value": 1, "year": 1999, "embedding": embedding}),
    ];
    for other in others {
        let found = of_lines(std::slice::from_ref(&other), Some("v"));
        assert_eq!(found[0].vectors.keys().collect::<Vec<_>>(), ["v"]);
        assert!(["row", "modality", "value"].iter().all(|name| found[0].payload[*name] == other[*name]), "{found:?}");
    }
    // The text of a table is in one column.
    let captions = [
        json!({"id": "a", "caption": "c", "embedding": embedding}),
        json!({"id": "b", "text": null, "caption": "c", "year": "1999", "embedding": embedding}),
    ];
    let found = of_lines(&captions, Some("v"));
    assert_eq!((found[0].text.as_deref(), found[0].payload.len()), (Some("c"), 0));
    assert_eq!((found[1].text.as_deref(), &found[1].payload["caption"]), (None, &json!("c")));
    assert_eq!(found[1].payload["year"], 1999, "columns of numbers are numbers");
}

#[test]
fn rows_without_ids_do_not_replace_those_of_another_file() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, vectors: [[f32; 2]; 2]| {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, vectors.map(|vector| format!("{}\n", json!({"embedding": vector}))).concat()).unwrap();
        path
    };
    let first = write("one/emb.jsonl", [[3.0, 4.0], [1.0, 0.0]]);
    let second = write("two/emb.jsonl", [[3.0, 4.0], [0.0, 1.0]]);
    let third = write("two/emb_1.jsonl", [[1.0, 1.0], [0.0, 1.0]]);
    let stop = AtomicBool::new(false);
    let config = StoreConfig::new("image", VectorConfig::cosine(2));
    let store = mm_index::create(&folder.path().join("store"), &config).unwrap();
    let import = |path: &Path, change: fn(&mut ImportOptions)| {
        let mut options = ImportOptions { modality: Some("image".into()), ..ImportOptions::default() };
        change(&mut options);
        let import = Import::open(&[path.to_owned()], options, &stop, &mut |_| {}).unwrap();
        import.write(store.as_ref(), &stop, &mut |_, _| {}).map(|summary| (summary.added, summary.changed))
    };
    assert_eq!(import(&first, |_| {}).unwrap(), (2, 0));
    // The same import once more, and a file of another name.
    assert_eq!(import(&first, |_| {}).unwrap(), (0, 2));
    assert_eq!(import(&third, |_| {}).unwrap(), (2, 0));
    let refused = import(&second, |_| {}).unwrap_err().to_string();
    assert!(refused.contains("found image of row `emb/2`") && refused.contains("--id-prefix"), "{refused}");
    assert_eq!(store.get(&["emb/2"]).unwrap()[0].as_ref().unwrap().vectors["image"], Vectors::Single(vec![1.0, 0.0]));
    assert_eq!(import(&second, |options| options.id_prefix = Some("two:".into())).unwrap(), (2, 0));
    assert_eq!(import(&second, |options| options.replace = true).unwrap(), (0, 2));
    let ids: Vec<String> = store.page(None, 10).unwrap().rows.into_iter().map(|row| row.id).collect();
    assert_eq!(ids.len(), 6, "{ids:?}");
    assert_eq!(store.get(&["emb/2"]).unwrap()[0].as_ref().unwrap().vectors["image"], Vectors::Single(vec![0.0, 1.0]));
}
