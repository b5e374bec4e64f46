//! Data sets: samples by index, each with the raw values of its modalities.

use mm_core::{Modality, Source};
use std::collections::BTreeMap;

/// Samples by index, each with the raw values of its modalities. A [`Loader`](crate::Loader) makes batches of any data
/// set.
///
/// [`Manifest`](crate::Manifest) is a data set on disk, [`InMemoryDataset`] one in memory.
pub trait Dataset: Send + Sync {
    /// Number of samples.
    fn len(&self) -> usize;

    /// Whether there is no sample.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The data set's name in messages, such as its path.
    fn name(&self) -> String;

    /// A sample's unique id.
    fn id(&self, index: usize) -> &str;

    /// A sample's row number in messages, counted from 1.
    fn row_number(&self, index: usize) -> usize {
        index + 1
    }

    /// Identity of what a sample shows: samples of the same item match each other in retrieval.
    fn item(&self, index: usize) -> &str {
        self.id(index)
    }

    /// Orders the samples of an item.
    fn order(&self, index: usize) -> f64 {
        index as f64
    }

    /// A sample's raw values of a modality, such as five captions of one image; empty where the modality is missing.
    fn sources(&self, index: usize, modality: &Modality) -> &[Source];

    /// The text of a sample's metadata column, where it has one.
    fn cell(&self, _index: usize, _column: &str) -> Option<&str> {
        None
    }
}

#[derive(Debug, Clone)]
struct Sample {
    id: String,
    sources: BTreeMap<Modality, Vec<Source>>,
}

/// A data set in memory.
///
/// ```
/// use mm_core::{Modality, Source};
/// use mm_data::{Dataset, InMemoryDataset};
///
/// let mut dataset = InMemoryDataset::new();
/// dataset.push("a", [(Modality::TEXT, Source::Text("a red apple".into()))]);
/// dataset.push("b", [(Modality::TEXT, Source::Text("two pears".into()))]);
/// assert_eq!((dataset.len(), dataset.id(1)), (2, "b"));
/// ```
#[derive(Debug, Clone, Default)]
pub struct InMemoryDataset {
    samples: Vec<Sample>,
}

impl InMemoryDataset {
    /// An empty data set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a sample. Several values of one modality are alternatives (captions of one image), of which one is sampled
    /// in training.
    pub fn push(&mut self, id: impl Into<String>, values: impl IntoIterator<Item = (Modality, Source)>) {
        let mut sources: BTreeMap<Modality, Vec<Source>> = BTreeMap::new();
        for (modality, source) in values {
            sources.entry(modality).or_default().push(source);
        }
        self.samples.push(Sample { id: id.into(), sources });
    }
}

impl Dataset for InMemoryDataset {
    fn len(&self) -> usize {
        self.samples.len()
    }

    fn name(&self) -> String {
        "the data set in memory".into()
    }

    fn id(&self, index: usize) -> &str {
        &self.samples[index].id
    }

    fn sources(&self, index: usize, modality: &Modality) -> &[Source] {
        self.samples[index].sources.get(modality).map(Vec::as_slice).unwrap_or_default()
    }
}
