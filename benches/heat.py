#!/usr/bin/env python3
"""How much of what a model looked at lies on what it was asked about, against chance: for pictures of one thing on one ground.

    mm answer --model RUN --data QUESTIONS.jsonl --out lines.jsonl --explain none.png
    python benches/heat.py lines.jsonl

The box of the thing is where pixels differ from the picture's corner; chance is the box's share of the picture.
"""
import json, statistics, sys
import numpy as np
from PIL import Image
inside, chance = [], []
for line in open(sys.argv[1]):
    row = json.loads(line)
    if "heat" not in row: continue
    px = np.asarray(Image.open(row["image"]).convert("RGB")).astype(int); thing = np.abs(px - px[0, 0]).sum(-1) > 40
    if not thing.any(): continue
    ys, xs = np.where(thing); box = np.zeros(thing.shape); box[ys.min():ys.max() + 1, xs.min():xs.max() + 1] = 1
    down, across = row["heat"]["grid"]; heat = np.array(row["heat"]["patches"]).reshape(down, across); heat = heat / heat.sum()
    # The box's share of each patch.
    share = np.asarray(Image.fromarray((box * 255).astype("uint8")).resize((across, down), Image.BOX)).astype(float) / 255
    inside.append(float((heat * share).sum())); chance.append(float(box.mean()))
print(json.dumps({"questions": len(inside), "inside": statistics.mean(inside), "chance": statistics.mean(chance), "times": statistics.mean(inside) / statistics.mean(chance)}))
