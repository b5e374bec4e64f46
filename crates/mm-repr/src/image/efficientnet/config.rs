//! Configs and weights of transformers and of `efficientnet_pytorch` and `efficientnet_lite_pytorch`.

use super::network::{Architecture, BlockSpec, Padding};
use crate::{
    Result, checkpoint_config,
    family::{ModelBuilder, WeightMap, detect_prefix},
};
use mm_core::{Checkpoint, Pooling, nn::Activation};

checkpoint_config! {
    /// transformers' `EfficientNetConfig`; `lite` with `squeeze_expansion_ratio = 0` is EfficientNet-Lite.
    EfficientNetConfig {
        num_channels: i64 = 3,
        width_coefficient: f64 = 2.0,
        depth_coefficient: f64 = 3.1,
        depth_divisor: i64 = 8,
        kernel_sizes: Vec<i64> = vec![3, 3, 5, 3, 5, 5, 3],
        in_channels: Vec<i64> = vec![32, 16, 24, 40, 80, 112, 192],
        out_channels: Vec<i64> = vec![16, 24, 40, 80, 112, 192, 320],
        depthwise_padding: Vec<i64> = Vec::new(),
        strides: Vec<i64> = vec![1, 2, 2, 2, 1, 2, 1],
        num_block_repeats: Vec<i64> = vec![1, 2, 2, 3, 3, 4, 1],
        expand_ratios: Vec<i64> = vec![1, 6, 6, 6, 6, 6, 6],
        squeeze_expansion_ratio: f64 = 0.25,
        hidden_act: Activation = Activation::Silu,
        hidden_dim: i64 = 2560,
        pooling_type: String = "mean".into(),
        batch_norm_eps: f64 = 1e-3,
        lite: bool = false,
    }
}

impl EfficientNetConfig {
    /// Scales a number of channels and rounds it to a multiple of the divisor, by at most a tenth down.
    fn scaled_channels(&self, base: i64) -> i64 {
        let (divisor, scaled) = (self.depth_divisor.max(1), base as f64 * self.width_coefficient);
        let rounded = ((scaled + divisor as f64 / 2.0) as i64 / divisor * divisor).max(divisor);
        if (rounded as f64) < 0.9 * scaled { rounded + divisor } else { rounded }
    }

    fn validate(&self) -> mm_core::Result<()> {
        let stages = self.kernel_sizes.len();
        let all = [&self.in_channels, &self.out_channels, &self.strides, &self.num_block_repeats, &self.expand_ratios];
        let positive = all.iter().chain([&&self.kernel_sizes]).all(|l| l.iter().all(|v| *v > 0));
        if stages == 0 || all.iter().any(|l| l.len() != stages) || !positive {
            return Err(mm_core::Error::config(
                "kernel_sizes, in_channels, out_channels, strides, num_block_repeats, expand_ratios",
                "lists of different lengths, or sizes below one",
                "positive sizes, as many in each list as there are stages",
            ));
        }
        Ok(())
    }

    /// The blocks; transformers pads and connects them differently from the other packages.
    fn blocks(&self, transformers: bool) -> Vec<BlockSpec> {
        let mut blocks = Vec::new();
        let stages = self.kernel_sizes.len();
        for stage in 0..stages {
            let lite_stem = self.lite && stage == 0;
            let mut input = if lite_stem { 32 } else { self.scaled_channels(self.in_channels[stage]) };
            let output = self.scaled_channels(self.out_channels[stage]);
            let (base, kernel) = (self.num_block_repeats[stage], self.kernel_sizes[stage]);
            let unscaled = self.lite && (stage == 0 || stage == stages - 1);
            let repeats = if unscaled { base } else { (self.depth_coefficient * base as f64).ceil() as i64 };
            for repeat in 0..repeats {
                let stride = if repeat == 0 { self.strides[stage] } else { 1 };
                let squeeze = (input as f64 * self.squeeze_expansion_ratio) as i64;
                let half = kernel / 2;
                let adjusted = !self.depthwise_padding.contains(&(blocks.len() as i64));
                let (padding, residual) = if transformers {
                    // One zero fewer above and to the left unless the config lists the block, and no residual around
                    // the first block of a stage.
                    let before = if stride == 2 && adjusted { half - 1 } else { half };
                    (Padding::Explicit(before, half), stride == 1 && repeat > 0)
                } else {
                    (Padding::Same, stride == 1 && input == output)
                };
                blocks.push(BlockSpec {
                    scope: format!("_blocks.{}", blocks.len()),
                    input,
                    expanded: input * self.expand_ratios[stage],
                    output,
                    kernel,
                    stride,
                    squeeze: if self.squeeze_expansion_ratio > 0.0 { squeeze.max(1) } else { 0 },
                    padding,
                    residual,
                });
                input = output;
            }
        }
        blocks
    }
}

/// The prefix of transformers' names; `None` for the other packages' checkpoints.
fn transformers_prefix(checkpoint: &Checkpoint) -> Option<&'static str> {
    let prefix = detect_prefix(checkpoint, "embeddings.convolution.weight", &["efficientnet.", ""]);
    checkpoint.shape(&format!("{prefix}embeddings.convolution.weight")).map(|_| prefix)
}

pub(super) fn weight_map(checkpoint: &Checkpoint) -> WeightMap {
    let Some(prefix) = transformers_prefix(checkpoint) else { return WeightMap::default() };
    let prefixed = |name: &str| format!("{prefix}{name}");
    WeightMap::new(&[
        ("^_fc.", "classifier."),
        ("^_conv_stem.", &prefixed("embeddings.convolution.")),
        ("^_bn0.", &prefixed("embeddings.batchnorm.")),
        ("^_conv_head.", &prefixed("encoder.top_conv.")),
        ("^_bn1.", &prefixed("encoder.top_bn.")),
        ("^_blocks.", &prefixed("encoder.blocks.")),
        ("._expand_conv.", ".expansion.expand_conv."),
        ("._bn0.", ".expansion.expand_bn."),
        ("._depthwise_conv.", ".depthwise_conv.depthwise_conv."),
        ("._bn1.", ".depthwise_conv.depthwise_norm."),
        ("._se_", ".squeeze_excite."),
        ("._project_conv.", ".projection.project_conv."),
        ("._bn2.", ".projection.project_bn."),
    ])
}

pub(super) fn architecture(b: &ModelBuilder<'_>) -> Result<Architecture> {
    let c: EfficientNetConfig = b.parse()?;
    c.validate()?;
    let transformers = transformers_prefix(b.checkpoint).is_some();
    let scaled_unless_lite = |base: i64| if c.lite { base } else { c.scaled_channels(base) };
    let pooling = match c.pooling_type.as_str() {
        "mean" => Pooling::Mean,
        "max" => Pooling::Max,
        other => return Err(b.config_error(format!("pooling_type: found `{other}`, expected mean or max"))),
    };
    Ok(Architecture {
        channels: c.num_channels,
        stem: scaled_unless_lite(32),
        stem_padding: if transformers { Padding::Explicit(0, 1) } else { Padding::Same },
        blocks: c.blocks(transformers),
        // transformers' config has the final number of channels, the packages' the number before scaling.
        head: if transformers { c.hidden_dim } else { scaled_unless_lite(c.hidden_dim) },
        norm_eps: c.batch_norm_eps,
        activation: c.hidden_act,
        pooling,
    })
}
