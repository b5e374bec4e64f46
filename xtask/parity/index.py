"""What `mm index export` and `mm index import` exchange with faiss and clip-retrieval: faiss searches the arrays and the
table of an export and finds what `mm search` finds, and mm imports vectors of an index of faiss and the files of
clip-retrieval.

    python index.py MM MODEL OUT [--seed N]

MODEL is a dual encoder of images and texts. OUT is a folder, which is made.
"""

import json
import pathlib
import shutil
import subprocess
import sys

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

K, ROWS, QUERIES = 10, 300, 12
WORDS = "red blue small old quick lazy dog fox bird house tree car in on under near the a of and".split()
# Scores of mm and faiss: of the same 16-bit vectors, by sums in another order.
TOLERANCE = 1e-3


def run(mm, *arguments, refused=False):
    result = subprocess.run([mm, *map(str, arguments)], capture_output=True, text=True)
    assert (result.returncode != 0) == refused, f"mm {arguments}: {result.stdout}{result.stderr}"
    return result.stderr if refused else [json.loads(line) for line in result.stdout.splitlines()]


def write_data(folder, random):
    """Images and captions, and the queries."""
    rows = []
    for number in range(ROWS):
        name = f"{number}.png"
        blocks = random.integers(0, 256, (random.integers(2, 6), random.integers(2, 6), 3), dtype=np.uint8)
        Image.fromarray(blocks).resize((40, 36), Image.Resampling.NEAREST).save(folder / name)
        text = " ".join(random.choice(WORDS, 6)) + f" {number}"
        rows.append({"id": f"r{number}", "image": name, "text": text, "year": 1900 + number})
    queries = [{"id": str(n), "text": " ".join(random.choice(WORDS, 4))} for n in range(QUERIES)]
    for name, lines in (("data.jsonl", rows), ("queries.jsonl", queries)):
        (folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    return rows, queries


def read_export(folder, modality):
    """The vectors and the rows of an export: the lines of docs/search.md."""
    vectors = np.load(folder / f"{modality}_emb/{modality}_emb_0.npy")
    metadata = pq.read_table(folder / "metadata/metadata_0.parquet").to_pylist()
    return vectors, metadata


def built(vectors, kind):
    index = faiss.IndexFlatIP(vectors.shape[1])
    if kind == "hnsw":
        index = faiss.IndexHNSWFlat(vectors.shape[1], 32, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction, index.hnsw.efSearch = 128, 128
    index.add(vectors)
    return index


def search(mm, store, model, query, modality):
    lines = run(mm, "search", "--store", store, "--model", model, "--text", query, "--modality", modality, "--k", K, "--json")
    return [(line["id"], line["score"]) for line in lines]


def compare(found, scores, ids, what):
    """Whether mm found what has the highest scores; rows with equal scores may change places."""
    best = np.sort(scores)[::-1][:K]
    assert len(found) == K, what
    for (id, score), expected in zip(found, best):
        assert abs(score - expected) < TOLERANCE, f"{what}: {id} {score}, expected {expected}"
        assert abs(scores[ids.index(id)] - score) < TOLERANCE, f"{what}: {id}"


def check_export(mm, model, folder, rows, queries):
    store, out = folder / "store", folder / "vectors"
    run(mm, "index", "build", folder / "data.jsonl", "--model", model, "--modality", "image", "--modality", "text",
        "--store", store, "--json")
    [exported] = run(mm, "index", "export", "--store", store, "--out", out, "--json")
    assert exported["rows"] == ROWS and exported["left_out"] == 0, exported
    run(mm, "embed", "--model", model, "--data", folder / "queries.jsonl", "--modality", "text", "--normalize", "--out",
        folder / "queries.npy", "--json")
    embedded = np.load(folder / "queries.npy")
    for prefix, modality in (("img", "image"), ("text", "text")):
        vectors, metadata = read_export(out, prefix)
        assert vectors.dtype == np.float32 and vectors.shape[0] == ROWS and len(metadata) == ROWS
        ids = [row["id"] for row in metadata]
        by_id = {row["id"]: row for row in rows}
        for row in metadata:
            expected = by_id[row["id"]]
            assert row["caption"] == expected["text"] and row["year"] == expected["year"], row
            assert pathlib.Path(row["image_path"]).name == expected["image"], row
        flat, hnsw = built(vectors, "flat"), built(vectors, "hnsw")
        common = 0
        for query, vector in zip(queries, embedded):
            found = search(mm, store, model, query["text"], modality)
            scores, numbers = flat.search(vector[None], ROWS)
            by_number = np.empty(ROWS, np.float32)
            by_number[numbers[0]] = scores[0]
            compare(found, by_number, ids, f"{modality}, {query['text']}")
            near = by_number[hnsw.search(vector[None], K)[1][0]]
            common += int((near >= scores[0][K - 1] - TOLERANCE).sum())
        recall = common / (K * len(queries))
        assert recall > 0.95, f"{modality}: recall {recall} of faiss.IndexHNSWFlat"
        print(f"{modality}: IndexFlatIP and mm search agree on {len(queries)} queries; recall@{K} of IndexHNSWFlat {recall:.3f}")
    return store, out


def check_import(mm, model, folder, store, exported, queries):
    """Vectors that faiss holds, under the ids of a table."""
    vectors, metadata = read_export(exported, "img")
    for kind in ("flat", "hnsw"):
        path = folder / f"{kind}.index"
        faiss.write_index(built(vectors, kind), str(path))
        message = run(mm, "index", "import", path, "--modality", "image", "--store", folder / "none", refused=True)
        assert "found an index of faiss" in message and "reconstruct_n" in message, message
        assert not (folder / "none").exists()
        np.save(folder / f"{kind}.npy", faiss.read_index(str(path)).reconstruct_n())
        table = pa.table({"id": [row["id"] for row in metadata], "caption": [row["caption"] for row in metadata]})
        pq.write_table(table, folder / "ids.parquet")
        copy = folder / f"{kind}-store"
        run(mm, "index", "import", folder / f"{kind}.npy", "--metadata", folder / "ids.parquet", "--modality", "image",
            "--model", model, "--store", copy, "--json")
        for query in queries:
            expected = search(mm, store, model, query["text"], "image")
            found = search(mm, copy, model, query["text"], "image")
            for (_, score), (_, other) in zip(found, expected, strict=True):
                assert abs(score - other) < TOLERANCE, f"{kind}: {query['text']}"
        print(f"{kind}: vectors of faiss.read_index(…).reconstruct_n() are found as those of the export")


def check_clip_retrieval(mm, folder, exported):
    """Files with the names, types and columns of clip-retrieval's inference: float16, two partitions."""
    vectors, metadata = read_export(exported, "img")
    theirs = folder / "clip-retrieval"
    for name in ("img_emb", "metadata"):
        (theirs / name).mkdir(parents=True)
    half = ROWS // 2
    for number, part in enumerate((slice(0, half), slice(half, ROWS))):
        np.save(theirs / f"img_emb/img_emb_{number}.npy", vectors[part].astype(np.float16))
        rows = metadata[part]
        columns = {"image_path": [row["image_path"] for row in rows], "caption": [row["caption"] for row in rows],
                   "key": [f"{n:09}" for n in range(part.start, part.stop)], "NSFW": ["UNLIKELY"] * len(rows)}
        pq.write_table(pa.table(columns), theirs / f"metadata/metadata_{number}.parquet")
    [imported] = run(mm, "index", "import", theirs, "--id", "image_path", "--store", folder / "theirs", "--json")
    assert imported["rows"] == ROWS and imported["missing"] == 0, imported
    run(mm, "index", "export", "--store", folder / "theirs", "--modality", "image", "--out", folder / "theirs.jsonl", "--json")
    found = [json.loads(line) for line in (folder / "theirs.jsonl").read_text().splitlines()]
    by_path = {row["image_path"]: (row, vector) for row, vector in zip(metadata, vectors)}
    for row in found:
        expected, vector = by_path[row["id"]]
        assert row["text"] == expected["caption"] and row["payload"]["NSFW"] == "UNLIKELY", row
        assert np.abs(np.array(row["embedding"]) - vector).max() < TOLERANCE, row["id"]
    # The export of that store has the columns that clip-retrieval reads.
    run(mm, "index", "export", "--store", folder / "theirs", "--out", folder / "back", "--json")
    names = pq.read_schema(folder / "back/metadata/metadata_0.parquet").names
    assert {"image_path", "caption", "NSFW", "key"} <= set(names), names
    print(f"clip-retrieval: {ROWS} rows of its files imported and exported with columns {', '.join(names)}")


def main():
    mm, model, out = sys.argv[1], pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3])
    seed = int(sys.argv[sys.argv.index("--seed") + 1]) if "--seed" in sys.argv else 0
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    faiss.omp_set_num_threads(2)
    random = np.random.default_rng(seed)
    rows, queries = write_data(out, random)
    store, exported = check_export(mm, model, out, rows, queries)
    check_import(mm, model, out, store, exported, queries)
    check_clip_retrieval(mm, out, exported)


if __name__ == "__main__":
    main()
