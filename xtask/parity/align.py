"""Outputs of scikit-learn, cca-zoo, POT, SciPy and tslearn for small arrays, with which mm-align is compared.

    python align.py OUT.json [--seed N]

Packages: numpy scipy scikit-learn cca-zoo POT tslearn
"""

import argparse
import json

import numpy as np
import ot
from cca_zoo.linear import RidgeCCA
from scipy.stats import energy_distance
from sklearn.cross_decomposition import CCA, PLSSVD
from sklearn.metrics.pairwise import rbf_kernel
from tslearn.metrics import dtw, soft_dtw


def correlations(x, y):
    return [float(np.corrcoef(x[:, i], y[:, i])[0, 1]) for i in range(x.shape[1])]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("out")
    parser.add_argument("--seed", type=int, default=3)
    arguments = parser.parse_args()
    rng = np.random.default_rng(arguments.seed)
    rows = 40
    hidden = rng.normal(size=(rows, 2))
    a = hidden @ rng.normal(size=(2, 5)) + 0.5 * rng.normal(size=(rows, 5))
    b = hidden @ rng.normal(size=(2, 4)) + 0.5 * rng.normal(size=(rows, 4))
    out = {"a": a, "b": b}

    x, y = CCA(n_components=2, scale=False, max_iter=5000, tol=1e-12).fit(a, b).transform(a, b)
    out["cca"] = correlations(x, y)
    x, y = PLSSVD(n_components=2, scale=False).fit(a, b).transform(a, b)
    out["pls"] = [float((x[:, i] * y[:, i]).sum() / (rows - 1)) for i in range(2)]
    out["pls_scores"] = np.abs(x)
    # The covariances are (1 - shrinkage) cov(X) + shrinkage I.
    x, y = RidgeCCA(n_components=2, shrinkage=0.3).fit([a, b]).transform([a, b])
    out["shrinkage"], out["ridge_cca"] = 0.3, correlations(x, y)

    cost = rng.random((7, 5))
    uniform = [np.full(7, 1 / 7), np.full(5, 1 / 5)]
    out["cost"] = cost
    exact = {"stopThr": 1e-12, "numItermax": 200_000}
    out["sinkhorn"] = ot.sinkhorn(*uniform, cost, 0.05, method="sinkhorn_log", **exact)
    masses = np.array([0.3, 0.2, 0.1, 0.1, 0.1, 0.1, 0.1])
    out["masses"] = masses
    # reg_type "entropy": the entropy of the plan, as in the paper.
    out["unbalanced"] = ot.unbalanced.sinkhorn_unbalanced(masses, uniform[1], cost, 0.1, 1.0, reg_type="entropy", **exact)

    out["energy"] = float(energy_distance(a[:, 0], b[:, 0]) ** 2)

    first, second = rng.normal(size=(9, 3)), rng.normal(size=(7, 3))
    out["first"], out["second"] = first, second
    out["soft_dtw"] = float(soft_dtw(first, second, gamma=0.5))
    out["dtw"] = float(dtw(first, second)) ** 2

    # The value of the regularized problem (transport cost plus weighted divergence from independence), debiased.
    value = lambda x, y: float(ot.solve(ot.dist(x, y), reg=0.5, reg_type="KL", max_iter=100_000, tol=1e-13).value)
    out["divergence"] = value(first, second) - 0.5 * (value(first, first) + value(second, second))
    mean = lambda x, y: float(rbf_kernel(x, y, gamma=1 / (2 * 1.5**2)).mean())
    out["mmd"] = mean(first, first) + mean(second, second) - 2 * mean(first, second)

    plain = {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in out.items()}
    with open(arguments.out, "w") as file:
        json.dump(plain, file)


main()
