//! The rows that a filter selects, as sets of their numbers.

use fixedbitset::FixedBitSet;

/// Numbers of rows.
pub(super) type RowSet = FixedBitSet;

/// The rows that a filter selects.
pub(super) struct Selection {
    rows: RowSet,
    len: usize,
}

/// The selected rows that have a named vector.
pub(super) struct Narrowed {
    pub(super) rows: Selection,
    /// How many of them are in the graph.
    pub(super) in_graph: usize,
}

impl Selection {
    pub(super) fn new(rows: RowSet) -> Self {
        Self { len: rows.count_ones(..), rows }
    }

    /// Whether a row is selected; rows that were written after the selection was made are not.
    pub(super) fn contains(&self, number: i64) -> bool {
        usize::try_from(number).is_ok_and(|number| self.rows.contains(number))
    }

    /// Number of rows.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Their numbers, in ascending order.
    pub(super) fn numbers(&self) -> impl Iterator<Item = i64> {
        self.rows.ones().filter_map(|number| i64::try_from(number).ok())
    }

    /// Bytes in memory.
    pub(super) fn bytes(&self) -> usize {
        size_of_val(self.rows.as_slice())
    }

    /// Without the rows that lack a named vector: `graph` are the rows of its graph, `fresh` those that the graph lacks.
    pub(super) fn narrow(&self, graph: &RowSet, fresh: &[i64]) -> Narrowed {
        let mut rows = self.rows.clone();
        rows.intersect_with(graph);
        let in_graph = rows.count_ones(..);
        fresh.iter().filter(|number| self.contains(**number)).for_each(|number| rows.insert(*number as usize));
        Narrowed { rows: Self::new(rows), in_graph }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_without_the_vector_are_left_out() {
        let selection = Selection::new([1, 2, 5, 8, 9, 11].into_iter().collect());
        for graph in [vec![2, 4, 6, 8], vec![2, 8, 500]] {
            let narrowed = selection.narrow(&graph.into_iter().collect(), &[9, 10, 600]);
            assert_eq!((narrowed.rows.numbers().collect::<Vec<_>>(), narrowed.in_graph), (vec![2, 8, 9], 2));
            assert_eq!((narrowed.rows.len(), selection.len()), (3, 6));
        }
    }
}
