//! Search by examples and counter-examples.

use crate::{
    Error, Example,
    row::prepare,
    search::{Found, Searcher, find_nearest},
};

/// The rows nearest to what examples show and farthest from what counter-examples show.
pub(crate) fn recommend<S: Searcher>(
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
