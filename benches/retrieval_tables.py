#!/usr/bin/env python3
"""The tables of docs/retrieval.md, mean ± sample standard deviation over a demo's seeds.

    python benches/retrieval_tables.py runs/stamps/run      (each seed-N in it measured: mm eval RUN/seed-N)
"""
import json, statistics, sys
from pathlib import Path
runs = [json.loads((f / "evaluation-test.json").read_text()) for f in sorted(Path(sys.argv[1]).glob("seed-*"))]
def spread(values, digits=3): return f"{statistics.mean(values):.{digits}f}" + (f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else "")
def table(key):
    print("| | R@1 | R@5 | R@10 | median rank | mAP | chance R@1 | chance R@10 | queries | candidates |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for way, first in runs[0][key].items():
        all = [r[key][way] for r in runs]
        cells = [spread([a["recall"][k] for a in all]) for k in range(3)] + [spread([a["median_rank"] for a in all], 1), spread([a["map"] for a in all])]
        print(f"| {way} | " + " | ".join(cells + [f"{first['chance'][0]:.3f}", f"{first['chance'][2]:.3f}", str(first["queries"]), str(first["gallery"])]) + " |")
    print()
table("directions"); table("equal_captions")
own = [r.get("spelling") or {} for r in runs]
print("| | voice → caption R@1 | R@10 | voice → picture R@10 | voice → its own words R@1 | R@10 | clips |\n| --- | --- | --- | --- | --- | --- | --- |")
for language, first in runs[0]["languages"]["audio → text"].items():
    text, image = ([r["languages"][f"audio → {to}"][language]["recall"] for r in runs] for to in ("text", "image"))
    words = [spread([o[language]["recall"][k] for o in own if language in o]) if all(language in o for o in own) else "" for k in (0, 2)]
    print(f"| {language} | {spread([t[0] for t in text])} | {spread([t[2] for t in text])} | {spread([i[2] for i in image])} | {words[0]} | {words[1]} | {first['queries']} |")
if all(own):
    clips = {l: m["queries"] for l, m in own[0].items()}; total = sum(clips.values())
    mean = [[sum(o[l]["recall"][k] * n for l, n in clips.items()) / total for o in own] for k in range(3)]
    print(f"\nvoice → its own words, all {total} clips: R@1 {spread(mean[0])}, R@5 {spread(mean[1])}, R@10 {spread(mean[2])}")
