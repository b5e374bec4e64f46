#!/usr/bin/env python3
"""A table of docs/alignment.md: training on pairs with wrong captions, before and after `mm audit --clean`, and on correct pairs.

    python benches/alignment_clean_pairs.py MM MANIFEST FOLDER [SEEDS [METHOD …]]

MANIFEST is that of `mm prepare --dataset tuxpaint-stamps`; the pairs are its first images and first English captions
(FOLDER/pairs.jsonl, features a.npy and b.npy). A fifth of the groups is held out and stays correct; a fraction of the other
captions is permuted. The features are those of frozen EfficientNet-Lite0 and all-MiniLM-L6-v2. Prints recall at 10 of the
held-out rows by `mm align` (default method: cca), the mean of both directions.
"""
import json, statistics, subprocess, sys
from pathlib import Path
import numpy as np
from stamp_pairs import metrics, pairs
MM, MANIFEST, FOLDER = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]); SEEDS = int(sys.argv[4]) if len(sys.argv) > 4 else 3
FOLDER.mkdir(parents=True, exist_ok=True); rows = pairs(MANIFEST)
PAIRS = FOLDER / "pairs.jsonl"; PAIRS.write_text("".join(json.dumps(r) + "\n" for r in rows))
def mm(*a): return subprocess.run([MM, *map(str, a)], check=True, stdout=subprocess.PIPE, text=True).stdout
for side, model in (("a", "efficientnet-lite0"), ("b", "all-MiniLM-L6-v2")):
    if not (FOLDER / f"{side}.npy").exists(): mm("embed", "--model", model, "--transparency", "blend", "--data", PAIRS, "--out", FOLDER / f"{side}.npy")
A, B = (np.load(FOLDER / f"{s}.npy") for s in "ab"); assert len(A) == len(B) == len(rows)
def recall(method, seed, a, b, test):
    for name, x in (("a", A[a]), ("b", B[b]), ("ta", A[test]), ("tb", B[test])): np.save(FOLDER / f"now-{name}.npy", np.ascontiguousarray(x))
    f = lambda n: FOLDER / f"now-{n}.npy"
    r = json.loads(mm("align", "--method", method, *(["--dim", 128] if method == "info_nce" else []), "--seed", seed, "--a", f("a"), "--b", f("b"), "--test-a", f("ta"), "--test-b", f("tb"), "--json"))
    return statistics.mean(metrics(r)["recall_at_10", direction] for direction in ("a_to_b", "b_to_a"))
def auroc(scores, wrong):
    """The probability that a wrong pair has a larger score than a correct one; ties count half."""
    order = np.argsort(scores, kind="stable"); ranks = np.empty(len(scores)); ranks[order] = np.arange(1, len(scores) + 1)
    values = np.asarray(scores); wrong = np.asarray(wrong)
    for value in np.unique(values): ranks[values == value] = ranks[values == value].mean()
    n = wrong.sum(); return (ranks[wrong].sum() - n * (n + 1) / 2) / (n * (len(wrong) - n))
for share in (0.1, 0.3):
    got = {}
    for seed in range(SEEDS):
        rng = np.random.default_rng(seed); groups = sorted({r["group"] for r in rows}); held = set(rng.permutation(groups)[: len(groups) // 5])
        test = [i for i, r in enumerate(rows) if r["group"] in held]; train = [i for i, r in enumerate(rows) if r["group"] not in held]
        wrong = rng.permutation(train)[: int(len(train) * share)]; caption = {i: i for i in train}; caption.update(zip(wrong.tolist(), np.roll(wrong, 1).tolist()))
        dirty, clean = FOLDER / "dirty.jsonl", FOLDER / "clean.jsonl"
        dirty.write_text("".join(json.dumps({"id": str(i), "group": rows[i]["group"], "image": rows[i]["image"], "text": rows[caption[i]]["text"]}) + "\n" for i in train))
        mm("audit", "--data", dirty, "--model", "efficientnet-lite0", "--model", "all-MiniLM-L6-v2", "--transparency", "blend", "--group-column", "group", "--remove-fraction", share, "--clean", clean, "--out", FOLDER / "scores.jsonl")
        scores = [json.loads(l) for l in (FOLDER / "scores.jsonl").read_text().splitlines()]
        for name, sign in (("mismatch", 1), ("similarity", -1), ("loss", 1), ("neighborhood", -1)):
            got.setdefault(f"AUROC of {name}", []).append(auroc([sign * s[name] for s in scores], [int(s["id"]) in set(wrong.tolist()) for s in scores]))
        kept = [int(json.loads(l)["id"]) for l in clean.read_text().splitlines()]; bad = set(wrong.tolist())
        got.setdefault("wrong pairs remaining", []).append(len(bad & set(kept)) / len(kept)); got.setdefault("rows kept", []).append(len(kept) / len(train))
        for method in sys.argv[5:] or ("cca",):
            for name, a in (("correct", train), ("dirty", train), ("cleaned", kept), ("wrong ones known", [i for i in train if i not in bad])):
                b = a if name == "correct" else [caption[i] for i in a]
                got.setdefault(f"{method}, {name}", []).append(recall(method, seed, a, b, test))
    for name, v in got.items(): print(f"{share:.0%} wrong: {name}: {statistics.mean(v):.3f} ± {statistics.stdev(v) if len(v) > 1 else 0:.3f}", flush=True)
