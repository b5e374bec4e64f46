//! timm's checkpoints: all sizes but the strides of the stages are read from the shapes of the weights.

use super::network::{self, Architecture, BlockSpec, Padding};
use crate::{
    Result,
    family::{Model, ModelBuilder, WeightMap},
    image::{
        preprocess::timm_preprocessing,
        timm::{architecture, check_model_args, shape, unsupported},
    },
};
use mm_core::{Checkpoint, Pooling, nn::Activation};

/// Strides of the stages.
const STRIDES: [i64; 7] = [1, 2, 2, 2, 1, 2, 1];

/// Stage and scope (`blocks.STAGE.INDEX`) of each block, in order.
fn blocks(checkpoint: &Checkpoint) -> Vec<(usize, String)> {
    let scope = |stage: usize, index: usize| format!("blocks.{stage}.{index}");
    let exists = |scope: &str| checkpoint.shape(&format!("{scope}.conv_dw.weight")).is_some();
    let mut blocks = Vec::new();
    for stage in (0..100).take_while(|stage| exists(&scope(*stage, 0))) {
        let scopes = (0..1000).map(|index| scope(stage, index)).take_while(|s| exists(s));
        blocks.extend(scopes.map(|s| (stage, s)));
    }
    blocks
}

pub(super) fn weight_map(checkpoint: &Checkpoint) -> WeightMap {
    let mut map = WeightMap::new(&[
        ("^_fc.", "classifier."),
        ("^_conv_stem.", "conv_stem."),
        ("^_bn0.", "bn1."),
        ("^_conv_head.", "conv_head."),
        ("^_bn1.", "bn2."),
        ("._se_", ".se.conv_"),
        ("._depthwise_conv.", ".conv_dw."),
    ]);
    for (_, scope) in blocks(checkpoint) {
        // Blocks without expansion have one convolution and one normalization fewer, and number the rest from one.
        let inverted = checkpoint.shape(&format!("{scope}.conv_pwl.weight")).is_some();
        let rules: &[(&str, &str)] = if inverted {
            &[
                ("._expand_conv.", ".conv_pw."),
                ("._project_conv.", ".conv_pwl."),
                ("._bn2.", ".bn3."),
                ("._bn1.", ".bn2."),
                ("._bn0.", ".bn1."),
            ]
        } else {
            &[("._project_conv.", ".conv_pw."), ("._bn1.", ".bn1."), ("._bn2.", ".bn2.")]
        };
        for (from, to) in rules {
            map = map.and_within(&format!("{scope}."), from, to);
        }
    }
    map
}

/// The part of the architecture's name after `efficientnet_`, and whether it is a port of TensorFlow's weights.
fn variant<'a>(b: &'a ModelBuilder<'_>, blocks: &[(usize, String)]) -> Result<(&'a str, bool)> {
    let name = architecture(b);
    let stripped = name.strip_prefix("tf_");
    let variant = stripped.unwrap_or(name).strip_prefix("efficientnet_").unwrap_or_default();
    if !is_supported(variant) || blocks.last().map(|(stage, _)| *stage) != Some(STRIDES.len() - 1) {
        return Err(unsupported(b, "efficientnet_bN, efficientnet_liteN (N: a number) or their tf_ versions"));
    }
    Ok((variant, stripped.is_some()))
}

/// Whether a variant is `bN` or `liteN`, perhaps pruned or trained otherwise (`_ap`, `_ns`). The others have other
/// normalizations, or pooling before strides, which leaves no trace in the weights.
fn is_supported(variant: &str) -> bool {
    let base = ["_pruned", "_ap", "_ns"].iter().find_map(|end| variant.strip_suffix(end)).unwrap_or(variant);
    let number = base.strip_prefix("lite").or_else(|| base.strip_prefix('b')).or_else(|| base.strip_prefix('l'));
    number.is_some_and(|n| n.len() == 1 && n.bytes().all(|b| b.is_ascii_digit()))
}

pub(super) fn build(b: &ModelBuilder<'_>) -> Result<Model> {
    let scopes = blocks(b.checkpoint);
    let (variant, tensorflow) = variant(b, &scopes)?;
    check_model_args(b, &["channel_multiplier", "depth_multiplier"])?;
    let (stem, head): ([i64; 4], [i64; 4]) = (shape(b, "conv_stem.weight")?, shape(b, "conv_head.weight")?);
    let mut input = stem[0];
    let mut blocks = Vec::new();
    for (index, (stage, scope)) in scopes.iter().enumerate() {
        let depthwise: [i64; 4] = shape(b, &format!("{scope}.conv_dw.weight"))?;
        let inverted = b.checkpoint.shape(&format!("{scope}.conv_pwl.weight")).is_some();
        let project = if inverted { "conv_pwl" } else { "conv_pw" };
        let [output, ..]: [i64; 4] = shape(b, &format!("{scope}.{project}.weight"))?;
        let squeeze = format!("{scope}.se.conv_reduce.weight");
        let squeeze = if b.checkpoint.shape(&squeeze).is_some() { shape::<4>(b, &squeeze)?[0] } else { 0 };
        let first_of_stage = index == 0 || scopes[index - 1].0 != *stage;
        let (kernel, stride) = (depthwise[2], if first_of_stage { STRIDES[*stage] } else { 1 });
        blocks.push(BlockSpec {
            scope: scope.clone(),
            input,
            expanded: depthwise[0],
            output,
            kernel,
            stride,
            squeeze,
            padding: if tensorflow { Padding::Same } else { Padding::Explicit(kernel / 2, kernel / 2) },
            residual: stride == 1 && input == output,
        });
        input = output;
    }
    let architecture = Architecture {
        channels: stem[1],
        stem: stem[0],
        stem_padding: if tensorflow { Padding::Same } else { Padding::Explicit(1, 1) },
        blocks,
        head: head[0],
        norm_eps: if tensorflow { 1e-3 } else { 1e-5 },
        activation: if variant.starts_with("lite") { Activation::Relu6 } else { Activation::Silu },
        pooling: Pooling::Mean,
    };
    network::build(b, &architecture, timm_preprocessing(b)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variants_that_differ_without_a_trace_in_the_weights_are_refused() {
        assert!(["b0", "b8", "lite4", "l2", "l2_ns", "b0_ap", "b1_pruned"].iter().all(|v| is_supported(v)));
        let others = ["blur_b0", "b0_gn", "b3_g8_gn", "b0_g16_evos", "em", "cc_b0_4e", "h_b5", "b", "bx"];
        assert!(!others.iter().any(|v| is_supported(v)));
    }
}
