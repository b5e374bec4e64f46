"""Random vectors, and what searches among them give by their definitions (NumPy, 64-bit floats), with which mm-index is
compared: similarities, late interaction (MaxSim), search by examples, and reciprocal rank fusion, weighted and not.

    python scores.py OUT.json [--seed N]

Packages: numpy
"""

import argparse
import json

import numpy as np

ROWS, DIM = 37, 13
# Scores of neighbors in a ranking are at least this far apart, so that the order does not depend on rounding.
GAP = 1e-5


def unit(x):
    return x / np.sqrt((x ** 2).sum(-1, keepdims=True))


def prepared(distance, x):
    """A query as it is compared: of unit length for cosine, as 32-bit floats."""
    x = np.asarray(x, np.float64)
    return (unit(x) if distance == "cosine" else x).astype(np.float32).astype(np.float64)


def stored(distance, x):
    """A vector as it is stored: as 16-bit floats."""
    return prepared(distance, x).astype(np.float16).astype(np.float64)


def similarities(distance, queries, vectors):
    if distance == "euclidean":
        return -np.sqrt(((queries[:, None] - vectors[None]) ** 2).sum(-1))
    return queries @ vectors.T


def max_sim(distance, tokens, rows):
    """By row: the sum over the tokens of the similarity to the row's most similar vector."""
    tokens = prepared(distance, tokens)
    return {n: similarities(distance, tokens, stored(distance, v)).max(1).sum() for n, v in rows.items()}


def ranked(scores, k, gap=GAP):
    """The best rows, of equal scores those that were written first."""
    order = sorted(scores, key=lambda n: (-scores[n], n))
    values = np.array([scores[n] for n in order])
    assert len(values) < 2 or gap is None or np.diff(-values).min() > gap, "scores that are too near; take another seed"
    return {"ids": [f"row {n}" for n in order[:k]], "scores": [float(v) for v in values[:k]]}


def recommended(distance, examples, rows, k):
    """Nearest to twice the mean of the positive examples minus the mean of the negative ones; examples are left out."""
    means = []
    for kind in ("positive", "negative"):
        vectors = [stored(distance, rows[n]) for n in examples[kind]["rows"]] + [prepared(distance, examples[kind]["values"])]
        means.append(np.concatenate(vectors).mean(0))
    used = examples["positive"]["rows"] + examples["negative"]["rows"]
    scores = max_sim(distance, [2 * means[0] - means[1]], rows)
    return ranked({n: s for n, s in scores.items() if n not in used}, k)


def fused(lists, weights, constant, k):
    """The sum of weight / (constant + rank) over the lists, in their order; ranks from 1. Equal sums are usual."""
    scores = {}
    for weight, found in zip(weights, lists):
        for rank, name in enumerate(found["ids"], 1):
            row = int(name.split()[1])
            scores[row] = scores.get(row, 0.0) + weight / (constant + rank)
    return ranked(scores, k, gap=None)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("out")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = np.random.default_rng(arguments.seed + 4)
    # Of four decimals, which JSON keeps, and so small that sums of products are below 1.
    random = lambda *shape: np.round(rng.normal(scale=0.15, size=shape), 4).astype(np.float32)
    singles = {n: random(1, DIM) for n in range(ROWS) if n % 9 != 5}
    multis = {n: random(int(rng.integers(1, 6)), DIM) for n in range(ROWS) if n % 7 != 3}
    query, tokens = random(1, DIM), random(5, DIM)
    pick = lambda rows, count: [int(n) for n in rng.choice(sorted(rows), count, replace=False)]
    shared = sorted(set(singles) & set(multis))
    rows = pick(shared, 5)
    examples = {"positive": {"rows": rows[:3], "values": random(2, DIM)}, "negative": {"rows": rows[3:], "values": random(1, DIM)}}
    depths, weights, constant, candidates = [20, 15, 11], [1.0, 0.35, 2.5], 7.5, 9

    expected = {"nearest": ranked(max_sim("cosine", query, singles), ROWS)}
    for distance in ("cosine", "dot", "euclidean"):
        expected[f"max_sim {distance}"] = ranked(max_sim(distance, tokens, multis), ROWS)
        expected[f"recommend {distance}"] = recommended(distance, examples, multis, ROWS)
    expected["recommend single"] = recommended("cosine", examples, singles, ROWS)
    near = [int(name.split()[1]) for name in expected["nearest"]["ids"][:candidates]]
    over = max_sim("dot", tokens, {n: multis[n] for n in near if n in multis})
    expected["max_sim over nearest"] = ranked(over, candidates)
    parts = [expected["nearest"], expected["max_sim dot"], expected["recommend euclidean"]]
    parts = [{"ids": part["ids"][:depth]} for part, depth in zip(parts, depths)]
    expected["fusion"] = fused(parts, [1.0] * 3, 60.0, ROWS)
    expected["weighted fusion"] = fused(parts, weights, constant, ROWS)

    # The shortest decimals of 32-bit floats.
    decimals = lambda array: [[float(str(v)) for v in row] for row in array]
    out = {
        "rows": [
            {
                "id": f"row {n}",
                "single": decimals(singles[n])[0] if n in singles else None,
                "multi": decimals(multis[n]) if n in multis else None,
            }
            for n in range(ROWS)
        ],
        "query": decimals(query)[0],
        "tokens": decimals(tokens),
        "positive": {"ids": [f"row {n}" for n in rows[:3]], "values": decimals(examples["positive"]["values"])},
        "negative": {"ids": [f"row {n}" for n in rows[3:]], "values": decimals(examples["negative"]["values"])},
        "depths": depths,
        "weights": weights,
        "constant": constant,
        "candidates": candidates,
        "expected": expected,
    }
    with open(arguments.out, "w") as file:
        json.dump(out, file)
        file.write("\n")


if __name__ == "__main__":
    main()
