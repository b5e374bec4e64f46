#!/usr/bin/env python3
"""A table of docs/retrieval.md: recall of a retrieval run among fewer candidates, for comparison with results on smaller galleries.

    python benches/retrieval_fewer_candidates.py MM RUN MANIFEST IDS COUNT [SAMPLES]

IDS is a file with the ids of the held-out rows, one per line, of which each of SAMPLES random subsets has COUNT. Uses the first
image and text of each row, and all its speech recordings. Prints the mean over the subsets. Requires numpy.
"""
import json, subprocess, sys, tempfile
from pathlib import Path
import numpy as np
MM, RUN, MANIFEST, IDS, COUNT = *sys.argv[1:5], int(sys.argv[5]); SAMPLES = int(sys.argv[6]) if len(sys.argv) > 6 else 200
held = Path(IDS).read_text().split(); folder = Path(tempfile.mkdtemp()); rows = [r for r in map(json.loads, Path(MANIFEST).read_text().splitlines()) if r["id"] in set(held)]
for r in rows: r["text"] = [t for t in r["text"] if t["language"] == "en"][:1]; r["image"] = r["image"][:1]
file = folder / "held.jsonl"; file.write_text("".join(json.dumps(r) + "\n" for r in rows)); vectors, owners = {}, {}
for m in ("audio", "image", "text"):
    subprocess.run([MM, "embed", "--model", RUN, "--data", file, "--modality", m, "--out", folder / f"{m}.npy"], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    vectors[m] = np.load(folder / f"{m}.npy"); owners[m] = np.array([json.loads(l)["id"] for l in (folder / f"{m}.rows.jsonl").read_text().splitlines()]); assert len(vectors[m]) == len(owners[m])
rng = np.random.default_rng(0); all_ids = np.array(sorted({r["id"] for r in rows})); subsets = [set(rng.choice(all_ids, COUNT, replace=False).tolist()) for _ in range(SAMPLES)]
for a, b in (("image", "text"), ("text", "image"), ("audio", "text"), ("audio", "image")):
    scores = vectors[a] @ vectors[b].T; own = owners[a][:, None] == owners[b][None]; got = []
    for subset in subsets:
        q, g = (np.array([i for i, o in enumerate(owners[m]) if o in subset]) for m in (a, b)); s, right = scores[np.ix_(q, g)], own[np.ix_(q, g)]; there = right.any(1); s, right = s[there], right[there]
        best = np.where(right, s, -9).max(1)[:, None]
        # Equal captions tie, so their order is random.
        before, tied = (s > best).sum(1), (s == best).sum(1); got.append([np.clip((k - before) / tied, 0, 1).mean() for k in (1, 10)] + [len(g)])
    one, ten, count = np.mean(got, 0); print(f"{a} -> {b}: R@1 {one:.3f}, R@10 {ten:.3f} among {count:.0f} on average")
