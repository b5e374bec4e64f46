//! `mm search --store`.

use super::Arguments;
use crate::{
    args::{dtype::DtypeArgs, output_path::local_path},
    commands::index::load_model_of,
    context::Context,
    exit::usage,
    output,
};
use anyhow::{Result, bail};
use mm_core::Device;
use mm_index::{Answer, Filter, Hit, Method, Model, Query, Step, Store};
use mm_tasks::{embedding::Embedder, indexing::search_page};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Group of the options for a store in the help.
const HEADING: &str = "In a store";

/// Options for a store alone.
#[derive(clap::Args)]
pub(super) struct StoreOptions {
    /// Only rows that meet this condition, for instance 'year > 2000 and kind in ("bird", "cat")'.
    #[arg(long, value_name = "CONDITION", requires = "store", help_heading = HEADING)]
    filter: Option<String>,
    /// Rows whose text has any of these words, by BM25; with a query by vectors, both results are combined by rank.
    #[arg(long, value_name = "WORDS", requires = "store", help_heading = HEADING)]
    words: Option<String>,
    /// Write an HTML page with the results, images as thumbnails.
    #[arg(long, value_name = "FILE.html", requires = "store", help_heading = HEADING, value_parser = local_path())]
    report: Option<PathBuf>,
    /// Search by the words of --text too.
    #[arg(long, requires = "store", requires = "text", conflicts_with = "words", help_heading = HEADING)]
    hybrid: bool,
    #[command(flatten)]
    dtype: DtypeArgs,
}

pub(super) fn search(folder: &Path, arguments: &Arguments, context: &Context) -> Result<()> {
    let options = &arguments.in_store;
    if arguments.explain_file().is_some() {
        usage!("--explain FILE.png: is the attention of a run; with --store, --explain takes no file");
    }
    let words = if options.hybrid { arguments.text.as_ref() } else { options.words.as_ref() };
    let has_input = [&arguments.image, &arguments.audio, &arguments.video].iter().any(|file| file.is_some());
    if !has_input && arguments.text.is_none() && words.is_none() {
        usage!("no query; give --text, --image, --audio, --video or --words");
    }
    let filter = options.filter.as_deref().map(Filter::parse).transpose()?;
    let store = mm_index::open(folder)?;
    let mut queries = if has_input || arguments.text.is_some() {
        vector_queries(store.as_ref(), arguments, context)?
    } else {
        Vec::new()
    };
    queries.extend(words.map(|words| Query::text(words.clone())));
    let mut query = Query::hybrid(queries, arguments.k.get());
    query.filter = filter;
    let answer = store.query(&query)?;
    print(&answer, arguments.explain.is_some(), context);
    if let Some(out) = &options.report {
        let query = if has_input || arguments.text.is_some() { Some(arguments.query()?) } else { None };
        let query = query.as_ref().map(|(modality, source)| (modality, source));
        let page = search_page(query, words.map(String::as_str), options.filter.as_deref(), &answer)?;
        mm_core::checkpoint::write_atomic(out, page.as_bytes())?;
        output::note(format!("{}: the results as a page", out.display()));
    }
    Ok(())
}

/// A query for each named vector that is searched.
fn vector_queries(store: &dyn Store, arguments: &Arguments, context: &Context) -> Result<Vec<Query>> {
    let load_options = arguments.in_store.dtype.load_options(context)?;
    let model = load_model_of(store, arguments.model.as_deref(), load_options, context)?;
    let embedder: &dyn Embedder = model.embedder()?;
    let model_id = Model { name: "--model".into(), fingerprint: embedder.fingerprint()? };
    let known: Vec<&String> = store.config().vectors.keys().collect();
    let names =
        if arguments.modality.is_empty() { known.into_iter().cloned().collect() } else { arguments.modality.clone() };
    for name in &names {
        store.config().check_model(name, &model_id)?;
    }
    let (modality, source) = arguments.query()?;
    if !embedder.modalities().contains(&modality) {
        let known = embedder.modalities().iter().map(|m| m.name().to_owned()).collect::<Vec<_>>().join(", ");
        bail!("--{modality}: the store's model embeds {known}; search by one of these, or by --words");
    }
    let vector = embedder.embed(&modality, &[source])?.select(0, 0)?.to_device(Device::Cpu)?.to_vec::<f32>()?;
    Ok(names.iter().map(|name| Query::nearest(name, vector.clone())).collect())
}

fn print(answer: &Answer, explain: bool, context: &Context) {
    for step in &answer.steps {
        if let Some(note) = &step.note {
            output::warning(format!("{}: {note}", step.name));
        }
    }
    for (index, hit) in answer.hits.iter().enumerate() {
        let rank = index + 1;
        if context.json {
            let mut line = json!({
                "rank": rank, "score": hit.score, "id": hit.id, "value": value(hit), "payload": hit.payload,
            });
            if !hit.contributions.is_empty() {
                line["contributions"] = json!(hit.contributions);
            }
            output::line(line);
        } else {
            output::line(format!(
                "{rank:3}  {:.3}  {}  {}",
                hit.score,
                hit.id,
                value(hit).as_str().unwrap_or_default()
            ));
        }
    }
    if explain && context.json {
        output::line(json!({"steps": answer.steps}));
    } else if explain {
        answer.steps.iter().for_each(|step| output::line(describe(step)));
    }
}

/// The text that is shown for a row: the first line of its text, else its file.
fn value(hit: &Hit) -> Value {
    let file = || ["image", "audio", "video", "path"].iter().find_map(|name| hit.payload.get(*name)).cloned();
    match &hit.text {
        Some(text) => json!(text.lines().next().unwrap_or_default()),
        None => file().unwrap_or(Value::Null),
    }
}

/// A step of the search as text for the user.
fn describe(step: &Step) -> String {
    let method = match step.method {
        Method::Exact => "every vector compared",
        Method::Graph => "graph",
        Method::Words => "words",
    };
    let rows = step.rows.map(|rows| format!(" of {rows} rows")).unwrap_or_default();
    let filtered = step.filtered.map(|rows| format!(", {rows} rows meet the filter")).unwrap_or_default();
    format!("{}: {method}; {} scored{rows}{filtered}; {:.1} ms", step.name, step.scored, step.seconds * 1000.0)
}
