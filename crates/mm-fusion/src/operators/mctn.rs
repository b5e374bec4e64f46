//! Cyclic translation from the main modality to the others.

use crate::{FusionOperator, ModalityInput, OperatorContext, OperatorOutput, OperatorSpec, Result};
use mm_core::{
    DType, Module, Tensor,
    nn::{Activation, Linear, Mlp, MlpConfig},
};
use serde::Deserialize;

pub(crate) const SPEC: OperatorSpec = OperatorSpec {
    kind: "mctn",
    description: "cyclic translation from the main modality to the others (MCTN, Pham et al. 2019)",
    takes_sequences: false,
    build,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct MctnConfig {
    /// The main modality, the only one used for prediction; text, or else the first, by default.
    main_modality: Option<String>,
    /// Weight of the translation errors in both directions.
    translation_weight: f64,
}

impl Default for MctnConfig {
    fn default() -> Self {
        Self { main_modality: None, translation_weight: 0.3 }
    }
}

fn build(context: &OperatorContext<'_>) -> Result<Box<dyn FusionOperator>> {
    let config: MctnConfig = context.options()?;
    let main = context.main_modality(config.main_modality.as_deref())?;
    let (scope, dim) = (&context.scope, context.dim);
    let main_dim = context.input_dims[main];
    let mut translations = Vec::new();
    for (index, input_dim) in context.input_dims.iter().enumerate().filter(|(index, _)| *index != main) {
        let scope = scope.pp("others").pp(index);
        let forward = Linear::new(&scope.pp("there"), dim, *input_dim, true)?;
        let backward = Linear::new(&scope.pp("back"), *input_dim, main_dim, true)?;
        translations.push(Translation { index, forward, backward });
    }
    Ok(Box::new(Mctn {
        encoder: Linear::new(&scope.pp("encoder"), main_dim, dim, true)?,
        mlp: Mlp::new(&scope.pp("mlp"), dim, &MlpConfig::new(2 * dim, Activation::Gelu))?,
        translations,
        main,
        weight: config.translation_weight,
    }))
}

/// Translation to another modality and back.
struct Translation {
    index: usize,
    forward: Linear,
    backward: Linear,
}

/// The main modality is encoded such that the others can be predicted from the code, and the main modality from those
/// predictions; at inference the main modality alone is needed.
///
/// *Found in Translation: Learning Robust Joint Representations by Cyclic Translations Between Modalities* (Pham et
/// al., 2019, <https://arxiv.org/abs/1812.07809>).
struct Mctn {
    encoder: Linear,
    mlp: Mlp,
    translations: Vec<Translation>,
    main: usize,
    weight: f64,
}

impl FusionOperator for Mctn {
    fn forward(&self, inputs: &[ModalityInput], train: bool) -> Result<OperatorOutput> {
        let main = &inputs[self.main];
        let x = self.encoder.forward(&main.values, train)?.gelu()?;
        let code = x.add(&self.mlp.forward(&x, train)?)?; // [rows, dim]
        let mut loss = Tensor::zeros(&[], DType::F32, code.device())?;
        for Translation { index, forward, backward } in &self.translations {
            let other = &inputs[*index];
            let translated = forward.forward(&code, train)?;
            let both = main.present_column()?.mul(&other.present_column()?)?;
            let forward_loss = masked_mse(&translated, &other.values, &both)?;
            let restored = backward.forward(&translated, train)?;
            let backward_loss = masked_mse(&restored, &main.values, &main.present_column()?)?;
            loss = loss.add(&forward_loss)?.add(&backward_loss)?;
        }
        let aux_loss = train.then(|| loss.mul_scalar(self.weight)).transpose()?;
        Ok(OperatorOutput { aux_loss, ..OperatorOutput::new(code) })
    }

    fn depends_on_batch(&self) -> bool {
        true
    }
}

/// Mean squared error over the rows where `mask` `[rows, 1]` is 1.
fn masked_mse(predicted: &Tensor, target: &Tensor, mask: &Tensor) -> Result<Tensor> {
    let error = predicted.sub(&target.detach()?)?.pow(2.0)?.mean_dim(&[1], true)?.mul(mask)?;
    Ok(error.sum()?.div(&mask.sum()?.clamp_min(1.0)?)?)
}
