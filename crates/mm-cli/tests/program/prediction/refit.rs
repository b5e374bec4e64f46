//! `mm fit --refit`: training on the validation rows as well, after they have served to select models.

use super::{evaluate, mm};
use crate::{common::metric, datasets::majority_vote_table_without_images, json};

#[test]
fn refit_members_are_trained_on_all_rows_and_predict_new_ones() {
    let temp_dir = tempfile::tempdir().unwrap();
    let folder = temp_dir.path();
    majority_vote_table_without_images(folder, "train.csv", 0..100);
    majority_vote_table_without_images(folder, "test.csv", 1000..1060);
    let fit = ["fit", "--data", "train.csv", "--label-column", "mood", "--preset", "fast", "--refit", "--out", "run"];
    let result = json(&mm(&[&fit[..], &["--json"]].concat(), folder));
    assert_eq!(result["refit_rows"], 100);
    let first = result["rows"].as_u64().unwrap();
    assert!(first < 100 && result["split"] == "valid", "{result}");
    // The run's own validation rows are evaluated by the members that were not trained on them, other data by the refit
    // members.
    let evaluate = |more: &[&str]| evaluate("run", more, folder);
    assert_eq!(metric(&evaluate(&["--split", "valid"]), "accuracy"), metric(&result, "accuracy"));
    assert_eq!(evaluate(&["--split", "valid"])["rows"], 100 - first);
    let refit = evaluate(&["--data", "test.csv"]);
    assert!(metric(&refit, "accuracy") > 0.85, "{refit}");
    let ensemble = std::fs::read_to_string(folder.join("run/ensemble.json")).unwrap();
    std::fs::write(folder.join("run/ensemble.json"), ensemble.replace("member-0-refit", "member-0")).unwrap();
    assert_ne!(metric(&evaluate(&["--data", "test.csv"]), "log_loss"), metric(&refit, "log_loss"));
}
