//! Errors and warnings of `mm fit` about tables and options.

use super::{mm, refused, stderr};
use crate::ok;

#[test]
fn invalid_tables_and_options_are_refused() {
    let temp_dir = tempfile::tempdir().unwrap();
    let folder = temp_dir.path();
    let mut rows = String::from("say,n,same,some,mixed,alone\n");
    for row in 0..60 {
        let mixed = if row == 41 { "much".into() } else { format!("{}.5", row * 7 % 59) };
        let some = if row % 2 == 0 { "a" } else { "b" };
        let alone = if row == 7 { "once" } else { some };
        rows.push_str(&format!("one two three {row},{},x,{some},{mixed},{alone}\n", row * 3));
    }
    std::fs::write(folder.join("t.csv"), &rows).unwrap();
    let fit = |label: &str, more: &[&str], wanted: &[&str]| {
        let fixed = ["fit", "--data", "t.csv", "--preset", "fast", "--out", "run", "--label-column", label];
        refused(&[&fixed[..], more].concat(), folder, wanted);
        assert!(!folder.join("run/ensemble.json").exists());
    };
    fit("lable", &[], &["lable", "say"]);
    fit("same", &[], &["`x` in each of"]);
    fit("mixed", &[], &["row 42: found `much`"]);
    fit("mixed", &["--problem", "regression"], &["row 42", "`much`", "expected a number"]);
    fit("some", &["--problem", "regression"], &["expected a number"]);
    fit("n", &["--problem", "binary"], &["expected two for a binary problem"]);
    fit("some", &["--column", "text=sya"], &["sya", "say"]);
    fit("some", &["--column", "text"], &["--column", "text", "NAME=COLUMN"]);
    fit("some", &["--column", "smell=say"], &["smell"]);
    fit("some", &["--column", "image=say"], &[]);
    fit("some", &["--time-limit", "-3"], &[]);
    fit("some", &["--validation-data", "nowhere.csv"], &["nowhere.csv"]);
    let slow = ["fit", "--data", "t.csv", "--label-column", "some", "--preset", "slow", "--out", "run"];
    refused(&slow, folder, &["slow", "good"]);
    refused(&["fit", "--data", "no.csv", "--label-column", "x", "--out", "run"], folder, &["no.csv"]);
    refused(&["predict", "--model", "nothing", "--data", "t.csv"], folder, &["--model nothing: found no such folder"]);
    // A class with a single row is reported, and the fit continues.
    let output =
        mm(&["fit", "--data", "t.csv", "--label-column", "alone", "--preset", "fast", "--out", "single"], folder);
    let log = stderr(&output);
    ok(&output);
    assert!(log.contains("one row to learn from") || log.contains("multiclass of a, b"), "{log}");
}

#[test]
fn a_table_with_repeated_ids_is_accepted() {
    let temp_dir = tempfile::tempdir().unwrap();
    let folder = temp_dir.path();
    let rows: String =
        (0..40).map(|row| format!("{},word {}\n", row % 7, if row % 2 == 0 { "yes,a" } else { "no,b" })).collect();
    std::fs::write(folder.join("repeated.csv"), format!("id,say,y\n{rows}")).unwrap();
    let fit = ["fit", "--data", "repeated.csv", "--label-column", "y", "--preset", "fast", "--time-limit", "2"];
    ok(&mm(&[&fit[..], &["--out", "run"]].concat(), folder));
    ok(&mm(&["predict", "--model", "run", "--data", "repeated.csv", "--json"], folder));
}
