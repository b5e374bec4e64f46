//! `mm data`: public data sets in the cache, and `WebDataset` shards.

use crate::{
    args::{columns::TableArgs, sources},
    context::Context,
    exit::usage,
    output,
    progress::ItemProgress,
};
use anyhow::{Context as _, Result, bail};
use mm_core::seed::Rng;
use mm_data::{ColumnInference, Manifest, ShardLimits, write_shards};
use mm_hub::registry::{self, Kind};
use serde_json::json;
use std::path::{Path, PathBuf};

/// Fetch public data sets into the cache, list those that mm knows, and write data sets as WebDataset shards
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  mm data list\n  mm data fetch emoji\n  mm data shard --data photos.jsonl --out shards/photos --max-rows 10000"
)]
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
    /// Write a data set as WebDataset shards: tar archives with an image, a text and the other cells of each row
    #[command(
        after_help = "Example:\n  mm data shard --data photos.jsonl --out shards/photos --max-rows 10000 --seed 0\n  mm inspect 'shards/photos-{000000..000009}.tar'"
    )]
    Shard(ShardArgs),
}

#[derive(clap::Args)]
struct ShardArgs {
    /// The manifest (JSONL, CSV, TSV, Parquet or other shards).
    #[arg(long, value_name = "FILE")]
    data: PathBuf,
    /// Where the shards go, without their number: shards/photos becomes shards/photos-000000.tar and so on. May begin
    /// with s3://BUCKET/, gs://BUCKET/ or az://CONTAINER/.
    #[arg(long, value_name = "PREFIX")]
    out: PathBuf,
    /// Most rows of a shard.
    #[arg(long, value_name = "N", default_value_t = ShardLimits::default().max_rows as u64, value_parser = clap::value_parser!(u64).range(1..))]
    max_rows: u64,
    /// Most bytes of a shard.
    #[arg(long, value_name = "N", default_value_t = ShardLimits::default().max_bytes)]
    max_bytes: u64,
    /// Shuffle the rows with this seed, for programs that read shards from start to end [default: as they are].
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    #[command(flatten)]
    table: TableArgs,
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
        Command::Shard(arguments) => shard(arguments, context),
    }
}

fn shard(arguments: &ShardArgs, context: &Context) -> Result<()> {
    let ShardArgs { data, out, max_rows, max_bytes, seed, table } = arguments;
    let given = out.display().to_string();
    if out.file_name().is_none() || given.ends_with(std::path::is_separator) {
        let example = out.join("photos");
        usage!(
            "--out: found {given}, a folder; expected the beginning of the names of the shards, such as {} for photos-000000.tar in it",
            example.display()
        );
    }
    if mm_data::is_remote(out) && out.components().count() < 3 {
        usage!(
            "--out: found {}, expected a bucket and the beginning of a file name: s3://BUCKET/PREFIX",
            out.display()
        );
    }
    let recognize = |column: &str, cells: &[&serde_json::Value]| context.modality_of_column(column, cells);
    let inference = ColumnInference { modalities: None, recognize: Some(&recognize) };
    let manifest = Manifest::open_inferring(&table.config(data, &[]), Path::new("."), &inference)?;
    if let Some(folder) = out.parent().filter(|folder| !folder.as_os_str().is_empty() && !mm_data::is_remote(out)) {
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    let mut rows: Vec<usize> = (0..manifest.rows.len()).collect();
    if let Some(seed) = seed {
        Rng::new(&[*seed]).shuffle(&mut rows);
    }
    let limits = ShardLimits { max_rows: *max_rows as usize, max_bytes: *max_bytes };
    let mut progress = ItemProgress::new();
    let written = write_shards(&manifest, &rows, out, limits, &mut |done, all| progress.update("rows", done, all))?;
    progress.finish();
    let failed: Vec<String> = written.failed.iter().map(|(id, reason)| format!("{id}: {reason}")).collect();
    output::warnings(failed.iter());
    if written.files.is_empty() {
        bail!("{}: none of its {} rows can be written; there is no shard", data.display(), rows.len());
    }
    if written.languages > 0 {
        output::warning(format!("shards do not hold the language of a value; {} values have one", written.languages));
    }
    for column in &written.left_out {
        output::warning(format!(
            "column `{column}`: its files are values of no modality and are left out; name their modality with --column MODALITY={column}"
        ));
    }
    let last = written.files.len().saturating_sub(1);
    let pattern = format!("{}-{{000000..{last:06}}}.tar", out.display());
    if context.json {
        let examples: Vec<&String> = failed.iter().take(20).collect();
        output::line(json!({
            "out": pattern, "shards": written.files.len(), "rows": written.rows,
            "failed": {"count": failed.len(), "examples": examples},
        }));
    } else {
        output::line(format!("{pattern}: {} rows in {} shards", written.rows, written.files.len()));
    }
    Ok(())
}
