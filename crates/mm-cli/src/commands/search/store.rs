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
use mm_index::{Answer, Filter, Method, Model, Payload, Query, Step, Store};
use mm_tasks::{embedding::Embedder, indexing::search_page};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Group of the options for a store in the help.
const HEADING: &str = "In a store";

/// Options for a store alone.
#[derive(clap::Args)]
pub(super) struct StoreOptions {
    /// Only rows that meet this condition, for instance 'year > 2000 and kind in ("bird", "cat")'; without a query the
    /// oldest of them, without scores.
    #[arg(long, value_name = "CONDITION", requires = "store", help_heading = HEADING)]
    filter: Option<String>,
    /// Rows whose text has any of these words, by BM25; with a query by vectors, both results are combined by rank.
    #[arg(long, value_name = "WORDS", requires = "store", help_heading = HEADING)]
    words: Option<String>,
    /// Write an HTML page with the results, images as thumbnails.
    #[arg(long, value_name = "FILE.html", requires = "store", help_heading = HEADING, value_parser = local_path())]
    report: Option<PathBuf>,
    /// Search by the words of --text too.
    #[arg(long, requires = "store", conflicts_with = "words", help_heading = HEADING)]
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
    if options.hybrid && arguments.text.is_none() {
        usage!("--hybrid: searches by the words of --text too; give the words by --words");
    }
    let has_query = arguments.has_query();
    if !has_query {
        check_without_query(arguments, context)?;
    }
    let filter = options.filter.as_deref().map(Filter::parse).transpose()?;
    let store = mm_index::open(folder)?;
    if !has_query && words.is_none() {
        let Some(filter) = &filter else {
            usage!("no query; give --text, --image, --audio, --video, --input, --words or --filter");
        };
        if arguments.explain.is_some() || options.report.is_some() {
            usage!("--explain, --report: are of a query; --filter alone lists rows");
        }
        return list(store.as_ref(), filter, arguments.k.get(), context);
    }
    let mut queries = if has_query { vector_queries(store.as_ref(), arguments, context)? } else { Vec::new() };
    queries.extend(words.map(|words| Query::text(words.clone())));
    let mut query = Query::hybrid(queries, arguments.k.get());
    query.filter = filter;
    let answer = store.query(&query)?;
    print(&answer, arguments.explain.is_some(), context);
    if let Some(out) = &options.report {
        let query = if has_query { Some(arguments.query()?) } else { None };
        let query = query.as_ref().map(|(modality, source)| (modality, source));
        let page = search_page(query, words.map(String::as_str), options.filter.as_deref(), &answer)?;
        mm_core::checkpoint::write_atomic(out, page.as_bytes())?;
        if context.json {
            output::line(json!({"report": output::path(out)}));
        }
        output::note(format!("{}: the results as a page", out.display()));
    }
    Ok(())
}

/// Refuses options of a query by vectors where there is none.
fn check_without_query(arguments: &Arguments, context: &Context) -> Result<()> {
    if !arguments.modality.is_empty() || arguments.model.is_some() {
        usage!("--modality, --model: are of a query; give --text, --image, --audio, --video or --input");
    }
    // Nothing is loaded, but a wrong --dtype or --transparency is refused as elsewhere.
    arguments.in_store.dtype.load_options(context).map(drop)
}

/// Prints the first `k` rows that meet a filter, in the order in which they were written.
fn list(store: &dyn Store, filter: &Filter, k: usize, context: &Context) -> Result<()> {
    const PAGE: usize = 100;
    let mut rank = 0;
    for ids in store.select(filter, k)?.chunks(PAGE) {
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        // A row that another process deleted in the meantime is left out.
        for row in store.get(&ids)?.into_iter().flatten() {
            rank += 1;
            let value = value(&row.payload, row.text.as_deref());
            if context.json {
                output::line(json!({"rank": rank, "id": row.id, "value": value, "payload": row.payload}));
            } else {
                output::line(format!("{rank:3}  {}  {}", output::one_line(&row.id), shown(&value)));
            }
        }
    }
    Ok(())
}

/// A query for each named vector that is searched.
fn vector_queries(store: &dyn Store, arguments: &Arguments, context: &Context) -> Result<Vec<Query>> {
    let load_options = arguments.in_store.dtype.load_options(context)?;
    let model = load_model_of(store, arguments.model.as_deref(), load_options, context)?;
    let embedder: &dyn Embedder = model.embedder()?;
    let model_id = Model { name: "that was loaded".into(), fingerprint: embedder.fingerprint()? };
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
        let (rank, value) = (index + 1, value(&hit.payload, hit.text.as_deref()));
        if context.json {
            let mut line = json!({
                "rank": rank, "score": hit.score, "id": hit.id, "value": value, "payload": hit.payload,
            });
            if !hit.contributions.is_empty() {
                line["contributions"] = json!(hit.contributions);
            }
            output::line(line);
        } else {
            output::line(format!("{rank:3}  {:.3}  {}  {}", hit.score, output::one_line(&hit.id), shown(&value)));
        }
    }
    if explain && context.json {
        output::line(json!({"steps": answer.steps}));
    } else if explain {
        answer.steps.iter().for_each(|step| output::line(describe(step)));
    }
}

/// The text that is shown for a row: the first line of its text, else its file.
fn value(payload: &Payload, text: Option<&str>) -> Value {
    let file = || ["image", "audio", "video", "path"].iter().find_map(|name| payload.get(*name)).cloned();
    match text {
        Some(text) => json!(text.lines().next().unwrap_or_default()),
        None => file().unwrap_or(Value::Null),
    }
}

/// The same for a person.
fn shown(value: &Value) -> String {
    output::one_line(value.as_str().unwrap_or_default())
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
