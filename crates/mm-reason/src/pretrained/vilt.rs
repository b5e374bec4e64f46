//! ViLT (Kim 2021): words and patches of pixels in one transformer; it chooses among labels, or says whether text and picture belong together.

use super::{
    Attribution, EncodedMedia, Prompt, Request, Tokenizer, TrainBatch, Voice, heat,
    patches::{self, InPatches},
};
use crate::{
    Error, Result,
    decoder::{Decoder, State},
    generate::Prefill,
};
use mm_core::{
    DType, Init, Modality, Module, Processor, Tensor,
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
    /// What transformers' `ViltConfig` has beside the sizes of a vision transformer.
    ViltConfig {
        vocab_size: i64 = 30522,
        type_vocab_size: i64 = 2,
        modality_type_vocab_size: i64 = 2,
        max_position_embeddings: i64 = 40,
        max_image_length: i64 = -1,
    }
}

/// Its sizes where the file is silent.
const VISION: VisionDefaults = VisionDefaults { image: 384, patch: 32, activation: Activation::Gelu, epsilon: 1e-12 };

/// The family of this file.
pub(super) const FAMILY: Family<Box<dyn Voice>> = Family {
    model_type: "vilt",
    weight_map: |c, _| {
        let start = if c.names().any(|n| n.starts_with("vilt.")) { "vilt." } else { "" };
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
        .and(&[("^trunk.", start)])
    },
    build,
};

struct Vilt {
    words: Embedding,
    places: Embedding,
    segment: Tensor,
    norm: Norm,
    /// Of words, of patches.
    kinds: Embedding,
    patches: PatchEmbed,
    class: Tensor,
    positions: Tensor,
    grid: [i64; 2],
    blocks: Transformer,
    pooler: Linear,
    classifier: Option<(Linear, Norm, Linear)>,
    rank: Option<Linear>,
    processor: Arc<dyn Processor>,
    lessons: Arc<dyn Processor>,
    longest: i64,
    width: i64,
    most: i64,
}

fn build(b: &ModelBuilder<'_>) -> mm_repr::Result<Box<dyn Voice>> {
    let c: ViltConfig = b.parse()?;
    let vit = vision_config(b, b.config, "", VISION)?;
    let width = vit.hidden_size;
    let grid = patch_grid(b, &vit, "patch_size")?;
    let scope = b.scope.pp("trunk");
    let tables = scope.pp("embeddings");
    let text = tables.pp("text_embeddings");
    let norm = NormConfig { epsilon: vit.layer_norm_eps, ..NormConfig::default() };
    let segments = Embedding::new(&text.pp("token_type_embeddings"), c.type_vocab_size, width)?;
    let head = b.scope.pp("classifier");
    let classifier = head.pp(0).has("weight").then(|| {
        Ok::<_, mm_repr::Error>((
            Linear::new(&head.pp(0), width, 2 * width, true)?,
            Norm::new(&head.pp(1), 2 * width, NormConfig::default())?,
            Linear::new(&head.pp(3), 2 * width, b.num_labels(), true)?,
        ))
    });
    let rank = b.scope.pp("rank_output");
    let processor: Arc<dyn Processor> = Arc::new(ImageProcessor::new(preprocessing(b)?));
    Ok(Box::new(Vilt {
        words: Embedding::new(&text.pp("word_embeddings"), c.vocab_size, width)?,
        places: Embedding::new(&text.pp("position_embeddings"), c.max_position_embeddings, width)?,
        segment: segments.weight().select(0, 0)?,
        norm: Norm::new(&text.pp("LayerNorm"), width, norm)?,
        kinds: Embedding::new(&tables.pp("token_type_embeddings"), c.modality_type_vocab_size, width)?,
        patches: PatchEmbed::new(
            &tables.pp("patch_embeddings").pp("projection"),
            vit.num_channels,
            width,
            &vit.patch_size.get(),
            true,
        )?,
        class: tables.param("cls_token", &[1, 1, width], Init::Zeros)?,
        positions: tables.param("position_embeddings", &[grid[0] * grid[1] + 1, width], Init::Zeros)?,
        blocks: b.transformer(
            &scope.pp("encoder"),
            TransformerConfig { layers: vit.num_hidden_layers, block: vit_block(&vit), final_norm: true },
        )?,
        pooler: Linear::new(&scope.pp("pooler").pp("dense"), width, width, true)?,
        classifier: classifier.transpose()?,
        rank: rank.has("weight").then(|| Linear::new(&rank, width, 1, true)).transpose()?,
        lessons: Arc::new(InPatches { whole: processor.clone(), patch: vit.patch_size.get() }),
        processor,
        longest: c.max_position_embeddings,
        most: c.max_image_length,
        grid,
        width,
    }))
}

impl Vilt {
    /// Vectors of the positions of patches that lie so, `[patches, width]`.
    fn stretched(&self, [down, across]: [i64; 2]) -> mm_core::Result<Tensor> {
        if self.most > 0 && down * across > self.most {
            // The reference draws which patches it keeps.
            let wanted = format!("at most the {} patches of max_image_length", self.most);
            return Err(mm_core::Error::config("picture", format!("{down}×{across} patches"), wanted));
        }
        let count = self.grid[0] * self.grid[1];
        let map = self.positions.narrow(0, 1, count)?.reshape(&[1, self.grid[0], self.grid[1], self.width])?;
        let map = map.permute(&[0, 3, 1, 2])?.to_dtype(DType::F32)?.contiguous()?.bilinear_corners([down, across])?;
        map.squeeze(0)?.flatten(1, 2)?.transpose(0, 1)
    }

    /// Pictures of one shape, or of any in patches ([`InPatches`]) → class token and patches `[rows, 1 + patches, width]`, and how each row's
    /// lie.
    fn vectors(&self, values: &Tensor) -> mm_core::Result<(Tensor, Vec<[i64; 2]>)> {
        let (x, grids): (_, Vec<[i64; 2]>) = if values.rank() == 3 {
            let grids = patches::grids(values)?.into_iter().map(|[_, down, across]| [down, across]).collect();
            (self.patches.of_pixels(&values.narrow(1, 1, values.size(1)? - 1)?)?, grids)
        } else {
            let x = self.patches.map(values)?; // [rows, width, down, across]
            let grid = [x.size(2)?, x.size(3)?];
            (x.flatten(2, 3)?.transpose(1, 2)?, vec![grid; x.size(0)? as usize])
        };
        let (rows, most) = (x.size(0)?, x.size(1)?);
        let places = if grids.windows(2).all(|w| w[0] == w[1]) {
            self.stretched(grids[0])?.unsqueeze(0)?
        } else {
            let each = grids.iter().map(|grid| self.stretched(*grid)?.pad(&[0, 0, 0, most - grid[0] * grid[1]], 0.0));
            Tensor::stack(&each.collect::<mm_core::Result<Vec<_>>>()?.iter().collect::<Vec<_>>(), 0)?
        };
        let x = x.add(&places.to_dtype(x.dtype()?)?)?;
        let class = self.class.add(&self.positions.narrow(0, 0, 1)?)?.expand(&[rows, -1, -1])?;
        let x = Tensor::cat(&[&class, &x], 1)?.add(&self.kinds.weight().select(0, 1)?)?;
        Ok((x, grids))
    }

    /// The vectors of the whole `[rows, width]` for one question about each row; `weights` gets where each block looked.
    fn pooled(&self, seen: &EncodedMedia, prompt: &Prompt, pass: ForwardArgs<'_>) -> mm_core::Result<Tensor> {
        let ids = Tensor::from_vec(&prompt.question, &[1, prompt.question.len() as i64])?;
        let ids = ids.expand(&[seen.values.size(0)?, -1])?;
        self.together(&seen.values, &ids.to_device(seen.values.device())?, pass)
    }

    /// What is seen and tokens `[rows, tokens]` → the vectors of the whole, `[rows, width]`.
    fn together(&self, seen: &Tensor, ids: &Tensor, pass: ForwardArgs<'_>) -> mm_core::Result<Tensor> {
        let places = self.places.forward(&Tensor::arange(0, ids.size(1)?, ids.device())?)?;
        let text = self.words.forward(ids)?.add(&self.segment)?.add(&places)?;
        let text = self.norm.forward(&text, false)?.add(&self.kinds.weight().select(0, 0)?)?;
        let hidden = self.blocks.run(&Tensor::cat(&[&text, seen], 1)?, pass)?;
        self.pooler.forward(&hidden.select(1, 0)?, false)?.tanh()
    }

    fn scores(&self, pooled: &Tensor) -> mm_core::Result<Option<Tensor>> {
        let Some((first, norm, last)) = &self.classifier else { return Ok(None) };
        let x = norm.forward(&first.forward(pooled, false)?, false)?.gelu()?;
        last.forward(&x, false).map(Some)
    }
}

impl Voice for Vilt {
    fn processor(&self, modality: &Modality) -> Option<&Arc<dyn Processor>> {
        (*modality == Modality::IMAGE).then_some(&self.processor)
    }

    fn see(&self, _modality: &Modality, values: &Tensor) -> mm_core::Result<EncodedMedia> {
        let (x, grids) = self.vectors(values)?;
        let [down, across] = grids[0];
        Ok(EncodedMedia { grid: Some([1, down, across]), ..EncodedMedia::of(x) })
    }

    fn train_processor(&self, modality: &Modality) -> Option<&Arc<dyn Processor>> {
        (*modality == Modality::IMAGE).then_some(&self.lessons)
    }

    fn prompt(&self, tokens: &Tokenizer, _seen: Option<&EncodedMedia>, asked: Request<'_>) -> Result<Prompt> {
        let Request::Question(question) = asked else {
            return Err(Error::invalid_argument(
                "a ViLT",
                "something else than a question",
                "a question: it chooses among labels",
            ));
        };
        let question = tokens.encode(question, true)?;
        if question.len() as i64 > self.longest {
            let wanted = format!("at most the {} that the model has positions for", self.longest);
            return Err(Error::invalid_argument("question", format!("{} tokens", question.len()), wanted));
        }
        Ok(Prompt { question, ..Prompt::default() })
    }

    fn begin(&self, _seen: Option<&EncodedMedia>, _prompt: &Prompt, _room: i64) -> mm_core::Result<Prefill<State>> {
        Err(mm_core::Error::config("a ViLT", "a wish for text", "a question: it chooses among labels"))
    }

    fn decoder(&self) -> Option<&Decoder> {
        None
    }

    fn choose(&self, seen: &EncodedMedia, prompt: &Prompt) -> mm_core::Result<Option<Tensor>> {
        if self.classifier.is_none() {
            return Ok(None);
        }
        self.scores(&self.pooled(seen, prompt, ForwardArgs::default())?)
    }

    fn learn(&self, batch: &TrainBatch<'_>) -> mm_core::Result<Option<Tensor>> {
        let (seen, grids) = self.vectors(batch.values)?;
        let counts: Vec<i64> = grids.iter().map(|[down, across]| 1 + down * across).collect();
        let question = batch.question.ok_or_else(|| mm_core::Error::Sample("no question".into()))?;
        let (rows, patches) = (seen.size(0)?, seen.size(1)?);
        let whole = counts.iter().all(|count| *count == patches);
        let mask = if whole && question.mask.is_none() {
            None
        } else {
            let count = Tensor::from_vec(&counts, &[rows, 1])?;
            let seen = Tensor::arange(0, patches, mm_core::Device::Cpu)?.lt(&count)?.to_device(seen.device())?;
            let words = question.values.shape();
            let asked = question.mask.clone().map_or_else(|| Tensor::ones(&words, DType::Bool, seen.device()), Ok)?;
            Some(Mask::Padding(Tensor::cat(&[&asked, &seen], 1)?))
        };
        let pass = ForwardArgs { mask: mask.as_ref(), train: batch.train, ..ForwardArgs::default() };
        self.scores(&self.together(&seen, &question.values, pass)?)
    }

    fn matches(&self, seen: &EncodedMedia, prompt: &Prompt) -> mm_core::Result<Option<f64>> {
        let Some(rank) = &self.rank else { return Ok(None) };
        let score = rank.forward(&self.pooled(seen, prompt, ForwardArgs::default())?, false)?;
        Ok(Some(score.to_dtype(DType::F64)?.sigmoid()?.reshape(&[])?.to_f64()?))
    }

    fn explain(
        &self,
        tokens: &Tokenizer,
        seen: &EncodedMedia,
        prompt: &Prompt,
        _said: &[i64],
    ) -> Result<Option<Attribution>> {
        let mut looked = Vec::new();
        self.pooled(seen, prompt, ForwardArgs { weights: Some(&mut looked), ..ForwardArgs::default() })?;
        let Some(flow) = heat::rollout(&looked)? else { return Ok(None) };
        // What the first token, which the answer is read from, is made of.
        let all: Vec<f32> = flow.select(0, 0)?.to_vec()?;
        let (text, picture) = all.split_at(prompt.question.len());
        let [_, down, across] = seen.grid.unwrap_or_default();
        Ok(Some(Attribution {
            steps: Vec::new(),
            patches: picture[1..].to_vec(),
            grid: [down as usize, across as usize],
            words: heat::words(tokens, &prompt.question, text),
        }))
    }
}
