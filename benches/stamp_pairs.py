"""Pairs of an image and a text: the first of each row of the manifest of `mm prepare --dataset tuxpaint-stamps` or `emoji`.
And the metrics of a JSON result by id and scope."""
import json
from pathlib import Path
def pairs(manifest):
    rows = []
    for r in map(json.loads, Path(manifest).read_text().splitlines()):
        text = r["text"] if isinstance(r["text"], list) else [r["text"]]; text = [t if isinstance(t, str) else t["text"] for t in text if isinstance(t, str) or t["language"] == "en"]
        image = r["image"][:1] if isinstance(r["image"], list) else [r["image"]]
        if text and image and image[0]: rows.append({"id": r["id"], "kind": r.get("kind"), "group": r["group"], "image": str((Path(manifest).parent / image[0]).resolve()), "text": text[0]})
    return rows
def metrics(result): return {(m["id"], m["scope"]): m["value"] for m in result["metrics"]}
