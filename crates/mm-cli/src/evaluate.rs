//! `mm eval`: measures a run on held-out data.

use crate::{Context, output, progress::Steps};
use anyhow::Result;
use mm_data::Split;
use mm_tasks::job::Job;
use std::path::PathBuf;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The run folder.
    run: PathBuf,
    /// The side to measure on: train, valid or test.
    #[arg(long, default_value = "test")]
    split: Split,
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<()> {
    let registry = mm_tasks::registry();
    let model = Job::load(&arguments.run, &registry, context.device()?)?;
    let mut steps = Steps::new();
    let told = &mut |what: &str, done, of| steps.tell(what, done, of);
    let evaluated = model.evaluate(&arguments.run, arguments.split, &registry, told)?;
    steps.end();
    let text = serde_json::to_string(&evaluated.json)?;
    // Kept beside the run, where it may be; reading a run that belongs to somebody else is fine too.
    let file = arguments.run.join(format!("evaluation-{}.json", arguments.split));
    if let Err(error) = mm_core::checkpoint::write_file(&file, text.as_bytes()) {
        tracing::warn!("not kept: {error}");
    }
    if context.json {
        output::line(text);
    } else {
        output::table(&evaluated.table);
    }
    Ok(())
}
