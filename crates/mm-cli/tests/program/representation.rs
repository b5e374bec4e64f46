//! Representation learning.

use crate::{
    common::{Workspace, find_metric, mm, refused},
    json, json_lines, ok,
};

const VAE: &str = "task = \"representation\"\n[data]\nmanifest = \"data.jsonl\"\ncolumns = { modalities = { image = \"image\" } }\nsplit = { column = \"split\" }\n\
    [loader]\nbatch_size = 4\n[inputs.image]\nkind = \"image\"\nimage_size = 8\n[model]\nkind = \"vae\"\nlatent_dim = 3\nnetwork = { hidden_dims = [16] }\n[train]\nepochs = 3\nlog_every_steps = 1\n";

#[test]
fn a_representation_is_trained_evaluated_and_used_as_an_encoder() {
    let workspace = Workspace::new();
    workspace.write("vae.toml", VAE);
    let folder = workspace.path();
    ok(&mm(&["train", "vae.toml", "--out", "runs/vae", "--num-seeds", "2"], folder));
    let evaluation = json(&mm(&["eval", "--model", "runs/vae/seed-0", "--json"], folder));
    let metrics = evaluation["metrics"].as_array().unwrap();
    let error = metrics.iter().find(|m| m["id"] == "reconstruction_mse" && m["scope"] == "image").unwrap();
    assert!(error["value"].as_f64().unwrap() > 0.0 && error["baselines"]["pca"].as_f64().unwrap() >= 0.0, "{error}");
    assert!(find_metric(&evaluation, "log_likelihood")["value"].is_f64(), "{evaluation}");
    let embed = ["embed", "--model", "runs/vae/seed-0", "--image", "0.png", "--image", "1.png", "--json"];
    let first = &json_lines(&mm(&embed, folder))[0];
    assert_eq!((first["modality"].as_str(), first["embedding"].as_array().unwrap().len()), (Some("image"), 3));
    ok(&mm(&["report", "--model", "runs/vae", "--out", "vae.html"], folder));
    let html = std::fs::read_to_string(folder.join("vae.html")).unwrap();
    assert!(html.contains("samples from the prior") && html.contains("data:image/png;base64") && html.contains("±"));
    // The trained encoder is an encoder of another run.
    let other = "task = \"representation\"\n[data]\nmanifest = \"data.jsonl\"\ncolumns = { modalities = { image = \"image\", text = \"text\" } }\nsplit = { column = \"split\" }\n\
        [inputs.image]\nkind = \"features\"\nencoder = { kind = \"learned\", run = \"runs/vae/seed-0\" }\n[inputs.text]\nkind = \"bag_of_words\"\nmin_df = 1\n\
        [model]\nkind = \"multimodal_vae\"\njoint_posterior = \"product_of_experts\"\nlatent_dim = 2\n[train]\nepochs = 2\n";
    workspace.write("both.toml", other);
    ok(&mm(&["train", "both.toml", "--out", "runs/both"], folder));
    let table = ok(&mm(&["eval", "--model", "runs/both"], folder));
    assert!(table.contains("translation_mse (text_to_image)") && table.contains("nearest_neighbor"), "{table}");
    let embed = ["embed", "--model", "runs/both", "--text", "a dog", "--image", "0.png", "--json"];
    assert_eq!(json_lines(&mm(&embed, folder)).len(), 2);
    refused(&["embed", "--model", "runs/both", "--audio", "0.wav"], folder, &["audio", "image, text"]);
    for (change, wanted) in [
        ("model.kind=vea", "known are acmr"),
        ("model.latent_dim=0", "model.latent_dim"),
        ("inputs.image.image_size=2", "4 to 512"),
        ("inputs.image.kind=picture", "inputs.image"),
        ("inputs.image.kind=vector", "inputs.image"),
        ("model.network.channels=[4,4,4,4]", "multiples of 16"),
        ("data.columns.modalities={voice='nothing'}", "no column `nothing`"),
        ("task=representatoin", "did you mean `representation`"),
    ] {
        refused(&["train", "vae.toml", "--set", change, "--out", "runs/none"], folder, &[wanted]);
        assert!(!folder.join("runs/none").exists(), "{change}");
    }
}
