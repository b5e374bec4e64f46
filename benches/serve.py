"""`mm serve` compared with other servers of the same checkpoint, taking turns: `cargo xtask bench serve`.

    python serve.py MM CLIENT MODEL [--clients N] [--seconds N] [--rounds N] [--infinity PYTHON]

64 clients send texts of 3 to 60 words; then one client sends one short text at a time.
"""

import argparse
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


def measure(name, command, port, client, files, clients, seconds):
    log = tempfile.TemporaryFile()
    # infinity's BetterTransformer needs an older transformers than it runs with here.
    environment = {**os.environ, "INFINITY_BETTERTRANSFORMER": "false", "DO_NOT_TRACK": "1"}
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
        run = lambda file, n: json.loads(subprocess.check_output([client, base + "/v1/embeddings", file, str(n), str(seconds)]))
        many, one = run(files[0], clients), run(files[1], 1)
        return {"ready_s": ready, "per_second": many["per_second"], "p50_ms": many["p50_ms"], "p99_ms": many["p99_ms"],
                "statuses": many["statuses"], "alone_p50_ms": one["p50_ms"], "memory_mb": resident_mb(process.pid)}
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("mm")
    parser.add_argument("client")
    parser.add_argument("model")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--infinity", help="interpreter of an environment with infinity-emb")
    options = parser.parse_args()
    rng = random.Random(0)
    folder = pathlib.Path(tempfile.mkdtemp())
    body = lambda words: json.dumps({"model": "minilm", "input": " ".join(rng.choices(WORDS, k=words))})
    files = [folder / "many.jsonl", folder / "one.jsonl"]
    files[0].write_text("\n".join(body(rng.randint(3, 60)) for _ in range(2000)))
    files[1].write_text("\n".join(body(6) for _ in range(200)))
    servers = {
        "mm": lambda port: [options.mm, "serve", "--model", f"minilm={options.model}", "--port", str(port), "--quiet"],
        "FastAPI + sentence-transformers": lambda port: [
            sys.executable, str(pathlib.Path(__file__).parent / "serve_fastapi.py"), options.model, str(port)],
    }
    if options.infinity:
        servers["infinity"] = lambda port: [
            str(pathlib.Path(options.infinity).parent / "infinity_emb"), "v2", "--model-id", options.model, "--served-model-name", "minilm",
            "--port", str(port), "--host", "127.0.0.1", "--url-prefix", "/v1", "--engine", "torch", "--device", "cpu",
            "--batch-size", "32"]
    results = {name: [] for name in servers}
    for _ in range(options.rounds):
        for name, command in servers.items():
            port = free_port()
            found = measure(name, command(port), port, options.client, files, options.clients, options.seconds)
            if found:
                results[name].append(found)
                print(name, json.dumps(found), flush=True)
    middle = lambda rows, key: statistics.median(row[key] for row in rows)
    print(f"\n{'':32} {'texts/s':>9} {'p50 ms':>8} {'p99 ms':>8} {'alone p50 ms':>13} {'memory MB':>10} {'ready s':>8}")
    for name, rows in results.items():
        if rows:
            keys = ["per_second", "p50_ms", "p99_ms", "alone_p50_ms", "memory_mb", "ready_s"]
            values = [middle(rows, key) for key in keys]
            print(f"{name:32} {values[0]:9.1f} {values[1]:8.1f} {values[2]:8.1f} {values[3]:13.2f} {values[4]:10.0f} {values[5]:8.1f}")
    ours = results["mm"]
    for name, rows in results.items():
        if rows and name != "mm" and ours:
            print(f"mm / {name}: {middle(ours, 'per_second') / middle(rows, 'per_second'):.2f} x texts a second, "
                  f"{middle(ours, 'memory_mb') / middle(rows, 'memory_mb'):.2f} of the memory")


if __name__ == "__main__":
    main()
