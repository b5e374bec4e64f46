#!/usr/bin/env python3
"""The tables of docs/retrieval.md: mean ± sample standard deviation over the seeds of a demo run.

    python benches/retrieval_tables.py runs/stamps/run      (after `mm eval --model runs/stamps/run/seed-N` for each seed)
"""
import json, statistics, sys
from pathlib import Path

runs = [json.loads((f / "evaluation-test.json").read_text())["metrics"] for f in sorted(Path(sys.argv[1]).glob("seed-*"))]
by_key = [{(m["id"], m.get("scope")): m for m in run} for run in runs]


def spread(metric, scope, digits=3):
    values = [run[metric, scope]["value"] for run in by_key if (metric, scope) in run]
    if len(values) < len(by_key): return ""
    return f"{statistics.mean(values):.{digits}f}" + (f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else "")


def chance(metric, scope): return f"{by_key[0][metric, scope]['baselines']['chance']:.3f}"


scopes = list(dict.fromkeys(m["scope"] for m in runs[0] if m["id"] == "recall_at_1"))
for suffix in ("", "/equal_texts_match"):
    print("| direction | R@1 | R@5 | R@10 | median rank | mAP | chance R@1 | chance R@10 |\n| --- | --- | --- | --- | --- | --- | --- | --- |")
    for scope in scopes:
        name, _, rest = scope.partition("/")
        if ("/" + rest if rest else "") != suffix: continue
        cells = [spread(f"recall_at_{k}", scope) for k in (1, 5, 10)] + [spread("median_rank", scope, 1), spread("mean_average_precision", scope)]
        print(f"| {name} | " + " | ".join(cells + [chance("recall_at_1", scope), chance("recall_at_10", scope)]) + " |")
    print()

DIRECTIONS = ("audio_to_text", "audio_to_image", "speech_to_transcript")
print("| language | speech → caption R@1 | R@10 | speech → image R@10 | speech → transcript R@1 | R@10 |\n| --- | --- | --- | --- | --- | --- |")
for language in dict.fromkeys(s.split("/language=")[1] for s in scopes if "/language=" in s):
    text, image, transcript = (f"{d}/language={language}" for d in DIRECTIONS)
    cells = [spread("recall_at_1", text), spread("recall_at_10", text), spread("recall_at_10", image), spread("recall_at_1", transcript), spread("recall_at_10", transcript)]
    print(f"| {language} | " + " | ".join(cells) + " |")
