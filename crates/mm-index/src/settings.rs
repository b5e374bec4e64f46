//! When graphs are used, for every engine.

/// When graphs are used, and how much is kept in memory.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SearchSettings {
    /// Named vectors of fewer rows than this are searched exactly.
    pub exact_below: usize,
    /// A filter that selects fewer rows than this is searched exactly.
    pub exact_filter_rows: usize,
    /// A filter that selects a smaller fraction of the rows than this is searched exactly.
    pub exact_filter_fraction: f64,
    /// A query for a larger fraction of the rows than this is searched exactly.
    pub exact_k_fraction: f64,
    /// Neighbors of a row in a graph (M of HNSW). When absent, 16 for up to 200,000 rows and 32 for more: some regions of a
    /// large graph with few links are reached by no path.
    pub connectivity: Option<usize>,
    /// Candidates that are kept while a row is added to a graph (ef_construction).
    pub expansion_add: usize,
    /// Candidates that are kept while a graph is searched (ef): more find more and take longer. When absent, 192 in a graph
    /// with 16 links or fewer and 128 in one with more, for up to 100,000 rows, growing with the cube root of their number
    /// (275 for a million with 32 links).
    pub expansion_search: Option<usize>,
    /// Bytes of vectors that are kept in memory for exact search, for each named vector; the rest is read each time.
    /// PostgreSQL compares vectors in the server, and keeps none here.
    pub cache_bytes: usize,
}

impl Default for SearchSettings {
    fn default() -> Self {
        Self {
            exact_below: 50_000,
            exact_filter_rows: 20_000,
            exact_filter_fraction: 0.02,
            exact_k_fraction: 0.1,
            connectivity: None,
            expansion_add: 128,
            expansion_search: None,
            cache_bytes: 512 << 20,
        }
    }
}

/// Candidates in a graph of [`DEFAULT_ROWS`] rows or fewer.
const DEFAULT_CANDIDATES: usize = 128;
/// The same in a graph with [`FEW_LINKS`], where fewer of the nearest rows are reached: with 128 candidates recall@10 of
/// 100,000 embedded texts is 0.984 to 0.989.
const FEW_LINKS_CANDIDATES: usize = 192;
const DEFAULT_ROWS: usize = 100_000;

const FEW_LINKS: usize = 16;
const MANY_LINKS: usize = 32;
/// Rows of the largest graph with few links.
const FEW_LINKS_ROWS: usize = 200_000;

impl SearchSettings {
    /// A graph of which a larger fraction is deleted rows is built anew rather than extended.
    pub const MAX_DELETED_FRACTION: f64 = 0.2;

    /// Neighbors of a row in a graph of so many rows.
    pub fn links(&self, rows: usize) -> usize {
        self.connectivity.unwrap_or(if rows > FEW_LINKS_ROWS { MANY_LINKS } else { FEW_LINKS })
    }

    /// Candidates that are kept while a graph of so many rows is searched.
    pub fn candidates(&self, rows: usize) -> usize {
        let growth = (rows as f64 / DEFAULT_ROWS as f64).cbrt().max(1.0);
        let base = if self.links(rows) > FEW_LINKS { DEFAULT_CANDIDATES } else { FEW_LINKS_CANDIDATES };
        self.expansion_search.unwrap_or((base as f64 * growth) as usize)
    }

    /// Selected rows that are kept while a graph of so many rows is searched for `selected` ones of them. Fewer do: the
    /// walk passes rows that are not selected too, several for each that is.
    pub(crate) fn filtered_candidates(&self, rows: usize, selected: usize) -> usize {
        let fraction = (selected as f64 / rows.max(1) as f64).min(1.0);
        (self.candidates(rows) as f64 * fraction.cbrt()).ceil() as usize
    }

    /// Whether a graph of `rows` rows finds `k` of them faster than comparing all of them, without a filter.
    pub(crate) fn suits_graph(&self, rows: usize, k: usize) -> bool {
        rows >= self.exact_below && k as f64 <= self.exact_k_fraction * rows as f64
    }

    /// How many of `rows` rows a filter has to select for a graph to be faster than comparing these.
    pub(crate) fn least_filtered(&self, rows: usize) -> usize {
        let fraction = (self.exact_filter_fraction * rows as f64).ceil() as usize;
        fraction.max(self.exact_filter_rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_grow_with_the_graph_unless_given() {
        let settings = SearchSettings::default();
        assert_eq!(
            [0, 1000, 100_000, 1_000_000, 10_000_000].map(|rows| settings.candidates(rows)),
            [192, 192, 192, 275, 594]
        );
        assert_eq!([0, 200_000, 200_001].map(|rows| settings.links(rows)), [16, 16, 32]);
        assert_eq!([200_000, 200_001].map(|rows| settings.candidates(rows)), [241, 161]);
        let few = SearchSettings { connectivity: Some(8), ..settings };
        assert_eq!((few.links(1_000_000), few.candidates(1_000_000)), (8, 413));
        assert_eq!(SearchSettings { expansion_search: Some(64), ..settings }.candidates(1_000_000), 64);
        let filtered = |selected| settings.filtered_candidates(1_000_000, selected);
        assert_eq!([1_000_000, 125_000, 1000].map(filtered), [275, 138, 28]);
    }
}
