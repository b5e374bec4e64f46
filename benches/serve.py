"""`mm serve` compared with other servers of the same checkpoint, taking turns: `cargo xtask bench serve`.

    python serve.py MM CLIENT MODEL FOLDER [--kind texts|images|speech] [--clients N] [--seconds N] [--rounds N] [--infinity PYTHON] [--vllm PROGRAM]

`texts`: 64 clients send texts of 3 to 60 words to all-MiniLM-L6-v2; then one client sends one short text at a time, over one
connection. Before each turn of mm the same short texts are embedded in one process without a server: the difference of the
two is what the server adds. `images`: 16 clients
send jpegs of 640 x 480 to CLIP ViT-B/32, `speech`: 4 clients send wavs of 4 to 12 seconds to Whisper base; these two checkpoints have
random weights (as fast as trained ones) and are written to FOLDER. Whisper's ends after 48 tokens.
"""

import argparse
import base64
import io
import json
import os
import pathlib
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

WORDS = "the of a in to and it was for on with as by at from dog cat bird red house water tree light city music".split()


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def resident_mb(pid):
    """Resident memory of a process and its children, in MB."""
    total, pending = 0, [pid]
    while pending:
        pid = pending.pop()
        try:
            status = pathlib.Path(f"/proc/{pid}/status").read_text()
            total += int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS")))
            pending += map(int, pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
        except (OSError, StopIteration):
            pass
    return total / 1024


def measure(name, command, port, client, work, clients, seconds):
    log = tempfile.TemporaryFile()
    # infinity's BetterTransformer needs an older transformers than it runs with here.
    environment = {
        **os.environ, "INFINITY_BETTERTRANSFORMER": "false", "DO_NOT_TRACK": "1", "VLLM_NO_USAGE_STATS": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1"}
    process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
    base = f"http://127.0.0.1:{port}"
    try:
        started = time.time()
        while True:
            try:
                urllib.request.urlopen(base + ("/ready" if name == "mm" else "/health"), timeout=2).read()
                break
            except OSError:
                if process.poll() is not None or time.time() - started > 180:
                    log.seek(0)
                    print(f"{name} did not start:\n{log.read().decode(errors='replace')[-2000:]}", file=sys.stderr)
                    return None
                time.sleep(0.2)
        ready = time.time() - started
        run = lambda file, n: json.loads(subprocess.check_output([client, base + work.path, file, str(n), str(seconds), work.content_type]))
        many, one = run(work.many, clients), run(work.one, 1)
        return {"ready_s": ready, "per_second": many["per_second"], "p50_ms": many["p50_ms"], "p99_ms": many["p99_ms"],
                "statuses": many["statuses"], "alone_p50_ms": one["p50_ms"], "memory_mb": resident_mb(process.pid)}
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()


def in_process(client, model, work, seconds):
    """The short texts of `work`, embedded in one process without a server."""
    command = [client, "in-process", model, work.one, str(seconds)]
    return json.loads(subprocess.check_output(command))


class Work:
    """What the clients send, and the servers that take it."""

    def __init__(self, folder, path, many, one, clients, unit, content_type="application/json"):
        self.path, self.clients, self.unit, self.content_type = path, clients, unit, content_type
        self.many, self.one = str(folder / "many.jsonl"), str(folder / "one.jsonl")
        for file, bodies in ((self.many, many), (self.one, one)):
            pathlib.Path(file).write_text("\n".join(bodies) + "\n")


def texts(folder, rng):
    body = lambda words: json.dumps({"model": "m", "input": " ".join(rng.choices(WORDS, k=words))})
    return Work(folder, "/v1/embeddings", [body(rng.randint(3, 60)) for _ in range(2000)], [body(6) for _ in range(200)], 64, "texts")


def photo(numbers):
    """A jpeg with the spectrum of a photo: smooth noise."""
    from PIL import Image

    small = Image.fromarray(numbers.integers(0, 256, (24, 32, 3), dtype="uint8"))
    buffer = io.BytesIO()
    small.resize((640, 480), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def images(folder, rng):
    import numpy

    numbers = numpy.random.default_rng(0)
    body = lambda: json.dumps({
        "model": "m", "modality": "image", "input": "data:image/jpeg;base64," + base64.b64encode(photo(numbers)).decode()})
    return Work(folder, "/v1/embeddings", [body() for _ in range(200)], [body() for _ in range(20)], 16, "images")


BOUNDARY = "mm-bench"


def speech(folder, rng):
    import numpy
    import wave

    numbers = numpy.random.default_rng(0)

    def body(index, seconds):
        buffer = io.BytesIO()
        with wave.open(buffer, "wb") as file:
            file.setnchannels(1), file.setsampwidth(2), file.setframerate(16000)
            file.writeframes((numbers.normal(0, 2000, int(16000 * seconds))).astype("<i2").tobytes())
        part = lambda header, data: f"--{BOUNDARY}\r\nContent-Disposition: form-data; {header}\r\n\r\n".encode() + data + b"\r\n"
        whole = part('name="model"', b"m") + part('name="language"', b"en")
        whole += part('name="file"; filename="a.wav"\r\nContent-Type: audio/wav', buffer.getvalue()) + f"--{BOUNDARY}--\r\n".encode()
        path = folder / f"{index}.body"
        path.write_bytes(whole)
        return f"@{path}"

    many = [body(n, rng.uniform(4, 12)) for n in range(40)]
    return Work(folder, "/v1/audio/transcriptions", many, [body("one", 6)], 4, "files", f"multipart/form-data; boundary={BOUNDARY}")


def make_clip(folder):
    import shutil
    import torch
    import transformers as tf

    torch.manual_seed(0)
    fixture = pathlib.Path(__file__).parent.parent / "crates/mm-repr/tests/fixtures/families/clip-eos-gelu"
    tf.CLIPModel(tf.CLIPConfig()).save_pretrained(folder)
    tf.CLIPImageProcessorPil().save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(fixture / name, folder)


def make_whisper(folder):
    import shutil
    import torch
    import transformers as tf

    torch.manual_seed(0)
    fixture = pathlib.Path(__file__).parent.parent / "crates/mm-reason/tests/fixtures/whisper-multilingual"
    tokens = json.loads((fixture / "config.json").read_text())
    ids = {key: tokens[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id", "decoder_start_token_id")}
    # Whisper base; special tokens, and those that its tokenizer lacks, are never generated.
    sizes = dict(d_model=512, encoder_layers=6, decoder_layers=6, encoder_attention_heads=8, decoder_attention_heads=8, encoder_ffn_dim=2048, decoder_ffn_dim=2048)
    config = tf.WhisperConfig(**sizes, **ids, vocab_size=51865)
    model = tf.WhisperForConditionalGeneration(config)
    generation = json.loads((fixture / "generation_config.json").read_text())
    # transformers would make its own from config.json.
    generation.pop("_from_model_config", None)
    generation |= {"max_length": 48, "suppress_tokens": list(range(ids["decoder_start_token_id"], 51865)) + [ids["eos_token_id"]]}
    model.save_pretrained(folder)
    (folder / "generation_config.json").write_text(json.dumps(generation))
    tf.WhisperFeatureExtractor().save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(fixture / name, folder)


KINDS = {"texts": (texts, None), "images": (images, make_clip), "speech": (speech, make_whisper)}


def checkpoint(kind, given, folder):
    make = KINDS[kind][1]
    if make is None:
        return given
    folder = pathlib.Path(folder) / kind
    if not (folder / "complete").exists():
        folder.mkdir(parents=True, exist_ok=True)
        make(folder)
        (folder / "complete").write_text("")
    return str(folder)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("mm")
    parser.add_argument("client")
    parser.add_argument("model", help="all-MiniLM-L6-v2")
    parser.add_argument("folder", help="where checkpoints with random weights are written")
    parser.add_argument("--kind", choices=KINDS, default="texts")
    parser.add_argument("--clients", type=int)
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--infinity", help="interpreter of an environment with infinity-emb")
    parser.add_argument("--vllm", help="the program vllm of an environment with its build for CPUs")
    options = parser.parse_args()
    model = checkpoint(options.kind, options.model, options.folder)
    work = KINDS[options.kind][0](pathlib.Path(tempfile.mkdtemp()), random.Random(0))
    servers = {
        "mm": lambda port: [options.mm, "serve", "--model", f"m={model}", "--port", str(port), "--quiet"],
        "FastAPI": lambda port: [
            sys.executable, str(pathlib.Path(__file__).parent / "serve_fastapi.py"), model, str(port), options.kind],
    }
    if options.infinity and options.kind != "speech":
        servers["infinity"] = lambda port: [
            str(pathlib.Path(options.infinity).parent / "infinity_emb"), "v2", "--model-id", model, "--served-model-name", "m",
            "--port", str(port), "--host", "127.0.0.1", "--url-prefix", "/v1", "--engine", "torch", "--device", "cpu",
            "--batch-size", "32"]
    if options.vllm and options.kind == "texts":
        servers["vLLM"] = lambda port: [
            options.vllm, "serve", model, "--runner", "pooling", "--dtype", "float32", "--served-model-name", "m", "--host", "127.0.0.1",
            "--port", str(port), "--disable-log-stats"]
    results = {name: [] for name in servers}
    alone = []  # p50 of one process without a server, and of mm's server, of each round
    for _ in range(options.rounds):
        for name, command in servers.items():
            port = free_port()
            direct = in_process(options.client, model, work, options.seconds) if name == "mm" and options.kind == "texts" else None
            found = measure(name, command(port), port, options.client, work, options.clients or work.clients, options.seconds)
            if found and set(found["statuses"]) != {"200"}:
                raise SystemExit(f"{name} answered {found['statuses']}")
            if found:
                results[name].append(found)
                print(name, json.dumps(found), flush=True)
            if found and direct:
                added = found["alone_p50_ms"] - direct["p50_ms"]
                alone.append({"in_process_p50_ms": direct["p50_ms"], "server_p50_ms": found["alone_p50_ms"], "added_ms": added})
                print("one short text", json.dumps(alone[-1]), flush=True)
    middle = lambda rows, key: statistics.median(row[key] for row in rows)
    print(f"\n{'':32} {work.unit + '/s':>9} {'p50 ms':>8} {'p99 ms':>8} {'alone p50 ms':>13} {'memory MB':>10} {'ready s':>8}")
    for name, rows in results.items():
        if rows:
            keys = ["per_second", "p50_ms", "p99_ms", "alone_p50_ms", "memory_mb", "ready_s"]
            values = [middle(rows, key) for key in keys]
            print(f"{name:32} {values[0]:9.1f} {values[1]:8.1f} {values[2]:8.1f} {values[3]:13.2f} {values[4]:10.0f} {values[5]:8.1f}")
    if alone:
        direct, server, added = (middle(alone, key) for key in ("in_process_p50_ms", "server_p50_ms", "added_ms"))
        print(f"{'in one process, without a server':32} {'':9} {'':8} {'':8} {direct:13.2f}")
        print(f"one short text on an idle server: p50 {server:.2f} ms, in one process {direct:.2f} ms: {added:+.2f} ms (medians; at most +1)")
    ours = results["mm"]
    for name, rows in results.items():
        if rows and name != "mm" and ours:
            print(f"mm / {name}: {middle(ours, 'per_second') / middle(rows, 'per_second'):.2f} x {work.unit} a second, "
                  f"{middle(ours, 'memory_mb') / middle(rows, 'memory_mb'):.2f} of the memory")


if __name__ == "__main__":
    main()
