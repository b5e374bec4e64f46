#!/usr/bin/env python3
"""Writes tiny checkpoints of the generative model families, and what transformers generates with them.

    python xtask/parity/reason.py OUT [FAMILY…] [--seed N]

Like families.py, but the outputs (`answers.json`) are token ids, texts, scores and logits. `cargo xtask parity` runs this too.
"""
from common import *
torch.set_grad_enabled(False)
def bert_tok(extra=()):
    t = word_piece(); t.add_special_tokens({"additional_special_tokens": list(extra)}) if extra else None
    return t
def trim(ids, prompt, ends):
    ids = [int(i) for i in ids][prompt:]
    for k, i in enumerate(ids):
        if i in ends: return ids[:k], True
    return ids, False
def generations(model, tok, inputs, prompt, ends, more=(), **fixed):
    """Generations of the reference by greedy search, beam search and with processors; the first `prompt` tokens of the output are the prompt."""
    out = []
    for options in [dict(), dict(num_beams=3), dict(num_beams=4, length_penalty=0.3, early_stopping=True), dict(num_beams=2, length_penalty=2.0, early_stopping="never"), dict(repetition_penalty=1.7, no_repeat_ngram_size=2), dict(num_beams=3, no_repeat_ngram_size=2, min_new_tokens=4), *more]:
        o = model.generate(**inputs, max_new_tokens=9, do_sample=False, return_dict_in_generate=True, output_scores=True, **{**fixed, **options})
        ids, finished = trim(o.sequences[0], prompt, ends)
        row = {"config": options, "ids": ids, "finished": finished, "text": tok.decode(ids, skip_special_tokens=True)}
        if "num_beams" in options: row["score"] = float(o.sequences_scores[0])
        out.append(row)
    return out
ANSWER = "the fox"
def image_attention(model, tok, inputs, is_image, cut=0):
    """Attention of the tokens of ANSWER, generated after the prompt, to the image (a mask over all positions): the mean over blocks, heads and
    tokens, without the first `cut` positions."""
    answer_ids = torch.tensor([tok(ANSWER, add_special_tokens=False)["input_ids"]]); n = answer_ids.shape[1]; more = dict(inputs)
    more["input_ids"] = torch.cat([inputs["input_ids"], answer_ids], 1)
    for key, fill in (("attention_mask", 1), ("mm_token_type_ids", 0)):
        if key in inputs: more[key] = torch.cat([inputs[key], torch.full((1, n), fill, dtype=inputs[key].dtype)], 1)
    before = model.config._attn_implementation; model.set_attn_implementation("eager")
    with torch.no_grad(): all_ = model(**more, output_attentions=True).attentions
    model.set_attn_implementation(before)
    attention = torch.stack([a[0].mean(0)[-n:].mean(0) for a in all_]).mean(0)
    return {"answer": ANSWER, "patches": attention[: len(is_image)][is_image][cut:].tolist()}
def frame_indices(count):
    """Indices of the frames that mm samples evenly from six."""
    return [i * len(FRAMES) // count for i in range(count)]
def likelihood(decoder, context, mask, start, tok, choices, end):
    out = {}
    for c in choices:
        ids = tok(c, add_special_tokens=False)["input_ids"] + [end]; x = torch.tensor([[start] + ids[:-1]])
        l = decoder(input_ids=x, encoder_hidden_states=context, encoder_attention_mask=mask).logits.log_softmax(-1)[0]
        out[c] = float(sum(l[k, i] for k, i in enumerate(ids)))
    return out
QUESTIONS = ["a dog", "is the Quick brown fox over the lazy dog?", "naïve café 42 !"]

def blip_config(tok, vision_dim=20, **t):
    text = dict(vocab_size=len(tok) + 1, hidden_size=21, intermediate_size=29, num_hidden_layers=2, num_attention_heads=3, max_position_embeddings=40, bos_token_id=tok.convert_tokens_to_ids("[DEC]"), sep_token_id=tok.sep_token_id, pad_token_id=tok.pad_token_id, **t)
    vision = dict(hidden_size=vision_dim, intermediate_size=33, num_hidden_layers=2, num_attention_heads=vision_dim // 7 if vision_dim % 7 == 0 else 2, image_size=36, patch_size=9)
    return tf.BlipConfig(text_config=text, vision_config=vision, image_text_hidden_size=11)
def blip(folder, kind, **t):
    tok = bert_tok(["[DEC]", "[ENC]"]); model = randomize(kind(blip_config(tok, **t))); 
    pre = tf.models.blip.image_processing_pil_blip.BlipImageProcessorPil(size={"height": 36, "width": 36}); pre.save_pretrained(folder); tok.save_pretrained(folder); model.save_pretrained(folder)
    return model, tok, pre
def pixels(pre, name): return pre(images=read(name), return_tensors="pt")["pixel_values"]
@variant("blip/caption")
def _(folder):
    model, tok, pre = blip(folder, tf.BlipForConditionalGeneration); rows = []
    for name in IMAGES[:2]:
        for words in (None, "a dog and"):
            ids = tok(words, return_tensors="pt") if words else {}
            inputs = {"pixel_values": pixels(pre, name), **({"input_ids": ids["input_ids"], "attention_mask": ids["attention_mask"]} if words else {})}
            rows.append({"image": name, "prompt": words, "generations": generations(model, tok, inputs, ids["input_ids"].shape[1] - 1 if words else 1, [tok.sep_token_id])})
    return {"caption": rows}
@variant("blip/vqa")
def _(folder):
    model, tok, pre = blip(folder, tf.BlipForQuestionAnswering, vision_dim=21, layer_norm_eps=1e-5, hidden_act="relu"); rows = []
    for name in IMAGES[:2]:
        for q in QUESTIONS:
            ids = tok(q, return_tensors="pt"); inputs = {"pixel_values": pixels(pre, name), "input_ids": ids["input_ids"], "attention_mask": ids["attention_mask"]}
            hidden = model.text_encoder(input_ids=ids["input_ids"], attention_mask=ids["attention_mask"], encoder_hidden_states=model.vision_model(inputs["pixel_values"])[0])[0]
            rows.append({"image": name, "question": q, "generations": generations(model, tok, inputs, 1, [tok.sep_token_id]), "likelihoods": likelihood(model.text_decoder, hidden, None, model.decoder_start_token_id, tok, ["a dog", "fox", "the lazy dog over 42"], tok.sep_token_id)})
    return {"answer": rows}
@variant("blip/match")
def _(folder):
    model, tok, pre = blip(folder, tf.BlipForImageTextRetrieval); rows = []
    for name in IMAGES[:2]:
        for q in QUESTIONS:
            ids = tok(q, return_tensors="pt"); o = model(pixel_values=pixels(pre, name), input_ids=ids["input_ids"], attention_mask=ids["attention_mask"])
            rows.append({"image": name, "text": q, "score": float(o.itm_score.softmax(-1)[0, 1])})
    return {"match": rows, "unexpected_keys": True}
def vilt(folder, kind, **more):
    tok = bert_tok(); tok.model_max_length = 30
    config = tf.ViltConfig(vocab_size=len(tok) + 1, hidden_size=20, num_hidden_layers=2, num_attention_heads=2, intermediate_size=31, max_position_embeddings=30, image_size=40, patch_size=8, layer_norm_eps=1e-5, **more)
    model = randomize(kind(config)); pre = tf.models.vilt.image_processing_pil_vilt.ViltImageProcessorPil(size={"shortest_edge": 60}, size_divisor=8)
    pre.save_pretrained(folder); tok.save_pretrained(folder); model.save_pretrained(folder); return model, tok, pre
def vilt_rows(model, tok, pre, row):
    rows = []
    for name in IMAGES:
        for q in QUESTIONS: rows.append({"image": name, **row(q, model(**tok(q, return_tensors="pt"), **pre(images=read(name), return_tensors="pt")))})
    return rows
@variant("vilt/vqa")
def _(folder):
    names = labels(7); model, tok, pre = vilt(folder, tf.ViltForQuestionAnswering, **names)
    return {"answer": vilt_rows(model, tok, pre, lambda q, o: {"question": q, "logits": {names["id2label"][i]: float(v) for i, v in enumerate(o.logits[0])}})}
@variant("vilt/match")
def _(folder):
    model, tok, pre = vilt(folder, tf.ViltForImageAndTextRetrieval, hidden_act="relu")
    return {"match": vilt_rows(model, tok, pre, lambda q, o: {"text": q, "score": float(o.logits[0].sigmoid())})}
@variant("git/caption")
def _(folder):
    tok = bert_tok(); ends = [tok.sep_token_id]
    config = tf.GitConfig(vision_config=dict(hidden_size=20, intermediate_size=27, num_hidden_layers=2, num_attention_heads=2, image_size=30, patch_size=10), vocab_size=len(tok) + 2, hidden_size=18, num_hidden_layers=2, num_attention_heads=3, intermediate_size=25, max_position_embeddings=60, bos_token_id=tok.cls_token_id, eos_token_id=tok.sep_token_id, pad_token_id=0, num_image_with_embedding=3)
    model = randomize(tf.GitForCausalLM(config)); pre = tf.CLIPImageProcessorPil(size={"shortest_edge": 38}, crop_size={"height": 30, "width": 30}); pre.save_pretrained(folder); tok.save_pretrained(folder); model.save_pretrained(folder); rows, answered = [], []
    for name in IMAGES[:2]:
        rows.append({"image": name, "prompt": None, "generations": generations(model, tok, {"pixel_values": pixels(pre, name)}, 1, ends)})
        for q in QUESTIONS[:2]:
            ids = torch.tensor([[tok.cls_token_id] + tok(q, add_special_tokens=False)["input_ids"]])
            inputs = {"pixel_values": pixels(pre, name), "input_ids": ids}
            answered.append({"image": name, "question": q, "generations": generations(model, tok, inputs, ids.shape[1], ends), "attribution": image_attention(model, tok, inputs, torch.ones(10, dtype=torch.bool), 1)})
    frames = [FRAMES[i] for i in frame_indices(3)]; px = pre(images=[Image.fromarray(f) for f in frames], return_tensors="pt")["pixel_values"][None]
    rows.append({"video": "frames.mkv", "prompt": None, "generations": generations(model, tok, {"pixel_values": px}, 1, ends)})
    return {"caption": rows, "answer": answered}
def encoder_decoder(folder, encoder, decoder, tok, pre, start, **ends):
    config = tf.VisionEncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder); model = randomize(tf.VisionEncoderDecoderModel(config=config))
    model.config.decoder_start_token_id = start; model.config.pad_token_id = tok.pad_token_id; model.generation_config.decoder_start_token_id = start; model.generation_config.pad_token_id = tok.pad_token_id; model.generation_config.eos_token_id = tok.eos_token_id
    pre.save_pretrained(folder); tok.save_pretrained(folder); model.save_pretrained(folder)
    return {"unexpected_keys": True, "caption": [{"image": name, "prompt": None, "generations": generations(model, tok, {"pixel_values": pixels(pre, name)}, 1, [tok.eos_token_id])} for name in IMAGES[:2]]}
@variant("vision-encoder-decoder/vit-gpt2")
def _(folder):
    tok = byte_bpe()
    vit = tf.ViTConfig(hidden_size=20, num_hidden_layers=2, num_attention_heads=2, intermediate_size=27, image_size=30, patch_size=10); gpt = tf.GPT2Config(vocab_size=len(tok) + 1, n_positions=40, n_embd=18, n_layer=2, n_head=3, n_inner=29, add_cross_attention=True, is_decoder=True, layer_norm_epsilon=1e-4)
    return encoder_decoder(folder, vit, gpt, tok, tf.ViTImageProcessorPil(size={"height": 30, "width": 30}), tok.bos_token_id)
@variant("vision-encoder-decoder/trocr")
def _(folder):
    tok = unigram()
    deit = tf.DeiTConfig(hidden_size=22, num_hidden_layers=2, num_attention_heads=2, intermediate_size=27, image_size=32, patch_size=8); trocr = tf.TrOCRConfig(vocab_size=len(tok) + 1, d_model=18, decoder_layers=2, decoder_attention_heads=3, decoder_ffn_dim=25, max_position_embeddings=40, cross_attention_hidden_size=22, activation_function="relu", scale_embedding=True, is_decoder=True, add_cross_attention=True, pad_token_id=tok.pad_token_id, tie_word_embeddings=False)
    return encoder_decoder(folder, deit, trocr, tok, tf.DeiTImageProcessorPil(size={"height": 32, "width": 32}, do_center_crop=False), tok.eos_token_id)
@variant("vision-encoder-decoder/trocr-sines")
def _(folder):
    tok = unigram()
    vit = tf.ViTConfig(hidden_size=20, num_hidden_layers=2, num_attention_heads=2, intermediate_size=27, image_size=30, patch_size=10, qkv_bias=False); trocr = tf.TrOCRConfig(vocab_size=len(tok) + 1, d_model=20, decoder_layers=2, decoder_attention_heads=2, decoder_ffn_dim=25, max_position_embeddings=40, use_learned_position_embeddings=False, layernorm_embedding=False, is_decoder=True, add_cross_attention=True, pad_token_id=tok.pad_token_id)
    return encoder_decoder(folder, vit, trocr, tok, tf.ViTImageProcessorPil(size={"height": 30, "width": 30}), tok.eos_token_id)
def whisper(folder, multilingual, first=None):
    tok = byte_bpe(bos="<|startoftext|>", eos="<|endoftext|>", pad="<|pad|>"); extra = ["<|startoftranscript|>", "<|en|>", "<|de|>", "<|fr|>", "<|translate|>", "<|transcribe|>", "<|nospeech|>", "<|notimestamps|>"]
    tok.add_special_tokens({"additional_special_tokens": extra}); n = len(tok); tid = tok.convert_tokens_to_ids
    tok._tokenizer.post_processor = processors.TemplateProcessing(single="$A", special_tokens=[])
    config = tf.WhisperConfig(vocab_size=n + 26, d_model=20, encoder_layers=2, decoder_layers=2, encoder_attention_heads=2, decoder_attention_heads=4, encoder_ffn_dim=25, decoder_ffn_dim=29, max_source_positions=50, max_target_positions=60, num_mel_bins=16, pad_token_id=tok.pad_token_id, bos_token_id=tok.eos_token_id, eos_token_id=tok.eos_token_id, decoder_start_token_id=tid("<|startoftranscript|>"), suppress_tokens=[3, 4, tid("<|translate|>")], begin_suppress_tokens=[tid("a"), tok.eos_token_id])
    model = randomize(tf.WhisperForConditionalGeneration(config)); g = model.generation_config
    g.no_timestamps_token_id = tid("<|notimestamps|>"); g.is_multilingual = multilingual; g.return_timestamps = False; g.suppress_tokens = config.suppress_tokens; g.begin_suppress_tokens = config.begin_suppress_tokens
    if first is not None: g.max_initial_timestamp_index = first
    if multilingual: g.lang_to_id = {l: tid(l) for l in ("<|en|>", "<|de|>", "<|fr|>")}; g.task_to_id = {"transcribe": tid("<|transcribe|>"), "translate": tid("<|translate|>")}
    fe = tf.WhisperFeatureExtractor(feature_size=16, sampling_rate=16000, hop_length=320, chunk_length=2, n_fft=640); fe.save_pretrained(folder); tok.save_pretrained(folder); model.save_pretrained(folder)
    return model, tok, fe
def whisper_rows(model, tok, fe, languages, times):
    rows = []
    for name in AUDIOS[16000]:
        for language in languages:
            x = fe(read_audio(name), sampling_rate=16000, return_tensors="pt")["input_features"]
            for stamps in times:
                generated = []
                for options in [dict(), dict(num_beams=3)]:
                    o = model.generate(x, max_new_tokens=11, return_timestamps=stamps, return_dict_in_generate=True, force_unique_generate_call=True, **({"language": language} if language else {}), **options)
                    full = [int(i) for i in (o["sequences"] if isinstance(o, dict) else o)[0]]; keep = len(full)
                    while keep and full[keep - 1] == tok.pad_token_id: keep -= 1
                    body = full[:keep]; special = set(tok.convert_tokens_to_ids(["<|startoftranscript|>", "<|en|>", "<|de|>", "<|fr|>", "<|transcribe|>", "<|notimestamps|>"]))
                    k = 0
                    while k < len(body) and body[k] in special: k += 1
                    ids, finished = trim(body, k, [tok.eos_token_id]); generated.append({"config": {**options, "max_new_tokens": 11}, "ids": ids, "finished": finished, "text": tok.decode(ids, skip_special_tokens=True)})
                rows.append({"audio": name, "language": language, "timestamps": stamps, "generations": generated})
    return rows
def timed(model, tok, fe, languages):
    import signal; rows = []
    def late(*_): raise TimeoutError
    signal.signal(signal.SIGALRM, late); first = model.generation_config.no_timestamps_token_id + 1
    for name in AUDIOS[16000] + ["long5.wav"]:
        x = fe(read_audio(name), sampling_rate=16000, return_tensors="pt", truncation=False, padding="longest" if name == "long5.wav" else "max_length", return_attention_mask=True)
        for language in languages:
            signal.alarm(4)
            try: o = model.generate(x["input_features"], max_new_tokens=11, return_timestamps=True, return_segments=True, **({"language": language} if language else {}))
            except TimeoutError: continue  # random weights may predict silence forever
            finally: signal.alarm(0)
            rows.append({"audio": name, "language": language, "segments": [{"start": float(g["start"]), "end": float(g["end"]), "text": tok.decode([int(i) for i in g["tokens"] if int(i) < first], skip_special_tokens=True)} for g in o["segments"][0]]})
    return rows
soundfile.write(inputs / "long5.wav", tone(5.3, 16000), 16000)
@variant("whisper/multilingual")
def _(folder):
    parts = whisper(folder, True); return {"transcribe": whisper_rows(*parts, [None, "de", "english"], [False]), "segments": timed(*parts, [None, "fr"])}
@variant("whisper/english")
def _(folder):
    parts = whisper(folder, False, first=7); return {"transcribe": whisper_rows(*parts, [None], [False]), "segments": timed(*parts, [None])}
def llama_bits(tok): return dict(vocab_size=len(tok) + 3, hidden_size=24, intermediate_size=37, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=120, bos_token_id=tok.bos_token_id, eos_token_id=tok.eos_token_id, pad_token_id=tok.pad_token_id)
TEMPLATE = "{% for m in messages %}{{ m['role'].upper() }}: {% if m['content'] is string %}{{ m['content'] }}{% else %}{% for c in m['content'] %}{% if c['type'] == 'image' %}IMAGE_TOKEN{% elif c['type'] == 'video' %}VIDEO{% else %}{{ c['text'] }}{% endif %}{% endfor %}{% endif %}\n{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
def parts(*kinds, text): return [{"type": kind} for kind in kinds] + [{"type": "text", "text": text}]
CONVERSATION = [{"role": "user", "content": parts("image", text="a dog")}, {"role": "assistant", "content": parts(text="fox")}, {"role": "user", "content": parts("image", text="a fox?")}]
def llava(folder, text, vision, pre, template=None, adapt=None, **more):
    tok = byte_bpe(); tok.add_special_tokens({"additional_special_tokens": ["<image>"]}); image = tok.convert_tokens_to_ids("<image>")
    config = tf.LlavaConfig(text_config=text(tok), vision_config=vision, image_token_index=image, image_token_id=image, pad_token_id=tok.pad_token_id, **more); model = randomize(tf.LlavaForConditionalGeneration(config)); model.generation_config.eos_token_id = tok.eos_token_id; model.generation_config.pad_token_id = tok.pad_token_id
    if template: tok.chat_template = template.replace("IMAGE_TOKEN", "<image>\n")
    base = folder / "base" if adapt else folder; pre.save_pretrained(base); tok.save_pretrained(base); model.save_pretrained(base); rows = []
    if adapt: adapt(model)
    for name in IMAGES[:2]:
        for q in QUESTIONS[:2]:
            messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": q}]}]
            prompt = tok.apply_chat_template(messages, tokenize=False, add_generation_prompt=True) if template else f"USER: <image>\n{q} ASSISTANT:"
            px = pixels(pre, name); n = model.get_image_features(pixel_values=px).pooler_output[0].shape[0]
            ids = tok(prompt)["input_ids"]; ids = [j for i in ids for j in ([i] * n if i == image else [i])]; x = torch.tensor([ids])
            inputs = {"input_ids": x, "attention_mask": torch.ones_like(x), "pixel_values": px}
            rows.append({"image": name, "question": q, "generations": generations(model, tok, inputs, len(ids), [tok.eos_token_id]), "attribution": image_attention(model, tok, inputs, x[0] == image)})
    out = {"unexpected_keys": True, "answer": rows}
    if template:
        # A conversation about two images, the second in a later message.
        prompt = tok.apply_chat_template(CONVERSATION, tokenize=False, add_generation_prompt=True)
        px = torch.cat([pixels(pre, name) for name in IMAGES[:2]]); ids = [j for i in tok(prompt)["input_ids"] for j in ([i] * n if i == image else [i])]; x = torch.tensor([ids])
        out["chat"] = [{"media": [{"image": name} for name in IMAGES[:2]], "messages": CONVERSATION, "generations": generations(model, tok, {"input_ids": x, "attention_mask": torch.ones_like(x), "pixel_values": px}, len(ids), [tok.eos_token_id])}]
    return out
@variant("llava/clip-llama")
def _(folder):
    return llava(folder, lambda tok: tf.LlamaConfig(**llama_bits(tok), rms_norm_eps=1e-5, rope_theta=5000.0), tf.CLIPVisionConfig(hidden_size=20, intermediate_size=27, num_hidden_layers=3, num_attention_heads=2, image_size=30, patch_size=10), tf.CLIPImageProcessorPil(size={"shortest_edge": 38}, crop_size={"height": 30, "width": 30}))
@variant("llava/siglip-qwen2")
def _(folder):
    return llava(folder, lambda tok: tf.Qwen2Config(**llama_bits(tok)), tf.SiglipVisionConfig(hidden_size=20, intermediate_size=27, num_hidden_layers=3, num_attention_heads=2, image_size=30, patch_size=10), tf.SiglipImageProcessorPil(size={"height": 30, "width": 30}), TEMPLATE, vision_feature_layer=-1, vision_feature_select_strategy="full", projector_hidden_act="relu", multimodal_projector_bias=False)
@variant("llava/two-layers")
def _(folder):
    return llava(folder, lambda tok: tf.LlamaConfig(**llama_bits(tok), attention_bias=True, mlp_bias=True, head_dim=8, rope_parameters={"rope_type": "llama3", "rope_theta": 10000.0, "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 3.0, "original_max_position_embeddings": 30}), tf.CLIPVisionConfig(hidden_size=20, intermediate_size=27, num_hidden_layers=3, num_attention_heads=2, image_size=30, patch_size=10), tf.CLIPImageProcessorPil(size={"shortest_edge": 38}, crop_size={"height": 30, "width": 30}), TEMPLATE, vision_feature_layer=[-3, -2])
@variant("qwen2_vl/image")
def _(folder):
    tok = byte_bpe(); extra = ["<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]; tok.add_special_tokens({"additional_special_tokens": extra}); tid = tok.convert_tokens_to_ids
    text = dict(llama_bits(tok), rope_parameters={"rope_type": "default", "rope_theta": 3000.0, "mrope_section": [1, 1, 1]})
    config = tf.Qwen2VLConfig(text_config=text, vision_config=dict(depth=2, embed_dim=24, hidden_size=24, num_heads=2, mlp_ratio=2, patch_size=6, spatial_merge_size=2, temporal_patch_size=2), image_token_id=tid("<|image_pad|>"), video_token_id=tid("<|video_pad|>"), vision_start_token_id=tid("<|vision_start|>"), vision_end_token_id=tid("<|vision_end|>"))
    model = randomize(tf.Qwen2VLForConditionalGeneration(config)); model.generation_config.eos_token_id = [tok.eos_token_id, tid("<|im_end|>")]; model.generation_config.pad_token_id = tok.pad_token_id
    pre = tf.models.qwen2_vl.image_processing_pil_qwen2_vl.Qwen2VLImageProcessorPil(patch_size=6, merge_size=2, temporal_patch_size=2, size={"shortest_edge": 12 * 12 * 2, "longest_edge": 12 * 12 * 12})
    tok.chat_template = TEMPLATE.replace("IMAGE_TOKEN", "<|vision_start|><|image_pad|><|vision_end|>").replace("VIDEO", "<|vision_start|><|video_pad|><|vision_end|>")
    pre.save_pretrained(folder); tok.save_pretrained(folder); model.save_pretrained(folder); rows = []
    for name in IMAGES:
        for q in QUESTIONS[:2]:
            messages = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": q}]}]; prompt = tok.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
            o = pre(images=read(name), return_tensors="pt"); n = int(o["image_grid_thw"][0].prod()) // 4; pad = tid("<|image_pad|>")
            ids = [j for i in tok(prompt)["input_ids"] for j in ([i] * n if i == pad else [i])]; x = torch.tensor([ids])
            inputs = {"input_ids": x, "attention_mask": torch.ones_like(x), "mm_token_type_ids": (x == pad).int(), "pixel_values": o["pixel_values"], "image_grid_thw": o["image_grid_thw"]}
            rows.append({"image": name, "question": q, "generations": generations(model, tok, inputs, len(ids), model.generation_config.eos_token_id), "attribution": image_attention(model, tok, inputs, x[0] == pad)})
    # All frames, where transformers' default and mm's differ.
    video = {"video_processor_type": "Qwen2VLVideoProcessor", "num_frames": len(FRAMES), "patch_size": 6, "merge_size": 2, "temporal_patch_size": 2, "size": {"shortest_edge": 12 * 12 * 2, "longest_edge": 12 * 12 * 12}}
    (folder / "video_preprocessor_config.json").write_text(json.dumps(video, indent=2) + "\n")
    # The pixels of a video are those of its frames as images, in pairs.
    messages = [{"role": "user", "content": [{"type": "video"}, {"type": "text", "text": QUESTIONS[1]}]}]; prompt = tok.apply_chat_template(messages, tokenize=False, add_generation_prompt=True); pad = tid("<|video_pad|>")
    each = [pre(images=Image.fromarray(f), return_tensors="pt") for f in FRAMES]; g = each[0]["image_grid_thw"][0].tolist(); n = g[1] * g[2]
    px = torch.stack([e["pixel_values"].view(n, 3, 2, 36)[:, :, 0] for e in each]); video = torch.cat([torch.stack([px[t], px[t + 1]], 2).reshape(n, -1) for t in range(0, len(FRAMES), 2)]); grid = torch.tensor([[len(FRAMES) // 2, g[1], g[2]]])
    ids = [j for i in tok(prompt)["input_ids"] for j in ([i] * (int(grid.prod()) // 4) if i == pad else [i])]; x = torch.tensor([ids])
    rows.append({"video": "frames.mkv", "question": QUESTIONS[1], "generations": generations(model, tok, {"input_ids": x, "attention_mask": torch.ones_like(x), "mm_token_type_ids": (x == pad).int() * 2, "pixel_values_videos": video, "video_grid_thw": grid}, len(ids), model.generation_config.eos_token_id)})
    # A conversation about images of two sizes and the video between them.
    messages = [{"role": "user", "content": parts("image", "video", text="a dog")}, {"role": "assistant", "content": parts(text="fox")}, {"role": "user", "content": parts("image", text="a fox?")}]
    images = pre(images=[read(name) for name in IMAGES[:2]], return_tensors="pt"); counts = iter((images["image_grid_thw"].prod(1) // 4).tolist()); image = tid("<|image_pad|>")
    count = lambda i: next(counts) if i == image else int(grid.prod()) // 4 if i == pad else 1
    ids = [j for i in tok(tok.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))["input_ids"] for j in [i] * count(i)]; x = torch.tensor([ids])
    inputs = {"input_ids": x, "attention_mask": torch.ones_like(x), "mm_token_type_ids": (x == image).int() + (x == pad).int() * 2, "pixel_values": images["pixel_values"], "image_grid_thw": images["image_grid_thw"], "pixel_values_videos": video, "video_grid_thw": grid}
    chat = [{"media": [{"image": IMAGES[0]}, {"video": "frames.mkv"}, {"image": IMAGES[1]}], "messages": messages, "generations": generations(model, tok, inputs, len(ids), model.generation_config.eos_token_id)}]
    return {"answer": rows, "chat": chat}

def adapted(folder, model, **options):
    """Wraps the model in `folder / "base"` with a random adapter, which PEFT saves to `folder`."""
    import peft
    wrapped = peft.get_peft_model(model, peft.LoraConfig(**{"r": 3, "lora_alpha": 5, **options}))
    for name, p in wrapped.named_parameters():
        if "lora_" in name and "magnitude" not in name: p.normal_(0, 0.4)
        elif "magnitude" in name: p.mul_(torch.rand_like(p) + 0.5)
        elif "modules_to_save" in name: p.add_(torch.randn_like(p) * 0.3)
    wrapped.eval(); wrapped.save_pretrained(folder); file = folder / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "base_model_name_or_path": "base"}, indent=1))
    for name in ("README.md",): (folder / name).unlink(missing_ok=True)
    return model
@variant("adapter/vilt")
def _(folder):
    names = labels(7); model, tok, pre = vilt(folder / "base", tf.ViltForQuestionAnswering, **names)
    model = adapted(folder, model, target_modules=["query", "value", "dense"], modules_to_save=["classifier"], use_rslora=True, alpha_pattern={"attention.attention.query": 2.5})
    return {"answer": vilt_rows(model, tok, pre, lambda q, o: {"question": q, "logits": {names["id2label"][i]: float(v) for i, v in enumerate(o.logits[0])}})}
@variant("adapter/blip-dora")
def _(folder):
    model, tok, pre = blip(folder / "base", tf.BlipForConditionalGeneration)
    model = adapted(folder, model, target_modules=["qkv", "projection", "query", "key"], use_dora=True)
    return {"caption": [{"image": name, "prompt": None, "generations": generations(model, tok, {"pixel_values": pixels(pre, name)}, 1, [tok.sep_token_id])} for name in IMAGES[:2]]}
@variant("adapter/gpt2")
def _(folder):
    tok = byte_bpe(); base = folder / "base"
    vit = tf.ViTConfig(hidden_size=20, num_hidden_layers=2, num_attention_heads=2, intermediate_size=27, image_size=30, patch_size=10); gpt = tf.GPT2Config(vocab_size=len(tok) + 1, n_positions=40, n_embd=18, n_layer=2, n_head=3, n_inner=29, add_cross_attention=True, is_decoder=True)
    encoder_decoder(base, vit, gpt, tok, tf.ViTImageProcessorPil(size={"height": 30, "width": 30}), tok.bos_token_id)
    model = adapted(folder, tf.VisionEncoderDecoderModel.from_pretrained(base), target_modules=["c_attn", "c_proj", "q_attn", "query"]); pre = tf.ViTImageProcessorPil.from_pretrained(base)
    return {"unexpected_keys": True, "caption": [{"image": name, "prompt": None, "generations": generations(model, tok, {"pixel_values": pixels(pre, name)}, 1, [tok.eos_token_id])} for name in IMAGES[:2]]}
@variant("adapter/llava")
def _(folder):
    vision = tf.CLIPVisionConfig(hidden_size=20, intermediate_size=27, num_hidden_layers=3, num_attention_heads=2, image_size=30, patch_size=10)
    return llava(folder, lambda tok: tf.LlamaConfig(**llama_bits(tok)), vision, tf.CLIPImageProcessorPil(size={"shortest_edge": 38}, crop_size={"height": 30, "width": 30}), adapt=lambda model: adapted(folder, model, target_modules=["q_proj", "down_proj"]))

failed = []
for name, make in VARIANTS:
    if args.families and name not in args.families and name.split("/")[0] not in args.families: continue
    torch.manual_seed(args.seed + 11); np.random.seed(args.seed); random.seed(args.seed)
    folder = out / name.replace("/", "-"); shutil.rmtree(folder, ignore_errors=True); folder.mkdir(parents=True)
    try: (folder / "answers.json").write_text(json.dumps(make(folder), ensure_ascii=False, indent=0))
    except Exception:
        import traceback; traceback.print_exc(); failed.append(name); continue
    big = [f"{p.name} {p.stat().st_size}" for p in folder.rglob("*") if p.is_file() and p.stat().st_size > 300_000]
    print(name, sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) // 1024, "kB", *big, flush=True)
if failed: sys.exit(f"failed: {failed}")
