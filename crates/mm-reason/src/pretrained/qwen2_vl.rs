//! Qwen2-VL (Wang 2024): pictures and videos of any size as patches whose places are turned in, four patches become one feature, and a
//! language model whose positions are time, row and column.

use super::{
    Attribution, EncodedMedia, Prompt, Request, Tokenizer, TrainBatch, Voice,
    heat::Back,
    language,
    patches::{self, InPatches},
};
use crate::{
    Result,
    decoder::{Decoder, State},
    generate::Prefill,
};
use mm_core::{
    DType, Init, Modality, Module, Processor, Scope, Tensor,
    nn::{
        Activation, AttentionConfig, BlockConfig, ForwardArgs, Linear, MlpConfig, Norm, NormConfig, Transformer,
        TransformerConfig,
    },
};
use mm_data::{ImageProcessor, VideoProcessor};
use mm_repr::{
    checkpoint_config,
    family::{Family, ModelBuilder, WeightMap},
    image::preprocessing,
};
use serde_json::Value;
use std::sync::Arc;

checkpoint_config! {
    /// transformers' `Qwen2VLVisionConfig`.
    VisionConfig {
        depth: i64 = 32,
        embed_dim: i64 = 1280,
        hidden_size: i64 = 3584,
        hidden_act: Activation = Activation::QuickGelu,
        mlp_ratio: f64 = 4.0,
        num_heads: i64 = 16,
        in_channels: i64 = 3,
        patch_size: i64 = 14,
        spatial_merge_size: i64 = 2,
        temporal_patch_size: i64 = 2,
        rope_parameters: Value = Value::Null,
    }
}

/// The family of this file.
pub(super) const FAMILY: Family<Box<dyn Voice>> = Family {
    model_type: "qwen2_vl",
    weight_map: |c, _| {
        let newer = c.names().any(|n| n.starts_with("model.visual."));
        let (text, visual) = if newer { ("model.language_model.", "model.visual.") } else { ("model.", "visual.") };
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
        .then(language::names(text, "lm_head."))
    },
    build,
};

/// The vision part.
struct Vision {
    patch: Tensor,
    blocks: Transformer,
    norm: Norm,
    mlp: [Linear; 2],
    config: VisionConfig,
    base: f64,
}

impl Vision {
    fn new(b: &ModelBuilder<'_>, scope: &Scope<'_>, c: VisionConfig) -> mm_repr::Result<Self> {
        let norm = NormConfig { epsilon: 1e-6, ..NormConfig::default() };
        let hidden = (c.embed_dim as f64 * c.mlp_ratio) as i64;
        let block = BlockConfig {
            norm,
            norm_first: true,
            ..BlockConfig::new(AttentionConfig::new(c.embed_dim, c.num_heads), MlpConfig::new(hidden, c.hidden_act))
        };
        if c.spatial_merge_size < 1
            || c.patch_size < 1
            || c.temporal_patch_size < 1
            || c.embed_dim % (4 * c.num_heads.max(1)) != 0
        {
            return Err(
                b.config_error("vision_config: wanted sizes above 0, and heads whose width is a multiple of four")
            );
        }
        let shape = [c.embed_dim, c.in_channels, c.temporal_patch_size, c.patch_size, c.patch_size];
        let wide = c.embed_dim * c.spatial_merge_size * c.spatial_merge_size;
        let merger = scope.pp("merger");
        Ok(Self {
            patch: scope.pp("patch_embedding").param("weight", &shape, Init::Normal(0.02))?,
            blocks: b.transformer(scope, TransformerConfig { layers: c.depth, block, final_norm: false })?,
            norm: Norm::new(&merger.pp("ln_q"), c.embed_dim, norm)?,
            mlp: [
                Linear::new(&merger.pp("mlp").pp(0), wide, wide, true)?,
                Linear::new(&merger.pp("mlp").pp(2), wide, c.hidden_size, true)?,
            ],
            base: c.rope_parameters["rope_theta"].as_f64().unwrap_or(10_000.0),
            config: c,
        })
    }

    /// Frames `[time, 3, height, width]` → features `[1, time · down · across / merge², width]`, and the patches' (time, down, across).
    fn forward(&self, frames: &Tensor) -> mm_core::Result<(Tensor, [i64; 3])> {
        let c = &self.config;
        let step = c.temporal_patch_size;
        let missing = (step - frames.size(0)? % step) % step;
        let last = frames.narrow(0, frames.size(0)? - 1, 1)?.expand(&[missing, -1, -1, -1])?;
        let frames = Tensor::cat(&[frames, &last], 0)?;
        let video = frames.permute(&[1, 0, 2, 3])?.unsqueeze(0)?; // [1, 3, time, height, width]
        let x = video.conv3d(&self.patch, None, [step, c.patch_size, c.patch_size])?; // [1, width, time, down, across]
        let (time, down, across) = (x.size(2)?, x.size(3)?, x.size(4)?);
        let x = x.squeeze(0)?.permute(&[1, 2, 3, 0])?.reshape(&[time, down * across, c.embed_dim])?;
        // A quarter of each head is turned by the row, a quarter by the column, the other half against them.
        let quarter = c.embed_dim / c.num_heads / 4;
        let turns: Vec<f32> = (0..quarter).map(|i| self.base.powf(-(i as f64) / quarter as f64) as f32).collect();
        let turns = Tensor::from_slice(&turns)?.to_device(x.device())?;
        let axis = |n: i64| Tensor::arange(0, n, x.device())?.to_dtype(DType::F32)?.unsqueeze(1)?.mul(&turns);
        let rows = axis(down)?.unsqueeze(1)?.expand(&[down, across, quarter])?;
        let columns = axis(across)?.unsqueeze(0)?.expand(&[down, across, quarter])?;
        let angles = Tensor::cat(&[&rows, &columns], 2)?.reshape(&[down * across, 2 * quarter])?;
        let (cos, sin) = (angles.cos()?.to_dtype(x.dtype()?)?, angles.sin()?.to_dtype(x.dtype()?)?);
        let x = self.blocks.run(&x, ForwardArgs { angles: Some((&cos, &sin)), ..ForwardArgs::default() })?;
        let m = c.spatial_merge_size;
        let x = self.norm.forward(&x, false)?.reshape(&[time, down / m, m, across / m, m, c.embed_dim])?;
        let x = x.permute(&[0, 1, 3, 2, 4, 5])?.reshape(&[1, time * (down / m) * (across / m), m * m * c.embed_dim])?;
        let x = self.mlp[1].forward(&self.mlp[0].forward(&x, false)?.gelu()?, false)?;
        Ok((x, [time, down, across]))
    }
}

struct Qwen2Vl {
    vision: Vision,
    decoder: Decoder,
    picture: Arc<dyn Processor>,
    video: Arc<dyn Processor>,
    /// The same in patches, of any shapes, to learn from.
    lessons: [Arc<dyn Processor>; 2],
    image_token: i64,
    video_token: i64,
    merge: i64,
}

/// Frames that are taken of a video, spread evenly.
const FRAMES: usize = 8;

fn build(b: &ModelBuilder<'_>) -> mm_repr::Result<Box<dyn Voice>> {
    let c = b.config;
    // Older folders have the language part's sizes at the top.
    let text = if c["text_config"].is_object() { &c["text_config"] } else { c };
    let seen: VisionConfig = b.parse_part(&c["vision_config"], "vision_config")?;
    let images = preprocessing(b)?;
    let id = |key: &str, otherwise: i64| c[key].as_i64().unwrap_or(otherwise);
    let picture: Arc<dyn Processor> = Arc::new(ImageProcessor::new(images.clone()));
    let video: Arc<dyn Processor> = Arc::new(VideoProcessor::without_repeats(images, FRAMES));
    let patch = [seen.patch_size; 2];
    let in_patches = |whole: &Arc<dyn Processor>| Arc::new(InPatches { whole: whole.clone(), patch }) as _;
    Ok(Box::new(Qwen2Vl {
        merge: seen.spatial_merge_size,
        lessons: [in_patches(&picture), in_patches(&video)],
        vision: Vision::new(b, &b.scope.pp("vision"), seen)?,
        decoder: Decoder::new(b, &b.scope.pp("text"), language::config(b, text, "qwen2_vl", 1e6)?)?,
        picture,
        video,
        image_token: id("image_token_id", 151_655),
        video_token: id("video_token_id", 151_656),
    }))
}

impl Qwen2Vl {
    /// The placeholder that a prompt has.
    fn placeholder(&self, ids: &[i64]) -> i64 {
        if ids.contains(&self.video_token) { self.video_token } else { self.image_token }
    }

    /// The frames of a row of a batch to learn from.
    fn frames(&self, row: &Tensor, grid: [i64; 3]) -> mm_core::Result<Tensor> {
        patches::frames(row, grid, [self.vision.config.patch_size; 2])
    }

    /// Time, row and column of each token, `[3, length]`, and the position after the last.
    fn places(&self, ids: &[i64], grid: Option<[i64; 3]>) -> mm_core::Result<(Tensor, i64)> {
        let mut axes: [Vec<i64>; 3] = Default::default();
        let (mut next, mut furthest) = (0, -1);
        let mut at = 0;
        while at < ids.len() {
            match grid {
                Some([time, down, across]) if ids[at] == self.placeholder(ids) => {
                    let (down, across) = (down / self.merge, across / self.merge);
                    for n in 0..time * down * across {
                        axes[0].push(next + n / (down * across));
                        axes[1].push(next + n / across % down);
                        axes[2].push(next + n % across);
                    }
                    furthest = furthest.max(next + (time.max(down).max(across)) - 1);
                    next += down.max(across);
                    at += (time * down * across) as usize;
                }
                _ => {
                    axes.iter_mut().for_each(|a| a.push(next));
                    furthest = furthest.max(next);
                    next += 1;
                    at += 1;
                }
            }
        }
        let flat: Vec<i64> = axes.concat();
        Ok((Tensor::from_vec(&flat, &[3, ids.len() as i64])?, furthest + 1))
    }
}

impl Voice for Qwen2Vl {
    fn processor(&self, modality: &Modality) -> Option<&Arc<dyn Processor>> {
        match modality.name() {
            "image" => Some(&self.picture),
            "video" => Some(&self.video),
            _ => None,
        }
    }

    fn train_processor(&self, modality: &Modality) -> Option<&Arc<dyn Processor>> {
        match modality.name() {
            "image" => Some(&self.lessons[0]),
            "video" => Some(&self.lessons[1]),
            _ => None,
        }
    }

    fn one_by_one(&self) -> bool {
        true
    }

    fn see(&self, _modality: &Modality, values: &Tensor) -> mm_core::Result<EncodedMedia> {
        if values.size(0)? != 1 {
            return Err(mm_core::Error::config("Qwen2-VL", format!("{} pictures", values.size(0)?), "one at a time"));
        }
        let frames = match values.rank() {
            3 => self.frames(&values.select(0, 0)?, patches::grids(values)?[0])?,
            5 => values.select(0, 0)?,
            _ => values.clone(),
        };
        let (x, grid) = self.vision.forward(&frames)?;
        Ok(EncodedMedia { grid: Some(grid), ..EncodedMedia::of(x) })
    }

    fn prompt(&self, tokens: &Tokenizer, seen: Option<&EncodedMedia>, asked: Request<'_>) -> Result<Prompt> {
        let what = seen.map(|s| if s.grid.is_some_and(|g| g[0] > 1) { "video" } else { "image" });
        let id = if what == Some("video") { self.video_token } else { self.image_token };
        let plain = |text: &str, looks: bool| {
            let pad = tokens.id_to_token(id).unwrap_or_default();
            let place = if looks { format!("<|vision_start|>{pad}<|vision_end|>") } else { String::new() };
            format!("<|im_start|>user\n{place}{text}<|im_end|>\n<|im_start|>assistant\n")
        };
        let text = language::write(tokens, what, asked, plain)?;
        let features = seen.map_or(Ok(0), |s| s.values.size(1))?;
        Ok(Prompt { ids: language::ids(tokens, &text, id, features)?, ..Prompt::default() })
    }

    fn begin(&self, seen: Option<&EncodedMedia>, prompt: &Prompt, room: i64) -> mm_core::Result<Prefill<State>> {
        let places = self.places(&prompt.ids, seen.and_then(|s| s.grid))?;
        let id = self.placeholder(&prompt.ids);
        language::begin(&self.decoder, seen, &prompt.ids, id, room, Some(places))
    }

    fn explain(
        &self,
        tokens: &Tokenizer,
        seen: &EncodedMedia,
        prompt: &Prompt,
        said: &[i64],
    ) -> Result<Option<Attribution>> {
        let id = self.placeholder(&prompt.ids);
        let [time, down, across] = seen.grid.unwrap_or([1, 1, 1]);
        let grid = [time, down / self.merge, across / self.merge].map(|n| n as usize);
        let first = prompt.ids.iter().position(|p| *p == id).unwrap_or(0);
        let places = (first, seen.values.size(1)? as usize);
        let start = self.begin(Some(seen), prompt, said.len() as i64)?;
        let back = Back { start, places, grid, prompt, placeholder: Some(id) };
        Ok(Some(back.heat(&self.decoder, tokens, said)?))
    }

    fn learn(&self, batch: &TrainBatch<'_>) -> mm_core::Result<Option<Tensor>> {
        let ids = batch.decoder_input_ids()?;
        let mut rows = Vec::new();
        for (row, grid) in patches::grids(batch.values)?.into_iter().enumerate() {
            let (seen, grid) = self.vision.forward(&self.frames(&batch.values.select(0, row as i64)?, grid)?)?;
            let own = ids.select(0, row as i64)?.to_vec::<i64>()?;
            let placed = language::Placed::new(&own, self.placeholder(&own), seen.select(0, 0)?)?;
            let (places, _) = self.places(&placed.read, Some(grid))?;
            rows.push((placed, places));
        }
        language::learn(&self.decoder, ids, rows, batch.train).map(Some)
    }

    fn decoder(&self) -> Option<&Decoder> {
        Some(&self.decoder)
    }
}
