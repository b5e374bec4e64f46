#!/usr/bin/env python3
"""Word vector files of gensim for mm's tests, and a check that gensim loads mm's.

    python xtask/parity/words.py make DIR                     gensim.txt, gensim.bin, gensim-fasttext.bin, answers.json
    python xtask/parity/words.py check TEXT BINARY FASTTEXT   three files of one `mm words train --subwords`
Requires gensim.
"""
import json, sys
from pathlib import Path
import numpy as np
from gensim.models import FastText, KeyedVectors
from gensim.models.fasttext import load_facebook_model, save_facebook_model

if sys.argv[1] == "make":
    out = Path(sys.argv[2]); out.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0); words = "alpha beta gamma delta épsilon 東京 zeta-eta x".split()
    sentences = [[str(w) for w in rng.choice(words, 7)] for _ in range(200)]
    m = FastText(sentences, vector_size=11, window=3, min_count=1, epochs=2, bucket=50, min_n=2, max_n=4, sg=1, seed=1, workers=1)
    m.wv.save_word2vec_format(str(out / "gensim.txt")); m.wv.save_word2vec_format(str(out / "gensim.bin"), binary=True)
    save_facebook_model(m, str(out / "gensim-fasttext.bin"))
    loaded = load_facebook_model(str(out / "gensim-fasttext.bin"))
    queries = words + ["alphabeta", "東", "never-seen"]
    (out / "answers.json").write_text(json.dumps({"known": {w: m.wv[w].tolist() for w in words}, "fasttext": {w: loaded.wv[w].tolist() for w in queries}, "similar": loaded.wv.most_similar("alpha", topn=3)}, ensure_ascii=False))
else:
    text, binary, fasttext = sys.argv[2:5]
    a, b, c = KeyedVectors.load_word2vec_format(text), KeyedVectors.load_word2vec_format(binary, binary=True), load_facebook_model(fasttext).wv
    assert a.index_to_key == b.index_to_key == c.index_to_key, "the words differ"
    for w in a.index_to_key: assert np.allclose(a[w], b[w], atol=1e-6) and np.allclose(a[w], c[w], atol=1e-5), w
    c["a-word-never-seen"]
    print(f"gensim loaded {len(a.index_to_key)} words of dimension {a.vector_size} from all three")
