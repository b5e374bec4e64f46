//! `mm caption` with checkpoints.

use super::{fixture, lines};
use crate::common::{mm, refused};
use serde_json::Value;

#[test]
fn images_are_captioned_with_beams_a_prompt_or_sampling() {
    let folder = std::env::temp_dir();
    let (image, other) = (fixture("inputs/wide.png"), fixture("inputs/tall.jpg"));
    let model = fixture("blip-caption");
    let caption = ["caption", "--model", &model, "--image", &image, "--image", &other, "--num-beams", "2"];
    let captions = lines(&[&caption, ["--max-new-tokens", "5", "--json"].as_slice()].concat(), &folder);
    assert!(captions.len() == 2 && captions.iter().all(|l| l["text"].is_string() && l["score"].is_f64()));
    let prompted = lines(
        &["caption", "--model", &model, "--image", &image, "--prompt", "a dog", "--json", "--max-new-tokens", "3"],
        &folder,
    );
    assert!(prompted[0]["text"].as_str().unwrap().starts_with("a dog"));
    // Sampling depends on nothing but the seed.
    let sample = ["caption", "--model", &model, "--image", &image, "--temperature", "3", "--json", "--seed", "4"];
    assert_eq!(lines(&sample, &folder), lines(&sample, &folder));
}

#[test]
fn a_table_is_captioned_reports_failed_rows_and_resumes() {
    let temp_dir = tempfile::tempdir().unwrap();
    let folder = temp_dir.path();
    let model = fixture("git-caption");
    for name in ["a.png", "b.png"] {
        std::fs::copy(fixture("inputs/wide.png"), folder.join(name)).unwrap();
    }
    std::fs::write(folder.join("broken.png"), b"not an image").unwrap();
    std::fs::write(folder.join("t.csv"), "id,image,question\nx,a.png,a dog\ny,broken.png,fox\nz,b.png,dog\n").unwrap();
    let caption =
        ["caption", "--model", &model, "--data", "t.csv", "--out", "o.jsonl", "--max-new-tokens", "4", "--json"];
    let counts = lines(&caption, folder);
    assert_eq!((counts[0]["rows"].as_u64(), counts[0]["failed"]["count"].as_u64()), (Some(3), Some(1)));
    let whole = std::fs::read_to_string(folder.join("o.jsonl")).unwrap();
    let rows: Vec<Value> = whole.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert!(rows[1]["error"].as_str().unwrap().contains("broken.png") && rows[2]["text"].is_string());
    // After an interruption in the middle of a batch, that batch is processed again as a whole.
    let middle = whole.find('\n').unwrap() + 9;
    std::fs::write(folder.join("o.jsonl"), &whole[..middle]).unwrap();
    let counts = lines(&caption, folder);
    assert_eq!(counts[0]["resumed"].as_u64(), Some(0));
    assert_eq!(std::fs::read_to_string(folder.join("o.jsonl")).unwrap(), whole);
    // The failed row is tried again, also after the end.
    std::fs::copy(folder.join("a.png"), folder.join("broken.png")).unwrap();
    let counts = lines(&caption, folder);
    assert_eq!((counts[0]["resumed"].as_u64(), counts[0]["failed"]["count"].as_u64()), (Some(2), Some(0)));
    let repaired = std::fs::read_to_string(folder.join("o.jsonl")).unwrap();
    let rows: Vec<Value> = repaired.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(rows.iter().map(|r| r["id"].as_str().unwrap()).collect::<Vec<_>>(), ["x", "y", "z"]);
    assert_eq!((&rows[1]["text"], repaired.contains("error")), (&rows[0]["text"], false));
    std::fs::write(folder.join("broken.png"), b"not an image").unwrap();
    std::fs::remove_file(folder.join("o.jsonl")).unwrap();
    refused(&[&caption, ["--on-error", "fail"].as_slice()].concat(), folder, &["broken.png"]);
    let answer = ["answer", "--model", &model, "--data", "t.csv", "--out", "q.jsonl", "--max-new-tokens", "3"];
    assert!(mm(&answer, folder).status.success());
    let rows = std::fs::read_to_string(folder.join("q.jsonl")).unwrap();
    assert!(rows.lines().next().unwrap().contains("\"question\":\"a dog\""));
    std::fs::write(folder.join("q.jsonl"), "{\"id\":\"other\"}\n").unwrap();
    refused(&answer, folder, &["q.jsonl", "another --out"]);
}

#[test]
fn invalid_captioning_options_are_refused() {
    let folder = std::env::temp_dir();
    let (image, model) = (fixture("inputs/wide.png"), fixture("blip-caption"));
    let caption = |more: &[&str], wanted: &[&str]| {
        refused(&[&["caption", "--model", &model], more].concat(), &folder, wanted);
    };
    caption(&[], &["nothing to caption"]);
    caption(&["--image", &image, "--num-beams", "0"], &["beams", "at least 1"]);
    caption(&["--image", &image, "--num-beams", "4000"], &["beams", "half of the vocabulary"]);
    caption(&["--image", &image, "--max-new-tokens", "100000"], &["40 positions"]);
    caption(&["--image", &image, "--temperature", "0"], &["temperature"]);
    caption(&["--image", &image, "--temperature", "1", "--top-p", "0"], &["top_p"]);
    caption(&["--image", "nowhere.png"], &["nowhere.png"]);
}

#[test]
fn an_output_file_belongs_to_its_command_model_options_and_table() {
    let temp_dir = tempfile::tempdir().unwrap();
    let folder = temp_dir.path();
    std::fs::copy(fixture("inputs/wide.png"), folder.join("a.png")).unwrap();
    std::fs::write(folder.join("t.csv"), "id,image,question\nx,a.png,a dog\ny,a.png,a dog\n").unwrap();
    let (git, blip) = (fixture("git-caption"), fixture("blip-caption"));
    let caption = |model: &str, more: &[&str]| {
        let command = ["caption", "--model", model, "--data", "t.csv", "--out", "o.jsonl", "--max-new-tokens", "3"];
        mm(&[&command, more].concat(), folder)
    };
    let refusal = |output: std::process::Output, wanted: &str| {
        crate::common::assert_refused(&output, &["caption"], &["o.jsonl", wanted, "another --out"]);
    };
    assert!(caption(&git, &[]).status.success());
    let first = std::fs::read_to_string(folder.join("o.jsonl")).unwrap();
    refusal(caption(&blip, &[]), "another model");
    refusal(caption(&git, &["--num-beams", "2"]), "other options: num_beams 1, expected 2");
    refusal(caption(&git, &["--prompt", "a"]), "other options: prompt null, expected \"a\"");
    let answer = ["answer", "--model", &git, "--data", "t.csv", "--out", "o.jsonl"];
    refusal(mm(&answer, folder), "was written by `mm caption`");
    std::fs::write(folder.join("t.csv"), "id,image,question\nx,a.png,a dog\ny,b.png,a dog\n").unwrap();
    refusal(caption(&git, &[]), "another table");
    std::fs::write(folder.join("t.csv"), "id,image,question\nx,a.png,a dog\ny,a.png,a dog\n").unwrap();
    assert!(caption(&git, &[]).status.success());
    std::fs::rename(folder.join("o.jsonl.state.json"), folder.join("gone")).unwrap();
    refusal(caption(&git, &[]), "o.jsonl.state.json does not exist");
    assert_eq!(std::fs::read_to_string(folder.join("o.jsonl")).unwrap(), first, "a refused command changed the file");
}

#[test]
fn a_row_without_a_file_is_an_error_of_its_line() {
    let temp_dir = tempfile::tempdir().unwrap();
    let folder = temp_dir.path();
    std::fs::copy(fixture("inputs/wide.png"), folder.join("a.png")).unwrap();
    std::fs::write(folder.join("t.csv"), "id,image\nx,a.png\ny,\nz,a.png\n").unwrap();
    let model = fixture("git-caption");
    let caption =
        ["caption", "--model", &model, "--data", "t.csv", "--out", "o.jsonl", "--max-new-tokens", "3", "--json"];
    for resumed in [0, 2] {
        let counts = lines(&caption, folder);
        assert_eq!((&counts[0]["failed"]["count"], &counts[0]["resumed"]), (&1.into(), &resumed.into()));
        assert_eq!(counts[0]["failed"]["examples"][0]["row"], "y");
    }
    let text = std::fs::read_to_string(folder.join("o.jsonl")).unwrap();
    let rows: Vec<Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!((rows.len(), &rows[1]["error"]), (3, &"the row has no image or video".into()));
    assert!(rows[0]["text"].is_string() && rows[2]["text"] == rows[0]["text"]);
    std::fs::remove_file(folder.join("o.jsonl")).unwrap();
    refused(&[&caption, ["--on-error", "fail"].as_slice()].concat(), folder, &["row y", "no image or video"]);
    std::fs::write(folder.join("t.csv"), "id,mood\nx,glad\n").unwrap();
    refused(&caption, folder, &["no column looks like", "id, mood", "--column"]);
}
