//! A small convolutional image encoder that is trained from scratch: residual convolutions that halve the image, pooled
//! by mean and maximum.

use mm_core::{
    Encoder, Error, Features, Input, Modality, Module, Pooling, ProcessContext, Processor, Result, Scope, Source,
    Tensor,
    nn::{BatchNorm, Conv2d, ConvConfig},
};
use mm_data::{
    ImageProcessor, ImageProcessorConfig,
    transform::{ImageTransform, Resize},
};
use serde::{Deserialize, Serialize};

/// Sizes of a [`CnnEncoder`] and its preprocessing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CnnEncoderConfig {
    /// Side in pixels that images are resized to.
    pub image_size: u32,
    /// Channels of each stage; every stage halves the image.
    pub channels: Vec<i64>,
    /// Dropout rate.
    pub dropout: f64,
    /// While training: maximum translation, as a fraction of the side, and maximum change of brightness and contrast.
    pub jitter: f64,
}

impl Default for CnnEncoderConfig {
    fn default() -> Self {
        Self { image_size: 64, channels: vec![32, 64, 128, 192], dropout: 0.1, jitter: 0.1 }
    }
}

/// An image file → `[3, image_size, image_size]`.
pub struct CnnProcessor {
    inner: ImageProcessor,
    image_size: u32,
    jitter: f64,
}

impl CnnProcessor {
    /// A processor for this encoder.
    ///
    /// # Errors
    /// If the image size is not between 8 and 512, or the jitter not in [0, 1).
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
        Ok(Self { inner, image_size: config.image_size, jitter: config.jitter })
    }
}

impl Processor for CnnProcessor {
    fn process(&self, source: &Source, context: &mut ProcessContext) -> Result<Tensor> {
        let image = self.inner.process(source, &mut ProcessContext::eval())?;
        self.augment(image, context)
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
        // No horizontal flip: letters, digits and arrows would change their meaning.
        let max_shift = (f64::from(self.image_size) * self.jitter) as usize;
        let mut shift = || context.rng.below(2 * max_shift + 1) as i64 - max_shift as i64;
        let shifts = [shift(), shift()];
        let shifted = sample.roll(&shifts, &[1, 2])?;
        let contrast = context.rng.uniform_range(1.0 - self.jitter, 1.0 + self.jitter);
        let brightness = context.rng.uniform_range(-self.jitter, self.jitter);
        shifted.mul_scalar(contrast)?.add_scalar(brightness * 2.0)
    }
}

struct Stage {
    conv1: Conv2d,
    norm1: BatchNorm,
    conv2: Conv2d,
    norm2: BatchNorm,
}

/// Pixels `[batch, 3, height, width]` → features `[batch, positions, dim]`; the embedding is `[batch, 2 · dim]`.
pub struct CnnEncoder {
    stages: Vec<Stage>,
    dim: i64,
    dropout: f64,
}

impl CnnEncoder {
    /// Builds the network under `scope`.
    ///
    /// # Errors
    /// If there are no channels, or more stages than the image can be halved.
    pub fn new(scope: &Scope<'_>, config: &CnnEncoderConfig) -> Result<Self> {
        let positive = !config.channels.is_empty() && config.channels.iter().all(|c| *c >= 1);
        if !positive || config.image_size >> config.channels.len() == 0 {
            let found = format!("{:?} for images of {} pixels", config.channels, config.image_size);
            let expected = "positive numbers, not more than the image can be halved";
            return Err(Error::config("cnn.channels", found, expected));
        }
        let mut input = 3;
        let mut stages = Vec::new();
        for (index, output) in config.channels.iter().copied().enumerate() {
            let stage = scope.pp("stages").pp(index);
            let strided = ConvConfig { stride: 2, ..ConvConfig::same(input, output, 3) };
            stages.push(Stage {
                conv1: Conv2d::new(&stage.pp("conv1"), strided)?,
                norm1: BatchNorm::new(&stage.pp("norm1"), output, 1e-5, 0.1)?,
                conv2: Conv2d::new(&stage.pp("conv2"), ConvConfig::same(output, output, 3))?,
                norm2: BatchNorm::new(&stage.pp("norm2"), output, 1e-5, 0.1)?,
            });
            input = output;
        }
        Ok(Self { stages, dim: input, dropout: config.dropout })
    }
}

impl Encoder for CnnEncoder {
    fn encode(&self, input: &Input, train: bool) -> Result<Features> {
        let mut x = input.values.channels_last()?;
        for stage in &self.stages {
            let y = stage.norm1.forward(&stage.conv1.forward(&x, train)?, train)?.relu()?;
            let z = stage.norm2.forward(&stage.conv2.forward(&y, train)?, train)?;
            x = z.add(&y)?.relu()?;
        }
        Features::new(x.flatten(2, 3)?.transpose(1, 2)?.dropout(self.dropout, train)?, None)
    }

    fn embed(&self, input: &Input, train: bool) -> Result<Tensor> {
        Ok(self.encode_and_embed(input, train)?.1)
    }

    fn encode_and_embed(&self, input: &Input, train: bool) -> Result<(Features, Tensor)> {
        let features = self.encode(input, train)?;
        let embedding = Tensor::cat(&[&features.pool(Pooling::Mean)?, &features.pool(Pooling::Max)?], 1)?;
        Ok((features, embedding))
    }

    fn dim(&self) -> i64 {
        self.dim
    }

    fn embedding_dim(&self) -> i64 {
        self.dim * 2
    }

    fn modality(&self) -> Modality {
        Modality::IMAGE
    }
}
