//! An operator defined outside the crate is registered and used like the built-in ones.
#![allow(missing_docs)]

use mm_core::{DType, Device, FeatureSet, Features, Modality, Module, Params, Tensor, nn::Linear};
use mm_fusion::{
    Fusion, FusionConfig, FusionOperator, ModalityInput, OperatorConfig, OperatorContext, OperatorOutput, OperatorSpec,
    Result, operators, register_operator,
};
use serde::Deserialize;

/// The projected sum of all modalities, times a factor.
struct Sum {
    projection: Linear,
    factor: f64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct SumConfig {
    factor: f64,
}

impl Default for SumConfig {
    fn default() -> Self {
        Self { factor: 1.0 }
    }
}

fn build(context: &OperatorContext<'_>) -> Result<Box<dyn FusionOperator>> {
    let SumConfig { factor } = context.options()?;
    let dim = context.equal_input_dims("sum")?;
    Ok(Box::new(Sum { projection: Linear::new(&context.scope.pp("projection"), dim, context.dim, true)?, factor }))
}

impl FusionOperator for Sum {
    fn forward(&self, inputs: &[ModalityInput], train: bool) -> Result<OperatorOutput> {
        let mut sum = inputs[0].values.zeros_like()?;
        for input in inputs {
            sum = sum.add(&input.values.mul(&input.present_column()?)?)?;
        }
        Ok(OperatorOutput::new(self.projection.forward(&sum, train)?.mul_scalar(self.factor)?))
    }
}

const SUM: OperatorSpec =
    OperatorSpec { kind: "sum", description: "sum of all modalities", takes_sequences: false, build };

#[test]
fn an_operator_of_another_crate_is_registered_and_used() {
    register_operator(SUM).unwrap();
    assert_eq!(operators().last().map(|spec| spec.kind), Some("sum"));
    assert!(register_operator(SUM).unwrap_err().to_string().contains("not registered yet"));

    let dims = [(Modality::AUDIO, 3), (Modality::TEXT, 5)];
    let fused = |factor: f64| {
        mm_core::seed::manual_seed(1);
        let params = Params::new(Device::Cpu);
        let operator = OperatorConfig::new("sum").with("factor", factor);
        let config = FusionConfig { operator, dim: 4, ..FusionConfig::default() };
        let fusion = Fusion::new(&params.scope(), &config, &dims).unwrap();
        let mut set = FeatureSet::new(2);
        for (modality, dim) in dims.clone() {
            let values = Tensor::ones(&[2, dim], DType::F32, Device::Cpu).unwrap();
            set.insert(modality, Features::from_pooled(&values).unwrap(), None).unwrap();
        }
        fusion.fuse(&set, false).unwrap().features.values
    };
    let (one, two) = (fused(1.0), fused(2.0));
    assert_eq!(one.shape(), [2, 1, 4]);
    assert_eq!(one.mul_scalar(2.0).unwrap().to_vec::<f32>().unwrap(), two.to_vec::<f32>().unwrap());

    let error = |operator: OperatorConfig| {
        let config = FusionConfig { operator, ..FusionConfig::default() };
        let params = Params::new(Device::Cpu);
        Fusion::new(&params.scope(), &config, &dims).map(drop).unwrap_err().to_string()
    };
    assert!(error(OperatorConfig::new("summ")).contains("did you mean `sum`"));
    assert!(error(OperatorConfig::new("sum").with("facter", 1.0)).contains("factor"));
    assert!(error(OperatorConfig::new("tensor_fusio")).contains("tensor_fusion"));
}
