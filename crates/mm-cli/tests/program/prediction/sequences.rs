//! Prediction from sequences of feature vectors.

use super::{evaluate, mm, refused, stderr};
use crate::{
    common::{fixture, metric},
    ok,
};

const CONFIG: &str = r#"
task = "prediction"
label = "label"
problem = "regression"
ensembling = "none"
[data]
manifest = "m.jsonl"
[data.columns.modalities]
words = "words"
voice = "voice"
face = "face"
[data.split]
column = "split"
[inputs.words]
encoder = { kind = "vector", dim = 5, max_steps = 4 }
sequence = true
[inputs.voice]
encoder = { kind = "vector", dim = 3, max_steps = 4 }
sequence = true
[inputs.face]
encoder = { kind = "vector", dim = 2 }
[fusion]
dim = 16
operator = { kind = "mult" }
[train]
epochs = 3
"#;

#[test]
fn feature_sequences_of_a_pickle_are_prepared_and_trained_on() {
    let temp_dir = tempfile::tempdir().unwrap();
    let folder = temp_dir.path();
    let pickle = fixture("mm-data", "multimodal_sentiment/mmsa.pkl");
    ok(&mm(&["prepare", "--dataset", "mosei", "--data", pickle.to_str().unwrap(), "--out", "m.jsonl"], folder));
    std::fs::write(folder.join("m.toml"), CONFIG).unwrap();
    ok(&mm(&["train", "m.toml", "--out", "run"], folder));
    let evaluation = evaluate("run", &[], folder);
    assert!(metric(&evaluation, "mae").is_finite(), "{evaluation}");
    let sentiment = ["--set", "sentiment_metrics=true", "--set", "train.epochs=1"];
    ok(&mm(&[&["train", "m.toml", "--out", "sentiment"], &sentiment[..]].concat(), folder));
    let evaluation = evaluate("sentiment", &[], folder);
    assert!(metric(&evaluation, "acc_7").is_finite() && metric(&evaluation, "f1_2").is_finite(), "{evaluation}");
    let classes = ["--set", "sentiment_metrics=true", "--set", "problem=\"multiclass\""];
    refused(&[&["train", "m.toml", "--out", "no"], &classes[..]].concat(), folder, &["sentiment_metrics"]);
    // Rows that are not in the array are reported like any value that cannot be read.
    let text = std::fs::read_to_string(folder.join("m.jsonl")).unwrap();
    std::fs::write(folder.join("m.jsonl"), text.replace("\"from\":0", "\"from\":900")).unwrap();
    let log = stderr(&mm(&["train", "m.toml", "--out", "again"], folder));
    assert!(log.contains("from row 900") && !log.contains("panicked"), "{log}");
}
