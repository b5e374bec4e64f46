//! GIT (Wang 2022): CLIP's picture features before the text, in one stack where the picture's places see each other and the text looks back.

use super::{Attribution, EncodedMedia, Prompt, Request, Tokenizer, TrainBatch, Voice, bert, heat::Back};
use crate::{
    Error, Result,
    decoder::{Decoder, Reading, State},
    generate::{GenerationConfig, Prefill},
};
use mm_core::{
    Encoder, Init, Input, Modality, Module, Processor, Tensor,
    nn::{Activation, ForwardArgs, Linear, Mask, Norm, NormConfig},
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

/// transformers' `GitVisionConfig`, which is CLIP's.
const VISION: VisionDefaults =
    VisionDefaults { image: 224, patch: 16, activation: Activation::QuickGelu, epsilon: 1e-5 };

/// The family of this file.
pub(super) const FAMILY: Family<Box<dyn Voice>> = Family {
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
        vision.then(bert::names("text.", "git."))
    },
    build,
};

struct Git {
    vision: VitBackbone,
    projection: (Linear, Norm),
    temporal: Vec<Tensor>,
    decoder: Decoder,
    picture: Arc<dyn Processor>,
    video: Option<Arc<dyn Processor>>,
    start: i64,
}

fn build(b: &ModelBuilder<'_>) -> mm_repr::Result<Box<dyn Voice>> {
    let c: GitConfig = b.parse()?;
    let seen = vision_config(b, &b.config["vision_config"], "vision_config", VISION)?;
    let shape = VisionVariant { class: true, bias: false, first_norm: true, final_norm: true };
    let vision = clip_vision_backbone(b, &b.scope.pp("vision"), &seen, shape)?;
    let sizes = bert::Sizes {
        vocabulary: c.vocab_size,
        width: c.hidden_size,
        layers: c.num_hidden_layers,
        heads: c.num_attention_heads,
        hidden: c.intermediate_size,
        activation: c.hidden_act,
        epsilon: c.layer_norm_eps,
        positions: c.max_position_embeddings,
    };
    let norm = NormConfig { epsilon: seen.layer_norm_eps, ..NormConfig::default() };
    let temporal = |n: i64| b.scope.pp("temporal").param(&n.to_string(), &[1, 1, seen.hidden_size], Init::Zeros);
    let frames = c.num_image_with_embedding;
    let images = preprocessing(b)?;
    Ok(Box::new(Git {
        projection: (
            Linear::new(&b.scope.pp("projection"), seen.hidden_size, c.hidden_size, true)?,
            Norm::new(&b.scope.pp("projection_norm"), c.hidden_size, norm)?,
        ),
        temporal: (0..frames.unwrap_or(0)).map(temporal).collect::<Result<_, _>>()?,
        decoder: Decoder::new(b, &b.scope.pp("text"), bert::decoder(&sizes, true, None))?,
        video: frames
            .map(|n| -> Arc<dyn Processor> { Arc::new(VideoProcessor::new(images.clone(), n.max(1) as usize)) }),
        picture: Arc::new(ImageProcessor::new(images)),
        start: c.bos_token_id,
        vision,
    }))
}

impl Git {
    fn features(&self, pixels: &Tensor) -> mm_core::Result<Tensor> {
        Ok(self.vision.encode(&Input { values: pixels.clone(), mask: None }, false)?.values)
    }
}

impl Voice for Git {
    fn processor(&self, modality: &Modality) -> Option<&Arc<dyn Processor>> {
        match (modality.name(), &self.video) {
            ("image", _) => Some(&self.picture),
            ("video", Some(video)) => Some(video),
            _ => None,
        }
    }

    fn see(&self, _modality: &Modality, values: &Tensor) -> mm_core::Result<EncodedMedia> {
        let features = if values.rank() == 5 {
            let frames = values.size(1)?;
            let frame = |n: i64| self.features(&values.select(1, n)?)?.add(&self.temporal[n as usize]);
            let all = (0..frames).map(frame).collect::<mm_core::Result<Vec<_>>>()?;
            Tensor::cat(&all.iter().collect::<Vec<_>>(), 1)?
        } else {
            self.features(values)?
        };
        let (linear, norm) = &self.projection;
        Ok(EncodedMedia::of(norm.forward(&linear.forward(&features, false)?, false)?))
    }

    fn prompt(&self, tokens: &Tokenizer, _seen: Option<&EncodedMedia>, asked: Request<'_>) -> Result<Prompt> {
        let words = match asked {
            Request::Caption(words) => words,
            Request::Question(question) => Some(question),
            _ => {
                return Err(Error::invalid_argument(
                    "a GIT",
                    "something else than a picture to describe or to ask about",
                    "that",
                ));
            }
        };
        let mut ids = vec![self.start];
        if let Some(words) = words {
            ids.extend(tokens.encode(words, false)?);
        }
        Ok(Prompt { ids, goes_on: matches!(asked, Request::Caption(_)), ..Prompt::default() })
    }

    fn begin(&self, seen: Option<&EncodedMedia>, prompt: &Prompt, room: i64) -> mm_core::Result<Prefill<State>> {
        let seen = seen.ok_or_else(|| mm_core::Error::config("a GIT", "no picture", "a picture"))?;
        let (rows, patches) = (seen.values.size(0)?, seen.values.size(1)?);
        let mut state = self.decoder.state(rows, patches + prompt.ids.len() as i64 + room, None)?;
        let open = Reading { open: true, unplaced: true, ..Reading::default() };
        self.decoder.read(&seen.values, &mut state, open)?;
        self.decoder.begin(state, &prompt.ids)
    }

    fn explain(
        &self,
        tokens: &Tokenizer,
        seen: &EncodedMedia,
        prompt: &Prompt,
        said: &[i64],
    ) -> Result<Option<Attribution>> {
        let [down, across] = self.vision.tokens.grid.map(|n| n as usize);
        let places = seen.values.size(1)? as usize;
        let grid = [places / (down * across + 1).max(1), down, across];
        let start = self.begin(Some(seen), prompt, said.len() as i64)?;
        Ok(Some(Back { start, places: (0, places), grid, prompt, placeholder: None }.heat(
            &self.decoder,
            tokens,
            said,
        )?))
    }

    fn learn(&self, batch: &TrainBatch<'_>) -> mm_core::Result<Option<Tensor>> {
        let (seen, ids) = (self.see(batch.modality, batch.values)?.values, batch.decoder_input_ids()?);
        let (patches, length) = (seen.size(1)?, ids.size(1)?);
        // Patches see each other; words see those and the words before.
        let places = Tensor::arange(0, patches + length, seen.device())?;
        let furthest = places.clamp_min(patches as f64 - 1.0)?.unsqueeze(1)?;
        let mask = Mask::Allowed(places.unsqueeze(0)?.lt(&furthest.add_scalar(1.0)?)?);
        let x = Tensor::cat(&[&seen, &self.decoder.embed(ids, 0)?], 1)?;
        let pass = ForwardArgs { mask: Some(&mask), open: true, train: batch.train, ..ForwardArgs::default() };
        let hidden = self.decoder.pass(&x, pass)?.narrow(1, patches, length)?;
        self.decoder.scores(&hidden).map(Some)
    }

    fn decoder(&self) -> Option<&Decoder> {
        Some(&self.decoder)
    }

    fn settle(&self, config: &mut GenerationConfig) {
        if config.eos_token_id.is_empty() {
            config.eos_token_id = vec![102];
        }
    }
}
