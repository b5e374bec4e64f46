//! CLAP (Wu 2023): RoBERTa for texts, a hierarchical transformer with shifted windows (HTSAT, Chen 2022; Swin, Liu 2021) over a
//! spectrogram for sounds; fused checkpoints mix the whole sound with three crops by attentional feature fusion (Dai 2021).

use crate::{
    Result,
    audio::SpectrogramProcessor,
    family::{ContrastiveHead, Family, Model, ModelBuilder, Network, Tower, WeightMap, config},
    image::vit::{Pair, PatchEmbed},
    joint::clip::scalar_param,
    text::transformer::{BERT_WEIGHT_MAP, Kind, TextConfig, TextTransformer, processor},
};
use mm_core::{
    Encoder, Features, Init, Input, Modality, Module, Pooling, Scope, Tensor,
    nn::{
        Activation, Attention, AttentionArgs, AttentionConfig, BatchNorm, Conv2d, ConvConfig, Linear, Mask, Mlp,
        MlpConfig, Norm, NormConfig,
    },
};

config! {
    /// transformers' `ClapAudioConfig`.
    AudioConfig {
        window_size: i64 = 8,
        num_mel_bins: i64 = 64,
        spec_size: i64 = 256,
        hidden_act: Activation = Activation::Gelu,
        patch_size: Pair = Pair::Both(4),
        patch_stride: Pair = Pair::Each(4, 4),
        hidden_size: i64 = 768,
        depths: Vec<i64> = vec![2, 2, 6, 2],
        num_attention_heads: Vec<i64> = vec![4, 8, 16, 32],
        enable_fusion: bool = false,
        patch_embed_input_channels: i64 = 1,
        patch_embeds_hidden_size: i64 = 96,
        enable_patch_layer_norm: bool = true,
        qkv_bias: bool = true,
        mlp_ratio: f64 = 4.0,
        aff_block_r: i64 = 4,
        layer_norm_eps: f64 = 1e-5,
    }
}

/// Two layers that turn a pooled vector into the joint space.
struct Projection(Linear, Activation, Linear);

impl Projection {
    fn new(b: &ModelBuilder<'_>, name: &str, width: i64) -> Result<Self> {
        let (scope, space) = (b.scope.pp(name), b.config["projection_dim"].as_i64().unwrap_or(512));
        let word = &b.config["projection_hidden_act"];
        let activation = if word.is_null() { Activation::Relu } else { b.parse_part(word, "projection_hidden_act")? };
        Ok(Self(
            Linear::new(&scope.pp("linear1"), width, space, true)?,
            activation,
            Linear::new(&scope.pp("linear2"), space, space, true)?,
        ))
    }

    fn dim(&self) -> i64 {
        self.2.weight().size(0).unwrap_or(0)
    }

    fn apply(&self, x: &Tensor) -> mm_core::Result<Tensor> {
        self.2.forward(&self.1.apply(&self.0.forward(x, false)?)?, false)?.normalize()
    }
}

struct TextTower {
    roberta: TextTransformer,
    pooler: Linear,
    projection: Projection,
}

impl Encoder for TextTower {
    fn encode(&self, input: &Input, train: bool) -> mm_core::Result<Features> {
        self.roberta.encode(input, train)
    }

    fn embed(&self, input: &Input, train: bool) -> mm_core::Result<Tensor> {
        let first = self.encode(input, train)?.pool(Pooling::Cls)?;
        self.projection.apply(&self.pooler.forward(&first, train)?.tanh()?)
    }

    fn dim(&self) -> i64 {
        self.roberta.dim()
    }

    fn embedding_dim(&self) -> i64 {
        self.projection.dim()
    }

    fn modality(&self) -> Modality {
        Modality::TEXT
    }
}

/// A block of Swin: attention within windows of a map, every second block's windows shifted by half.
struct WindowBlock {
    before: Norm,
    attention: Attention,
    /// `[heads, places, places]` of a window.
    bias: Tensor,
    after: Norm,
    mlp: Mlp,
    window: i64,
    shift: i64,
}

impl WindowBlock {
    fn new(scope: &Scope<'_>, c: &AudioConfig, width: i64, heads: i64, shifted: bool) -> Result<Self> {
        let norm = NormConfig { eps: c.layer_norm_eps, ..NormConfig::default() };
        let (window, side) = (c.window_size, 2 * c.window_size - 1);
        let table = scope.pp("self_attn").param("relative_position_bias_table", &[side * side, heads], Init::Zeros)?;
        let places = window * window;
        let mut index = Vec::with_capacity((places * places) as usize);
        for query in 0..places {
            for key in 0..places {
                let (down, across) = (query / window - key / window, query % window - key % window);
                index.push((down + window - 1) * side + across + window - 1);
            }
        }
        let index = Tensor::from_vec(&index, &[places, places])?.to_device(table.device())?;
        let hidden = (c.mlp_ratio * width as f64) as i64;
        let attention = AttentionConfig { bias: c.qkv_bias, ..AttentionConfig::new(width, heads) };
        let mlp = MlpConfig::new(hidden, c.hidden_act);
        Ok(Self {
            before: Norm::new(&scope.pp("layer_norm1"), width, norm)?,
            attention: Attention::new(&scope.pp("self_attn"), &attention)?,
            bias: table.embedding(&index)?.permute(&[2, 0, 1])?.contiguous()?,
            after: Norm::new(&scope.pp("layer_norm2"), width, norm)?,
            mlp: Mlp::new(&scope.pp("mlp"), width, &mlp)?,
            window,
            shift: if shifted { window / 2 } else { 0 },
        })
    }

    /// `[batch, height, width, channels]` → the same.
    fn forward(&self, x: &Tensor) -> mm_core::Result<Tensor> {
        let shape = x.shape();
        let (rows, height, width, channels, window) = (shape[0], shape[1], shape[2], shape[3], self.window);
        // A map of one window alone is not shifted.
        let shift = if height.min(width) <= window { 0 } else { self.shift };
        let more = |size: i64| (window - size % window) % window;
        let mut y = self.before.forward(x, false)?.pad(&[0, 0, 0, more(width), 0, more(height)], 0.0)?;
        let (down, across) = ((height + more(height)) / window, (width + more(width)) / window);
        if shift > 0 {
            y = y.roll(&[-shift, -shift], &[1, 2])?;
        }
        let windows = y.reshape(&[rows, down, window, across, window, channels])?.permute(&[0, 1, 3, 2, 4, 5])?;
        let windows = windows.reshape(&[-1, window * window, channels])?;
        let mut bias = self.bias.unsqueeze(0)?;
        if shift > 0 {
            let hidden = self.seams(down * window, across * window, shift)?.to_device(x.device())?;
            bias = bias.add(&hidden.to_dtype(bias.dtype()?)?.unsqueeze(1)?)?; // [windows, heads, places, places]
            let shape = bias.shape();
            bias = bias.unsqueeze(0)?.expand(&[rows, -1, -1, -1, -1])?.reshape(&[-1, shape[1], shape[2], shape[3]])?;
        }
        let mask = Mask::Bias(bias);
        let y =
            self.attention.forward(&windows, AttentionArgs { mask: Some(&mask), ..AttentionArgs::default() })?.values;
        let y = y.reshape(&[rows, down, across, window, window, channels])?.permute(&[0, 1, 3, 2, 4, 5])?;
        let mut y = y.reshape(&[rows, down * window, across * window, channels])?;
        if shift > 0 {
            y = y.roll(&[shift, shift], &[1, 2])?;
        }
        let x = x.add(&y.narrow(1, 0, height)?.narrow(2, 0, width)?)?;
        x.add(&self.mlp.forward(&self.after.forward(&x, false)?, false)?)
    }

    /// What keeps places apart that shifting brought into one window though they lie at opposite ends: `[windows, places, places]`.
    fn seams(&self, height: i64, width: i64, shift: i64) -> mm_core::Result<Tensor> {
        let window = self.window;
        let region = |at: i64, size: i64| i64::from(at >= size - window) + i64::from(at >= size - shift);
        let mut out = Vec::with_capacity((height * width * window * window) as usize);
        for place in 0..(height / window) * (width / window) {
            let (top, left) = (place / (width / window) * window, place % (width / window) * window);
            let of = |n: i64| 3 * region(top + n / window, height) + region(left + n % window, width);
            for query in 0..window * window {
                // transformers takes −100, not −∞.
                out.extend((0..window * window).map(|key| if of(query) == of(key) { 0f32 } else { -100.0 }));
            }
        }
        Tensor::from_vec(&out, &[height * width / (window * window), window * window, window * window])
    }
}

/// Four neighbours become one place of twice the width.
struct Merge(Norm, Linear);

impl Merge {
    fn forward(&self, x: &Tensor) -> mm_core::Result<Tensor> {
        let shape = x.shape();
        let x = x.pad(&[0, 0, 0, shape[2] % 2, 0, shape[1] % 2], 0.0)?;
        let (down, across) = ((shape[1] + 1) / 2, (shape[2] + 1) / 2);
        let x = x.reshape(&[shape[0], down, 2, across, 2, shape[3]])?;
        let part = |row: i64, column: i64| x.select(4, column)?.select(2, row); // [batch, down, across, channels]
        let all = Tensor::cat(&[&part(0, 0)?, &part(1, 0)?, &part(0, 1)?, &part(1, 1)?], -1)?;
        self.1.forward(&self.0.forward(&all, false)?, false)
    }
}

struct Stage {
    blocks: Vec<WindowBlock>,
    merge: Option<Merge>,
}

/// Attentional feature fusion of the whole sound's map with the crops'.
struct Fusion {
    crops: PatchEmbed,
    local: [Conv2d; 2],
    global: [Conv2d; 2],
}

impl Fusion {
    fn new(scope: &Scope<'_>, c: &AudioConfig) -> Result<Self> {
        let ([down, across], [step_down, step_across]) = (c.patch_size.get(), c.patch_stride.get());
        let width = c.patch_embeds_hidden_size;
        let crops =
            PatchEmbed::new(&scope.pp("mel_conv2d"), c.patch_embed_input_channels, width, &[down, 3 * across], true)?
                .step([step_down, 3 * step_across], padding(c));
        let inner = width / c.aff_block_r.max(1);
        let folded = |place: &Scope<'_>, number: usize, input: i64, output: i64| -> Result<Conv2d> {
            let sizes = ConvConfig {
                in_channels: input,
                out_channels: output,
                kernel_size: 1,
                stride: 1,
                padding: 0,
                groups: 1,
                bias: true,
            };
            let norm = BatchNorm::new(&place.pp(number + 1), output, 1e-5, 0.1)?;
            Ok(Conv2d::with_folded_batch_norm(&place.pp(number), sizes, &norm)?)
        };
        let part = |name: &str, first: usize| -> Result<[Conv2d; 2]> {
            let place = scope.pp("fusion_model").pp(name);
            Ok([folded(&place, first, width, inner)?, folded(&place, first + 3, inner, width)?])
        };
        Ok(Self { crops, local: part("local_att", 0)?, global: part("global_att", 1)? })
    }

    /// `whole` `[batch, width, down, across]`, `crops` `[batch, 3, height, width]` → the mixed map.
    fn forward(&self, whole: &Tensor, crops: &Tensor) -> mm_core::Result<Tensor> {
        let shape = crops.shape();
        let x = self.crops.map(&crops.reshape(&[-1, 1, shape[2], shape[3]])?)?; // [batch · 3, width, down, across / 3]
        let own = x.shape();
        let x = x.reshape(&[shape[0], shape[1], own[1], own[2], own[3]])?.permute(&[0, 2, 3, 1, 4])?.flatten(3, 4)?;
        let x = x.pad(&[0, whole.size(3)? - x.size(3)?], 0.0)?;
        let both = whole.add(&x)?;
        let two = |layers: &[Conv2d; 2], x: &Tensor| layers[1].forward(&layers[0].forward(x, false)?.relu()?, false);
        let global = two(&self.global, &both.mean_dim(&[2, 3], true)?)?;
        let share = two(&self.local, &both)?.add(&global)?.sigmoid()?;
        let rest = share.neg()?.add_scalar(1.0)?;
        whole.mul(&share)?.add(&x.mul(&rest)?)?.mul_scalar(2.0)
    }
}

fn padding(c: &AudioConfig) -> [i64; 2] {
    let (patch, stride) = (c.patch_size.get(), c.patch_stride.get());
    [(patch[0] - stride[0]) / 2, (patch[1] - stride[1]) / 2]
}

struct AudioTower {
    /// Scale and shift of each band.
    scale: (Tensor, Tensor),
    patches: PatchEmbed,
    fusion: Option<Fusion>,
    patch_norm: Option<Norm>,
    stages: Vec<Stage>,
    norm: Norm,
    projection: Projection,
    /// Side of the picture that a spectrogram is folded into, and how many strips of time lie above each other.
    side: i64,
    strips: i64,
    width: i64,
}

impl AudioTower {
    fn new(b: &ModelBuilder<'_>, c: &AudioConfig, projection: Projection) -> Result<Self> {
        if b.layer.is_some() {
            return Err(b.config_error("CLAP's sound tower is no stack of alike blocks, so --layer has nothing to cut"));
        }
        let scope = b.scope.pp("audio_model.audio_encoder");
        let strips = c.spec_size / c.num_mel_bins.max(1);
        let stages = c.depths.len();
        if strips < 1 || stages == 0 || c.num_attention_heads.len() != stages || c.window_size < 1 {
            return Err(b.config_error("audio_config: wanted a spec_size of at least num_mel_bins, as many num_attention_heads as depths, and a window_size"));
        }
        let norm = NormConfig::default();
        let width = c.patch_embeds_hidden_size;
        let bands = BatchNorm::new(&scope.pp("batch_norm"), c.num_mel_bins, 1e-5, 0.1)?.scale_and_shift()?;
        let embed = scope.pp("patch_embed");
        let patches =
            PatchEmbed::new(&embed.pp("proj"), c.patch_embed_input_channels, width, &c.patch_size.get(), true)?;
        let stage = |number: usize| -> Result<Stage> {
            let (place, width) = (scope.pp("layers").pp(number), width << number);
            let heads = c.num_attention_heads[number];
            let block = |i: i64| WindowBlock::new(&place.pp("blocks").pp(i), c, width, heads, i % 2 == 1);
            let down = place.pp("downsample");
            let merge = (number + 1 < stages).then(|| -> Result<Merge> {
                let reduction = Linear::new(&down.pp("reduction"), 4 * width, 2 * width, false)?;
                Ok(Merge(Norm::new(&down.pp("norm"), 4 * width, norm)?, reduction))
            });
            Ok(Stage { blocks: (0..c.depths[number]).map(block).collect::<Result<_>>()?, merge: merge.transpose()? })
        };
        let last = width << (stages - 1);
        Ok(Self {
            scale: bands,
            patches: patches.step(c.patch_stride.get(), padding(c)),
            fusion: c.enable_fusion.then(|| Fusion::new(&embed, c)).transpose()?,
            patch_norm: c.enable_patch_layer_norm.then(|| Norm::new(&embed.pp("norm"), width, norm)).transpose()?,
            stages: (0..stages).map(stage).collect::<Result<_>>()?,
            norm: Norm::new(&scope.pp("norm"), last, norm)?,
            projection,
            side: c.spec_size,
            strips,
            width: last,
        })
    }

    /// `[batch, crops, frames, bands]` → `[batch, crops, side, side]`: strips of time above each other, bands downwards in each.
    fn fold(&self, x: &Tensor) -> mm_core::Result<Tensor> {
        let (time, bands) = (self.side * self.strips, self.side / self.strips);
        let shape = x.shape();
        if shape[2] > time || shape[3] > bands {
            return Err(mm_core::Error::shape(
                "spectrogram",
                &shape,
                format!("at most {time} frames of {bands} bands: the folder's two configs do not go together"),
            ));
        }
        let x = if shape[2] < time {
            x.interpolate([time, shape[3]], mm_core::Interpolation::Bicubic { align_corners: true })?
        } else {
            x.clone()
        };
        let x = if shape[3] < bands {
            x.interpolate([time, bands], mm_core::Interpolation::Bicubic { align_corners: true })?
        } else {
            x
        };
        let x = x.reshape(&[shape[0], shape[1] * self.strips, time / self.strips, bands])?.transpose(2, 3)?;
        x.reshape(&[shape[0], shape[1], bands * self.strips, time / self.strips])
    }
}

impl Encoder for AudioTower {
    fn encode(&self, input: &Input, train: bool) -> mm_core::Result<Features> {
        let x = input.values.mul(&self.scale.0)?.add(&self.scale.1)?;
        let x = self.fold(&x)?;
        let mut map = self.patches.map(&x.narrow(1, 0, 1)?)?;
        if let Some(fusion) = &self.fusion {
            // The reference fuses one sound of a batch at least, and so each that comes alone.
            map = fusion.forward(&map, &x.narrow(1, 1, x.size(1)? - 1)?)?;
        }
        let mut x = map.permute(&[0, 2, 3, 1])?; // [batch, down, across, channels]
        if let Some(norm) = &self.patch_norm {
            x = norm.forward(&x, train)?;
        }
        for stage in &self.stages {
            for block in &stage.blocks {
                x = block.forward(&x)?;
            }
            if let Some(merge) = &stage.merge {
                x = merge.forward(&x)?;
            }
        }
        Features::new(self.norm.forward(&x, train)?.flatten(1, 2)?, None)
    }

    fn embed(&self, input: &Input, train: bool) -> mm_core::Result<Tensor> {
        self.projection.apply(&self.encode(input, train)?.pool(Pooling::Mean)?)
    }

    fn dim(&self) -> i64 {
        self.width
    }

    fn embedding_dim(&self) -> i64 {
        self.projection.dim()
    }

    fn modality(&self) -> Modality {
        Modality::AUDIO
    }
}

impl Network for TextTower {}
impl Network for AudioTower {}

/// The family of this file.
pub(crate) const FAMILY: Family = Family {
    model_type: "clap",
    weight_map: |_, _| {
        let text = |names: WeightMap, (from, to): &(&str, &str)| names.and_within("text_model.", from, to);
        let names = BERT_WEIGHT_MAP.iter().fold(WeightMap::default(), text);
        [
            (".self_attn.relative_position_bias_table", ".attention.self.relative_position_bias_table"),
            (".self_attn.q_proj.", ".attention.self.query."),
            (".self_attn.k_proj.", ".attention.self.key."),
            (".self_attn.v_proj.", ".attention.self.value."),
            (".self_attn.out_proj.", ".attention.output.dense."),
            (".layer_norm1.", ".layernorm_before."),
            (".layer_norm2.", ".layernorm_after."),
            (".mlp.fc1.", ".intermediate.dense."),
            (".mlp.fc2.", ".output.dense."),
        ]
        .iter()
        .fold(names, |names, (from, to)| names.and_within("audio_model.", from, to))
    },
    build,
};

fn build(b: &ModelBuilder<'_>) -> Result<Model> {
    let (text_value, audio_value) = (&b.config["text_config"], &b.config["audio_config"]);
    let mut text: TextConfig = b.parse_part(text_value, "text_config")?;
    for (key, field, otherwise) in [
        ("vocab_size", &mut text.vocab_size, 50265),
        ("max_position_embeddings", &mut text.max_position_embeddings, 514),
        ("type_vocab_size", &mut text.type_vocab_size, 1),
    ] {
        if text_value[key].is_null() {
            *field = otherwise;
        }
    }
    let audio: AudioConfig = b.parse_part(audio_value, "audio_config")?;
    let roberta = TextTransformer::new(b, &b.scope.pp("text_model"), &text, Kind::roberta(text.pad_token_id))?;
    let words = processor(b, roberta.longest(), text.vocab_size)?;
    let pooler = Linear::new(&b.scope.pp("text_model.pooler.dense"), text.hidden_size, text.hidden_size, true)?;
    let projection = Projection::new(b, "text_projection", text.hidden_size)?;
    let text = Tower::new(words, TextTower { roberta, pooler, projection });
    let projection = Projection::new(b, "audio_projection", audio.hidden_size)?;
    let sound = AudioTower::new(b, &audio, projection)?;
    let scale = scalar_param(&b.scope, "logit_scale_a")?.exp();
    scalar_param(&b.scope, "logit_scale_t")?;
    let audio = Tower::new(SpectrogramProcessor::clap(b)?, sound);
    Ok(Model { towers: vec![text, audio], contrastive_head: Some(ContrastiveHead { scale, bias: None }) })
}
