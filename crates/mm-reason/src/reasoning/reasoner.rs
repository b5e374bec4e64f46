//! The reasoner around every network: projects each modality to the hidden dimension and reports attention per
//! modality.

use super::{
    config::{NetworkConfig, ReasoningConfig},
    network::{NetworkContext, ReasonerInput, ReasoningNetwork},
    registry::network_spec,
};
use crate::{Error, Result};
use mm_core::{
    AttentionStep, DType, FeatureSet, Features, Modality, Module, Pooling, Reasoner, ReasonerOutput, Scope, Tensor,
    nn::{Linear, Norm, NormConfig},
};

impl NetworkConfig {
    /// Whether each attention step of this network belongs to one token of the query, which is then a program.
    ///
    /// # Errors
    /// For an unknown kind.
    pub fn one_step_per_token(&self) -> Result<bool> {
        Ok(network_spec(&self.kind)?.one_step_per_token)
    }
}

/// Features of one modality → the hidden dimension.
struct InputProjection {
    modality: Modality,
    projection: Linear,
    norm: Option<Norm>,
}

impl InputProjection {
    fn new(scope: &Scope<'_>, modality: &Modality, input_dim: i64, config: &ReasoningConfig) -> Result<Self> {
        let scope = scope.pp(modality);
        let dim = config.hidden_dim;
        Ok(Self {
            modality: modality.clone(),
            projection: Linear::new(&scope.pp("projection"), input_dim, dim, true)?,
            norm: config.input_norm.then(|| Norm::new(&scope.pp("norm"), dim, NormConfig::default())).transpose()?,
        })
    }
}

/// A network with the projections of its query and context modalities.
struct NetworkReasoner {
    query: InputProjection,
    context: Vec<InputProjection>,
    network: Box<dyn ReasoningNetwork>,
    config: ReasoningConfig,
}

/// Builds the network of `config` for modalities of these feature dimensions.
///
/// # Errors
/// If the kind of network or the query modality is unknown, if there is no modality besides the query, or if an option
/// is out of range.
pub fn build(scope: &Scope<'_>, config: &ReasoningConfig, dims: &[(Modality, i64)]) -> Result<Box<dyn Reasoner>> {
    let (hidden_dim, dropout) = (config.hidden_dim, config.dropout);
    if hidden_dim < 4 {
        return Err(Error::invalid_argument("reason.hidden_dim", hidden_dim, "at least 4"));
    }
    if !(0.0..1.0).contains(&dropout) {
        return Err(Error::invalid_argument("reason.dropout", dropout, "a probability in [0, 1)"));
    }
    let spec = network_spec(&config.network.kind)?;
    let is_query = |m: &Modality| m.name() == config.query;
    let Some((modality, input_dim)) = dims.iter().find(|(m, _)| is_query(m)) else {
        let known = dims.iter().map(|(m, _)| m.name());
        return Err(mm_core::Error::unknown("query modality (reason.query)", &config.query, known).into());
    };
    let inputs = scope.pp("inputs");
    let query = InputProjection::new(&inputs, modality, *input_dim, config)?;
    let coordinates = if config.coordinates { 2 } else { 0 };
    let context = dims
        .iter()
        .filter(|(m, _)| !is_query(m))
        .map(|(m, dim)| InputProjection::new(&inputs, m, dim + coordinates, config))
        .collect::<Result<Vec<_>>>()?;
    if context.is_empty() {
        return Err(Error::invalid_argument("inputs", "one modality", "the query modality and at least one other"));
    }
    let options = &config.network.options;
    let network = (spec.build)(&NetworkContext { scope: scope.pp("network"), hidden_dim, dropout, options })?;
    Ok(Box::new(NetworkReasoner { query, context, network, config: config.clone() }))
}

/// Row and column of each position of a square grid, in [−1, 1], `[positions, 2]`; zeros where the positions form no
/// square.
fn grid_coordinates(count: i64) -> mm_core::Result<Tensor> {
    let size = (count as f64).sqrt().round() as i64;
    let square = size * size == count && size > 1;
    let coordinate = |n: i64| if square { 2.0 * n as f32 / (size - 1) as f32 - 1.0 } else { 0.0 };
    let all: Vec<f32> = (0..count).flat_map(|n| [coordinate(n / size.max(1)), coordinate(n % size.max(1))]).collect();
    Tensor::from_vec(&all, &[count, 2])
}

impl NetworkReasoner {
    /// Features `[batch, positions, dim]` of one modality at the hidden dimension, and which positions are valid.
    fn project(
        &self,
        input: &InputProjection,
        set: &FeatureSet,
        coordinates: bool,
        train: bool,
    ) -> mm_core::Result<(Tensor, Tensor)> {
        let Some(features) = set.get(&input.modality) else {
            // No row has this modality: one invalid position.
            let device = input.projection.device();
            let x = Tensor::zeros(&[set.rows(), 1, self.config.hidden_dim], DType::F32, device)?;
            return Ok((x, Tensor::zeros(&[set.rows(), 1], DType::Bool, device)?));
        };
        let mut x = features.values.clone();
        let shape = x.shape();
        if coordinates {
            let grid = grid_coordinates(shape[1])?.to_device(x.device())?.unsqueeze(0)?.expand(&[shape[0], -1, -1])?;
            x = Tensor::cat(&[&x, &grid.to_dtype(x.dtype()?)?], 2)?;
        }
        let x = input.projection.forward(&x, train)?;
        let x = input.norm.as_ref().map_or(Ok(x.clone()), |norm| norm.forward(&x, train))?;
        let x = x.dropout(self.config.dropout, train)?;
        let mut mask = match &features.mask {
            Some(mask) => mask.clone(),
            None => Tensor::ones(&shape[..2], DType::Bool, x.device())?,
        };
        if let Some(present) = set.present(&input.modality) {
            mask = mask.logical_and(&present.unsqueeze(1)?)?;
        }
        Ok((x.mul(&mask.unsqueeze(-1)?.to_dtype(x.dtype()?)?)?, mask))
    }
}

impl Reasoner for NetworkReasoner {
    fn reason(&self, set: &FeatureSet, train: bool) -> mm_core::Result<ReasonerOutput> {
        let (query_tokens, query_mask) = self.project(&self.query, set, false, train)?;
        let query = Features::new(query_tokens.clone(), Some(query_mask.clone()))?.pool(Pooling::Last)?;
        let mut projected = Vec::new();
        for input in &self.context {
            projected.push(self.project(input, set, self.config.coordinates, train)?);
        }
        let context = Tensor::cat(&projected.iter().map(|(x, _)| x).collect::<Vec<_>>(), 1)?;
        let context_mask = Tensor::cat(&projected.iter().map(|(_, m)| m).collect::<Vec<_>>(), 1)?;
        let input = ReasonerInput { query_tokens, query_mask, query, context, context_mask, train };
        let output = self.network.forward(&input)?;
        let mut attention = Vec::new();
        for (step, weights) in output.attention.iter().enumerate() {
            let mut start = 0;
            for (input, (x, _)) in self.context.iter().zip(&projected) {
                let count = x.size(1)?;
                let weights = weights.narrow(1, start, count)?;
                attention.push(AttentionStep { step, modality: input.modality.clone(), weights });
                start += count;
            }
        }
        Ok(ReasonerOutput { features: Features::from_pooled(&output.answer)?, attention })
    }

    fn dim(&self) -> i64 {
        self.config.hidden_dim
    }
}
