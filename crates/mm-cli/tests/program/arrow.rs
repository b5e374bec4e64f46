//! `mm embed --stdio`: rows and vectors as Arrow IPC streams.

use crate::{
    common::{Workspace, text},
    json,
};
use arrow_array::{
    Array, ArrayRef, BinaryArray, DictionaryArray, Int64Array, RecordBatch, StringArray,
    cast::AsArray,
    types::{Float32Type, Int32Type},
};
use arrow_ipc::{reader::StreamReader, writer::StreamWriter};
use std::{
    io::Write,
    path::Path,
    process::{Command, Output, Stdio},
    sync::Arc,
};

/// Gives `input` to `mm embed --stdio`.
fn embed(folder: &Path, more: &[&str], input: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_mm"))
        .args([&["embed", "--model", "eyes", "--stdio", "--threads", "1"], more].concat())
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The program may end before it has read everything.
    let _ = child.stdin.take().unwrap().write_all(input);
    child.wait_with_output().unwrap()
}

fn stream(name: &str, columns: impl IntoIterator<Item = ArrayRef>) -> Vec<u8> {
    let batches: Vec<RecordBatch> =
        columns.into_iter().map(|column| RecordBatch::try_from_iter([(name, column)]).unwrap()).collect();
    let mut writer = StreamWriter::try_new(Vec::new(), &batches[0].schema()).unwrap();
    batches.iter().for_each(|batch| writer.write(batch).unwrap());
    writer.into_inner().unwrap()
}

#[test]
fn each_batch_of_rows_gives_a_batch_of_vectors() {
    let workspace = Workspace::new();
    let folder = workspace.path();
    let line = |n: usize| {
        let text = std::fs::read_to_string(folder.join("data.jsonl")).unwrap();
        let row: serde_json::Value = serde_json::from_str(text.lines().nth(n).unwrap()).unwrap();
        row["image"].as_str().unwrap().to_owned()
    };
    let paths = [line(0), line(1)];
    let bytes: Vec<Vec<u8>> = paths.iter().map(|path| std::fs::read(folder.join(path)).unwrap()).collect();
    let first: ArrayRef = Arc::new(BinaryArray::from(vec![Some(bytes[0].as_slice()), None, Some(b"none")]));
    let second: ArrayRef = Arc::new(BinaryArray::from(vec![Some(bytes[1].as_slice())]));
    let input = stream("photo", [first, second]);
    let output = embed(folder, &["--column", "image=photo"], &input);
    assert!(output.status.success(), "{}", text(&output));
    let batches: Vec<RecordBatch> =
        StreamReader::try_new(output.stdout.as_slice(), None).unwrap().map(Result::unwrap).collect();
    assert_eq!(batches.iter().map(RecordBatch::num_rows).collect::<Vec<_>>(), [3, 1]);
    let vector = |batch: usize, row: usize| {
        let list = batches[batch].column_by_name("image_embedding").unwrap().as_list::<i32>();
        (!list.is_null(row)).then(|| list.value(row).as_primitive::<Float32Type>().values().to_vec())
    };
    let errors = batches[0].column_by_name("image_error").unwrap().as_string::<i32>();
    assert_eq!((vector(0, 1), errors.is_null(0), errors.is_null(1)), (None, true, true));
    assert!(vector(0, 2).is_none() && errors.value(2).contains("value: not an image"), "{}", errors.value(2));
    for (found, path) in [(vector(0, 0), &paths[0]), (vector(1, 0), &paths[1])] {
        let alone = json(&crate::common::mm(&["embed", "--model", "eyes", "--image", path, "--json"], folder));
        let alone: Vec<f64> = alone["embedding"].as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect();
        let found = found.unwrap();
        assert_eq!(found.len(), alone.len());
        assert!(found.iter().zip(&alone).all(|(a, b)| (f64::from(*a) - b).abs() < 1e-5));
    }
    assert!(text(&output).contains("1 values could not be embedded"), "{}", text(&output));
    // Paths do as well.
    let by_path: ArrayRef = Arc::new(StringArray::from(vec![paths[0].as_str()]));
    let output = embed(folder, &[], &stream("image", [by_path]));
    let batch = StreamReader::try_new(output.stdout.as_slice(), None).unwrap().next().unwrap().unwrap();
    let list = batch.column(0).as_list::<i32>();
    assert_eq!(list.value(0).as_primitive::<Float32Type>().values().to_vec(), vector(0, 0).unwrap());
    // So do strings that a dictionary holds once.
    let dictionary: DictionaryArray<Int32Type> =
        [Some(paths[1].as_str()), None, Some(&paths[0]), Some(&paths[1])].into_iter().collect();
    let output = embed(folder, &[], &stream("image", [Arc::new(dictionary) as ArrayRef]));
    assert!(output.status.success(), "{}", text(&output));
    let batch = StreamReader::try_new(output.stdout.as_slice(), None).unwrap().next().unwrap().unwrap();
    let list = batch.column(0).as_list::<i32>();
    let found = |row| list.value(row).as_primitive::<Float32Type>().values().to_vec();
    let first = vector(0, 0).unwrap();
    assert!(list.is_null(1) && found(2).iter().zip(&first).all(|(a, b)| (a - b).abs() < 1e-5));
    assert!(found(0).iter().zip(&found(3)).all(|(a, b)| (a - b).abs() < 1e-5) && found(0) != found(2));

    let refused = |more: &[&str], input: &[u8], wanted: &str| {
        let output = embed(folder, more, input);
        assert!(!output.status.success() && text(&output).contains(wanted), "{}", text(&output));
    };
    refused(&[], &input, "found the columns photo, expected a column image");
    refused(&["--column", "image=photo", "--on-error", "fail"], &input, "batch 1, row 3: value: not an image");
    refused(&["--column", "text=photo"], &input, "modality: found text, expected one that the model takes (image)");
    refused(&["--json"], &input, "--json: standard output is an Arrow stream");
    refused(&["--data", "data.jsonl"], &input, "cannot be used with");
    refused(&[], b"id,image\n1,a.png\n", "an Arrow IPC stream");
    refused(&["--column", "image=photo"], &input[..input.len() / 2], "an Arrow IPC stream");
    let numbers: ArrayRef = Arc::new(Int64Array::from(vec![1]));
    refused(&[], &stream("image", [numbers]), "column image: found Int64, expected binary values");
}
