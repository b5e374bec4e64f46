//! `mm similarity`: how alike values are.

use crate::{Context, embed, output};
use anyhow::{Result, bail};
use mm_core::Tensor;
use mm_repr::{Pretrained, locate};
use serde_json::json;
use std::path::{Path, PathBuf};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// A checkpoint folder, or the name of a fetched model.
    #[arg(long, value_name = "DIR|NAME")]
    model: PathBuf,
    #[command(flatten)]
    values: embed::Values,
    /// The first with the second, the third with the fourth …, instead of each with each.
    #[arg(long)]
    pairs: bool,
    #[command(flatten)]
    numbers: embed::Numbers,
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<()> {
    let values = &arguments.values.0;
    if values.len() < 2 {
        bail!("found {} value(s), wanted at least two; give --text, --image, --audio or --video", values.len());
    }
    if arguments.pairs && values.len() % 2 == 1 {
        bail!("--pairs: found {} values, wanted an even number: the last has no partner", values.len());
    }
    let model = Pretrained::load_with(&locate(&arguments.model, Path::new(".")), arguments.numbers.options(context)?)?;
    let vectors = embed::together(&model, values, None)?;
    embed::tell_cuts(&model);
    let all = Tensor::cat(&vectors.iter().collect::<Vec<_>>(), 0)?.normalize()?;
    let cosines = all.matmul(&all.transpose(0, 1)?)?.to_vec::<f32>()?;
    let count = values.len();
    let between = |a: usize, b: usize| cosines[a * count + b];
    if arguments.pairs || count == 2 {
        for a in (0..count).step_by(2) {
            let (first, second, cosine) = (&values[a].1, &values[a + 1].1, between(a, a + 1));
            if context.json {
                output::line(json!({"a": first, "b": second, "similarity": cosine}));
            } else {
                output::line(format!("{cosine:7.4}  {first}  |  {second}"));
            }
        }
        return Ok(());
    }
    if context.json {
        for (a, (kind, value)) in values.iter().enumerate() {
            let row: Vec<f32> = (0..count).map(|b| between(a, b)).collect();
            output::line(json!({"input": value, "modality": kind, "similarities": row}));
        }
        return Ok(());
    }
    let head = std::iter::once(String::new()).chain((1..=count).map(|n| n.to_string())).collect();
    let row = |(a, (_, value)): (usize, &(&str, String))| {
        let name = format!("{} {}", a + 1, value.chars().take(40).collect::<String>());
        std::iter::once(name).chain((0..count).map(|b| format!("{:.3}", between(a, b)))).collect()
    };
    let rows: Vec<Vec<String>> = std::iter::once(head).chain(values.iter().enumerate().map(row)).collect();
    output::table(&rows);
    Ok(())
}
