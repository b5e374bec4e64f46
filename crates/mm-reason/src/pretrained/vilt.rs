//! `ViLT`: text tokens and image patches in one transformer, with a classifier of answers or a head for image-text
//! matching.
//!
//! *ViLT: Vision-and-Language Transformer Without Convolution or Region Supervision* (Kim et al., 2021),
//! <https://arxiv.org/abs/2102.03334>.

use super::{
    attribution::{attention_rollout, named_tokens},
    patches::{self, PatchSequence},
    tokenizer::Tokenizer,
    traits::{AnswerClassifier, MediaEncoder, PretrainedFamily},
    types::{Attribution, EncodedMedia, Prompt, Request, TrainBatch},
};
use crate::{Error, Result};
use mm_core::{
    DType, Device, Init, Modality, Module, Processor, Scope, Tensor,
    nn::{Activation, Embedding, ForwardArgs, Linear, Mask, Norm, NormConfig, Transformer, TransformerConfig},
};
use mm_data::ImageProcessor;
use mm_repr::{
    checkpoint_config,
    family::{Family, ModelBuilder, WeightMap},
    image::{
        VisionDefaults, preprocessing, vision_config,
        vit::{PatchEmbed, patch_grid, vit_block},
    },
};
use std::sync::Arc;

checkpoint_config! {
    /// Fields of transformers' `ViltConfig` other than the sizes of a vision transformer.
    ViltConfig {
        vocab_size: i64 = 30522,
        type_vocab_size: i64 = 2,
        modality_type_vocab_size: i64 = 2,
        max_position_embeddings: i64 = 40,
        max_image_length: i64 = -1,
    }
}

const VISION_DEFAULTS: VisionDefaults =
    VisionDefaults { image_size: 384, patch_size: 32, hidden_act: Activation::Gelu, layer_norm_eps: 1e-12 };

pub(super) const FAMILY: PretrainedFamily = PretrainedFamily {
    family: Family {
        model_type: "vilt",
        weight_map: |c, _| {
            let prefix = if c.names().any(|n| n.starts_with("vilt.")) { "vilt." } else { "" };
            WeightMap::new(&[
                ("trunk.encoder.final_layer_norm.", "trunk.layernorm."),
                (".layers.", ".layer."),
                (".self_attn.q_proj.", ".attention.attention.query."),
                (".self_attn.k_proj.", ".attention.attention.key."),
                (".self_attn.v_proj.", ".attention.attention.value."),
                (".self_attn.out_proj.", ".attention.output.dense."),
                (".layer_norm1.", ".layernorm_before."),
                (".layer_norm2.", ".layernorm_after."),
                (".mlp.fc1.", ".intermediate.dense."),
                (".mlp.fc2.", ".output.dense."),
            ])
            .and(&[("^trunk.", prefix)])
        },
        build,
    },
    classifier_prefix: Some("classifier."),
};

/// Embeddings of text tokens.
struct TextEmbeddings {
    words: Embedding,
    positions: Embedding,
    /// Token types, of which all tokens have the first.
    segments: Embedding,
    norm: Norm,
}

/// Embeddings of image patches.
struct ImageEmbeddings {
    patches: PatchEmbed,
    class_token: Tensor,
    /// Positions of the class token and of [`Self::grid`], `[1 + rows · columns, dim]`.
    positions: Tensor,
    grid: [i64; 2],
    dim: i64,
    /// Maximum number of patches; no limit where it is not positive.
    max_patches: i64,
}

struct ClassifierHead {
    dense: Linear,
    norm: Norm,
    output: Linear,
}

struct Vilt {
    text: TextEmbeddings,
    image: ImageEmbeddings,
    /// Token types of text and of patches.
    modality_types: Embedding,
    blocks: Transformer,
    pooler: Linear,
    classifier: Option<ClassifierHead>,
    itm_head: Option<Linear>,
    processor: Arc<dyn Processor>,
    train_processor: Arc<dyn Processor>,
    max_text_length: i64,
}

fn build(b: &ModelBuilder<'_>) -> mm_repr::Result<Box<dyn MediaEncoder>> {
    let c: ViltConfig = b.parse()?;
    let vit = vision_config(b, b.config, "", VISION_DEFAULTS)?;
    let dim = vit.hidden_size;
    let grid = patch_grid(b, &vit, "patch_size")?;
    let scope = b.scope.pp("trunk");
    let embeddings = scope.pp("embeddings");
    let text_scope = embeddings.pp("text_embeddings");
    let norm = NormConfig { eps: vit.layer_norm_eps, ..NormConfig::default() };
    let itm_head = b.scope.pp("rank_output");
    let processor: Arc<dyn Processor> = Arc::new(ImageProcessor::new(preprocessing(b)?));
    let patch_size = vit.patch_size.get();
    let patch_scope = embeddings.pp("patch_embeddings").pp("projection");
    Ok(Box::new(Vilt {
        text: TextEmbeddings {
            words: Embedding::new(&text_scope.pp("word_embeddings"), c.vocab_size, dim)?,
            positions: Embedding::new(&text_scope.pp("position_embeddings"), c.max_position_embeddings, dim)?,
            segments: Embedding::new(&text_scope.pp("token_type_embeddings"), c.type_vocab_size, dim)?,
            norm: Norm::new(&text_scope.pp("LayerNorm"), dim, norm)?,
        },
        image: ImageEmbeddings {
            patches: PatchEmbed::new(&patch_scope, vit.num_channels, dim, &patch_size, true)?,
            class_token: embeddings.param("cls_token", &[1, 1, dim], Init::Zeros)?,
            positions: embeddings.param("position_embeddings", &[grid[0] * grid[1] + 1, dim], Init::Zeros)?,
            grid,
            dim,
            max_patches: c.max_image_length,
        },
        modality_types: Embedding::new(&embeddings.pp("token_type_embeddings"), c.modality_type_vocab_size, dim)?,
        blocks: b.transformer(&scope.pp("encoder"), TransformerConfig::new(vit.num_hidden_layers, vit_block(&vit)))?,
        pooler: Linear::new(&scope.pp("pooler").pp("dense"), dim, dim, true)?,
        classifier: ClassifierHead::load(&b.scope.pp("classifier"), dim, b.num_labels())?,
        itm_head: itm_head.has("weight").then(|| Linear::new(&itm_head, dim, 1, true)).transpose()?,
        train_processor: Arc::new(PatchSequence { inner: processor.clone(), patch_size }),
        processor,
        max_text_length: c.max_position_embeddings,
    }))
}

impl ClassifierHead {
    /// The classifier, where the checkpoint has one.
    fn load(scope: &Scope<'_>, dim: i64, num_labels: i64) -> mm_repr::Result<Option<Self>> {
        if !scope.pp(0).has("weight") {
            return Ok(None);
        }
        Ok(Some(Self {
            dense: Linear::new(&scope.pp(0), dim, 2 * dim, true)?,
            norm: Norm::new(&scope.pp(1), 2 * dim, NormConfig::default())?,
            output: Linear::new(&scope.pp(3), 2 * dim, num_labels, true)?,
        }))
    }

    fn forward(&self, pooled: &Tensor) -> mm_core::Result<Tensor> {
        let x = self.norm.forward(&self.dense.forward(pooled, false)?, false)?.gelu()?;
        self.output.forward(&x, false)
    }
}

impl TextEmbeddings {
    /// Token ids `[batch, tokens]` → `[batch, tokens, dim]`.
    fn forward(&self, ids: &Tensor) -> mm_core::Result<Tensor> {
        let positions = self.positions.forward(&Tensor::arange(0, ids.size(1)?, ids.device())?)?;
        // A view that is kept would lose its gradient with the first step.
        let segment = self.segments.weight().select(0, 0)?;
        self.norm.forward(&self.words.forward(ids)?.add(&segment)?.add(&positions)?, false)
    }
}

impl ImageEmbeddings {
    /// Position embeddings interpolated to a grid, `[patches, dim]`.
    fn interpolated_positions(&self, [rows, columns]: [i64; 2]) -> mm_core::Result<Tensor> {
        if self.max_patches > 0 && rows * columns > self.max_patches {
            // The reference samples which patches it keeps.
            let expected = format!("at most the {} patches of max_image_length", self.max_patches);
            return Err(mm_core::Error::config("image", format!("{rows}×{columns} patches"), expected));
        }
        let count = self.grid[0] * self.grid[1];
        let map = self.positions.narrow(0, 1, count)?.reshape(&[1, self.grid[0], self.grid[1], self.dim])?;
        let map = map
            .permute(&[0, 3, 1, 2])?
            .to_dtype(DType::F32)?
            .contiguous()?
            .interpolate([rows, columns], mm_core::Interpolation::Bilinear { align_corners: true })?;
        map.squeeze(0)?.flatten(1, 2)?.transpose(0, 1)
    }

    /// Images of one size, or of any sizes as patches ([`PatchSequence`]) → class token and patches
    /// `[batch, 1 + patches, dim]`, and each row's grid.
    fn forward(&self, values: &Tensor) -> mm_core::Result<(Tensor, Vec<[i64; 2]>)> {
        let (x, grids): (_, Vec<[i64; 2]>) = if values.rank() == 3 {
            let grids = patches::grids(values)?.into_iter().map(|[_, rows, columns]| [rows, columns]).collect();
            (self.patches.project_patches(&values.narrow(1, 1, values.size(1)? - 1)?)?, grids)
        } else {
            let x = self.patches.conv(values)?; // [batch, dim, rows, columns]
            let grid = [x.size(2)?, x.size(3)?];
            (x.flatten(2, 3)?.transpose(1, 2)?, vec![grid; x.size(0)? as usize])
        };
        let (batch, longest) = (x.size(0)?, x.size(1)?);
        // Images of one size may be padded to a longer one that another process has.
        let positions = if grids.iter().all(|grid| *grid == grids[0] && grid[0] * grid[1] == longest) {
            self.interpolated_positions(grids[0])?.unsqueeze(0)?
        } else {
            let padded =
                |grid: &[i64; 2]| self.interpolated_positions(*grid)?.pad(&[0, 0, 0, longest - grid[0] * grid[1]], 0.0);
            let each = grids.iter().map(padded).collect::<mm_core::Result<Vec<_>>>()?;
            Tensor::stack(&each.iter().collect::<Vec<_>>(), 0)?
        };
        let x = x.add(&positions.to_dtype(x.dtype()?)?)?;
        let class = self.class_token.add(&self.positions.narrow(0, 0, 1)?)?.expand(&[batch, -1, -1])?;
        Ok((Tensor::cat(&[&class, &x], 1)?, grids))
    }
}

impl Vilt {
    /// Embeddings of images `[batch, 1 + patches, dim]`, and each row's grid.
    fn embed_image(&self, values: &Tensor) -> mm_core::Result<(Tensor, Vec<[i64; 2]>)> {
        let (x, grids) = self.image.forward(values)?;
        Ok((x.add(&self.modality_types.weight().select(0, 1)?)?, grids))
    }

    /// Pooled features `[batch, dim]` for one question about each row.
    fn pooled_prompt(&self, media: &EncodedMedia, prompt: &Prompt, pass: ForwardArgs<'_>) -> mm_core::Result<Tensor> {
        let ids = Tensor::from_vec(&prompt.question_ids, &[1, prompt.question_ids.len() as i64])?;
        let ids = ids.expand(&[media.values.size(0)?, -1])?;
        self.pooled(&media.values, &ids.to_device(media.values.device())?, pass)
    }

    /// Pooled features `[batch, dim]` of embedded images and token ids `[batch, tokens]`.
    fn pooled(&self, image: &Tensor, ids: &Tensor, pass: ForwardArgs<'_>) -> mm_core::Result<Tensor> {
        let text = self.text.forward(ids)?.add(&self.modality_types.weight().select(0, 0)?)?;
        let hidden = self.blocks.forward(&Tensor::cat(&[&text, image], 1)?, pass)?;
        self.pooler.forward(&hidden.select(1, 0)?, false)?.tanh()
    }

    /// The classifier. [`MediaEncoder::as_classifier`] returns models that have one.
    fn classifier(&self) -> mm_core::Result<&ClassifierHead> {
        self.classifier.as_ref().ok_or_else(|| {
            mm_core::Error::config("ViLT", "a checkpoint without a classifier", "a checkpoint for question answering")
        })
    }
}

impl MediaEncoder for Vilt {
    fn processor(&self, modality: &Modality) -> Option<&Arc<dyn Processor>> {
        (*modality == Modality::IMAGE).then_some(&self.processor)
    }

    fn train_processor(&self, modality: &Modality) -> Option<&Arc<dyn Processor>> {
        (*modality == Modality::IMAGE).then_some(&self.train_processor)
    }

    fn encode(&self, _modality: &Modality, values: &Tensor) -> mm_core::Result<EncodedMedia> {
        let (x, grids) = self.embed_image(values)?;
        let [rows, columns] = grids[0];
        Ok(EncodedMedia::with_grid(x, [1, rows, columns], false))
    }

    fn prompt(&self, tokenizer: &Tokenizer, _media: Option<&EncodedMedia>, request: Request<'_>) -> Result<Prompt> {
        let Request::Question(question) = request else {
            let expected = "a question: the model classifies answers";
            return Err(Error::invalid_argument("request to ViLT", "one for generated text", expected));
        };
        let question_ids = tokenizer.encode(question, true)?;
        if question_ids.len() as i64 > self.max_text_length {
            let expected = format!("at most the model's {} positions", self.max_text_length);
            return Err(Error::invalid_argument("question", format!("{} tokens", question_ids.len()), expected));
        }
        Ok(Prompt { question_ids, ..Prompt::default() })
    }

    fn as_classifier(&self) -> Option<&dyn AnswerClassifier> {
        self.classifier.is_some().then_some(self as _)
    }

    fn itm_score(&self, media: &EncodedMedia, prompt: &Prompt) -> mm_core::Result<Option<f64>> {
        let Some(head) = &self.itm_head else { return Ok(None) };
        let score = head.forward(&self.pooled_prompt(media, prompt, ForwardArgs::default())?, false)?;
        Ok(Some(score.to_dtype(DType::F64)?.sigmoid()?.reshape(&[])?.to_f64()?))
    }

    fn explain(
        &self,
        tokenizer: &Tokenizer,
        media: &EncodedMedia,
        prompt: &Prompt,
        _answer: &[i64],
    ) -> Result<Option<Attribution>> {
        let mut maps = Vec::new();
        self.pooled_prompt(media, prompt, ForwardArgs { attention_maps: Some(&mut maps), ..ForwardArgs::default() })?;
        let Some(rollout) = attention_rollout(&maps)? else { return Ok(None) };
        // The answer is classified from the first token.
        let first: Vec<f32> = rollout.select(0, 0)?.to_vec()?;
        let (text, image) = first.split_at(prompt.question_ids.len());
        let [_, rows, columns] = media.grid().unwrap_or_default();
        Ok(Some(Attribution {
            patches: image[1..].to_vec(),
            grid: [rows as usize, columns as usize],
            words: named_tokens(tokenizer, &prompt.question_ids, text),
            steps: Vec::new(),
        }))
    }
}

impl AnswerClassifier for Vilt {
    fn answer_logits(&self, media: &EncodedMedia, prompt: &Prompt) -> mm_core::Result<Tensor> {
        self.classifier()?.forward(&self.pooled_prompt(media, prompt, ForwardArgs::default())?)
    }

    fn forward(&self, batch: &TrainBatch<'_>) -> mm_core::Result<Tensor> {
        let (image, grids) = self.embed_image(batch.values)?;
        let lengths: Vec<i64> = grids.iter().map(|[rows, columns]| 1 + rows * columns).collect();
        let question = batch.question()?;
        let (rows, patches) = (image.size(0)?, image.size(1)?);
        let unpadded = lengths.iter().all(|length| *length == patches);
        let mask = if unpadded && question.mask.is_none() {
            None
        } else {
            let lengths = Tensor::from_vec(&lengths, &[rows, 1])?;
            let image_mask = Tensor::arange(0, patches, Device::Cpu)?.lt(&lengths)?.to_device(image.device())?;
            let text_mask = match &question.mask {
                Some(mask) => mask.clone(),
                None => Tensor::ones(&question.values.shape(), DType::Bool, image.device())?,
            };
            Some(Mask::Padding(Tensor::cat(&[&text_mask, &image_mask], 1)?))
        };
        let pass = ForwardArgs { mask: mask.as_ref(), train: batch.train, ..ForwardArgs::default() };
        self.classifier()?.forward(&self.pooled(&image, &question.values, pass)?)
    }
}
