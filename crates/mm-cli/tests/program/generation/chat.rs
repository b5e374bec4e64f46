//! `mm chat` and chat templates.

use super::fixture;
use crate::{
    common::{mm, refused},
    ok,
};
use std::process::Command;

#[test]
fn each_message_gets_a_reply_and_commands_get_none() {
    let temp_dir = tempfile::tempdir().unwrap();
    let (model, image, input) =
        (fixture("qwen2_vl-image"), fixture("inputs/wide.png"), temp_dir.path().join("messages.txt"));
    std::fs::write(&input, "a dog\n/reset\nfox\n").unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_mm"))
        .args(["chat", "--model", &model, "--image", &image, "--max-new-tokens", "4", "--json"])
        .stdin(std::fs::File::open(&input).unwrap())
        .output()
        .unwrap();
    assert_eq!(ok(&output).lines().count(), 2);
    refused(&["chat", "--model", &fixture("blip-caption"), "--image", &image], temp_dir.path(), &["chat template"]);
}

#[test]
fn invalid_chat_templates_are_refused_and_the_generation_config_is_optional() {
    let temp_dir = tempfile::tempdir().unwrap();
    let folder = temp_dir.path();
    let image = fixture("inputs/wide.png");
    let copy = |name: &str, template: &str| {
        let target = folder.join(name);
        std::fs::create_dir_all(&target).unwrap();
        for entry in std::fs::read_dir(fixture("qwen2_vl-image")).unwrap().map(|e| e.unwrap().path()) {
            std::fs::copy(&entry, target.join(entry.file_name().unwrap())).unwrap();
        }
        std::fs::write(target.join("chat_template.jinja"), template).unwrap();
    };
    copy("unparsed", "{% for m in messages %}");
    copy("endless", "{% for a in range(9999) %}{% for b in range(9999) %}x{% endfor %}{% endfor %}");
    for name in ["unparsed", "endless"] {
        refused(&["answer", "--model", name, "--image", &image, "--question", "a"], folder, &["chat template"]);
    }
    // Without generation_config.json, the model's config gives the end-of-sequence token.
    for file in ["chat_template.jinja", "generation_config.json", "tokenizer_config.json"] {
        std::fs::remove_file(folder.join("unparsed").join(file)).unwrap();
    }
    ok(&mm(&["answer", "--model", "unparsed", "--image", &image, "--question", "a", "--max-new-tokens", "2"], folder));
}
