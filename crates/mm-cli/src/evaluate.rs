//! `mm eval`: measures a run on held-out data.

use crate::{Context, output, progress::Steps};
use anyhow::Result;
use mm_data::Split;
use mm_tasks::retrieval::{Retrieval, evaluate};
use std::{path::PathBuf, sync::Arc};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The run folder.
    run: PathBuf,
    /// The side to measure on: train, valid or test.
    #[arg(long, default_value = "test")]
    split: Split,
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<()> {
    let model = Retrieval::load(&arguments.run, &mm_tasks::registry(), context.device()?)?;
    let manifest = Arc::new(model.manifest()?);
    let mut steps = Steps::new();
    let embedded = model.embed_side(&manifest, arguments.split, &mut |what, done, of| steps.tell(what, done, of))?;
    steps.end();
    let evaluation = evaluate(&embedded, arguments.split)?;
    let text = serde_json::to_string(&evaluation)?;
    // Kept beside the run, where it may be; reading a run that belongs to somebody else is fine too.
    let file = arguments.run.join(format!("evaluation-{}.json", arguments.split));
    if let Err(error) = mm_core::checkpoint::write_file(&file, text.as_bytes()) {
        tracing::warn!("not kept: {error}");
    }
    if context.json {
        output::line(text);
        return Ok(());
    }
    let head = ["direction", "R@1", "R@5", "R@10", "median rank", "mAP", "chance R@10", "queries", "candidates"];
    let mut rows = vec![head.map(ToOwned::to_owned).to_vec()];
    for (direction, m) in &evaluation.directions {
        let [one, five, ten] = m.recall.map(|v| format!("{v:.3}"));
        rows.push(vec![
            direction.clone(),
            one,
            five,
            ten,
            format!("{:.1}", m.median_rank),
            format!("{:.3}", m.map),
            format!("{:.3}", m.chance[2]),
            m.queries.to_string(),
            m.gallery.to_string(),
        ]);
    }
    output::table(&rows);
    Ok(())
}
