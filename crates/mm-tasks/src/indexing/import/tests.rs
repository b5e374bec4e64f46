//! Rows that are exported as Parquet and read again.

use super::super::{FieldTypes, ParquetRows};
use super::{ImportOptions, records::for_each_record, source::Part};
use mm_index::{Payload, Row, Vectors};
use serde_json::{Value, json};
use std::fs::File;

/// The payloads and texts of rows with these payloads, without texts, after an export and an import.
fn restored(payloads: &[Value]) -> Vec<(Value, Option<String>)> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("rows.parquet");
    let mut fields = FieldTypes::default();
    let payload = |value: &Value| -> Payload { value.as_object().unwrap().clone() };
    payloads.iter().for_each(|value| fields.add(&payload(value)));
    let mut file = ParquetRows::new(File::create(&path).unwrap(), &fields, Some("image")).unwrap();
    for (number, value) in payloads.iter().enumerate() {
        let mut row = Row { payload: payload(value), ..Row::new(number.to_string()) };
        row.vectors.insert("image".into(), Vectors::Single(vec![0.5, 1.0]));
        file.add(row).unwrap();
    }
    file.finish().unwrap();
    let options = ImportOptions { modality: Some("image".into()), ..ImportOptions::default() };
    let mut found = Vec::new();
    for_each_record(&Part::Table(path), &options, &mut |record| {
        assert_eq!(record.id, found.len().to_string());
        assert_eq!(record.vectors, [("image".to_owned(), vec![0.5_f32, 1.0])]);
        found.push((Value::Object(record.payload), record.text));
        Ok(())
    })
    .unwrap();
    found
}

#[test]
fn fields_named_as_columns_of_an_export_are_restored() {
    let payloads = [
        json!({"payload": {"a": 1}, "year": 1999}),
        json!({"payload": {"a": 1}}),
        json!({"id": 1, "payload_id": 2}),
        json!({"payload_text": "x"}),
        json!({"text": "a", "embedding": [1], "payload_payload_id": true, "payload_x": 0.5}),
    ];
    // Each in a file of its own, and all in one.
    let expected = payloads.clone().map(|payload| (payload, None::<String>));
    for (payload, expected) in payloads.iter().zip(&expected) {
        assert_eq!(restored(std::slice::from_ref(payload)), std::slice::from_ref(expected));
    }
    assert_eq!(restored(&payloads), expected);
}
