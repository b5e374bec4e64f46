//! Reciprocal rank fusion.

use crate::{Contribution, score::Scored};
use std::collections::BTreeMap;

/// A row with its sum of reciprocal ranks and where it comes from.
pub(crate) struct Fused {
    pub(crate) row: i64,
    pub(crate) score: f64,
    pub(crate) contributions: Vec<Contribution>,
}

/// Joins ranked lists, each with its weight: `weight / (constant + rank)`, ranks from 1. Best first.
pub(crate) fn fuse(lists: &[(f64, Vec<Scored>)], constant: f64) -> Vec<Fused> {
    let mut rows: BTreeMap<i64, Fused> = BTreeMap::new();
    for (query, (weight, list)) in lists.iter().enumerate() {
        for (index, scored) in list.iter().enumerate() {
            let rank = index + 1;
            let empty = || Fused { row: scored.row, score: 0.0, contributions: Vec::new() };
            let fused = rows.entry(scored.row).or_insert_with(empty);
            fused.score += weight / (constant + rank as f64);
            fused.contributions.push(Contribution { query, rank, score: scored.score });
        }
    }
    let mut fused: Vec<Fused> = rows.into_values().collect();
    fused.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.row.cmp(&b.row)));
    fused
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_are_weighted_and_summed() {
        let list = |rows: &[i64]| rows.iter().map(|row| Scored { row: *row, score: 0.5 }).collect::<Vec<_>>();
        let fused = fuse(&[(1.0, list(&[7, 8, 9])), (0.5, list(&[9, 6]))], 60.0);
        let found: Vec<(i64, f64)> = fused.iter().map(|f| (f.row, f.score)).collect();
        let expected = [(9, 1.0 / 63.0 + 0.5 / 61.0), (7, 1.0 / 61.0), (8, 1.0 / 62.0), (6, 0.5 / 62.0)];
        assert_eq!(found, expected);
        assert_eq!(fused[0].contributions.iter().map(|c| (c.query, c.rank)).collect::<Vec<_>>(), [(0, 3), (1, 1)]);
    }
}
