//! `mm search`: cross-modal retrieval among the data of a run, or among the rows of a store.

mod store;

use crate::{
    args::{
        files::InputValue,
        limit::Limit,
        model::{is_copy, locate},
        output_path::local_path,
    },
    context::Context,
    exit::usage,
    output,
    progress::ItemProgress,
};
use anyhow::{Result, bail};
use mm_core::{Device, Modality, Source};
use mm_data::{Manifest, Split};
use mm_tasks::{
    embedding::Embedder,
    retrieval::{FoundValue, Retrieval, SearchOptions, TextMatch},
};
use serde_json::{Value, json};
use std::{
    borrow::Cow,
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// Search a store, or the data of a retrieval run, by a text, an image, an audio file or a video
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  mm search --store photos.index --text \"a red bird\" --filter 'year > 2000 and kind in (\"bird\", \"cat\")' --k 5\n  mm search --store photos.index --image bird.jpg --words \"night sky\" --explain\n  mm search --model runs/first --text \"a red bird\" --k 5\n  mm search --model runs/first --audio question.wav --modality image\n  mm search --model runs/first --audio pregunta.ogg --transcript-language es --split test\n  mm search --model runs/attention --text \"a red apple\" --modality image --explain attention.png\n\nJSON, one line a result: {\"rank\": 1, \"modality\": …, \"score\": …, \"id\": …, \"value\": …, \"language\": …, \"split\": …};\nof a store {\"rank\": 1, \"score\": …, \"id\": …, \"value\": …, \"payload\": {…}}; filters are described in docs/search.md"
)]
pub(crate) struct Arguments {
    /// Run folder whose data are searched; with --store, the model, if it is not found under the name that the store
    /// records.
    #[arg(long, value_name = "MODEL")]
    model: Option<PathBuf>,
    /// Folder of a store, or postgres://USER@HOST/DATABASE?schema=NAME, made by `mm index build`.
    #[arg(long, value_name = "FOLDER|URL", conflicts_with_all = ["split", "transcript_language"])]
    store: Option<PathBuf>,
    #[command(flatten)]
    in_store: store::StoreOptions,
    /// Query text.
    #[arg(long, value_name = "TEXT", group = "query", help_heading = "Query (one of)")]
    text: Option<String>,
    /// Query image.
    #[arg(long, value_name = "FILE", group = "query", help_heading = "Query (one of)")]
    image: Option<PathBuf>,
    /// Query audio.
    #[arg(long, value_name = "FILE", group = "query", help_heading = "Query (one of)")]
    audio: Option<PathBuf>,
    /// Query video.
    #[arg(long, value_name = "FILE", group = "query", help_heading = "Query (one of)")]
    video: Option<PathBuf>,
    /// Query of any modality: a file that exists, else JSON, else text.
    #[arg(long, value_name = "NAME=VALUE", group = "query", help_heading = "Query (one of)")]
    input: Option<InputValue>,
    /// Modality to search; may be repeated [default: all; of a run all but the query's].
    #[arg(long, value_name = "NAME")]
    modality: Vec<String>,
    /// Find the text in this language that is spoken in the audio, by character n-grams (runs trained with
    /// `[transcript_ngram]`).
    #[arg(long, value_name = "LANGUAGE", requires = "audio", conflicts_with = "modality")]
    transcript_language: Option<String>,
    /// Number of results, or all; of a run, of each modality.
    #[arg(long, value_name = "N|all", default_value = "10")]
    k: Limit,
    /// With FILE.png, save the attention map between the query and the best result (runs trained with
    /// `[cross_attention]`); with --store and without a file, print how the store was searched.
    #[arg(long, value_name = "FILE.png", num_args = 0..=1, default_missing_value = NO_FILE, value_parser = local_path())]
    explain: Option<PathBuf>,
    /// Search one split only: train, valid or test.
    #[arg(long)]
    split: Option<Split>,
}

/// The value of `--explain` without a file.
const NO_FILE: &str = "-";

/// A search result: its score and its JSON object, without the rank.
type Scored = (f64, Value);

impl Arguments {
    /// The file of `--explain`, where one was given.
    fn explain_file(&self) -> Option<&Path> {
        self.explain.as_deref().filter(|path| *path != Path::new(NO_FILE))
    }

    fn query(&self) -> Result<(Modality, Source)> {
        let file = |path: &PathBuf| Source::Path(path.clone());
        if let Some(input) = &self.input {
            return Ok((input.modality(), input.source()));
        }
        Ok(match (&self.text, &self.image, &self.audio, &self.video) {
            (Some(text), ..) => (Modality::TEXT, Source::Text(text.clone())),
            (_, Some(path), ..) => (Modality::IMAGE, file(path)),
            (_, _, Some(path), _) => (Modality::AUDIO, file(path)),
            (.., Some(path)) => (Modality::VIDEO, file(path)),
            _ => usage!("no query; give --text, --image, --audio, --video or --input"),
        })
    }

    /// Whether there is a query by vectors.
    fn has_query(&self) -> bool {
        let is_file = [&self.image, &self.audio, &self.video].iter().any(|file| file.is_some());
        is_file || self.text.is_some() || self.input.is_some()
    }

    fn splits(&self) -> Vec<Split> {
        self.split.map_or(vec![Split::Train, Split::Valid, Split::Test], |s| vec![s])
    }

    /// The modalities to search.
    fn targets(&self, model: &Retrieval, query: &Modality) -> Result<Vec<Modality>> {
        if self.modality.is_empty() {
            return Ok(model.modalities().into_iter().filter(|m| m != query).collect());
        }
        let targets: Vec<Modality> = self.modality.iter().map(|m| Modality::from(m.as_str())).collect();
        if let Some(unknown) = targets.iter().find(|t| !model.modalities().contains(t)) {
            let known = model.modalities().iter().map(Modality::name).collect::<Vec<_>>().join(", ");
            bail!("--modality {unknown}: expected a modality of this run: {known}");
        }
        Ok(targets)
    }
}

pub(crate) fn run(arguments: &Arguments, context: &Context) -> Result<()> {
    if let Some(folder) = &arguments.store {
        return store::search(folder, arguments, context);
    }
    let Some(model) = &arguments.model else {
        usage!("nothing to search; give a store with --store, or a run folder with --model")
    };
    let (modality, query) = arguments.query()?;
    if arguments.explain.is_some() && arguments.explain_file().is_none() {
        usage!("--explain: found no file, expected FILE.png; without a file it explains a search of a --store");
    }
    let run = Retrieval::load(&locate(model)?, &context.tasks()?)?;
    let model = if is_copy(model) { run.read_only() } else { run };
    if let Some(language) = &arguments.transcript_language {
        let results = model.match_transcripts(&query, language, &arguments.splits())?.into_iter().map(
            |TextMatch { id, text, score }| {
                (score, json!({"modality": "text", "score": score, "id": id, "value": text, "language": language}))
            },
        );
        print(results.take(arguments.k.get()), context);
        return Ok(());
    }
    let explained = arguments.explain.as_ref().map(|path| explained_modality(&model, &modality, path)).transpose()?;
    let (results, best) = search(&model, &modality, &query, explained.as_ref(), arguments)?;
    for (modality, results) in results {
        if !context.json {
            output::line(format!("{modality}:"));
        }
        print(results.into_iter(), context);
    }
    if let (Some(path), Some(best), Some([attending, _])) = (&arguments.explain, best, model.attention_modalities()) {
        let (queries, keys) = if modality == *attending { (&query, &best) } else { (&best, &query) };
        if let Some(map) = model.attention_map(queries, keys)? {
            output::save_explanation(&map.image()?, path)?;
        }
    }
    Ok(())
}

/// The nearest values of the target modalities; also returns the best value of the modality that is explained.
fn search(
    model: &Retrieval,
    modality: &Modality,
    query: &Source,
    explained: Option<&Modality>,
    arguments: &Arguments,
) -> Result<(BTreeMap<Modality, Vec<Scored>>, Option<Source>)> {
    let vector = model.embed(modality, std::slice::from_ref(query))?.select(0, 0)?.to_device(Device::Cpu)?;
    let targets = arguments.targets(model, modality)?;
    let manifest: Manifest = model.dataset()?;
    let mut progress = ItemProgress::new();
    let on_progress = &mut |label: &str, done, total| progress.update(label, done, total);
    let on_left_out = &mut |split: Split, count| {
        output::warning(format!("{count} values of the {split} split cannot be read and are not searched"));
    };
    let options = SearchOptions { splits: arguments.splits(), modalities: targets, k: arguments.k.get() };
    let found = model.search(&manifest, &vector.to_vec::<f32>()?, &options, on_left_out, on_progress)?;
    progress.finish();
    let best = explained.and_then(|modality| Some(found.get(modality)?.first()?.source.clone()));
    let results = found.into_iter().map(|(modality, list)| {
        let result = |found: FoundValue| {
            let row = &manifest.rows[found.row];
            let json = json!({
                "modality": modality.name(), "score": found.score, "id": row.id, "value": value(&found.source),
                "language": found.language, "split": found.split,
            });
            (found.score, json)
        };
        let list = list.into_iter().map(result).collect();
        (modality, list)
    });
    Ok((results.collect(), best))
}

fn value(source: &Source) -> Value {
    match source {
        Source::Text(text) => json!(text),
        Source::Path(path) => json!(output::path(path)),
        Source::Bytes(file) => json!(file.name()),
        other => other.json().map_or_else(|| json!(format!("{other:?}")), Cow::into_owned),
    }
}

/// The modality whose best result is explained together with the query.
fn explained_modality(model: &Retrieval, query: &Modality, path: &Path) -> Result<Modality> {
    let Some([queries, keys]) = model.attention_modalities() else {
        bail!(
            "--explain {}: this run has no attention map; expected one with `[cross_attention]` in its config",
            path.display()
        );
    };
    match query {
        m if m == queries => Ok(keys.clone()),
        m if m == keys => Ok(queries.clone()),
        m => bail!("--explain {}: found a query of {m}; in this run {queries} attends to {keys}", path.display()),
    }
}

/// Prints results, best first.
fn print(results: impl Iterator<Item = Scored>, context: &Context) {
    for (rank, (score, mut result)) in results.enumerate() {
        if context.json {
            result["rank"] = json!(rank + 1);
            output::line(result);
        } else {
            let value = &result["value"];
            // A value of another modality may be long: its beginning tells it apart.
            let shortened = || value.to_string().chars().take(80).collect::<String>();
            let value = value.as_str().map_or_else(shortened, ToOwned::to_owned);
            let (id, value) = (output::one_line(result["id"].as_str().unwrap_or("")), output::one_line(&value));
            output::line(format!("{:3}  {score:.3}  {id}  {value}", rank + 1));
        }
    }
}
