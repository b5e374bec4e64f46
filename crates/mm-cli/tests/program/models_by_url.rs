//! Models and runs in a bucket: a server on this machine that fails now and then, refuses, and lies.

use crate::{
    bucket::Server,
    common::{Workspace, assert_refused, text},
    json, ok,
};
use serde_json::Value;
use std::{
    path::{Path, PathBuf},
    process::Stdio,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

/// The vector of an image by a model, or of a text by a run.
fn embed(server: &Server, folder: &Path, model: &str) -> Value {
    let input = if model.contains("run") { ["--text", "a dog"] } else { ["--image", "3.png"] };
    let arguments = [&["embed", "--model", model, "--json"][..], &input].concat();
    json(&server.mm(&arguments, folder))["embedding"].take()
}

/// Files that were read so far.
fn reads(server: &Server) -> usize {
    [&server.requests.downloads, &server.requests.parts].iter().map(|count| count.load(Ordering::SeqCst)).sum()
}

/// The files of this name in the copies of folders.
fn copies(folder: &Path, name: &str) -> Vec<PathBuf> {
    let copies = std::fs::read_dir(folder.join("cache/mm/storage")).into_iter().flatten().flatten();
    let snapshots = copies.flat_map(|copy| std::fs::read_dir(copy.path().join("snapshots")).into_iter().flatten());
    snapshots.flatten().map(|snapshot| snapshot.path().join(name)).filter(|file| file.exists()).collect()
}

#[test]
fn a_model_in_a_bucket_is_the_model_of_the_folder_and_read_once() {
    let workspace = Workspace::new();
    let folder = workspace.path();
    workspace.write("eyes/notes.json", "{}");
    let server = Server::start(folder, 3);
    let expected = embed(&server, folder, "eyes");
    let output = server.mm(&["embed", "--model", "s3://bucket/eyes", "--json", "--image", "3.png"], folder);
    assert_eq!(json(&output)["embedding"], expected);
    // Each further attempt is said.
    let said = text(&output);
    assert!(server.requests.failed.load(Ordering::SeqCst) > 0, "no request failed");
    assert!(said.contains("/bucket") && said.contains("trying again in 0.") && said.contains("of 13)"), "{said}");
    let before = reads(&server);
    assert_eq!(before, 4);
    for model in ["s3://bucket/eyes", "s3://bucket/eyes/"] {
        assert_eq!(embed(&server, folder, model), expected);
    }
    let inspect = |model: &str| json(&server.mm(&["inspect", model, "--json"], folder));
    assert_eq!(inspect("s3://bucket/eyes")["family"], inspect("eyes")["family"]);
    assert_eq!(reads(&server), before);
    // What was changed is read again, and what was removed is gone.
    let config = folder.join("eyes/preprocessor_config.json");
    let mut changed: Value = serde_json::from_slice(&std::fs::read(&config).unwrap()).unwrap();
    changed["image_mean"] = serde_json::json!([0.1, 0.2, 0.3]);
    std::fs::write(&config, changed.to_string()).unwrap();
    std::fs::remove_file(folder.join("eyes/notes.json")).unwrap();
    let remote = embed(&server, folder, "s3://bucket/eyes");
    assert_eq!(remote, embed(&server, folder, "eyes"));
    assert_ne!(remote, expected);
    assert_eq!(reads(&server), before + 1);
    assert_eq!((copies(folder, "config.json").len(), copies(folder, "notes.json").len()), (1, 0));
    // Without a network the last copy is used; Google's interface has its own.
    let offline = [("MM_OFFLINE", "1")];
    let arguments = ["embed", "--model", "s3://bucket/eyes", "--json", "--image", "3.png"];
    assert_eq!(json(&server.mm_with(&arguments, folder, &offline))["embedding"], remote);
    assert_eq!(embed(&server, folder, "gs://bucket/eyes"), remote);
}

#[test]
fn runs_and_encoders_of_a_bucket_are_those_of_a_folder() {
    let workspace = Workspace::new();
    let folder = workspace.path();
    let server = Server::start(folder, 11);
    let encoder = r#"towers.image.encoder.path="s3://bucket/eyes""#;
    ok(&server.mm(&["train", "config.toml", "--out", "run", "--set", encoder, "--set", "train.epochs=1"], folder));
    assert_eq!(embed(&server, folder, "s3://bucket/run"), embed(&server, folder, "run"));
    let before = reads(&server);
    let evaluate = ["eval", "--model", "s3://bucket/run", "--split", "test", "--json"];
    let remote = server.mm(&evaluate, folder);
    assert!(text(&remote).contains("the evaluation is not saved: the run is at a URL"), "{}", text(&remote));
    assert_eq!(reads(&server), before);
    assert_eq!(copies(folder, "evaluation-test.json"), Vec::<PathBuf>::new());
    let local = json(&server.mm(&["eval", "--model", "run", "--split", "test", "--json"], folder));
    assert_eq!(json(&remote)["metrics"], local["metrics"]);
    let report = ["report", "--model", "s3://bucket/run"];
    assert_refused(&server.mm(&report, folder), &report, &["s3://bucket/run", "--out"]);
}

#[test]
fn a_model_of_the_hub_is_named_by_url() {
    let workspace = Workspace::new();
    let folder = workspace.path();
    let server = Server::start(folder, 1000);
    let repository = folder.join("cache/huggingface/hub/models--org--eyes");
    std::fs::create_dir_all(repository.join("refs")).unwrap();
    std::fs::create_dir_all(repository.join("snapshots")).unwrap();
    std::fs::write(repository.join("refs/main"), "abc").unwrap();
    std::fs::rename(folder.join("eyes"), repository.join("snapshots/abc")).unwrap();
    let of = |model: &str| {
        let arguments = ["embed", "--model", model, "--json", "--image", "3.png"];
        json(&server.mm_with(&arguments, folder, &[("HF_HUB_OFFLINE", "1")]))["embedding"].take()
    };
    assert_eq!(of("hf://org/eyes"), of("org/eyes"));
    assert_eq!(of("hf://org/eyes@main"), of("org/eyes"));
}

#[test]
fn a_copy_that_is_interrupted_is_no_model_and_is_continued() {
    let workspace = Workspace::new();
    let folder = workspace.path();
    std::fs::create_dir(folder.join("slow")).unwrap();
    std::fs::rename(folder.join("eyes"), folder.join("slow/eyes")).unwrap();
    let server = Server::start(folder, 1000);
    server.requests.stalls.store(true, Ordering::SeqCst);
    let arguments = ["embed", "--model", "s3://bucket/slow/eyes", "--json", "--image", "3.png"];
    let mut killed = server.command(&arguments, folder, &[]).stderr(Stdio::null()).spawn().unwrap();
    let begun = Instant::now();
    while server.requests.stalled.load(Ordering::SeqCst) == 0 {
        assert!(begun.elapsed() < Duration::from_secs(60));
        assert_eq!(killed.try_wait().unwrap(), None);
    }
    killed.kill().unwrap();
    killed.wait().unwrap();
    assert_eq!(copies(folder, "config.json"), Vec::<PathBuf>::new());
    let offline = server.mm_with(&arguments, folder, &[("MM_OFFLINE", "1")]);
    assert_refused(&offline, &arguments, &["s3://bucket/slow/eyes", "is not in the cache and MM_OFFLINE=1"]);
    // The files that were whole are not read again.
    let before = reads(&server);
    assert_eq!(before, 3);
    assert_eq!(embed(&server, folder, "s3://bucket/slow/eyes"), embed(&server, folder, "slow/eyes"));
    assert_eq!(reads(&server), before + 1);
}

#[test]
fn folders_that_cannot_be_read_are_named() {
    let workspace = Workspace::new();
    let folder = workspace.path();
    std::fs::create_dir(folder.join("texts")).unwrap();
    workspace.write("texts/a.txt", "a dog");
    workspace.write("secret.json", "{}");
    let server = Server::start(folder, 1000);
    let refused = |model: &str, variables: &[(&str, &str)], wanted: &[&str]| {
        let arguments = ["embed", "--model", model, "--text", "a dog"];
        assert_refused(&server.mm_with(&arguments, folder, variables), &arguments, wanted);
    };
    refused("s3://elsewhere/eyes", &[], &["s3://elsewhere/eyes", "no such bucket"]);
    refused("s3://bucket/nothing", &[], &["s3://bucket/nothing", "no file below it", "config.json"]);
    refused("s3://bucket/data.jsonl", &[], &["found a file", "expected the folder of a model"]);
    refused(
        "s3://bucket/texts",
        &[],
        &["s3://bucket/texts", "found a.txt below it", "neither config.json nor config.toml"],
    );
    refused("s3://bucket/secret", &[], &["s3://bucket/secret", "refuses to list it", "credentials"]);
    refused("s3://bucket/evil", &[], &["s3://bucket/evil", "`..`", "nothing was copied"]);
    refused("s3://bucket/outside", &[], &["s3://bucket/outside", "`other/x`", "nothing was copied"]);
    refused(
        "s3://bucket/words",
        &[("MM_STORAGE_CACHE_BYTES", "100")],
        &["s3://bucket/words", "MM_STORAGE_CACHE_BYTES"],
    );
    refused("s3://bucket/words", &[("MM_OFFLINE", "1")], &["s3://bucket/words", "MM_OFFLINE=1"]);
    let nowhere = [("AWS_ACCESS_KEY_ID", ""), ("AWS_METADATA_ENDPOINT", "http://127.0.0.1:1")];
    refused("s3://bucket/words", &nowhere, &["s3://bucket/words", "found no credentials"]);
    refused("https://host/words", &[], &["https://host/words", "does not list", "hf://ORG/NAME"]);
    refused("ftp://host/words", &[], &["ftp://host/words", "expected s3://"]);
    refused("hf://datasets/org/name", &[], &["hf://ORG/NAME[@REVISION]"]);
    refused("hf://org/none", &[], &["org/none", "404"]);
    assert_eq!(copies(folder, ""), Vec::<PathBuf>::new());
    assert!(!folder.join("x").exists() && !folder.join("s3:").exists());
}
