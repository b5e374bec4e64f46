//! `mm diagnose`: what is wrong between two modalities' embeddings.

use crate::{Context, align::pairs, output};
use anyhow::Result;
use mm_tasks::report::{cure_table, diagnose, diagnosis_page};
use std::path::PathBuf;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Embeddings of the first modality: .npy, [rows, width].
    #[arg(long, value_name = "FILE")]
    a: PathBuf,
    /// Embeddings of the second, row for row, of the same width.
    #[arg(long, value_name = "FILE")]
    b: PathBuf,
    /// A page with the figures and both modalities on a plane.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<()> {
    let both = pairs(&arguments.a, &arguments.b, None)?;
    let found = diagnose(&both.a, &both.b)?;
    if let Some(out) = &arguments.report {
        mm_core::checkpoint::write_file(out, diagnosis_page(&found, &both.a, &both.b)?.as_bytes())?;
    }
    if context.json {
        output::line(serde_json::to_string(&found)?);
        return Ok(());
    }
    for finding in &found.findings {
        output::line(finding);
    }
    output::line(format!(
        "centres {:.3} apart, cones {:.0}° and {:.0}°, alignment {:.3}, uniformity {:.3}, effective ranks {:.1} and {:.1} of {}",
        found.centroid_distance,
        found.cone_angles[0],
        found.cone_angles[1],
        found.alignment,
        found.uniformity,
        found.effective_ranks[0],
        found.effective_ranks[1],
        found.width
    ));
    output::table(&cure_table(&found));
    if let Some(out) = &arguments.report {
        output::line(format!("{}: open it in a browser", out.display()));
    }
    Ok(())
}
