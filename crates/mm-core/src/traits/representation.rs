//! Models that learn representations: autoencoders and adversarial learners.

use super::LossOutput;
use crate::{DType, Error, Features, Input, Modality, Result, Tensor};
use std::collections::BTreeMap;

/// The rows of a batch, each with the modalities that it has.
#[derive(Debug, Clone)]
pub struct InputSet {
    /// Number of rows.
    pub rows: i64,
    /// Of each modality its values `[rows, …]` (zeros where a row lacks it), and which rows have it, `[rows]` bool.
    pub parts: BTreeMap<Modality, (Input, Tensor)>,
    /// Class indices `[rows]` int64, −1 where a row has none, for learners that use labels.
    pub labels: Option<Tensor>,
}

impl InputSet {
    /// A set with one modality that every row has.
    ///
    /// # Errors
    /// If the input has no dimensions.
    pub fn of(modality: Modality, input: Input) -> Result<Self> {
        let rows = input.rows()?;
        let present = Tensor::ones(&[rows], DType::Bool, input.values.device())?;
        Ok(Self { rows, parts: BTreeMap::from([(modality, (input, present))]), labels: None })
    }

    /// The values and presence of a modality.
    ///
    /// # Errors
    /// If the set lacks the modality.
    pub fn get(&self, modality: &Modality) -> Result<&(Input, Tensor)> {
        self.parts.get(modality).ok_or_else(|| {
            Error::unknown("modality of the batch", modality.name(), self.parts.keys().map(Modality::name))
        })
    }

    /// The set with these modalities only.
    pub fn only(&self, modalities: &[&Modality]) -> Self {
        let parts = self.parts.iter().filter(|(m, _)| modalities.contains(m)).map(|(m, p)| (m.clone(), p.clone()));
        Self { rows: self.rows, parts: parts.collect(), labels: self.labels.clone() }
    }
}

/// A model that learns a representation of one or several modalities from the data itself.
pub trait RepresentationLearner {
    /// The loss of a batch; none when no row of it can be used.
    ///
    /// # Errors
    /// If the inputs do not fit the model.
    fn loss(&self, set: &InputSet, train: bool) -> Result<Option<LossOutput>>;

    /// Whether [`RepresentationLearner::loss`] is that of the rows of all processes where several train together
    /// ([`crate::distributed`]).
    fn supports_process_groups(&self) -> bool {
        false
    }

    /// The representation of each row, `[rows, dim]`, from the modalities that the row has.
    ///
    /// # Errors
    /// If the inputs do not fit the model.
    fn encode(&self, set: &InputSet) -> Result<Tensor>;

    /// Dimension of the representation.
    fn dim(&self) -> i64;

    /// Whether rows with this modality only can be encoded.
    fn accepts(&self, _modality: &Modality) -> bool {
        true
    }

    /// Features `[rows, length, dim]`, for models with more than one vector per row.
    ///
    /// # Errors
    /// Those of [`RepresentationLearner::encode`].
    fn features(&self, set: &InputSet) -> Result<Features> {
        Features::from_pooled(&self.encode(set)?)
    }

    /// Values of `modality` reconstructed from `set`, which may lack it; none where the model cannot generate it.
    ///
    /// # Errors
    /// Those of [`RepresentationLearner::encode`].
    fn reconstruct(&self, set: &InputSet, modality: &Modality) -> Result<Option<Tensor>> {
        match self.decoder() {
            Some(decoder) if decoder.generates(modality) => decoder.decode(&self.encode(set)?, modality).map(Some),
            _ => Ok(None),
        }
    }

    /// The decoder, for models that can generate values from representations.
    fn decoder(&self) -> Option<&dyn GenerativeDecoder> {
        None
    }

    /// log p of the values of each row in nats, `[rows]`: a lower bound that grows with `samples`; none for models
    /// without a likelihood.
    ///
    /// *Importance Weighted Autoencoders* (Burda et al., 2016), <https://arxiv.org/abs/1509.00519>.
    ///
    /// # Errors
    /// If the inputs do not fit the model.
    fn log_likelihood(&self, _set: &InputSet, _samples: usize) -> Result<Option<Tensor>> {
        Ok(None)
    }

    /// Whether the representations of all modalities share one space, so that one can retrieve the other.
    fn is_joint(&self) -> bool {
        false
    }
}

/// A model that generates values.
pub trait GenerativeDecoder {
    /// Whether it generates values of this modality.
    fn generates(&self, modality: &Modality) -> bool;

    /// Representations `[rows, dim]` → values of a modality `[rows, …]`.
    ///
    /// # Errors
    /// If the representations do not fit, or the modality is not generated.
    fn decode(&self, code: &Tensor, modality: &Modality) -> Result<Tensor>;

    /// Representations `[rows, dim]` sampled from the prior, or one for each row of a condition; none for models
    /// without a prior.
    ///
    /// # Errors
    /// If the condition does not fit the model.
    fn sample_prior(&self, rows: i64, condition: Option<&InputSet>) -> Result<Option<Tensor>>;
}
