#!/usr/bin/env python3
"""Random inputs, and what the reference libraries make of them: Pillow, torchvision, torchaudio and transformers for
mm-data, scikit-learn and SciPy for the metrics of mm-tasks.

    python xtask/parity/random_inputs.py OUT [--seed N]     # requires pillow numpy torch torchvision torchaudio transformers scikit-learn scipy safetensors
    python xtask/parity/random_inputs.py FILE.json --frames # crates/mm-data/tests/fixtures/frame_sampling.json

Writes OUT/data.json with the settings, OUT/data.safetensors with the arrays that they name, and OUT/metrics.json.
"""
import argparse, json, warnings
from pathlib import Path
import numpy as np, torch

warnings.filterwarnings("ignore")
parser = argparse.ArgumentParser(); parser.add_argument("out", type=Path); parser.add_argument("--seed", type=int, default=0); parser.add_argument("--frames", action="store_true")
args = parser.parse_args()
rng = np.random.default_rng(args.seed + 17)
pick = lambda values: values[int(rng.integers(len(values)))]
arrays, settings = {}, {"seed": args.seed}


def frames(count):
    """Frames that Qwen2-VL's processor samples: total, frames in a second, settings, indices."""
    from transformers.models.qwen2_vl.video_processing_qwen2_vl import Qwen2VLVideoProcessor
    from transformers.video_utils import VideoMetadata
    processor, rows = Qwen2VLVideoProcessor(), []
    while len(rows) < count:
        total, rate = int(pick([rng.integers(2, 40), rng.integers(40, 3000)])), float(pick([5, 10, 12.5, 15, 24000 / 1001, 24, 25, 30000 / 1001, 30, 50]))
        given = {"fps": float(pick([0.5, 1, 2, 3, 7.5, 24])), "min_frames": int(rng.integers(1, 9)), "max_frames": int(pick([16, 64, 768])), "temporal_patch_size": int(pick([1, 2, 2, 3]))}
        try:
            indices = processor.sample_frames(VideoMetadata(total_num_frames=total, fps=rate), **given).tolist()
        except (ValueError, ZeroDivisionError):
            continue  # fewer frames than one step: an error there
        if indices[-1] >= total:
            continue  # torch.arange's step is rounded, which may add an index past the end: an error there
        rows.append({"total": total, "frame_rate": rate, **given, "indices": indices})
    return rows


def image(height, width):
    y, x = np.mgrid[0:height, 0:width]
    waves = np.stack([127 + 100 * np.sin(x / rng.uniform(1, 9) + c) * np.cos(y / rng.uniform(1, 9)) for c in range(3)], -1)
    return np.clip(waves + rng.normal(0, pick([0, 20, 80]), (height, width, 3)), 0, 255).astype(np.uint8)


def images():
    from PIL import Image
    from torchvision import transforms as T
    filters = {"bilinear": Image.BILINEAR, "bicubic": Image.BICUBIC, "lanczos": Image.LANCZOS, "nearest": Image.NEAREST}
    settings["resize"], settings["transform"] = [], []
    for number in range(24):
        name, pixels = pick(list(filters)), image(*rng.integers(1, 130, 2).tolist())
        height, width = rng.integers(1, 130, 2).tolist()
        arrays[f"resize{number}.in"] = pixels
        arrays[f"resize{number}.out"] = np.asarray(Image.fromarray(pixels).resize((width, height), filters[name])).copy()
        settings["resize"].append({"name": f"resize{number}", "interpolation": name})
    for number in range(12):
        edge, pixels = int(rng.integers(8, 90)), image(*rng.integers(8, 130, 2).tolist())
        crop = rng.integers(4, edge + 9, 2).tolist()
        mean, std = rng.uniform(0.2, 0.6, 3).tolist(), rng.uniform(0.2, 0.4, 3).tolist()
        steps = T.Compose([T.Resize(edge, interpolation=T.InterpolationMode.BICUBIC), T.CenterCrop(crop), T.ToTensor(), T.Normalize(mean, std)])
        arrays[f"transform{number}.in"], arrays[f"transform{number}.out"] = pixels, steps(Image.fromarray(pixels)).numpy()
        settings["transform"].append({"name": f"transform{number}", "edge": edge, "crop": crop, "mean": mean, "std": std})


def signal(seconds, rate):
    t = np.arange(int(seconds * rate)) / rate
    chirp = rng.uniform(0.05, 0.5) * np.sin(2 * np.pi * (rng.uniform(50, rate / 8) * t + rng.uniform(0, rate / 8) * t * t))
    return (chirp + rng.normal(0, pick([0.001, 0.05, 0.3]), t.size)).astype(np.float32)


def mels():
    import torchaudio
    from transformers import WhisperFeatureExtractor
    settings["mel"] = []
    def add(config, samples, expected):
        name = f"mel{len(settings['mel'])}"
        arrays[f"{name}.in"], arrays[f"{name}.out"] = samples, np.ascontiguousarray(expected.astype(np.float32))
        settings["mel"].append({"name": name, "config": config})
    for _ in range(12):
        rate, n_fft = int(pick([8000, 16000, 22050, 44100])), int(pick([256, 400, 512, 1024, 2048]))
        config = {"sample_rate": rate, "n_fft": n_fft, "win_length": int(rng.integers(n_fft // 2, n_fft + 1)), "hop_length": int(rng.integers(40, n_fft // 2)), "n_mels": int(rng.integers(8, 100)),
                  "f_min": float(rng.uniform(0, 200)), "f_max": float(rng.uniform(0.3, 0.5) * rate), "mel_scale": pick(["slaney", "htk"]), "window": "hann", "pad_mode": pick(["reflect", "constant"]), "log": {"natural": {"floor": 1e-6}}}
        samples = signal(rng.uniform(0.2, 1.0), rate)
        spectrogram = torchaudio.transforms.MelSpectrogram(rate, n_fft, config["win_length"], config["hop_length"], config["f_min"], config["f_max"], n_mels=config["n_mels"], power=2.0, center=True, pad_mode=config["pad_mode"],
                                                           mel_scale=config["mel_scale"], norm="slaney" if config["mel_scale"] == "slaney" else None).double()
        window = torch.hann_window(config["win_length"], periodic=True, dtype=torch.float64); spectrogram.spectrogram.window = window
        energy = spectrogram(torch.from_numpy(samples.astype(np.float64)))
        add(config, samples, torch.log(energy.clamp(min=1e-6)).T.numpy())
    for _ in range(4):
        rate, bands, samples = int(pick([8000, 16000])), int(rng.integers(15, 60)), None
        samples = signal(rng.uniform(0.2, 1.0), rate)
        out = torchaudio.compliance.kaldi.fbank(torch.from_numpy(samples)[None], num_mel_bins=bands, sample_frequency=rate, dither=0.0)
        add({"kaldi": [rate, bands]}, samples, out.numpy())
    for bands in (80, 128):
        samples = np.pad(signal(rng.uniform(0.3, 1.0), 16000), (0, 16000))[:16000]
        out = WhisperFeatureExtractor(feature_size=bands, chunk_length=1)(samples, sampling_rate=16000, return_tensors="np").input_features[0].T
        add({"whisper": bands}, samples, out)


def metrics():
    from scipy.stats import pearsonr
    from sklearn import metrics as m
    cases = []
    for _ in range(20):
        # Distinct scores: of equal ones every order is right.
        queries, gallery = rng.integers(1, 12), rng.integers(2, 40)
        scores = rng.permutation(int(queries * gallery)).reshape(queries, gallery) / 7.0
        matches = rng.random((queries, gallery)) < pick([0.05, 0.3, 0.8])
        kept = matches.any(1)
        if not kept.any(): continue
        ranks = [int(min(np.where(match[np.argsort(-score)])[0])) + 1 for score, match in zip(scores[kept], matches[kept])]
        cases.append({"kind": "retrieval", "scores": scores.tolist(), "matches": matches.tolist(), "map": float(np.mean([m.average_precision_score(match, score) for score, match in zip(scores[kept], matches[kept])])),
                      "recall": [float(np.mean([r <= k for r in ranks])) for k in (1, 5, 10)], "median_rank": float(np.median(ranks)), "queries": int(kept.sum())})
    for _ in range(20):
        rows, classes = int(rng.integers(5, 60)), int(rng.integers(2, 6))
        probabilities = rng.dirichlet(np.ones(classes), rows); labels = np.concatenate([np.arange(classes), rng.integers(0, classes, rows)])[:rows]
        if len(set(labels)) < classes: continue
        found, names = probabilities.argmax(1), list(range(classes))
        auroc = m.roc_auc_score(labels, probabilities[:, 1]) if classes == 2 else m.roc_auc_score(labels, probabilities, multi_class="ovr")
        cases.append({"kind": "classification", "probabilities": probabilities.tolist(), "labels": labels.tolist(), "accuracy": m.accuracy_score(labels, found), "balanced_accuracy": m.balanced_accuracy_score(labels, found),
                      "f1_macro": m.f1_score(labels, found, average="macro", labels=names), "f1_weighted": m.f1_score(labels, found, average="weighted", labels=names), "auroc": float(auroc), "log_loss": m.log_loss(labels, probabilities, labels=names)})
    for _ in range(10):
        rows = int(rng.integers(4, 50)); labels = rng.normal(0, 3, rows); found = labels + rng.normal(0, 2, rows)
        cases.append({"kind": "regression", "found": found.tolist(), "labels": labels.tolist(), "mae": m.mean_absolute_error(labels, found), "rmse": float(m.mean_squared_error(labels, found) ** 0.5), "r2": m.r2_score(labels, found), "pearson": float(pearsonr(labels, found)[0])})
    return {"seed": args.seed, "cases": cases}


if args.frames:
    args.out.write_text("[\n" + ",\n".join(json.dumps(row) for row in frames(40)) + "\n]\n")
else:
    from safetensors.numpy import save_file
    args.out.mkdir(parents=True, exist_ok=True)
    images(); mels(); settings["frames"] = frames(200)
    save_file(arrays, args.out / "data.safetensors")
    (args.out / "data.json").write_text(json.dumps(settings))
    (args.out / "metrics.json").write_text(json.dumps(metrics()))
    print(f"random inputs with --seed {args.seed}: {len(arrays) // 2} arrays, {len(settings['frames'])} videos")
