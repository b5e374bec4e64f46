//! CLIP (Radford 2021) as transformers and as open_clip store it, SigLIP (Zhai 2023), Chinese-CLIP (Yang 2022): a vision transformer
//! and a text transformer whose pooled vectors are projected into one space and brought to unit length.

use crate::{
    Error, Result,
    family::{ContrastiveHead, Family, Model, ModelBuilder, Network, Tower, WeightMap, config},
    image::{
        VisionDefaults, VisionVariant, clip_vision_backbone,
        preprocess::open_clip_preprocessing,
        preprocessing, vision_config,
        vit::{Pair, VitBackbone, VitConfig, vit_block},
    },
    text::transformer::{BERT_WEIGHT_MAP, Kind, TextTransformer, processor, text_config},
};
use mm_core::{
    DType, Encoder, Features, Init, Input, Modality, Module, Scope, Tensor,
    nn::{
        Activation, Attention, AttentionArgs, AttentionConfig, Embedding, ForwardArgs, Linear, Mask, Mlp, MlpConfig,
        Norm, NormConfig, Transformer, TransformerConfig,
    },
};
use mm_data::ImageProcessor;
use serde_json::Value;

config! {
    /// transformers' `CLIPTextConfig` and `SiglipTextConfig`.
    TextConfig {
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

/// Which place of a text speaks for the whole.
#[derive(Debug, Clone, Copy, PartialEq)]
enum TextPooling {
    /// The place of the largest id: the end in CLIP's own vocabulary.
    Largest,
    /// The first place of this id.
    First(i64),
    /// The last place, padding included.
    Last,
}

/// What turns a pooled vector into the joint space.
pub(super) struct Projection(pub(super) Option<Linear>);

impl Projection {
    /// Width of what it gives for vectors of that width.
    fn width(&self, input: i64) -> i64 {
        self.0.as_ref().and_then(|p| p.weight().size(0).ok()).unwrap_or(input)
    }

    fn apply(&self, x: &Tensor) -> mm_core::Result<Tensor> {
        self.0.as_ref().map_or_else(|| Ok(x.clone()), |p| p.forward(x, false))?.normalize()
    }
}

/// Token ids → one place of causal (CLIP) or open (SigLIP) blocks, projected.
struct TextTower {
    words: Embedding,
    positions: Embedding,
    blocks: Transformer,
    speaks: TextPooling,
    projection: Projection,
    width: i64,
    causal: bool,
}

impl Encoder for TextTower {
    fn encode(&self, input: &Input, train: bool) -> mm_core::Result<Features> {
        let places = Tensor::arange(0, input.values.size(1)?, input.values.device())?;
        let x = self.words.forward(&input.values)?.add(&self.positions.forward(&places)?)?;
        // Under causality the padding after a text cannot be seen by it.
        let mask = if self.causal { None } else { input.mask.clone().map(Mask::Padding) };
        Features::new(
            self.blocks.forward(&x, ForwardArgs { mask: mask.as_ref(), train, ..ForwardArgs::default() })?,
            input.mask.clone(),
        )
    }

    fn embed(&self, input: &Input, train: bool) -> mm_core::Result<Tensor> {
        let x = self.encode(input, train)?.values;
        let (rows, length) = (x.size(0)?, x.size(1)?);
        let matches = match self.speaks {
            TextPooling::Last => return self.projection.apply(&x.select(1, length - 1)?),
            TextPooling::Largest => input.values.eq(&input.values.amax(1, true)?)?,
            TextPooling::First(id) => input.values.eq_scalar(id as f64)?,
        };
        // Padding may be the same id (CLIP pads with its end): the first match is meant, after as many places as there are before it.
        let before = matches.to_dtype(DType::I64)?.cumsum(1)?.eq_scalar(0.0)?.to_dtype(DType::I64)?;
        let index = before.sum_dim(&[1], false)?.clamp(0.0, (length - 1) as f64)?.to_dtype(DType::I64)?;
        let index = index.reshape(&[rows, 1, 1])?.expand(&[rows, 1, self.width])?;
        self.projection.apply(&x.gather(1, &index)?.squeeze(1)?)
    }

    fn dim(&self) -> i64 {
        self.width
    }

    fn embedding_dim(&self) -> i64 {
        self.projection.width(self.width)
    }

    fn modality(&self) -> Modality {
        Modality::TEXT
    }
}

/// BERT whose first place is projected (Chinese-CLIP, BLIP).
pub(super) struct BertTower(pub(super) TextTransformer, pub(super) Projection);

impl Encoder for BertTower {
    fn encode(&self, input: &Input, train: bool) -> mm_core::Result<Features> {
        self.0.encode(input, train)
    }

    fn embed(&self, input: &Input, train: bool) -> mm_core::Result<Tensor> {
        self.1.apply(&self.0.encode(input, train)?.values.select(1, 0)?)
    }

    fn dim(&self) -> i64 {
        self.0.dim()
    }

    fn embedding_dim(&self) -> i64 {
        self.1.width(self.0.dim())
    }

    fn modality(&self) -> Modality {
        Modality::TEXT
    }
}

/// A learned query that looks at all patches (SigLIP).
pub(super) struct Head {
    probe: Tensor,
    attention: Attention,
    norm: Norm,
    mlp: Mlp,
}

pub(super) enum Pooler {
    /// The class token as the trunk leaves it (BLIP).
    First,
    /// The class token, normalised (CLIP).
    Class(Norm),
    Attention(Box<Head>),
}

pub(super) struct ImageTower {
    pub(super) trunk: VitBackbone,
    pub(super) pooler: Pooler,
    pub(super) projection: Projection,
}

impl Encoder for ImageTower {
    fn encode(&self, input: &Input, train: bool) -> mm_core::Result<Features> {
        self.trunk.encode(input, train)
    }

    fn embed(&self, input: &Input, train: bool) -> mm_core::Result<Tensor> {
        let x = self.trunk.encode(input, train)?.values;
        let pooled = match &self.pooler {
            Pooler::First => x.select(1, 0)?,
            Pooler::Class(norm) => norm.forward(&x.select(1, 0)?, train)?,
            Pooler::Attention(head) => {
                let probe = head.probe.expand(&[x.size(0)?, -1, -1])?;
                let y = head
                    .attention
                    .forward(&probe, AttentionArgs { context: Some(&x), ..AttentionArgs::default() })?
                    .values;
                y.add(&head.mlp.forward(&head.norm.forward(&y, train)?, train)?)?.select(1, 0)?
            }
        };
        self.projection.apply(&pooled)
    }

    fn dim(&self) -> i64 {
        self.trunk.width
    }

    fn embedding_dim(&self) -> i64 {
        self.projection.width(self.trunk.width)
    }

    fn modality(&self) -> Modality {
        Modality::IMAGE
    }
}

impl Network for TextTower {}
impl Network for BertTower {}
impl Network for ImageTower {}

/// transformers and this file share their names but for these.
const NAMES: &[(&str, &str)] = &[
    (".encoder.final_layer_norm.", ".final_layer_norm."),
    ("vision_model.final_layer_norm.", "vision_model.post_layernorm."),
];

const SIGLIP_NAMES: &[(&str, &str)] = &[
    (".head.attention.q_proj.weight", ".head.attention.in_proj_weight#0/3"),
    (".head.attention.k_proj.weight", ".head.attention.in_proj_weight#1/3"),
    (".head.attention.v_proj.weight", ".head.attention.in_proj_weight#2/3"),
    (".head.attention.q_proj.bias", ".head.attention.in_proj_bias#0/3"),
    (".head.attention.k_proj.bias", ".head.attention.in_proj_bias#1/3"),
    (".head.attention.v_proj.bias", ".head.attention.in_proj_bias#2/3"),
];

const OPEN_CLIP_NAMES: &[(&str, &str)] = &[
    ("text_model.encoder.final_layer_norm.", "ln_final."),
    ("text_model.embeddings.token_embedding.", "token_embedding."),
    ("text_model.embeddings.position_embedding.weight", "positional_embedding"),
    ("text_model.encoder.layers.", "transformer.resblocks."),
    ("text_projection.weight", "text_projection^T"),
    ("visual_projection.weight", "visual.proj^T"),
    ("vision_model.embeddings.class_embedding", "visual.class_embedding"),
    ("vision_model.embeddings.patch_embedding.", "visual.conv1."),
    ("vision_model.embeddings.position_embedding.weight", "visual.positional_embedding"),
    ("vision_model.pre_layrnorm.", "visual.ln_pre."),
    ("vision_model.post_layernorm.", "visual.ln_post."),
    ("vision_model.encoder.layers.", "visual.transformer.resblocks."),
    (".layer_norm1.", ".ln_1."),
    (".layer_norm2.", ".ln_2."),
    (".mlp.fc1.", ".mlp.c_fc."),
    (".mlp.fc2.", ".mlp.c_proj."),
    (".self_attn.q_proj.weight", ".attn.in_proj_weight#0/3"),
    (".self_attn.k_proj.weight", ".attn.in_proj_weight#1/3"),
    (".self_attn.v_proj.weight", ".attn.in_proj_weight#2/3"),
    (".self_attn.q_proj.bias", ".attn.in_proj_bias#0/3"),
    (".self_attn.k_proj.bias", ".attn.in_proj_bias#1/3"),
    (".self_attn.v_proj.bias", ".attn.in_proj_bias#2/3"),
    (".self_attn.out_proj.", ".attn.out_proj."),
];

fn chinese_names() -> WeightMap {
    // Only the text tower speaks BERT's words: `bert_model` marks it until the last rule.
    let names = BERT_WEIGHT_MAP
        .iter()
        .fold(WeightMap::new(NAMES), |names, (from, to)| names.and_within("bert_model.", from, to));
    names.and(&[("^bert_model.", "text_model.")])
}

/// The families of this file.
pub(crate) const FAMILIES: &[Family] = &[
    Family { model_type: "clip", weight_map: |_, _| WeightMap::new(NAMES), build: clip },
    Family { model_type: "siglip", weight_map: |_, _| WeightMap::new(NAMES).and(SIGLIP_NAMES), build: siglip },
    Family { model_type: "chinese_clip", weight_map: |_, _| chinese_names(), build: chinese },
    Family { model_type: "open_clip", weight_map: |_, _| WeightMap::new(OPEN_CLIP_NAMES), build: open_clip },
];

fn text_tower(
    b: &ModelBuilder<'_>,
    c: &TextConfig,
    causal: bool,
    speaks: TextPooling,
    projection: Projection,
) -> Result<TextTower> {
    let scope = b.scope.pp("text_model");
    let vit = VitConfig {
        hidden_size: c.hidden_size,
        num_attention_heads: c.num_attention_heads,
        intermediate_size: c.intermediate_size,
        hidden_act: c.hidden_act,
        layer_norm_eps: c.layer_norm_eps,
        ..VitConfig::default()
    };
    let mut block = vit_block(&vit);
    block.attention.causal = causal;
    let tables = scope.pp("embeddings");
    Ok(TextTower {
        words: Embedding::new(&tables.pp("token_embedding"), c.vocab_size, c.hidden_size)?,
        positions: Embedding::new(&tables.pp("position_embedding"), c.max_position_embeddings, c.hidden_size)?,
        blocks: b.transformer(
            &scope.pp("encoder"),
            TransformerConfig { num_layers: c.num_hidden_layers, block, final_norm: true },
        )?,
        speaks,
        projection,
        width: c.hidden_size,
        causal,
    })
}

/// The vision tower: CLIP's has a class token, a normalisation before the blocks and none after them but on the class token.
fn image_tower(b: &ModelBuilder<'_>, c: &VitConfig, siglip: bool, projection: Projection) -> Result<ImageTower> {
    let scope = b.scope.pp("vision_model");
    let (width, norm) = (c.hidden_size, NormConfig { eps: c.layer_norm_eps, ..NormConfig::default() });
    let shape = VisionVariant { class: !siglip, bias: siglip, first_norm: !siglip, final_norm: siglip };
    let trunk = clip_vision_backbone(b, &scope, c, shape)?;
    let pooler = if siglip {
        let head = scope.pp("head");
        let mlp = MlpConfig::new(c.intermediate_size, c.hidden_act);
        Pooler::Attention(Box::new(Head {
            probe: head.param("probe", &[1, 1, width], Init::Normal(0.02))?,
            attention: Attention::new(&head.pp("attention"), &AttentionConfig::new(width, c.num_attention_heads))?,
            norm: Norm::new(&head.pp("layernorm"), width, norm)?,
            mlp: Mlp::new(&head.pp("mlp"), width, &mlp)?,
        }))
    } else {
        Pooler::Class(Norm::new(&scope.pp("post_layernorm"), width, norm)?)
    };
    Ok(ImageTower { trunk, pooler, projection })
}

fn projection(b: &ModelBuilder<'_>, name: &str, input: i64, output: i64) -> Result<Projection> {
    Ok(Projection(Some(Linear::new(&b.scope.pp(name), input, output, false)?)))
}

pub(crate) fn scalar_param(scope: &Scope<'_>, name: &str) -> Result<f64> {
    Ok(scope.param(name, &[], Init::Zeros)?.to_f64()?)
}

fn joint(b: &ModelBuilder<'_>, text: Tower, image: Tower, biased: bool) -> Result<Model> {
    let scale = scalar_param(&b.scope, "logit_scale")?.exp();
    let bias = if biased { Some(scalar_param(&b.scope, "logit_bias")?) } else { None };
    Ok(Model { towers: vec![text, image], contrastive_head: Some(ContrastiveHead { scale, bias }) })
}

/// CLIP's vision tower with transformers' defaults where the file is silent.
const CLIP_VISION: VisionDefaults =
    VisionDefaults { image: 224, patch: 32, activation: Activation::QuickGelu, epsilon: 1e-5 };
/// SigLIP's.
const SIGLIP_VISION: VisionDefaults =
    VisionDefaults { image: 224, patch: 16, activation: Activation::GeluNew, epsilon: 1e-6 };

fn vision(b: &ModelBuilder<'_>, defaults: VisionDefaults) -> Result<VitConfig> {
    vision_config(b, &b.config["vision_config"], "vision_config", defaults)
}

fn clip(b: &ModelBuilder<'_>) -> Result<Model> {
    let text: TextConfig = b.parse_part(&b.config["text_config"], "text_config")?;
    let vision = vision(b, CLIP_VISION)?;
    let space = b.config["projection_dim"].as_i64().unwrap_or(512);
    // A config from before the end was its own token says 2 and means "the largest id".
    let speaks = if text.eos_token_id == 2 { TextPooling::Largest } else { TextPooling::First(text.eos_token_id) };
    let tower = text_tower(b, &text, true, speaks, projection(b, "text_projection", text.hidden_size, space)?)?;
    let words = processor(b, text.max_position_embeddings, text.vocab_size)?;
    let image = image_tower(b, &vision, false, projection(b, "visual_projection", vision.hidden_size, space)?)?;
    let pixels = ImageProcessor::new(preprocessing(b)?);
    joint(b, Tower::new(words, tower), Tower::new(pixels, image), false)
}

fn siglip(b: &ModelBuilder<'_>) -> Result<Model> {
    let value = &b.config["text_config"];
    let mut text: TextConfig = b.parse_part(value, "text_config")?;
    // What transformers' SiglipTextConfig takes where the file is silent.
    let silent = |key: &str| value[key].is_null();
    for (key, field, otherwise) in [
        ("vocab_size", &mut text.vocab_size, 32000),
        ("hidden_size", &mut text.hidden_size, 768),
        ("intermediate_size", &mut text.intermediate_size, 3072),
        ("num_attention_heads", &mut text.num_attention_heads, 12),
        ("max_position_embeddings", &mut text.max_position_embeddings, 64),
    ] {
        if silent(key) {
            *field = otherwise;
        }
    }
    if silent("hidden_act") {
        text.hidden_act = Activation::GeluNew;
    }
    if silent("layer_norm_eps") {
        text.layer_norm_eps = 1e-6;
    }
    let vision = vision(b, SIGLIP_VISION)?;
    let space = text.projection_size.unwrap_or(text.hidden_size);
    let head = Linear::new(&b.scope.pp("text_model").pp("head"), text.hidden_size, space, true)?;
    let tower = text_tower(b, &text, false, TextPooling::Last, Projection(Some(head)))?;
    let words = processor(b, text.max_position_embeddings, text.vocab_size)?.fixed();
    let image = image_tower(b, &vision, true, Projection(None))?;
    let pixels = ImageProcessor::new(preprocessing(b)?);
    joint(b, Tower::new(words, tower), Tower::new(pixels, image), true)
}

fn chinese(b: &ModelBuilder<'_>) -> Result<Model> {
    let text = text_config(b, &b.config["text_config"])?;
    let vision = vision(b, CLIP_VISION)?;
    let space = b.config["projection_dim"].as_i64().unwrap_or(512);
    let bert = TextTransformer::new(b, &b.scope.pp("bert_model"), &text, Kind::BERT)?;
    let words = processor(b, text.max_position_embeddings, text.vocab_size)?;
    let tower = BertTower(bert, projection(b, "text_projection", text.hidden_size, space)?);
    let image = image_tower(b, &vision, false, projection(b, "visual_projection", vision.hidden_size, space)?)?;
    let pixels = ImageProcessor::new(preprocessing(b)?);
    joint(b, Tower::new(words, tower), Tower::new(pixels, image), false)
}

fn open_clip(b: &ModelBuilder<'_>) -> Result<Model> {
    let model = &b.config["model_cfg"];
    let bad = |reason: String| Error::folder(b.folder.join("open_clip_config.json"), reason);
    let (text, vision) = (&model["text_cfg"], &model["vision_cfg"]);
    let size = |v: &Value, key: &str| v[key].as_i64().ok_or_else(|| bad(format!("model_cfg: has no `{key}`")));
    for (key, v) in [("hf_model_name", text), ("timm_model_name", vision)] {
        if !v[key].is_null() {
            return Err(bad(format!(
                "model_cfg.{key}: towers of another program are not read; wanted open_clip's own"
            )));
        }
    }
    if !vision["layers"].is_i64() {
        return Err(bad("model_cfg.vision_cfg.layers: wanted one number (a vision transformer)".into()));
    }
    let quick = model["quick_gelu"].as_bool().unwrap_or(false);
    let activation = if quick { Activation::QuickGelu } else { Activation::Gelu };
    let width = size(text, "width")?;
    let context = text["context_length"].as_i64().unwrap_or(77);
    let config = TextConfig {
        vocab_size: text["vocab_size"].as_i64().unwrap_or(49408),
        hidden_size: width,
        intermediate_size: (width as f64 * text["mlp_ratio"].as_f64().unwrap_or(4.0)) as i64,
        num_hidden_layers: size(text, "layers")?,
        num_attention_heads: size(text, "heads")?,
        max_position_embeddings: context,
        hidden_act: activation,
        ..TextConfig::default()
    };
    let image_width = size(vision, "width")?;
    let picture: Pair = serde_json::from_value(vision["image_size"].clone()).unwrap_or(Pair::Both(224));
    let vit = VitConfig {
        hidden_size: image_width,
        num_hidden_layers: size(vision, "layers")?,
        num_attention_heads: (image_width / vision["head_width"].as_i64().unwrap_or(64)).max(1),
        intermediate_size: (image_width as f64 * vision["mlp_ratio"].as_f64().unwrap_or(4.0)) as i64,
        hidden_act: activation,
        layer_norm_eps: 1e-5,
        image_size: picture,
        patch_size: serde_json::from_value(vision["patch_size"].clone()).unwrap_or(Pair::Both(16)),
        ..VitConfig::default()
    };
    let space = size(model, "embed_dim")?;
    let tower = text_tower(b, &config, true, TextPooling::Largest, projection(b, "text_projection", width, space)?)?;
    let words = processor(b, context, config.vocab_size)?;
    let image = image_tower(b, &vit, false, projection(b, "visual_projection", image_width, space)?)?;
    let pixels = ImageProcessor::new(open_clip_preprocessing(b, picture.get())?);
    joint(b, Tower::new(words, tower), Tower::new(pixels, image), false)
}
