//! `mm similarity`: cosine similarity of raw values.

use crate::{
    args::{
        dtype::DtypeArgs,
        files::{InputArgs, InputValue},
        model::ModelArgs,
    },
    commands::embed,
    context::Context,
    exit::usage,
    output,
};
use anyhow::Result;
use mm_core::Tensor;
use mm_repr::Pretrained;
use serde_json::json;

/// Compute the cosine similarity of texts, images, audio or video, pairwise or as a matrix
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  mm similarity --model all-MiniLM-L6-v2 --text \"a dog\" --text \"a puppy\"\n  mm similarity --model openai/clip-vit-base-patch32 --text \"a dog\" --text \"a cat\" --image photo.jpg\n  mm similarity --model all-MiniLM-L6-v2 --pairs --text a --text b --text c --text d --json"
)]
pub(crate) struct Arguments {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    inputs: InputArgs,
    /// Compare the first input with the second, the third with the fourth …, instead of each with each.
    #[arg(long)]
    pairs: bool,
    #[command(flatten)]
    dtype: DtypeArgs,
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<()> {
    let inputs = &arguments.inputs.0;
    if inputs.len() < 2 {
        usage!(
            "found {} input(s), expected at least two; give --text, --image, --audio, --video or --input",
            inputs.len()
        );
    }
    if arguments.pairs && inputs.len() % 2 == 1 {
        usage!("--pairs: found {} inputs, expected an even number", inputs.len());
    }
    let model = Pretrained::load_with(&arguments.model.dir()?, arguments.dtype.load_options(context)?)?;
    let vectors = embed::embed_in_order(&model, inputs, None)?;
    embed::warn_truncated(&model);
    let all = Tensor::cat(&vectors.iter().collect::<Vec<_>>(), 0)?.normalize()?;
    let cosines = all.matmul(&all.transpose(0, 1)?)?.to_vec::<f32>()?;
    let rows: Vec<&[f32]> = cosines.chunks(inputs.len()).collect();
    if arguments.pairs || inputs.len() == 2 {
        print_pairs(inputs, &rows, context);
    } else {
        print_matrix(inputs, &rows, context);
    }
    Ok(())
}

fn print_pairs(inputs: &[InputValue], cosines: &[&[f32]], context: &Context) {
    for (pair, row) in inputs.chunks(2).zip((0..inputs.len()).step_by(2)) {
        let (a, b, cosine) = (&pair[0].value, &pair[1].value, cosines[row][row + 1]);
        if context.json {
            output::line(json!({"input": [a, b], "similarity": cosine}));
        } else {
            output::line(format!("{cosine:7.4}  {a}  |  {b}"));
        }
    }
}

fn print_matrix(inputs: &[InputValue], cosines: &[&[f32]], context: &Context) {
    if context.json {
        for (input, row) in inputs.iter().zip(cosines) {
            output::line(json!({"input": input.value, "modality": input.kind, "similarities": row}));
        }
        return;
    }
    let head = std::iter::once(String::new()).chain((1..=inputs.len()).map(|n| n.to_string())).collect();
    let mut table: Vec<Vec<String>> = vec![head];
    for (index, (input, row)) in inputs.iter().zip(cosines).enumerate() {
        let name = format!("{} {}", index + 1, input.value.chars().take(40).collect::<String>());
        table.push(std::iter::once(name).chain(row.iter().map(|c| format!("{c:.3}"))).collect());
    }
    output::table(&table);
}
