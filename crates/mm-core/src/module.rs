//! The traits that the floors of the house meet at: small and object-safe.

use crate::{FeatureSet, Features, Input, Modality, Result, Tensor, seed::Rng};
use std::{collections::BTreeMap, path::PathBuf};

/// Anything that maps one tensor to another.
pub trait Module: Send {
    /// The layer's output; `train` switches dropout and batch statistics on.
    fn forward(&self, input: &Tensor, train: bool) -> Result<Tensor>;
}

/// Whether a cell of a table is written where there is nothing: empty, or one of the marks that pandas takes for that; numbers that are none.
pub fn is_missing_cell(cell: &str) -> bool {
    let cell = cell.trim().to_ascii_lowercase();
    let marks = ["", "nan", "na", "n/a", "#n/a", "null", "none", "<na>"];
    marks.contains(&cell.as_str()) || cell.parse().is_ok_and(|n: f64| !n.is_finite())
}

/// One raw value of a sample, as a manifest names it.
#[derive(Debug, Clone, PartialEq)]
pub enum Source {
    /// Text itself.
    Text(String),
    /// A file to be read.
    Path(PathBuf),
    /// Any other value (numbers, lists, objects), for modalities that a crate brings.
    Value(serde_json::Value),
}

/// What a processor may know about the sample at hand.
#[derive(Debug)]
pub struct ProcessContext {
    /// Whether augmentation is wanted.
    pub train: bool,
    /// A generator that is a function of run seed, epoch and row.
    pub rng: Rng,
}

impl ProcessContext {
    /// A context for plain reading, without augmentation.
    pub fn eval() -> Self {
        Self { train: false, rng: Rng::new(&[0]) }
    }
}

/// Raw value → numbers of one sample. Runs in worker threads, ahead of the model.
pub trait Processor: Send + Sync {
    /// The numbers of one sample; rows of a batch may differ in their first size only, which is then padded.
    fn process(&self, source: &Source, context: &mut ProcessContext) -> Result<Tensor>;

    /// The number that padding is filled with.
    fn pad_value(&self) -> f64 {
        0.0
    }

    /// Whether samples differ in their first size (tokens, frames), so that a batch needs padding and a mask.
    fn is_sequence(&self) -> bool;

    /// Batches of sequences are padded to a multiple of this length: fewer shapes, so that what is planned and allocated for one is
    /// used again.
    fn pad_to_multiple_of(&self) -> i64 {
        1
    }

    /// What the positions of a sample are called, where they are words or pieces of words: for showing, not for computing. Empty elsewhere.
    fn token_names(&self, _source: &Source) -> Result<Vec<String>> {
        Ok(Vec::new())
    }

    /// How many samples were cut so far because they were longer than the model takes, and what that is ("512 tokens").
    fn truncated(&self) -> Option<(usize, String)> {
        None
    }

    /// A text that changes whenever the numbers would (before augmentation): the key that cached samples are kept under.
    fn fingerprint(&self) -> String;

    /// Augmentation that acts on the numbers, so that cached samples get it too. [`Processor::process`] includes it.
    fn augment(&self, sample: Tensor, _context: &mut ProcessContext) -> Result<Tensor> {
        Ok(sample)
    }
}

/// Input of one modality → [`Features`].
pub trait Encoder: Send {
    /// Features `[batch, length, width]`.
    fn encode(&self, input: &Input, train: bool) -> Result<Features>;

    /// One vector a row, `[batch, width]`: the mean over the positions that are there, unless the encoder knows better.
    fn embed(&self, input: &Input, train: bool) -> Result<Tensor> {
        self.encode(input, train)?.pool(crate::Pooling::Mean)
    }

    /// Both at once. Encoders whose vector comes from their features make these once.
    fn encode_and_embed(&self, input: &Input, train: bool) -> Result<(Features, Tensor)> {
        Ok((self.encode(input, train)?, self.embed(input, train)?))
    }

    /// Width of its features.
    fn dim(&self) -> i64;

    /// Width of the vector that [`Encoder::embed`] gives.
    fn embedding_dim(&self) -> i64 {
        self.dim()
    }

    /// The modality that it takes.
    fn modality(&self) -> Modality;
}

/// Where a [`Reasoner`] looked at one step.
#[derive(Debug)]
pub struct AttentionStep {
    /// Which step, counted from 0.
    pub step: usize,
    /// What it looked at.
    pub modality: Modality,
    /// How much each of its positions counted, `[batch, positions]`.
    pub weights: Tensor,
}

/// What a [`Reasoner`] gives.
#[derive(Debug)]
pub struct ReasonerOutput {
    /// `[batch, 1, width]`.
    pub features: Features,
    /// Where it looked, step by step.
    pub attention: Vec<AttentionStep>,
}

/// A question in one modality put to the others.
pub trait Reasoner: Send {
    /// Features of the answer, from whatever modalities each row has.
    fn reason(&self, set: &FeatureSet, train: bool) -> Result<ReasonerOutput>;

    /// Width of the answer's features.
    fn dim(&self) -> i64;
}

/// What a [`RepresentationLearner`] is given: the rows of a batch, each with the modalities that it has.
#[derive(Debug, Clone)]
pub struct InputSet {
    /// Number of rows.
    pub rows: i64,
    /// For each modality its values `[rows, …]` (zeros where a row lacks it) and `[rows]` bool, which rows have it.
    pub parts: BTreeMap<Modality, (Input, Tensor)>,
    /// `[rows]` int64, class numbers, −1 where a row has none; for learners that use them.
    pub labels: Option<Tensor>,
}

impl InputSet {
    /// A set of one modality that every row has.
    pub fn of(modality: Modality, input: Input) -> Result<Self> {
        let rows = input.rows()?;
        let present = Tensor::ones(&[rows], crate::DType::Bool, input.values.device())?;
        Ok(Self { rows, parts: BTreeMap::from([(modality, (input, present))]), labels: None })
    }

    /// The values and presence of a modality.
    pub fn get(&self, modality: &Modality) -> Result<&(Input, Tensor)> {
        self.parts.get(modality).ok_or_else(|| {
            crate::Error::unknown("modality of the batch", modality.name(), self.parts.keys().map(Modality::name))
        })
    }

    /// The set with these modalities alone.
    pub fn only(&self, wanted: &[&Modality]) -> Self {
        let parts = self.parts.iter().filter(|(m, _)| wanted.contains(m)).map(|(m, p)| (m.clone(), p.clone()));
        Self { rows: self.rows, parts: parts.collect(), labels: self.labels.clone() }
    }
}

/// A loss to be made small, and figures to log beside it.
pub type LossOutput = (Tensor, Vec<(String, f64)>);

/// A model that learns a representation from the data themselves (autoencoders, adversaries), of one modality or several.
pub trait RepresentationLearner: Send {
    /// The loss of a batch; none when no row of it can be learned from.
    fn loss(&self, set: &InputSet, train: bool) -> Result<Option<LossOutput>>;

    /// What it makes of each row, `[rows, width]`, from whatever modalities the row has.
    fn encode(&self, set: &InputSet) -> Result<Tensor>;

    /// Width of the code.
    fn dim(&self) -> i64;

    /// Whether it makes a code of rows that have this modality alone.
    fn accepts(&self, _modality: &Modality) -> bool {
        true
    }

    /// Features `[rows, length, width]` where it has more than one vector a row.
    fn features(&self, set: &InputSet) -> Result<Features> {
        Features::from_pooled(&self.encode(set)?)
    }

    /// Values of `modality` that it makes of what is in `set`, which may lack it; none where it cannot. Unless it says otherwise: what its
    /// other half decodes from its code.
    fn reconstruct(&self, set: &InputSet, modality: &Modality) -> Result<Option<Tensor>> {
        match self.decoder() {
            Some(maker) if maker.generates(modality) => maker.decode(&self.encode(set)?, modality).map(Some),
            _ => Ok(None),
        }
    }

    /// Its other half, where it can make values from codes.
    fn decoder(&self) -> Option<&dyn GenerativeDecoder> {
        None
    }

    /// log p of each row's values in nats, `[rows]`: a lower bound that grows with the number of `samples` (IWAE, Burda 2016); none where
    /// it has no likelihood.
    fn log_likelihood(&self, _set: &InputSet, _samples: usize) -> Result<Option<Tensor>> {
        Ok(None)
    }

    /// Whether the codes of its modalities lie in one space, so that one finds the other.
    fn is_joint(&self) -> bool {
        false
    }
}

/// A model that makes new values.
pub trait GenerativeDecoder {
    /// Whether it makes values of this modality.
    fn generates(&self, modality: &Modality) -> bool;

    /// Codes `[rows, width]` → values of a modality `[rows, …]`.
    fn decode(&self, code: &Tensor, modality: &Modality) -> Result<Tensor>;

    /// Codes `[rows, width]` drawn from its prior; with a condition, one for each of its rows; none where it has no prior.
    fn sample_prior(&self, rows: i64, condition: Option<&InputSet>) -> Result<Option<Tensor>>;
}

/// A task that a trainer can learn: a batch → a loss with named parts.
pub trait TrainingObjective<Batch> {
    /// The loss of a batch, and figures to log beside it; `None` when there is nothing to learn from it (too many of its rows were
    /// broken, say).
    fn loss(&self, batch: &Batch, train: bool) -> Result<Option<LossOutput>>;

    /// What it learns beside its parameters and must find again when a run goes on: tensors by name.
    fn state(&self) -> Result<Vec<(String, Tensor)>> {
        Ok(Vec::new())
    }

    /// Takes back what [`TrainingObjective::state`] gave; `find` gives a tensor by its name, where it was saved.
    fn load_state(&self, _find: &dyn Fn(&str) -> Option<Tensor>) -> Result<()> {
        Ok(())
    }
}
