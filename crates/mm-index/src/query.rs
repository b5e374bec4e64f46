//! What is asked of a store, and what it answers. The types are shaped as Qdrant's Query API.

use crate::{Filter, payload::Payload};
use serde::Serialize;

/// Number of results where a query states none.
const DEFAULT_K: usize = 10;

/// The constant of reciprocal rank fusion. Source: *Reciprocal Rank Fusion outperforms Condorcet and individual Rank
/// Learning Methods* (Cormack, Clarke, Büttcher, 2009).
pub const RRF_CONSTANT: f64 = 60.0;

/// How many times as many results as wanted each query of [`Query::hybrid`] finds, and how many at least.
const FUSION_DEPTH: (usize, usize) = (10, 100);

/// A search among the rows that a filter selects.
///
/// ```
/// use mm_index::{Filter, Query};
/// let like_this = Query::nearest("image", vec![0.1, 0.9]).k(5).filter(Filter::parse("year > 2000")?);
/// let words = Query::text("red bird").k(100);
/// let hybrid = Query::fusion(vec![(1.0, like_this), (0.5, words)]).k(5);
/// assert_eq!(hybrid.k, 5);
/// # Ok::<(), mm_index::FilterError>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Query {
    /// How rows are scored.
    pub search: Search,
    /// The rows that are searched; all when absent.
    pub filter: Option<Filter>,
    /// Number of results, best first.
    pub k: usize,
}

/// How rows are scored.
#[derive(Debug, Clone, PartialEq)]
pub enum Search {
    /// By the similarity of a named vector to this one; of a row with several, the most similar counts.
    Nearest {
        /// The named vector.
        vector: String,
        /// The query.
        values: Vec<f32>,
    },
    /// By BM25 over the words of the rows' texts: a row needs one of them.
    Text {
        /// Words, separated by spaces.
        words: String,
    },
    /// Reciprocal rank fusion: a row's score is the sum of `weight / (constant + rank)` over the queries that find it.
    Fusion {
        /// Queries with their weights; each finds its own `k` rows.
        queries: Vec<(f64, Query)>,
        /// See [`RRF_CONSTANT`].
        constant: f64,
    },
    /// Late interaction: the sum over these vectors of the similarity to the most similar one of the row. Source:
    /// *ColBERT: Efficient and Effective Passage Search via Contextualized Late Interaction over BERT* (Khattab,
    /// Zaharia, 2020).
    MaxSim {
        /// The named vector.
        vector: String,
        /// The query: one vector for each token.
        values: Vec<Vec<f32>>,
        /// Only the results of this query are scored; all rows when absent.
        over: Option<Box<Query>>,
    },
    /// By the similarity to examples and the dissimilarity to counter-examples: nearest to twice the mean of the
    /// positive ones minus the mean of the negative ones. Examples are not among the results.
    Recommend {
        /// The named vector.
        vector: String,
        /// Examples of what is wanted; at least one.
        positive: Vec<Example>,
        /// Examples of what is not.
        negative: Vec<Example>,
    },
}

/// An example of a recommendation.
#[derive(Debug, Clone, PartialEq)]
pub enum Example {
    /// A row of the store.
    Id(String),
    /// A vector.
    Values(Vec<f32>),
}

impl Query {
    fn new(search: Search) -> Self {
        Self { search, filter: None, k: DEFAULT_K }
    }

    /// See [`Search::Nearest`].
    pub fn nearest(vector: &str, values: Vec<f32>) -> Self {
        Self::new(Search::Nearest { vector: vector.to_owned(), values })
    }

    /// See [`Search::Text`].
    pub fn text(words: impl Into<String>) -> Self {
        Self::new(Search::Text { words: words.into() })
    }

    /// See [`Search::Fusion`].
    pub fn fusion(queries: Vec<(f64, Self)>) -> Self {
        Self::new(Search::Fusion { queries, constant: RRF_CONSTANT })
    }

    /// The `k` best rows of some queries: of one its own, of several by reciprocal rank fusion with equal weights, each of
    /// which finds ten times as many rows, and at least a hundred.
    pub fn hybrid(mut queries: Vec<Self>, k: usize) -> Self {
        if queries.len() == 1 {
            return queries.remove(0).k(k);
        }
        let (factor, least) = FUSION_DEPTH;
        let depth = k.saturating_mul(factor).max(least);
        Self::fusion(queries.into_iter().map(|query| (1.0, query.k(depth))).collect()).k(k)
    }

    /// See [`Search::MaxSim`].
    pub fn max_sim(vector: &str, values: Vec<Vec<f32>>) -> Self {
        Self::new(Search::MaxSim { vector: vector.to_owned(), values, over: None })
    }

    /// See [`Search::MaxSim`], among the results of another query.
    pub fn max_sim_over(vector: &str, values: Vec<Vec<f32>>, over: Self) -> Self {
        Self::new(Search::MaxSim { vector: vector.to_owned(), values, over: Some(Box::new(over)) })
    }

    /// See [`Search::Recommend`].
    pub fn recommend(vector: &str, positive: Vec<Example>, negative: Vec<Example>) -> Self {
        Self::new(Search::Recommend { vector: vector.to_owned(), positive, negative })
    }

    /// With this number of results.
    pub fn k(mut self, k: usize) -> Self {
        self.k = k;
        self
    }

    /// Among the rows that a filter selects.
    pub fn filter(mut self, filter: Filter) -> Self {
        self.filter = Some(filter);
        self
    }
}

/// A result.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Hit {
    /// The row's id.
    pub id: String,
    /// Higher is better. Cosine, scalar product, negative distance, BM25, or the sum of reciprocal ranks.
    pub score: f64,
    /// The row's fields.
    pub payload: Payload,
    /// The row's text.
    pub text: Option<String>,
    /// Of a fusion: what each of its queries contributed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub contributions: Vec<Contribution>,
}

/// What a query of a fusion contributed to a result.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Contribution {
    /// The index of the query.
    pub query: usize,
    /// The rank of the row among its results, from 1.
    pub rank: usize,
    /// Its score there.
    pub score: f64,
}

/// How a search was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// Every vector was compared.
    Exact,
    /// The graph was walked, and rows that are not in it yet were compared.
    Graph,
    /// The words were looked up.
    Words,
}

/// One search of a query, for a person who asks why it took its time.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Step {
    /// The named vector, or `text`.
    pub name: String,
    /// How it was searched.
    pub method: Method,
    /// Number of rows that were searched; unknown for words, which are looked up.
    pub rows: Option<usize>,
    /// Number of rows that the filter selects.
    pub filtered: Option<usize>,
    /// Number of rows that were scored.
    pub scored: usize,
    /// Wall time.
    pub seconds: f64,
    /// Why a graph was not used, where there is something to mend.
    pub note: Option<String>,
}

/// The results of a query, best first, and how they were found.
#[derive(Debug, Clone, PartialEq, Serialize, Default)]
pub struct Answer {
    /// At most `k` results, best first; rows of equal score in the order in which they were written.
    pub hits: Vec<Hit>,
    /// The searches that were done.
    pub steps: Vec<Step>,
}
