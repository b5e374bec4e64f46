#!/usr/bin/env python3
"""Writes mm-data's fixtures: the outputs of Pillow, torchvision, librosa, Kaldi (torchaudio) and Whisper (transformers).

    python xtask/parity/data_fixtures.py     # requires pillow numpy torch torchvision torchaudio librosa transformers safetensors soundfile
"""
import io, struct
from pathlib import Path
import numpy as np, torch, torchaudio, librosa, soundfile
from PIL import Image
from safetensors.numpy import save_file
from torchvision import transforms as T
from transformers import WhisperFeatureExtractor

out = Path(__file__).resolve().parents[2] / "crates/mm-data/tests/fixtures"
rng = np.random.default_rng(7)

def sample_image(height, width, rng=rng):
    y, x = np.mgrid[0:height, 0:width]
    waves = np.stack([127 + 100 * np.sin(x / (3 + c)) * np.cos(y / (4 + c)) for c in range(3)], -1)
    return np.clip(waves + rng.normal(0, 20, (height, width, 3)), 0, 255).astype(np.uint8)

tensors = {}
filters = {"bilinear": Image.BILINEAR, "bicubic": Image.BICUBIC, "lanczos": Image.LANCZOS, "nearest": Image.NEAREST}
later = np.random.default_rng(8)
for number, ((h, w), (th, tw)) in enumerate([((37, 53), (16, 23)), ((20, 31), (47, 40)), ((64, 9), (7, 30)), ((1, 40), (5, 5)), ((61, 23), (20, 17)), ((50, 12), (13, 31))]):
    image = sample_image(h, w, rng if number < 4 else later); tensors[f"resize{number}.in"] = image
    for name, code in filters.items():
        tensors[f"resize{number}.{name}"] = np.asarray(Image.fromarray(image).resize((tw, th), code))
# The whole transform: shortest edge (torchvision's rounding), center crop (also larger than the image), normalize.
for number, ((h, w), edge, crop) in enumerate([((41, 67), 24, 20), ((67, 41), 23, (19, 22)), ((30, 50), 16, 28)]):
    image = sample_image(h, w); tensors[f"transform{number}.in"] = image
    t = T.Compose([T.Resize(edge, interpolation=T.InterpolationMode.BICUBIC, antialias=True), T.CenterCrop(crop), T.ToTensor(), T.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])])
    tensors[f"transform{number}.out"] = t(Image.fromarray(image)).numpy()
save_file(tensors, out / "images.safetensors")

# Files of every format, and the pixels that Pillow decodes.
files = {}
small = sample_image(24, 17)
rgb = Image.fromarray(small)
rgb.save(out / "plain.png"); files["plain.png"] = small
rgb.save(out / "plain.bmp"); files["plain.bmp"] = small
rgb.save(out / "plain.tiff"); files["plain.tiff"] = small
rgb.save(out / "plain.webp", lossless=True); files["plain.webp"] = small
grey = rgb.convert("L"); grey.save(out / "grey.png"); files["grey.png"] = np.asarray(grey.convert("RGB"))
palette = rgb.quantize(16); palette.save(out / "palette.gif"); files["palette.gif"] = np.asarray(palette.convert("RGB"))
alpha = Image.fromarray(np.concatenate([small, rng.integers(0, 256, (24, 17, 1), dtype=np.uint8)], -1), "RGBA"); alpha.save(out / "alpha.png")
white = Image.new("RGBA", alpha.size, (255, 255, 255, 255)); files["alpha.png"] = np.asarray(Image.alpha_composite(white, alpha).convert("RGB"))
deep = Image.fromarray((rng.integers(0, 65536, (9, 11))).astype(np.uint16)); deep.save(out / "deep.png")
files["deep.png"] = np.repeat((np.asarray(deep) / 257).round().astype(np.uint8)[..., None], 3, -1)
smooth = Image.fromarray(sample_image(8, 8)).resize((48, 32), Image.BICUBIC)
for name, image in (("photo.jpg", smooth), ("cmyk.jpg", smooth.convert("CMYK")), ("grey.jpg", smooth.convert("L"))):
    image.save(out / name, quality=92); files[name] = np.asarray(Image.open(out / name).convert("RGB"))
exif = Image.Exif(); exif[0x0112] = 6
smooth.save(out / "turned.jpg", quality=92, exif=exif)
from PIL import ImageOps
files["turned.jpg"] = np.asarray(ImageOps.exif_transpose(Image.open(out / "turned.jpg")))
save_file(files, out / "files.safetensors")

# Spectrograms of two seconds of a sweep with noise.
rate = 16000
t = np.arange(int(rate * 0.9)) / rate
signal = (0.4 * np.sin(2 * np.pi * (200 * t + 900 * t * t)) + 0.05 * rng.normal(size=t.size)).astype(np.float32)
mels = {"sound": signal}
power = librosa.feature.melspectrogram(y=signal, sr=rate)
mels["librosa"] = librosa.power_to_db(power).T.astype(np.float32).copy()
htk = librosa.feature.melspectrogram(y=signal, sr=rate, n_fft=512, win_length=400, hop_length=160, n_mels=48, fmin=60, fmax=7600, htk=True, norm=None, pad_mode="reflect")
mels["htk"] = np.log(np.maximum(htk, 1e-6)).T.astype(np.float32).copy()
mels["kaldi"] = torchaudio.compliance.kaldi.fbank(torch.from_numpy(signal)[None], num_mel_bins=40, sample_frequency=rate, dither=0.0).numpy()
whisper = WhisperFeatureExtractor(feature_size=80, chunk_length=1)
padded = np.pad(signal, (0, rate - signal.size))
mels["whisper"] = whisper(padded, sampling_rate=rate, return_tensors="np").input_features[0].T.astype(np.float32).copy()
mels["whisper.sound"] = padded.astype(np.float32)
save_file(mels, out / "mels.safetensors")

# Audio files, and the samples that libsndfile decodes.
stereo = np.stack([signal, np.roll(signal, 100) * 0.5], -1)[:4000]
recordings = {}
for name, data, kind in (("mono16.wav", signal[:4000], "PCM_16"), ("stereo24.wav", stereo, "PCM_24"), ("float.wav", signal[:4000], "FLOAT"), ("unsigned8.wav", signal[:4000], "PCM_U8"), ("mono.flac", signal[:4000], "PCM_16")):
    soundfile.write(out / name, data, rate, subtype=kind)
    read, _ = soundfile.read(out / name, dtype="float32", always_2d=True); recordings[name] = read.mean(-1).copy()
soundfile.write(out / "mono.ogg", signal, rate, format="OGG", subtype="VORBIS")
recordings["mono.ogg"] = soundfile.read(out / "mono.ogg", dtype="float32")[0]
soundfile.write(out / "mono.mp3", signal, rate, format="MP3")
recordings["mono.mp3"] = soundfile.read(out / "mono.mp3", dtype="float32")[0]
save_file(recordings, out / "audio.safetensors")
print({p.name: p.stat().st_size for p in sorted(out.iterdir())})
