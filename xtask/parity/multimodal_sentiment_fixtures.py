#!/usr/bin/env python3
"""Writes small files in the formats in which multimodal sentiment data sets are published, and the rows expected from them.

    python xtask/parity/multimodal_sentiment_fixtures.py     # requires numpy h5py
"""
import json, pickle
from pathlib import Path
import h5py, numpy as np
out = Path(__file__).resolve().parents[2] / "crates/mm-data/tests/fixtures/multimodal_sentiment"; out.mkdir(parents=True, exist_ok=True)
rng = np.random.default_rng(3); expected = {}
WIDTHS = {"text": 5, "audio": 3, "vision": 2}
rounded = lambda a: [[round(float(v), 5) for v in step] for step in a]

# MMSA: zero padding after the steps; stated lengths except for text; labels of each modality (CH-SIMS).
def mmsa(protocol, name, order=">"):
    splits = {}
    for split, rows in (("train", 4), ("valid", 2), ("test", 3)):
        lengths = rng.integers(1, 7, rows); arrays = {}
        for key, width in WIDTHS.items():
            a = np.zeros((rows, 7, width), "f4" if key != "audio" else order + "f8")
            for r, n in enumerate(lengths): a[r, :n] = rng.normal(size=(n, width)) + 3
            if key == "vision": a = np.asfortranarray(a)
            arrays[key] = a
        arrays["audio_lengths"] = lengths.tolist(); arrays["vision_lengths"] = lengths
        arrays["raw_text"] = np.array([f"an opinion, número {r}" for r in range(rows)]); arrays["id"] = [f"{split}{r // 2}$_${r}" for r in range(rows)]
        arrays["annotations"] = ["Positive"] * rows
        for suffix in ("", "_T", "_A", "_V"): arrays["regression_labels" + suffix] = rng.normal(size=rows).astype("f4")
        splits[split] = arrays
    (out / name).write_bytes(pickle.dumps(splits, protocol=protocol))
    expected[name] = [
        {"id": s["id"][r], "video": s["id"][r].split("$_$")[0], "segment": r, "split": split, "text": str(s["raw_text"][r]), "label": float(s["regression_labels"][r]), "label_text": float(s["regression_labels_T"][r]),
         "words": rounded(s["text"][r][: lengths_of(s["text"][r])]), "voice": rounded(s["audio"][r][: s["audio_lengths"][r]]), "face": rounded(s["vision"][r][: s["vision_lengths"][r]])}
        for split, s in splits.items() for r in range(len(s["id"]))]
def lengths_of(a): return int(np.flatnonzero(a.any(1)).max()) + 1
mmsa(4, "mmsa.pkl"); mmsa(2, "mmsa-old.pkl", "<"); mmsa(5, "mmsa-new.pkl")

# MultiBench: zero padding before the steps; labels [rows, 1, 1]; ids in lists.
arrays = {}
for split, rows in (("train", 3), ("valid", 1), ("test", 2)):
    lengths = rng.integers(1, 5, rows); s = {}
    for key, width in WIDTHS.items():
        a = np.zeros((rows, 6, width), "f4")
        for r, n in enumerate(lengths): a[r, 6 - n:] = rng.normal(size=(n, width)) + 3
        s[key] = a
    s["audio"][0, -1, 0] = -np.inf
    s["labels"] = rng.normal(size=(rows, 1, 1)).astype("f4"); s["id"] = [[f"{split}{r}[{r + 2}]", 0.0, 1.0] for r in range(rows)]
    arrays[split] = s
(out / "multibench.pkl").write_bytes(pickle.dumps(arrays, protocol=4))
plain = lambda a: [[0.0 if np.isinf(v) else round(float(v), 5) for v in step] for step in a if step.any()]
expected["multibench.pkl"] = [{"id": s["id"][r][0], "video": f"{split}{r}", "segment": r + 2, "split": split, "label": float(s["labels"][r, 0, 0]), "words": plain(s["text"][r]), "voice": plain(s["audio"][r]), "face": plain(s["vision"][r])} for split, s in arrays.items() for r in range(len(s["id"]))]

# Computational sequences: two videos, labeled intervals, words, and frames at their own rates.
folder = out / "csd"; folder.mkdir(exist_ok=True); videos = {"aa": [(0.0, 2.0), (2.5, 4.0)], "bb-_c": [(1.0, 3.0)]}
def sequence(file, name, frames):
    with h5py.File(folder / file, "w") as h:
        root = h.create_group(name); root.create_group("metadata").create_dataset("root name", data=name); data = root.create_group("data")
        for video, (times, values) in frames.items():
            g = data.create_group(video); g.create_dataset("features", data=values); g.create_dataset("intervals", data=np.array(times, "f8"))
labels = {v: (t, rng.normal(size=(len(t), 7)).astype("f4")) for v, t in videos.items()}
def steps(width, rate, kind): return {v: ([(i / rate, (i + 1) / rate) for i in range(int(4.5 * rate))], rng.normal(size=(int(4.5 * rate), width)).astype(kind)) for v in videos}
voice, face = steps(4, 4, "f8"), steps(3, 3, "f4"); face.pop("bb-_c")
spoken = {v: ([(i * 0.5, i * 0.5 + 0.4) for i in range(8)], np.array([["sp" if i == 3 else f"w{i}"] for i in range(8)], "S8")) for v in videos}
sequence("labels.csd", "Opinion Segment Labels", labels); sequence("covarep.csd", "COVAREP", voice); sequence("facet.csd", "FACET 4.2", face); sequence("words.csd", "words", spoken)
over = lambda frames, t: [i for i, (a, b) in enumerate(frames) if a < t[1] and b > t[0]]
rows = []
for v, intervals in videos.items():
    for n, t in enumerate(intervals):
        row = {"id": f"{v}[{n}]" if len(intervals) > 1 else v, "video": v, "segment": t[0], "label": float(labels[v][1][n, 0]), "happy": float(labels[v][1][n, 1]),
               "text": " ".join(spoken[v][1][i, 0].decode() for i in over(spoken[v][0], t) if i != 3), "voice": rounded(voice[v][1][over(voice[v][0], t)])}
        if v in face: row["face"] = rounded(face[v][1][over(face[v][0], t)])
        rows.append(row)
expected["csd"] = rows

# MFN's arrays.
folder = out / "h5"; folder.mkdir(exist_ok=True); rows = []
for split, n in (("train", 3), ("test", 2)):
    x, y = np.zeros((n, 4, 6)), rng.normal(size=n)
    for r in range(n): x[r, r % 3:] = rng.normal(size=(4 - r % 3, 6)) + 3
    for name, data in (("X", x), ("y", y)):
        with h5py.File(folder / f"{name}_{split}.h5", "w") as h: h.create_dataset("data", data=data, **({"compression": "gzip"} if name == "X" else {}))
    rows += [{"id": f"{split}-{r}", "split": split, "label": float(np.float32(y[r])), "frames": rounded([s for s in x[r] if s.any()])} for r in range(n)]
expected["h5"] = rows

# A pickle that would execute code.
class Malicious:
    def __reduce__(self): return (print, ("executed",))
(out / "evil.pkl").write_bytes(pickle.dumps({"train": Malicious()}))
(out / "expected.json").write_text(json.dumps(expected, ensure_ascii=False))
