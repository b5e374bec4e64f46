#!/usr/bin/env python3
"""A table of docs/fusion.md: a sentiment model fitted to synthetic video clips of text, speech and face.

    cargo xtask data fetch emoji && python benches/fusion_opinion_clips.py target/release/mm FOLDER [CLIPS]

Tests the whole path from video files to a fitted model, not the understanding of emotion: synthetic speech (espeak-ng; fast and
high for glad, slow and low for sad) with a transcript and an emoji's face. Each of the three is right in four of five clips,
independently. Requires espeak-ng, numpy and pillow.
"""
import csv, json, os, shutil, subprocess, sys
from pathlib import Path
import numpy as np
from PIL import Image
MM, OUT = str(Path(sys.argv[1]).resolve()), Path(sys.argv[2]).resolve(); COUNT = int(sys.argv[3]) if len(sys.argv) > 3 else 420
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "mm"; OUT.mkdir(parents=True, exist_ok=True); rng = np.random.default_rng(0)
if not shutil.which("espeak-ng"): sys.exit("espeak-ng is not on the PATH; apt-get install espeak-ng")
emoji = CACHE / "data/emoji"; faces = {r["id"]: r for r in map(json.loads, subprocess.run([MM, "prepare", "--dataset", "emoji", "--data", emoji, "--out", OUT / "emoji.jsonl"], check=True, stdout=subprocess.DEVNULL) and open(OUT / "emoji.jsonl"))}
def faces_with(*words): return [r["image"] if isinstance(r["image"], str) else r["image"][0] for r in faces.values() if any(w in json.dumps(r["text"]).lower() for w in words) and "face" in json.dumps(r["text"]).lower()]
GLAD, SAD = faces_with("grinning", "smiling", "beaming", "tears of joy"), faces_with("frowning", "crying", "pensive", "worried", "disappointed", "sad")
ADJECTIVES = {1: ["wonderful", "superb", "charming", "funny", "brilliant", "touching"], 0: ["dreadful", "boring", "clumsy", "hollow", "tiresome", "painful"]}
SUBJECTS = ["the film", "her new book", "this concert", "the last episode", "the whole play", "that song"]; TEMPLATES = ["I found {} {}", "honestly {} was {}", "to me {} felt {}", "they say {} is {}, and so it is", "well, {} turned out {}"]
for f in ("clips", "work"): (OUT / f).mkdir(exist_ok=True)
rows = []
for n in range(COUNT):
    mood = int(rng.integers(2)); cues = [mood if rng.random() < 0.8 else 1 - mood for _ in range(3)]
    text = rng.choice(TEMPLATES).format(rng.choice(SUBJECTS), rng.choice(ADJECTIVES[cues[0]])); clip = OUT / f"clips/{n:04}.mp4"
    if not clip.exists():
        wav, face = OUT / "work/say.wav", Image.open(str(rng.choice((SAD, GLAD)[cues[2]]))).convert("RGBA")
        # The speech carries the mood only in its tone: its words are another sentence.
        other = rng.choice(TEMPLATES).format(rng.choice(SUBJECTS), rng.choice(ADJECTIVES[int(rng.integers(2))]))
        subprocess.run(["espeak-ng", "-v", rng.choice(["en-us", "en-gb", "en-gb-scotland"]), "-s", str(int(rng.normal((130, 190)[cues[1]], 12))), "-p", str(int(np.clip(rng.normal((25, 70)[cues[1]], 8), 0, 99))), "-w", wav, other], check=True)
        for k in range(10):
            frame = Image.new("RGB", (96, 96), tuple(int(v) for v in rng.integers(180, 256, 3))); size = int(rng.integers(56, 80)); f = face.resize((size, size))
            frame.paste(f, (int(rng.integers(0, 96 - size)), int(rng.integers(0, 96 - size))), f); frame.save(OUT / f"work/{k}.png")
        subprocess.run([CACHE / "ffmpeg/ffmpeg", "-y", "-loglevel", "error", "-framerate", "5", "-stream_loop", "-1", "-i", OUT / "work/%d.png", "-i", wav, "-shortest", "-c:v", "libx264", "-pix_fmt", "yuv420p", "-c:a", "aac", clip], check=True)
    rows.append({"clip": f"clips/{n:04}.mp4", "transcript": text, "mood": ("sad", "glad")[mood]})
test = COUNT // 3
for name, part in (("train", rows[test:]), ("test", rows[:test])):
    with open(OUT / f"{name}.csv", "w", newline="") as f: w = csv.DictWriter(f, list(rows[0])); w.writeheader(); w.writerows(part)
run = OUT / "run"; subprocess.run(["rm", "-rf", run])
subprocess.run([MM, "fit", "--data", OUT / "train.csv", "--label-column", "mood", "--preset", "fast", "--out", run, "--json"], check=True, stdout=subprocess.DEVNULL)
def accuracy(*drop):
    metrics = json.loads(subprocess.run([MM, "eval", "--model", run, "--data", OUT / "test.csv", "--json", *drop], check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])["metrics"]
    return next(m["value"] for m in metrics if m["id"] == "accuracy")
print(f"{COUNT - test} training clips, {test} held out; each of transcript, speech and face is right in 0.80 of them, the majority of the three in 0.90")
for label, drop in (("all", ()), ("transcript only", ("--exclude-modality", "audio", "--exclude-modality", "video")), ("speech only", ("--exclude-modality", "text", "--exclude-modality", "video")), ("face only", ("--exclude-modality", "text", "--exclude-modality", "audio")), ("without transcript", ("--exclude-modality", "text")), ("without speech", ("--exclude-modality", "audio")), ("without face", ("--exclude-modality", "video"))):
    print(f"| {label} | {accuracy(*drop):.3f} |")
