#!/usr/bin/env python3
"""Writes crates/mm-data/tests/fixtures/transparency: images with transparency of each kind, and what Pillow's `convert("RGB")` (NAME)
and laying them over white (NAME.white) make of them; and a progressive jpeg.

    python xtask/parity/transparency_fixtures.py     # requires pillow numpy safetensors
"""
from pathlib import Path
import numpy as np
from PIL import Image
from safetensors.numpy import save_file

fixtures = Path(__file__).resolve().parents[2] / "crates/mm-data/tests/fixtures"
out = fixtures / "transparency"; out.mkdir(exist_ok=True)
rng = np.random.default_rng(11)
noise = lambda *shape: rng.integers(0, 256, shape, dtype=np.uint8)
rgb, alpha = Image.fromarray(noise(9, 7, 3)), Image.fromarray(noise(9, 7))
rgba = rgb.copy(); rgba.putalpha(alpha)
grey = rgb.convert("L"); grey.putalpha(alpha)
palette = rgb.quantize(6)
rgba.save(out / "rgba.png"); grey.save(out / "la.png"); rgba.save(out / "rgba.webp", lossless=True, exact=True); rgba.save(out / "rgba.tiff")
palette.save(out / "palette_key.png", transparency=2); palette.save(out / "palette_alphas.png", transparency=bytes([0, 40, 80, 120, 255, 200]))
palette.save(out / "palette.gif", transparency=3)
rgb.save(out / "rgb_key.png", transparency=rgb.getpixel((0, 0))); rgb.convert("L").save(out / "grey_key.png", transparency=rgb.convert("L").getpixel((0, 0)))
tensors = {}
for file in sorted(out.iterdir()):
    image = Image.open(file)
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    tensors[file.name] = np.asarray(image.convert("RGB"))
    tensors[file.name + ".white"] = np.asarray(Image.alpha_composite(white, image.convert("RGBA")).convert("RGB"))
save_file(tensors, fixtures / "transparency.safetensors")
Image.open(fixtures / "photo.jpg").save(fixtures / "progressive.jpg", quality=90, progressive=True)
