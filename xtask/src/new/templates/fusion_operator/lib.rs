//! The fusion operator `template_name`: the elementwise maximum of the modalities that a row has.
//!
//! A program registers [`SPEC`]; configs then select it with `fusion.operator = { kind = "template_name" }`.

use mm_core::{Error, Module, Tensor, nn::Linear};
use mm_fusion::{FusionOperator, ModalityInput, OperatorContext, OperatorOutput, OperatorSpec, Result};
use serde::Deserialize;

/// Describes the operator to the registry.
pub const SPEC: OperatorSpec = OperatorSpec {
    kind: "template_name",
    description: "elementwise maximum of the modalities that a row has",
    takes_sequences: false,
    build,
};

/// The keys next to `kind`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct TemplateNameConfig {
    /// Factor of each modality's features before the hyperbolic tangent; larger is closer to a binary code.
    scale: f64,
}

impl Default for TemplateNameConfig {
    fn default() -> Self {
        Self { scale: 1.0 }
    }
}

struct TemplateName {
    projections: Vec<Linear>,
    scale: f64,
}

fn build(context: &OperatorContext<'_>) -> Result<Box<dyn FusionOperator>> {
    let TemplateNameConfig { scale } = context.options()?;
    if !(scale > 0.0 && scale.is_finite()) {
        return Err(Error::config("fusion.operator.scale", scale, "a positive number").into());
    }
    // Parameters created under the scope are trained, saved and resumed.
    let projection =
        |(index, dim): (usize, &i64)| Linear::new(&context.scope.pp("projections").pp(index), *dim, context.dim, true);
    let projections = context.input_dims.iter().enumerate().map(projection).collect::<mm_core::Result<_>>()?;
    Ok(Box::new(TemplateName { projections, scale }))
}

impl FusionOperator for TemplateName {
    fn forward(&self, inputs: &[ModalityInput], train: bool) -> Result<OperatorOutput> {
        let mut largest: Option<Tensor> = None;
        for (input, projection) in inputs.iter().zip(&self.projections) {
            let values = projection.forward(&input.values, train)?.mul_scalar(self.scale)?.tanh()?; // [rows, dim]
            // A modality that a row lacks is below every value of a modality that it has.
            let absent = input.present_column()?.eq_scalar(0.0)?;
            let values = values.masked_fill(&absent, -1.0)?;
            largest = Some(match largest {
                Some(other) => other.maximum(&values)?,
                None => values,
            });
        }
        let values = largest.ok_or_else(|| Error::config(SPEC.kind, "no modality", "at least one"))?;
        Ok(OperatorOutput::new(values))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mm_core::{DType, Device, FeatureSet, Features, Modality, Params, Role};
    use mm_fusion::{Fusion, FusionConfig, OperatorConfig, operator_spec, register_operator};

    /// Registers the operator once for the process, however many tests ask for it.
    fn fusion(params: &Params, operator: OperatorConfig) -> Result<Fusion> {
        let _ = register_operator(SPEC);
        let dims = [(Modality::AUDIO, 3), (Modality::TEXT, 5)];
        Fusion::new(&params.scope(), &FusionConfig { operator, dim: 4, ..FusionConfig::default() }, &dims)
    }

    /// Three rows, of which the first has both modalities, the second audio alone, the last none.
    fn features(audio: &Tensor, text: &Tensor) -> FeatureSet {
        let mut set = FeatureSet::new(audio.size(0).unwrap());
        for (modality, values, present) in
            [(Modality::AUDIO, audio, [true, true, false]), (Modality::TEXT, text, [true, false, false])]
        {
            let present = Tensor::from_slice(&present).unwrap().narrow(0, 0, set.rows()).unwrap();
            set.insert(modality, Features::from_pooled(values).unwrap(), Some(present)).unwrap();
        }
        set
    }

    #[test]
    fn rows_are_independent_and_modalities_that_are_missing_change_nothing() {
        mm_core::seed::manual_seed(3);
        let params = Params::new(Device::Cpu);
        let fusion = fusion(&params, OperatorConfig::new("template_name").with("scale", 2.0)).unwrap();
        let random = |dim: i64| Tensor::randn(&[3, dim], DType::F32, Device::Cpu).unwrap();
        let (audio, text) = (random(3), random(5));
        let fuse = |set: &FeatureSet| fusion.fuse(set, false).unwrap().features.values;
        let all = fuse(&features(&audio, &text));
        assert!(all.isfinite().unwrap().min().unwrap().to_f64().unwrap() > 0.5, "a row without any modality is finite");
        let first = |x: &Tensor| x.narrow(0, 0, 1).unwrap();
        let alone = fuse(&features(&first(&audio), &first(&text)));
        let difference = |a: &Tensor, b: &Tensor| a.sub(b).unwrap().abs().unwrap().max().unwrap().to_f64().unwrap();
        assert!(difference(&alone, &first(&all)) < 1e-6);
        // The second row lacks text: other text changes nothing.
        let other = fuse(&features(&audio, &text.mul_scalar(-5.0).unwrap()));
        let second = |x: &Tensor| x.narrow(0, 1, 1).unwrap();
        assert!(difference(&second(&other), &second(&all)) < 1e-6);
        assert!(difference(&first(&other), &first(&all)) > 1e-3);
    }

    #[test]
    fn every_parameter_gets_a_gradient() {
        let params = Params::new(Device::Cpu);
        let fusion = fusion(&params, OperatorConfig::new("template_name")).unwrap();
        let random = |dim: i64| Tensor::randn(&[3, dim], DType::F32, Device::Cpu).unwrap();
        let fused = fusion.fuse(&features(&random(3), &random(5)), true).unwrap().features.values;
        fused.pow(2.0).unwrap().sum().unwrap().backward().unwrap();
        for (name, tensor) in params.named(&[Role::Trainable]) {
            assert!(tensor.grad().is_some(), "{name}");
        }
    }

    #[test]
    fn it_is_found_by_its_kind_and_wrong_options_are_errors() {
        let error =
            |operator: OperatorConfig| fusion(&Params::new(Device::Cpu), operator).map(drop).unwrap_err().to_string();
        assert!(error(OperatorConfig::new("template_name").with("scale", 0.0)).contains("expected a positive number"));
        assert!(error(OperatorConfig::new("template_name").with("scales", 1.0)).contains("scale"));
        assert_eq!(operator_spec("template_name").unwrap().description, SPEC.description);
        assert!(register_operator(SPEC).is_err(), "a kind is registered once");
    }
}
