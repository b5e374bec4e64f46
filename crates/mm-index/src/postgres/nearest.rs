//! Search by vectors: the server finds candidates, exactly or by a graph; their scores are computed here.

use super::{
    NamedVector, PostgresStore,
    failure::Failure,
    filter::Selection,
    parameters::{Parameters, limit},
    read::{PARTS, group_parts, vectors_by_number},
    stats::{count, graph_index},
};
use crate::{
    Distance, Method, Step,
    score::{Scored, Scorer},
    search::Wanted,
};
use half::f16;
use pgvector::{HalfVector, Vector};
use postgres::Transaction;
use std::time::Instant;

/// Candidates that the server is asked for, besides as many as are wanted: its scores are rounded otherwise.
const SPARE_CANDIDATES: usize = 16;

/// How many times as many candidates as results a graph is asked for.
const OVERSAMPLING: usize = 2;

/// Largest `hnsw.ef_search`; a graph is walked further from there (`hnsw.iterative_scan`).
const MAX_EXPANSION: usize = 1000;

/// Makes the planner walk the graph in the order of the distances, and check filters on the way.
const WALK: &str = "SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off; SET LOCAL enable_sort = off;
    SET LOCAL enable_hashjoin = off; SET LOCAL enable_mergejoin = off; SET LOCAL hnsw.iterative_scan = relaxed_order;";

/// Ends what [`WALK`] began.
const WALKED: &str = "SET LOCAL enable_seqscan TO DEFAULT; SET LOCAL enable_bitmapscan TO DEFAULT;
    SET LOCAL enable_sort TO DEFAULT; SET LOCAL enable_hashjoin TO DEFAULT; SET LOCAL enable_mergejoin TO DEFAULT";

/// The operator of a distance: the negative scalar product, or the distance. Cosine vectors are of unit length.
fn operator(distance: Distance) -> &'static str {
    match distance {
        Distance::Cosine | Distance::Dot => "<#>",
        Distance::Euclidean => "<->",
    }
}

/// What is searched for.
struct Target<'a> {
    vector: &'a NamedVector,
    /// Prepared vectors: one, or one for each token.
    queries: &'a [Vec<f32>],
    selection: Option<&'a Selection>,
}

impl Target<'_> {
    fn is_single(&self) -> bool {
        !self.vector.config.multi && self.queries.len() == 1
    }

    fn condition(&self, parameters: &mut Parameters) -> String {
        self.selection.map_or("true".to_owned(), |selection| selection.condition(parameters))
    }

    /// The scores of rows, best first.
    fn score(&self, rows: &[(i64, Vec<f16>)]) -> Vec<Scored> {
        let mut scorer = Scorer::new(self.vector.config.distance, self.vector.config.dim, self.queries);
        let score =
            |(number, values): &(i64, Vec<f16>)| Scored { row: *number, score: f64::from(scorer.score(values)) };
        let mut scored: Vec<Scored> = rows.iter().map(score).collect();
        scored.sort_by(|a, b| b.cmp(a));
        scored
    }
}

impl PostgresStore {
    /// The scores of rows by their row numbers, best first.
    pub(super) fn score(
        &self,
        transaction: &mut Transaction<'_>,
        wanted: Wanted<'_>,
        row_numbers: &[i64],
    ) -> Result<Vec<Scored>, Failure> {
        let vector = self.named(wanted.name)?;
        let target = Target { vector, queries: wanted.queries, selection: None };
        Ok(target.score(&vectors_by_number(transaction, vector, row_numbers)?))
    }

    /// The `k` best rows, best first.
    pub(super) fn nearest(
        &self,
        transaction: &mut Transaction<'_>,
        wanted: Wanted<'_>,
        selection: Option<&Selection>,
        k: usize,
    ) -> Result<(Vec<Scored>, Step), Failure> {
        let started = Instant::now();
        let target = Target { vector: self.named(wanted.name)?, queries: wanted.queries, selection };
        let rows = count(transaction, target.vector)?;
        let mut step = Step {
            name: target.vector.name.clone(),
            method: Method::Exact,
            rows: Some(rows),
            filtered: None,
            scored: 0,
            seconds: 0.0,
            note: None,
        };
        let is_large = target.is_single() && self.settings.suits_graph(rows, k);
        // Whether a filter selects many rows is known when so many are counted: all are counted of small stores alone.
        let many = is_large.then(|| self.settings.least_filtered(rows));
        let filtered = selection.map(|selection| selection.count(transaction, many)).transpose()?;
        let is_wide = many.is_some_and(|many| filtered.is_none_or(|count| count >= many));
        step.filtered = filtered.filter(|_| !is_wide);
        let mut found = None;
        if is_wide {
            if graph_index(transaction, target.vector)?.is_some() {
                found = self.walk(transaction, &target, rows, k, &mut step)?;
            } else {
                step.note = Some("no graph yet; `mm index optimize` builds one".into());
            }
        }
        let found = match found {
            Some(found) => found,
            None => compare_all(transaction, &target, filtered.unwrap_or(rows), k, &mut step)?,
        };
        step.seconds = started.elapsed().as_secs_f64();
        Ok((found, step))
    }

    /// Walks the graph. None where that finds fewer rows than are wanted: more of the selected ones may lie where the walk
    /// did not come to.
    fn walk(
        &self,
        transaction: &mut Transaction<'_>,
        target: &Target<'_>,
        rows: usize,
        k: usize,
        step: &mut Step,
    ) -> Result<Option<Vec<Scored>>, Failure> {
        let candidates = k.saturating_mul(OVERSAMPLING).saturating_add(SPARE_CANDIDATES).min(rows);
        let expansion = self.settings.candidates(rows).max(candidates).clamp(1, MAX_EXPANSION);
        transaction.batch_execute(&format!("{WALK} SET LOCAL hnsw.ef_search = {expansion}"))?;
        let mut parameters = Parameters::default();
        // Beyond the range of 16-bit floats distances would be infinite.
        let bound = f16::MAX.to_f32();
        let query: Vec<f16> = target.queries[0].iter().map(|v| f16::from_f32(v.clamp(-bound, bound))).collect();
        let query = parameters.add(HalfVector::from(query));
        let (table, operator) = (target.vector.table(), operator(target.vector.config.distance));
        let condition = target.condition(&mut parameters);
        let count = parameters.add(limit(candidates));
        let sql = format!(
            "SELECT {PARTS} FROM {table} x WHERE {condition} ORDER BY data {operator} {query}::halfvec LIMIT {count}::bigint"
        );
        let found = transaction.query(&sql, &parameters.list())?;
        transaction.batch_execute(WALKED)?;
        let found: Vec<(i64, Vec<f16>)> = group_parts(target.vector, &found)?
            .into_iter()
            .map(|(number, values)| Ok((number, values?)))
            .collect::<Result<_, Failure>>()?;
        let mut scored = target.score(&found);
        scored.truncate(k);
        if scored.len() < k.min(rows) {
            return Ok(None);
        }
        step.method = Method::Graph;
        step.scored = found.len();
        Ok(Some(scored))
    }
}

/// Compares every row, or every one that the filter selects, by 32-bit floats in the server.
fn compare_all(
    transaction: &mut Transaction<'_>,
    target: &Target<'_>,
    rows: usize,
    k: usize,
    step: &mut Step,
) -> Result<Vec<Scored>, Failure> {
    let mut parameters = Parameters::default();
    let (table, operator) = (target.vector.table(), operator(target.vector.config.distance));
    let sql = if target.is_single() {
        let query = parameters.add(Vector::from(target.queries[0].clone()));
        let condition = target.condition(&mut parameters);
        format!(
            "SELECT number FROM {table} x WHERE {condition} ORDER BY data::vector {operator} {query}::vector, number"
        )
    } else {
        let queries: Vec<Vector> = target.queries.iter().map(|query| Vector::from(query.clone())).collect();
        let queries = parameters.add(queries);
        let condition = target.condition(&mut parameters);
        format!(
            "SELECT number FROM (
                SELECT x.number, max(-(x.data::vector {operator} q.value)) AS best
                FROM {table} x CROSS JOIN unnest({queries}::vector[]) WITH ORDINALITY AS q(value, token)
                WHERE {condition} GROUP BY x.number, q.token
            ) AS tokens GROUP BY number ORDER BY sum(best) DESC, number"
        )
    };
    let count = parameters.add(limit(k.saturating_add(SPARE_CANDIDATES)));
    let found = transaction.query(&format!("{sql} LIMIT {count}::bigint"), &parameters.list())?;
    let row_numbers: Vec<i64> = found.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
    let mut scored = target.score(&vectors_by_number(transaction, target.vector, &row_numbers)?);
    scored.truncate(k);
    step.method = Method::Exact;
    step.scored = rows;
    Ok(scored)
}
