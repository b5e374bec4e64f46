#!/usr/bin/env python3
"""mm against PyTorch on a GPU, with the same checkpoints (random weights at published sizes), alternating.

    python benches/gpu.py FORWARD GENERATE FOLDER [ROUNDS]

FORWARD and GENERATE are binaries of this crate, with torch's lib folder in LD_LIBRARY_PATH. PyTorch runs eagerly, as
transformers does, without gradients. Prints the median of the rounds (default three). `channels last` is PyTorch with the
memory format that mm uses.
"""
import json, os, statistics, subprocess, sys, time, warnings
from pathlib import Path
warnings.filterwarnings("ignore")
import torch, transformers as tf
tf.logging.set_verbosity_error(); torch.set_grad_enabled(False); torch.manual_seed(0)
FORWARD, GENERATE, cache = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]); cache.mkdir(parents=True, exist_ok=True)
ROUNDS = int(sys.argv[4]) if len(sys.argv) > 4 else 3
GPU = torch.cuda.get_device_name(); print(GPU, torch.__version__, flush=True)

def best(f, n, k=7, times=20):
    f(); torch.cuda.synchronize(); t = []
    for _ in range(k):
        s = time.perf_counter(); [f() for _ in range(times)]; torch.cuda.synchronize(); t.append((time.perf_counter() - s) / times)
    return n / sorted(t)[k // 2]
def ours(program, *a): return float(subprocess.run([program, *map(str, a)], check=True, stdout=subprocess.PIPE, text=True, env={**os.environ, "DEVICE": "cuda"}).stdout)
def duel(title, rows):
    got = {name: [] for name in rows}
    for _ in range(ROUNDS):
        for name, f in rows.items(): got[name].append(f())
    m = {name: statistics.median(v) for name, v in got.items()}
    print(f"{title}: " + ", ".join(f"{n} {v:.1f}" for n, v in m.items()) + f"; mm/PyTorch {m['mm'] / max(v for n, v in m.items() if n != 'mm'):.2f}", flush=True)

def words(folder, size, mark="[PAD]"):
    from tokenizers import Tokenizer, models, pre_tokenizers
    names = [mark, "[UNK]", "[CLS]", "[SEP]"]; t = Tokenizer(models.WordLevel({w: i for i, w in enumerate(names + [f"w{i}" for i in range(size - 4)])}, unk_token="[UNK]")); t.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tf.PreTrainedTokenizerFast(tokenizer_object=t, pad_token=mark, eos_token="[SEP]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]").save_pretrained(folder)
def image(folder, **more): json.dump({"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 224}, "crop_size": {"height": 224, "width": 224}, "do_resize": True, "do_center_crop": True, "do_normalize": True, "do_rescale": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "resample": 3, **more}, open(folder / "preprocessor_config.json", "w"))
def folder(name): f = cache / name; f.mkdir(exist_ok=True); return f
f = folder("clip"); tf.CLIPModel(tf.CLIPConfig()).save_pretrained(f); image(f); words(f, 49408)
f = folder("resnet50"); tf.ResNetForImageClassification(tf.ResNetConfig()).save_pretrained(f); image(f, image_processor_type="ConvNextImageProcessor", crop_pct=0.875)
f = folder("minilm"); tf.BertModel(tf.BertConfig(hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536)).save_pretrained(f); words(f, 30522)

for dt, dtype in (("f32", torch.float32), ("bf16", torch.bfloat16), ("f16", torch.float16)):
    for n in (16, 256):
        x = torch.randn(n, 3, 224, 224, device="cuda", dtype=dtype); xl = x.to(memory_format=torch.channels_last)
        m = tf.CLIPVisionModelWithProjection.from_pretrained(cache / "clip", attn_implementation="sdpa").eval().cuda().to(dtype)
        duel(f"CLIP ViT-B/32 vision, batch {n}, {dt}", {"mm": lambda: ours(FORWARD, cache / "clip", "image", n, dt), "PyTorch": lambda: best(lambda: m(pixel_values=x), n)})
        r = tf.ResNetForImageClassification.from_pretrained(cache / "resnet50").eval().cuda().to(dtype); import copy; rl = copy.deepcopy(r).to(memory_format=torch.channels_last)
        duel(f"ResNet-50, batch {n}, {dt}", {"mm": lambda: ours(FORWARD, cache / "resnet50", "image", n, dt), "PyTorch": lambda: best(lambda: r(pixel_values=x), n), "channels last": lambda: best(lambda: rl(pixel_values=xl), n)})
    for n in (32, 1024):
        b = tf.AutoModel.from_pretrained(cache / "minilm", attn_implementation="sdpa").eval().cuda().to(dtype); ids = torch.randint(1000, 20000, (n, 48), device="cuda"); mask = torch.ones_like(ids)
        duel(f"all-MiniLM-L6's shape, {n} x 48 tokens, {dt}", {"mm": lambda: ours(FORWARD, cache / "minilm", "text", n, dt), "PyTorch": lambda: best(lambda: b(input_ids=ids, attention_mask=mask), n)})

f = folder("blip"); tf.BlipForConditionalGeneration(tf.BlipConfig(text_config=dict(num_attention_heads=12, bos_token_id=2, sep_token_id=3, pad_token_id=0))).save_pretrained(f); image(f, image_processor_type="BlipImageProcessor", size={"height": 384, "width": 384}, do_center_crop=False); words(f, 30524)
from PIL import Image; Image.effect_noise((640, 480), 90).convert("RGB").save(cache / "noise.png")
bm = tf.BlipForConditionalGeneration.from_pretrained(f).eval().cuda(); pixels = torch.randn(1, 3, 384, 384, device="cuda")
for beams in (1, 5): duel(f"BLIP-base caption of 20 tokens, {beams} beams, f32, tokens/s (mm also decodes the image file)", {"mm": lambda: ours(GENERATE, f, "caption", cache / "noise.png", beams, 20, "f32"), "PyTorch": lambda: best(lambda: bm.generate(pixel_values=pixels, num_beams=beams, max_new_tokens=20, min_new_tokens=20), 20, 3, 1)})
