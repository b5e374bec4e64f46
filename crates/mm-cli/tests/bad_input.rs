//! Bad input: each case gives one clear message, exit code 1 or 2 and no panic, and saved work is kept.
#![allow(missing_docs)]

mod common;

use common::{Workspace, mm, refused, text};
use std::{path::Path, process::Command};

#[test]
fn invalid_manifests_are_refused() {
    let workspace = Workspace::new();
    let inspect = |name: &str, bytes: &[u8], wanted: &[&str]| {
        workspace.write(name, bytes);
        refused(&["inspect", name], workspace.path(), wanted);
    };
    inspect("empty.jsonl", b"", &["empty.jsonl", "no rows"]);
    inspect(
        "twice.jsonl",
        b"{\"id\":\"a\",\"text\":\"x y\"}\n{\"id\":\"a\",\"text\":\"x y\"}\n",
        &["row 2", "`a` was already used in row 1"],
    );
    inspect("bytes.jsonl", b"{\"text\":\"caf\xe9 au lait\"}\n", &["not valid UTF-8", "data.encoding"]);
    inspect("broken.jsonl", b"{\"text\":\n", &["row 1", "not a JSON object"]);
    inspect("what.txt", b"x", &["expected .jsonl, .json, .csv, .tsv, .parquet, .arrow or .tar"]);
    inspect("cut.parquet", b"PAR1xxxx", &["cut.parquet", "Parquet"]);
    refused(&["inspect", "nowhere.jsonl"], workspace.path(), &["nowhere.jsonl", "cannot be read"]);
    refused(
        &["inspect", "data.jsonl", "--column", "image=pictures"],
        workspace.path(),
        &["no column `pictures`", "id, image, text, audio"],
    );
    // Another encoding can be given.
    assert!(mm(&["inspect", "bytes.jsonl", "--encoding", "latin1"], workspace.path()).status.success());
}

/// A PNG whose header gives 40,000 × 40,000 pixels, with a valid checksum.
fn huge_png() -> Vec<u8> {
    let mut header = b"IHDR".to_vec();
    header.extend(40_000u32.to_be_bytes());
    header.extend(40_000u32.to_be_bytes());
    header.extend([8, 2, 0, 0, 0]);
    let mut crc = !0u32;
    for byte in &header {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0xEDB8_8320 } else { crc >> 1 };
        }
    }
    let chunk = [&13u32.to_be_bytes()[..], &header, &(!crc).to_be_bytes()].concat();
    [b"\x89PNG\r\n\x1a\n".to_vec(), chunk, b"\0\0\0\x04IDATxxxx".to_vec()].concat()
}

#[test]
fn failed_samples_are_reported_with_file_row_and_reason_and_skipped_or_fatal() {
    let workspace = Workspace::new();
    let complete = std::fs::read(workspace.path().join("0.png")).unwrap();
    workspace.write("zero.png", b"");
    workspace.write("cut.png", &complete[..complete.len() / 2]);
    workspace.write("really.jpg", &complete);
    workspace.write("huge.png", huge_png());
    workspace.write("not.png", b"hello");
    let silent =
        [b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0\x40\x1f\0\0\x80\x3e\0\0\x02\0\x10\0data\0\0\0\0".to_vec()]
            .concat();
    workspace.write("silent.wav", silent);
    let good: String = std::fs::read_to_string(workspace.path().join("data.jsonl")).unwrap();
    let row = |id: &str, image: &str, audio: &str, text: &str| {
        format!("{{\"id\":\"{id}\",\"image\":{image},\"audio\":{audio},\"text\":\"{text}\",\"split\":\"train\"}}\n")
    };
    let bad = [
        row("missing", "\"nowhere.png\"", "null", "a dog"),
        row("zero", "\"zero.png\"", "null", "a dog"),
        row("cut", "\"cut.png\"", "null", "a dog"),
        row("huge", "\"huge.png\"", "null", "a dog"),
        row("not", "\"not.png\"", "null", "a dog"),
        row("silent", "\"0.png\"", "\"silent.wav\"", "a dog"),
        row("long", "\"0.png\"", "null", &"dog ".repeat(2_500_000)),
        row("really", "\"really.jpg\"", "null", "a dog"),
    ];
    workspace.write("data.jsonl", good.clone() + &bad.concat());
    let output = mm(&["inspect", "data.jsonl", "--json"], workspace.path());
    let found: serde_json::Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", text(&output)));
    let failed: Vec<(String, String)> = found["failed"]["examples"]
        .as_array()
        .unwrap()
        .iter()
        .map(|b| (b["id"].as_str().unwrap().to_owned(), b["reason"].as_str().unwrap().to_owned()))
        .collect();
    for (id, reason) in [
        ("missing", "nowhere.png: cannot be read"),
        ("zero", "zero.png: the file is empty"),
        ("cut", "cut.png: damaged image"),
        ("huge", "huge.png: found an image of 40000×40000 pixels, expected at most"),
        ("not", "not.png: not an image"),
        ("silent", "silent.wav: audio without samples"),
        ("long", "a text of 10000000 bytes, expected at most"),
    ] {
        assert!(failed.iter().any(|(i, r)| i == id && r.contains(reason)), "{id}: {failed:?}");
    }
    assert_eq!(failed.len(), 7, "a file with the wrong extension is decoded: {failed:?}");
    // Training skips and counts them by default.
    let output = workspace.train("run", &["--json"]);
    assert!(output.status.success(), "{}", text(&output));
    let result: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(result["failed"]["count"], 7);
    assert!(text(&output).contains("skipped row 13 (missing), image"), "{}", text(&output));
    // With `on_error = "fail"`, it ends at the first.
    refused(
        &["train", "config.toml", "--out", "strict", "--device", "cpu", "--set", "loader.on_error=fail"],
        workspace.path(),
        &["row 1", "loader.on_error is \"fail\""],
    );
}

#[test]
fn videos_without_frames_fail() {
    let workspace = Workspace::new();
    if mm_data::decode::ffmpeg().is_err() {
        eprintln!("skipped: ffmpeg is not installed");
        return;
    }
    workspace.write("empty.mp4", b"");
    let status = Command::new(mm_data::decode::ffmpeg().unwrap())
        .args(["-loglevel", "error", "-i", "0.wav", "-c:a", "aac", "sound.mp4"])
        .current_dir(workspace.path())
        .status()
        .unwrap();
    assert!(status.success());
    workspace.write("v.jsonl", "{\"id\":\"s\",\"video\":\"sound.mp4\"}\n{\"id\":\"e\",\"video\":\"empty.mp4\"}\n");
    let output = mm(&["inspect", "v.jsonl", "--json"], workspace.path());
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(
        found["failed"]["examples"][0]["reason"].as_str().unwrap().contains("sound.mp4: a video without frames"),
        "{found}"
    );
    assert!(found["failed"]["examples"][1]["reason"].as_str().unwrap().contains("empty.mp4: not a video"), "{found}");
}

#[test]
fn invalid_configs_are_refused() {
    let workspace = Workspace::new();
    let set = |item: &str, wanted: &[&str]| {
        refused(&["train", "config.toml", "--out", "run", "--device", "cpu", "--set", item], workspace.path(), wanted)
    };
    set("train.epohcs=3", &["unknown field `epohcs`", "did you mean `epochs`"]);
    set("train.epochs=many", &["train.epochs", "many"]);
    set("loader.batch_size=-4", &["loader.batch_size", "-4"]);
    set("loader.batch_size=0", &["loader.batch_size", "at least 1"]);
    set("embed_dim=-3", &["embed_dim", "found -3", "an integer of at least 1"]);
    set("train.epochs=0", &["train.epochs", "at least 1"]);
    set("train.optimizer.lr=-1.0", &["train.optimizer.lr", "a positive number"]);
    set("towers.text.encoder.kind=pretraind", &["unknown encoder kind", "did you mean `pretrained`"]);
    set("towers.text.encoder.path=nowhere", &["nowhere", "no such folder", "models pull"]);
    set("data.manifest=nowhere.jsonl", &["nowhere.jsonl", "cannot be read"]);
    set("data.split.test=1.5", &["data.split", "fractions in [0, 1)"]);
    set("loss.temperature=0.0", &["loss.temperature", "at least 0.01"]);
    set("towers.audio.encoder.processor.mel.hop_length=0", &["mel.hop_length", "found 0"]);
    set("task=retreival", &["unknown task", "did you mean `retrieval`"]);
    refused(
        &["train", "nowhere.toml"],
        workspace.path(),
        &["CONFIG nowhere.toml: found no such file, expected a config file"],
    );
    refused(&["train", "config.toml", "--device", "cuda:7"], workspace.path(), &["cuda:7", "--device cpu"]);
    refused(&["train"], workspace.path(), &["CONFIG"]);
    workspace.write("broken.toml", "task = ");
    refused(&["train", "broken.toml"], workspace.path(), &["broken.toml", "not valid TOML"]);
}

#[test]
fn runs_are_not_overwritten_and_damaged_checkpoints_are_refused() {
    let workspace = Workspace::new();
    assert!(workspace.train("run", &[]).status.success());
    let best = workspace.path().join("run/checkpoints/best.safetensors");
    let complete = std::fs::read(&best).unwrap();
    // A run is neither overwritten nor resumed with another config.
    refused(
        &["train", "config.toml", "--out", "run", "--device", "cpu"],
        workspace.path(),
        &["holds a run already", "--resume"],
    );
    refused(
        &["train", "config.toml", "--out", "run", "--device", "cpu", "--resume", "--set", "embed_dim=8"],
        workspace.path(),
        &["its config differs"],
    );
    refused(
        &["eval", "--model", "nowhere"],
        workspace.path(),
        &["--model nowhere: found no such folder", "a run folder", "models pull"],
    );
    // The run is locked by another process.
    let lock = std::fs::File::options().write(true).open(workspace.path().join("run/lock")).unwrap();
    lock.lock().unwrap();
    refused(
        &["train", "config.toml", "--out", "run", "--device", "cpu", "--resume"],
        workspace.path(),
        &["in use by another process"],
    );
    drop(lock);
    // A truncated file; a header with a wrong size; below, another shape.
    for (bytes, wanted) in [
        (complete[..complete.len() - 9].to_vec(), "not a complete safetensors file"),
        ([&(1u64 << 50).to_le_bytes()[..], &complete[8..]].concat(), "not a complete safetensors file"),
    ] {
        std::fs::write(&best, bytes).unwrap();
        refused(&["eval", "--model", "run", "--device", "cpu"], workspace.path(), &["best.safetensors", wanted]);
    }
    std::fs::write(&best, &complete).unwrap();
    let config = workspace.path().join("run/config.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("embed_dim = 16\n", "embed_dim = 24\n")).unwrap();
    refused(
        &["eval", "--model", "run", "--device", "cpu"],
        workspace.path(),
        &["does not fit the model", "found [16", "expected [24"],
    );
    std::fs::write(&config, text).unwrap();
    assert!(mm(&["eval", "--model", "run", "--device", "cpu"], workspace.path()).status.success());
}

/// Mounts a temporary file system; `false`, with a note, where that is not allowed.
fn mount(folder: &Path, options: &str) -> bool {
    std::fs::create_dir_all(folder).unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", options, "tmpfs"])
        .arg(folder)
        .output()
        .is_ok_and(|o| o.status.success());
    if !mounted {
        eprintln!("skipped: mounting a file system is not allowed here");
    }
    mounted
}

#[test]
fn a_full_disk_keeps_the_last_checkpoint_and_a_read_only_folder_is_refused() {
    let workspace = Workspace::new();
    let small = workspace.path().join("small");
    if !mount(&small, "size=2m") {
        return;
    }
    let arguments = [
        "train",
        "config.toml",
        "--out",
        "small/run",
        "--device",
        "cpu",
        "--set",
        "train.save_every_steps=1",
        "--set",
        "train.keep_last=9",
        "--set",
        "train.epochs=30",
    ];
    refused(&arguments, workspace.path(), &["cannot be written", "No space left", "unchanged"]);
    // The checkpoint that was saved before is complete, and no partial file is left. It is closed at once, since an
    // open checkpoint is memory-mapped and keeps the file system busy.
    let num_tensors =
        mm_core::Checkpoint::open(small.join("run/checkpoints/last.safetensors")).map_or(0, |c| c.names().count());
    let names: Vec<_> =
        std::fs::read_dir(small.join("run/checkpoints")).unwrap().map(|e| e.unwrap().file_name()).collect();
    Command::new("umount").arg(&small).status().unwrap();
    assert!(num_tensors > 10, "the checkpoint saved before the disk was full does not load");
    assert!(!names.iter().any(|n| n.to_string_lossy().contains("partial")), "{names:?}");
    let read_only = workspace.path().join("read-only");
    if mount(&read_only, "ro") {
        refused(
            &["train", "config.toml", "--out", "read-only/run", "--device", "cpu"],
            workspace.path(),
            &["read-only/run", "cannot be created", "Read-only"],
        );
        Command::new("umount").arg(&read_only).status().unwrap();
    }
}

#[test]
fn a_loss_that_is_not_finite_is_reported_with_step_samples_and_last_checkpoint() {
    let workspace = Workspace::new();
    let diverging = [
        "--set",
        "train.optimizer.lr=1e30",
        "--set",
        "train.schedule.warmup_ratio=0.0",
        "--set",
        "train.save_every_steps=1",
        "--set",
        "train.epochs=9",
    ];
    let arguments = [&["train", "config.toml", "--out", "run", "--device", "cpu"], &diverging[..]].concat();
    refused(
        &arguments,
        workspace.path(),
        &["the loss is", "at step", "samples", "last.safetensors", "train.optimizer.lr"],
    );
    let last = mm_core::Checkpoint::open(workspace.path().join("run/checkpoints/last.safetensors")).unwrap();
    let finite = |name: &str| last.get(name).unwrap().to_vec::<f32>().unwrap().iter().all(|v| v.is_finite());
    assert!(
        last.names().filter(|n| n.starts_with("model.")).all(finite),
        "the last checkpoint has weights that are not finite"
    );
}

#[test]
fn invalid_queries_are_refused() {
    let workspace = Workspace::new();
    assert!(workspace.train("run", &[]).status.success());
    refused(&["search", "--model", "run", "--device", "cpu"], workspace.path(), &["no query"]);
    refused(
        &["search", "--model", "run", "--text", "x", "--modality", "smell"],
        workspace.path(),
        &["--modality smell", "audio, image, text"],
    );
    refused(&["search", "--model", "run", "--video", "x.mp4"], workspace.path(), &["video"]);
    refused(&["search", "--model", "run", "--image", "nowhere.png"], workspace.path(), &["nowhere.png"]);
    refused(&["embed", "--model", "words", "--image", "0.png"], workspace.path(), &["this model takes text"]);
    refused(&["embed", "--model", "words"], workspace.path(), &["nothing to embed"]);
    refused(&["embed", "--model", "nowhere", "--text", "x"], workspace.path(), &["nowhere", "no such folder"]);
    refused(&["prepare", "--dataset", "stamps"], workspace.path(), &["unknown data set"]);
    refused(&["eval", "--model", "run", "--split", "tast"], workspace.path(), &["tast"]);
}

#[test]
fn numbers_out_of_range_say_what_is_expected() {
    let folder = std::env::temp_dir();
    let align = ["align", "--a", "a.npy", "--b", "b.npy", "--num-pairs", "-3"];
    refused(&align, &folder, &["--num-pairs <N>: found \"-3\", expected a whole number of at least 0"]);
    let caption = ["caption", "--model", "m", "--image", "i.png", "--temperature", "warm"];
    refused(&caption, &folder, &["--temperature <X>: found \"warm\", expected a number"]);
    let workspace = Workspace::new();
    let values: Vec<f32> = (0..24).map(|v| (v * 7 % 11) as f32).collect();
    let array = mm_core::Tensor::from_vec(&values, &[8, 3]).unwrap();
    mm_data::write_npy(&workspace.path().join("a.npy"), &array).unwrap();
    let align = ["align", "--method", "cca", "--a", "a.npy", "--b", "a.npy", "--dim", "-3"];
    refused(&align, workspace.path(), &["dim: found -3, expected at least 1"]);
}

#[cfg(target_os = "linux")]
#[test]
fn results_that_cannot_be_written_fail_and_a_closed_standard_error_does_not() {
    use std::{fs::File, process::Stdio};
    let full = || Stdio::from(File::options().write(true).open("/dev/full").unwrap());
    let commands: [&[&str]; 5] =
        [&["--help"], &["--version"], &["completions", "bash"], &["align", "--list-methods"], &["help", "embed"]];
    for arguments in commands {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mm"));
        let output = command.args(arguments).stdout(full()).stderr(Stdio::piped()).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {stderr}");
        assert!(stderr.contains("standard output cannot be written"), "{arguments:?}: {stderr}");
        // Nobody reads standard error: the results are printed and the exit code stays.
        let output = Command::new(env!("CARGO_BIN_EXE_mm")).args(arguments).stderr(full()).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
        assert!(!output.stdout.is_empty());
    }
    let refused =
        Command::new(env!("CARGO_BIN_EXE_mm")).args(["train", "nowhere.toml"]).stderr(full()).output().unwrap();
    assert_eq!(refused.status.code(), Some(1), "no panic, which exits with 101");
}

#[cfg(target_os = "linux")]
#[test]
fn arguments_that_are_not_utf_8_are_taken() {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt};
    let workspace = Workspace::new();
    let out = OsStr::from_bytes(b"run-\xff");
    let mut command = Command::new(env!("CARGO_BIN_EXE_mm"));
    command.args(["train", "config.toml", "--device", "cpu", "--set", "train.epochs=1", "--json", "--out"]).arg(out);
    let output = command.current_dir(workspace.path()).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    assert!(workspace.path().join(out).join("result.json").exists());
}
