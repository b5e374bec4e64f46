"""How much of the averaging of gradients happens during the backward pass, from a trace of `train.profile_steps`.

    python benches/overlap.py RUN/profile/rank-0.pt.trace.json [IMAGE.png]

Prints milliseconds of all recorded steps, and draws the second one (needs Pillow).
"""

import json
import sys
from collections import defaultdict

BACKWARD, SENT = "autograd::engine::evaluate_function", "gloo:all_reduce"
GAP = 1e5  # microseconds between the backward passes of two steps


def span(event):
    return event["ts"], event["ts"] + event["dur"]


def union(spans):
    """Spans that do not overlap."""
    merged = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1][1] = max(merged[-1][1], end)
        else:
            merged.append([start, end])
    return merged


def milliseconds(spans):
    return sum(end - start for start, end in spans) / 1e3


def read(path):
    """The operations of the backward pass, and the collectives of the reducer by thread."""
    with open(path) as file:
        events = [event for event in json.load(file)["traceEvents"] if event.get("ph") == "X"]
    names = defaultdict(set)
    for event in events:
        if event["name"].startswith("gloo:"):
            names[event["tid"]].add(event["name"])
    # Other collectives have threads of their own.
    threads = sorted(thread for thread, found in names.items() if found == {SENT})
    backward = sorted((event for event in events if event["name"].startswith(BACKWARD)), key=lambda event: event["ts"])
    return backward, {t: [e for e in events if e["tid"] == t and e["name"] == SENT] for t in threads}


def report(backward, sent):
    computed = union(span(event) for event in backward)
    moved = union(span(event) for events in sent.values() for event in events)
    both = sum(max(0, min(b, d) - max(a, c)) for a, b in computed for c, d in moved) / 1e3
    print(f"backward {milliseconds(computed):.0f} ms, gradients sent {milliseconds(moved):.0f} ms, "
          f"of it during the backward pass {both:.0f} ms ({both / milliseconds(moved):.2f})")


def draw(backward, sent, path):
    from PIL import Image, ImageDraw, ImageFont

    steps = [[backward[0]]]
    for event in backward[1:]:
        if event["ts"] - span(steps[-1][-1])[1] > GAP:
            steps.append([])
        steps[-1].append(event)
    step, following = steps[1], steps[2][0]["ts"] if len(steps) > 2 else float("inf")
    begin = step[0]["ts"] - 3e4
    of_step = {t: [e for e in events if begin < e["ts"] < following - GAP] for t, events in sent.items()}
    end = max(span(event)[1] for event in [step[-1], *sum(of_step.values(), [])]) + 3e4
    rows = [("backward pass", step, "#3b6ea8")]
    rows += [(f"all_reduce, thread {n}", events, "#c2572e") for n, events in enumerate(of_step.values(), 1)]
    width, left, bottom = 1500, 210, 24 + len(rows) * 46
    image = Image.new("RGB", (width, bottom + 40), "white")
    canvas, font = ImageDraw.Draw(image), ImageFont.load_default(16)

    def x(time):
        return left + (time - begin) / (end - begin) * (width - left - 20)

    for number, (name, events, color) in enumerate(rows):
        top = 20 + number * 46
        canvas.text((10, top + 7), name, fill="#222", font=font)
        for first, last in map(span, events):
            canvas.rectangle([x(first), top, max(x(first) + 1, x(last)), top + 32], fill=color, outline="white")
    canvas.line([left, bottom, width - 20, bottom], fill="#888")
    canvas.text((10, bottom + 8), "milliseconds", fill="#444", font=font)
    tick = next(tick for tick in (10, 20, 50, 100, 200, 500, 1000) if (end - begin) / 1e3 / tick <= 14)
    for mark in range(0, int((end - begin) / 1e3) + 1, tick):
        canvas.line([x(begin + mark * 1e3), bottom, x(begin + mark * 1e3), bottom + 5], fill="#888")
        canvas.text((x(begin + mark * 1e3) - 10, bottom + 8), str(mark), fill="#444", font=font)
    image.save(path)


if __name__ == "__main__":
    found = read(sys.argv[1])
    report(*found)
    if len(sys.argv) > 2:
        draw(*found, sys.argv[2])
