//! Mixup and CutMix.

use crate::{
    common::{metric, mm, refused},
    datasets::color_images,
    json,
};

#[test]
fn mixup_and_cutmix_train_an_image_classifier() {
    let temp_dir = tempfile::tempdir().unwrap();
    let folder = temp_dir.path();
    color_images(folder, [("train", 12), ("test", 4)]);
    let config = r#"
task = "prediction"
label = "answer"
problem = "multiclass"
[data]
manifest = "colors.jsonl"
[data.columns]
modalities = { image = "image" }
[data.split]
column = "split"
[loader]
batch_size = 12
[inputs.image]
encoder = { kind = "cnn", image_size = 16, channels = [8, 8], dropout = 0.0, jitter = 0.0 }
[train]
log_every_steps = 50
[train.optimizer]
lr = 5e-3
"#;
    std::fs::write(folder.join("mix.toml"), config).unwrap();
    for setting in ["loss.mixup_alpha=0.4", "loss.cutmix_alpha=1.0"] {
        let run = setting.replace('=', "-");
        let train = ["train", "mix.toml", "--out", &run, "--set", setting, "--set", "train.epochs=25", "--json"];
        json(&mm(&train, folder));
        let evaluation = json(&mm(&["eval", "--model", &run, "--json"], folder));
        assert!(metric(&evaluation, "accuracy") > 0.9, "{setting}: {evaluation}");
    }
    refused(&["train", "mix.toml", "--out", "x", "--set", "loss.mixup_alpha=-1"], folder, &["mixup_alpha"]);
}
