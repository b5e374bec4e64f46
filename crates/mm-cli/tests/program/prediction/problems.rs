//! Multi-label and ordinal problems.

use crate::{
    common::{metric, mm, refused},
    datasets::bits,
    json, json_lines,
};
use std::{fmt::Write, path::Path};

const TOPICS: [&str; 3] = ["food", "price", "service"];

/// A table of reviews whose labels are the topics that they mention.
fn multilabel_table(folder: &Path, name: &str, rows: std::ops::Range<usize>) {
    let words = ["the soup was warm", "it cost a fortune", "the waiter smiled"];
    let mut text = String::from("review,floor,topics\n");
    for row in rows {
        let has = |topic: usize| bits(row) >> topic & 1 == 1;
        let chosen = |list: [&str; 3], separator: &str| {
            list.into_iter().enumerate().filter(|(i, _)| has(*i)).map(|(_, t)| t).collect::<Vec<_>>().join(separator)
        };
        let review = format!("visited {} {}", ["monday", "friday"][bits(row) >> 4 & 1], chosen(words, " and "));
        writeln!(text, "{review},{},{}", bits(row) >> 5 & 7, chosen(TOPICS, ";")).unwrap();
    }
    std::fs::write(folder.join(name), text).unwrap();
}

#[test]
fn multilabel_problems_are_fitted_predicted_and_evaluated() {
    let temp_dir = tempfile::tempdir().unwrap();
    let folder = temp_dir.path();
    multilabel_table(folder, "train.csv", 0..160);
    multilabel_table(folder, "test.csv", 1000..1080);
    let fit = ["fit", "--data", "train.csv", "--label-column", "topics", "--preset", "fast", "--out", "run", "--json"];
    let fitted = json(&mm(&fit, folder));
    assert_eq!((&fitted["problem"], &fitted["classes"]), (&"multilabel".into(), &TOPICS.as_slice().into()));
    let evaluation = json(&mm(&["eval", "--model", "run", "--data", "test.csv", "--json"], folder));
    // The eight combinations of labels are equally frequent: a constant prediction has an accuracy of 1/8.
    assert!(metric(&evaluation, "accuracy") > 0.9, "{evaluation}");
    assert!(metric(&evaluation, "f1_micro") > 0.95 && metric(&evaluation, "hamming_loss") < 0.05, "{evaluation}");
    let rows = json_lines(&mm(&["predict", "--model", "run", "--data", "test.csv", "--json"], folder));
    let truth = std::fs::read_to_string(folder.join("test.csv")).unwrap();
    let mut hits = 0;
    for (row, line) in rows.iter().zip(truth.lines().skip(1)) {
        let expected: Vec<&str> = line.rsplit(',').next().unwrap().split(';').filter(|t| !t.is_empty()).collect();
        let predicted: Vec<&str> = row["prediction"].as_array().unwrap().iter().map(|l| l.as_str().unwrap()).collect();
        let probabilities = row["probabilities"].as_object().unwrap();
        for topic in TOPICS {
            assert_eq!(predicted.contains(&topic), probabilities[topic].as_f64().unwrap() > 0.5, "{row}");
        }
        hits += usize::from(predicted == expected);
    }
    assert_eq!(rows.len(), 80);
    assert!((metric(&evaluation, "accuracy") - hits as f64 / 80.0).abs() < 1e-9, "{hits}");
}

/// A table whose rating, 1 to 5, is determined by a number and a word together.
fn ordinal_table(folder: &Path, name: &str, rows: std::ops::Range<usize>) {
    let mut text = String::from("review,minutes,rating\n");
    for row in rows {
        let (kind, late) = (bits(row) & 1 == 1, bits(row) >> 1 & 3);
        let rating = 5 - late - usize::from(!kind);
        let review = if kind { "a kind driver" } else { "a rude driver" };
        writeln!(text, "{review},{},{}", 10 * late + (bits(row) >> 4 & 3), rating.max(1)).unwrap();
    }
    std::fs::write(folder.join(name), text).unwrap();
}

#[test]
fn ordinal_problems_are_fitted_predicted_and_evaluated() {
    let temp_dir = tempfile::tempdir().unwrap();
    let folder = temp_dir.path();
    ordinal_table(folder, "train.csv", 0..200);
    ordinal_table(folder, "test.csv", 1000..1080);
    let fit = ["fit", "--data", "train.csv", "--label-column", "rating", "--problem", "ordinal", "--preset", "fast"];
    let fitted = json(&mm(&[&fit[..], &["--out", "run", "--json"]].concat(), folder));
    assert_eq!(
        (&fitted["problem"], &fitted["classes"]),
        (&"ordinal".into(), &["1", "2", "3", "4", "5"].as_slice().into())
    );
    let evaluation = json(&mm(&["eval", "--model", "run", "--data", "test.csv", "--json"], folder));
    assert!(metric(&evaluation, "accuracy") > 0.8, "{evaluation}");
    let rows = json_lines(&mm(&["predict", "--model", "run", "--data", "test.csv", "--json"], folder));
    let truth = std::fs::read_to_string(folder.join("test.csv")).unwrap();
    let mut far = 0;
    for (row, line) in rows.iter().zip(truth.lines().skip(1)) {
        let sum: f64 = row["probabilities"].as_object().unwrap().values().map(|p| p.as_f64().unwrap()).sum();
        assert!((sum - 1.0).abs() < 1e-5, "{row}");
        let rating = |text: &str| text.parse::<i64>().unwrap();
        far += usize::from(
            (rating(row["prediction"].as_str().unwrap()) - rating(line.rsplit(',').next().unwrap())).abs() > 1,
        );
    }
    // The order is learned: wrong predictions are off by one.
    assert_eq!((rows.len(), far), (80, 0));
    let words = std::fs::read_to_string(folder.join("train.csv")).unwrap().replace(",5\n", ",great\n");
    std::fs::write(folder.join("words.csv"), words).unwrap();
    let words =
        [&fit[..], &["--out", "other"]].concat().into_iter().map(|a| if a == "train.csv" { "words.csv" } else { a });
    refused(
        &words.collect::<Vec<_>>(),
        folder,
        &["found `great`", "expected a number, which gives the classes an order"],
    );
}
