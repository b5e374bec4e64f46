//! Queries: each search gives rows with scores, which are joined and then read.

use super::{
    SqliteStore,
    failure::Failure,
    filter::{Selection, select},
    nearest::best_live,
    read::{RowData, number_of_id, read_vectors, row_data},
    tail::Target,
    text,
};
use crate::{
    Answer, Contribution, Error, Example, Filter, Hit, Method, Query, Search, Step, VectorConfig, fusion::fuse,
    row::prepare, score::Scored,
};
use rusqlite::Connection;
use std::collections::HashMap;

/// Fusions and candidates of candidates that may be inside each other.
const MAX_DEPTH: usize = 16;

/// Rows that a query found, and how.
#[derive(Default)]
struct Found {
    rows: Vec<Scored>,
    contributions: HashMap<i64, Vec<Contribution>>,
    steps: Vec<Step>,
}

impl SqliteStore {
    pub(super) fn answer(&self, connection: &Connection, query: &Query) -> Result<Answer, Failure> {
        if query.k == 0 {
            return Err(Error::invalid("number of results", 0, "at least 1").into());
        }
        let mut found = self.find(connection, query, None, 0)?;
        let mut hits = Vec::with_capacity(found.rows.len());
        for Scored { row: number, score } in &found.rows {
            // Search structures that name a row that is not there would be a damaged database.
            let missing = || Failure::Damaged(format!("row number {number} was found but is not there"));
            let RowData { id, payload, text, .. } = row_data(connection, *number)?.ok_or_else(missing)?;
            let contributions = found.contributions.remove(number).unwrap_or_default();
            hits.push(Hit { id, score: *score, payload, text, contributions });
        }
        Ok(Answer { hits, steps: found.steps })
    }

    /// The rows of a query; `outer` are conditions of the queries that it is a part of.
    fn find(
        &self,
        connection: &Connection,
        query: &Query,
        outer: Option<&Filter>,
        depth: usize,
    ) -> Result<Found, Failure> {
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
            Some(filter) if !is_joined => Some(select(connection, filter)?),
            _ => None,
        };
        let (selection, k) = (selection.as_ref(), query.k);
        match &query.search {
            Search::Nearest { vector, values } => self.find_nearest(connection, vector, &[values], selection, k),
            Search::Text { words } => find_words(connection, words, selection, k),
            Search::MaxSim { vector, values, over: None } => {
                let values: Vec<&Vec<f32>> = values.iter().collect();
                self.find_nearest(connection, vector, &values, selection, k)
            }
            Search::MaxSim { vector, values, over: Some(over) } => {
                let candidates = self.find(connection, over, filter.as_ref(), depth + 1)?;
                self.score_candidates(connection, vector, values, candidates, k)
            }
            Search::Recommend { vector, positive, negative } => {
                self.recommend(connection, vector, [positive.as_slice(), negative.as_slice()], selection, k)
            }
            Search::Fusion { queries, constant } => {
                let mut found = Found::default();
                let mut lists = Vec::new();
                for (weight, query) in queries {
                    if !weight.is_finite() {
                        return Err(Error::invalid("weight of a fusion", weight, "a finite number").into());
                    }
                    let part = self.find(connection, query, filter.as_ref(), depth + 1)?;
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

    fn find_nearest(
        &self,
        connection: &Connection,
        name: &str,
        values: &[&Vec<f32>],
        selection: Option<&Selection>,
        k: usize,
    ) -> Result<Found, Failure> {
        let vector = self.named(name)?;
        let queries = prepare_queries(name, &vector.config, values)?;
        let target = Target { vector, queries: &queries, selection };
        let (rows, step) = self.nearest(connection, &target, k)?;
        Ok(Found { rows, steps: vec![step], ..Found::default() })
    }

    /// Scores what another query found.
    fn score_candidates(
        &self,
        connection: &Connection,
        name: &str,
        values: &[Vec<f32>],
        candidates: Found,
        k: usize,
    ) -> Result<Found, Failure> {
        let started = std::time::Instant::now();
        let vector = self.named(name)?;
        let queries = prepare_queries(name, &vector.config, &values.iter().collect::<Vec<_>>())?;
        let target = Target { vector, queries: &queries, selection: None };
        let mut scored = Vec::new();
        for candidate in &candidates.rows {
            scored.extend(Self::score_row(connection, &target, None, candidate.row)?);
        }
        let count = candidates.rows.len();
        let mut steps = candidates.steps;
        let rows = best_live(connection, scored, None, k)?;
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

    fn recommend(
        &self,
        connection: &Connection,
        name: &str,
        [positive, negative]: [&[Example]; 2],
        selection: Option<&Selection>,
        k: usize,
    ) -> Result<Found, Failure> {
        let mut examples = Vec::new();
        let mean = |list: &[Example], examples: &mut Vec<i64>| self.mean(connection, name, list, examples);
        let wanted = mean(positive, &mut examples)?.ok_or_else(|| {
            Error::invalid("positive examples of a recommendation", "none", "at least one row or vector")
        })?;
        let values: Vec<f32> = match mean(negative, &mut examples)? {
            Some(unwanted) => wanted.iter().zip(unwanted).map(|(p, n)| 2.0 * p - n).collect(),
            None => wanted,
        };
        let mut found = self.find_nearest(connection, name, &[&values], selection, k.saturating_add(examples.len()))?;
        found.rows.retain(|row| !examples.contains(&row.row));
        found.rows.truncate(k);
        Ok(found)
    }

    /// The mean of examples; rows among them are added to `rows`. None where there is no example.
    fn mean(
        &self,
        connection: &Connection,
        name: &str,
        examples: &[Example],
        rows: &mut Vec<i64>,
    ) -> Result<Option<Vec<f32>>, Failure> {
        let vector = self.named(name)?;
        let mut sum = vec![0f32; vector.config.dim];
        let mut count = 0usize;
        for example in examples {
            let values = match example {
                Example::Values(values) => prepare(|| format!("example for vector `{name}`"), &vector.config, values)?,
                Example::Id(id) => {
                    let missing =
                        |found: &str| Error::invalid(format!("example `{id}`"), found, "a row with this vector");
                    let number = number_of_id(connection, id)?.ok_or_else(|| missing("no such row"))?;
                    let mut stored = Vec::new();
                    if !read_vectors(connection, vector, number, &mut stored)? {
                        return Err(missing(&format!("a row without vector `{name}`")).into());
                    }
                    rows.push(number);
                    stored.iter().map(|v| v.to_f32()).collect()
                }
            };
            for values in values.chunks_exact(vector.config.dim) {
                sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
                count += 1;
            }
        }
        Ok((count > 0).then(|| sum.into_iter().map(|v| v / count as f32).collect()))
    }
}

fn prepare_queries(name: &str, config: &VectorConfig, values: &[&Vec<f32>]) -> Result<Vec<Vec<f32>>, Error> {
    if values.is_empty() {
        return Err(Error::invalid(format!("query for vector `{name}`"), "no vector", "at least one"));
    }
    values.iter().map(|values| prepare(|| format!("query for vector `{name}`"), config, values)).collect()
}

fn find_words(connection: &Connection, words: &str, selection: Option<&Selection>, k: usize) -> Result<Found, Failure> {
    let started = std::time::Instant::now();
    let rows = text::search(connection, words, selection, k)?;
    let step = Step {
        name: "text".into(),
        method: Method::Words,
        rows: None,
        filtered: selection.map(|s| s.count_ones(..)),
        scored: rows.len(),
        seconds: started.elapsed().as_secs_f64(),
        note: None,
    };
    Ok(Found { rows, steps: vec![step], ..Found::default() })
}
