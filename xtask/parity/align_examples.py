#!/usr/bin/env python3
"""Writes the data of mm-align's examples, small enough to be committed, from Tux Paint's stamps.

    python xtask/parity/align_examples.py FOLDER OUT.safetensors

FOLDER is that of benches/alignment_clean_pairs.py: pairs and their features, reduced to 64 principal components. Spoken words:
twelve cepstral coefficients of 16 clips, four words in four languages.
"""
import json, sys
from pathlib import Path
import numpy as np, soundfile, torch, torchaudio
from safetensors.numpy import save_file
folder, out = Path(sys.argv[1]), sys.argv[2]
rows = [json.loads(l) for l in open(folder / "pairs.jsonl")]
seen, keep = set(), []
for i, r in enumerate(rows):  # one row per group
    if r["group"] not in seen: seen.add(r["group"]); keep.append(i)
keep = np.random.default_rng(0).permutation(keep); kinds = sorted({r["kind"] for r in rows})
def components(file):
    x = np.load(file)[keep].astype("float64"); x -= x.mean(0); u, s, _ = np.linalg.svd(x, full_matrices=False); x = u[:, :64] * s[:64]
    return (x / np.abs(x).max()).astype("float16")
tensors = {"images": components(folder / "a.npy"), "captions": components(folder / "b.npy"), "kinds": np.array([kinds.index(rows[i]["kind"]) for i in keep], dtype="int64")}
stamps = Path.home() / ".cache/mm/data/tuxpaint-stamps/usr/share/tuxpaint/stamps"
words = {"zebra": "animals/mammals/equines/zebra", "tiger": "animals/mammals/cats/tiger", "banana": "food/fruit/banana", "guitar": "hobbies/music/string/guitar2"}
cepstrum = torchaudio.transforms.MFCC(16000, 13, melkwargs=dict(n_fft=512, hop_length=320, n_mels=40))
for word, file in words.items():
    for language in ("be", "es", "fr", "ru"):
        audio, rate = soundfile.read(stamps / f"{file}_desc_{language}.ogg"); audio = audio.mean(1) if audio.ndim > 1 else audio
        x = torchaudio.functional.resample(torch.tensor(audio, dtype=torch.float32), rate, 16000)
        loud = x.abs() > 0.05 * x.abs().max(); x = x[int(loud.nonzero()[0]) : int(loud.nonzero()[-1])]  # without the silence around it
        m = cepstrum(x).T[:, 1:]; m = (m - m.mean(0)) / m.std(0)
        tensors[f"{word}.{language}"] = m.numpy().astype("float16")
save_file(tensors, out, metadata={"kinds": json.dumps(kinds), "source": "Debian tuxpaint-stamps-default; xtask/parity/align_examples.py"})
