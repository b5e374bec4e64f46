#!/usr/bin/env python3
"""Images per second of mm's loader and of a PyTorch DataLoader with PIL, torchvision and two workers: the same 640x480 jpegs, the
same resize, crop and normalization, batches of 64. The two alternate for three rounds; the best of three epochs of each counts.

    cargo xtask bench loader
"""
import json, subprocess, sys, tempfile, time
from pathlib import Path
import numpy as np, torch
from PIL import Image
from torchvision import transforms as T

class Files(torch.utils.data.Dataset):
    def __init__(self, files):
        self.files = files
        self.transform = T.Compose([T.Resize(256), T.CenterCrop(224), T.ToTensor(), T.Normalize([0.5] * 3, [0.5] * 3)])
    def __len__(self): return len(self.files)
    def __getitem__(self, i): return self.transform(Image.open(self.files[i]).convert("RGB"))

def peer(files, epochs):
    loader = torch.utils.data.DataLoader(Files(files), batch_size=64, num_workers=2, shuffle=True, persistent_workers=True)
    best = 0.0
    for _ in range(epochs):
        start = time.perf_counter(); seen = 0
        for batch in loader: seen += len(batch)
        best = max(best, seen / (time.perf_counter() - start))
    return best

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder); rng = np.random.default_rng(0); files = []
        for i in range(512):
            y, x = np.mgrid[0:480, 0:640]
            a = np.stack([127 + 100 * np.sin(x / (9 + i % 40) + c) * np.cos(y / (11 + c)) for c in range(3)], -1) + rng.normal(0, 8, (480, 640, 3))
            files.append(folder / f"{i:04}.jpg"); Image.fromarray(np.clip(a, 0, 255).astype("uint8")).save(files[-1], quality=90)
        manifest = folder / "m.jsonl"; manifest.write_text("".join(json.dumps({"id": str(i), "image": str(f)}) + "\n" for i, f in enumerate(files)))
        ours, theirs = [], []
        for _ in range(3):
            ours.append(float(subprocess.run([sys.argv[1], manifest, "3"], check=True, capture_output=True, text=True).stdout))
            theirs.append(peer(files, 3))
        print(f"mm {max(ours):.0f} images/s, PyTorch DataLoader {max(theirs):.0f} images/s: {sorted(ours)[1] / sorted(theirs)[1]:.2f}x (medians of three rounds)")
