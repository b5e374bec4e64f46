//! `mm fit` on a table of images, text and numbers, and what its run predicts.

use super::{assert_attributions_are_complete, evaluate, mm, refused, stderr};
use crate::{common::metric, datasets::majority_vote_table, json, json_lines, ok};
use std::path::Path;

const MODALITIES: [&str; 3] = ["image", "text", "tabular"];

#[test]
fn a_table_is_fitted_predicted_evaluated_and_reported() {
    let temp_dir = tempfile::tempdir().unwrap();
    let folder = temp_dir.path();
    majority_vote_table(folder, "train.csv", 0..120);
    majority_vote_table(folder, "test.csv", 1000..1080);
    let fit = ["fit", "--data", "train.csv", "--label-column", "mood", "--preset", "fast", "--out", "run", "--json"];
    let output = mm(&fit, folder);
    let log = stderr(&output);
    let result = json(&output);
    for part in ["image: photo", "tabular: price + town", "text: review", "binary of glad, sad", "from scratch"] {
        assert!(log.contains(part), "{part} in {log}");
    }
    assert_eq!(result["problem"], "binary");
    let is_highlighted = |html: &str| html.contains("superb") || html.contains("awful");
    assert_attributions_are_complete(&folder.join("run/report.html"), is_highlighted);
    // A run folder is not overwritten.
    refused(&fit, folder, &["run: holds a run already"]);
    every_modality_contributes_and_missing_values_equal_excluded_modalities(folder);
    predictions_have_probabilities_for_each_row(folder);
    failed_values_and_unknown_classes_are_reported(folder);
    columns_that_are_missing_are_named(folder);
    tables_of_another_format_are_read_as_the_options_say(folder);
    refused(
        &["eval", "--model", "run", "--data", "test.csv", "--exclude-modality", "imag"],
        folder,
        &["imag", "image"],
    );
}

fn every_modality_contributes_and_missing_values_equal_excluded_modalities(folder: &Path) {
    let evaluate = |more: &[&str]| evaluate("run", &[&["--data", "test.csv"], more].concat(), folder);
    let all = evaluate(&[]);
    for name in
        ["accuracy", "balanced_accuracy", "f1_macro", "f1_weighted", "auroc", "log_loss", "expected_calibration_error"]
    {
        assert!(metric(&all, name).is_finite());
    }
    let accuracy = metric(&all, "accuracy");
    // Each of the three signals alone agrees with the majority in three rows of four.
    assert!(accuracy > 0.9, "{all}");
    let without = MODALITIES.map(|m| metric(&evaluate(&["--exclude-modality", m]), "accuracy"));
    assert!(without.iter().all(|w| *w < accuracy), "{without:?}");
    let robustness = evaluate(&["--robustness", "robust.html"]);
    for curve in robustness["curves"].as_array().unwrap() {
        // Without corruption the accuracy is that of the evaluation; with all values missing, that without the
        // modality.
        let points = curve["points"].as_array().unwrap();
        assert!((points[0][1].as_f64().unwrap() - accuracy).abs() < 1e-9, "{curve}");
        if curve["corruption"] == "missing" {
            let index = MODALITIES.iter().position(|m| curve["modality"] == **m).unwrap();
            assert!((points[10][1].as_f64().unwrap() - without[index]).abs() < 1e-9, "{curve}");
        }
    }
}

fn predictions_have_probabilities_for_each_row(folder: &Path) {
    let predict = ["predict", "--model", "run", "--data", "test.csv", "--json", "--out", "p.parquet"];
    let rows = json_lines(&mm(&predict, folder));
    assert_eq!(rows.len(), 80);
    assert_eq!(rows[0]["row"], 1);
    assert_eq!(rows[0]["present"].as_array().unwrap().len(), 3);
    let sum: f64 = rows[0]["probabilities"].as_object().unwrap().values().map(|v| v.as_f64().unwrap()).sum();
    assert!((sum - 1.0).abs() < 1e-6);
    assert!(folder.join("p.parquet").metadata().unwrap().len() > 500);
}

/// A damaged image, an empty row, an unseen category, a class that was not in training, a value that is no number.
fn failed_values_and_unknown_classes_are_reported(folder: &Path) {
    std::fs::write(folder.join("images/broken.png"), b"\x89PNG\r\n\x1a\ntruncated").unwrap();
    let odd = "id,review,price,town,photo,mood\n1,the food was superb,81,Rome,images/broken.png,glad\n2,,,,,sad\n\
               3,awful,NaN,Atlantis,images/1000.png,bored\n4,superb,a lot,Oslo,missing.png,glad\n";
    std::fs::write(folder.join("odd.csv"), odd).unwrap();
    let output = mm(&["predict", "--model", "run", "--data", "odd.csv", "--json"], folder);
    let log = stderr(&output);
    let rows = json_lines(&output);
    assert_eq!(rows.len(), 4);
    assert!(log.contains("broken.png") && log.contains("missing.png") && log.contains("2 values"), "{log}");
    assert_eq!(rows[1]["present"].as_array().unwrap().len(), 0);
    assert!(!rows[0]["present"].as_array().unwrap().contains(&"image".into()));
    assert_eq!(evaluate("run", &["--data", "odd.csv"], folder)["rows_with_unknown_class"], 1);
}

/// Another encoding and other missing values than in training.
fn tables_of_another_format_are_read_as_the_options_say(folder: &Path) {
    let table = "id,review,price,town,photo,mood\n1,caf\u{e9} superb,?,Rome,images/1000.png,glad\n2,awful,30,?,?,sad\n";
    std::fs::write(folder.join("utf8.csv"), table).unwrap();
    let latin1: Vec<u8> = table.chars().map(|c| c as u8).collect();
    std::fs::write(folder.join("latin1.csv"), latin1).unwrap();
    let predict = |name: &str, more: &[&str]| {
        mm(&[&["predict", "--model", "run", "--data", name, "--json", "--missing-values", "?"], more].concat(), folder)
    };
    assert!(stderr(&predict("latin1.csv", &[])).contains("--encoding"));
    let (as_latin1, as_utf8) = (predict("latin1.csv", &["--encoding", "latin1"]), predict("utf8.csv", &[]));
    assert_eq!(json_lines(&as_latin1), json_lines(&as_utf8));
    assert_eq!(json_lines(&as_utf8)[1]["present"], serde_json::json!(["tabular", "text"]));
    let options = ["--data", "latin1.csv", "--encoding", "latin1", "--missing-values", "?"];
    assert!(metric(&evaluate("run", &options, folder), "accuracy").is_finite());
    refused(&["eval", "--model", "run", "--encoding", "latin1"], folder, &["--encoding", "--data"]);
}

/// A column that the model was trained on must be there, unless its modality is excluded.
fn columns_that_are_missing_are_named(folder: &Path) {
    std::fs::write(folder.join("few.csv"), "review\nthe food was awful\n").unwrap();
    let predict = ["predict", "--model", "run", "--data", "few.csv", "--json"];
    refused(
        &predict,
        folder,
        &["few.csv", "`price` (tabular)", "`town` (tabular)", "`photo` (image)", "--exclude-modality"],
    );
    let text_only = ["--exclude-modality", "tabular", "--exclude-modality", "image"];
    let lines = ok(&mm(&[&predict[..], &text_only].concat(), folder));
    assert!(lines.contains("\"present\":[\"text\"]"), "{lines}");
    std::fs::write(folder.join("other.csv"), "x,y\n1,2\n").unwrap();
    refused(&["predict", "--model", "run", "--data", "other.csv"], folder, &["other.csv", "x, y", "review"]);
    refused(&[&["eval", "--model", "run", "--data", "few.csv"], &text_only[..]].concat(), folder, &["few.csv", "mood"]);
}

#[test]
fn the_default_preset_fits_three_models_and_a_stopped_fit_still_predicts() {
    let temp_dir = tempfile::tempdir().unwrap();
    let folder = temp_dir.path();
    majority_vote_table(folder, "train.csv", 0..120);
    majority_vote_table(folder, "test.csv", 1000..1080);
    let fit = ["fit", "--data", "train.csv", "--label-column", "mood", "--column", "text=review"];
    let output = mm(&[&fit[..], &["--column", "tabular=price+town", "--out", "good"]].concat(), folder);
    assert!(stderr(&output).contains("model 3 of 3"));
    ok(&output);
    ok(&mm(&["predict", "--model", "good", "--data", "test.csv", "--json"], folder));
    // Stopped by the time limit at once.
    ok(&mm(&[&fit[..], &["--time-limit", "0.05", "--out", "stopped"]].concat(), folder));
    ok(&mm(&["predict", "--model", "stopped", "--data", "test.csv", "--json"], folder));
}

#[test]
fn a_fit_without_time_to_encode_all_rows_uses_some_of_them() {
    let temp_dir = tempfile::tempdir().unwrap();
    let folder = temp_dir.path();
    let fixture = crate::common::fixture("mm-repr", "sentence-max");
    let model = folder.join("cache/mm/models/all-MiniLM-L6-v2");
    for part in ["", "1_Pooling"] {
        std::fs::create_dir_all(model.join(part)).unwrap();
        for file in std::fs::read_dir(fixture.join(part)).unwrap().map(|f| f.unwrap().path()).filter(|f| f.is_file()) {
            std::fs::copy(&file, model.join(part).join(file.file_name().unwrap())).unwrap();
        }
    }
    let row = |n: u32| format!("{} {n},{}\n", if n.is_multiple_of(2) { "the dog" } else { "a fox" }, n % 2);
    std::fs::write(folder.join("t.csv"), format!("say,y\n{}", (0..4000).map(row).collect::<String>())).unwrap();
    let limited = ["--column", "text=say", "--time-limit", "0.02", "--out", "run"];
    let output = mm(&[&["fit", "--data", "t.csv", "--label-column", "y"], &limited[..]].concat(), folder);
    ok(&output);
    let log = stderr(&output);
    assert!(log.contains("all-MiniLM-L6-v2, pretrained") && log.contains("128 of 4000 rows are used"), "{log}");
    ok(&mm(&["predict", "--model", "run", "--data", "t.csv", "--json"], folder));
}
