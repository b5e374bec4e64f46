#!/usr/bin/env python3
"""PEFT and transformers load what `mm train` (task = "finetuning") leaves in a run, and answer as mm does.

    python xtask/parity/adapters.py MM OUT

OUT is a folder that reason.py filled with `adapter` (the models below it are learned from).
"""
import json, pathlib, shutil, subprocess, sys
import peft, torch, transformers as tf
from PIL import Image
torch.set_grad_enabled(False)
mm, out = pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(sys.argv[2]).resolve()
work = out / "learned"; shutil.rmtree(work, ignore_errors=True); work.mkdir()
COLOURS = {"fox": (220, 30, 20), "dog": (20, 200, 40), "cafe": (30, 40, 210)}
rows = []
for side, count in (("train", 8), ("test", 2)):
    for n in range(count):
        for name, rgb in COLOURS.items():
            file = f"{side}-{n}-{name}.png"; Image.new("RGB", (24, 24), tuple(min(255, c + 3 * n) for c in rgb)).save(work / file)
            rows.append({"id": file, "image": file, "split": side, "text": "the quick", "answer": name})
(work / "data.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
def run(*arguments):
    return [json.loads(l) for l in subprocess.run([mm, *arguments, "--json"], check=True, capture_output=True, text=True).stdout.splitlines()]
def learn(name, base, head, adapter):
    config = f'task = "finetuning"\nmodel = "{base}"\nlongest = 4\n{head}\n[data]\nmanifest = "data.jsonl"\n[data.columns]\nmodalities = {{ text = "text", image = "image" }}\n[data.split]\ncolumn = "split"\n[loader]\nbatch_size = 6\n[train]\nepochs = 8\n[train.optimizer]\nlr = 8e-3\n{adapter}'
    (work / f"{name}.toml").write_text(config); run("train", str(work / f"{name}.toml"), "--out", str(work / name))
    return work / name / "model"
ADAPTER = "[adapter]\nrank = 3\nrank_stabilized = true\n"
picture = work / "test-0-dog.png"
for kind, adapter in (("adapter", ADAPTER), ("whole", "")):
    base = out / "adapter-vilt/base"; place = learn(f"vilt-{kind}", base, 'answer = "answer"', adapter)
    if adapter:
        model = tf.ViltForQuestionAnswering.from_pretrained(base, config=tf.ViltConfig.from_pretrained(place), ignore_mismatched_sizes=True)
        model = peft.PeftModel.from_pretrained(model, place)
    else: model = tf.ViltForQuestionAnswering.from_pretrained(place)
    tok = tf.AutoTokenizer.from_pretrained(place); pre = tf.models.vilt.image_processing_pil_vilt.ViltImageProcessorPil.from_pretrained(place)
    logits = model.eval()(**tok("the quick", return_tensors="pt"), **pre(images=Image.open(picture), return_tensors="pt")).logits[0]
    names = json.loads((place / "config.json").read_text())["id2label"]
    said = {s["answer"]: s["logit"] for s in run("answer", "--model", str(place), "--image", str(picture), "--question", "the quick", "--k", "all")[0]["results"]}
    off = max(abs(float(l) - said[names[str(i)]]) for i, l in enumerate(logits)); print("vilt", kind, f"{off:.1e}"); assert off < 1e-4 and max(said, key=said.get) == "dog", said
    base = out / "adapter-gpt2/base"; place = learn(f"gpt2-{kind}", base, "", adapter)
    model = tf.VisionEncoderDecoderModel.from_pretrained(base if adapter else place)
    if adapter: model = peft.PeftModel.from_pretrained(model, place).base_model.model
    tok = tf.AutoTokenizer.from_pretrained(place); pixels = tf.ViTImageProcessorPil.from_pretrained(place)(images=Image.open(picture), return_tensors="pt")["pixel_values"]
    ids = model.eval().generate(pixel_values=pixels, max_new_tokens=6, do_sample=False); text = tok.decode(ids[0], skip_special_tokens=True)
    said = run("caption", "--model", str(place), "--image", str(picture), "--max-new-tokens", "6")[0]["text"]; print("gpt2", kind, repr(said)); assert said == text, (said, text)
