//! `mm inspect`: what a data set holds.

use crate::{Context, output, speak};
use anyhow::Result;
use indicatif::{ProgressBar, ProgressDrawTarget};
use mm_core::{Modality, Source};
use mm_data::{
    Columns, Manifest, ManifestConfig, SplitConfig,
    decode::{ImageLimits, clean_text, decode_audio, decode_image, video_info},
};
use rayon::prelude::*;
use serde_json::json;
use std::{
    collections::BTreeMap,
    io::IsTerminal,
    path::{Path, PathBuf},
};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The manifest (.jsonl, .csv, .tsv or .parquet), or a checkpoint folder.
    data: PathBuf,
    /// Bind a column to a modality, for instance image=picture; guessed when absent.
    #[arg(long = "column", value_name = "MODALITY=COLUMN")]
    columns: Vec<String>,
    /// Encoding of the manifest, by its WHATWG name [default: utf-8].
    #[arg(long)]
    encoding: Option<String>,
    /// Do not open the files that the manifest names.
    #[arg(long)]
    no_files: bool,
    /// How many samples to show.
    #[arg(long, default_value_t = 3)]
    samples: usize,
}

struct Look {
    row: usize,
    id: String,
    modality: Modality,
    /// Width × height in pixels, seconds, or characters.
    size: Result<f64, String>,
}

/// Family, size, what it takes and gives, and which of its tensors are not needed; what is missing is the error of loading it.
fn model(folder: &Path, context: &Context) -> Result<()> {
    let place = mm_repr::ModelPaths::resolve(folder)?;
    let config = mm_repr::text::read_json(&place.files.join("config.json"))?;
    let kind = config["model_type"].as_str().unwrap_or_default();
    if mm_reason::families().contains(&kind) && !mm_repr::families().contains(&kind) {
        return speaker(folder, &place, context);
    }
    let model = match mm_repr::Pretrained::load(folder) {
        // A family that embeds and speaks (BLIP): this one of it may do the other alone.
        Err(_) if mm_reason::families().contains(&kind) => return speaker(folder, &place, context),
        other => other?,
    };
    let parameters = model.params.count(&[mm_core::Role::Frozen]);
    let takes: Vec<String> = model.modalities().iter().map(ToString::to_string).collect();
    let mut widths = BTreeMap::new();
    for modality in model.modalities() {
        widths.insert(modality.to_string(), model.tower(&modality)?.encoder.width());
    }
    if context.json {
        output::line(json!({
            "family": model.family, "parameters": parameters, "bytes": 4 * parameters, "takes": takes,
            "widths": widths, "joint": model.contrastive_head.is_some(), "unused": model.unexpected_keys, "adapter": place.adapter,
        }));
        return Ok(());
    }
    head(folder, &model.family, parameters, &place);
    for (modality, width) in widths {
        output::line(format!("  takes       {modality}, features {width} wide"));
    }
    if model.contrastive_head.is_some() {
        output::line("  joint       its modalities share one space (mm classify --labels)");
    }
    unused(&model.unexpected_keys);
    Ok(())
}

fn head(folder: &Path, family: &str, parameters: usize, place: &mm_repr::ModelPaths) {
    output::line(format!("{}: {family}", folder.display()));
    if place.adapter.is_some() {
        output::line(format!("  adapter     laid over {}", place.weights.display()));
    }
    output::line(format!(
        "  parameters  {:.1} million ({:.1} MB in float32)",
        parameters as f64 / 1e6,
        parameters as f64 * 4e-6
    ));
}

fn unused(names: &[String]) {
    output::line(format!("  unused      {} tensors{}", names.len(), if names.is_empty() { "" } else { ":" }));
    for name in names.iter().take(20) {
        output::line(format!("              {name}"));
    }
}

/// The same of a model that answers, describes or writes down.
fn speaker(folder: &Path, place: &mm_repr::ModelPaths, context: &Context) -> Result<()> {
    let model = mm_reason::Pipeline::load(folder, mm_repr::LoadOptions::default())?;
    let parameters = model.params.count(&[mm_core::Role::Frozen]);
    let kinds = [Modality::IMAGE, Modality::AUDIO, Modality::VIDEO];
    let takes: Vec<String> = kinds.iter().filter(|m| model.processor(m).is_ok()).map(ToString::to_string).collect();
    let gives = if model.can_generate() { "text" } else { "scores of its labels" };
    if context.json {
        output::line(json!({
            "family": model.family, "parameters": parameters, "bytes": 4 * parameters, "takes": takes, "gives": gives,
            "labels": if model.can_generate() { 0 } else { model.labels.len() }, "chats": model.tokenizer.has_chat_template(), "learns": true,
            "unused": model.unused, "adapter": place.adapter,
        }));
        return Ok(());
    }
    head(folder, model.family, parameters, place);
    output::line(format!("  takes       {} and text", takes.join(", ")));
    let labels = if model.can_generate() { String::new() } else { format!(" ({})", model.labels.len()) };
    output::line(format!("  gives       {gives}{labels}"));
    output::line("  learns      further, whole or by an adapter (task = \"finetuning\")");
    unused(&model.unused);
    Ok(())
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<()> {
    let folder = speak::folder(&arguments.data);
    if folder.is_dir() {
        return model(&folder, context);
    }
    let mut columns = Columns::default();
    for binding in &arguments.columns {
        let (modality, column) = binding
            .split_once('=')
            .ok_or_else(|| anyhow::anyhow!("--column {binding}: wanted MODALITY=COLUMN, for instance image=picture"))?;
        columns.modalities.insert(modality.to_owned(), column.into());
    }
    let config = ManifestConfig {
        manifest: arguments.data.clone(),
        columns,
        encoding: arguments.encoding.clone(),
        split: SplitConfig { test: 0.0, ..SplitConfig::default() },
        ..ManifestConfig::default()
    };
    let manifest = Manifest::open(&config, Path::new("."))?;
    let values: Vec<(usize, &Modality, &Source)> = manifest
        .rows
        .iter()
        .enumerate()
        .flat_map(|(row, r)| {
            r.values.iter().flat_map(move |(modality, sources)| sources.iter().map(move |s| (row, modality, s)))
        })
        .collect();
    let bar = ProgressBar::with_draw_target(
        Some(values.len() as u64),
        if std::io::stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() },
    );
    let looks: Vec<Look> = values
        .par_iter()
        .map(|(row, modality, source)| {
            bar.inc(1);
            let about = &manifest.rows[*row];
            Look {
                row: about.number,
                id: about.id.clone(),
                modality: (*modality).clone(),
                size: size(modality, source, arguments.no_files),
            }
        })
        .collect();
    bar.finish_and_clear();
    show(&manifest, &looks, arguments, context);
    Ok(())
}

fn size(modality: &Modality, source: &Source, no_files: bool) -> Result<f64, String> {
    match source {
        Source::Text(text) => clean_text(text).map(|t| t.chars().count() as f64),
        Source::Value(_) => Ok(1.0),
        Source::File(path) if no_files => {
            std::fs::metadata(path).map(|m| m.len() as f64).map_err(|e| format!("{}: {e}", path.display()))
        }
        Source::File(path) => match modality.name() {
            "image" => decode_image(path, &ImageLimits::default())
                .map(|p| f64::from(p.width()) * f64::from(p.height()))
                .map_err(|e| e.to_string()),
            "audio" => decode_audio(path, None).map(|a| a.seconds()).map_err(|e| e.to_string()),
            "video" => video_info(path).map_err(|e| e.to_string()).and_then(|i| {
                if i.has_video && i.seconds > 0.0 {
                    Ok(i.seconds)
                } else {
                    Err(format!("{}: a video without frames", path.display()))
                }
            }),
            _ => std::fs::metadata(path).map(|m| m.len() as f64).map_err(|e| format!("{}: {e}", path.display())),
        },
    }
}

fn unit(modality: &Modality, no_files: bool) -> &'static str {
    match modality.name() {
        "text" => "characters",
        _ if no_files => "bytes",
        "image" => "pixels",
        "audio" | "video" => "seconds",
        _ => "",
    }
}

fn show(manifest: &Manifest, looks: &[Look], arguments: &Arguments, context: &Context) {
    let broken: Vec<&Look> = looks.iter().filter(|l| l.size.is_err()).collect();
    let mut sizes: BTreeMap<&Modality, Vec<f64>> = BTreeMap::new();
    for look in looks {
        let entry = sizes.entry(&look.modality).or_default();
        if let Ok(size) = look.size {
            entry.push(size);
        }
    }
    sizes.values_mut().for_each(|v| v.sort_by(f64::total_cmp));
    let at = |values: &[f64], share: f64| {
        values.get(((values.len().saturating_sub(1)) as f64 * share).round() as usize).copied().unwrap_or(0.0)
    };
    let rows_with = |modality: &Modality| manifest.rows.iter().filter(|r| r.values.contains_key(modality)).count();
    if context.json {
        let modalities: serde_json::Map<String, serde_json::Value> = sizes
            .iter()
            .map(|(m, v)| {
                let column = manifest.columns.modalities.get(m.name());
                let figures = json!({"column": column, "rows": rows_with(m), "values": v.len(), "unit": unit(m, arguments.no_files), "least": at(v, 0.0), "median": at(v, 0.5), "most": at(v, 1.0)});
                (m.to_string(), figures)
            })
            .collect();
        let broken: Vec<_> = broken
            .iter()
            .map(|l| json!({"row": l.row, "id": l.id, "modality": l.modality.name(), "reason": l.size.as_ref().err()}))
            .collect();
        output::line(
            json!({"data": manifest.path, "rows": manifest.rows.len(), "modalities": modalities, "broken": broken}),
        );
        return;
    }
    output::line(format!("{}: {} rows", manifest.path.display(), manifest.rows.len()));
    let head = ["modality", "column", "rows", "values", "least", "median", "most", "", "broken"];
    let mut table = vec![head.map(ToOwned::to_owned).to_vec()];
    for (modality, values) in &sizes {
        let bad = broken.iter().filter(|l| l.modality == **modality).count();
        let number = |v: f64| if v >= 100.0 || v.fract() == 0.0 { format!("{v:.0}") } else { format!("{v:.2}") };
        let column = manifest.columns.modalities.get(modality.name()).map(ToString::to_string).unwrap_or_default();
        table.push(vec![
            modality.to_string(),
            column,
            rows_with(modality).to_string(),
            values.len().to_string(),
            number(at(values, 0.0)),
            number(at(values, 0.5)),
            number(at(values, 1.0)),
            unit(modality, arguments.no_files).into(),
            bad.to_string(),
        ]);
    }
    output::table(&table);
    for row in manifest.rows.iter().take(arguments.samples) {
        output::line("");
        output::line(format!("{} (row {})", row.id, row.number));
        for (modality, values) in &row.values {
            let first = match values.first() {
                Some(Source::Text(text)) => text.chars().take(100).collect(),
                Some(Source::File(path)) => path.display().to_string(),
                Some(Source::Value(value)) => value.to_string().chars().take(100).collect(),
                None => String::new(),
            };
            let more = if values.len() > 1 { format!(" (and {} more)", values.len() - 1) } else { String::new() };
            output::line(format!("  {modality}: {first}{more}"));
        }
    }
    if !broken.is_empty() {
        output::line("");
        output::line(format!("{} broken:", broken.len()));
        for look in broken.iter().take(20) {
            output::line(format!(
                "  row {} ({}), {}: {}",
                look.row,
                look.id,
                look.modality,
                look.size.as_ref().err().map_or("", String::as_str)
            ));
        }
        if broken.len() > 20 {
            output::line(format!("  and {} more (--json lists all)", broken.len() - 20));
        }
    }
}
