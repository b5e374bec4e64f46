"""`mm serve` with ten times as many clients as it has room for: `cargo xtask bench serve-overload`.

    python serve_overload.py MM CLIENT MODEL [--clients N] [--seconds N]

The server may work on 128 requests (`max_requests`). 64 clients send texts of 3 to 60 words to all-MiniLM-L6-v2, then ten times as many as
there is room for, which wait as `Retry-After` says, and then 64 again. Latencies are those of answered requests; memory is resident, every
second.
"""

import argparse
import json
import pathlib
import random
import shutil
import statistics
import subprocess
import tempfile
import threading
import time
import urllib.request

from serve import WORDS, free_port, resident_mb

ROOM = 128


def load(options, port, bodies, server, clients, seconds):
    """What clients found, and the server's memory in each second."""
    memory, over = [], threading.Event()

    def watch():
        while not over.wait(1):
            memory.append(resident_mb(server.pid))

    thread = threading.Thread(target=watch)
    thread.start()
    url = f"http://127.0.0.1:{port}/embed"
    found = json.loads(subprocess.check_output([options.client, url, bodies, str(clients), str(seconds)]))
    over.set(), thread.join()
    part = max(1, len(memory) // 4)
    found["memory_mb"] = {"first_quarter": statistics.median(memory[:part]), "last_quarter": statistics.median(memory[-part:]), "highest": max(memory)}
    print(f"{clients} clients, {seconds:.0f} s:", json.dumps(found), flush=True)
    return found


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("mm"), parser.add_argument("client"), parser.add_argument("model", help="all-MiniLM-L6-v2")
    parser.add_argument("--clients", type=int, default=10 * ROOM)
    parser.add_argument("--seconds", type=float, default=60)
    options = parser.parse_args()
    folder, port, rng = pathlib.Path(tempfile.mkdtemp()), free_port(), random.Random(0)
    bodies, config = folder / "bodies.jsonl", folder / "serve.toml"
    texts = [" ".join(rng.choices(WORDS, k=rng.randint(3, 60))) for _ in range(2048)]
    bodies.write_text("".join(json.dumps({"inputs": text}) + "\n" for text in texts))
    config.write_text(f'port = {port}\n[[model]]\nname = "m"\npath = {json.dumps(options.model)}\n[limits]\nmax_requests = {ROOM}\n')
    server = subprocess.Popen([options.mm, "serve", "--config", config, "--quiet"], stdout=subprocess.DEVNULL)
    try:
        started = time.time()
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=2).read()
                break
            except OSError:
                if server.poll() is not None or time.time() - started > 180:
                    raise SystemExit("the server did not start")
                time.sleep(0.2)
        before = load(options, port, bodies, server, 64, options.seconds / 2)
        # As many as there is room for: what the largest batches take.
        full = load(options, port, bodies, server, ROOM, options.seconds / 2)
        during = load(options, port, bodies, server, options.clients, options.seconds)
        load(options, port, bodies, server, 64, options.seconds / 2)
    finally:
        server.terminate()
        server.wait(60)
        shutil.rmtree(folder)
    wrong = set(during["statuses"]) - {"200", "429"}
    memory = during["memory_mb"]
    print(f"p99 of accepted requests: {during['p99_ms'] / before['p99_ms']:.2f} x that of 64 clients, {during['p99_ms'] / full['p99_ms']:.2f} x that of {ROOM}; "
          f"{during['per_second'] / before['per_second']:.2f} x as many a second; "
          f"memory during the overload {memory['last_quarter'] / memory['first_quarter'] - 1:+.1%}; other statuses: {sorted(wrong) or 'none'}")
    if wrong:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
