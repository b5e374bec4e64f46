//! Qwen2-VL: images and videos of any size as patches, of which four become one feature, among the tokens of a language
//! model with positions of time, row and column.
//!
//! *Qwen2-VL: Enhancing Vision-Language Model's Perception of the World at Any Resolution* (Wang et al., 2024),
//! <https://arxiv.org/abs/2409.12191>.

mod video;
mod vision;

use super::{
    attribution::PrefixAttention,
    decoder::load_decoder,
    image_tokens::{self, ImageSpan, Placeholder, Positions},
    llama_decoder::{llama_decoder, llama_weight_map},
    patches::{self, PatchSequence},
    tokenizer::Tokenizer,
    traits::{ConditionalGenerator, MediaEncoder, PretrainedFamily},
    types::{Attribution, EncodedMedia, MediaItem, Prompt, Request, TrainBatch},
};
use crate::{Result, generate::Prefill};
use mm_core::{
    Modality, Processor, Tensor,
    nn::decoder::{Decoder, DecoderState},
};
use mm_data::ImageProcessor;
use mm_repr::{
    family::{Family, ModelBuilder, WeightMap},
    image::preprocessing,
};
use std::sync::Arc;
use video::video_processor;
use vision::{Qwen2VlVisionConfig, VisionEncoder};

pub(super) const FAMILY: PretrainedFamily = PretrainedFamily {
    family: Family {
        model_type: "qwen2_vl",
        weight_map: |c, _| {
            let nested = c.names().any(|n| n.starts_with("model.visual."));
            let (text, visual) =
                if nested { ("model.language_model.", "model.visual.") } else { ("model.", "visual.") };
            WeightMap::new(&[
                ("vision.patch_embedding.", "vision.patch_embed.proj."),
                ("vision.layers.", "vision.blocks."),
                (".self_attn.q_proj.", ".attn.qkv.#0/3"),
                (".self_attn.k_proj.", ".attn.qkv.#1/3"),
                (".self_attn.v_proj.", ".attn.qkv.#2/3"),
                (".self_attn.out_proj.", ".attn.proj."),
                (".layer_norm1.", ".norm1."),
                (".layer_norm2.", ".norm2."),
            ])
            .and(&[("^vision.", visual)])
            .only_within("vision.")
            .then(llama_weight_map(text, "lm_head."))
        },
        build,
    },
    classifier_prefix: None,
};

/// Rotary base of the language model, where the config names none.
const DEFAULT_ROPE_THETA: f64 = 1e6;

struct Qwen2Vl {
    vision: VisionEncoder,
    decoder: Decoder,
    image_processor: Arc<dyn Processor>,
    video_processor: Arc<dyn Processor>,
    /// Processors for training, which return sequences of patches so that batches can be padded.
    train_image_processor: Arc<dyn Processor>,
    train_video_processor: Arc<dyn Processor>,
    image_token: i64,
    video_token: i64,
    merge_size: i64,
}

fn build(b: &ModelBuilder<'_>) -> mm_repr::Result<Box<dyn MediaEncoder>> {
    let c = b.config;
    // Older checkpoints have the language model's sizes at the top.
    let text = if c["text_config"].is_object() { &c["text_config"] } else { c };
    let vision: Qwen2VlVisionConfig = b.parse_part(&c["vision_config"], "vision_config")?;
    let token = |key: &str, default: i64| c[key].as_i64().unwrap_or(default);
    let decoder_config = llama_decoder(b, text, "qwen2_vl", DEFAULT_ROPE_THETA)?;
    let image_processor: Arc<dyn Processor> = Arc::new(ImageProcessor::new(preprocessing(b)?));
    let video_processor = video_processor(b, decoder_config.max_positions.unsigned_abs())?;
    let patch_size = [vision.patch_size; 2];
    let in_patches = |inner: &Arc<dyn Processor>| Arc::new(PatchSequence { inner: inner.clone(), patch_size });
    Ok(Box::new(Qwen2Vl {
        merge_size: vision.spatial_merge_size,
        train_image_processor: in_patches(&image_processor),
        train_video_processor: in_patches(&video_processor),
        vision: VisionEncoder::new(b, &b.scope.pp("vision"), vision)?,
        decoder: load_decoder(b, &b.scope.pp("text"), decoder_config)?,
        image_processor,
        video_processor,
        image_token: token("image_token_id", 151_655),
        video_token: token("video_token_id", 151_656),
    }))
}

impl Qwen2Vl {
    /// The tokens that stand for images and videos.
    fn placeholders(&self) -> [i64; 2] {
        [self.image_token, self.video_token]
    }

    /// The placeholder token of a prompt about one image or video.
    fn placeholder(&self, ids: &[i64]) -> i64 {
        if ids.contains(&self.video_token) { self.video_token } else { self.image_token }
    }

    /// The frames of one row of a training batch.
    fn frames(&self, row: &Tensor, grid: [i64; 3]) -> mm_core::Result<Tensor> {
        patches::to_frames(row, grid, [self.vision.config.patch_size; 2])
    }

    /// Positions of the tokens: of those of an image or video, time, row and column of its patches, whose grids are given
    /// in order; of others, three times the same.
    fn positions(&self, ids: &[i64], grids: &[[i64; 3]]) -> mm_core::Result<Positions> {
        let mut axes: [Vec<i64>; 3] = Default::default();
        let (mut next, mut highest) = (0, -1);
        let (mut index, mut grids) = (0, grids.iter());
        while index < ids.len() {
            let grid = if self.placeholders().contains(&ids[index]) { grids.next() } else { None };
            if let Some([time, rows, columns]) = grid {
                let (rows, columns) = (rows / self.merge_size, columns / self.merge_size);
                for n in 0..time * rows * columns {
                    axes[0].push(next + n / (rows * columns));
                    axes[1].push(next + n / columns % rows);
                    axes[2].push(next + n % columns);
                }
                highest = highest.max(next + (*time).max(rows).max(columns) - 1);
                next += rows.max(columns);
                index += (time * rows * columns) as usize;
            } else {
                axes.iter_mut().for_each(|axis| axis.push(next));
                highest = highest.max(next);
                next += 1;
                index += 1;
            }
        }
        Ok((Tensor::from_vec(&axes.concat(), &[3, ids.len() as i64])?, highest + 1))
    }
}

impl MediaEncoder for Qwen2Vl {
    fn processor(&self, modality: &Modality) -> Option<&Arc<dyn Processor>> {
        match modality.name() {
            "image" => Some(&self.image_processor),
            "video" => Some(&self.video_processor),
            _ => None,
        }
    }

    fn train_processor(&self, modality: &Modality) -> Option<&Arc<dyn Processor>> {
        match modality.name() {
            "image" => Some(&self.train_image_processor),
            "video" => Some(&self.train_video_processor),
            _ => None,
        }
    }

    fn encode(&self, modality: &Modality, values: &Tensor) -> mm_core::Result<EncodedMedia> {
        if values.size(0)? != 1 {
            let found = format!("{} images", values.size(0)?);
            return Err(mm_core::Error::config("input of Qwen2-VL", found, "one at a time"));
        }
        let frames = match values.rank() {
            3 => self.frames(&values.select(0, 0)?, patches::grids(values)?[0])?,
            5 => values.select(0, 0)?,
            _ => values.clone(),
        };
        let (x, grid) = self.vision.forward(&frames)?;
        Ok(EncodedMedia::with_grid(x, grid, *modality == Modality::VIDEO))
    }

    fn supports_batches(&self) -> bool {
        false
    }

    fn supports_several_media(&self) -> bool {
        true
    }

    fn prompt(&self, tokenizer: &Tokenizer, media: Option<&EncodedMedia>, request: Request<'_>) -> Result<Prompt> {
        let items = media.map_or(&[][..], |media| &media.items);
        let token = |item: &MediaItem| if item.is_video { self.video_token } else { self.image_token };
        let kinds: Vec<&str> = items.iter().map(|item| if item.is_video { "video" } else { "image" }).collect();
        let default = |text: &str| {
            let pad = |item| tokenizer.id_to_token(token(item)).unwrap_or_default();
            let media: String =
                items.iter().map(|item| format!("<|vision_start|>{}<|vision_end|>", pad(item))).collect();
            format!("<|im_start|>user\n{media}{text}<|im_end|>\n<|im_start|>assistant\n")
        };
        let text = image_tokens::prompt_text(tokenizer, &kinds, request, default)?;
        let placeholder = |item: &MediaItem| Placeholder { token: token(item), features: item.features };
        let placeholders: Vec<Placeholder> = items.iter().map(placeholder).collect();
        let decoder_input_ids = image_tokens::prompt_ids(tokenizer, &text, &self.placeholders(), &placeholders)?;
        Ok(Prompt { decoder_input_ids, ..Prompt::default() })
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
        let ids = &prompt.decoder_input_ids;
        let placeholder = self.placeholder(ids);
        let [time, rows, columns] = media.grid().unwrap_or([1, 1, 1]);
        let start = ids.iter().position(|id| *id == placeholder).unwrap_or(0);
        let attention = PrefixAttention {
            prefill: self.prefill(Some(media), prompt, answer.len() as i64)?,
            image: (start, media.values.size(1)? as usize),
            grid: [time, rows / self.merge_size, columns / self.merge_size].map(|n| n as usize),
            prompt,
            image_token: Some(placeholder),
        };
        Ok(Some(attention.attribution(&self.decoder, tokenizer, answer)?))
    }
}

impl ConditionalGenerator for Qwen2Vl {
    fn decoder(&self) -> &Decoder {
        &self.decoder
    }

    fn prefill(
        &self,
        media: Option<&EncodedMedia>,
        prompt: &Prompt,
        max_new_tokens: i64,
    ) -> mm_core::Result<Prefill<DecoderState>> {
        let ids = &prompt.decoder_input_ids;
        let items = media.map_or(&[][..], |media| &media.items);
        let grids: Vec<[i64; 3]> = items.iter().filter_map(|item| item.grid).collect();
        let positions = self.positions(ids, &grids)?;
        image_tokens::prefill(&self.decoder, media, ids, &self.placeholders(), max_new_tokens, Some(positions))
    }

    fn forward(&self, batch: &TrainBatch<'_>) -> mm_core::Result<Tensor> {
        let ids = batch.decoder_input_ids()?;
        let mut rows = Vec::new();
        for (row, grid) in patches::grids(batch.values)?.into_iter().enumerate() {
            let frames = self.frames(&batch.values.select(0, row as i64)?, grid)?;
            let (features, grid) = self.vision.forward(&frames)?;
            let own = ids.select(0, row as i64)?.to_vec::<i64>()?;
            let span = ImageSpan::new(&own, self.placeholder(&own), features.select(0, 0)?)?;
            let (positions, _) = self.positions(&span.expanded_ids, &[grid])?;
            rows.push((span, positions));
        }
        image_tokens::forward(&self.decoder, ids, rows, batch.train)
    }
}
