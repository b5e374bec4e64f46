"""Folders saved by Hugging Face's `datasets`, and what `datasets` reads from them, for crates/mm-data/tests/tables.rs.

Needs `datasets` (5.2, with Pillow): python xtask/parity/datasets_fixtures.py
"""

import datetime
import io
import json
import pathlib
import shutil

import datasets
from PIL import Image

OUT = pathlib.Path(__file__).resolve().parents[2] / "crates/mm-data/tests/fixtures/datasets"


def png(color):
    buffer = io.BytesIO()
    Image.new("RGB", (2, 1), color).save(buffer, "png")
    return {"bytes": buffer.getvalue(), "path": f"{color}.png"}


features = datasets.Features({
    "id": datasets.Value("int64"),
    "image": datasets.Image(),
    "caption": datasets.Value("string"),
    "label": datasets.ClassLabel(names=["cat", "dog"]),
    "tags": datasets.List(datasets.ClassLabel(names=["a", "b", "c"])),
    "score": datasets.Value("float32"),
    "seen": datasets.Value("bool"),
    "taken": datasets.Value("timestamp[us]"),
    "place": {"lat": datasets.Value("float64"), "name": datasets.Value("large_string")},
    "grid": datasets.Array2D((2, 2), "int32"),
})


def rows(start, count):
    for i in range(start, start + count):
        yield {
            "id": i, "image": png(["red", "green", "blue"][i % 3]) if i != 1 else None,
            "caption": f"Zeile {i} – 猫" if i != 2 else None, "label": i % 2 if i != 3 else None, "tags": list(range(i % 4)),
            "score": i / 3, "seen": i % 2 == 0, "taken": datetime.datetime(2024, 2, 29, 12, i, 5), 
            "place": {"lat": 48.1 + i, "name": f"Ort {i}"}, "grid": [[i, 1], [2, 3]],
        }


train = datasets.Dataset.from_list(list(rows(0, 4)), features=features)
test = datasets.Dataset.from_list(list(rows(4, 1)), features=features)
shutil.rmtree(OUT, ignore_errors=True)
datasets.DatasetDict({"train": train, "test": test}).save_to_disk(str(OUT / "dict"), num_shards={"train": 2, "test": 1})
(OUT / "repository/data").mkdir(parents=True)
train.to_parquet(str(OUT / "repository/data/train-00000-of-00001.parquet"))
test.to_parquet(str(OUT / "repository/data/test-00000-of-00001.parquet"))

expected = []
for name, split in [("train", train), ("test", test)]:
    of_labels, of_tags = features["label"], features["tags"].feature
    for row in split.cast_column("image", datasets.Image(decode=False)):
        expected.append({
            "id": row["id"], "caption": row["caption"], "score": row["score"], "seen": row["seen"], "place": row["place"],
            "label": None if row["label"] is None else of_labels.int2str(row["label"]),
            "tags": [of_tags.int2str(tag) for tag in row["tags"]], "taken": row["taken"].isoformat(" ", "microseconds") + " +00:00", "grid": row["grid"],
            "split": name, "image": None if row["image"] is None else row["image"]["bytes"].hex(),
        })
(OUT / "expected.json").write_text(json.dumps(expected, ensure_ascii=False, indent=1) + "\n")
