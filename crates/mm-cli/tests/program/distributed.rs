//! Training in several processes: the weights of one process, failures that name their rank, and resumed runs with
//! another number of processes.

use crate::{
    common::{Workspace, mm, text},
    resume::wait_for_steps,
};
use mm_core::{Checkpoint, DType};
use std::{
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

/// The number of steps of a comparison.
const STEPS: u64 = 200;

/// Eight rows for training and four for validation, of which some lack a modality.
pub(crate) fn workspace() -> Workspace {
    let workspace = Workspace::new();
    let lines = std::fs::read_to_string(workspace.path().join("data.jsonl")).unwrap();
    let mut rows = String::new();
    for (number, line) in lines.lines().enumerate() {
        let mut row: serde_json::Value = serde_json::from_str(line).unwrap();
        let missing: &[&str] = match number {
            1 => &["audio"],
            4 => &["text"],
            6 => &["image", "text"],
            _ => &[],
        };
        for modality in missing {
            row[*modality] = serde_json::Value::Null;
        }
        if number >= 8 {
            row["split"] = "valid".into();
        }
        row["kind"] = if number % 3 == 0 { "a" } else { "b" }.into();
        rows += &format!("{row}\n");
    }
    workspace.write("data.jsonl", rows);
    workspace
}

pub(crate) const RETRIEVAL: &str = r#"
[towers.image]
encoder = { kind = "cnn", image_size = 16, channels = [8, 8], dropout = 0.0 }
projection = { hidden_dim = 16, dropout = 0.0 }
[towers.text]
encoder = { kind = "pretrained", path = "words" }
noise_std = 0.1
projection = { hidden_dim = 16, dropout = 0.0 }
[towers.audio]
projection = { hidden_dim = 16, dropout = 0.0 }
encoder = { kind = "audio_cnn", network = { channels = [8, 8], downsample_layers = 1, dropout = 0.0 }, processor = { max_seconds = 1.0, normalize = true, mel = { sample_rate = 8000, n_fft = 256, win_length = 200, hop_length = 80, n_mels = 16, f_min = 20.0, mel_scale = "htk", window = "hann", pad_mode = "reflect", log = { natural = { floor = 1e-6 } } } } }
"#;

const PREDICTION: &str = r#"
label = "kind"
dropout = 0.0
ensembling = "none"
[data.columns.modalities]
image = "image"
text = "text"
[inputs.image]
encoder = { kind = "cnn", image_size = 16, channels = [8, 8], dropout = 0.0 }
dropout = 0.0
noise_std = 0.1
[inputs.text]
encoder = { kind = "pretrained", path = "words" }
dropout = 0.0
[fusion]
dim = 8
dropout = 0.0
modality_dropout = 0.2
"#;

const CAPTIONING: &str = r#"
[data.columns.modalities]
image = "image"
text = "text"
[encoder]
kind = "cnn"
image_size = 16
channels = [8, 8]
dropout = 0.0
[model]
hidden_dim = 16
num_layers = 1
num_heads = 2
dropout = 0.0
max_length = 6
"#;

const VAE: &str = r#"
[data.columns.modalities]
image = "image"
[inputs.image]
kind = "image"
image_size = 8
[model]
kind = "vae"
latent_dim = 3
network = { hidden_dims = [16] }
"#;

/// A config of a task, whose batches have `batch_size` rows. AdamW divides gradients by their own size: with its default
/// `eps` of 1e-8, those of a few 1e-8 (of units that the image hardly moves) are the rounding of the processor's
/// convolutions, which differs with the number of rows, scaled up to whole steps.
pub(crate) fn config(task: &str, own: &str, batch_size: usize) -> String {
    let top = if task == "retrieval" { "embed_dim = 8\n" } else { "" };
    let (before, tables) = own.split_at(own.find("\n[").unwrap());
    format!(
        "task = \"{task}\"\ncache_dir = \"cache\"\n{top}{before}\n[data]\nmanifest = \"data.jsonl\"\nsplit = {{ column = \"split\" }}\n\
         [loader]\nbatch_size = {batch_size}\n[train]\nepochs = 1000\nlog_every_steps = 10\nprecision = \"f32\"\n\
         optimizer = {{ lr = 1e-3, eps = 1e-6 }}\n{tables}"
    )
}

/// `mm train` in some processes, to the end of the epochs that have `STEPS` steps.
pub(crate) fn train(workspace: &Workspace, world_size: usize, out: &str, more: &[&str]) -> Output {
    let nproc = world_size.to_string();
    let launch = ["launch", "--nproc", &nproc, "--", "mm"];
    let launch = if world_size > 1 { &launch[..] } else { &[] };
    let train = ["train", "config.toml", "--out", out, "--device", "cpu", "--threads", "1"];
    mm(&[launch, &train[..], more].concat(), workspace.path())
}

pub(crate) fn assert_same_weights(folder: &Path, expected: &str, found: &str, tolerance: f64) {
    let open = |run: &str| Checkpoint::open(folder.join(run).join("checkpoints/last.safetensors")).unwrap();
    let (expected, found) = (open(expected), open(found));
    assert_eq!(expected.names().count(), found.names().count());
    // The softmax does not depend on the bias of keys: its gradient is zero but for rounding, which Adam scales up.
    let is_compared = |name: &&str| name.starts_with("model.") && !name.ends_with("k_proj.bias");
    let names: Vec<&str> = expected.names().filter(is_compared).collect();
    assert!(names.len() > 4, "{names:?}");
    for name in names {
        let values = |c: &Checkpoint| c.get(name).unwrap().to_dtype(DType::F64).unwrap();
        let difference =
            values(&expected).sub(&values(&found)).unwrap().abs().unwrap().max().unwrap().to_f64().unwrap();
        assert!(difference <= tolerance, "{name} differs by {difference}");
    }
}

/// Two and three processes learn the weights of one in so many steps.
fn compare(task: &str, own: &str, steps: u64, more: &[&str]) {
    compare_in(&workspace(), task, own, steps, more);
}

/// The same with the `data.jsonl` of a workspace, of which 7 to 12 rows are for training.
pub(crate) fn compare_in(workspace: &Workspace, task: &str, own: &str, steps: u64, more: &[&str]) {
    // 8 training rows: with 6 in a batch, three processes have 2 rows each, then none has a part of the last 2.
    workspace.write("config.toml", config(task, own, 6));
    let epochs = format!("train.epochs={}", steps / 2);
    let more = [more, &["--set", &epochs]].concat();
    for world_size in 1..=3 {
        let output = train(workspace, world_size, &format!("run-{world_size}"), &more);
        assert!(output.status.success(), "{task} in {world_size} processes: {}", text(&output));
        if world_size > 1 {
            assert_same_weights(workspace.path(), "run-1", &format!("run-{world_size}"), 1e-5);
        }
    }
    // Each step is logged once, and the validation rows are evaluated as by one process.
    let logged = |run: &str| mm_train::Run::read_metrics(&workspace.path().join(run)).unwrap();
    let steps = |run: &str| logged(run).into_iter().map(|m| (m.step, m.split)).collect::<Vec<_>>();
    assert_eq!(steps("run-1"), steps("run-2"));
    let valid = |run: &str| logged(run).into_iter().rfind(|m| m.split == "valid").map(|m| m.values).unwrap_or_default();
    let (alone, together) = (valid("run-1"), valid("run-3"));
    assert!(!alone.is_empty() && alone.keys().eq(together.keys()), "{alone:?} {together:?}");
    for (name, value) in &alone {
        assert!((value - together[name]).abs() < 1e-3 * value.abs().max(1.0), "{name}: {alone:?} {together:?}");
    }
    let losses = |run: &str| logged(run).iter().filter_map(|m| m.values.get("loss").copied()).collect::<Vec<_>>();
    for (a, b) in losses("run-1").iter().zip(losses("run-3")) {
        assert!((a - b).abs() < 1e-3 * a.abs().max(1.0), "{:?} {:?}", losses("run-1"), losses("run-3"));
    }
}

#[test]
fn retrieval_in_several_processes_learns_the_weights_of_one() {
    compare("retrieval", RETRIEVAL, STEPS, &[]);
}

#[test]
fn prediction_in_several_processes_learns_the_weights_of_one() {
    compare("prediction", PREDICTION, STEPS, &[]);
    // A fusion whose buffers depend on all rows, and rows that are mixed: the features of all processes are fused.
    let all_rows = ["fusion.missing=mean", "loss.mixup_alpha=0.4", "loss.gradient_modulation=0.5"];
    compare("prediction", PREDICTION, 40, &all_rows.map(|setting| ["--set", setting]).concat());
}

#[test]
fn captioning_in_several_processes_learns_the_weights_of_one() {
    compare("captioning", CAPTIONING, STEPS, &[]);
}

#[test]
fn a_variational_autoencoder_in_several_processes_learns_the_weights_of_one() {
    compare("representation", VAE, STEPS, &[]);
}

#[test]
fn other_representation_learners_in_several_processes_learn_the_weights_of_one() {
    let (inputs, _) = VAE.split_at(VAE.find("[model]").unwrap());
    let image_and_text = inputs.replace("image = \"image\"", "image = \"image\"\ntext = \"text\"");
    let autoencoder =
        format!("{inputs}[model]\nkind = \"autoencoder\"\nlatent_dim = 3\nnetwork = {{ hidden_dims = [16] }}\n");
    let mae = format!(
        "{inputs}[model]\nkind = \"mae\"\npatch_size = [2, 2]\nembed_dim = 16\nnum_layers = 1\nnum_heads = 2\n\
         decoder_embed_dim = 8\ndecoder_num_layers = 1\n"
    );
    let multimodal_vae = format!(
        "{image_and_text}[inputs.text]\nkind = \"bag_of_words\"\nmax_features = 20\n[model]\nkind = \"multimodal_vae\"\n\
         joint_posterior = \"product_of_experts\"\nlatent_dim = 3\n[model.networks]\nimage = {{ hidden_dims = [16] }}\n\
         text = {{ hidden_dims = [16] }}\n"
    );
    for own in [autoencoder, mae, multimodal_vae] {
        compare("representation", &own, 60, &[]);
    }
}

#[test]
fn averaged_weights_and_early_stopping_are_those_of_one_process() {
    let settings = ["train.ema_decay=0.9", "train.early_stopping={patience=3}"];
    compare("prediction", PREDICTION, STEPS, &settings.map(|setting| ["--set", setting]).concat());
}

#[test]
fn the_steps_of_each_process_are_profiled() {
    let workspace = workspace();
    workspace.write("config.toml", config("representation", VAE, 6));
    let settings = ["--set", "train.profile_steps=3", "--set", "train.epochs=5"];
    for (world_size, sends) in [(1, false), (2, true)] {
        let run = format!("run-{world_size}");
        let output = train(&workspace, world_size, &run, &settings);
        assert!(output.status.success(), "{}", text(&output));
        // What the profiler logs where it finds no GPU.
        assert!(!text(&output).contains("gpuGetDeviceCount"), "{}", text(&output));
        let folder = workspace.path().join(run).join("profile");
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), world_size);
        for rank in 0..world_size {
            let trace = std::fs::read(folder.join(format!("rank-{rank}.pt.trace.json"))).unwrap();
            let trace: serde_json::Value = serde_json::from_slice(&trace).unwrap();
            let names = trace["traceEvents"].as_array().unwrap().iter().filter_map(|event| event["name"].as_str());
            let names: Vec<&str> = names.collect();
            let count = |prefix: &str| names.iter().filter(|name| name.starts_with(prefix)).count();
            // The encoder and the decoder have linear layers, of three steps.
            assert!(count("autograd::engine::evaluate_function: AddmmBackward0") >= 3, "{names:?}");
            assert_eq!(count("gloo:all_reduce") >= 3, sends, "{names:?}");
        }
    }
}

/// A training of 400 steps, each of which is saved, in the background.
fn start(workspace: &Workspace, world_size: usize, more: &[&str]) -> Child {
    start_with_timeout(workspace, world_size, "60", more)
}

/// The same, with the seconds for which the processes wait for each other.
fn start_with_timeout(workspace: &Workspace, world_size: usize, seconds: &str, more: &[&str]) -> Child {
    let nproc = world_size.to_string();
    let launch = ["launch", "--nproc", &nproc, "--", "mm", "train", "config.toml", "--out", "run", "--threads", "1"];
    Command::new(env!("CARGO_BIN_EXE_mm"))
        .args([&launch[..], &LONG[..], more].concat())
        .current_dir(workspace.path())
        .env("MM_DIST_TIMEOUT_SECONDS", seconds)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

const LONG: [&str; 6] =
    ["--set", "train.epochs=200", "--set", "train.save_every_steps=1", "--set", "train.log_every_steps=1"];

/// The processes that a process started.
fn children(parent: u32) -> Vec<u32> {
    let list = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap();
    list.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

fn signal(name: &str, pid: u32) {
    assert!(Command::new("kill").args([name, &pid.to_string()]).status().unwrap().success());
}

#[test]
fn a_run_that_is_interrupted_and_killed_continues_with_another_number_of_processes() {
    let workspace = workspace();
    let run = workspace.path().join("run");
    workspace.write("config.toml", config("representation", VAE, 6));
    let whole = train(&workspace, 1, "whole", &LONG);
    assert!(whole.status.success(), "{}", text(&whole));
    // SIGTERM: all save and say how to continue.
    let launcher = start(&workspace, 2, &[]);
    wait_for_steps(&run, 20);
    signal("-TERM", launcher.id());
    let output = launcher.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", text(&output));
    assert!(text(&output).contains("continue with"), "{}", text(&output));
    // SIGKILL of each rank in turn: the others end and name it, and the run continues.
    for (victim, steps) in [(0, 60), (1, 100), (2, 140)] {
        let launcher = start(&workspace, 3, &["--resume"]);
        wait_for_steps(&run, steps);
        let begun = Instant::now();
        signal("-KILL", children(launcher.id())[victim]);
        let output = launcher.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", text(&output));
        assert!(begun.elapsed() < Duration::from_secs(45), "{:?}", begun.elapsed());
        let of_others =
            if victim == 0 { "rank 0, which keeps the store, is gone".into() } else { format!("rank {victim} ended") };
        let named = [format!("rank {victim} of 3 was ended by signal 9"), of_others];
        assert!(named.iter().all(|part| text(&output).contains(part)), "{named:?} in {}", text(&output));
    }
    let output = train(&workspace, 1, "run", &[&LONG[..], &["--resume"]].concat());
    assert!(output.status.success(), "{}", text(&output));
    assert_same_weights(workspace.path(), "whole", "run", 1e-5);
    let sessions = std::fs::read_to_string(run.join("sessions.jsonl")).unwrap();
    let sessions = sessions.lines().map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap());
    let world_sizes: Vec<Option<u64>> = sessions.map(|session| session["world_size"].as_u64()).collect();
    assert_eq!(world_sizes, [2, 3, 3, 3, 1].map(Some));
    let logged = mm_train::Run::read_metrics(&run).unwrap();
    let steps: Vec<u64> = logged.iter().filter(|m| m.split == "train").map(|m| m.step).collect();
    assert_eq!(steps, (1..=400).collect::<Vec<_>>());
}

#[test]
fn a_process_that_is_stopped_ends_the_others_soon_after_the_timeout() {
    let workspace = workspace();
    let run = workspace.path().join("run");
    workspace.write("config.toml", config("representation", VAE, 6));
    for (victim, steps, named) in
        [(2, 20, "rank 2 ended or does not run"), (0, 40, "rank 0, which keeps the store, cannot be reached")]
    {
        let launcher = start_with_timeout(&workspace, 3, "6", &["--resume"]);
        wait_for_steps(&run, steps);
        signal("-STOP", children(launcher.id())[victim]);
        let begun = Instant::now();
        let output = launcher.wait_with_output().unwrap();
        assert!(begun.elapsed() < Duration::from_secs(6 + 5), "{:?}: {}", begun.elapsed(), text(&output));
        assert_eq!(output.status.code(), Some(1), "{}", text(&output));
        let stopped = format!("rank {victim} is stopped (SIGSTOP); ending it");
        assert!([named, &stopped].iter().all(|part| text(&output).contains(part)), "{}", text(&output));
    }
}

#[test]
fn a_process_that_waits_for_the_others_can_be_ended() {
    let workspace = workspace();
    workspace.write("config.toml", config("representation", VAE, 6));
    let binary = env!("CARGO_BIN_EXE_mm");
    let script = format!("[ $RANK = 0 ] || exec sleep 60; touch begun; exec {binary} train config.toml --out run");
    let mut launch = Command::new(binary);
    launch.args(["launch", "--nproc", "2", "--", "sh", "-c", &script]).current_dir(workspace.path());
    let mut launcher = launch.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let begun = Instant::now();
    while !workspace.path().join("begun").exists() {
        assert!(begun.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(launcher.try_wait().unwrap(), None);
    let begun = Instant::now();
    signal("-TERM", launcher.id());
    let output = launcher.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", text(&output));
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    // One whose launcher has ended before it could wait for anything.
    let mut ended = Command::new("true").spawn().unwrap();
    ended.wait().unwrap();
    let namespace = std::fs::read_link("/proc/self/ns/pid").unwrap();
    let mut rank = Command::new(binary);
    rank.args(["train", "config.toml", "--out", "run"]).current_dir(workspace.path());
    rank.envs([("RANK", "0"), ("WORLD_SIZE", "2"), ("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", "1")]);
    rank.env("MM_LAUNCHER_PID", format!("{} {}", ended.id(), namespace.display()));
    let output = rank.output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(text(&output).contains("which started this one, has ended"), "{}", text(&output));
}

#[test]
fn another_build_in_one_process_is_told() {
    let workspace = workspace();
    workspace.write("config.toml", config("representation", VAE, 6));
    let binary = env!("CARGO_BIN_EXE_mm");
    // Whatever follows the program in its file is not read.
    let mut program = std::fs::read(binary).unwrap();
    program.push(0);
    workspace.write("other-mm", program);
    let run = |other: &str, out: &str| {
        let script = format!(
            "chmod +x other-mm; TRAIN='train config.toml --out {out} --set train.epochs=2'; [ $RANK = 0 ] && exec {binary} $TRAIN; exec {other} $TRAIN"
        );
        mm(&["launch", "--nproc", "2", "--", "sh", "-c", &script], workspace.path())
    };
    let warned = "warning: rank 1: another build of mm than that of rank 0";
    for (other, out, expected) in [(binary, "same", 0), ("./other-mm", "different", 1)] {
        let output = run(other, out);
        assert!(output.status.success(), "{}", text(&output));
        assert_eq!(text(&output).matches(warned).count(), expected, "{}", text(&output));
    }
}

#[test]
fn processes_that_cannot_train_together_say_why() {
    let workspace = workspace();
    workspace.write("config.toml", config("representation", VAE, 6));
    let failed = |output: &Output, wanted: &[&str]| {
        assert_eq!(output.status.code(), Some(1), "{}", text(output));
        assert!(wanted.iter().all(|part| text(output).contains(part)), "{wanted:?} in {}", text(output));
        assert!(!text(output).contains("panicked"), "{}", text(output));
    };
    // Another config in rank 1.
    let other = "mm train config.toml --out run --set train.seed=$RANK";
    let binary = Path::new(env!("CARGO_BIN_EXE_mm")).parent().unwrap().display().to_string();
    let script = format!("PATH={binary}:$PATH {other}");
    let output = mm(&["launch", "--nproc", "2", "--", "sh", "-c", &script], workspace.path());
    failed(&output, &["the config differs between the processes", "seed = 0", "seed = 1"]);
    assert!(!workspace.path().join("run").exists());
    // Another table in rank 1.
    for rank in 0..2 {
        let folder = workspace.path().join(format!("rank-{rank}"));
        std::fs::create_dir_all(&folder).unwrap();
        let table = std::fs::read_to_string(workspace.path().join("data.jsonl")).unwrap();
        let lines = table.lines().skip(rank).map(|line| line.replace("\"image\":\"", "\"image\":\"../"));
        std::fs::write(folder.join("data.jsonl"), lines.collect::<Vec<_>>().join("\n")).unwrap();
        std::fs::copy(workspace.path().join("config.toml"), folder.join("config.toml")).unwrap();
    }
    let script = format!("PATH={binary}:$PATH; cd rank-$RANK && mm train config.toml --out ../other");
    let output = mm(&["launch", "--nproc", "2", "--", "sh", "-c", &script], workspace.path());
    failed(&output, &["7 training rows", "6 training rows", "in rank 1", "different tables"]);
    // Another label, another file of the same name.
    let table = std::fs::read_to_string(workspace.path().join("data.jsonl")).unwrap();
    let script = format!("PATH={binary}:$PATH; cd rank-$RANK && mm train config.toml --out ../other");
    for (changes_file, named) in [
        (false, "cells of the column `kind` in rank 1"),
        (true, "values of image (texts, names or sizes of files) in rank 1"),
    ] {
        for rank in 0..2 {
            let folder = workspace.path().join(format!("rank-{rank}"));
            let image = serde_json::from_str::<serde_json::Value>(table.lines().nth(3).unwrap()).unwrap();
            for row in table.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()) {
                for modality in ["image", "audio"] {
                    if let Some(name) = row[modality].as_str() {
                        std::fs::copy(workspace.path().join(name), folder.join(name)).unwrap();
                    }
                }
            }
            let other = table.replacen("\"kind\":\"a\"", "\"kind\":\"b\"", 1);
            let changed = if rank == 1 && !changes_file { &other } else { &table };
            std::fs::write(folder.join("data.jsonl"), changed).unwrap();
            if rank == 1 && changes_file {
                let file = std::fs::File::options().append(true).open(folder.join(image["image"].as_str().unwrap()));
                std::io::Write::write_all(&mut file.unwrap(), b"more").unwrap();
            }
        }
        let output = mm(&["launch", "--nproc", "2", "--", "sh", "-c", &script], workspace.path());
        failed(&output, &[named, "first in row", "different tables or files"]);
        assert!(!workspace.path().join("other").exists());
    }
    // What rank 0 alone refuses is what the others say.
    std::fs::create_dir_all(workspace.path().join("full")).unwrap();
    workspace.write("full/config.toml", "task = \"other\"\n");
    let output = train(&workspace, 2, "full", &["--resume"]);
    failed(&output, &["full: its config differs", "rank 1 ends with rank 0, which failed: full: its config differs"]);
    assert!(!text(&output).contains("is gone"), "{}", text(&output));
    // A learner whose loss is not one of all rows.
    let gan = ["--set", "model={kind='vq_vae'}"];
    failed(&train(&workspace, 2, "run", &gan), &["model.kind", "vq_vae and several processes"]);
    // No rank 0.
    let alone = Command::new(env!("CARGO_BIN_EXE_mm"))
        .args(["train", "config.toml", "--out", "run"])
        .current_dir(workspace.path())
        .envs([("RANK", "1"), ("WORLD_SIZE", "2"), ("MASTER_ADDR", "127.0.0.1"), ("MASTER_PORT", "9")])
        .env("MM_DIST_TIMEOUT_SECONDS", "2")
        .output()
        .unwrap();
    failed(&alone, &["rank 1 of 2 could not join", "127.0.0.1:9", "start rank 0"]);
    // A program that does not exist, and one that fails.
    failed(&mm(&["launch", "--nproc", "2", "--", "no-such-program"], workspace.path()), &["no-such-program cannot be"]);
    failed(&mm(&["launch", "--nproc", "2", "--", "false"], workspace.path()), &["of 2 ended with exit code 1"]);
    assert!(mm(&["launch", "--nproc", "2", "--", "true"], workspace.path()).status.success());
}
