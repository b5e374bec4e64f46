#!/usr/bin/env python3
"""Images per second of mm's loader and of a PyTorch DataLoader with PIL, torchvision and two workers: the same 640x480 jpegs, the
same resize, crop and normalization, batches of 64. Then the same images in WebDataset shards, which an HTTP server of this machine sends: mm
against webdataset with a DataLoader of two workers (mm copies the shards when it opens them; webdataset downloads them in each epoch). The two
alternate for three rounds of three epochs; the first epoch counts with all that comes before it (opening, copying, starting workers), and the
best one by itself.

    cargo xtask bench loader
"""
import functools, http.server, json, subprocess, sys, tarfile, tempfile, threading, time
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

def rates(loader, epochs, count, opened):
    """Images a second of the best epoch, and of the first one since `opened`."""
    best = first = 0.0
    for epoch in range(epochs):
        start = time.perf_counter(); seen = sum(len(batch) for batch in loader); end = time.perf_counter()
        assert seen == count, f"read {seen} of {count} images"
        best = max(best, seen / (end - start))
        if epoch == 0: first = seen / (end - opened)
    return best, first

def peer(files, epochs):
    opened = time.perf_counter()
    loader = torch.utils.data.DataLoader(Files(files), batch_size=64, num_workers=2, shuffle=True, persistent_workers=True)
    return rates(loader, epochs, len(files), opened)

def peer_shards(pattern, count, epochs):
    import webdataset
    opened = time.perf_counter()
    transform = Files([]).transform
    data = webdataset.WebDataset(pattern, shardshuffle=8, nodesplitter=webdataset.split_by_node).shuffle(1000).decode("pil").to_tuple("jpg")
    data = data.map_tuple(transform).batched(64, collation_fn=lambda rows: torch.stack([row[0] for row in rows]))
    loader = webdataset.WebLoader(data, batch_size=None, num_workers=2, persistent_workers=True)
    return rates(loader, epochs, count, opened)

class Quiet(http.server.SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *_): pass

def compare(name, peer_name, ours, theirs):
    measured = [(ours(), theirs()) for _ in range(3)]
    for which, epoch in enumerate(["best epoch", "first epoch"]):
        ours, theirs = (sorted(rates[which] for rates in side)[1] for side in zip(*measured))
        print(f"{name}, {epoch}: mm {ours:.0f} images/s, {peer_name} {theirs:.0f} images/s: {ours / theirs:.2f}x (medians of three rounds)", flush=True)

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder); rng = np.random.default_rng(0); files = []
        for i in range(512):
            y, x = np.mgrid[0:480, 0:640]
            a = np.stack([127 + 100 * np.sin(x / (9 + i % 40) + c) * np.cos(y / (11 + c)) for c in range(3)], -1) + rng.normal(0, 8, (480, 640, 3))
            files.append(folder / f"{i:04}.jpg"); Image.fromarray(np.clip(a, 0, 255).astype("uint8")).save(files[-1], quality=90)
        manifest = folder / "m.jsonl"; manifest.write_text("".join(json.dumps({"id": str(i), "image": str(f)}) + "\n" for i, f in enumerate(files)))
        mm = lambda data: tuple(map(float, subprocess.run([sys.argv[1], data, "3"], check=True, capture_output=True, text=True).stdout.split()))
        compare("files", "PyTorch DataLoader", lambda: mm(manifest), lambda: peer(files, 3))
        shards = folder / "shards"; shards.mkdir()
        for start in range(0, len(files), 64):
            with tarfile.open(shards / f"s-{start // 64:06}.tar", "w") as tar:
                for file in files[start:start + 64]: tar.add(file, file.name)
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=shards))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        pattern = f"http://127.0.0.1:{server.server_port}/s-{{000000..{len(files) // 64 - 1:06}}}.tar"
        compare("shards over HTTP", "webdataset + DataLoader", lambda: mm(pattern), lambda: peer_shards(pattern, len(files), 3))
