//! Summary of a manifest: rows, modalities, sizes, and values that cannot be read.

use super::Arguments;
use crate::{context::Context, output, progress::ItemProgress};
use anyhow::Result;
use mm_core::{Modality, Source};
use mm_data::{
    ColumnInference, Manifest,
    decode::{ImageLimits, clean_text, read_text, video_info},
    decode_audio_source, decode_image_source, source_name, with_path,
};
use rayon::prelude::*;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

/// One value of the data set, read or not.
struct Inspected {
    row: usize,
    id: String,
    modality: Modality,
    path: Option<String>,
    /// Characters, pixels, seconds or bytes; or why the value cannot be read.
    size: Result<f64, String>,
}

pub(crate) fn inspect(arguments: &Arguments, context: &Context) -> Result<()> {
    let config = arguments.table.config(&arguments.path, &[]);
    let recognize = |column: &str, cells: &[&Value]| context.modality_of_column(column, cells);
    let inference = ColumnInference { modalities: None, recognize: Some(&recognize) };
    let manifest = Manifest::open_inferring(&config, Path::new("."), &inference)?;
    let values = read_values(&manifest, arguments.no_files);
    let sizes = sizes(&values);
    if context.json {
        print_json(&manifest, &values, &sizes, arguments.no_files);
    } else {
        print_table(&manifest, &values, &sizes, arguments.no_files);
        print_samples(&manifest, arguments.num_samples);
        print_failed(&values);
    }
    Ok(())
}

/// Reads every value of the manifest, in parallel.
fn read_values(manifest: &Manifest, no_files: bool) -> Vec<Inspected> {
    let mut values: Vec<(usize, &Modality, &Source)> = Vec::new();
    for (index, row) in manifest.rows.iter().enumerate() {
        for (modality, sources) in &row.values {
            values.extend(sources.iter().map(|source| (index, modality, source)));
        }
    }
    let (progress, done) = (Mutex::new(ItemProgress::new()), AtomicUsize::new(0));
    let inspect = |(index, modality, source): &(usize, &Modality, &Source)| {
        let size = size(modality, source, no_files);
        let done = done.fetch_add(1, Ordering::Relaxed) + 1;
        if let Ok(mut progress) = progress.try_lock() {
            progress.update("reading", done, values.len());
        }
        let row = &manifest.rows[*index];
        let path = matches!(source, Source::Path(_) | Source::Bytes(_)).then(|| source_name(source));
        Inspected { row: row.number, id: row.id.clone(), modality: (*modality).clone(), path, size }
    };
    let inspected = values.par_iter().map(inspect).collect();
    if let Ok(progress) = progress.lock() {
        progress.finish();
    }
    inspected
}

fn size(modality: &Modality, source: &Source, no_files: bool) -> Result<f64, String> {
    let bytes =
        |path: &Path| std::fs::metadata(path).map(|m| m.len() as f64).map_err(|e| format!("{}: {e}", path.display()));
    match source {
        Source::Text(text) => return clean_text(text).map(|t| t.chars().count() as f64),
        Source::Value(_) | Source::Record(_) => return Ok(1.0),
        Source::Path(path) if no_files => return bytes(path),
        Source::Bytes(file) if no_files => return Ok(file.len() as f64),
        _ => {}
    }
    match modality.name() {
        "image" => decode_image_source(source, &ImageLimits::default())
            .map(|image| f64::from(image.width()) * f64::from(image.height()))
            .map_err(|e| e.to_string()),
        "audio" => decode_audio_source(source, None).map(|audio| audio.seconds()).map_err(|e| e.to_string()),
        "video" => match with_path(source, "a video", video_info).map_err(|e| e.to_string())? {
            info if info.has_video && info.seconds > 0.0 => Ok(info.seconds),
            _ => Err(format!("{}: a video without frames", source_name(source))),
        },
        "text" => with_path(source, "a text", |path| read_text(path, None))
            .map(|text| text.chars().count() as f64)
            .map_err(|e| e.to_string()),
        _ => with_path(source, "a file", |path| Ok(bytes(path))).map_err(|e| e.to_string())?,
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

/// The sizes of the readable values of each modality, ascending.
fn sizes(values: &[Inspected]) -> BTreeMap<&Modality, Vec<f64>> {
    let mut sizes: BTreeMap<&Modality, Vec<f64>> = BTreeMap::new();
    for value in values {
        let list = sizes.entry(&value.modality).or_default();
        list.extend(value.size.as_ref().ok());
    }
    sizes.values_mut().for_each(|v| v.sort_by(f64::total_cmp));
    sizes
}

/// The value at a quantile of an ascending list; 0 for an empty one.
fn quantile(values: &[f64], q: f64) -> f64 {
    values.get((values.len().saturating_sub(1) as f64 * q).round() as usize).copied().unwrap_or(0.0)
}

fn rows_with(manifest: &Manifest, modality: &Modality) -> usize {
    manifest.rows.iter().filter(|r| r.values.contains_key(modality)).count()
}

fn failed(values: &[Inspected]) -> Vec<(&Inspected, &str)> {
    values.iter().filter_map(|v| Some((v, v.size.as_ref().err()?.as_str()))).collect()
}

fn print_json(manifest: &Manifest, values: &[Inspected], sizes: &BTreeMap<&Modality, Vec<f64>>, no_files: bool) {
    let modality = |(modality, sizes): (&&Modality, &Vec<f64>)| {
        let summary = json!({
            "column": manifest.columns.modalities.get(modality.name()), "rows": rows_with(manifest, modality),
            "values": sizes.len(), "unit": unit(modality, no_files),
            "min": quantile(sizes, 0.0), "median": quantile(sizes, 0.5), "max": quantile(sizes, 1.0),
        });
        (modality.to_string(), summary)
    };
    let modalities: serde_json::Map<String, Value> = sizes.iter().map(modality).collect();
    let failed = failed(values);
    let examples: Vec<Value> = failed
        .iter()
        .map(|(v, reason)| {
            json!({"row": v.row, "id": v.id, "modality": v.modality.name(), "path": v.path, "reason": reason})
        })
        .collect();
    output::line(json!({
        "data": manifest.path, "rows": manifest.rows.len(), "modalities": modalities,
        "failed": {"count": failed.len(), "examples": examples},
    }));
}

fn print_table(manifest: &Manifest, values: &[Inspected], sizes: &BTreeMap<&Modality, Vec<f64>>, no_files: bool) {
    output::line(format!("{}: {} rows", manifest.path.display(), manifest.rows.len()));
    let head = ["modality", "column", "rows", "values", "min", "median", "max", "", "failed"];
    let mut table = vec![head.map(ToOwned::to_owned).to_vec()];
    let number = |v: f64| if v >= 100.0 || v.fract() == 0.0 { format!("{v:.0}") } else { format!("{v:.2}") };
    for (modality, sizes) in sizes {
        let failed = values.iter().filter(|v| v.modality == **modality && v.size.is_err()).count();
        let column = manifest.columns.modalities.get(modality.name()).map(ToString::to_string).unwrap_or_default();
        table.push(vec![
            modality.to_string(),
            column,
            rows_with(manifest, modality).to_string(),
            sizes.len().to_string(),
            number(quantile(sizes, 0.0)),
            number(quantile(sizes, 0.5)),
            number(quantile(sizes, 1.0)),
            unit(modality, no_files).into(),
            failed.to_string(),
        ]);
    }
    output::table(&table);
}

fn print_samples(manifest: &Manifest, count: usize) {
    for row in manifest.rows.iter().take(count) {
        output::line("");
        output::line(format!("{} (row {})", row.id, row.number));
        for (modality, values) in &row.values {
            let first = match values.first() {
                Some(Source::Text(text)) => text.chars().take(100).collect(),
                Some(Source::Path(path)) => path.display().to_string(),
                Some(other) => source_name(other).chars().take(100).collect(),
                None => String::new(),
            };
            let more = if values.len() > 1 { format!(" (and {} more)", values.len() - 1) } else { String::new() };
            output::line(format!("  {modality}: {first}{more}"));
        }
    }
}

fn print_failed(values: &[Inspected]) {
    let failed = failed(values);
    if failed.is_empty() {
        return;
    }
    output::line("");
    output::line(format!("{} values that cannot be read:", failed.len()));
    for (value, reason) in failed.iter().take(20) {
        output::line(format!("  row {} ({}), {}: {reason}", value.row, value.id, value.modality));
    }
    if failed.len() > 20 {
        output::line(format!("  and {} more (--json lists all)", failed.len() - 20));
    }
}
