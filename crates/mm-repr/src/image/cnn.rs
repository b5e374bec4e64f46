//! A small network that learns to see from nothing: residual convolutions (He 2016) that halve the picture, pooled by mean and by maximum.

use mm_core::{
    Encoder, Error, Features, Input, Modality, Module, ProcessContext, Processor, Result, Scope, Source, Tensor,
    nn::{BatchNorm, Conv2d, ConvConfig},
};
use mm_data::{
    ImageProcessor, ImageProcessorConfig,
    transform::{ImageTransform, Resize},
};
use serde::{Deserialize, Serialize};

/// Sizes of a [`CnnEncoder`] and of what it sees.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CnnEncoderConfig {
    /// Pixels a side that pictures are brought to.
    pub image_size: u32,
    /// Channels of each stage; each halves the picture.
    pub channels: Vec<i64>,
    /// Rate of dropout while training.
    pub dropout: f64,
    /// While training: how far pictures are shifted, as a share of their side, and how much brightness and contrast change.
    pub jitter: f64,
}

impl Default for CnnEncoderConfig {
    fn default() -> Self {
        Self { image_size: 64, channels: vec![32, 64, 128, 192], dropout: 0.1, jitter: 0.1 }
    }
}

/// A picture file → `[3, size, size]`.
pub struct CnnProcessor {
    inner: ImageProcessor,
    size: u32,
    jitter: f64,
}

impl CnnProcessor {
    /// A processor of these sizes.
    pub fn new(config: &CnnEncoderConfig) -> Result<Self> {
        if !(8..=512).contains(&config.image_size) || !(0.0..1.0).contains(&config.jitter) {
            let found = format!("image_size {}, jitter {}", config.image_size, config.jitter);
            return Err(Error::config("cnn", found, "an image_size from 8 to 512 and a jitter in [0, 1)"));
        }
        let transform = ImageTransform {
            resize: Some(Resize::Exact(config.image_size, config.image_size)),
            crop: None,
            mean: [0.5; 3],
            std: [0.25; 3],
            ..ImageTransform::default()
        };
        let inner = ImageProcessor::new(ImageProcessorConfig { transform, ..ImageProcessorConfig::default() });
        Ok(Self { inner, size: config.image_size, jitter: config.jitter })
    }
}

impl Processor for CnnProcessor {
    fn process(&self, source: &Source, context: &mut ProcessContext) -> Result<Tensor> {
        let plain = self.inner.process(source, &mut ProcessContext::eval())?;
        self.augment(plain, context)
    }

    fn is_sequence(&self) -> bool {
        false
    }

    fn fingerprint(&self) -> String {
        format!("cnn {}", self.inner.fingerprint())
    }

    fn augment(&self, sample: Tensor, context: &mut ProcessContext) -> Result<Tensor> {
        if !context.train || self.jitter == 0.0 {
            return Ok(sample);
        }
        // No mirroring: letters, digits and arrows would become something else.
        let most = (f64::from(self.size) * self.jitter) as usize;
        let mut shift = || context.rng.below(2 * most + 1) as i64 - most as i64;
        let shifts = [shift(), shift()];
        let moved = sample.roll(&shifts, &[1, 2])?;
        let (contrast, light) = (
            context.rng.uniform_range(1.0 - self.jitter, 1.0 + self.jitter),
            context.rng.uniform_range(-self.jitter, self.jitter),
        );
        moved.mul_scalar(contrast)?.add_scalar(light * 2.0)
    }
}

struct Stage {
    first: Conv2d,
    norm1: BatchNorm,
    second: Conv2d,
    norm2: BatchNorm,
}

/// Pixels `[batch, 3, height, width]` → features `[batch, places, width]`; pooled `[batch, 2 · width]`.
pub struct CnnEncoder {
    stages: Vec<Stage>,
    width: i64,
    dropout: f64,
}

impl CnnEncoder {
    /// The network under `scope`.
    pub fn new(scope: &Scope<'_>, config: &CnnEncoderConfig) -> Result<Self> {
        if config.channels.is_empty()
            || config.channels.iter().any(|c| *c < 1)
            || config.image_size >> config.channels.len() == 0
        {
            let found = format!("{:?} for pictures of {}", config.channels, config.image_size);
            return Err(Error::config("cnn.channels", found, "positive numbers, no more stages than halvings"));
        }
        let mut input = 3;
        let mut stages = Vec::new();
        for (number, output) in config.channels.iter().enumerate() {
            let place = scope.pp("stages").pp(number);
            let halve = ConvConfig { stride: 2, ..ConvConfig::same(input, *output, 3) };
            stages.push(Stage {
                first: Conv2d::new(&place.pp("conv1"), halve)?,
                norm1: BatchNorm::new(&place.pp("norm1"), *output, 1e-5, 0.1)?,
                second: Conv2d::new(&place.pp("conv2"), ConvConfig::same(*output, *output, 3))?,
                norm2: BatchNorm::new(&place.pp("norm2"), *output, 1e-5, 0.1)?,
            });
            input = *output;
        }
        Ok(Self { stages, width: input, dropout: config.dropout })
    }
}

impl Encoder for CnnEncoder {
    fn encode(&self, input: &Input, train: bool) -> Result<Features> {
        let mut x = input.values.channels_last()?;
        for stage in &self.stages {
            let y = stage.norm1.forward(&stage.first.forward(&x, train)?, train)?.relu()?;
            let z = stage.norm2.forward(&stage.second.forward(&y, train)?, train)?;
            x = z.add(&y)?.relu()?;
        }
        Features::new(x.flatten(2, 3)?.transpose(1, 2)?.dropout(self.dropout, train)?, None) // [batch, places, width]
    }

    fn embed(&self, input: &Input, train: bool) -> Result<Tensor> {
        Ok(self.encode_and_embed(input, train)?.1)
    }

    fn encode_and_embed(&self, input: &Input, train: bool) -> Result<(Features, Tensor)> {
        let features = self.encode(input, train)?;
        let vectors =
            Tensor::cat(&[&features.pool(mm_core::Pooling::Mean)?, &features.pool(mm_core::Pooling::Max)?], 1)?;
        Ok((features, vectors))
    }

    fn dim(&self) -> i64 {
        self.width
    }

    fn embedding_dim(&self) -> i64 {
        self.width * 2
    }

    fn modality(&self) -> Modality {
        Modality::IMAGE
    }
}
