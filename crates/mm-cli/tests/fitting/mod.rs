//! Tables are fitted, asked and measured through the binary, and what is wrong with them is told.

use crate::common::metric;
use image::{Rgb, RgbImage};
use std::{
    path::Path,
    process::{Command, Output},
};

/// mm with a cache of its own: what somebody once pulled must not change what is guessed.
fn mm(arguments: &[&str], folder: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_mm"))
        .args(arguments)
        .current_dir(folder)
        .env("XDG_CACHE_HOME", folder.join("cache"))
        .env("HF_HUB_CACHE", folder.join("hub"))
        .output()
        .unwrap()
}

fn ok(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn refused(arguments: &[&str], folder: &Path, wanted: &[&str]) {
    let output = mm(arguments, folder);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(matches!(output.status.code(), Some(1 | 2)), "{arguments:?} ended with {:?}: {said}", output.status);
    assert!(!said.contains("panicked"), "{said}");
    for part in wanted {
        assert!(said.contains(part), "wanted `{part}` in: {said}");
    }
}

/// Rows whose label is told by two things together: a word, and whether a number is large.
fn table(folder: &Path, name: &str, rows: usize, from: usize) {
    std::fs::create_dir_all(folder.join("pictures")).unwrap();
    let mut text = String::from("id,review,price,town,photo,mood\n");
    for row in from..from + rows {
        // A fixed shuffle, so that nothing goes by the row's number.
        let bits = row.wrapping_mul(2_654_435_761) >> 7;
        let (word, large, blue) = (bits & 1 == 1, bits >> 1 & 1 == 1, bits >> 2 & 1 == 1);
        let picture = folder.join(format!("pictures/{row}.png"));
        let colour = if blue { [30, 60, 220] } else { [220, 60, 30] };
        RgbImage::from_pixel(24, 18, Rgb(colour)).save(picture).unwrap();
        let says = if word { "the food was superb and warm" } else { "the food was awful and cold" };
        let price = if large { 80.0 } else { 20.0 } + (bits >> 3 & 7) as f64;
        let mood = if usize::from(word) + usize::from(large) + usize::from(blue) >= 2 { "glad" } else { "sad" };
        let town = ["Rome", "Oslo", "Lima"][bits >> 6 & 1];
        text.push_str(&format!("{},{says},{price},{town},pictures/{row}.png,{mood}\n", 1_000 + row));
    }
    std::fs::write(folder.join(name), text).unwrap();
}

#[test]
fn a_table_is_fitted_asked_measured_and_reported() {
    let world = tempfile::tempdir().unwrap();
    let folder = world.path();
    table(folder, "train.csv", 120, 0);
    table(folder, "test.csv", 80, 1000);
    let fit = ["fit", "--data", "train.csv", "--label-column", "mood", "--preset", "fast", "--out", "run", "--json"];
    let output = mm(&fit, folder);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    let result: serde_json::Value = serde_json::from_str(&ok(&output)).unwrap();
    for part in ["image: photo", "tabular: price + town", "text: review", "binary of glad, sad", "from scratch"] {
        assert!(told.contains(part), "{part} in {told}");
    }
    assert_eq!(result["problem"], "binary");
    // The report says what some answers rest on; what the contributions leave of a score is little.
    let page = std::fs::read_to_string(folder.join("run/report.html")).unwrap();
    let rests = page.split("<h2>Attributions").nth(1).unwrap();
    assert!(rests.contains("superb") || rests.contains("awful"), "{rests}");
    let missed = rests.split("Median completeness error: ").nth(1).unwrap();
    let missed: f64 = missed.split(" %").next().unwrap().trim().parse().unwrap();
    assert!(missed < 10.0, "{missed}");
    // What fits cannot be fitted over.
    refused(&fit, folder, &["run: holds a run already"]);
    let figures = |more: &[&str]| -> serde_json::Value {
        serde_json::from_str(&ok(&mm(
            &[&["eval", "--model", "run", "--data", "test.csv", "--json"], more].concat(),
            folder,
        )))
        .unwrap()
    };
    let all = figures(&[]);
    for name in
        ["accuracy", "balanced_accuracy", "f1_macro", "f1_weighted", "auroc", "log_loss", "expected_calibration_error"]
    {
        assert!(metric(&all, name).is_finite());
    }
    let accuracy = |f: &serde_json::Value| metric(f, "accuracy");
    // Two of three vote: one alone is right in three rows of four.
    assert!(accuracy(&all) > 0.9, "{all}");
    let without = ["image", "text", "tabular"].map(|m| accuracy(&figures(&["--exclude-modality", m])));
    assert!(without.iter().all(|w| *w < accuracy(&all)), "{without:?}");
    let curves: serde_json::Value = serde_json::from_str(&ok(&mm(
        &["eval", "--model", "run", "--data", "test.csv", "--robustness", "robust.html", "--json"],
        folder,
    )))
    .unwrap();
    for curve in curves["curves"].as_array().unwrap() {
        // All missing is as good as dropped; nothing disturbed as good as ever.
        let points = curve["points"].as_array().unwrap();
        assert!((points[0][1].as_f64().unwrap() - accuracy(&all)).abs() < 1e-9, "{curve}");
        if curve["corruption"] == "missing" {
            let place = ["image", "text", "tabular"].iter().position(|m| curve["modality"] == **m).unwrap();
            assert!((points[10][1].as_f64().unwrap() - without[place]).abs() < 1e-9, "{curve}");
        }
    }
    let lines = ok(&mm(&["predict", "--model", "run", "--data", "test.csv", "--json", "--out", "p.parquet"], folder));
    let rows: Vec<serde_json::Value> = lines.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(rows.len(), 80);
    assert_eq!(rows[0]["row"], 1);
    assert_eq!(rows[0]["present"].as_array().unwrap().len(), 3);
    let sum: f64 = rows[0]["probabilities"].as_object().unwrap().values().map(|v| v.as_f64().unwrap()).sum();
    assert!((sum - 1.0).abs() < 1e-6);
    assert!(folder.join("p.parquet").metadata().unwrap().len() > 500);
    // Odd rows: a broken picture, nothing at all, an unseen category, a class that training never had, no number.
    std::fs::write(folder.join("pictures/broken.png"), b"\x89PNG\r\n\x1a\nno more").unwrap();
    let odd = "id,review,price,town,photo,mood\n1,the food was superb,81,Rome,pictures/broken.png,glad\n2,,,,,sad\n\
               3,awful,NaN,Atlantis,pictures/1000.png,bored\n4,superb,a lot,Oslo,missing.png,glad\n";
    std::fs::write(folder.join("odd.csv"), odd).unwrap();
    let output = mm(&["predict", "--model", "run", "--data", "odd.csv", "--json"], folder);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    let rows: Vec<serde_json::Value> = ok(&output).lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(rows.len(), 4);
    assert!(told.contains("broken.png") && told.contains("missing.png") && told.contains("2 values"), "{told}");
    assert_eq!(rows[1]["present"].as_array().unwrap().len(), 0);
    assert!(!rows[0]["present"].as_array().unwrap().contains(&"image".into()));
    let measured: serde_json::Value =
        serde_json::from_str(&ok(&mm(&["eval", "--model", "run", "--data", "odd.csv", "--json"], folder))).unwrap();
    assert_eq!(measured["rows_with_unknown_class"], 1);
    // A column of another name is a modality that is missing; none at all is an error.
    std::fs::write(folder.join("few.csv"), "review\nthe food was awful\n").unwrap();
    let lines = ok(&mm(&["predict", "--model", "run", "--data", "few.csv", "--json"], folder));
    assert!(lines.contains("\"present\":[\"text\"]"), "{lines}");
    std::fs::write(folder.join("other.csv"), "x,y\n1,2\n").unwrap();
    refused(&["predict", "--model", "run", "--data", "other.csv"], folder, &["other.csv", "x, y", "review"]);
    refused(&["eval", "--model", "run", "--data", "few.csv"], folder, &["few.csv", "mood"]);
    refused(
        &["eval", "--model", "run", "--data", "test.csv", "--exclude-modality", "imag"],
        folder,
        &["imag", "image"],
    );
    // Three networks, the second reading otherwise where it can.
    let text = [
        "fit",
        "--data",
        "train.csv",
        "--label-column",
        "mood",
        "--column",
        "text=review",
        "--column",
        "tabular=price+town",
        "--out",
        "good",
    ];
    let output = mm(&text, folder);
    assert!(String::from_utf8_lossy(&output.stderr).contains("model 3 of 3"));
    ok(&output);
    ok(&mm(&["predict", "--model", "good", "--data", "test.csv", "--json"], folder));
    // Stopped at once, what there is still answers.
    let hurried = mm(
        &[
            "fit",
            "--data",
            "train.csv",
            "--label-column",
            "mood",
            "--column",
            "text=review",
            "--time-limit",
            "0.05",
            "--out",
            "hurried",
        ],
        folder,
    );
    ok(&hurried);
    ok(&mm(&["predict", "--model", "hurried", "--data", "test.csv", "--json"], folder));
}

#[test]
fn what_was_held_out_to_choose_on_is_learned_from_in_the_end() {
    let world = tempfile::tempdir().unwrap();
    let folder = world.path();
    table(folder, "train.csv", 100, 0);
    table(folder, "test.csv", 60, 1000);
    let fit = ["fit", "--data", "train.csv", "--label-column", "mood", "--preset", "fast", "--refit", "--out", "run"];
    let result: serde_json::Value = serde_json::from_str(&ok(&mm(&[&fit[..], &["--json"]].concat(), folder))).unwrap();
    assert_eq!(result["refit_rows"], 100);
    let first = result["rows"].as_u64().unwrap();
    assert!(first < 100 && result["split"] == "valid", "{result}");
    let figures = |more: &[&str]| -> serde_json::Value {
        serde_json::from_str(&ok(&mm(&[&["eval", "--model", "run", "--json"], more].concat(), folder))).unwrap()
    };
    // Its own rows are measured by networks that had not learned from them, others by those that learned from all.
    assert_eq!(metric(&figures(&["--split", "valid"]), "accuracy"), metric(&result, "accuracy"));
    assert_eq!(figures(&["--split", "valid"])["rows"], 100 - first);
    let anew = figures(&["--data", "test.csv"]);
    assert!(metric(&anew, "accuracy") > 0.85, "{anew}");
    let list = std::fs::read_to_string(folder.join("run/ensemble.json")).unwrap();
    std::fs::write(folder.join("run/ensemble.json"), list.replace("member-0-refit", "member-0")).unwrap();
    assert_ne!(metric(&figures(&["--data", "test.csv"]), "log_loss"), metric(&anew, "log_loss"));
}

#[test]
fn what_an_utterance_rests_on_is_shown_in_the_company_of_its_video() {
    let world = tempfile::tempdir().unwrap();
    let folder = world.path();
    let mut text = String::new();
    for row in 0..240usize {
        let bits = row.wrapping_mul(2_654_435_761) >> 7;
        let (good, long) = (bits & 1 == 1, bits >> 1 & 1 == 1);
        let says = format!(
            "{} it was {}",
            if long { "well then I must say" } else { "so" },
            if good { "superb" } else { "awful" }
        );
        let label = if good { "glad" } else { "sad" };
        text += &format!(
            "{{\"id\":\"{row}\",\"video\":\"v{}\",\"at\":{},\"text\":\"{says}\",\"mood\":\"{label}\"}}\n",
            row / 4,
            row % 4
        );
    }
    std::fs::write(folder.join("m.jsonl"), text).unwrap();
    let config = "task = \"prediction\"\nlabel = \"mood\"\n[data]\nmanifest = \"m.jsonl\"\n\
                  [data.columns]\nitem = \"video\"\norder = \"at\"\nmodalities = { text = \"text\" }\n\
                  [data.split]\ngroup = \"video\"\ntest = 0.2\n[loader]\nbatch_size = 4\n\
                  [inputs.text]\nencoder = { kind = \"lstm\", embedding_dim = 16, hidden_dim = 24 }\n\
                  [context]\nkind = \"lstm\"\nhidden_dim = 16\n[fusion]\ndim = 24\noperator = { kind = \"concat\" }\n\
                  [train]\nepochs = 12\n[train.optimizer]\nlr = 1e-2\n";
    std::fs::write(folder.join("c.toml"), config).unwrap();
    ok(&mm(&["train", "c.toml", "--out", "run"], folder));
    ok(&mm(&["report", "--model", "run", "--out", "report.html"], folder));
    let page = std::fs::read_to_string(folder.join("report.html")).unwrap();
    let rests = page.split("<h2>Attributions").nth(1).unwrap();
    assert!(rests.contains("superb") && rests.contains("awful"), "{rests}");
    let missed = rests.split("Median completeness error: ").nth(1).unwrap();
    let missed: f64 = missed.split(" %").next().unwrap().trim().parse().unwrap();
    assert!(missed < 10.0, "{missed}");
}

#[test]
fn what_is_wrong_with_a_table_is_told() {
    let world = tempfile::tempdir().unwrap();
    let folder = world.path();
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
    refused(&["predict", "--model", "nothing", "--data", "t.csv"], folder, &["nothing"]);
    // An id that repeats names no row, and is no reason to refuse.
    let twice: String =
        (0..40).map(|row| format!("{},word {}\n", row % 7, if row % 2 == 0 { "yes,a" } else { "no,b" })).collect();
    std::fs::write(folder.join("twice.csv"), format!("id,say,y\n{twice}")).unwrap();
    ok(&mm(
        &[
            "fit",
            "--data",
            "twice.csv",
            "--label-column",
            "y",
            "--preset",
            "fast",
            "--time-limit",
            "2",
            "--out",
            "twice",
        ],
        folder,
    ));
    ok(&mm(&["predict", "--model", "twice", "--data", "twice.csv", "--json"], folder));
    // A class with one row is told of, and the fit goes on.
    let output =
        mm(&["fit", "--data", "t.csv", "--label-column", "alone", "--preset", "fast", "--out", "lone"], folder);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    ok(&output);
    assert!(told.contains("one row to learn from") || told.contains("multiclass of a, b"), "{told}");
}

#[test]
fn what_there_is_no_time_to_encode_is_left_out_and_the_rest_is_learned_from() {
    let world = tempfile::tempdir().unwrap();
    let folder = world.path();
    let known = Path::new(env!("CARGO_MANIFEST_DIR")).join("../mm-repr/tests/fixtures/sentence-max");
    let model = folder.join("cache/mm/models/all-MiniLM-L6-v2");
    for part in ["", "1_Pooling"] {
        std::fs::create_dir_all(model.join(part)).unwrap();
        for file in std::fs::read_dir(known.join(part)).unwrap().map(|f| f.unwrap().path()).filter(|f| f.is_file()) {
            std::fs::copy(&file, model.join(part).join(file.file_name().unwrap())).unwrap();
        }
    }
    let row = |n: u32| format!("{} {n},{}\n", if n.is_multiple_of(2) { "the dog" } else { "a fox" }, n % 2);
    std::fs::write(folder.join("t.csv"), format!("say,y\n{}", (0..4000).map(row).collect::<String>())).unwrap();
    let read = ["--column", "text=say", "--time-limit", "0.02", "--out", "run"];
    let output = mm(&[&["fit", "--data", "t.csv", "--label-column", "y"], &read[..]].concat(), folder);
    ok(&output);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("all-MiniLM-L6-v2, pretrained") && told.contains("128 of 4000 rows are used"), "{told}");
    ok(&mm(&["predict", "--model", "run", "--data", "t.csv", "--json"], folder));
}

/// Settings for what one modality of that table tells by itself, beside one that is noise.
const EASY: [&str; 6] = [
    "--set",
    "label=\"easy\"",
    "--set",
    "data.columns.modalities={left=\"left\",noise=\"noise\"}",
    "--set",
    "inputs={left={encoder={kind=\"vector\",dim=2}},noise={encoder={kind=\"vector\",dim=2}}}",
];

/// Both modalities alone say nothing of the class, together all of it.
fn exclusive_or(folder: &Path) {
    let mut lines = String::new();
    for row in 0..600u64 {
        let bits = row.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 20;
        let (a, b) = (bits & 1 == 1, bits >> 1 & 1 == 1);
        let spread = |n: u64| (bits >> (2 + 5 * n) & 31) as f64 / 31.0 - 0.5;
        let sign = |s: bool| if s { 1.0 } else { -1.0 };
        let left = [sign(a) + 0.5 * spread(0), spread(1)];
        let right = [sign(b) + 0.5 * spread(2), spread(3)];
        let noise = [spread(4) * 4.0, spread(5) * 4.0];
        let line = serde_json::json!({"left": left, "right": right, "noise": noise, "easy": a.to_string(), "label": (a ^ b).to_string(), "split": if row < 400 { "train" } else { "test" }});
        lines.push_str(&format!("{line}\n"));
    }
    std::fs::write(folder.join("xor.jsonl"), lines).unwrap();
    let config = r#"
task = "prediction"
label = "label"
ensembling = "none"
[data]
manifest = "xor.jsonl"
[data.columns.modalities]
left = "left"
right = "right"
[data.split]
column = "split"
[inputs.left]
encoder = { kind = "vector", dim = 2 }
[inputs.right]
encoder = { kind = "vector", dim = 2 }
[fusion]
dim = 16
project = false
operator = { kind = "concat" }
[loss]
unimodal_weight = 0.0
[train]
epochs = 25
[train.optimizer]
lr = 1e-2
"#;
    std::fs::write(folder.join("xor.toml"), config).unwrap();
}

#[test]
fn exclusive_or_needs_products_and_gates_close_on_noise() {
    let world = tempfile::tempdir().unwrap();
    let folder = world.path();
    exclusive_or(folder);
    let accuracy = |name: &str, more: &[&str]| -> f64 {
        let run = format!("runs/{name}");
        ok(&mm(&[&["train", "xor.toml", "--out", &run], more].concat(), folder));
        let figures: serde_json::Value =
            serde_json::from_str(&ok(&mm(&["eval", "--model", &run, "--json"], folder))).unwrap();
        metric(&figures, "accuracy")
    };
    let linear = accuracy("linear", &[]);
    assert!(linear < 0.65, "{linear}");
    for kind in ["multiplicative", "tensor_fusion", "mlb"] {
        let found = accuracy(kind, &["--set", &format!("fusion.operator.kind=\"{kind}\"")]);
        assert!(found > 0.95, "{kind}: {found}");
    }
    let wide = ["--set", "fusion.project=true", "--set", "fusion.operator.kind=\"cross_attention\""];
    let attention = accuracy("attention", &wide);
    assert!(attention > 0.9, "{attention}");
    let space = "fusion.operator.kind=\"concat\"|\"mlb\"";
    let fixed = ["fusion-search", "xor.toml", "--out", "search", "--num-rounds", "2", "--set", "data.split.valid=0.2"];
    let lines = ok(&mm(&[&fixed[..], &["--space", space, "--json"]].concat(), folder));
    let best: serde_json::Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    assert_eq!(best["settings"][0][1], "\"mlb\"", "{lines}");
    assert!(folder.join("search/best.toml").exists() && folder.join("search/report.html").exists());
    refused(&[&fixed[..], &["--space", "fusion.dim"]].concat(), folder, &["--space fusion.dim"]);
    // Of a modality that is noise a gated unit lets less through than of one that tells.
    let more = ["--set", "fusion.operator.kind=\"gated\"", "--set", "train.epochs=60"];
    assert!(accuracy("noisy", &[&EASY[..], &more].concat()) > 0.97);
    let report = ok(&mm(&["report", "--model", "runs/noisy", "--json"], folder));
    assert!(report.contains("report.html"), "{report}");
    let page = std::fs::read_to_string(folder.join("runs/noisy/report.html")).unwrap();
    let part = page
        .split("Mean modality weights of the fusion operator: ")
        .nth(1)
        .unwrap()
        .split('.')
        .take(3)
        .collect::<Vec<_>>()
        .join(".");
    let of = |name: &str| -> f64 {
        part.split(&format!("{name} ")).nth(1).unwrap().chars().take(5).collect::<String>().parse().unwrap()
    };
    assert!(of("left") > of("noise"), "{part}");
}

#[test]
fn heads_are_blended_stacked_and_given_labels_of_their_own() {
    let world = tempfile::tempdir().unwrap();
    let folder = world.path();
    exclusive_or(folder);
    let heads = [
        "--set",
        "loss.unimodal_weight=1.0",
        "--set",
        "data.split.valid=0.2",
        "--set",
        "train.evaluate_every_epochs=1",
    ];
    let run = |name: &str, more: &[&str], drop: &[&str]| -> f64 {
        let out = format!("runs/{name}");
        if drop.is_empty() {
            ok(&mm(&[&["train", "xor.toml", "--out", &out], &heads[..], more].concat(), folder));
        }
        let figures = ok(&mm(&[&["eval", "--model", &out, "--json"], drop].concat(), folder));
        metric(&serde_json::from_str(&figures).unwrap(), "accuracy")
    };
    // The last value of a figure in a run's log.
    let logged = |name: &str, figure: &str| -> f64 {
        let text = std::fs::read_to_string(folder.join(format!("runs/{name}/metrics.jsonl"))).unwrap();
        let lines = text.lines().filter_map(|l| serde_json::from_str::<serde_json::Value>(l).ok());
        lines.rev().find_map(|l| l.pointer(&format!("/values/{figure}")).or(l.get(figure))?.as_f64()).unwrap()
    };
    // Of an exclusive or no modality alone knows anything: its head generalises nowhere, and the fused one counts.
    let product = ["--set", "fusion.operator.kind=\"multiplicative\""];
    assert!(run("blended", &[&product[..], &["--set", "loss.gradient_blending=true"]].concat(), &[]) > 0.95);
    assert!(logged("blended", "blending_weight_fused") > 0.5, "{}", logged("blended", "blending_weight_fused"));
    for term in
        ["gradient_modulation=0.5", "distillation_weight=0.5", "functional_entropy_weight=0.001", "mixup_alpha=0.2"]
    {
        let set = format!("loss.{term}");
        assert!(run(term, &[&product[..], &["--set", &set]].concat(), &[]) > 0.9, "{term}");
    }
    // What one modality tells and the other does not: the noise's labels leave those of the whole, the telling one's hardly.
    assert!(run("own", &[&EASY[..], &["--set", "loss.unimodal_labels=true"]].concat(), &[]) > 0.97);
    let (left, noise) = (logged("own", "unimodal_label_shift_left"), logged("own", "unimodal_label_shift_noise"));
    assert!(noise > left + 0.05, "left {left}, noise {noise}");
    for method in ["logistic_regression", "gradient_boosting"] {
        let set = format!("ensembling=\"{method}\"");
        assert!(run(method, &[&EASY[..], &["--set", &set]].concat(), &[]) > 0.97);
        let kept = std::fs::read_to_string(folder.join(format!("runs/{method}/head_ensemble.json"))).unwrap();
        assert!(kept.contains(method), "{kept}");
        // Without what tells, about a coin's toss, and no error.
        let without = run(method, &[], &["--exclude-modality", "left"]);
        assert!((0.35..0.65).contains(&without), "{without}");
    }
    let train = ["train", "xor.toml", "--out", "runs/no"];
    let told = |more: &[&str], wanted: &[&str]| refused(&[&train[..], more].concat(), folder, wanted);
    told(&["--set", "loss.gradient_blending=true"], &["loss.unimodal_weight", "gradient_blending"]);
    told(
        &["--set", "loss.gradient_blending=true", "--set", "loss.unimodal_weight=1.0"],
        &["train.evaluate_every_epochs"],
    );
    told(&["--set", "ensembling=\"gradient_boosting\""], &["ensembling", "validation rows"]);
    told(
        &[&heads[..], &["--set", "ensembling=\"logistic_regression\"", "--set", "problem=\"multilabel\""]].concat(),
        &["multilabel"],
    );
    let three = ["--set", "loss.unimodal_labels=true", "--set", "problem=\"ordinal\""];
    told(&[&heads[..], &three].concat(), &["loss.unimodal_labels", "ordinal"]);
}

#[test]
fn steps_in_time_out_of_a_pickle_are_learned_from() {
    let world = tempfile::tempdir().unwrap();
    let folder = world.path();
    let pickle = Path::new(env!("CARGO_MANIFEST_DIR")).join("../mm-data/tests/fixtures/multimodal_sentiment/mmsa.pkl");
    ok(&mm(&["prepare", "--dataset", "mosei", "--data", pickle.to_str().unwrap(), "--out", "m.jsonl"], folder));
    let config = r#"
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
    std::fs::write(folder.join("m.toml"), config).unwrap();
    ok(&mm(&["train", "m.toml", "--out", "run"], folder));
    let figures: serde_json::Value =
        serde_json::from_str(&ok(&mm(&["eval", "--model", "run", "--json"], folder))).unwrap();
    assert!(metric(&figures, "mae").is_finite(), "{figures}");
    let scores = ["--set", "sentiment_metrics=true", "--set", "train.epochs=1"];
    ok(&mm(&[&["train", "m.toml", "--out", "scores"], &scores[..]].concat(), folder));
    let scored: serde_json::Value =
        serde_json::from_str(&ok(&mm(&["eval", "--model", "scores", "--json"], folder))).unwrap();
    assert!(metric(&scored, "acc_7").is_finite() && metric(&scored, "f1_2").is_finite(), "{scored}");
    let classes = ["--set", "sentiment_metrics=true", "--set", "problem=\"multiclass\""];
    refused(&[&["train", "m.toml", "--out", "no"], &classes[..]].concat(), folder, &["sentiment_metrics"]);
    // Lines that are not there are told, as any value that cannot be read.
    let text = std::fs::read_to_string(folder.join("m.jsonl")).unwrap();
    std::fs::write(folder.join("m.jsonl"), text.replace("\"from\":0", "\"from\":900")).unwrap();
    let output = mm(&["train", "m.toml", "--out", "again"], folder);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("from line 900") && !said.contains("panicked"), "{said}");
}
