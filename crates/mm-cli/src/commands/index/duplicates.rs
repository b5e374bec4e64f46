//! `mm index duplicates`.

use super::chosen_vector;
use crate::{
    args::{limit::Limit, store::StoreArgs},
    context::{Context, stop_on_interrupt},
    exit::interrupted,
    output,
    progress::ItemProgress,
};
use anyhow::Result;
use mm_index::Error;
use serde_json::json;

#[derive(clap::Args)]
pub(super) struct Duplicates {
    #[command(flatten)]
    store: StoreArgs,
    /// Modality whose vectors are compared [default: the store's only one].
    #[arg(long, value_name = "NAME")]
    modality: Option<String>,
    /// Minimum cosine similarity (-1 to 1) of two rows that count as nearly the same.
    #[arg(long, value_name = "SIMILARITY", default_value_t = 0.95)]
    threshold: f64,
    /// Number of groups, the largest first, or all.
    #[arg(long, value_name = "N|all", default_value = "all")]
    k: Limit,
}

pub(super) fn duplicates(arguments: &Duplicates, context: &Context) -> Result<()> {
    let store = arguments.store.open()?;
    let vector = chosen_vector(store.as_ref(), arguments.modality.as_deref())?;
    let stop = stop_on_interrupt("these rows")?;
    let mut progress = ItemProgress::new();
    let on_progress = &mut |name: &str, done, total| progress.update(&format!("comparing {name}"), done, total);
    let groups = mm_index::duplicates(store.as_ref(), &vector, arguments.threshold, &stop, on_progress);
    progress.finish();
    let groups = match groups {
        Err(Error::Stopped { done, total }) => {
            interrupted!("{done} of {total} rows were compared; nothing was changed")
        }
        groups => groups?,
    };
    for group in groups.iter().take(arguments.k.get()) {
        if context.json {
            output::line(json!({"similarity": group.similarity, "ids": group.ids}));
        } else {
            output::line(format!("{:.3}  {}", group.similarity, output::one_line(&group.ids.join("  "))));
        }
    }
    if !context.json {
        let rows: usize = groups.iter().map(|group| group.ids.len()).sum();
        output::line(format!("{} groups of {rows} rows", groups.len()));
    }
    Ok(())
}
