//! `mm search`: finds what belongs to a query among a run's data.

use crate::{Context, output, progress::Steps};
use anyhow::{Result, bail};
use mm_core::{Modality, Source};
use mm_data::Split;
use mm_tasks::{
    report::gaze_picture,
    retrieval::{Embedded, Retrieval, Said},
};
use serde_json::json;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The run folder.
    run: PathBuf,
    /// Search by a text.
    #[arg(long, value_name = "TEXT", group = "query")]
    text: Option<String>,
    /// Search by a picture.
    #[arg(long, value_name = "FILE", group = "query")]
    image: Option<PathBuf>,
    /// Search by a sound.
    #[arg(long, value_name = "FILE", group = "query")]
    audio: Option<PathBuf>,
    /// Search by a video.
    #[arg(long, value_name = "FILE", group = "query")]
    video: Option<PathBuf>,
    /// Modality to search in; may be repeated [default: all but the query's own].
    #[arg(long = "in", value_name = "MODALITY")]
    within: Vec<String>,
    /// Find what the voice says among the texts of this language, by their letters; for runs that learned what is written (`spelling`).
    #[arg(long, value_name = "LANGUAGE", requires = "audio", conflicts_with = "within")]
    words: Option<String>,
    /// How many to show of each modality.
    #[arg(long, default_value_t = 10)]
    top: usize,
    /// Draw where the words look in the best hit (or the best hit's words in the query), into this .png; for runs that learned to look
    /// (`attention`).
    #[arg(long, value_name = "FILE")]
    explain: Option<PathBuf>,
    /// Search one side of the split only: train, valid or test.
    #[arg(long)]
    split: Option<Split>,
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<()> {
    let file = |path: &PathBuf| Source::File(path.clone());
    let (modality, query) = match (&arguments.text, &arguments.image, &arguments.audio, &arguments.video) {
        (Some(text), ..) => (Modality::TEXT, Source::Text(text.clone())),
        (_, Some(path), ..) => (Modality::IMAGE, file(path)),
        (_, _, Some(path), _) => (Modality::AUDIO, file(path)),
        (.., Some(path)) => (Modality::VIDEO, file(path)),
        _ => bail!("no query; give --text, --image, --audio or --video"),
    };
    let model = Retrieval::load(&arguments.run, &crate::registry(), context.device()?)?;
    let partner = arguments.explain.as_ref().map(|path| partner(&model, &modality, path)).transpose()?;
    let sides = arguments.split.map_or(vec![Split::Train, Split::Valid, Split::Test], |s| vec![s]);
    if let Some(language) = &arguments.words {
        let hits = model.words(&query, language, &sides)?.into_iter().map(|Said { id, text, score }| {
            let hit = json!({"modality": "text", "score": score, "id": id, "value": text, "language": language});
            (score, hit)
        });
        show(hits.take(arguments.top), context);
        return Ok(());
    }
    let vector = model.embed(&modality, std::slice::from_ref(&query))?.select(0, 0)?.to_device(mm_core::Device::Cpu)?;
    let wanted: Vec<Modality> = if arguments.within.is_empty() {
        model.modalities().filter(|m| **m != modality).cloned().collect()
    } else {
        arguments.within.iter().map(|m| Modality::from(m.as_str())).collect()
    };
    if let Some(unknown) = wanted.iter().find(|w| !model.modalities().any(|m| m == *w)) {
        bail!(
            "this run has no {unknown}; it has {}",
            model.modalities().map(Modality::name).collect::<Vec<_>>().join(", ")
        );
    }
    let manifest = Arc::new(model.manifest()?);
    let mut steps = Steps::new();
    let mut found: BTreeMap<Modality, Vec<(f64, serde_json::Value)>> = BTreeMap::new();
    let mut nearest: Option<(f64, Source)> = None;
    for side in sides {
        let embedded = model.embed_side(&manifest, side, &mut |what, done, of| steps.tell(what, done, of))?;
        for modality in &wanted {
            let Some(Embedded { vectors, entries }) = embedded.get(modality) else { continue };
            let scores = vectors.matmul(&vector.unsqueeze(1)?)?.to_vec::<f64>()?;
            if partner.as_ref() == Some(modality) {
                let best = entries.iter().zip(&scores).max_by(|a, b| a.1.total_cmp(b.1));
                if let Some((entry, score)) = best.filter(|(_, s)| nearest.as_ref().is_none_or(|(n, _)| *s > n)) {
                    nearest = Some((*score, entry.source.clone()));
                }
            }
            let hits = found.entry(modality.clone()).or_default();
            for (entry, score) in entries.iter().zip(scores) {
                let row = &manifest.rows[entry.row];
                let value = match &entry.source {
                    Source::Text(text) => json!(text),
                    Source::File(path) => json!(path),
                    Source::Value(value) => value.clone(),
                };
                hits.push((score, json!({"modality": modality.name(), "score": score, "id": row.id, "value": value, "language": entry.language, "split": row.split})));
            }
        }
    }
    steps.end();
    for (modality, mut hits) in found {
        hits.sort_by(|a, b| b.0.total_cmp(&a.0));
        if !context.json {
            output::line(format!("{modality}:"));
        }
        show(hits.into_iter().take(arguments.top), context);
    }
    if let (Some(path), Some((_, hit)), Some([asking, _])) = (&arguments.explain, nearest, model.looks()) {
        let (queries, keys) = if modality == *asking { (&query, &hit) } else { (&hit, &query) };
        if let Some(gaze) = model.look(queries, keys)? {
            output::explanation(&gaze_picture(&gaze)?, path)?;
        }
    }
    Ok(())
}

/// The modality whose best hit is drawn with the query.
fn partner(model: &Retrieval, modality: &Modality, path: &Path) -> Result<Modality> {
    let Some([asking, asked]) = model.looks() else {
        bail!(
            "--explain {}: this run did not learn to look; wanted one with `[attention]` in its config",
            path.display()
        );
    };
    match modality {
        m if m == asking => Ok(asked.clone()),
        m if m == asked => Ok(asking.clone()),
        m => bail!("--explain {}: found a query of {m}; in this run {asking} looks at {asked}", path.display()),
    }
}

/// What was found, best first, each with its score.
fn show(hits: impl Iterator<Item = (f64, serde_json::Value)>, context: &Context) {
    for (rank, (score, mut hit)) in hits.enumerate() {
        if context.json {
            hit["rank"] = json!(rank + 1);
            output::line(hit);
        } else {
            let value = hit["value"].as_str().map_or_else(|| hit["value"].to_string(), ToOwned::to_owned);
            output::line(format!("{:3}  {score:.3}  {}  {value}", rank + 1, hit["id"].as_str().unwrap_or("")));
        }
    }
}
