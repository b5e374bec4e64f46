#!/usr/bin/env python3
"""Writes a small, randomly initialized ViLT or BLIP with the vocabulary of a manifest, to be trained by `task = "finetuning"`.

    python xtask/parity/tiny.py vilt|blip MANIFEST OUT [--seed N]
"""
import argparse, json, pathlib
import torch, transformers as tf
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
p = argparse.ArgumentParser(); p.add_argument("kind", choices=["vilt", "blip"]); p.add_argument("manifest"); p.add_argument("out", type=pathlib.Path); p.add_argument("--seed", type=int, default=0)
args = p.parse_args(); torch.manual_seed(args.seed); words = set()
for line in open(args.manifest):
    row = json.loads(line); split = pre_tokenizers.BertPreTokenizer().pre_tokenize_str(f"{row['text']} {row['label']}".lower()); words |= {w for w, _ in split}
special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]"]; vocab = {w: i for i, w in enumerate(special + sorted(words))}
t = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]")); t.normalizer = normalizers.BertNormalizer(lowercase=True); t.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
t.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
tok = tf.PreTrainedTokenizerFast(tokenizer_object=t, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]", mask_token="[MASK]")
common = dict(hidden_size=96, num_hidden_layers=4, num_attention_heads=4, intermediate_size=192)
if args.kind == "vilt":
    model = tf.ViltForQuestionAnswering(tf.ViltConfig(vocab_size=len(vocab), max_position_embeddings=24, image_size=64, patch_size=8, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, **common))
    pre = tf.models.vilt.image_processing_pil_vilt.ViltImageProcessorPil(size={"shortest_edge": 64}, size_divisor=8)
else:
    text = dict(vocab_size=len(vocab), max_position_embeddings=24, bos_token_id=vocab["[DEC]"], sep_token_id=3, pad_token_id=0, eos_token_id=3, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, **{**common, "num_hidden_layers": 2})
    model = tf.BlipForQuestionAnswering(tf.BlipConfig(text_config=text, vision_config=dict(image_size=64, patch_size=8, **common)))
    torch.nn.init.normal_(model.vision_model.embeddings.position_embedding, std=0.02); torch.nn.init.normal_(model.vision_model.embeddings.patch_embedding.weight, std=0.05)
    for part in model.vision_model.encoder.layers.parameters():
        if part.ndim > 1: torch.nn.init.normal_(part, std=0.05)
    pre = tf.models.blip.image_processing_pil_blip.BlipImageProcessorPil(size={"height": 64, "width": 64})
for part in (tok, pre, model): part.save_pretrained(args.out)
print(f"{args.out}: {sum(x.numel() for x in model.parameters())} parameters, {len(vocab)} words")
