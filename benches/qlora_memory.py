#!/usr/bin/env python3
"""A table of docs/tasks.md: peak memory and speed of training LoRA adapters on 4-bit weights (QLoRA) and on full weights.

    python benches/qlora_memory.py MM FOLDER

Creates a LLaVA of 0.7 billion random parameters in FOLDER. Requires torch, transformers, tokenizers, numpy and pillow.
"""
import json, os, pathlib, re, resource, subprocess, sys
import numpy as np, torch, transformers as tf
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers
tf.logging.set_verbosity_error(); torch.manual_seed(0); rng = np.random.default_rng(0)
mm, folder = pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(sys.argv[2]); folder.mkdir(parents=True, exist_ok=True); base = folder / "llava"
if not (base / "model.safetensors").exists():
    words = ["<pad>", "<unk>", "<s>", "</s>", "<image>"] + [f"w{i}" for i in range(31995)]
    t = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>")); t.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tok = tf.PreTrainedTokenizerFast(tokenizer_object=t, pad_token="<pad>", unk_token="<unk>", bos_token="<s>", eos_token="</s>", additional_special_tokens=["<image>"]); tok.save_pretrained(base)
    vision = tf.CLIPVisionConfig(hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16, image_size=224, patch_size=14, projection_dim=768)
    text = tf.Qwen2Config(vocab_size=32000, hidden_size=896, intermediate_size=4864, num_hidden_layers=24, num_attention_heads=14, num_key_value_heads=2)
    model = tf.LlavaForConditionalGeneration(tf.LlavaConfig(vision_config=vision, text_config=text, image_token_index=4, image_seq_length=256)); model.generation_config.eos_token_id = 3; model.save_pretrained(base, max_shard_size="20GB")
    json.dump({"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 224}, "crop_size": {"height": 224, "width": 224}, "do_resize": True, "do_center_crop": True, "do_normalize": True, "do_rescale": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "resample": 3}, open(base / "preprocessor_config.json", "w"))
    for n in range(16): Image.fromarray(rng.integers(0, 255, (224, 224, 3), dtype=np.uint8)).save(folder / f"{n}.png")
    (folder / "data.jsonl").write_text("".join(json.dumps({"image": f"{n}.png", "text": "w1 w2 w3", "answer": f"w{n % 4}", "split": "train" if n < 12 else "test"}) + "\n" for n in range(16)))
for name, more in (("full weights", ""), ("nf4", 'quantize = "nf4"\n')):
    run = folder / name.replace(" ", "-"); subprocess.run(["rm", "-rf", run]); config = folder / f"{run.name}.toml"
    config.write_text(f'task = "finetuning"\nmodel = "llava"\nanswer_column = "answer"\nmax_length = 4\n[adapter]\nrank = 8\n{more}[data]\nmanifest = "data.jsonl"\n[data.columns]\nmodalities = {{ text = "text", image = "image" }}\n[data.split]\ncolumn = "split"\n[loader]\nbatch_size = 1\n[train]\nepochs = 1\nlog_every_steps = 4\nsave_every_steps = 0\n[train.optimizer]\nlr = 1e-4\n')
    child = subprocess.Popen([mm, "train", config, "--out", run], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True); log = child.stderr.read(); _, status, used = os.wait4(child.pid, 0)
    if status: sys.exit(log)
    lines = [json.loads(l) for l in open(run / "metrics.jsonl")]; last = [l["values"] for l in lines if l["split"] == "train"][-1]
    print(f"{name}: peak {used.ru_maxrss / 1e6:.2f} GB, {last['samples_per_second']:.2f} rows/s, loss {last['loss']:.3f}; weights {os.path.getsize(base / 'model.safetensors') / 1e9:.2f} GB in float32", flush=True)
