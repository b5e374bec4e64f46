//! `mm diagnose`: the modality gap, hubness and collapse of two arrays of embeddings.

use crate::{args::output_path::local_path, commands::align::warn_missing, context::Context, output};
use anyhow::Result;
use mm_tasks::{
    alignment::read_paired_arrays,
    report::{correction_table, diagnose, diagnosis_page},
};
use std::path::PathBuf;

/// Diagnose two modalities' embeddings (modality gap, hubness, collapse) and what each mitigation changes
#[derive(clap::Args)]
#[command(after_help = "Example:\n  mm diagnose --a images.npy --b captions.npy --report diagnosis.html")]
pub(crate) struct Arguments {
    /// Embeddings of the first modality: .npy, [rows, dim].
    #[arg(long, value_name = "FILE.npy")]
    a: PathBuf,
    /// Embeddings of the second modality: same rows, same dimension.
    #[arg(long, value_name = "FILE.npy")]
    b: PathBuf,
    /// HTML page with the metrics and a projection of both modalities.
    #[arg(long, value_name = "FILE.html", value_parser = local_path())]
    report: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<()> {
    let read = read_paired_arrays(&arguments.a, &arguments.b, None)?;
    warn_missing(read.missing);
    let pairs = read.pairs;
    let diagnosis = diagnose(&pairs.a, &pairs.b)?;
    if let Some(report) = &arguments.report {
        mm_core::checkpoint::write_atomic(report, diagnosis_page(&diagnosis, &pairs.a, &pairs.b)?.as_bytes())?;
    }
    if context.json {
        let mut line = serde_json::to_value(&diagnosis)?;
        line["missing"] = read.missing.into();
        output::line(line);
        return Ok(());
    }
    for finding in &diagnosis.findings {
        output::line(finding);
    }
    output::line(format!(
        "distance of the centroids {:.3}, cone angles {:.0}° and {:.0}°, alignment {:.3}, uniformity {:.3}, effective ranks {:.1} and {:.1} of {}",
        diagnosis.centroid_distance,
        diagnosis.cone_angle_degrees[0],
        diagnosis.cone_angle_degrees[1],
        diagnosis.alignment,
        diagnosis.uniformity,
        diagnosis.effective_rank[0],
        diagnosis.effective_rank[1],
        diagnosis.dim
    ));
    output::table(&correction_table(&diagnosis));
    if let Some(report) = &arguments.report {
        output::line(format!("report: {}", report.display()));
    }
    Ok(())
}
