//! `mm data`: public data sets in the cache.

use crate::{args::sources, context::Context, output};
use anyhow::Result;
use mm_hub::registry::{self, Kind};
use serde_json::json;

/// Fetch public data sets into the cache, and list those that mm knows
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  mm data list\n  mm data fetch emoji")]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Download a data set; `mm prepare` makes a manifest of it
    #[command(
        after_help = "Example:\n  mm data fetch emoji\n  mm prepare --dataset emoji --data ~/.cache/mm/data/emoji --out emoji.jsonl"
    )]
    Fetch {
        /// The name of the data set.
        name: String,
    },
    /// List the data sets that mm knows, and whether they are in the cache
    #[command(after_help = "Example:\n  mm data list --json")]
    List,
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<()> {
    sources::prepare();
    match &arguments.command {
        Command::Fetch { name } => {
            let path = registry::fetch(Kind::Data, name)?;
            if context.json {
                output::line(json!({ "name": name, "path": output::path(&path) }));
            } else {
                output::line(path.display());
            }
            Ok(())
        }
        Command::List => sources::list(Kind::Data, context.json),
    }
}
