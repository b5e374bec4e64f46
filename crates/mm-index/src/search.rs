//! Queries on any engine: each search gives rows with scores, which are joined and then read.

use crate::{
    Answer, Contribution, Error, Example, Filter, Hit, Method, Query, Search, Step, StoreConfig, VectorConfig,
    fusion::fuse, payload::Payload, row::prepare, score::Scored, words::query_words,
};
use half::f16;
use std::{collections::HashMap, time::Instant};

/// Fusions and candidates of candidates that may be inside each other.
const MAX_DEPTH: usize = 16;

/// A row without its vectors.
#[derive(Debug, Clone)]
pub(crate) struct RowData {
    pub(crate) id: String,
    pub(crate) payload: Payload,
    pub(crate) text: Option<String>,
    pub(crate) version: Option<String>,
}

/// Prepared vectors that the named vectors of rows are compared with: one, or one for each token.
#[derive(Clone, Copy)]
pub(crate) struct Wanted<'a> {
    pub(crate) name: &'a str,
    pub(crate) queries: &'a [Vec<f32>],
}

/// One state of the rows of an engine, which later writes do not change.
pub(crate) trait Searcher {
    /// The engine's error, which does not know yet to which store it belongs.
    type Failure: From<Error>;
    /// The rows that a filter selects.
    type Selection;

    /// The named vectors.
    fn config(&self) -> &StoreConfig;

    /// The rows that a filter selects.
    fn select(&mut self, filter: &Filter) -> Result<Self::Selection, Self::Failure>;

    /// The `k` selected rows with the highest scores, best first.
    fn nearest(
        &mut self,
        wanted: Wanted<'_>,
        selection: Option<&Self::Selection>,
        k: usize,
    ) -> Result<(Vec<Scored>, Step), Self::Failure>;

    /// The `k` selected rows whose texts fit the words best, best first; and how many the selection has, where known.
    fn words(
        &mut self,
        words: &[&str],
        selection: Option<&Self::Selection>,
        k: usize,
    ) -> Result<(Vec<Scored>, Option<usize>), Self::Failure>;

    /// The scores of rows by their row numbers, without those that lack the vector.
    fn score(&mut self, wanted: Wanted<'_>, row_numbers: &[i64]) -> Result<Vec<Scored>, Self::Failure>;

    /// The number of the row of an id, and its stored vectors of a name; none where there is no such row.
    fn example(&mut self, name: &str, id: &str) -> Result<Option<(i64, Option<Vec<f16>>)>, Self::Failure>;

    /// The rows of these row numbers, in this order; a missing one is an error.
    fn rows(&mut self, row_numbers: &[i64]) -> Result<Vec<RowData>, Self::Failure>;
}

/// Rows that a query found, and how.
#[derive(Default)]
struct Found {
    rows: Vec<Scored>,
    contributions: HashMap<i64, Vec<Contribution>>,
    steps: Vec<Step>,
}

/// The answer to a query.
pub(crate) fn answer<S: Searcher>(searcher: &mut S, query: &Query) -> Result<Answer, S::Failure> {
    if query.k == 0 {
        return Err(Error::invalid("number of results", 0, "at least 1").into());
    }
    let mut found = find(searcher, query, None, 0)?;
    let row_numbers: Vec<i64> = found.rows.iter().map(|row| row.row).collect();
    let rows = searcher.rows(&row_numbers)?.into_iter().zip(&found.rows);
    let hits = rows.map(|(RowData { id, payload, text, .. }, Scored { row, score })| {
        let contributions = found.contributions.remove(row).unwrap_or_default();
        Hit { id, score: *score, payload, text, contributions }
    });
    Ok(Answer { hits: hits.collect(), steps: found.steps })
}

/// The rows of a query; `outer` are conditions of the queries that it is a part of.
fn find<S: Searcher>(
    searcher: &mut S,
    query: &Query,
    outer: Option<&Filter>,
    depth: usize,
) -> Result<Found, S::Failure> {
    if depth > MAX_DEPTH {
        let found = format!("more than {MAX_DEPTH} queries inside each other");
        return Err(Error::invalid("query", found, "fewer").into());
    }
    let filter = match (outer, &query.filter) {
        (Some(outer), Some(inner)) => Some(Filter::And(vec![outer.clone(), inner.clone()])),
        (outer, inner) => outer.or(inner.as_ref()).cloned(),
    };
    let is_joined = matches!(&query.search, Search::Fusion { .. } | Search::MaxSim { over: Some(_), .. });
    let selection = match &filter {
        Some(filter) if !is_joined => Some(searcher.select(filter)?),
        _ => None,
    };
    let (selection, k) = (selection.as_ref(), query.k);
    match &query.search {
        Search::Nearest { vector, values } => find_nearest(searcher, vector, &[values], selection, k),
        Search::Text { words } => find_words(searcher, words, selection, k),
        Search::MaxSim { vector, values, over: None } => {
            let values: Vec<&Vec<f32>> = values.iter().collect();
            find_nearest(searcher, vector, &values, selection, k)
        }
        Search::MaxSim { vector, values, over: Some(over) } => {
            let candidates = find(searcher, over, filter.as_ref(), depth + 1)?;
            score_candidates(searcher, vector, values, candidates, k)
        }
        Search::Recommend { vector, positive, negative } => {
            recommend(searcher, vector, [positive.as_slice(), negative.as_slice()], selection, k)
        }
        Search::Fusion { queries, constant } => {
            let mut found = Found::default();
            let mut lists = Vec::new();
            for (weight, query) in queries {
                if !weight.is_finite() {
                    return Err(Error::invalid("weight of a fusion", weight, "a finite number").into());
                }
                let part = find(searcher, query, filter.as_ref(), depth + 1)?;
                found.steps.extend(part.steps);
                lists.push((*weight, part.rows));
            }
            for fused in fuse(&lists, *constant).into_iter().take(k) {
                found.rows.push(Scored { row: fused.row, score: fused.score });
                found.contributions.insert(fused.row, fused.contributions);
            }
            Ok(found)
        }
    }
}

fn find_nearest<S: Searcher>(
    searcher: &mut S,
    name: &str,
    values: &[&Vec<f32>],
    selection: Option<&S::Selection>,
    k: usize,
) -> Result<Found, S::Failure> {
    let queries = prepare_queries(name, searcher.config().vector(name)?, values)?;
    let (rows, step) = searcher.nearest(Wanted { name, queries: &queries }, selection, k)?;
    Ok(Found { rows, steps: vec![step], ..Found::default() })
}

fn find_words<S: Searcher>(
    searcher: &mut S,
    words: &str,
    selection: Option<&S::Selection>,
    k: usize,
) -> Result<Found, S::Failure> {
    let started = Instant::now();
    let list = query_words(words);
    if list.is_empty() {
        let expected = "at least one word of letters or digits";
        return Err(Error::invalid("words of the query", format!("{words:?}"), expected).into());
    }
    let (rows, filtered) = searcher.words(&list, selection, k)?;
    let step = Step {
        name: "text".into(),
        method: Method::Words,
        rows: None,
        filtered,
        scored: rows.len(),
        seconds: started.elapsed().as_secs_f64(),
        note: None,
    };
    Ok(Found { rows, steps: vec![step], ..Found::default() })
}

/// Scores what another query found.
fn score_candidates<S: Searcher>(
    searcher: &mut S,
    name: &str,
    values: &[Vec<f32>],
    candidates: Found,
    k: usize,
) -> Result<Found, S::Failure> {
    let started = Instant::now();
    let queries = prepare_queries(name, searcher.config().vector(name)?, &values.iter().collect::<Vec<_>>())?;
    let row_numbers: Vec<i64> = candidates.rows.iter().map(|row| row.row).collect();
    let mut rows = searcher.score(Wanted { name, queries: &queries }, &row_numbers)?;
    rows.sort_by(|a, b| b.cmp(a));
    rows.truncate(k);
    let count = row_numbers.len();
    let mut steps = candidates.steps;
    steps.push(Step {
        name: name.to_owned(),
        method: Method::Exact,
        rows: Some(count),
        filtered: None,
        scored: count,
        seconds: started.elapsed().as_secs_f64(),
        note: None,
    });
    Ok(Found { rows, steps, ..Found::default() })
}

fn recommend<S: Searcher>(
    searcher: &mut S,
    name: &str,
    [positive, negative]: [&[Example]; 2],
    selection: Option<&S::Selection>,
    k: usize,
) -> Result<Found, S::Failure> {
    let mut examples = Vec::new();
    let wanted = mean(searcher, name, positive, &mut examples)?
        .ok_or_else(|| Error::invalid("positive examples of a recommendation", "none", "at least one row or vector"))?;
    let values: Vec<f32> = match mean(searcher, name, negative, &mut examples)? {
        Some(unwanted) => wanted.iter().zip(unwanted).map(|(p, n)| 2.0 * p - n).collect(),
        None => wanted,
    };
    let mut found = find_nearest(searcher, name, &[&values], selection, k.saturating_add(examples.len()))?;
    found.rows.retain(|row| !examples.contains(&row.row));
    found.rows.truncate(k);
    Ok(found)
}

/// The mean of examples; rows among them are added to `rows`. None where there is no example.
fn mean<S: Searcher>(
    searcher: &mut S,
    name: &str,
    examples: &[Example],
    rows: &mut Vec<i64>,
) -> Result<Option<Vec<f32>>, S::Failure> {
    let config = searcher.config().vector(name)?.clone();
    let mut sum = vec![0f32; config.dim];
    let mut count = 0usize;
    for example in examples {
        let values = match example {
            Example::Values(values) => prepare(|| format!("example for vector `{name}`"), &config, values)?,
            Example::Id(id) => {
                let missing = |found: &str| Error::invalid(format!("example `{id}`"), found, "a row with this vector");
                let (number, stored) = searcher.example(name, id)?.ok_or_else(|| missing("no such row"))?;
                let stored = stored.ok_or_else(|| missing(&format!("a row without vector `{name}`")))?;
                rows.push(number);
                stored.iter().map(|v| v.to_f32()).collect()
            }
        };
        for values in values.chunks_exact(config.dim) {
            sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
            count += 1;
        }
    }
    Ok((count > 0).then(|| sum.into_iter().map(|v| v / count as f32).collect()))
}

fn prepare_queries(name: &str, config: &VectorConfig, values: &[&Vec<f32>]) -> Result<Vec<Vec<f32>>, Error> {
    if values.is_empty() {
        return Err(Error::invalid(format!("query for vector `{name}`"), "no vector", "at least one"));
    }
    values.iter().map(|values| prepare(|| format!("query for vector `{name}`"), config, values)).collect()
}
