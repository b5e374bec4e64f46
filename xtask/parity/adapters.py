#!/usr/bin/env python3
"""Checks that PEFT and transformers load the checkpoints of `mm train` (task = "finetuning"), with the same outputs as mm.

    python xtask/parity/adapters.py MM OUT

OUT is a folder into which reason.py wrote the family `adapter`; its base models are fine-tuned.
"""
import json, pathlib, shutil, subprocess, sys
import peft, torch, transformers as tf
from PIL import Image
torch.set_grad_enabled(False)
mm, out = pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(sys.argv[2]).resolve()
work = out / "finetuned"; shutil.rmtree(work, ignore_errors=True); work.mkdir()
COLORS = {"fox": (220, 30, 20), "dog": (20, 200, 40), "cafe": (30, 40, 210)}
rows = []
for split, count in (("train", 8), ("test", 2)):
    for n in range(count):
        for name, rgb in COLORS.items():
            file = f"{split}-{n}-{name}.png"; Image.new("RGB", (24, 24), tuple(min(255, c + 3 * n) for c in rgb)).save(work / file)
            rows.append({"id": file, "image": file, "split": split, "text": "the quick", "answer": name})
(work / "data.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
def run(*arguments):
    return [json.loads(l) for l in subprocess.run([mm, *arguments, "--json"], check=True, capture_output=True, text=True).stdout.splitlines()]
def finetune(name, base, head, adapter):
    config = f'task = "finetuning"\nmodel = "{base}"\nmax_length = 4\n{head}\n[data]\nmanifest = "data.jsonl"\n[data.columns]\nmodalities = {{ text = "text", image = "image" }}\n[data.split]\ncolumn = "split"\n[loader]\nbatch_size = 6\n[train]\nepochs = 8\n[train.optimizer]\nlr = 8e-3\n{adapter}'
    (work / f"{name}.toml").write_text(config); run("train", str(work / f"{name}.toml"), "--out", str(work / name))
    return work / name / "model"
ADAPTER = "[adapter]\nrank = 3\nuse_rslora = true\n"
image = work / "test-0-dog.png"
for kind, adapter in (("adapter", ADAPTER), ("full", "")):
    base = out / "adapter-vilt/base"; checkpoint = finetune(f"vilt-{kind}", base, 'answer_column = "answer"', adapter)
    if adapter:
        model = tf.ViltForQuestionAnswering.from_pretrained(base, config=tf.ViltConfig.from_pretrained(checkpoint), ignore_mismatched_sizes=True)
        model = peft.PeftModel.from_pretrained(model, checkpoint)
    else: model = tf.ViltForQuestionAnswering.from_pretrained(checkpoint)
    tok = tf.AutoTokenizer.from_pretrained(checkpoint); pre = tf.models.vilt.image_processing_pil_vilt.ViltImageProcessorPil.from_pretrained(checkpoint)
    logits = model.eval()(**tok("the quick", return_tensors="pt"), **pre(images=Image.open(image), return_tensors="pt")).logits[0]
    names = json.loads((checkpoint / "config.json").read_text())["id2label"]
    found = {s["answer"]: s["logit"] for s in run("answer", "--model", str(checkpoint), "--image", str(image), "--question", "the quick", "--k", "all")[0]["results"]}
    difference = max(abs(float(l) - found[names[str(i)]]) for i, l in enumerate(logits)); print("vilt", kind, f"{difference:.1e}"); assert difference < 1e-4 and max(found, key=found.get) == "dog", found
    base = out / "adapter-gpt2/base"; checkpoint = finetune(f"gpt2-{kind}", base, "", adapter)
    model = tf.VisionEncoderDecoderModel.from_pretrained(base if adapter else checkpoint)
    if adapter: model = peft.PeftModel.from_pretrained(model, checkpoint).base_model.model
    tok = tf.AutoTokenizer.from_pretrained(checkpoint); pixels = tf.ViTImageProcessorPil.from_pretrained(checkpoint)(images=Image.open(image), return_tensors="pt")["pixel_values"]
    ids = model.eval().generate(pixel_values=pixels, max_new_tokens=6, do_sample=False); text = tok.decode(ids[0], skip_special_tokens=True)
    found = run("caption", "--model", str(checkpoint), "--image", str(image), "--max-new-tokens", "6")[0]["text"]; print("gpt2", kind, repr(found)); assert found == text, (found, text)
