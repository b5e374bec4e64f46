#!/usr/bin/env python3
"""A table of docs/alignment.md: retrieval trained on pairs with wrong captions, with and without `[robust]` and `[soft_targets]`.

    python benches/alignment_noisy_pairs.py MM MANIFEST FOLDER [SEEDS [EPOCHS [FRACTION …]]]

MANIFEST is that of `mm prepare --dataset tuxpaint-stamps`. A fifth of the groups is held out and stays correct; a fraction of
the other captions is permuted. Images and captions only, towers as in docs/configs/stamps-retrieval.toml. Prints recall at 1
and 10 of the held-out rows, the mean of both directions; "correct" was trained on unchanged pairs.
"""
import json, statistics, subprocess, sys
from pathlib import Path
import numpy as np
from stamp_pairs import pairs
MM, MANIFEST, FOLDER = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]); SEEDS = int(sys.argv[4]) if len(sys.argv) > 4 else 3; EPOCHS = int(sys.argv[5]) if len(sys.argv) > 5 else 120; FRACTIONS = [float(s) for s in sys.argv[6:]] or [0.2, 0.4]
FOLDER.mkdir(parents=True, exist_ok=True); rows = pairs(MANIFEST)
CONFIG = f'''
task = "retrieval"
[data]
manifest = "MANIFEST"
[data.split]
column = "split"
[loader]
batch_size = 192
[towers.image]
num_views = 3
noise_std = 0.3
projection = {{ hidden_dim = 512, dropout = 0.4 }}
encoder = {{ kind = "pretrained", path = "efficientnet-lite0" }}
[towers.text]
noise_std = 0.3
projection = {{ hidden_dim = 512, dropout = 0.4 }}
encoder = {{ kind = "pretrained", path = "all-MiniLM-L6-v2" }}
[train]
epochs = {EPOCHS}
max_grad_norm = 1.0
ema_decay = 0.99
optimizer = {{ lr = 5e-4, weight_decay = 0.1 }}
schedule = {{ warmup_ratio = 0.05 }}
'''
def train_and_evaluate(name, seed, manifest, more):
    config, run = FOLDER / f"{name}.toml", FOLDER / name
    config.write_text(CONFIG.replace("MANIFEST", str(manifest.resolve())) + more)
    subprocess.run(["rm", "-rf", run], check=True)
    subprocess.run([MM, "train", config, "--out", run, "--set", f"train.seed={seed}"], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    found = subprocess.run([MM, "eval", "--model", run, "--json"], check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout
    metrics = next(x["metrics"] for x in map(json.loads, found.splitlines()) if "metrics" in x)
    return [statistics.mean(m["value"] for m in metrics if m["id"] == f"recall_at_{k}" and "/" not in m["scope"]) for k in (1, 10)]
for fraction in FRACTIONS:
    got = {}
    for seed in range(SEEDS):
        rng = np.random.default_rng(seed); groups = sorted({r["group"] for r in rows}); held = set(rng.permutation(groups)[: len(groups) // 5].tolist())
        train = [i for i, r in enumerate(rows) if r["group"] not in held]
        wrong = rng.permutation(train)[: int(len(train) * fraction)]; caption = dict(zip(wrong.tolist(), np.roll(wrong, 1).tolist()))
        def write(name, keep):
            file = FOLDER / f"{name}.jsonl"
            file.write_text("".join(json.dumps({**r, "text": rows[caption.get(i, i) if name == "dirty" else i]["text"], "split": "test" if r["group"] in held else "train"}) + "\n" for i, r in enumerate(rows) if keep(i)))
            return file
        correct, dirty, known = write("correct", lambda i: True), write("dirty", lambda i: True), write("known", lambda i: i not in caption)
        warm = EPOCHS * 4 // 10
        for name, manifest, more in (("correct", correct, ""), ("correct, soft targets", correct, '[soft_targets]\nmodality = "text"\n'), ("dirty", dirty, ""), ("wrong pairs removed", known, ""), ("small loss", dirty, f'[robust]\nkind = "small_loss"\nnoise_rate = {fraction}\nwarmup_steps = {warm}\n'), ("relabeled", dirty, f'[robust]\nkind = "soft_labels"\nwarmup_steps = {warm}\n'), ("soft targets", dirty, '[soft_targets]\nmodality = "text"\n')):
            for k, v in zip((1, 10), train_and_evaluate("current", seed, manifest, more)): got.setdefault((name, k), []).append(v)
    for name in dict.fromkeys(n for n, _ in got):
        cells = [f"R@{k} {statistics.mean(got[name, k]):.3f} ± {statistics.stdev(got[name, k]) if SEEDS > 1 else 0:.3f}" for k in (1, 10)]
        print(f"{fraction:.0%} wrong: {name}: {', '.join(cells)}", flush=True)
