#!/usr/bin/env python3
"""A measurement of docs/tasks.md: the share of a model's attention that lies on the object in the image, against chance.

    mm answer --model RUN --data QUESTIONS.jsonl --out lines.jsonl --explain none.png
    python benches/vqa_attention_in_box.py lines.jsonl

For images of one object on a uniform background. The box of the object is where pixels differ from the image's corner; chance
is the share of the image that the box covers.
"""
import json, statistics, sys
import numpy as np
from PIL import Image
inside, chance = [], []
for line in open(sys.argv[1]):
    row = json.loads(line)
    if "attribution" not in row: continue
    px = np.asarray(Image.open(row["image"]).convert("RGB")).astype(int); is_object = np.abs(px - px[0, 0]).sum(-1) > 40
    if not is_object.any(): continue
    ys, xs = np.where(is_object); box = np.zeros(is_object.shape); box[ys.min():ys.max() + 1, xs.min():xs.max() + 1] = 1
    rows, columns = row["attribution"]["grid"]; attention = np.array(row["attribution"]["patches"]).reshape(rows, columns); attention = attention / attention.sum()
    # The share of each patch that the box covers.
    share = np.asarray(Image.fromarray((box * 255).astype("uint8")).resize((columns, rows), Image.BOX)).astype(float) / 255
    inside.append(float((attention * share).sum())); chance.append(float(box.mean()))
print(json.dumps({"questions": len(inside), "inside": statistics.mean(inside), "chance": statistics.mean(chance), "ratio": statistics.mean(inside) / statistics.mean(chance)}))
