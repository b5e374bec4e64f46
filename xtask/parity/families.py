#!/usr/bin/env python3
"""Writes tiny checkpoints of every model family, with random weights and unusual sizes, and the outputs of their reference libraries.

    python xtask/parity/families.py OUT [FAMILY…] [--seed N] [--small]

OUT gets one folder per variant: the checkpoint as the reference library saves it, and its outputs for the files of OUT/inputs as
`answers.safetensors` and `answers.json`. `cargo xtask parity` runs this and compares mm with it; --small writes the committed
fixtures. Requires torch, torchvision, transformers 5, sentence-transformers, timm, open_clip_torch, pillow, soundfile.
"""
from common import *

# ---- text -------------------------------------------------------------------------------------------------------------------
# Short and long, of which one or both are truncated, to an even and an odd number of tokens.
PAIRS = [(TEXTS[i], TEXTS[j]) for i, j in ((0, 3), (3, 0), (0, 6), (6, 4), (6, 3), (3, 6), (6, 6), (4, 7), (5, 0), (0, 1), (2, 5))] + list(zip(TEXTS[8:], TEXTS[9:]))
(inputs / "pairs.json").write_text(json.dumps(PAIRS, ensure_ascii=False))
def text_answers(folder, model, tokenizer, longest, head=None, **more):
    tokenizer.model_max_length = longest; tokenizer.save_pretrained(folder)
    batch = tokenizer(TEXTS, padding=True, truncation=True, max_length=longest, return_tensors="pt")
    feed = {k: v for k, v in batch.items() if k in ("input_ids", "attention_mask")}
    o = model(**feed, output_hidden_states=True); h, m = o.last_hidden_state, batch["attention_mask"]
    answers(folder, text_hidden=h * m[..., None], text=mean(h, m), text_ids=batch["input_ids"].masked_fill(m == 0, -1), text_cls=h[:, 0], text_max=h.masked_fill(m[..., None] == 0, -1e9).max(1).values, text_last=h[torch.arange(len(h)), m.sum(1) - 1], text_layer1=mean(o.hidden_states[1], m), **({"text_logits": head(**feed).logits} if head else {}), **more)
def text_family(name, Config, Model, make, longest, **sizes):
    @variant(name)
    def _(folder):
        tokenizer = make(); model = randomize(Model(Config(vocab_size=len(tokenizer) + 2, **sizes))); model.save_pretrained(folder); text_answers(folder, model, tokenizer, longest)
small = dict(hidden_size=21, num_hidden_layers=2, num_attention_heads=3, intermediate_size=37)
text_family("bert/gelu", tf.BertConfig, lambda c: tf.BertModel(c), lambda: word_piece(), 19, max_position_embeddings=24, layer_norm_eps=1e-6, type_vocab_size=3, **small)
text_family("bert/one-head-relu", tf.BertConfig, lambda c: tf.BertModel(c, add_pooling_layer=False), lambda: word_piece(False), 24, max_position_embeddings=24, layer_norm_eps=1e-3, hidden_act="relu", hidden_size=15, num_hidden_layers=3, num_attention_heads=1, intermediate_size=8)
text_family("roberta/plain", tf.RobertaConfig, lambda c: tf.RobertaModel(c), byte_bpe, 30, max_position_embeddings=33, pad_token_id=1, type_vocab_size=1, **small)
text_family("roberta/prefix", tf.RobertaConfig, lambda c: tf.RobertaModel(c, add_pooling_layer=False), lambda: byte_bpe(prefix=True), 25, max_position_embeddings=30, pad_token_id=1, type_vocab_size=1, hidden_act="gelu_new", layer_norm_eps=1e-4, **small)
text_family("xlm-roberta/unigram", tf.XLMRobertaConfig, lambda c: tf.XLMRobertaModel(c), unigram, 28, max_position_embeddings=31, pad_token_id=1, type_vocab_size=1, **small)
text_family("distilbert/learned", tf.DistilBertConfig, tf.DistilBertModel, word_piece, 20, dim=18, n_layers=2, n_heads=3, hidden_dim=29, max_position_embeddings=22)
text_family("distilbert/sinusoidal", tf.DistilBertConfig, tf.DistilBertModel, word_piece, 20, dim=20, n_layers=3, n_heads=2, hidden_dim=19, max_position_embeddings=22, sinusoidal_pos_embds=True, activation="relu")
text_family("mpnet/plain", tf.MPNetConfig, lambda c: tf.MPNetModel(c), lambda: word_piece(pad="<pad>", unk="[UNK]", cls="<s>", sep="</s>", mask="<mask>"), 26, max_position_embeddings=31, relative_attention_num_buckets=32, pad_token_id=0, **small)
def sentence(name, modules, longest, base="bert", prompts=None, lower=False, **pooling):
    @variant(name)
    def _(folder):
        from sentence_transformers import SentenceTransformer, models as M
        tokenizer = word_piece(not lower); inner = folder.parent / (folder.name + "-inner"); tokenizer.model_max_length = 30
        randomize(tf.BertModel(tf.BertConfig(vocab_size=len(tokenizer) + 2, max_position_embeddings=32, **small))).save_pretrained(inner); tokenizer.save_pretrained(inner)
        word = M.Transformer(str(inner), max_seq_length=longest, do_lower_case=lower); parts = [word, M.Pooling(21, pooling_mode=modules[0], **pooling)]
        for kind in modules[1:]:
            parts.append(M.Normalize() if kind == "normalize" else randomize(M.Dense(21, 13, bias=kind != "nobias", activation_function=torch.nn.Tanh() if kind == "tanh" else torch.nn.Identity())))
        model = SentenceTransformer(modules=parts, device="cpu", **(dict(prompts=prompts, default_prompt_name="query") if prompts else {})); model.save(str(folder)); shutil.rmtree(inner)
        if lower:  # As earlier versions wrote it: the tokenizer as it was, and the setting.
            (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": longest, "do_lower_case": True})); tokenizer.save_pretrained(folder)
        answers(folder, text=torch.from_numpy(model.encode(TEXTS, batch_size=3)))
sentence("sentence/cls-dense", ["cls", "tanh"], 17); sentence("sentence/max-normalize", ["max", "normalize"], 30); sentence("sentence/last-prompt", ["lasttoken", "nobias", "normalize"], 21, prompts={"query": "the dog: ", "document": ""})
sentence("sentence/skipped-prompt", ["mean", "normalize"], 21, prompts={"query": "the quick fox, ", "document": ""}, include_prompt=False)
sentence("sentence/lower-case", ["mean"], 24, lower=True)
@variant("bert/classifier-bin")
def _(folder):
    tokenizer = word_piece(); model = randomize(tf.BertForSequenceClassification(tf.BertConfig(vocab_size=len(tokenizer), max_position_embeddings=24, num_labels=3, **small)))
    model.save_pretrained(folder); (folder / "model.safetensors").unlink(); torch.save(model.state_dict(), folder / "pytorch_model.bin"); text_answers(folder, model.bert, tokenizer, 19, model)
def text_classifier(name, Config, Model, make, longest, **sizes):
    @variant(name)
    def _(folder):
        tokenizer = make(); model = randomize(Model(Config(vocab_size=len(tokenizer) + 2, **sizes))); model.save_pretrained(folder); text_answers(folder, model.base_model, tokenizer, longest, model)
text_classifier("bert/classifier-multi-label", tf.BertConfig, tf.BertForSequenceClassification, word_piece, 21, max_position_embeddings=24, problem_type="multi_label_classification", **small, **labels(5))
text_classifier("distilbert/classifier", tf.DistilBertConfig, tf.DistilBertForSequenceClassification, word_piece, 20, dim=18, n_layers=2, n_heads=3, hidden_dim=29, max_position_embeddings=22, **labels(2))
text_classifier("roberta/classifier", tf.RobertaConfig, tf.RobertaForSequenceClassification, byte_bpe, 30, max_position_embeddings=33, pad_token_id=1, type_vocab_size=1, **small, **labels(4))
text_classifier("camembert/classifier", tf.CamembertConfig, tf.CamembertForSequenceClassification, unigram, 28, max_position_embeddings=31, pad_token_id=1, type_vocab_size=1, **small, **labels(3))
text_classifier("mpnet/classifier", tf.MPNetConfig, tf.MPNetForSequenceClassification, lambda: word_piece(pad="<pad>", unk="[UNK]", cls="<s>", sep="</s>", mask="<mask>"), 26, max_position_embeddings=31, relative_attention_num_buckets=32, pad_token_id=0, **small, **labels(3))
def bert_words():
    """BERT's own tokenizer, which gives token types."""
    import tempfile
    with tempfile.TemporaryDirectory() as folder: bare_words(Path(folder)); return tf.BertTokenizer.from_pretrained(folder)
def unigram_pairs():
    """XLM-RoBERTa's template of pairs."""
    tokenizer = unigram(); t = tokenizer.backend_tokenizer
    t.post_processor = processors.TemplateProcessing(single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[(k, t.token_to_id(k)) for k in ("<s>", "</s>")])
    return tokenizer
def reranker(name, Config, Model, make, longest, **sizes):
    """`pair_scores` are sentence-transformers' own: the sigmoid of the logits."""
    @variant(name)
    def _(folder):
        from sentence_transformers import CrossEncoder
        tokenizer = make(); model = randomize(Model(Config(vocab_size=len(tokenizer) + 2, **small, **sizes, **labels(1)))); model.save_pretrained(folder); tokenizer.model_max_length = longest; tokenizer.save_pretrained(folder)
        batch = tokenizer([a for a, _ in PAIRS], [b for _, b in PAIRS], padding=True, truncation=True, max_length=longest, return_tensors="pt"); m = batch["attention_mask"]; types = batch.get("token_type_ids", torch.zeros_like(m))
        scores = torch.from_numpy(CrossEncoder(str(folder), device="cpu").predict(PAIRS, batch_size=3))
        text_answers(folder, model.base_model, tokenizer, longest, model, pair_ids=batch["input_ids"].masked_fill(m == 0, -1), pair_types=types.masked_fill(m == 0, -1), pair_logits=model(**batch).logits.squeeze(1), pair_scores=scores)
reranker("bert/reranker", tf.BertConfig, tf.BertForSequenceClassification, bert_words, 20, max_position_embeddings=24)
reranker("xlm-roberta/reranker", tf.XLMRobertaConfig, tf.XLMRobertaForSequenceClassification, unigram_pairs, 27, max_position_embeddings=31, pad_token_id=1, type_vocab_size=1)

# ---- tokenizers of older checkpoints: bare vocabularies, without tokenizer.json ---------------------------------------------
def bare(name, Model, Config, Tokenizer, write, longest, **sizes):
    @variant(name)
    def _(folder):
        write(folder); tokenizer = Tokenizer.from_pretrained(folder); assert not (folder / "tokenizer.json").exists()
        model = randomize(Model(Config(vocab_size=len(tokenizer) + 2, **sizes))); model.save_pretrained(folder)
        b = tokenizer(TEXTS, padding=True, truncation=True, max_length=longest, return_tensors="pt"); m = b["attention_mask"]
        answers(folder, text_ids=b["input_ids"].masked_fill(m == 0, -1), text=mean(model(input_ids=b["input_ids"], attention_mask=m).last_hidden_state, m))
def bare_bpe(folder):
    byte_bpe().backend_tokenizer.model.save(str(folder))
def bare_words(folder):
    vocab = word_piece().get_vocab(); (folder / "vocab.txt").write_text("".join(w + "\n" for w in sorted(vocab, key=vocab.get)))
def bare_cased(folder):
    bare_words(folder); (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": False, "tokenizer_class": "BertTokenizer"}))
if not args.small: bare("bert/bare-vocabulary", lambda c: tf.BertModel(c), tf.BertConfig, tf.BertTokenizer, bare_words, 24, max_position_embeddings=24, **small)
bare("bert/bare-cased", lambda c: tf.BertModel(c), tf.BertConfig, tf.BertTokenizer, bare_cased, 24, max_position_embeddings=24, **small)
bare("roberta/bare-merges", lambda c: tf.RobertaModel(c), tf.RobertaConfig, tf.RobertaTokenizer, bare_bpe, 30, max_position_embeddings=32, pad_token_id=1, type_vocab_size=1, **small)
bare("xlm-roberta/bare-sentencepiece", lambda c: tf.XLMRobertaModel(c), tf.XLMRobertaConfig, tf.XLMRobertaTokenizer, lambda f: sentencepiece_model(f / "sentencepiece.bpe.model"), 28, max_position_embeddings=30, pad_token_id=1, type_vocab_size=1, **small)

# ---- images ---------------------------------------------------------------------------------------------------------------
def image_answers(folder, processor, embed, logits=None, hidden=None):
    """One image at a time: their sizes may differ after the processor. `hidden` gives all tokens, of which the first is the embedding."""
    processor.save_pretrained(folder); rows, pixels, l, means = [], [], [], []
    for name in IMAGES:
        x = processor(images=read(name), return_tensors="pt")["pixel_values"]; pixels.append(x.flatten()); h = hidden(x) if hidden else None
        rows.append(h[0, 0] if hidden else embed(x)[0]); means += [mean(h)[0]] if hidden else []
        if logits: l.append(logits(x)[0])
    more = {"image_logits": torch.stack(l)} if logits else {}
    if hidden: more["image_mean"] = torch.stack(means)
    answers(folder, **{f"pixels{i}": p for i, p in enumerate(pixels)}, image=torch.stack(rows), **more)
def image_family(name, Config, Model, processor, embed, hidden=None, **sizes):
    @variant(name)
    def _(folder):
        model = randomize(Model(Config(**sizes))); model.save_pretrained(folder)
        image_answers(folder, processor(), lambda x: embed(model, x), (lambda x: model(x).logits) if "Classification" in type(model).__name__ else None, (lambda x: hidden(model, x)) if hidden else None)
def tokens(attr=""): return lambda m, x: (getattr(m, attr) if attr else m)(x).last_hidden_state
vit_p = lambda h, w=None, **k: (lambda: tf.ViTImageProcessorPil(size={"height": h, "width": w or h}, **k))
vits = dict(hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=31)
image_family("vit/classifier", tf.ViTConfig, tf.ViTForImageClassification, vit_p(30), None, tokens("vit"), image_size=30, patch_size=6, layer_norm_eps=1e-6, **vits, **labels(5))
image_family("vit/non-square-nobias", tf.ViTConfig, lambda c: tf.ViTModel(c, add_pooling_layer=False), vit_p(21, 35, resample=3), None, tokens(), image_size=(21, 35), patch_size=7, qkv_bias=False, hidden_act="gelu_pytorch_tanh", **vits)
image_family("deit/distilled", tf.DeiTConfig, tf.DeiTForImageClassificationWithTeacher, lambda: tf.DeiTImageProcessorPil(size={"height": 40, "width": 40}, crop_size={"height": 32, "width": 32}), None, tokens("deit"), image_size=32, patch_size=8, **vits, **labels(4))
image_family("deit/classifier", tf.DeiTConfig, tf.DeiTForImageClassification, lambda: tf.DeiTImageProcessorPil(size={"height": 28, "width": 28}, do_center_crop=False), None, tokens("deit"), image_size=28, patch_size=7, **vits, **labels(3))
dino_p = lambda edge, h, w: (lambda: tf.BitImageProcessorPil(size={"shortest_edge": edge}, crop_size={"height": h, "width": w}, resample=3, image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225]))
image_family("dinov2/odd", tf.Dinov2Config, tf.Dinov2Model, dino_p(47, 42, 35), None, tokens(), image_size=28, patch_size=7, hidden_size=24, num_hidden_layers=2, num_attention_heads=3, mlp_ratio=2)
image_family("dinov2/swiglu-classifier", tf.Dinov2Config, tf.Dinov2ForImageClassification, dino_p(30, 28, 28), None, tokens("dinov2"), image_size=28, patch_size=7, hidden_size=24, num_hidden_layers=2, num_attention_heads=1, mlp_ratio=3, use_swiglu_ffn=True, qkv_bias=False, **labels(4))
image_family("dinov2/registers", tf.Dinov2WithRegistersConfig, tf.Dinov2WithRegistersModel, dino_p(47, 42, 49), None, tokens(), image_size=28, patch_size=7, hidden_size=24, num_hidden_layers=2, num_attention_heads=2, mlp_ratio=2, num_register_tokens=3)
conv_p = lambda edge, **k: (lambda: tf.ConvNextImageProcessorPil(size={"shortest_edge": edge}, **k))
pooled = lambda attr: (lambda m, x: (getattr(m, attr) if attr else m)(x).pooler_output.flatten(1))
image_family("resnet/bottleneck", tf.ResNetConfig, tf.ResNetForImageClassification, conv_p(33), pooled("resnet"), embedding_size=8, hidden_sizes=[12, 16, 24], depths=[1, 2, 1], **labels(6))
image_family("resnet/basic-first", tf.ResNetConfig, tf.ResNetModel, conv_p(41, resample=2), pooled(None), embedding_size=8, hidden_sizes=[8, 12, 16], depths=[2, 1, 1], layer_type="basic", downsample_in_first_stage=True)
image_family("resnet/v1", tf.ResNetConfig, tf.ResNetModel, conv_p(38, crop_pct=0.8), pooled(None), embedding_size=8, hidden_sizes=[16, 20], depths=[2, 1], downsample_in_bottleneck=True, hidden_act="silu")
image_family("convnext/v1", tf.ConvNextConfig, tf.ConvNextForImageClassification, conv_p(35), pooled("convnext"), hidden_sizes=[8, 12, 16], depths=[1, 2, 1], num_stages=3, layer_scale_init_value=0.5, **labels(5))
image_family("convnext/v2", tf.ConvNextV2Config, tf.ConvNextV2ForImageClassification, conv_p(39, crop_pct=0.9), pooled("convnextv2"), hidden_sizes=[8, 12], depths=[1, 2], num_stages=2, patch_size=3, layer_norm_eps=1e-5, **labels(5))
if not args.small: image_family("efficientnet/max-pool", tf.EfficientNetConfig, tf.EfficientNetModel, lambda: tf.EfficientNetImageProcessorPil(size={"height": 38, "width": 51}, include_top=False), lambda m, x: m(x).pooler_output.flatten(1), width_coefficient=0.3, depth_coefficient=0.6, depth_divisor=4, hidden_dim=384, in_channels=[32, 16, 24], out_channels=[16, 24, 40], kernel_sizes=[5, 3, 3], strides=[2, 1, 2], num_block_repeats=[2, 2, 1], expand_ratios=[1, 3, 2], depthwise_padding=[0], pooling_type="max", hidden_act="relu", batch_norm_eps=1e-2)
image_family("efficientnet/plain", tf.EfficientNetConfig, tf.EfficientNetForImageClassification, lambda: tf.EfficientNetImageProcessorPil(size={"height": 43, "width": 43}), lambda m, x: m.efficientnet(x).pooler_output.flatten(1), width_coefficient=0.25, depth_coefficient=1.2, hidden_dim=320, in_channels=[32, 16, 24], out_channels=[16, 24, 40], kernel_sizes=[3, 3, 5], strides=[1, 2, 2], num_block_repeats=[1, 2, 2], expand_ratios=[1, 6, 4], depthwise_padding=[], pooling_type="mean", **labels(5))

# ---- timm -------------------------------------------------------------------------------------------------------------------
def timm_family(name, architecture, size, **model_args):
    @variant(name)
    def _(folder):
        import timm; from timm.data import resolve_data_config, create_transform
        model = randomize(timm.create_model(architecture, num_classes=5, **model_args)); folder.mkdir(parents=True, exist_ok=True)
        cfg = dict(model.pretrained_cfg); cfg.update(input_size=[3, size, size], crop_pct=0.9, interpolation="bicubic", num_classes=5)
        keep = ("tag", "custom_load", "input_size", "fixed_input_size", "interpolation", "crop_pct", "crop_mode", "mean", "std", "num_classes", "pool_size", "first_conv", "classifier")
        (folder / "config.json").write_text(json.dumps({"architecture": architecture, "num_classes": 5, "num_features": model.num_features, "global_pool": getattr(model, "global_pool", "avg") if isinstance(getattr(model, "global_pool", "avg"), str) else "avg", "model_args": model_args, "pretrained_cfg": {k: cfg[k] for k in keep if k in cfg}}))
        save_file({k: v.contiguous() for k, v in model.state_dict().items()}, folder / "model.safetensors", {"format": "pt"})
        transform = create_transform(**resolve_data_config({}, pretrained_cfg=cfg)); px = [transform(read(n))[None] for n in IMAGES]
        answers(folder, **{f"pixels{i}": p.flatten() for i, p in enumerate(px)}, image=torch.cat([model.forward_head(model.forward_features(p), pre_logits=True) for p in px]), image_logits=torch.cat([model(p) for p in px]))
timm_family("timm/vit", "vit_tiny_patch16_224", 32, img_size=32, patch_size=8, embed_dim=24, depth=2, num_heads=3)
tiny = dict(layers=[2, 1, 1, 1], channels=[4, 6, 8, 8])
timm_family("timm/resnext", "resnext50_32x4d", 33, cardinality=4, base_width=64, **tiny); timm_family("timm/wide-resnet", "wide_resnet50_2", 32, base_width=128, **tiny)
timm_family("timm/deit", "deit_tiny_distilled_patch16_224", 32, img_size=32, patch_size=8, embed_dim=24, depth=2, num_heads=3)
timm_family("timm/dinov2-reg", "vit_small_patch14_reg4_dinov2", 28, img_size=28, patch_size=7, embed_dim=24, depth=2, num_heads=2, reg_tokens=3)
timm_family("timm/convnext", "convnext_atto", 37, dims=[8, 12, 16, 20], depths=[1, 1, 2, 1])
timm_family("timm/convnextv2", "convnextv2_atto", 37, dims=[8, 12, 16, 20], depths=[1, 1, 2, 1])
def big_timm(name, architecture, size):
    if not args.small: timm_family(name, architecture, size)
big_timm("timm/resnet18", "resnet18", 65); big_timm("timm/resnet50", "resnet50", 65); big_timm("timm/efficientnet-b0", "efficientnet_b0", 65); big_timm("timm/efficientnet-lite0", "tf_efficientnet_lite0", 65)

# ---- audio ------------------------------------------------------------------------------------------------------------------
def audio_answers(folder, processor, rate, embed, logits=None):
    processor.save_pretrained(folder); rows, feats, l = [], [], []
    for name in AUDIOS[rate]:
        b = processor(read_audio(name), sampling_rate=rate, return_tensors="pt"); x = b.get("input_features", b.get("input_values")); feats.append(x.flatten()); rows.append(embed(x, b)[0])
        if logits: l.append(logits(x)[0])
    more = {"audio_logits": torch.stack(l)} if logits else {}
    answers(folder, **{f"sound{i}": f for i, f in enumerate(feats)}, audio=torch.stack(rows), **more)
def ast(name, mel, length, **sizes):
    @variant(name)
    def _(folder):
        model = randomize(tf.ASTForAudioClassification(tf.ASTConfig(num_mel_bins=mel, max_length=length, **vits, **labels(5), **sizes))); model.save_pretrained(folder)
        audio_answers(folder, tf.ASTFeatureExtractor(num_mel_bins=mel, max_length=length, mean=-3.1, std=2.7), 16000, lambda x, b: mean(model.audio_spectrogram_transformer(x).last_hidden_state), lambda x: model(x).logits)
ast("ast/overlap", 24, 70, patch_size=8, frequency_stride=5, time_stride=6); ast("ast/multi-label", 32, 150, patch_size=9, frequency_stride=9, time_stride=9, problem_type="multi_label_classification", qkv_bias=False)
w2v = dict(hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=31, conv_dim=(12, 14, 16), conv_kernel=(10, 3, 2), conv_stride=(5, 4, 4), num_conv_pos_embeddings=7, num_conv_pos_embedding_groups=4, vocab_size=12, apply_spec_augment=False)
def speech(name, Config, Model, normalize, mask, **sizes):
    @variant(name)
    def _(folder):
        model = randomize(Model(Config(**{**w2v, **sizes}))); model.save_pretrained(folder); base = getattr(model, model.base_model_prefix, model)
        audio_answers(folder, tf.Wav2Vec2FeatureExtractor(feature_size=1, sampling_rate=16000, padding_value=0.0, do_normalize=normalize, return_attention_mask=mask), 16000, lambda x, b: mean(base(x).last_hidden_state), (lambda x: model(x).logits) if "Sequence" in type(model).__name__ else None)
        if mask:
            b = tf.Wav2Vec2FeatureExtractor.from_pretrained(folder)([read_audio(n) for n in AUDIOS[16000]], sampling_rate=16000, padding=True, return_tensors="pt"); h = base(**b).last_hidden_state
            m = base._get_feature_vector_attention_mask(h.shape[1], b["attention_mask"]); t = {k: v for k, v in __import__("safetensors.torch", fromlist=["x"]).load_file(folder / "answers.safetensors").items()}
            answers(folder, **t, audio_batched=mean(h, m))
speech("wav2vec2/group", tf.Wav2Vec2Config, tf.Wav2Vec2Model, True, False)
speech("wav2vec2/layer-stable", tf.Wav2Vec2Config, tf.Wav2Vec2Model, True, True, feat_extract_norm="layer", do_stable_layer_norm=True, conv_bias=True, num_conv_pos_embeddings=8)
speech("wav2vec2/classifier-weighted", tf.Wav2Vec2Config, tf.Wav2Vec2ForSequenceClassification, False, True, feat_extract_norm="layer", use_weighted_layer_sum=True, classifier_proj_size=10, **labels(4))
speech("hubert/base", tf.HubertConfig, tf.HubertModel, True, False, feat_proj_layer_norm=False)
speech("hubert/large", tf.HubertConfig, tf.HubertForSequenceClassification, True, True, feat_extract_norm="layer", do_stable_layer_norm=True, conv_bias=True, classifier_proj_size=9, **labels(3))
@variant("hubert/batch-norm")
def _(folder):
    model = randomize(tf.HubertModel(tf.HubertConfig(**w2v, conv_pos_batch_norm=True))); model.save_pretrained(folder)
    audio_answers(folder, tf.Wav2Vec2FeatureExtractor(do_normalize=True, return_attention_mask=False), 16000, lambda x, b: mean(model(x).last_hidden_state))
def whisper(name, bands, seconds, Model, **sizes):
    @variant(name)
    def _(folder):
        config = tf.WhisperConfig(vocab_size=50, num_mel_bins=bands, d_model=24, encoder_layers=2, encoder_attention_heads=3, encoder_ffn_dim=31, decoder_layers=1, decoder_attention_heads=3, decoder_ffn_dim=16, max_source_positions=seconds * 50, max_target_positions=12, pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=3, begin_suppress_tokens=None, **sizes)
        model = randomize(Model(config)); model.save_pretrained(folder); enc = model.encoder if hasattr(model, "classifier") else model.get_encoder()
        audio_answers(folder, tf.WhisperFeatureExtractor(feature_size=bands, chunk_length=seconds), 16000, lambda x, b: mean(enc(x).last_hidden_state), (lambda x: model(x).logits) if hasattr(model, "classifier") else None)
whisper("whisper/encoder", 40, 2, tf.WhisperModel, activation_function="gelu"); whisper("whisper/classifier", 80, 3, tf.WhisperForAudioClassification, use_weighted_layer_sum=True, classifier_proj_size=11, **labels(4))
if not args.small: whisper("whisper/cut", 128, 1, tf.WhisperModel, activation_function="gelu_new"); speech("wav2vec2/one-head", tf.Wav2Vec2Config, tf.Wav2Vec2Model, True, False, num_attention_heads=1, layer_norm_eps=1e-3, hidden_act="relu", feat_extract_activation="gelu_new", conv_dim=(8, 10), conv_kernel=(9, 5), conv_stride=(7, 6), num_conv_pos_embeddings=4, num_conv_pos_embedding_groups=2); speech("hubert/stable-weighted", tf.HubertConfig, tf.HubertForSequenceClassification, True, True, do_stable_layer_norm=True, use_weighted_layer_sum=True, feat_extract_norm="layer", **labels(3)); ast("ast/tall", 40, 33, patch_size=6, frequency_stride=3, time_stride=4, hidden_act="relu", layer_norm_eps=1e-4)

# ---- video ------------------------------------------------------------------------------------------------------------------
def videomae(name, Model, **sizes):
    @variant(name)
    def _(folder):
        config = tf.VideoMAEConfig(**{**dict(image_size=24, patch_size=8, num_frames=6, tubelet_size=2), **vits, **sizes}); model = randomize(Model(config)); model.save_pretrained(folder)
        p = tf.VideoMAEImageProcessorPil(size={"shortest_edge": 26}, crop_size={"height": 24, "width": 24}); p.save_pretrained(folder)
        chosen = [FRAMES[i * len(FRAMES) // config.num_frames] for i in range(config.num_frames)]  # as transformers' default_sample_indices_fn
        x = p(chosen, return_tensors="pt")["pixel_values"]; base = getattr(model, "videomae", model)
        answers(folder, frames=x.flatten(), video=mean(base(x).last_hidden_state), **({"video_logits": model(x).logits} if base is not model else {}))
videomae("videomae/mean", tf.VideoMAEForVideoClassification, use_mean_pooling=True, **labels(5)); videomae("videomae/first", tf.VideoMAEForVideoClassification, use_mean_pooling=False, qkv_bias=False, **labels(3)); videomae("videomae/base", tf.VideoMAEModel, use_mean_pooling=False)
if not args.small: videomae("videomae/three-of-six", tf.VideoMAEForVideoClassification, use_mean_pooling=True, num_frames=3, tubelet_size=3, image_size=24, patch_size=6, **labels(3)); videomae("videomae/wide", tf.VideoMAEModel, use_mean_pooling=True, num_frames=4, tubelet_size=1)

# ---- joint ------------------------------------------------------------------------------------------------------------------
def first(o): return o if torch.is_tensor(o) else o.pooler_output
def joint_image(model, processor): return torch.cat([unit(first(model.get_image_features(pixel_values=processor(images=read(n), return_tensors="pt")["pixel_values"]))) for n in IMAGES])
def pixel_rows(processor): return {f"pixels{i}": processor(images=read(n), return_tensors="pt")["pixel_values"].flatten() for i, n in enumerate(IMAGES)}
def clip(name, eos, image, text=None, vision=None, **sizes):
    @variant(name)
    def _(folder):
        tokenizer, ids, _m = clip_bpe(); n = len(tokenizer)
        end = ids["<|endoftext|>"] if eos is None else eos
        t = dict(vocab_size=n, hidden_size=20, num_hidden_layers=2, num_attention_heads=2, intermediate_size=27, max_position_embeddings=16, eos_token_id=end, bos_token_id=ids["<|startoftext|>"], pad_token_id=1); t.update(text or {})
        v = dict(hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=31, image_size=30, patch_size=6); v.update(vision or {})
        model = randomize(tf.CLIPModel(tf.CLIPConfig(text_config=t, vision_config=v, **{"projection_dim": 14, **sizes}))); model.save_pretrained(folder)
        tokenizer.model_max_length = 16; tokenizer.save_pretrained(folder); p = image(); p.save_pretrained(folder)
        b = tokenizer(TEXTS, padding=True, truncation=True, return_tensors="pt")
        pix = torch.cat([p(images=read(x), return_tensors="pt")["pixel_values"] for x in IMAGES]); o = model(pixel_values=pix, input_ids=b["input_ids"], attention_mask=b["attention_mask"])
        answers(folder, text=unit(first(model.get_text_features(**{k: b[k] for k in ("input_ids", "attention_mask")}))), image=joint_image(model, p), text_ids=b["input_ids"].masked_fill(b["attention_mask"] == 0, -1), logits=o.logits_per_image, **pixel_rows(p))
clip_p = lambda edge, crop: (lambda: tf.CLIPImageProcessorPil(size={"shortest_edge": edge}, crop_size={"height": crop, "width": crop}))
clip("clip/legacy-eos", 2, clip_p(30, 30)); clip("clip/eos-gelu", None, clip_p(35, 30), text=dict(hidden_act="gelu"), vision=dict(hidden_act="gelu", layer_norm_eps=1e-3), projection_dim=9)
@variant("siglip/base")
def _(folder):
    tokenizer = unigram(add=False); n = len(tokenizer)
    model = randomize(tf.SiglipModel(tf.SiglipConfig(text_config=dict(vocab_size=n, hidden_size=20, num_hidden_layers=2, num_attention_heads=2, intermediate_size=27, max_position_embeddings=16, projection_size=20), vision_config=dict(hidden_size=20, num_hidden_layers=2, num_attention_heads=4, intermediate_size=31, image_size=30, patch_size=7))))
    model.save_pretrained(folder); tokenizer.model_max_length = 16; tokenizer.save_pretrained(folder); p = tf.SiglipImageProcessorPil(size={"height": 30, "width": 30}); p.save_pretrained(folder)
    b = tokenizer(TEXTS, padding="max_length", max_length=16, truncation=True, return_tensors="pt"); pix = torch.cat([p(images=read(x), return_tensors="pt")["pixel_values"] for x in IMAGES])
    answers(folder, text=unit(first(model.get_text_features(input_ids=b["input_ids"]))), image=joint_image(model, p), text_ids=b["input_ids"], logits=model(pixel_values=pix, input_ids=b["input_ids"]).logits_per_image, **pixel_rows(p))
def siglip_bare(folder):
    # T5's order of special tokens, as in SigLIP's own tokenizer.
    sentencepiece_model(folder / "spiece.model", pad_id=0, eos_id=1, unk_id=2, bos_id=-1, pad_piece="<pad>"); tokenizer = tf.SiglipTokenizer.from_pretrained(folder, model_max_length=16); n = len(tokenizer)
    model = randomize(tf.SiglipModel(tf.SiglipConfig(text_config=dict(vocab_size=n, hidden_size=20, num_hidden_layers=2, num_attention_heads=2, intermediate_size=27, max_position_embeddings=16, projection_size=20), vision_config=dict(hidden_size=20, num_hidden_layers=2, num_attention_heads=4, intermediate_size=31, image_size=30, patch_size=7))))
    model.save_pretrained(folder); tf.SiglipImageProcessorPil(size={"height": 30, "width": 30}).save_pretrained(folder)
    b = tokenizer(TEXTS, padding="max_length", max_length=16, truncation=True, return_tensors="pt")
    answers(folder, text=unit(first(model.get_text_features(input_ids=b["input_ids"]))), text_ids=b["input_ids"])
if not args.small: variant("siglip/bare-sentencepiece")(siglip_bare)
@variant("clip/bare-merges")
def _(folder):
    tokenizer, ids, merges = clip_bpe(); tokenizer.backend_tokenizer.model.save(str(folder)); tokenizer = tf.CLIPTokenizer.from_pretrained(folder, model_max_length=16)
    model = randomize(tf.CLIPModel(tf.CLIPConfig(text_config=dict(vocab_size=len(tokenizer), hidden_size=20, num_hidden_layers=2, num_attention_heads=2, intermediate_size=27, max_position_embeddings=16, eos_token_id=ids["<|endoftext|>"], bos_token_id=ids["<|startoftext|>"], pad_token_id=1), vision_config=dict(hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=31, image_size=30, patch_size=6), projection_dim=14)))
    model.save_pretrained(folder); clip_p(30, 30)().save_pretrained(folder)
    b = tokenizer(TEXTS, padding=True, truncation=True, return_tensors="pt")
    answers(folder, text=unit(first(model.get_text_features(**{k: b[k] for k in ("input_ids", "attention_mask")}))), text_ids=b["input_ids"].masked_fill(b["attention_mask"] == 0, -1))
@variant("chinese-clip/base")
def _(folder):
    tokenizer = word_piece(); model = randomize(tf.ChineseCLIPModel(tf.ChineseCLIPConfig(text_config=dict(vocab_size=len(tokenizer), max_position_embeddings=24, **small), vision_config=dict(hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=31, image_size=30, patch_size=6), projection_dim=11)))
    model.save_pretrained(folder); tokenizer.model_max_length = 22; tokenizer.save_pretrained(folder); p = tf.ChineseCLIPImageProcessorPil(size={"height": 30, "width": 30}, do_center_crop=False); p.save_pretrained(folder)
    b = tokenizer(TEXTS, padding=True, truncation=True, return_tensors="pt"); pix = torch.cat([p(images=read(x), return_tensors="pt")["pixel_values"] for x in IMAGES])
    answers(folder, text=unit(first(model.get_text_features(input_ids=b["input_ids"], attention_mask=b["attention_mask"]))), image=joint_image(model, p), text_ids=b["input_ids"].masked_fill(b["attention_mask"] == 0, -1), logits=model(pixel_values=pix, input_ids=b["input_ids"], attention_mask=b["attention_mask"]).logits_per_image, **pixel_rows(p))
@variant("blip/retrieval")
def _(folder):
    tokenizer = word_piece(); text = dict(small, num_attention_heads=3, vocab_size=len(tokenizer), max_position_embeddings=24, layer_norm_eps=1e-6)
    vision = dict(hidden_size=20, num_hidden_layers=2, num_attention_heads=2, intermediate_size=33, image_size=36, patch_size=9)
    model = randomize(tf.BlipForImageTextRetrieval(tf.BlipConfig(text_config=text, vision_config=vision, image_text_hidden_size=11))); model.save_pretrained(folder)
    tokenizer.model_max_length = 22; tokenizer.save_pretrained(folder); p = tf.models.blip.image_processing_pil_blip.BlipImageProcessorPil(size={"height": 36, "width": 36}); p.save_pretrained(folder)
    b = tokenizer(TEXTS, padding=True, truncation=True, return_tensors="pt"); pix = torch.cat([p(images=read(x), return_tensors="pt")["pixel_values"] for x in IMAGES])
    answers(folder, text=unit(model.text_proj(model.text_encoder(input_ids=b["input_ids"], attention_mask=b["attention_mask"])[0][:, 0])), image=unit(model.vision_proj(model.vision_model(pix)[0][:, 0])),
            text_ids=b["input_ids"].masked_fill(b["attention_mask"] == 0, -1), logits=model(pixel_values=pix, input_ids=b["input_ids"], attention_mask=b["attention_mask"], use_itm_head=False).itm_score, **pixel_rows(p))
def clap(name, fused, **sizes):
    @variant(name)
    def _(folder):
        tokenizer = byte_bpe(); audio = dict(window_size=4, num_mel_bins=16, spec_size=64, patch_size=4, patch_stride=[4, 4], hidden_size=32, projection_dim=10, depths=[2, 1, 2], num_attention_heads=[2, 2, 4], patch_embeds_hidden_size=8, enable_fusion=fused, fusion_type="aff_2d" if fused else None); audio.update(sizes)
        model = randomize(tf.ClapModel(tf.ClapConfig(text_config=dict(vocab_size=len(tokenizer), max_position_embeddings=33, pad_token_id=1, projection_dim=10, **small), audio_config=audio, projection_dim=10))); model.save_pretrained(folder)
        tokenizer.model_max_length = 30; tokenizer.save_pretrained(folder)
        p = tf.ClapFeatureExtractor(feature_size=16, sampling_rate=48000, hop_length=480, max_length_s=2, fft_window_size=1024, frequency_min=50, frequency_max=14000, truncation="fusion" if fused else "rand_trunc", padding="repeatpad"); p.save_pretrained(folder)
        b = tokenizer(TEXTS, padding=True, truncation=True, return_tensors="pt"); f = p(read_audio("tone48.wav"), sampling_rate=48000, return_tensors="pt")
        answers(folder, text=unit(first(model.get_text_features(input_ids=b["input_ids"], attention_mask=b["attention_mask"]))), audio=unit(first(model.get_audio_features(**f))), text_ids=b["input_ids"].masked_fill(b["attention_mask"] == 0, -1), sound0=f["input_features"].flatten())
clap("clap/unfused", False); clap("clap/fused", True)
if not args.small: clap("clap/odd-windows", False, window_size=3, spec_size=80, num_mel_bins=16, patch_stride=[4, 4], depths=[2, 2], num_attention_heads=[1, 4], patch_embeds_hidden_size=16, qkv_bias=False, mlp_ratio=1.5, hidden_act="relu"); clap("clap/fused-one-strip", True, num_mel_bins=16, spec_size=80, window_size=3, depths=[1, 2], num_attention_heads=[2, 1], patch_embeds_hidden_size=16, aff_block_r=2)
@variant("open-clip/vit")
def _(folder):
    import open_clip; folder.mkdir(parents=True, exist_ok=True)
    _t, ids, merges = clip_bpe(); n = len(ids)
    for quick in (True,):
        cfg = {"embed_dim": 14, "quick_gelu": quick, "vision_cfg": {"image_size": 30, "layers": 2, "width": 24, "head_width": 8, "patch_size": 6, "mlp_ratio": 1.5}, "text_cfg": {"context_length": 16, "vocab_size": n, "width": 20, "heads": 2, "layers": 2}}
        model = randomize(open_clip.CLIP(**{**cfg, "vision_cfg": open_clip.CLIPVisionCfg(**cfg["vision_cfg"]), "text_cfg": open_clip.CLIPTextCfg(**cfg["text_cfg"])}))
        pre = {"mean": [0.48, 0.46, 0.41], "std": [0.27, 0.26, 0.28], "interpolation": "bicubic", "resize_mode": "shortest"}
        (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": cfg, "preprocess_cfg": pre}))
        save_file({k: v.contiguous() for k, v in model.state_dict().items()}, folder / "open_clip_model.safetensors", {"format": "pt"})
        tok = _t; tok.model_max_length = 16; tok.save_pretrained(folder)
        # open_clip pads with zeros to the context length and uses the position of the largest id as the end.
        rows = [tok(t, truncation=True, max_length=16)["input_ids"] for t in TEXTS]; batch = pad_rows(rows, 0); batch = torch.nn.functional.pad(batch, (0, 16 - batch.shape[1]))
        from open_clip.transform import image_transform_v2, PreprocessCfg; transform = image_transform_v2(PreprocessCfg(size=30, **pre), is_train=False); px = torch.stack([transform(read(x)) for x in IMAGES])
        answers(folder, text=unit(model.encode_text(batch)), image=unit(model.encode_image(px)), text_ids=pad_rows(rows), **{f"pixels{i}": p.flatten() for i, p in enumerate(px)})

torch.set_grad_enabled(False); failed = []
if args.round_trip:
    # The reference library loads the weights that mm saved (again.safetensors); all parameters must be equal.
    from safetensors.torch import load_file
    done = 0
    for folder in sorted(p.parent for p in out.glob("*/again.safetensors")):
        again = load_file(folder / "again.safetensors"); stored = folder / "model.safetensors"
        if not stored.exists() or not (folder / "config.json").exists() or "model_type" not in json.loads((folder / "config.json").read_text()): continue
        copy = folder.parent / (folder.name + "-again"); shutil.rmtree(copy, ignore_errors=True); copy.mkdir()
        for p in folder.iterdir():
            if p.is_file() and p.suffix == ".json": shutil.copy(p, copy / p.name)
        shutil.copy(folder / "again.safetensors", copy / "model.safetensors")
        kind = getattr(tf, (json.loads((folder / "config.json").read_text()).get("architectures") or [""])[0], tf.AutoModel)
        both = [kind.from_pretrained(f, output_loading_info=True) for f in (folder, copy)]; shutil.rmtree(copy)
        # Parameters in neither file (a pooler) are initialized by each load; a head or decoder that mm does not load is not saved.
        missing = [set(info["missing_keys"]) for _, info in both]; unread = len(set(load_file(stored)) - set(again))
        other = [name for (name, a), (_, b) in zip(both[0][0].state_dict().items(), both[1][0].state_dict().items()) if not torch.equal(a, b) and name not in missing[1]]
        if other or len(missing[1] - missing[0]) > unread: failed += [f"{folder.name}: {name}" for name in other or sorted(missing[1] - missing[0])]
        done += 1
    print(f"transformers loaded {done} checkpoints saved by mm with equal weights")
    if failed: sys.exit("not equal: " + ", ".join(failed))
    sys.exit()
for name, make in VARIANTS:
    if args.families and name not in args.families and name.split("/")[0] not in args.families: continue
    torch.manual_seed(args.seed + 11); np.random.seed(args.seed); random.seed(args.seed)
    folder = out / name.replace("/", "-"); shutil.rmtree(folder, ignore_errors=True); folder.mkdir(parents=True)
    try: make(folder)
    except Exception as error:
        import traceback; traceback.print_exc(); failed.append(name); continue
    big = [f"{p.name} {p.stat().st_size}" for p in folder.rglob("*") if p.is_file() and p.stat().st_size > 300_000]
    print(name, sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) // 1024, "kB", *big, flush=True)
if failed: sys.exit(f"failed: {failed}")
