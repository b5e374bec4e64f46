#!/usr/bin/env python3
"""Word2Vec: mm against gensim on the same text with the same settings and threads, over several seeds: training speed, and Spearman
correlation with human judgments (WordSim-353 and SimLex-999).

    cargo xtask bench words [--seeds N]
"""
import json, statistics, subprocess, sys, time
from pathlib import Path
from gensim.models import Word2Vec
from gensim.models.word2vec import LineSentence
mm, corpus, tests, cache = (Path(a) for a in sys.argv[1:5]); threads = 2
seeds = int(sys.argv[sys.argv.index("--seeds") + 1]) if "--seeds" in sys.argv else 3
cache.mkdir(parents=True, exist_ok=True); PAIRS = ["wordsim353.tsv", "simlex999.txt"]

def theirs(sg, seed):
    m = Word2Vec(vector_size=100, window=5, min_count=5, sample=1e-3, negative=5, sg=sg, workers=threads, seed=seed + 1)
    text = [line.split() for line in corpus.open()]  # in memory: faster than gensim's own reader
    m.build_vocab(text); start = time.perf_counter(); m.train(text, total_examples=m.corpus_count, epochs=5); seconds = time.perf_counter() - start
    return m.corpus_total_words * 5 / seconds, [m.wv.evaluate_word_pairs(str(tests / p))[1][0] for p in PAIRS]
def ours(sg, seed, more=()):
    out = cache / "mm.bin"
    result = json.loads(subprocess.run([mm, "words", "train", "--data", corpus, "--out", out, "--threads", str(threads), "--seed", str(seed), "--json", *([] if sg else ["--cbow"]), *more, "--alpha", "0.025"], check=True, capture_output=True, text=True).stdout)
    output = subprocess.run([mm, "words", "eval", "--model", out, "--json", *[a for p in PAIRS for a in ("--pairs", tests / p)]], check=True, capture_output=True, text=True).stdout
    return result["words_per_second"], [json.loads(line)["metrics"][0]["value"] for line in output.splitlines()]

for name, sg in (("skip-gram", 1), ("CBOW", 0)):
    got = {"mm": [], "gensim": [], **({"mm, unshared negatives": []} if sg else {})}
    for seed in range(seeds):
        got["gensim"].append(theirs(sg, seed)); got["mm"].append(ours(sg, seed))
        if sg: got["mm, unshared negatives"].append(ours(sg, seed, ["--no-shared-negatives"]))
    for who, rows in got.items():
        spread = lambda v: f"{statistics.mean(v):.3f} ± {statistics.stdev(v) if len(v) > 1 else 0:.3f}"
        print(f"{name}, {who}: {statistics.median(r[0] for r in rows) / 1e3:.0f} thousand words/s, WordSim-353 {spread([r[1][0] for r in rows])}, SimLex-999 {spread([r[1][1] for r in rows])}", flush=True)
    print(f"{name}: mm is {statistics.median(r[0] for r in got['mm']) / statistics.median(r[0] for r in got['gensim']):.2f}x gensim", flush=True)
