//! `mm audit`: which pairs of a data set are probably wrong.

use crate::{
    args::{
        columns::TableArgs,
        dtype::DtypeArgs,
        model::{is_run, locate},
        output_path::local_path,
    },
    context::Context,
    exit::usage,
    output,
    progress::ItemProgress,
};
use anyhow::{Result, bail};
use mm_core::{Modality, Source, Tensor};
use mm_data::{ColumnInference, Manifest, ManifestConfig, SplitConfig};
use mm_repr::Pretrained;
use mm_tasks::audit::{Audit, ProblemKind, audit, audit_page, rows_to_keep};
use serde_json::json;
use std::path::{Path, PathBuf};

/// Find pairs of a data set that are probably mismatched, duplicates, leaked between splits, or unreadable
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  mm audit --data pairs.jsonl --model openai/clip-vit-base-patch32 --report audit.html\n  mm audit --data pairs.jsonl --model efficientnet-lite0 --model all-MiniLM-L6-v2\n  mm audit --data stamps.jsonl --model runs/stamps --language en --group-column group --clean clean.jsonl"
)]
pub(crate) struct Arguments {
    /// Manifest of the pairs.
    #[arg(long, value_name = "FILE")]
    data: PathBuf,
    /// Model that scores the pairs: a run, or a dual encoder (CLIP, SigLIP, CLAP …). Given twice, one encoder for each
    /// modality; their features are aligned on the pairs themselves.
    #[arg(long, value_name = "MODEL", required = true)]
    model: Vec<PathBuf>,
    /// Modality of the pairs; give the option twice [default: image and text].
    #[arg(long, value_name = "NAME")]
    modality: Vec<String>,
    /// Column whose equal values must be in one split.
    #[arg(long, value_name = "COLUMN")]
    group_column: Option<String>,
    /// Column with the split of each row: train, valid or test.
    #[arg(long, value_name = "COLUMN")]
    split_column: Option<String>,
    /// Language of the texts to audit; may be repeated [default: all].
    #[arg(long, value_name = "LANGUAGE")]
    language: Vec<String>,
    #[command(flatten)]
    dtype: DtypeArgs,
    #[command(flatten)]
    table: TableArgs,
    /// File for the scores: one JSON line a row, the worst first.
    #[arg(long, value_name = "FILE.jsonl", help_heading = "Output", value_parser = local_path())]
    out: Option<PathBuf>,
    /// File for the manifest without the rows that have problems.
    #[arg(long, value_name = "FILE.jsonl", help_heading = "Output", value_parser = local_path())]
    clean: Option<PathBuf>,
    /// Fraction of the rows, the most mismatched, that --clean removes.
    #[arg(long, value_name = "FRACTION", default_value_t = 0.05, help_heading = "Output")]
    remove_fraction: f64,
    /// HTML page with the worst rows and their images.
    #[arg(long, value_name = "FILE.html", help_heading = "Output", value_parser = local_path())]
    report: Option<PathBuf>,
}

impl Arguments {
    fn modalities(&self) -> Result<[Modality; 2]> {
        match self.modality.as_slice() {
            [] => Ok([Modality::IMAGE, Modality::TEXT]),
            [a, b] => Ok([Modality::from(a.as_str()), Modality::from(b.as_str())]),
            found => usage!("--modality: found {} names, expected two", found.len()),
        }
    }

    fn manifest(&self, context: &Context) -> Result<Manifest> {
        let split = SplitConfig {
            column: self.split_column.clone(),
            group: self.group_column.as_deref().map(Into::into),
            ..SplitConfig::default()
        };
        let config = ManifestConfig { split, ..self.table.config(&self.data, &[]) };
        let pair = self.modalities()?;
        let pair = [pair[0].name(), pair[1].name()];
        let recognize = |column: &str, cells: &[&serde_json::Value]| context.modality_of_column(column, cells);
        let inference = ColumnInference { modalities: Some(&pair), recognize: Some(&recognize) };
        let mut manifest = Manifest::open_inferring(&config, Path::new("."), &inference)?;
        for row in &mut manifest.rows {
            row.retain_languages(&Modality::TEXT, &self.language);
        }
        Ok(manifest)
    }
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<()> {
    let modalities = arguments.modalities()?;
    if !(0.0..1.0).contains(&arguments.remove_fraction) {
        usage!("--remove-fraction: found {}, expected a fraction in [0, 1)", arguments.remove_fraction);
    }
    if arguments.clean.is_some() && arguments.data.extension().is_none_or(|e| e != "jsonl") {
        usage!("--clean: works on JSON lines, which {} is not; --out lists its rows", arguments.data.display());
    }
    let manifest = arguments.manifest(context)?;
    let found = score(&manifest, &modalities, arguments, context)?;
    write(arguments, &manifest, &found)?;
    let unreadable = found.rows.iter().filter(|r| r.has(ProblemKind::Unreadable)).count();
    let flagged = found.rows.iter().filter(|v| !v.problems.is_empty()).count();
    if context.json {
        output::line(json!({
            "rows": found.rows.len(), "incomplete": found.skipped, "unreadable": unreadable, "flagged": flagged,
            "results": found.rows.iter().take(20).collect::<Vec<_>>(),
        }));
        return Ok(());
    }
    output::line(format!(
        "{} pairs scored, {unreadable} unreadable, {} more with a definite problem, {} rows without both modalities",
        found.rows.len() - unreadable,
        flagged - unreadable,
        found.skipped
    ));
    let mut table = vec![["row", "id", "mismatch", "similarity", "loss", "problems"].map(ToOwned::to_owned).to_vec()];
    for row in found.rows.iter().take(20) {
        let problems: Vec<String> = row.problems.iter().map(ToString::to_string).collect();
        table.push(vec![
            row.row.to_string(),
            row.id.clone(),
            format!("{:.3}", row.mismatch),
            format!("{:.3}", row.similarity),
            format!("{:.2}", row.loss),
            problems.join("; ").chars().take(80).collect(),
        ]);
    }
    output::table(&table);
    Ok(())
}

/// Scores the pairs with a run, a dual encoder, or one encoder for each modality.
fn score(manifest: &Manifest, modalities: &[Modality; 2], arguments: &Arguments, context: &Context) -> Result<Audit> {
    let mut progress = ItemProgress::new();
    let on_progress = &mut |label: &str, done, total| progress.update(label, done, total);
    let options = || arguments.dtype.load_options(context);
    let pair = [&modalities[0], &modalities[1]];
    let found = match arguments.model.as_slice() {
        [model] if is_run(&locate(model)?) => {
            let run = context.tasks()?.load(&locate(model)?)?;
            let embed = |m: &Modality, s: &[Source]| -> mm_tasks::Result<Tensor> { run.embedder()?.embed(m, s) };
            audit(manifest, pair, &embed, false, on_progress)?
        }
        [model] => {
            let dual = Pretrained::load_with(&locate(model)?, options()?)?;
            if dual.contrastive_head.is_none() {
                bail!(
                    "--model {}: embeds one modality; expected a dual encoder (CLIP, SigLIP, CLAP), a run, or --model twice",
                    model.display()
                );
            }
            let embed = |m: &Modality, s: &[Source]| -> mm_tasks::Result<Tensor> { Ok(dual.embed(m, s, None)?) };
            audit(manifest, pair, &embed, false, on_progress)?
        }
        [first, second] => {
            let encoders = [
                Pretrained::load_with(&locate(first)?, options()?)?,
                Pretrained::load_with(&locate(second)?, options()?)?,
            ];
            let embed = |m: &Modality, s: &[Source]| -> mm_tasks::Result<Tensor> {
                Ok(encoders[usize::from(*m != modalities[0])].embed(m, s, None)?)
            };
            audit(manifest, pair, &embed, true, on_progress)?
        }
        found => usage!("--model: found {} models, expected one or two", found.len()),
    };
    progress.finish();
    Ok(found)
}

fn write(arguments: &Arguments, manifest: &Manifest, found: &Audit) -> Result<()> {
    if let Some(out) = &arguments.out {
        let text: Result<Vec<String>, _> = found.rows.iter().map(serde_json::to_string).collect();
        mm_core::checkpoint::write_atomic(out, (text?.join("\n") + "\n").as_bytes())?;
    }
    if let Some(out) = &arguments.report {
        mm_core::checkpoint::write_atomic(out, audit_page(found, manifest, 60)?.as_bytes())?;
    }
    let Some(out) = &arguments.clean else { return Ok(()) };
    let text = std::fs::read_to_string(&arguments.data)?;
    let lines: Vec<&str> = text.lines().filter(|l| !l.trim().is_empty()).collect();
    let kept = rows_to_keep(found, arguments.remove_fraction);
    let kept: Vec<&str> = kept.iter().filter_map(|row| lines.get(row - 1).copied()).collect();
    mm_core::checkpoint::write_atomic(out, (kept.join("\n") + "\n").as_bytes())?;
    Ok(())
}
