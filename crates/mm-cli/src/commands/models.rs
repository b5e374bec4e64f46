//! `mm models`: pretrained weights in the cache.

use crate::{args::sources, context::Context, output};
use anyhow::Result;
use mm_hub::registry::{self, Kind};
use serde_json::json;

/// Fetch pretrained weights into the cache, and list those that mm knows
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  mm models list\n  mm models pull all-MiniLM-L6-v2")]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Download weights: a name of mm's list into its cache, or ORG/NAME[@REVISION] of the Hugging Face Hub into the
    /// cache of Python's huggingface_hub
    ///
    /// HF_HOME, HF_HUB_CACHE, HF_ENDPOINT, HF_TOKEN and HF_HUB_OFFLINE are read as huggingface_hub reads them. An
    /// interrupted download is resumed.
    #[command(
        after_help = "Examples:\n  mm models pull all-MiniLM-L6-v2\n  mm models pull openai/clip-vit-base-patch32\n  mm models pull google/vit-base-patch16-224@main"
    )]
    Pull {
        /// The name of the model.
        name: String,
    },
    /// List the models that mm knows, and whether they are in the cache
    #[command(after_help = "Example:\n  mm models list --json")]
    List,
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<()> {
    sources::prepare();
    match &arguments.command {
        Command::Pull { name } => {
            let path = registry::pull(name)?;
            if context.json {
                output::line(json!({ "name": name, "path": output::path(&path) }));
            } else {
                output::line(path.display());
            }
            Ok(())
        }
        Command::List => sources::list(Kind::Models, context.json),
    }
}
