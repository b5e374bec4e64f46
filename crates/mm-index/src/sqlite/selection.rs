//! The rows that a filter selects, as sets of their numbers.

use fixedbitset::FixedBitSet;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

/// Numbers of rows.
pub(super) type RowSet = FixedBitSet;

/// The rows that a filter selects.
pub(super) struct Selection {
    rows: RowSet,
    len: usize,
    /// What graphs are searched for, by the number of their named vector.
    narrowed: Mutex<HashMap<i64, Arc<Narrowed>>>,
}

/// The selected rows that have a named vector.
pub(super) struct Narrowed {
    pub(super) rows: Selection,
    /// How many of them are in the graph.
    pub(super) in_graph: usize,
}

impl Selection {
    pub(super) fn new(rows: RowSet) -> Self {
        Self { len: rows.count_ones(..), rows, narrowed: Mutex::default() }
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
        let narrowed = self.narrowed.lock().unwrap_or_else(PoisonError::into_inner);
        size_of_val(self.rows.as_slice()) + narrowed.values().map(|narrowed| narrowed.rows.bytes()).sum::<usize>()
    }

    /// Without the rows that lack a named vector, as they were counted before.
    pub(super) fn narrowed(&self, vector: i64) -> Option<Arc<Narrowed>> {
        self.narrowed.lock().unwrap_or_else(PoisonError::into_inner).get(&vector).cloned()
    }

    /// Without the rows that lack a named vector. Rows up to the number `through` that have it are in its graph; `fresh`
    /// are the later ones.
    pub(super) fn narrow(
        &self,
        vector: i64,
        through: i64,
        is_in_graph: impl Fn(i64) -> bool,
        fresh: &[i64],
    ) -> Arc<Narrowed> {
        let mut rows = RowSet::with_capacity(self.rows.len());
        let row_numbers = self.numbers().take_while(|number| *number <= through);
        row_numbers.filter(|number| is_in_graph(*number)).for_each(|number| rows.insert(number as usize));
        let in_graph = rows.count_ones(..);
        fresh.iter().filter(|number| self.contains(**number)).for_each(|number| rows.insert(*number as usize));
        let narrowed = Arc::new(Narrowed { rows: Self::new(rows), in_graph });
        let mut known = self.narrowed.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(vector, Arc::clone(&narrowed));
        narrowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_without_the_vector_are_left_out() {
        let selection = Selection::new([1, 2, 5, 8, 9, 11].into_iter().collect());
        assert!(selection.narrowed(1).is_none());
        let narrowed = selection.narrow(1, 8, |number| number % 2 == 0, &[9, 10]);
        assert_eq!((narrowed.rows.numbers().collect::<Vec<_>>(), narrowed.in_graph), (vec![2, 8, 9], 2));
        assert!(Arc::ptr_eq(&narrowed, &selection.narrowed(1).unwrap()));
        assert_eq!((selection.len(), selection.narrowed(2).is_none()), (6, true));
    }
}
