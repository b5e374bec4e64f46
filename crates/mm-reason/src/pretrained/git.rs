//! GIT: CLIP's image features before the text in one stack, in which image positions attend to each other and the text
//! attends to the image and to itself causally.
//!
//! *GIT: A Generative Image-to-text Transformer for Vision and Language* (Wang et al., 2022),
//! <https://arxiv.org/abs/2205.14100>.

use super::{
    attribution::PrefixAttention,
    bert_decoder::{BertSizes, bert_weight_map},
    decoder::load_decoder,
    tokenizer::Tokenizer,
    traits::{ConditionalGenerator, MediaEncoder, PretrainedFamily},
    types::{Attribution, EncodedMedia, Prompt, Request, TrainBatch},
};
use crate::{
    Error, Result,
    generate::{GenerationConfig, Prefill, prefill},
};
use mm_core::{
    Encoder, Init, Input, Modality, Module, Processor, Tensor,
    nn::{
        Activation, ForwardArgs, Linear, Mask, Norm, NormConfig,
        decoder::{Decoder, DecoderArgs, DecoderState},
    },
};
use mm_data::{ImageProcessor, VideoProcessor};
use mm_repr::{
    checkpoint_config,
    family::{Family, ModelBuilder, WeightMap},
    image::{VisionDefaults, VisionVariant, clip_vision_backbone, preprocessing, vision_config, vit::VitBackbone},
};
use std::sync::Arc;

checkpoint_config! {
    /// transformers' `GitConfig`.
    GitConfig {
        vocab_size: i64 = 30522,
        hidden_size: i64 = 768,
        num_hidden_layers: i64 = 6,
        num_attention_heads: i64 = 12,
        intermediate_size: i64 = 3072,
        hidden_act: Activation = Activation::Gelu,
        max_position_embeddings: i64 = 1024,
        layer_norm_eps: f64 = 1e-12,
        bos_token_id: i64 = 101,
        num_image_with_embedding: Option<i64> = None,
    }
}

/// Defaults of transformers' `GitVisionConfig`, which is CLIP's.
const VISION_DEFAULTS: VisionDefaults =
    VisionDefaults { image_size: 224, patch_size: 16, hidden_act: Activation::QuickGelu, layer_norm_eps: 1e-5 };

/// Largest number of frames of a video that have embeddings.
const MAX_FRAMES: i64 = 4096;

/// The end token (BERT's `[SEP]`), where the checkpoint names none.
const DEFAULT_EOS: i64 = 102;

pub(super) const FAMILY: PretrainedFamily = PretrainedFamily {
    family: Family {
        model_type: "git",
        weight_map: |_, _| {
            let vision = WeightMap::new(&[
                ("^vision.encoder.final_layer_norm.", "vision.post_layernorm."),
                ("^vision.", "git.image_encoder.vision_model."),
                ("^projection.", "git.visual_projection.visual_projection.0."),
                ("^projection_norm.", "git.visual_projection.visual_projection.1."),
                ("^temporal.", "git.img_temporal_embedding."),
                ("^text.head.", "output."),
            ]);
            vision.then(bert_weight_map("text.", "git."))
        },
        build,
    },
    classifier_prefix: None,
};

struct Git {
    vision: VitBackbone,
    projection: Linear,
    projection_norm: Norm,
    /// Embedding of each frame of a video, `[1, 1, dim]`.
    temporal_embeddings: Vec<Tensor>,
    decoder: Decoder,
    image_processor: Arc<dyn Processor>,
    video_processor: Option<Arc<dyn Processor>>,
    bos_token_id: i64,
}

fn build(b: &ModelBuilder<'_>) -> mm_repr::Result<Box<dyn MediaEncoder>> {
    let c: GitConfig = b.parse()?;
    let vit = vision_config(b, &b.config["vision_config"], "vision_config", VISION_DEFAULTS)?;
    let variant = VisionVariant { class_token: true, patch_bias: false, pre_norm: true, final_norm: true };
    let vision = clip_vision_backbone(b, &b.scope.pp("vision"), &vit, variant)?;
    let sizes = BertSizes {
        vocab_size: c.vocab_size,
        dim: c.hidden_size,
        num_layers: c.num_hidden_layers,
        num_heads: c.num_attention_heads,
        intermediate_dim: c.intermediate_size,
        activation: c.hidden_act,
        norm_eps: c.layer_norm_eps,
        max_positions: c.max_position_embeddings,
    };
    let norm = NormConfig { eps: vit.layer_norm_eps, ..NormConfig::default() };
    let frames = c.num_image_with_embedding.filter(|n| *n != 0);
    if let Some(found) = frames.filter(|n| !(1..=MAX_FRAMES).contains(n)) {
        return Err(b.config_error(format!("num_image_with_embedding: found {found}, expected 0 to {MAX_FRAMES}")));
    }
    let temporal = |n: i64| b.scope.pp("temporal").param(&n.to_string(), &[1, 1, vit.hidden_size], Init::Zeros);
    let images = preprocessing(b)?;
    let video_processor =
        frames.map(|n| -> Arc<dyn Processor> { Arc::new(VideoProcessor::new(images.clone(), n as usize)) });
    Ok(Box::new(Git {
        projection: Linear::new(&b.scope.pp("projection"), vit.hidden_size, c.hidden_size, true)?,
        projection_norm: Norm::new(&b.scope.pp("projection_norm"), c.hidden_size, norm)?,
        temporal_embeddings: (0..frames.unwrap_or(0)).map(temporal).collect::<Result<_, _>>()?,
        decoder: load_decoder(b, &b.scope.pp("text"), sizes.decoder(true, None))?,
        video_processor,
        image_processor: Arc::new(ImageProcessor::new(images)),
        bos_token_id: c.bos_token_id,
        vision,
    }))
}

impl Git {
    /// Features `[batch, positions, vision dim]` of images.
    fn image_features(&self, pixels: &Tensor) -> mm_core::Result<Tensor> {
        Ok(self.vision.encode(&Input { values: pixels.clone(), mask: None }, false)?.values)
    }
}

impl MediaEncoder for Git {
    fn processor(&self, modality: &Modality) -> Option<&Arc<dyn Processor>> {
        match (modality.name(), &self.video_processor) {
            ("image", _) => Some(&self.image_processor),
            ("video", Some(video)) => Some(video),
            _ => None,
        }
    }

    fn encode(&self, _modality: &Modality, values: &Tensor) -> mm_core::Result<EncodedMedia> {
        let features = if values.rank() == 5 {
            let frame = |n: i64| self.image_features(&values.select(1, n)?)?.add(&self.temporal_embeddings[n as usize]);
            let frames = (0..values.size(1)?).map(frame).collect::<mm_core::Result<Vec<_>>>()?;
            Tensor::cat(&frames.iter().collect::<Vec<_>>(), 1)?
        } else {
            self.image_features(values)?
        };
        let projected = self.projection.forward(&features, false)?;
        Ok(EncodedMedia::new(self.projection_norm.forward(&projected, false)?))
    }

    fn prompt(&self, tokenizer: &Tokenizer, _media: Option<&EncodedMedia>, request: Request<'_>) -> Result<Prompt> {
        let text = match request {
            Request::Caption(start) => start,
            Request::Question(question) => Some(question),
            _ => {
                let found = "a conversation or a transcription";
                return Err(Error::invalid_argument("request to GIT", found, "a caption or a question"));
            }
        };
        let mut ids = vec![self.bos_token_id];
        if let Some(text) = text {
            ids.extend(tokenizer.encode(text, false)?);
        }
        let part_of_output = matches!(request, Request::Caption(_));
        Ok(Prompt { decoder_input_ids: ids, part_of_output, ..Prompt::default() })
    }

    fn as_generator(&self) -> Option<&dyn ConditionalGenerator> {
        Some(self)
    }

    fn explain(
        &self,
        tokenizer: &Tokenizer,
        media: &EncodedMedia,
        prompt: &Prompt,
        answer: &[i64],
    ) -> Result<Option<Attribution>> {
        let [rows, columns] = self.vision.embeddings.grid.map(|n| n as usize);
        let count = media.values.size(1)? as usize;
        // Each frame has a class token and its patches.
        let grid = [count / (rows * columns + 1).max(1), rows, columns];
        let prefill = self.prefill(Some(media), prompt, answer.len() as i64)?;
        let attention = PrefixAttention { prefill, image: (0, count), grid, prompt, image_token: None };
        Ok(Some(attention.attribution(&self.decoder, tokenizer, answer)?))
    }
}

impl ConditionalGenerator for Git {
    fn decoder(&self) -> &Decoder {
        &self.decoder
    }

    fn prefill(
        &self,
        media: Option<&EncodedMedia>,
        prompt: &Prompt,
        max_new_tokens: i64,
    ) -> mm_core::Result<Prefill<DecoderState>> {
        let media = media.ok_or_else(|| mm_core::Error::config("input of GIT", "no image", "an image"))?;
        let (rows, positions) = (media.values.size(0)?, media.values.size(1)?);
        let capacity = positions + prompt.decoder_input_ids.len() as i64 + max_new_tokens;
        let mut state = self.decoder.init_state(rows, capacity, None)?;
        let args = DecoderArgs { bidirectional: true, keep_position: true, ..DecoderArgs::default() };
        self.decoder.forward(&media.values, &mut state, args)?;
        prefill(&self.decoder, state, &prompt.decoder_input_ids)
    }

    fn forward(&self, batch: &TrainBatch<'_>) -> mm_core::Result<Tensor> {
        let (image, ids) = (self.encode(batch.modality, batch.values)?.values, batch.decoder_input_ids()?);
        let (patches, length) = (image.size(1)?, ids.size(1)?);
        // Patches attend to all patches, tokens to the patches and to tokens up to themselves.
        let positions = Tensor::arange(0, patches + length, image.device())?;
        let last_visible = positions.clamp_min(patches as f64 - 1.0)?.unsqueeze(1)?;
        let mask = Mask::Allowed(positions.unsqueeze(0)?.lt(&last_visible.add_scalar(1.0)?)?);
        let x = Tensor::cat(&[&image, &self.decoder.embed(ids, 0)?], 1)?;
        let pass = ForwardArgs { mask: Some(&mask), bidirectional: true, train: batch.train, ..ForwardArgs::default() };
        let hidden = self.decoder.forward_uncached(&x, pass)?.narrow(1, patches, length)?;
        self.decoder.logits(&hidden)
    }

    fn adjust_config(&self, config: &mut GenerationConfig) {
        if config.eos_token_id.is_empty() {
            config.eos_token_id = vec![DEFAULT_EOS];
        }
    }
}
