#!/usr/bin/env python3
"""The table of docs/alignment.md: every method of `mm align` on three data sets, with recall in both directions, modality gap,
hubness and time.

    python benches/alignment_table.py MM FOLDER stamps|emoji|mosi SOURCE [SEEDS]

SOURCE is the manifest of `mm prepare --dataset tuxpaint-stamps` or `emoji` (images by frozen EfficientNet-Lite0, the first
English text by frozen all-MiniLM-L6-v2; a fifth of the groups is held out), or the folder of CMU-MOSI (its text and audio
features, standardized on the training rows; its own split; labels are the opinions). Closed-form methods run once with
--reg auto; trained methods have 128 dimensions and SEEDS seeds. Requires numpy.
"""
import json, statistics, subprocess, sys
from pathlib import Path
import numpy as np
import stamp_pairs
MM, FOLDER, SET, SOURCE = sys.argv[1], Path(sys.argv[2]), sys.argv[3], Path(sys.argv[4]); SEEDS = int(sys.argv[5]) if len(sys.argv) > 5 else 3
FOLDER.mkdir(parents=True, exist_ok=True)
def mm(*a): return subprocess.run([MM, *map(str, a)], check=True, stdout=subprocess.PIPE, text=True).stdout
def pairs():
    if SET == "mosi":
        import csv
        table = list(csv.DictReader(open(SOURCE / "utterances.csv", encoding="utf-8"))); held = np.array([r["split"] == "test" for r in table])
        a, b = (np.load(SOURCE / f"{n}.npy").astype("float32") for n in ("text", "audio")); standardize = lambda x: ((x - x[~held].mean(0)) / (x[~held].std(0) + 1e-6)).clip(-10, 10)
        return standardize(a), standardize(b), np.array([int(r["label"]) for r in table]), held
    rows = stamp_pairs.pairs(SOURCE)
    file = FOLDER / f"{SET}.jsonl"; file.write_text("".join(json.dumps(r) + "\n" for r in rows))
    for suffix, model in (("a", "efficientnet-lite0"), ("b", "all-MiniLM-L6-v2")):
        if not (FOLDER / f"{SET}-{suffix}.npy").exists(): mm("embed", "--model", model, "--transparency", "blend", "--data", file, "--out", FOLDER / f"{SET}-{suffix}.npy")
    a, b = (np.load(FOLDER / f"{SET}-{s}.npy") for s in "ab"); assert len(a) == len(b) == len(rows)
    groups = sorted({r["group"] for r in rows}); held = set(np.random.default_rng(0).permutation(groups)[: len(groups) // 5].tolist()); kinds = sorted({r["kind"] or "" for r in rows})
    return a, b, np.array([kinds.index(r["kind"] or "") for r in rows]), np.array([r["group"] in held for r in rows])
a, b, labels, held = pairs(); good = np.isfinite(a).all(1) & np.isfinite(b).all(1); a, b, labels, held = a[good], b[good], labels[good].astype("int64"), held[good]
for name, x in (("a", a[~held]), ("b", b[~held]), ("y", labels[~held]), ("ta", a[held]), ("tb", b[held]), ("ty", labels[held])): np.save(FOLDER / f"{name}.npy", np.ascontiguousarray(x))
many = len(set(labels.tolist())) > 1; f = lambda n: FOLDER / f"{n}.npy"; test = int(held.sum())
print(f"{SET}: {int((~held).sum())} training pairs, {test} held out, {len(set(labels.tolist()))} labels; chance R@10 {10 / test:.3f}\n")
print("| method | a → b R@1, R@10 | b → a R@1, R@10 | mean mAP by label | centroid distance | hubness | seconds |\n| --- | --- | --- | --- | --- | --- | --- |")
TRAINED = {"info_nce", "siglip", "triplet", "cyclip", "barlow_twins", "vicreg", "deep_cca", "deep_cca_autoencoder", "info_nce_mmd", "info_nce_coral", "supcon"}
for method in [m.split()[0] for m in mm("align", "--list-methods").splitlines() if m and not m.startswith(" ")]:
    got = []
    for seed in range(SEEDS if method in TRAINED else 1):
        found = subprocess.run([MM, "align", "--method", method, *(["--dim", "128"] if method in TRAINED else []), "--seed", str(seed), *sum((["--" + n, str(f(v))] for n, v in (("a", "a"), ("b", "b"), ("labels", "y"), ("test-a", "ta"), ("test-b", "tb"), ("test-labels", "ty"), ("out-a", "pa"), ("out-b", "pb")) if many or "labels" not in n), []), "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if found.returncode: print(f"| {method} | {found.stderr.strip().splitlines()[-1]} |"); break
        r = json.loads(found.stdout.splitlines()[-1]); d = json.loads(mm("diagnose", "--a", f("pa"), "--b", f("pb"), "--json").splitlines()[-1])
        m = stamp_pairs.metrics(r); directions = ("a_to_b", "b_to_a")
        got.append((*(m[f"recall_at_{k}", w] for w in directions for k in (1, 10)), statistics.mean(m["mean_average_precision", w] for w in directions), d["centroid_distance"], statistics.mean(d["corrections"][0][w]["hubness_skewness"] for w in ("a_to_b", "b_to_a")), r["seconds"]))
    if not got: continue
    cell = lambda k: f"{statistics.mean(g[k] for g in got):.3f}" + (f" ± {statistics.stdev(g[k] for g in got):.3f}" if len(got) > 1 else "")
    print(f"| {method} | {cell(0)}, {cell(1)} | {cell(2)}, {cell(3)} | {cell(4)} | {cell(5)} | {cell(6)} | {statistics.mean(g[7] for g in got):.1f} |", flush=True)
