//! `mm index clusters`.

use super::chosen_vector;
use crate::{
    args::{output_path::local_path, store::StoreArgs},
    context::{Context, stop_on_interrupt},
    exit::interrupted,
    output,
    progress::ItemProgress,
};
use anyhow::Result;
use mm_core::checkpoint::write_atomic;
use mm_tasks::{
    Error,
    indexing::{ClusterOptions, Clustering, cluster, clusters_page},
};
use serde_json::json;
use std::path::PathBuf;

#[derive(clap::Args)]
pub(super) struct Clusters {
    #[command(flatten)]
    store: StoreArgs,
    /// Number of clusters.
    #[arg(long, value_name = "N", default_value_t = 10)]
    k: usize,
    /// Modality whose vectors are compared [default: the store's only one].
    #[arg(long, value_name = "NAME")]
    modality: Option<String>,
    /// Rows nearest to its centroid to show of each cluster.
    #[arg(long, value_name = "N", default_value_t = 8)]
    examples: usize,
    /// Seed of the sample and of the first centroids.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Write the cluster of each vector to this file, one JSON line each (.jsonl).
    #[arg(long, value_name = "FILE", value_parser = local_path())]
    out: Option<PathBuf>,
    /// Write a page with the rows nearest to the centroid of each cluster (.html).
    #[arg(long, value_name = "FILE", value_parser = local_path())]
    report: Option<PathBuf>,
}

pub(super) fn clusters(arguments: &Clusters, context: &Context) -> Result<()> {
    let store = arguments.store.open()?;
    let vector = chosen_vector(store.as_ref(), arguments.modality.as_deref())?;
    let options = ClusterOptions { k: arguments.k, seed: arguments.seed, examples: arguments.examples };
    let stop = stop_on_interrupt("these rows")?;
    let mut progress = ItemProgress::new();
    let found =
        cluster(store.as_ref(), &vector, &options, &stop, &mut |step, done, total| progress.update(step, done, total));
    progress.finish();
    let found = match found {
        Err(Error::Index(mm_index::Error::Stopped { .. })) => interrupted!("nothing was written"),
        found => found?,
    };
    if let Some(out) = &arguments.out {
        write_assignments(out, &found)?;
    }
    if let Some(report) = &arguments.report {
        write_atomic(report, clusters_page(&found)?.as_bytes())?;
        output::note(format!("{}: the clusters as a page", report.display()));
    }
    for (number, cluster) in found.clusters.iter().enumerate() {
        let ids: Vec<&str> = cluster.examples.iter().map(|hit| hit.id.as_str()).collect();
        if context.json {
            output::line(
                json!({"cluster": number, "vectors": cluster.vectors, "score": cluster.score, "examples": ids}),
            );
        } else {
            output::line(format!(
                "{number}: {} vectors, mean score {:.3}: {}",
                cluster.vectors,
                cluster.score,
                output::one_line(&ids.join("  "))
            ));
        }
    }
    if context.json && (arguments.out.is_some() || arguments.report.is_some()) {
        let path = |path: &Option<PathBuf>| path.as_deref().map(output::path);
        output::line(json!({"out": path(&arguments.out), "report": path(&arguments.report)}));
    }
    Ok(())
}

fn write_assignments(out: &std::path::Path, found: &Clustering) -> Result<()> {
    let line = |row: &mm_tasks::indexing::Assignment| {
        format!("{}\n", json!({"id": row.id, "value": row.value, "cluster": row.cluster, "score": row.score}))
    };
    let text: String = found.assignments.iter().map(line).collect();
    Ok(write_atomic(out, text.as_bytes())?)
}
