//! `mm inspect` and `mm embed` with checkpoints that generate.

use super::{fixture, lines};
use crate::{
    common::{mm, refused},
    ok,
};
use serde_json::json;

#[test]
fn inspect_shows_the_family_inputs_and_outputs_of_a_checkpoint() {
    let folder = std::env::temp_dir();
    let inspect = |name: &str| lines(&["inspect", &fixture(name), "--json"], &folder).remove(0);
    let vilt = inspect("vilt-vqa");
    assert_eq!((&vilt["family"], &vilt["answers"]), (&"vilt".into(), &7.into()));
    let qwen = inspect("qwen2_vl-image");
    assert_eq!((&qwen["outputs"], &qwen["chat_template"]), (&"text".into(), &true.into()));
    assert_eq!(qwen["inputs"], json!(["image", "video"]));
    for name in ["blip-caption", "blip-vqa", "blip-match"] {
        assert_eq!(inspect(name)["family"], "blip", "{name}");
    }
    assert!(inspect("adapter-gpt2")["adapter"].as_str().unwrap().ends_with("adapter-gpt2"));
    let output = ok(&mm(&["inspect", &fixture("adapter-vilt")], &folder));
    assert!(output.contains("applied to"), "{output}");
}

#[test]
fn blip_for_retrieval_embeds_and_other_blips_do_not() {
    let folder = std::env::temp_dir();
    let model = fixture("blip-match");
    let embed = ["embed", "--model", &model, "--text", "a dog", "--image", &fixture("inputs/wide.png"), "--json"];
    assert_eq!(lines(&embed, &folder).len(), 2);
    let embed = ["embed", "--model", &fixture("blip-caption"), "--text", "a dog"];
    refused(&embed, &folder, &["no vision_proj and text_proj", "mm caption"]);
}
