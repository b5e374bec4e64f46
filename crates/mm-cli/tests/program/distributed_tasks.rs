//! Further tasks in several processes: they learn the weights of one.

use crate::{
    common::{Workspace, fixture},
    datasets::color_images,
    distributed::{RETRIEVAL, compare_in, workspace},
    resume::tensors,
};

/// Nine rows for training and three for validation: an image of one color, a question, and its answer.
fn questions() -> Workspace {
    let workspace = Workspace::new();
    color_images(workspace.path(), [("train", 3), ("valid", 1)]);
    std::fs::rename(workspace.path().join("colors.jsonl"), workspace.path().join("data.jsonl")).unwrap();
    workspace
}

#[test]
fn rows_of_an_item_are_no_negatives_in_whichever_process_they_are() {
    let workspace = workspace();
    compare_in(&workspace, "retrieval", RETRIEVAL, 60, &["--set", "data.columns.item=kind"]);
    // With each row an item of its own, the weights are others.
    let with_items = tensors(&workspace.path().join("run-1"));
    for world_size in 1..=3 {
        std::fs::remove_dir_all(workspace.path().join(format!("run-{world_size}"))).unwrap();
    }
    compare_in(&workspace, "retrieval", RETRIEVAL, 60, &[]);
    assert!(with_items != tensors(&workspace.path().join("run-1")));
}

#[test]
fn fine_tuning_in_several_processes_learns_the_weights_of_one() {
    for (model, adapter) in [("vilt-vqa", ""), ("blip-vqa", ""), ("blip-vqa", "[adapter]\nrank = 4\n")] {
        let model = fixture("mm-reason", model).display().to_string();
        let own = format!(
            "model = {model:?}\nanswer_column = \"answer\"\nmax_length = 4\n\
             [data.columns.modalities]\ntext = \"text\"\nimage = \"image\"\n{adapter}"
        );
        compare_in(&questions(), "finetuning", &own, 40, &[]);
    }
}

#[test]
fn question_answering_in_several_processes_learns_the_weights_of_one() {
    let own = r#"label = "answer"
problem = "multiclass"
ensembling = "none"
dropout = 0.0
[data.columns.modalities]
text = "text"
image = "image"
[inputs.text]
encoder = { kind = "lstm", embedding_dim = 8, hidden_dim = 8 }
dropout = 0.0
[inputs.image]
encoder = { kind = "cnn", image_size = 16, channels = [8, 8], dropout = 0.0, jitter = 0.0 }
dropout = 0.0
[reasoning]
hidden_dim = 8
dropout = 0.0
network = { kind = "film", num_blocks = 2 }
"#;
    compare_in(&questions(), "prediction", own, 60, &[]);
    let mac = ["--set", "reasoning.network={kind=\"mac\",num_steps=2}"];
    compare_in(&questions(), "prediction", own, 40, &mac);
}
