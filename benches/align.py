"""mm-align against scikit-learn, POT and tslearn on the same workloads: `cargo xtask bench align`.

    python align.py BENCH_ALIGN_BINARY
"""

import json
import subprocess
import sys
import time

import numpy as np
import ot
from sklearn.cross_decomposition import CCA
from tslearn.metrics import SoftDTWLossPyTorch
import torch

torch.set_num_threads(2)


def best(run, times=3):
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def main():
    rng = np.random.default_rng(0)
    peers = {}
    # scikit-learn computes pseudo-inverses for each dimension: 100,000 x 512 takes it more than six minutes.
    hidden = rng.normal(size=(20_000, 64))
    a = hidden @ rng.normal(size=(64, 128)) + rng.normal(size=(20_000, 128))
    b = hidden @ rng.normal(size=(64, 128)) + rng.normal(size=(20_000, 128))
    start = time.perf_counter()
    CCA(n_components=4, scale=False, max_iter=500, tol=1e-6).fit(a, b)
    peers["cca 20,000 x 128, 4 dimensions"] = time.perf_counter() - start
    cost = rng.random((2000, 2000))
    uniform = np.full(2000, 1 / 2000)
    run = lambda: ot.sinkhorn(uniform, uniform, cost, 0.05, method="sinkhorn_log", stopThr=1e-6, numItermax=1000)
    peers["sinkhorn 2,000 x 2,000"] = best(run, 1)
    run = lambda: ot.sinkhorn(uniform, uniform, cost, 0.05, method="sinkhorn", stopThr=1e-6, numItermax=1000)
    peers["sinkhorn 2,000 x 2,000 (POT, not in the log domain)"] = best(run, 1)
    x = torch.randn(32, 500, 8, requires_grad=True)
    y = torch.randn(32, 500, 8)
    loss = SoftDTWLossPyTorch(gamma=0.5)

    def soft_dtw():
        x.grad = None
        loss(x, y).sum().backward()

    soft_dtw()
    peers["soft-DTW 32 pairs of 500, with gradient"] = best(soft_dtw)
    ours = json.loads(subprocess.run([sys.argv[1]], check=True, capture_output=True, text=True).stdout)
    print(f"{'':50} {'other':>9} {'mm':>9} {'ratio':>7}")
    for name, seconds in peers.items():
        mm = ours.get(name) or ours["sinkhorn 2,000 x 2,000"]
        print(f"{name:50} {seconds:8.3f}s {mm:8.3f}s {seconds / mm:6.2f}x")
    for name, value in ours.items():
        if name not in peers:
            print(f"{name:50} {'':9} {value:9.3f}")


main()
