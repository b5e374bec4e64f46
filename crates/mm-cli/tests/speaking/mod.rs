//! Questions are answered, pictures described, sounds written down, through the binary, by tiny checkpoints with random weights and by runs
//! that were trained here; and what is wrong with a question is told.

use crate::common::{find_metric, metric, mm, refused, text};
use image::{Rgb, RgbImage};
use serde_json::Value;
use std::path::{Path, PathBuf};

fn fixture(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../mm-reason/tests/fixtures").join(name);
    path.to_str().unwrap().to_owned()
}

fn lines(arguments: &[&str], folder: &Path) -> Vec<Value> {
    let output = mm(arguments, folder);
    assert!(output.status.success(), "{arguments:?}: {}", text(&output));
    String::from_utf8_lossy(&output.stdout).lines().map(|l| serde_json::from_str(l).unwrap()).collect()
}

#[test]
fn checkpoints_answer_describe_and_write_down_as_the_contract_says() {
    let world = tempfile::tempdir().unwrap();
    let folder = world.path();
    let (picture, other) = (fixture("inputs/wide.png"), fixture("inputs/tall.jpg"));
    let vilt = fixture("vilt-vqa");
    let ask = ["answer", "--model", &vilt, "--image", &picture, "--question", "a dog", "--question", "fox?"];
    let said = lines(&[&ask, ["--k", "all", "--json", "--explain", "heat.png"].as_slice()].concat(), folder);
    assert_eq!(said.len(), 2);
    let scores = said[0]["results"].as_array().unwrap();
    assert_eq!((scores.len(), said[0]["question"].as_str()), (7, Some("a dog")));
    assert_eq!(said[0]["answer"], scores[0]["answer"]);
    let score = scores[0]["score"].as_f64().unwrap();
    assert!((score - 1.0 / (1.0 + (-scores[0]["logit"].as_f64().unwrap()).exp())).abs() < 1e-6);
    for name in ["heat-1.png", "heat-2.png"] {
        assert!(image::open(folder.join(name)).unwrap().width() > 300);
    }
    let few = lines(&[&ask, ["--candidates", "thing 3,thing 5", "--json"].as_slice()].concat(), folder);
    assert!(few.iter().all(|l| l["results"].as_array().unwrap().len() == 2));

    let blip = fixture("blip-vqa");
    let ask = ["answer", "--model", &blip, "--image", &picture, "--question", "a dog", "--json"];
    let chosen = lines(&[&ask, ["--candidates", "fox,a dog"].as_slice()].concat(), folder);
    let total: f64 = chosen[0]["results"].as_array().unwrap().iter().map(|s| s["score"].as_f64().unwrap()).sum();
    assert!((total - 1.0).abs() < 1e-6);
    let beams = lines(&[&ask, ["--num-beams", "3", "--k", "3", "--max-new-tokens", "4"].as_slice()].concat(), folder);
    assert_eq!(beams[0]["results"].as_array().unwrap().len(), 3);

    let caption = fixture("blip-caption");
    let tell = ["caption", "--model", &caption, "--image", &picture, "--image", &other, "--num-beams", "2"];
    let said = lines(&[&tell, ["--max-new-tokens", "5", "--json"].as_slice()].concat(), folder);
    assert!(said.len() == 2 && said.iter().all(|l| l["text"].is_string() && l["score"].is_f64()));
    let begun = lines(
        &["caption", "--model", &caption, "--image", &picture, "--prompt", "a dog", "--json", "--max-new-tokens", "3"],
        folder,
    );
    assert!(begun[0]["text"].as_str().unwrap().starts_with("a dog"));
    // Drawing is a function of the seed.
    let draw = ["caption", "--model", &caption, "--image", &picture, "--temperature", "3", "--json", "--seed", "4"];
    assert_eq!(lines(&draw, folder), lines(&draw, folder));

    let ear = fixture("whisper-multilingual");
    let sound = fixture("inputs/long16.wav");
    let write = ["transcribe", "--model", &ear, "--audio", &sound, "--max-new-tokens", "6", "--json"];
    let said = lines(&[&write, ["--language", "german", "--timestamps"].as_slice()].concat(), folder);
    assert!(said[0]["text"].is_string() && !said[0]["segments"].as_array().unwrap().is_empty());

    // A conversation: three lines in, three answers out.
    let (model, input) = (fixture("qwen2_vl-picture"), folder.join("talk.txt"));
    std::fs::write(&input, "a dog\n/reset\nfox\n").unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_mm"))
        .args(["chat", "--model", &model, "--image", &picture, "--max-new-tokens", "4", "--json"])
        .stdin(std::fs::File::open(&input).unwrap())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output));
    assert_eq!(String::from_utf8_lossy(&output.stdout).lines().count(), 2);
}

#[test]
fn a_whole_table_is_described_broken_rows_are_told_and_an_interrupted_one_goes_on() {
    let world = tempfile::tempdir().unwrap();
    let folder = world.path();
    let model = fixture("git-caption");
    for name in ["a.png", "b.png"] {
        std::fs::copy(fixture("inputs/wide.png"), folder.join(name)).unwrap();
    }
    std::fs::write(folder.join("broken.png"), b"no picture").unwrap();
    std::fs::write(folder.join("t.csv"), "id,image,question\nx,a.png,a dog\ny,broken.png,fox\nz,b.png,dog\n").unwrap();
    let tell = ["caption", "--model", &model, "--data", "t.csv", "--out", "o.jsonl", "--max-new-tokens", "4", "--json"];
    let counts = lines(&tell, folder);
    assert_eq!((counts[0]["rows"].as_u64(), counts[0]["failed"]["count"].as_u64()), (Some(3), Some(1)));
    let whole = std::fs::read_to_string(folder.join("o.jsonl")).unwrap();
    let rows: Vec<Value> = whole.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert!(rows[1]["error"].as_str().unwrap().contains("broken.png") && rows[2]["text"].is_string());
    // Cut in the middle of the second line: it is written anew, the first is kept.
    let cut = whole.find('\n').unwrap() + 9;
    std::fs::write(folder.join("o.jsonl"), &whole[..cut]).unwrap();
    let counts = lines(&tell, folder);
    assert_eq!(counts[0]["resumed"].as_u64(), Some(1));
    assert_eq!(std::fs::read_to_string(folder.join("o.jsonl")).unwrap(), whole);
    refused(&[&tell, ["--on-error", "fail"].as_slice()].concat()[..], &fresh(folder), &["broken.png"]);
    let asked = ["answer", "--model", &model, "--data", "t.csv", "--out", "q.jsonl", "--max-new-tokens", "3"];
    assert!(mm(&asked, folder).status.success());
    let rows = std::fs::read_to_string(folder.join("q.jsonl")).unwrap();
    assert!(rows.lines().next().unwrap().contains("\"question\":\"a dog\""));
    std::fs::write(folder.join("q.jsonl"), "{\"id\":\"other\"}\n").unwrap();
    refused(&asked, folder, &["q.jsonl", "another --out"]);
}

/// The same files with nothing written yet.
fn fresh(folder: &Path) -> PathBuf {
    let _ = std::fs::remove_file(folder.join("o.jsonl"));
    folder.to_owned()
}

#[test]
fn a_question_that_makes_no_sense_is_told() {
    let world = tempfile::tempdir().unwrap();
    let folder = world.path();
    let (picture, vilt, blip, caption) =
        (fixture("inputs/wide.png"), fixture("vilt-vqa"), fixture("blip-vqa"), fixture("blip-caption"));
    let ask = |model: &str, more: &[&str], wanted: &[&str]| {
        refused(&[&["answer", "--model", model, "--image", &picture], more].concat(), folder, wanted);
    };
    ask(&vilt, &[], &["no question"]);
    ask(&vilt, &["--question", "  "], &["question 1 is empty"]);
    let long = "word ".repeat(10_000);
    ask(&vilt, &["--question", &long], &["10002 tokens", "at most the model's 30"]);
    ask(&blip, &["--question", &long], &["at most the model's 40"]);
    ask(&fixture("llava-clip-llama"), &["--question", &long], &["120 positions"]);
    ask(&vilt, &["--question", "a", "--candidates", ""], &["--candidates"]);
    ask(&vilt, &["--question", "a", "--candidates", "thing 1,thing 1"], &["twice"]);
    ask(&vilt, &["--question", "a", "--candidates", "thing 9"], &["did you mean"]);
    ask(&caption, &["--question", "a"], &["this checkpoint captions images"]);
    let two = ["--question", "a", "--question", "b", "--image", &picture, "--image", &picture];
    ask(&vilt, &two, &["3 files and 2 questions"]);
    let tell = |more: &[&str], wanted: &[&str]| {
        refused(&[&["caption", "--model", &caption], more].concat(), folder, wanted);
    };
    tell(&[], &["nothing to caption"]);
    tell(&["--image", &picture, "--num-beams", "0"], &["beams", "at least 1"]);
    tell(&["--image", &picture, "--num-beams", "4000"], &["beams", "half of the vocabulary"]);
    tell(&["--image", &picture, "--max-new-tokens", "100000"], &["40 positions"]);
    tell(&["--image", &picture, "--temperature", "0"], &["temperature"]);
    tell(&["--image", &picture, "--temperature", "1", "--top-p", "0"], &["top_p"]);
    tell(&["--image", "nowhere.png"], &["nowhere.png"]);
    refused(&["chat", "--model", &caption, "--image", &picture], folder, &["chat template"]);
    refused(&["transcribe", "--model", &caption, "--audio", &picture], folder, &["takes no audio"]);
    let (ear, sound) = (fixture("whisper-multilingual"), fixture("inputs/long16.wav"));
    let language = ["transcribe", "--model", &ear, "--audio", &sound, "--language", "klingon"];
    refused(&language, folder, &["klingon"]);

    // Pictures of one colour, of one pixel, very wide; silence.
    RgbImage::from_pixel(1, 1, Rgb([7, 7, 7])).save(folder.join("one.png")).unwrap();
    RgbImage::from_pixel(20_000, 9, Rgb([7, 7, 7])).save(folder.join("wide.png")).unwrap();
    for model in ["vilt-vqa", "blip-vqa", "git-caption", "llava-clip-llama"] {
        let model = fixture(model);
        for name in ["one.png", "wide.png"] {
            let ask = ["answer", "--model", &model, "--image", name, "--question", "a dog", "--max-new-tokens", "2"];
            let output = mm(&ask, folder);
            assert!(output.status.success(), "{ask:?}: {}", text(&output));
        }
    }
    let silence = mm_data::decode::Audio { samples: vec![0.0; 16_000], sample_rate: 16_000 };
    mm_data::decode::write_wav(&folder.join("silence.wav"), &silence).unwrap();
    let quiet = ["transcribe", "--model", &ear, "--audio", "silence.wav", "--max-new-tokens", "4", "--json"];
    assert!(mm(&quiet, folder).status.success());

    // Templates that do not parse, or never end.
    let copy = |name: &str, template: &str| {
        let target = folder.join(name);
        std::fs::create_dir_all(&target).unwrap();
        for entry in std::fs::read_dir(fixture("qwen2_vl-picture")).unwrap().map(|e| e.unwrap().path()) {
            std::fs::copy(&entry, target.join(entry.file_name().unwrap())).unwrap();
        }
        std::fs::write(target.join("chat_template.jinja"), template).unwrap();
    };
    copy("unparsed", "{% for m in messages %}");
    copy("endless", "{% for a in range(9999) %}{% for b in range(9999) %}x{% endfor %}{% endfor %}");
    for name in ["unparsed", "endless"] {
        refused(&["answer", "--model", name, "--image", &picture, "--question", "a"], folder, &["chat template"]);
    }
    // Without generation_config.json the model's config says when to end.
    std::fs::remove_file(folder.join("unparsed/chat_template.jinja")).unwrap();
    std::fs::remove_file(folder.join("unparsed/generation_config.json")).unwrap();
    std::fs::remove_file(folder.join("unparsed/tokenizer_config.json")).unwrap();
    let plain = ["answer", "--model", "unparsed", "--image", &picture, "--question", "a", "--max-new-tokens", "2"];
    let output = mm(&plain, folder);
    assert!(output.status.success(), "{}", text(&output));
}

/// One of two shapes in one of two colours, and what can be asked about it.
fn shapes(folder: &Path, rows: usize) {
    let mut table = String::from("id,image,text,label,split,caption\n");
    for row in 0..rows {
        let bits = row.wrapping_mul(2_654_435_761) >> 9;
        let (red, round) = (bits & 1 == 1, bits >> 1 & 1 == 1);
        let ink = if red { Rgb([220, 30, 30]) } else { Rgb([30, 30, 220]) };
        let (cx, cy) = (10 + (bits >> 2 & 7) as i32 * 2, 10 + (bits >> 5 & 7) as i32 * 2);
        let inside = |x: i32, y: i32| {
            let (dx, dy) = (x - cx, y - cy);
            if round { dx * dx + dy * dy <= 49 } else { dx.abs().max(dy.abs()) <= 7 && (dx + dy) % 3 != 0 }
        };
        let draw = |x: u32, y: u32| if inside(x as i32, y as i32) { ink } else { Rgb([255; 3]) };
        RgbImage::from_fn(32, 32, draw).save(folder.join(format!("{row}.png"))).unwrap();
        let (colour, shape) = (if red { "red" } else { "blue" }, if round { "ball" } else { "grid" });
        let (question, answer) = match bits >> 8 & 3 {
            0 => ("what colour is it".to_owned(), colour),
            1 => ("what shape is it".to_owned(), shape),
            n => {
                let (asked, is) = if n == 2 { ("red", red) } else { ("blue", !red) };
                (format!("is it {asked}"), if is { "yes" } else { "no" })
            }
        };
        let split = if row % 5 == 0 { "test" } else { "train" };
        table.push_str(&format!("{row},{row}.png,{question},{answer},{split},a {colour} {shape}\n"));
    }
    std::fs::write(folder.join("shapes.csv"), table).unwrap();
}

#[test]
fn a_network_learns_to_answer_and_another_to_describe_and_both_are_asked() {
    let world = tempfile::tempdir().unwrap();
    let folder = world.path();
    shapes(folder, 400);
    let config = r#"
task = "prediction"
label = "label"
problem = "multiclass"
ensembling = "none"
cache_dir = "cache"
[data]
manifest = "shapes.csv"
split = { column = "split" }
[data.columns]
modalities = { text = "text", image = "image" }
[loader]
batch_size = 32
[inputs.text]
encoder = { kind = "lstm", embedding_dim = 16, hidden_dim = 32 }
[inputs.image]
encoder = { kind = "cnn", image_size = 32, channels = [16, 32], dropout = 0.0, jitter = 0.0 }
[reasoning]
hidden_dim = 32
network = { kind = "film", num_blocks = 2 }
[loss]
unimodal_weight = 0.1
[train]
epochs = 14
log_every_steps = 50
[train.optimizer]
lr = 5e-3
"#;
    std::fs::write(folder.join("vqa.toml"), config).unwrap();
    let train = mm(&["train", "vqa.toml", "--out", "vqa", "--threads", "1"], folder);
    assert!(train.status.success(), "{}", text(&train));
    let figures = lines(&["eval", "--model", "vqa", "--split", "test", "--json"], folder);
    let accuracy = metric(&figures[0], "accuracy");
    // Neither the question nor the image gives away the answer by itself.
    for baseline in ["question_only", "image_only"] {
        let value = find_metric(&figures[0], "accuracy")["baselines"][baseline].as_f64().unwrap();
        assert!(value < 0.75, "{baseline}: {value}");
    }
    let blind = lines(&["eval", "--model", "vqa", "--split", "test", "--exclude-modality", "image", "--json"], folder);
    let blind = metric(&blind[0], "accuracy");
    assert!(accuracy > 0.9 && blind < 0.75, "{accuracy} with, {blind} without the picture");
    let ask = ["answer", "--model", "vqa", "--image", "5.png", "--question", "what colour is it"];
    let said = lines(&[&ask, ["--json", "--explain", "h.png"].as_slice()].concat(), folder);
    assert_eq!(said[0]["attribution"]["grid"], serde_json::json!([8, 8]));
    for step in said[0]["attribution"]["steps"].as_array().unwrap() {
        assert_eq!(step[1].as_array().unwrap().len(), 64);
    }
    assert!(["red", "blue"].contains(&said[0]["answer"].as_str().unwrap()));
    refused(&[&ask, ["--candidates", "green"].as_slice()].concat(), folder, &["green"]);

    let captions = r#"
task = "captioning"
[data]
manifest = "shapes.csv"
split = { column = "split" }
[data.columns]
modalities = { text = "caption", image = "image" }
[loader]
batch_size = 32
[encoder]
kind = "cnn"
image_size = 32
channels = [16, 32]
[model]
kind = "KIND"
hidden_dim = 32
num_layers = 1
dropout = 0.0
max_length = 6
[train]
epochs = 10
log_every_steps = 50
[train.optimizer]
lr = 5e-3
"#;
    for kind in ["transformer", "lstm", "prefix"] {
        std::fs::write(folder.join("captions.toml"), captions.replace("KIND", kind)).unwrap();
        let train = mm(&["train", "captions.toml", "--out", kind, "--threads", "1"], folder);
        assert!(train.status.success(), "{}", text(&train));
        let figures = lines(&["eval", "--model", kind, "--split", "test", "--json"], folder);
        let bleu = metric(&figures[0], "bleu_1");
        // Four captions of three words; one that is always the same has at best two right.
        assert!(bleu > 0.85, "{kind}: {bleu}");
    }
    let said = lines(&["caption", "--model", "lstm", "--image", "5.png", "--json"], folder);
    assert!(said[0]["text"].as_str().unwrap().starts_with("a "));
    let report = mm(&["report", "--model", "transformer", "--out", "r.html"], folder);
    assert!(report.status.success(), "{}", text(&report));
    assert!(std::fs::read_to_string(folder.join("r.html")).unwrap().contains("nearest picture"));
}

/// Pictures of one colour, with a question and its answer: as many as `sides` says of each side and colour.
fn colours(folder: &Path, sides: [(&str, usize); 2]) -> PathBuf {
    let colours = [("fox", [220, 30, 20]), ("dog", [20, 200, 40]), ("cafe", [30, 40, 210])];
    let mut lines = String::new();
    for (side, count) in sides {
        for n in 0..count {
            for (name, rgb) in colours {
                let file = format!("{side}-{n}-{name}.png");
                let shade = |v: u8| v.saturating_add((n * 13 % 40) as u8);
                // Of several shapes.
                let wide = 24 + 6 * (n % 3) as u32;
                RgbImage::from_pixel(wide, 24, Rgb(rgb.map(shade))).save(folder.join(&file)).unwrap();
                let row = serde_json::json!({"id": file, "image": file, "split": side, "text": "the quick", "answer": name,
                    "answers": format!("{name}|{name}|{name}|lazy"), "answer_type": "other"});
                lines += &format!("{row}\n");
            }
        }
    }
    std::fs::write(folder.join("colours.jsonl"), lines).unwrap();
    folder.join("colours.jsonl")
}

fn learn(folder: &Path, name: &str, model: &str, more: &str, epochs: u32) -> (PathBuf, Value) {
    let config = format!(
        r#"task = "finetuning"
model = {model:?}
answer_column = "answer"
max_length = 4
{more}
[data]
manifest = "colours.jsonl"
[data.columns]
modalities = {{ text = "text", image = "image" }}
[data.split]
column = "split"
[loader]
batch_size = 6
[train]
epochs = {epochs}
log_every_steps = 10
[train.optimizer]
lr = 8e-3
"#
    );
    std::fs::write(folder.join(format!("{name}.toml")), config).unwrap();
    let run = folder.join(name);
    lines(&["train", &format!("{name}.toml"), "--out", run.to_str().unwrap(), "--json"], folder);
    let figures = lines(&["eval", "--model", run.to_str().unwrap(), "--json"], folder).remove(0);
    (run, figures)
}

#[test]
fn checkpoints_learn_further_whole_or_by_adapters_and_what_they_learned_is_answered_and_merged() {
    let world = tempfile::tempdir().unwrap();
    let folder = world.path();
    colours(folder, [("train", 12), ("test", 4)]);
    let adapter = "[adapter]\nrank = 4\n";
    for (name, model, more, epochs) in [
        ("vilt-adapter", "vilt-vqa", adapter, 12),
        ("vilt-whole", "vilt-vqa", "", 12),
        ("blip-adapter", "blip-vqa", adapter, 20),
        ("blip-whole", "blip-vqa", "", 12),
        ("qwen2_vl-four-bit", "qwen2_vl-picture", "[adapter]\nrank = 4\nquantize = \"nf4\"\n", 20),
    ] {
        let (run, figures) = learn(folder, name, &fixture(model), more, epochs);
        let (right, prior) =
            (metric(&figures, "accuracy"), &find_metric(&figures, "accuracy")["baselines"]["language_prior"]);
        assert!(right > 0.9, "{name}: {figures}");
        assert!((prior.as_f64().unwrap() - 1.0 / 3.0).abs() < 1e-9, "{name}: {figures}");
        // By hand: of four people three say the right answer; leaving one of those out leaves two thirds.
        let people = figures["metrics"].as_array().unwrap().iter();
        let people = people.into_iter().find(|m| m["id"] == "vqa_accuracy" && m["scope"] == "other").unwrap();
        let people = people["value"].as_f64().unwrap();
        assert!((people - right * 0.75).abs() < 1e-9, "{figures}");

        // The run answers, and so does what transformers or PEFT would load, and what is merged of it.
        let picture = folder.join("test-1-dog.png");
        let (model, merged) = (run.join("model"), folder.join(format!("{name}-merged")));
        let adapted = model.join("adapter_config.json").exists();
        assert_eq!(adapted, !more.is_empty());
        let mut from = vec![run.clone(), model.clone()];
        if adapted {
            let arguments = ["merge", "--model", model.to_str().unwrap(), "--out", merged.to_str().unwrap(), "--json"];
            assert!(lines(&arguments, folder)[0]["tensors"].as_u64().unwrap() > 20);
            from.push(merged.clone());
            refused(&arguments, folder, &["already holds a model"]);
        }
        let mut said = Vec::new();
        for place in &from {
            let ask = ["answer", "--model", place.to_str().unwrap(), "--image", picture.to_str().unwrap()];
            said.push(
                lines(&[&ask, ["--question", "the quick", "--json", "--k", "3"].as_slice()].concat(), folder).remove(0),
            );
        }
        assert_eq!(said[0]["answer"], "dog", "{name}: {said:?}");
        let score = |v: &Value| v["results"][0]["logit"].as_f64().unwrap();
        assert!(
            said.iter().all(|s| s["answer"] == said[0]["answer"] && (score(s) - score(&said[0])).abs() < 1e-4),
            "{said:?}"
        );
    }
    // The page has the figures and the pictures.
    lines(&["report", "--model", "blip-whole", "--json"], folder);
    assert!(std::fs::read_to_string(folder.join("blip-whole/report.html")).unwrap().contains("without looking"));
}

#[test]
fn a_folder_says_what_it_is() {
    let world = tempfile::tempdir().unwrap();
    let of = |name: &str| lines(&["inspect", &fixture(name), "--json"], world.path()).remove(0);
    let vilt = of("vilt-vqa");
    assert_eq!((&vilt["family"], &vilt["answers"]), (&"vilt".into(), &7.into()));
    let talker = of("qwen2_vl-picture");
    assert_eq!((&talker["outputs"], &talker["chat_template"]), (&"text".into(), &true.into()));
    assert_eq!(talker["inputs"], serde_json::json!(["image", "video"]));
    assert!(of("adapter-gpt2")["adapter"].as_str().unwrap().ends_with("adapter-gpt2"));
    let shown = mm(&["inspect", &fixture("adapter-vilt")], world.path());
    assert!(String::from_utf8_lossy(&shown.stdout).contains("applied to"), "{}", text(&shown));
}

#[test]
fn what_is_wrong_with_learning_further_is_told() {
    let world = tempfile::tempdir().unwrap();
    let folder = world.path();
    colours(folder, [("train", 2), ("test", 1)]);
    let config = |head: &str| {
        let text = format!(
            "task = \"finetuning\"\n{head}\n[data]\nmanifest = \"colours.jsonl\"\n[data.columns]\nmodalities = {{ text = \"text\", image = \"image\" }}\n[data.split]\ncolumn = \"split\"\n"
        );
        std::fs::write(folder.join("bad.toml"), text).unwrap();
    };
    let vilt = fixture("vilt-vqa");
    for (head, said) in [
        (format!("model = {vilt:?}\nanswer = \"answr\""), "an answer in the column `answr`"),
        (format!("model = {vilt:?}"), "expected the column of the answers"),
        ("model = \"nowhere\"\nanswer = \"answer\"".to_owned(), "no such folder"),
        (
            format!("model = {vilt:?}\nanswer = \"answer\"\n[adapter]\nrank = 0"),
            "adapter.rank: found 0, expected at least 1",
        ),
        (
            format!("model = {vilt:?}\nanswer = \"answer\"\n[adapter]\ntarget_modules = [\"qkv\"]"),
            "no layer of `vilt` is called qkv",
        ),
        (format!("model = {vilt:?}\nanswer = \"answer\"\nof = \"audio\""), "no row has audio"),
    ] {
        config(&head);
        refused(&["train", "bad.toml", "--out", "run"], folder, &[said]);
    }
    let lone = folder.join("lone");
    std::fs::create_dir(&lone).unwrap();
    std::fs::write(
        lone.join("adapter_config.json"),
        r#"{"peft_type": "LORA", "base_model_name_or_path": "nobody/nothing"}"#,
    )
    .unwrap();
    let ask = ["answer", "--model", "lone", "--image", "x.png", "--question", "what?"];
    refused(&ask, folder, &["nobody/nothing", "models pull"]);
    std::fs::write(lone.join("adapter_config.json"), r#"{"peft_type": "IA3"}"#).unwrap();
    refused(&ask, folder, &["found IA3, expected LORA"]);
}

/// A second of a tone at 16 kHz.
fn tone(path: &Path, hertz: f32, shift: f32) {
    let sample = |n: u16| (2.0 * std::f32::consts::PI * (hertz * f32::from(n) / 16e3 + shift)).sin() * 0.37;
    let audio = mm_data::decode::Audio { samples: (0..16_000).map(sample).collect(), sample_rate: 16_000 };
    mm_data::decode::write_wav(path, &audio).unwrap();
}

#[test]
fn a_whisper_learns_to_write_down_what_it_hears() {
    let world = tempfile::tempdir().unwrap();
    let folder = world.path();
    let mut rows = String::new();
    for (side, count) in [("train", 10u8), ("test", 4)] {
        for n in 0..count {
            for (text, hertz) in [("fox", 300.0), ("the dog", 900.0), ("lazy", 2500.0)] {
                let file = format!("{side}-{n}-{hertz}.wav");
                let step = f32::from(n);
                tone(&folder.join(&file), hertz * (1.0 + 0.01 * step), 0.1 * step);
                rows += &format!("{}\n", serde_json::json!({"id": file, "audio": file, "text": text, "split": side}));
            }
        }
    }
    std::fs::write(folder.join("tones.jsonl"), rows).unwrap();
    let config = format!(
        "task = \"finetuning\"\nmodel = {:?}\nof = \"audio\"\nlanguage = \"en\"\nlongest = 8\n[data]\nmanifest = \"tones.jsonl\"\n\
         [data.split]\ncolumn = \"split\"\n[loader]\nbatch_size = 6\n[train]\nepochs = 40\nmax_grad_norm = 1.0\n[train.optimizer]\nlr = 5e-3\n",
        fixture("whisper-multilingual")
    );
    std::fs::write(folder.join("tones.toml"), config).unwrap();
    lines(&["train", "tones.toml", "--out", "tones", "--threads", "1", "--json"], folder);
    let figures = lines(&["eval", "--model", "tones", "--json"], folder).remove(0);
    let prior = find_metric(&figures, "word_error_rate")["baselines"]["language_prior"].as_f64().unwrap();
    // Without listening, one of the three texts is said of all: it has one or two words of four right.
    assert!(metric(&figures, "word_error_rate") < 0.15 && prior >= 0.5, "{figures}");
    let said = lines(&["transcribe", "--model", "tones/model", "--audio", "test-0-900.wav", "--json"], folder);
    assert_eq!(said[0]["text"].as_str().unwrap().trim(), "the dog", "{said:?}");
}

#[test]
fn a_blip_is_shown_for_what_it_does() {
    let folder = std::env::temp_dir();
    for (name, family) in [("blip-caption", "blip"), ("blip-vqa", "blip"), ("blip-match", "blip")] {
        assert_eq!(lines(&["inspect", &fixture(name), "--json"], &folder)[0]["family"], family, "{name}");
    }
    let both = fixture("blip-match");
    let embed = ["embed", "--model", &both, "--text", "a dog", "--image", &fixture("inputs/wide.png"), "--json"];
    assert_eq!(lines(&embed, &folder).len(), 2);
    let embed = ["embed", "--model", &fixture("blip-caption"), "--text", "a dog"];
    refused(&embed, &folder, &["no vision_proj and text_proj", "mm caption"]);
}

#[test]
fn what_is_said_takes_a_form_and_ends_where_it_is_told() {
    let world = tempfile::tempdir().unwrap();
    let folder = world.path();
    let picture = fixture("inputs/wide.png");
    // Byte-level, in the middle of a prompt, and pieces of words.
    for model in ["llava-clip-llama", "blip-vqa"] {
        let model = fixture(model);
        let ask =
            ["answer", "--model", &model, "--image", &picture, "--question", "fox", "--json", "--max-new-tokens", "12"];
        for beams in ["1", "3"] {
            let form = ["--regex", "(fox|dog)s?|lazy dog", "--num-beams", beams, "--k", "1"];
            let said = lines(&[&ask, form.as_slice()].concat(), folder).remove(0);
            let answer = said["answer"].as_str().unwrap();
            assert!(["fox", "foxs", "dog", "dogs", "lazy dog"].contains(&answer.trim()), "{said}");
        }
    }
    let model = fixture("llava-clip-llama");
    let ask =
        ["answer", "--model", &model, "--image", &picture, "--question", "fox", "--json", "--max-new-tokens", "40"];
    let schema = r#"{"type": "object", "properties": {"animal": {"enum": ["dog", "fox"]}, "count": {"type": "integer", "minimum": 2, "maximum": 9}},
        "required": ["animal", "count"], "additionalProperties": false}"#;
    std::fs::write(folder.join("schema.json"), schema).unwrap();
    let said = lines(&[&ask, ["--json-schema", "schema.json"].as_slice()].concat(), folder).remove(0);
    let made: Value = serde_json::from_str(said["answer"].as_str().unwrap()).unwrap();
    assert!(made["animal"] == "dog" || made["animal"] == "fox", "{made}");
    assert!((2..=9).contains(&made["count"].as_i64().unwrap()));
    refused(&[&ask, ["--regex", "(fox"].as_slice()].concat(), folder, &["--regex"]);
    std::fs::write(folder.join("schema.json"), r#"{"type": "thing"}"#).unwrap();
    refused(&[&ask, ["--json-schema", "schema.json"].as_slice()].concat(), folder, &["--json-schema"]);
    refused(&[&ask, ["--json-schema", "none.json"].as_slice()].concat(), folder, &["none.json cannot be read"]);
    let vilt = fixture("vilt-vqa");
    let ask = ["answer", "--model", &vilt, "--image", &picture, "--question", "fox", "--regex", "a"];
    refused(&ask, folder, &["chooses among the answers"]);

    let model = fixture("vision-encoder-decoder-trocr");
    let tell = ["caption", "--model", &model, "--image", &picture, "--json", "--max-new-tokens", "9"];
    let whole = lines(&tell, folder).remove(0);
    let text = whole["text"].as_str().unwrap();
    let (at, letter) = text.char_indices().skip(1).find(|(_, c)| c.is_alphanumeric()).expect("a letter");
    let stop = letter.to_string();
    let cut = lines(&[&tell, ["--stop", &stop].as_slice()].concat(), folder).remove(0);
    assert_eq!(cut["text"].as_str().unwrap(), &text[..text.find(letter).unwrap_or(at)]);
    assert!(cut["tokens"].as_u64() <= whole["tokens"].as_u64());
}

#[test]
fn rows_are_blended_and_captions_are_judged_while_learning() {
    let world = tempfile::tempdir().unwrap();
    let folder = world.path();
    colours(folder, [("train", 12), ("test", 4)]);
    let head = |task: &str| {
        format!(
            "task = \"{task}\"\n[data]\nmanifest = \"colours.jsonl\"\n[data.split]\ncolumn = \"split\"\n[loader]\nbatch_size = 12\n[train]\nlog_every_steps = 50\n[train.optimizer]\nlr = 5e-3\n"
        )
    };
    let network = "[inputs.image]\nencoder = { kind = \"cnn\", image_size = 16, channels = [8, 8], dropout = 0.0, jitter = 0.0 }\n";
    let text = head("prediction").replacen('\n', "\nlabel = \"answer\"\nproblem = \"multiclass\"\n", 1) + network;
    std::fs::write(
        folder.join("blend.toml"),
        text.replace("[data.split]", "[data.columns]\nmodalities = { image = \"image\" }\n[data.split]"),
    )
    .unwrap();
    for switch in ["loss.mixup_alpha=0.4", "loss.cutmix_alpha=1.0"] {
        let run = folder.join(switch.replace('=', "-"));
        let run = run.to_str().unwrap();
        lines(&["train", "blend.toml", "--out", run, "--set", switch, "--set", "train.epochs=25", "--json"], folder);
        let figures = lines(&["eval", "--model", run, "--json"], folder).remove(0);
        assert!(metric(&figures, "accuracy") > 0.9, "{switch}: {figures}");
    }
    refused(&["train", "blend.toml", "--out", "x", "--set", "loss.mixup_alpha=-1"], folder, &["mixup_alpha"]);

    let words = "[encoder]\nkind = \"cnn\"\nimage_size = 16\nchannels = [8, 8]\ndropout = 0.0\njitter = 0.0\n[model]\nhidden_dim = 16\nnum_layers = 1\nnum_heads = 2\nmax_length = 4\n";
    let columns = "[data.columns]\nmodalities = { image = \"image\", text = \"answer\" }\n[data.split]";
    std::fs::write(folder.join("words.toml"), head("captioning").replace("[data.split]", columns) + words).unwrap();
    let train = |run: &str, more: &[&str]| {
        let base = ["train", "words.toml", "--out", run, "--json", "--set"];
        lines(&[&base, more].concat(), folder);
        metric(&lines(&["eval", "--model", run, "--json"], folder).remove(0), "bleu_1")
    };
    assert!(train("own-words", &["scheduled_sampling=0.3", "--set", "train.epochs=30"]) > 0.9);
    let begun = train("begun", &["train.epochs=3"]);
    let judged = ["self_critical_weight=0.5", "--set", "init_from=begun", "--set", "train.epochs=25"];
    let after = train("judged", &judged);
    assert!(after > 0.9 && after >= begun, "{begun} before, {after} after");
    let logged = std::fs::read_to_string(folder.join("judged/metrics.jsonl")).unwrap();
    assert!(logged.contains("cider_d_above_greedy"), "{logged}");
}
