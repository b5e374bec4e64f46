//! Data sets of multimodal sentiment: computational sequences (`.csd`) and arrays (`.h5`), both HDF5, and pickles.

use crate::bytes::{fixtures, folder, select, write};
use mm_data::datasets::prepare;

/// The folder of the fixtures, and the file of it that the input replaces.
const KINDS: [(&str, &str); 6] = [
    ("csd", "covarep.csd"),
    ("csd", "labels.csd"),
    ("csd", "words.csd"),
    ("h5", "X_train.h5"),
    ("h5", "y_train.h5"),
    ("", "mmsa.pkl"),
];

/// Reads the data set and writes its manifest and arrays.
pub fn read(input: &[u8]) {
    let Some(((subfolder, name), bytes)) = select(&KINDS, input) else { return };
    let folder = folder();
    let data = folder.path().join("data");
    std::fs::create_dir(&data).expect("a temporary folder");
    let from = fixtures("mm-data/tests/fixtures/multimodal_sentiment").join(subfolder);
    if !subfolder.is_empty() {
        for entry in std::fs::read_dir(from).expect("a fixture") {
            let entry = entry.expect("a fixture");
            // Not std::fs::copy, which libFuzzer's alarm interrupts.
            let bytes = std::fs::read(entry.path()).expect("a fixture");
            std::fs::write(data.join(entry.file_name()), bytes).expect("a file in the temporary folder");
        }
    }
    write(&data, name, bytes);
    let _ = prepare("mosei", &data, &folder.path().join("out/manifest.jsonl"));
}
