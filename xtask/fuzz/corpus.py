"""Makes the corpus inputs of the fuzz targets (xtask/fuzz/corpus) from the fixtures of the crates.

    python xtask/fuzz/corpus.py        # needs numpy, pillow, pyarrow and torch, and ffmpeg on the PATH

Where a target has several kinds of files, the first byte of an input selects one (`a` is the first); see its source.
Inputs that fuzzing found are named finding-* and are kept.
"""

import gzip
import io
import json
import pickle
import struct
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent.parent
CORPUS = ROOT / "xtask/fuzz/corpus"
DATA = ROOT / "crates/mm-data/tests/fixtures"
REPR = ROOT / "crates/mm-repr/tests/fixtures"
REASON = ROOT / "crates/mm-reason/tests/fixtures"


def put(target, name, contents, kind=None):
    """Writes an input; `kind` is the index of the kind of file."""
    if isinstance(contents, str):
        contents = contents.encode()
    folder = CORPUS / target
    folder.mkdir(parents=True, exist_ok=True)
    first = b"" if kind is None else bytes([(ord("a") + kind) % 256])
    (folder / name).write_bytes(first + contents)


def kinds(target, table):
    """The kinds of a target, from the table KINDS in its source: tuples of strings."""
    import re

    source = (ROOT / f"xtask/fuzz/src/targets/{target}.rs").read_text()
    body = source.split(table, 1)[1].split("];", 1)[0]
    return re.findall(r'\("([^"]*)", "([^"]*)"\)', body)


def npy():
    def save(name, array):
        out = io.BytesIO()
        np.save(out, array)
        put("npy", name, out.getvalue())

    save("float32.npy", np.arange(6, dtype="f4").reshape(2, 3))
    save("float64-big-endian.npy", np.arange(4, dtype=">f8"))
    save("float16.npy", np.arange(4, dtype="f2"))
    save("int64-fortran.npy", np.asfortranarray(np.arange(6).reshape(2, 3)))
    save("uint8.npy", np.arange(5, dtype="u1"))
    save("bool-scalar.npy", np.array(True))
    save("empty.npy", np.zeros((0, 3), "f4"))
    save("records.npy", np.zeros(2, [("a", "f4"), ("b", "i4")]))
    save("strings.npy", np.array(["ab", "c"]))


def tensors(entries, metadata=None):
    """A safetensors file of (name, dtype, shape, bytes)."""
    header, at = ({"__metadata__": metadata} if metadata else {}), 0
    for name, dtype, shape, data in entries:
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + b"".join(e[3] for e in entries)


def safetensors():
    two = [("a.weight", "F32", [2, 2], bytes(16)), ("b", "I64", [1], bytes(8))]
    put("safetensors", "two.safetensors", tensors(two, {"format": "pt"}), 0)
    small = [("h", "BF16", [3], bytes(6)), ("u", "U8", [3], b"abc"), ("t", "BOOL", [], b"\1"), ("e", "F16", [0, 2], b"")]
    put("safetensors", "types.safetensors", tensors(small), 0)
    put("safetensors", "float8.safetensors", tensors([("w", "F8_E4M3", [2], bytes(2))]), 0)
    shards = {"left": "model-00001-of-00002.safetensors", "right": "model-00002-of-00002.safetensors"}
    put("safetensors", "index.json", json.dumps({"metadata": {"total_size": 16}, "weight_map": shards}), 1)
    put("safetensors", "index-missing.json", json.dumps({"weight_map": {"left": "../a", "x": "b"}}), 1)


def pickles():
    import torch

    def saved(value, **options):
        out = io.BytesIO()
        torch.save(value, out, **options)
        return out.getvalue()

    shared = torch.arange(6, dtype=torch.float32).reshape(2, 3)
    state = {"a": shared, "transposed": shared.t(), "row": shared[1], "half": torch.ones(2, dtype=torch.bfloat16)}
    put("pickle", "zip.pt", saved({"state_dict": state, "epoch": 3}), 0)
    put("pickle", "legacy.pt", saved(state, _use_new_zipfile_serialization=False), 0)
    put("pickle", "evil.pt", (REPR / "evil.bin").read_bytes(), 0)
    put("pickle", "evil.pkl", (DATA / "multimodal_sentiment/evil.pkl").read_bytes(), 1)
    arrays = {"text": np.arange(6, dtype="f4").reshape(1, 2, 3), "fortran": np.asfortranarray(np.eye(2)), "id": ["a$_$1"]}
    for protocol in (2, 4):
        put("pickle", f"arrays-{protocol}.pkl", pickle.dumps({"train": arrays, "n": (1, 2.5, None, True)}, protocol), 1)
    put("pickle", "strings.pkl", pickle.dumps(np.array(["ab", "c"]), 4), 1)
    put("pickle", "multibench.pkl", (DATA / "multimodal_sentiment/multibench.pkl").read_bytes(), 1)


def words():
    put("word2vec", "text.txt", (REPR / "words/gensim.txt").read_bytes())
    put("word2vec", "binary.bin", (REPR / "words/gensim.bin").read_bytes())
    put("word2vec", "small.txt", "2 3\nharp 0.5 -1 2e-3\nlute 1 2 3\n")
    put("fasttext", "model.bin", (REPR / "words/gensim-fasttext.bin").read_bytes())


def tables():
    rows = [{"id": "a", "image": "a.png", "text": "a red apple", "split": "train"}, {"id": "b", "text": None, "n": 1e17}]
    put("table", "rows.jsonl", "\n".join(map(json.dumps, rows)), 0)
    nested = [{"image": {"bytes": "aGk=", "path": "x.png"}, "caption": ["one", "two"], "label": 3, "score": float("nan")}]
    put("table", "nested.jsonl", "\n".join(map(json.dumps, nested)), 0)
    put("table", "rows.csv", 'id,image,caption,label\n1,a.png,"a, ""b""\nc",yes\n2,b.png,two,no\n', 1)
    put("table", "semicolon.csv", "text;label;age\nhello;yes;1,5\nbye;no;2\n", 1)
    put("table", "rows.tsv", "text\tlabel\nhello\tyes\n", 2)
    put("table", "chinese.csv", "text,label\n你好,是\n".encode("gb18030"), 3)
    put("table", "utf16.csv", "text,label\nhello,yes\n".encode("utf-16-le"), 4)


def parquet():
    import pyarrow as pa
    import pyarrow.parquet as pq

    image = pa.array([{"bytes": b"\x89PNG", "path": "a.png"}, None])
    table = pa.table({"image": image, "text": ["a", None], "label": pa.array(["x", "y"]).dictionary_encode(),
                      "tags": [["a", "b"], []], "age": [1.5, None], "day": pa.array([0, 1], pa.date32())})
    for compression in ("none", "snappy", "gzip", "zstd", "lz4"):
        out = io.BytesIO()
        pq.write_table(table, out, compression=compression)
        put("parquet", f"{compression}.parquet", out.getvalue())
    out = io.BytesIO()
    pq.write_table(pa.table({"text": [f"row {i % 3}" for i in range(50)], "n": list(range(50))}), out, data_page_version="2.0")
    put("parquet", "pages.parquet", out.getvalue())


def archives():
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name in ("package/a.txt", "package/" + "long/" * 30 + "b.txt"):
            entry = tarfile.TarInfo(name)
            entry.size = 5
            tar.addfile(entry, io.BytesIO(b"hello"))
        link = tarfile.TarInfo("package/link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    put("archive", "gnu.tar", out.getvalue().rstrip(b"\0") + bytes(1024), 0)
    put("archive", "gnu.tar.gz", gzip.compress(out.getvalue(), mtime=0), 1)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        entry = tarfile.TarInfo("../é.txt")
        entry.size = 2
        tar.addfile(entry, io.BytesIO(b"hi"))
    put("archive", "pax.tar", out.getvalue().rstrip(b"\0") + bytes(1024), 0)
    for method, name in ((zipfile.ZIP_STORED, "stored.zip"), (zipfile.ZIP_DEFLATED, "deflated.zip")):
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", method) as archive:
            # With a fixed time.
            archive.writestr(zipfile.ZipInfo("torch/version.py"), "x" * 100, method)
            archive.writestr(zipfile.ZipInfo("a/../b.txt"), "b", method)
        put("archive", name, out.getvalue(), 2)


MODEL_WORDS = ["<unk>", "<s>", "</s>", "\u2581", "\u2581the", "\u2581dog", "s", ",", "."]


def sentencepiece_model():
    """A unigram model of a few pieces: the fields of the protocol buffer that mm reads."""

    def field(number, contents):
        return bytes([number << 3 | 2, len(contents)]) + contents

    out = b""
    for index, piece in enumerate(MODEL_WORDS):
        kind = {0: 2, 1: 3, 2: 3}.get(index, 1)
        out += field(1, field(1, piece.encode()) + b"\x15" + struct.pack("<f", -index) + bytes([0x18, kind]))
    return out


def tokenizers():
    vocab = (REPR / "families/bert-bare-cased/vocab.txt").read_bytes()
    small = REPR / "families/bert-gelu/tokenizer.json"
    put("tokenizer", "wordpiece.json", json.dumps(json.loads(small.read_text())), 0)
    unigram = json.loads((REPR / "families/xlm-roberta-unigram/tokenizer.json").read_text())
    unigram["model"]["vocab"] = unigram["model"]["vocab"][:12]
    unigram["normalizer"] = {"type": "NFKC"}
    put("tokenizer", "unigram.json", json.dumps(unigram), 0)
    bpe = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": {"type": "Lowercase"},
           "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
           "post_processor": None, "decoder": {"type": "ByteLevel"},
           "model": {"type": "BPE", "unk_token": None, "vocab": {"d": 0, "o": 1, "g": 2, "do": 3}, "merges": ["d o"]}}
    put("tokenizer", "bpe.json", json.dumps(bpe), 0)
    put("tokenizer", "vocab.txt", vocab, 1)
    config = {"do_lower_case": True, "strip_accents": None, "pad_token": "[PAD]", "model_max_length": 16,
              "added_tokens_decoder": {"5": {"content": "dog", "special": True, "lstrip": False}}}
    put("tokenizer", "tokenizer_config.json", json.dumps(config), 2)
    put("tokenizer", "added_tokens.json", '{"<new>": 10, "dog": 6}', 3)
    put("tokenizer", "special_tokens_map.json", '{"pad_token": {"content": "[PAD]"}, "unk_token": "[UNK]"}', 4)
    put("tokenizer", "sentencepiece.bpe.model", sentencepiece_model(), 5)
    put("tokenizer", "spiece.model", sentencepiece_model(), 6)
    put("tokenizer", "vocab.json", '{"<s>": 0, "</s>": 1, "<pad>": 2, "d": 3, "o": 4, "do": 5}', 7)
    clip = {"<|startoftext|>": 0, "<|endoftext|>": 1, "d": 2, "o": 3, "g</w>": 4, "do": 5, "dog</w>": 6}
    put("tokenizer", "clip-vocab.json", json.dumps(clip), 7)
    put("tokenizer", "merges.txt", "#version: 0.2\nd o\ndo g\n", 8)
    prompts = {"prompts": {"query": "query: "}, "default_prompt_name": "query"}
    put("tokenizer", "prompts.json", json.dumps(prompts), 9)


def hdf5():
    for index, (folder, name) in enumerate(kinds("hdf5", "const KINDS")):
        put("hdf5", name, (DATA / "multimodal_sentiment" / folder / name).read_bytes(), index)


def images():
    from PIL import Image

    for name in ("alpha.png", "deep.png", "grey.png", "grey.jpg", "photo.jpg", "cmyk.jpg", "turned.jpg", "palette.gif",
                 "plain.bmp", "plain.tiff", "plain.webp"):
        put("image", name, (DATA / name).read_bytes())
    image = Image.new("RGBA", (9, 7), (200, 30, 30, 128))
    for name, options in (("lossless.webp", {"lossless": True}), ("interlaced.png", {}), ("lzw.tiff", {"compression": "tiff_lzw"}),
                          ("deflate.tiff", {"compression": "tiff_adobe_deflate"})):
        out = io.BytesIO()
        image.save(out, name.rsplit(".")[-1].replace("tif", "tif"), **options)
        put("image", name, out.getvalue())
    out = io.BytesIO()
    Image.linear_gradient("L").resize((16, 16)).convert("RGB").save(out, "jpeg", progressive=True)
    put("image", "progressive.jpg", out.getvalue())
    frames = [Image.new("P", (5, 5), i) for i in range(3)]
    out = io.BytesIO()
    frames[0].save(out, "gif", save_all=True, append_images=frames[1:])
    put("image", "animated.gif", out.getvalue())


def svgs():
    shapes = """<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="0 0 24 12">
<defs><linearGradient id="g"><stop offset="0" stop-color="red"/><stop offset="1" stop-color="#00f" stop-opacity=".5"/></linearGradient>
<clipPath id="c"><circle cx="6" cy="6" r="5"/></clipPath><filter id="f"><feGaussianBlur stdDeviation="1"/></filter>
<pattern id="p" width="2" height="2" patternUnits="userSpaceOnUse"><rect width="1" height="1"/></pattern>
<mask id="m"><rect width="9" height="9" fill="white"/></mask></defs>
<style>.a{fill:url(#g);stroke:#0a0}</style>
<g transform="translate(1 2) rotate(30)"><path class="a" d="M0 0L9 3C1 2 3 4 5 6Q1 1 2 2A3 3 0 0 1 9 9Z"/></g>
<rect width="8" height="8" fill="url(#p)" clip-path="url(#c)"/><use xlink:href="#g"/><ellipse cx="3" cy="3" rx="2" ry="1" mask="url(#m)"/>
<text x="2" y="9" font-size="3">word</text><polygon points="0,0 1,1 2,0" filter="url(#f)"/></svg>"""
    put("svg", "shapes.svg", shapes, 0)
    put("svg", "shapes.svgz", shapes, 1)
    png = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
    embedded = '<svg xmlns="http://www.w3.org/2000/svg" width="4" height="4"><image width="4" height="4" href="%s"/></svg>'
    put("svg", "embedded.svg", embedded % f"data:image/png;base64,{png}", 0)
    put("svg", "file.svg", embedded % "/etc/hostname", 0)
    put("svg", "nested.svg", '<svg xmlns="http://www.w3.org/2000/svg" width="4" height="4">' + "<g>" * 60 + "</g>" * 60 + "</svg>", 0)
    put("svg", "entities.svg", '<!DOCTYPE svg [<!ENTITY a "x">]><svg xmlns="http://www.w3.org/2000/svg" width="4cm" height="50%">&a;</svg>', 0)


def audio():
    order = ["wav", "mp3", "ogg", "flac", "m4a"]
    rate = 8000
    tone = (np.sin(np.arange(rate // 5) * 0.3) * 9000).astype("<i2")

    def wav(data, code, channels, rate, bits):
        head = struct.pack("<HHIIHH", code, channels, rate, rate * channels * bits // 8, channels * bits // 8, bits)
        return (b"RIFF" + struct.pack("<I", 36 + len(data)) + b"WAVEfmt " + struct.pack("<I", 16) + head + b"data"
                + struct.pack("<I", len(data)) + data)

    plain = wav(tone[:400].tobytes(), 1, 1, rate, 16)
    put("audio", "pcm16.wav", plain, 0)
    put("audio", "stereo24.wav", wav(bytes(range(240)), 1, 2, 44100, 24), 0)
    put("audio", "float.wav", wav(np.linspace(-1, 1, 100, dtype="<f4").tobytes(), 3, 1, 16000, 32), 0)
    put("audio", "mulaw.wav", wav(bytes(range(200)), 7, 1, rate, 8), 0)
    put("audio", "unsigned8.wav", wav(bytes(range(200)), 1, 1, rate, 8), 0)
    put("audio", "resampled.wav", wav(tone[:400].tobytes(), 1, 1, 11025, 16), 5)
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "a.wav")
        source.write_bytes(wav(tone.tobytes(), 1, 1, rate, 16))
        for name, options in (("cbr.mp3", ["-b:a", "16k"]), ("vbr.mp3", ["-q:a", "9"]), ("vorbis.ogg", ["-c:a", "libvorbis", "-q:a", "0"]),
                              ("tone.flac", []), ("aac.m4a", ["-b:a", "16k"]), ("alac.m4a", ["-c:a", "alac"]),
                              ("adpcm.wav", ["-c:a", "adpcm_ima_wav"])):
            out = Path(folder, name)
            subprocess.run(["ffmpeg", "-loglevel", "error", "-y", "-i", source, "-bitexact", *options, out], check=True)
            put("audio", name, out.read_bytes(), order.index(name.rsplit(".")[-1]))
            if name.endswith("flac"):
                put("audio", "resampled.flac", out.read_bytes(), 6)


def chat_templates():
    for folder in ("llava-siglip-qwen2", "qwen2_vl-image"):
        put("chat_template", f"{folder}.jinja", (REASON / folder / "chat_template.jinja").read_bytes())
    put("chat_template", "methods.jinja", """{%- set ns = namespace(n=0) -%}{% for m in messages %}{% if m.content is string %}{{ m['role'].upper()
.strip() + ': ' + m.content.split(' ')[-1] | trim }}{% else %}{% for c in m.content %}{{ c.get('text', 'x').replace('a', 'b')[1:] }}{% endfor %}
{% endif %}{% set ns.n = ns.n + loop.index0 %}{% endfor %}{{ messages | tojson }}{% if ns.n > 99 %}{{ raise_exception('no') }}{% endif %}
{{ strftime_now('%Y') }}{% macro f(a) %}{{ a ~ bos_token * 2 }}{% endmacro %}{{ f(eos_token) }}{{ messages[0].items() | list | length }}""")


def configs():
    for file in sorted((ROOT / "docs/pipelines").glob("*.toml")):
        put("pipeline", file.name, file.read_bytes())
    for file in sorted((ROOT / "docs/configs").rglob("*.toml")):
        put("task_config", file.name, file.read_bytes())


def model_configs():
    for index, (fixture, name) in enumerate(kinds("model_config", "const KINDS")):
        folder = REPR / "families" / fixture
        folder = folder if folder.is_dir() else REASON / fixture
        text = json.dumps(json.loads((folder / name).read_text()))
        put("model_config", f"{fixture}-{name}", text, index)


def main():
    for old in CORPUS.rglob("*"):
        if old.is_file() and not old.name.startswith("finding-"):
            old.unlink()
    for make in (npy, safetensors, pickles, words, tables, parquet, archives, tokenizers, hdf5, images, svgs, audio,
                 chat_templates, configs, model_configs):
        make()
    total = sum(f.stat().st_size for f in CORPUS.rglob("*") if f.is_file())
    print(f"{total} bytes in {CORPUS}", file=sys.stderr)


if __name__ == "__main__":
    main()
