//! Queries on any engine: each search gives rows with scores, which are joined and then read.

use crate::{
    Answer, Contribution, Error, Filter, Hit, Method, Query, Search, Step, StoreConfig, VectorConfig, check::LIST,
    fusion::fuse, payload::Payload, recommend::recommend, row::prepare, score::Scored, words::query_words,
};
use half::f16;
use std::{
    collections::{HashMap, HashSet},
    time::Instant,
};

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

    /// The failure that stored data are not what was written.
    fn damaged(what: String) -> Self::Failure;
}

/// Compares a row that a filter found with it: the row has a checksum, the tables by which it was found have none.
pub(crate) fn check_filter(filter: &Filter, row: &RowData) -> Result<(), String> {
    if filter.matches(&row.payload) {
        return Ok(());
    }
    Err(format!("the filter `{filter}` found the row `{}`, whose fields do not meet it; {LIST}", row.id))
}

/// Rows that a query found, and how.
#[derive(Default)]
pub(crate) struct Found {
    pub(crate) rows: Vec<Scored>,
    contributions: HashMap<i64, Vec<Contribution>>,
    steps: Vec<Step>,
    /// The filters by which rows were found, with the numbers of these rows.
    filtered: Vec<(Filter, HashSet<i64>)>,
}

/// The answer to a query.
pub(crate) fn answer<S: Searcher>(searcher: &mut S, query: &Query) -> Result<Answer, S::Failure> {
    let mut found = find(searcher, query, None, 0)?;
    let row_numbers: Vec<i64> = found.rows.iter().map(|row| row.row).collect();
    let rows = searcher.rows(&row_numbers)?;
    for (filter, selected) in &found.filtered {
        let by_filter = row_numbers.iter().zip(&rows).filter(|(number, _)| selected.contains(number));
        by_filter.map(|(_, row)| row).try_for_each(|row| check_filter(filter, row)).map_err(S::damaged)?;
    }
    let hits = rows.into_iter().zip(&found.rows).map(|(RowData { id, payload, text, .. }, Scored { row, score })| {
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
    if query.k == 0 {
        return Err(Error::invalid("number of results", 0, "at least 1").into());
    }
    query.filter.as_ref().map_or(Ok(()), Filter::check)?;
    let filter = match (outer, &query.filter) {
        (Some(outer), Some(inner)) => Some(Filter::And(vec![outer.clone(), inner.clone()])),
        (outer, inner) => outer.or(inner.as_ref()).cloned(),
    };
    let k = query.k;
    match &query.search {
        Search::Nearest { vector, values } => {
            select(searcher, filter, |searcher, selection| find_nearest(searcher, vector, &[values], selection, k))
        }
        Search::Text { words } => {
            select(searcher, filter, |searcher, selection| find_words(searcher, words, selection, k))
        }
        Search::MaxSim { vector, values, over: None } => {
            let values: Vec<&Vec<f32>> = values.iter().collect();
            select(searcher, filter, |searcher, selection| find_nearest(searcher, vector, &values, selection, k))
        }
        Search::MaxSim { vector, values, over: Some(over) } => {
            let candidates = find(searcher, over, filter.as_ref(), depth + 1)?;
            score_candidates(searcher, vector, values, candidates, k)
        }
        Search::Recommend { vector, positive, negative } => select(searcher, filter, |searcher, selection| {
            recommend(searcher, vector, [positive.as_slice(), negative.as_slice()], selection, k)
        }),
        Search::Fusion { queries, constant } => find_fused(searcher, queries, *constant, filter.as_ref(), k, depth),
    }
}

/// What a search finds among the rows that a filter selects.
fn select<S: Searcher>(
    searcher: &mut S,
    filter: Option<Filter>,
    find: impl FnOnce(&mut S, Option<&S::Selection>) -> Result<Found, S::Failure>,
) -> Result<Found, S::Failure> {
    let selection = filter.as_ref().map(|filter| searcher.select(filter)).transpose()?;
    let mut found = find(searcher, selection.as_ref())?;
    found.filtered.extend(filter.map(|filter| (filter, found.rows.iter().map(|row| row.row).collect())));
    Ok(found)
}

/// The rows of several queries, by reciprocal rank fusion.
fn find_fused<S: Searcher>(
    searcher: &mut S,
    queries: &[(f64, Query)],
    constant: f64,
    filter: Option<&Filter>,
    k: usize,
    depth: usize,
) -> Result<Found, S::Failure> {
    if queries.is_empty() {
        return Err(Error::invalid("queries of a fusion", "none", "at least one").into());
    }
    if !(constant.is_finite() && constant >= 0.0) {
        return Err(Error::invalid("constant of a fusion", constant, "a finite number of at least 0").into());
    }
    let mut found = Found::default();
    let mut lists = Vec::new();
    for (weight, query) in queries {
        if !weight.is_finite() {
            return Err(Error::invalid("weight of a fusion", weight, "a finite number").into());
        }
        let part = find(searcher, query, filter, depth + 1)?;
        found.steps.extend(part.steps);
        found.filtered.extend(part.filtered);
        lists.push((*weight, part.rows));
    }
    for fused in fuse(&lists, constant).into_iter().take(k) {
        found.rows.push(Scored { row: fused.row, score: fused.score });
        found.contributions.insert(fused.row, fused.contributions);
    }
    Ok(found)
}

pub(crate) fn find_nearest<S: Searcher>(
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
    Ok(Found { rows, steps, filtered: candidates.filtered, ..Found::default() })
}

fn prepare_queries(name: &str, config: &VectorConfig, values: &[&Vec<f32>]) -> Result<Vec<Vec<f32>>, Error> {
    if values.is_empty() {
        return Err(Error::invalid(format!("query for vector `{name}`"), "no vector", "at least one"));
    }
    values.iter().map(|values| prepare(|| format!("query for vector `{name}`"), config, values)).collect()
}
