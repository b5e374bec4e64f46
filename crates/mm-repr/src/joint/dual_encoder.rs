//! The towers of image-text models: a vision transformer and a text transformer whose pooled features are projected
//! into one space and normalized to unit length.

use crate::{
    Result, checkpoint_config,
    family::{ContrastiveHead, Model, ModelBuilder, PretrainedEncoder, Tower},
    image::{
        VisionVariant, clip_vision_backbone,
        vit::{VitBackbone, VitConfig},
    },
    text::transformer::TextTransformer,
};
use mm_core::{
    DType, Encoder, Features, Init, Input, Modality, Module, Scope, Tensor,
    nn::{
        Activation, Attention, AttentionArgs, AttentionConfig, BlockConfig, Embedding, ForwardArgs, Linear, Mask, Mlp,
        MlpConfig, Norm, NormConfig, Transformer, TransformerConfig,
    },
};

checkpoint_config! {
    /// transformers' `CLIPTextConfig` and `SiglipTextConfig`, with CLIP's defaults.
    ClipTextConfig {
        vocab_size: i64 = 49408,
        hidden_size: i64 = 512,
        intermediate_size: i64 = 2048,
        num_hidden_layers: i64 = 12,
        num_attention_heads: i64 = 8,
        max_position_embeddings: i64 = 77,
        hidden_act: Activation = Activation::QuickGelu,
        layer_norm_eps: f64 = 1e-5,
        eos_token_id: i64 = 49407,
        projection_size: Option<i64> = None,
    }
}

/// Which token's features represent the text.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum TextPooling {
    /// The token with the largest id, which ends a text in CLIP's vocabulary.
    LargestId,
    /// The first token with this id.
    FirstOf(i64),
    /// The last token, padding included.
    Last,
}

/// Projects pooled features, if there is a layer, and normalizes them to unit length.
pub(super) struct Projection(pub(super) Option<Linear>);

impl Projection {
    /// A projection without bias under `name` of the builder's scope.
    pub(super) fn new(b: &ModelBuilder<'_>, name: &str, input: i64, output: i64) -> Result<Self> {
        Ok(Self(Some(Linear::new(&b.scope.pp(name), input, output, false)?)))
    }

    /// Dimension of the output for inputs of this dimension.
    fn dim(&self, input: i64) -> i64 {
        self.0.as_ref().map_or(input, Linear::out_features)
    }

    fn apply(&self, x: &Tensor) -> mm_core::Result<Tensor> {
        self.0.as_ref().map_or_else(|| Ok(x.clone()), |p| p.forward(x, false))?.normalize()
    }
}

/// CLIP's text transformer, causal, or SigLIP's, bidirectional.
pub(super) struct ClipTextEncoder {
    tokens: Embedding,
    positions: Embedding,
    blocks: Transformer,
    pooling: TextPooling,
    projection: Projection,
    dim: i64,
    causal: bool,
}

impl ClipTextEncoder {
    /// Builds the encoder under `text_model` of the builder's scope.
    pub(super) fn new(
        b: &ModelBuilder<'_>,
        c: &ClipTextConfig,
        causal: bool,
        pooling: TextPooling,
        projection: Projection,
    ) -> Result<Self> {
        let (scope, dim) = (b.scope.pp("text_model"), c.hidden_size);
        let norm = NormConfig { eps: c.layer_norm_eps, ..NormConfig::default() };
        let attention = AttentionConfig { causal, ..AttentionConfig::new(dim, c.num_attention_heads) };
        let mlp = MlpConfig::new(c.intermediate_size, c.hidden_act);
        let block = BlockConfig { norm, ..BlockConfig::pre_norm(attention, mlp) };
        let transformer = TransformerConfig::new(c.num_hidden_layers, block);
        let embeddings = scope.pp("embeddings");
        Ok(Self {
            tokens: Embedding::new(&embeddings.pp("token_embedding"), c.vocab_size, dim)?,
            positions: Embedding::new(&embeddings.pp("position_embedding"), c.max_position_embeddings, dim)?,
            blocks: b.transformer(&scope.pp("encoder"), transformer)?,
            pooling,
            projection,
            dim,
            causal,
        })
    }
}

impl Encoder for ClipTextEncoder {
    fn encode(&self, input: &Input, train: bool) -> mm_core::Result<Features> {
        let (length, max_length) = (input.values.size(1)?, self.positions.weight().size(0)?);
        if length > max_length {
            let expected = format!("at most {max_length} tokens");
            return Err(mm_core::Error::shape("token ids", &input.values.shape(), expected));
        }
        let positions = Tensor::arange(0, length, input.values.device())?;
        let x = self.tokens.forward(&input.values)?.add(&self.positions.forward(&positions)?)?;
        // A causal text cannot attend to the padding after it.
        let mask = if self.causal { None } else { input.mask.clone().map(Mask::Padding) };
        Features::new(
            self.blocks.forward(&x, ForwardArgs { mask: mask.as_ref(), train, ..ForwardArgs::default() })?,
            input.mask.clone(),
        )
    }

    fn embed(&self, input: &Input, train: bool) -> mm_core::Result<Tensor> {
        let x = self.encode(input, train)?.values;
        let (rows, length) = (x.size(0)?, x.size(1)?);
        let matches = match self.pooling {
            TextPooling::Last => return self.projection.apply(&x.select(1, length - 1)?),
            TextPooling::LargestId => input.values.eq(&input.values.amax(1, true)?)?,
            TextPooling::FirstOf(id) => input.values.eq_scalar(id as f64)?,
        };
        // Padding may have the same id (CLIP pads with its end token), so the first match is taken: its index is the
        // number of tokens before it.
        let before = matches.to_dtype(DType::I64)?.cumsum(1)?.eq_scalar(0.0)?.to_dtype(DType::I64)?;
        let index = before.sum_dim(&[1], false)?.clamp(0.0, (length - 1) as f64)?.to_dtype(DType::I64)?;
        let index = index.reshape(&[rows, 1, 1])?.expand(&[rows, 1, self.dim])?;
        self.projection.apply(&x.gather(1, &index)?.squeeze(1)?)
    }

    fn dim(&self) -> i64 {
        self.dim
    }

    fn embedding_dim(&self) -> i64 {
        self.projection.dim(self.dim)
    }

    fn modality(&self) -> Modality {
        Modality::TEXT
    }
}

/// BERT with its first token projected (Chinese-CLIP, BLIP).
pub(super) struct BertTextEncoder {
    pub(super) bert: TextTransformer,
    pub(super) projection: Projection,
}

impl Encoder for BertTextEncoder {
    fn encode(&self, input: &Input, train: bool) -> mm_core::Result<Features> {
        self.bert.encode(input, train)
    }

    fn embed(&self, input: &Input, train: bool) -> mm_core::Result<Tensor> {
        self.projection.apply(&self.bert.encode(input, train)?.values.select(1, 0)?)
    }

    fn dim(&self) -> i64 {
        self.bert.dim()
    }

    fn embedding_dim(&self) -> i64 {
        self.projection.dim(self.bert.dim())
    }

    fn modality(&self) -> Modality {
        Modality::TEXT
    }
}

/// A learned query that attends to all patches, followed by an MLP (SigLIP).
pub(super) struct AttentionPooling {
    query: Tensor,
    attention: Attention,
    norm: Norm,
    mlp: Mlp,
}

impl AttentionPooling {
    pub(super) fn new(scope: &Scope<'_>, c: &VitConfig) -> Result<Self> {
        let dim = c.hidden_size;
        let norm = NormConfig { eps: c.layer_norm_eps, ..NormConfig::default() };
        let mlp = MlpConfig::new(c.intermediate_size, c.hidden_act);
        Ok(Self {
            query: scope.param("probe", &[1, 1, dim], Init::Normal(0.02))?,
            attention: Attention::new(&scope.pp("attention"), &AttentionConfig::new(dim, c.num_attention_heads))?,
            norm: Norm::new(&scope.pp("layernorm"), dim, norm)?,
            mlp: Mlp::new(&scope.pp("mlp"), dim, &mlp)?,
        })
    }

    /// `[batch, patches, dim]` → `[batch, dim]`.
    fn forward(&self, x: &Tensor, train: bool) -> mm_core::Result<Tensor> {
        let query = self.query.expand(&[x.size(0)?, -1, -1])?;
        let args = AttentionArgs { context: Some(x), ..AttentionArgs::default() };
        let y = self.attention.forward(&query, args)?.values;
        y.add(&self.mlp.forward(&self.norm.forward(&y, train)?, train)?)?.select(1, 0)
    }
}

/// How image features are pooled.
pub(super) enum ImagePooling {
    /// The class token (BLIP).
    ClassToken,
    /// The class token, normalized (CLIP).
    NormalizedClassToken(Norm),
    Attention(Box<AttentionPooling>),
}

/// A vision transformer with pooling and projection.
pub(super) struct ImageEncoder {
    pub(super) backbone: VitBackbone,
    pub(super) pooling: ImagePooling,
    pub(super) projection: Projection,
}

impl ImageEncoder {
    /// CLIP's: normalization before the blocks and on the class token.
    pub(super) fn clip(b: &ModelBuilder<'_>, c: &VitConfig, projection: Projection) -> Result<Self> {
        let scope = b.scope.pp("vision_model");
        let variant = VisionVariant { class_token: true, patch_bias: false, pre_norm: true, final_norm: false };
        let backbone = clip_vision_backbone(b, &scope, c, variant)?;
        let norm = NormConfig { eps: c.layer_norm_eps, ..NormConfig::default() };
        let norm = Norm::new(&scope.pp("post_layernorm"), c.hidden_size, norm)?;
        Ok(Self { backbone, pooling: ImagePooling::NormalizedClassToken(norm), projection })
    }
}

impl Encoder for ImageEncoder {
    fn encode(&self, input: &Input, train: bool) -> mm_core::Result<Features> {
        self.backbone.encode(input, train)
    }

    fn embed(&self, input: &Input, train: bool) -> mm_core::Result<Tensor> {
        let x = self.backbone.encode(input, train)?.values;
        let pooled = match &self.pooling {
            ImagePooling::ClassToken => x.select(1, 0)?,
            ImagePooling::NormalizedClassToken(norm) => norm.forward(&x.select(1, 0)?, train)?,
            ImagePooling::Attention(pooling) => pooling.forward(&x, train)?,
        };
        self.projection.apply(&pooled)
    }

    fn dim(&self) -> i64 {
        self.backbone.embed_dim
    }

    fn embedding_dim(&self) -> i64 {
        self.projection.dim(self.backbone.embed_dim)
    }

    fn modality(&self) -> Modality {
        Modality::IMAGE
    }
}

impl PretrainedEncoder for ClipTextEncoder {}
impl PretrainedEncoder for BertTextEncoder {}
impl PretrainedEncoder for ImageEncoder {}

/// A parameter that is a single number.
pub(super) fn scalar_param(scope: &Scope<'_>, name: &str) -> Result<f64> {
    Ok(scope.param(name, &[], Init::Zeros)?.to_f64()?)
}

/// Both towers with the checkpoint's `logit_scale`.
pub(super) fn contrastive_model(b: &ModelBuilder<'_>, text: Tower, image: Tower) -> Result<Model> {
    let logit_scale = scalar_param(&b.scope, "logit_scale")?.exp();
    let head = ContrastiveHead { logit_scale, logit_bias: None };
    Ok(Model { towers: vec![text, image], contrastive_head: Some(head) })
}
