//! The reasoning network `template_name`: scaled dot-product attention of the query over the context, repeated.
//!
//! A program registers [`SPEC`]; configs then select it with `reasoning.network = { kind = "template_name" }`.
//!
//! *End-To-End Memory Networks* (Sukhbaatar et al., 2015), <https://arxiv.org/abs/1503.08895>.

use mm_core::{Module, nn::Linear};
use mm_reason::{
    Error, Result,
    reasoning::{NetworkContext, NetworkOutput, NetworkSpec, ReasonerInput, ReasoningNetwork, attend},
};
use serde::Deserialize;

/// Describes the network to the registry.
pub const SPEC: NetworkSpec = NetworkSpec { kind: "template_name", build, one_step_per_token: false };

/// The keys next to `kind`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct TemplateNameConfig {
    /// Number of times that the query attends to the context.
    num_steps: i64,
}

impl Default for TemplateNameConfig {
    fn default() -> Self {
        Self { num_steps: 2 }
    }
}

/// The layers of one step.
struct Step {
    key: Linear,
    value: Linear,
    update: Linear,
}

struct TemplateName {
    steps: Vec<Step>,
    dim: i64,
    dropout: f64,
}

fn build(context: &NetworkContext<'_>) -> Result<Box<dyn ReasoningNetwork>> {
    let TemplateNameConfig { num_steps } = context.options()?;
    if num_steps < 1 {
        return Err(Error::invalid_argument("reasoning.network.num_steps", num_steps, "at least 1"));
    }
    let dim = context.hidden_dim;
    let step = |index: i64| -> mm_core::Result<Step> {
        // Parameters created under the scope are trained, saved and resumed.
        let layer = |name: &str| Linear::new(&context.scope.pp("steps").pp(index).pp(name), dim, dim, true);
        Ok(Step { key: layer("key")?, value: layer("value")?, update: layer("update")? })
    };
    let steps = (0..num_steps).map(step).collect::<mm_core::Result<_>>()?;
    Ok(Box::new(TemplateName { steps, dim, dropout: context.dropout }))
}

impl ReasoningNetwork for TemplateName {
    fn forward(&self, input: &ReasonerInput) -> mm_core::Result<NetworkOutput> {
        let scale = 1.0 / (self.dim as f64).sqrt();
        let mut state = input.query.clone(); // [batch, dim]
        let mut attention = Vec::new();
        for step in &self.steps {
            let keys = step.key.forward(&input.context, input.train)?; // [batch, positions, dim]
            let scores = keys.matmul(&state.unsqueeze(2)?)?.squeeze(2)?.mul_scalar(scale)?; // [batch, positions]
            let weights = input.masked_softmax(&scores)?;
            let found = attend(&weights, &step.value.forward(&input.context, input.train)?)?; // [batch, dim]
            let next = step.update.forward(&state, input.train)?.add(&found)?.gelu()?;
            state = next.dropout(self.dropout, input.train)?;
            attention.push(weights);
        }
        Ok(NetworkOutput { answer: state, attention })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm_core::{DType, Device, FeatureSet, Features, Modality, Params, Role, Tensor, seed::manual_seed};
    use mm_reason::reasoning::{NetworkConfig, ReasoningConfig, build, network_kinds, register_network};

    /// Registers the network once for the process, however many tests ask for it.
    fn reasoner(params: &Params, network: NetworkConfig) -> Result<Box<dyn mm_core::Reasoner>> {
        let _ = register_network(SPEC);
        let config = ReasoningConfig { network, hidden_dim: 8, ..ReasoningConfig::default() };
        build(&params.scope(), &config, &[(Modality::TEXT, 7), (Modality::IMAGE, 5)])
    }

    fn features(text: &Tensor, image: &Tensor) -> FeatureSet {
        let mut set = FeatureSet::new(text.size(0).unwrap());
        set.insert(Modality::TEXT, Features::new(text.clone(), None).unwrap(), None).unwrap();
        set.insert(Modality::IMAGE, Features::new(image.clone(), None).unwrap(), None).unwrap();
        set
    }

    fn random(shape: &[i64]) -> Tensor {
        Tensor::randn(shape, DType::F32, Device::Cpu).unwrap()
    }

    #[test]
    fn rows_are_independent_and_attention_sums_to_one() {
        manual_seed(6);
        let params = Params::new(Device::Cpu);
        let network = reasoner(&params, NetworkConfig::new("template_name").with("num_steps", 3)).unwrap();
        let (text, image) = (random(&[2, 4, 7]), random(&[2, 9, 5]));
        let both = network.reason(&features(&text, &image), false).unwrap();
        let first = |x: &Tensor| x.narrow(0, 0, 1).unwrap();
        let alone = network.reason(&features(&first(&text), &first(&image)), false).unwrap();
        let difference = alone.features.values.sub(&first(&both.features.values)).unwrap().abs().unwrap();
        assert!(difference.max().unwrap().to_f64().unwrap() < 1e-5);
        assert_eq!(both.attention.len(), 3);
        for map in &both.attention {
            assert_eq!(map.weights.shape(), [2, 9]);
            assert!((map.weights.sum().unwrap().to_f64().unwrap() - 2.0).abs() < 1e-4);
        }
    }

    #[test]
    fn every_parameter_gets_a_gradient() {
        let params = Params::new(Device::Cpu);
        let network = reasoner(&params, NetworkConfig::new("template_name")).unwrap();
        let answer = network.reason(&features(&random(&[2, 4, 7]), &random(&[2, 9, 5])), true).unwrap();
        answer.features.values.pow(2.0).unwrap().sum().unwrap().backward().unwrap();
        for (name, tensor) in params.named(&[Role::Trainable]) {
            assert!(tensor.grad().is_some(), "{name}");
        }
    }

    #[test]
    fn it_is_found_by_its_kind_and_wrong_options_are_errors() {
        let error =
            |network: NetworkConfig| reasoner(&Params::new(Device::Cpu), network).map(drop).unwrap_err().to_string();
        assert!(error(NetworkConfig::new("template_name").with("num_steps", 0)).contains("at least 1"));
        assert!(error(NetworkConfig::new("template_name").with("steps", 2)).contains("steps"));
        assert!(network_kinds().contains(&"template_name"));
        assert!(register_network(SPEC).is_err(), "a kind is registered once");
    }
}
