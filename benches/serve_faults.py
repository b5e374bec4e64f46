"""Mixed load on `mm serve` while something goes wrong every ten seconds: no wrong answer, no lost row, no growing memory.

    cargo xtask bench serve-faults [--minutes N] [--rate N]        (root: a disk that fills is a small tmpfs, mounted for the time)

    python serve_faults.py MM MODEL [--minutes N] [--rate REQUESTS_PER_SECOND] [--seed N]

Without `--rate` clients send 0.7 of what the server answers without a pause. They embed texts, search, compare, and write and delete rows. Every answer is compared with what the idle server said before, and at the
end the store with the rows that were acknowledged. Faults, in turn: a client that goes away in the middle of its request, or before its
answer; weights that are replaced by the same (the model is loaded again); the store locked by another process for 3 s; a full disk for 3 s;
a client that sends nonsense; one that sends a byte a second. Packages: none.
"""

import argparse
import base64
import collections
import http.client
import json
import os
import pathlib
import random
import shutil
import socket
import sqlite3
import struct
import subprocess
import sys
import tempfile
import threading
import time

WORDS = "the of a in to and it was for on with as by at from dog cat bird red house water tree light city music".split()


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Client:
    """One connection, opened again where the server closed it."""

    def __init__(self, port):
        self.port, self.connection = port, None

    def post(self, path, body):
        for attempt in range(2):
            try:
                if self.connection is None:
                    self.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=90)
                self.connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
                response = self.connection.getresponse()
                return response.status, response.read()
            except (http.client.RemoteDisconnected, ConnectionError, BrokenPipeError):
                self.connection = None
                if attempt:
                    raise


def vectors(body):
    rows = json.loads(body)["data"]
    return [struct.unpack(f"{len(raw) // 4}f", raw) for raw in (base64.b64decode(row["embedding"]) for row in rows)]


def close(a, b, tolerance=2e-5):
    return len(a) == len(b) and all(abs(x - y) < tolerance for x, y in zip(a, b))


class Load:
    def __init__(self, port, texts, rate):
        self.port, self.texts, self.rate = port, texts, rate
        self.statuses, self.wrong = collections.Counter(), []
        self.rows, self.unknown = {}, set()  # acknowledged rows by id; ids of writes without an answer
        self.number, self.lock, self.stop = 0, threading.Lock(), threading.Event()
        client = Client(port)
        status, body = client.post("/v1/embeddings", {"input": texts, "encoding_format": "base64"})
        assert status == 200, body
        self.expected = dict(zip(texts, vectors(body)))
        self.found = {text: self.search(client, text)[1] for text in texts}

    def search(self, client, text):
        status, body = client.post("/search", {"text": text, "k": 5, "filter": "kind = \"fixed\""})
        return status, [(hit["id"], hit["score"]) for hit in json.loads(body)["results"]] if status == 200 else body

    def check(self, what, right, answer):
        if not right:
            with self.lock:
                self.wrong.append(f"{what}: {answer!r:.300}")

    def embed(self, client, rng):
        texts = rng.sample(self.texts, rng.randint(1, 8))
        status, body = client.post("/v1/embeddings", {"input": texts, "encoding_format": "base64"})
        if status == 200:
            right = all(close(v, self.expected[t]) for v, t in zip(vectors(body), texts, strict=True))
            self.check("embed", right, body)
        return "embed", status, body

    def find(self, client, rng):
        text = rng.choice(self.texts)
        status, hits = self.search(client, text)
        if status == 200:
            expected = self.found[text]
            self.check("search", [h[0] for h in hits] == [h[0] for h in expected] and close([h[1] for h in hits], [h[1] for h in expected], 1e-4), hits)
        return "search", status, hits

    def compare(self, client, rng):
        one, other = rng.sample(self.texts, 2)
        status, body = client.post("/similarity", {"inputs": {"source_sentence": one, "sentences": [other, one]}})
        if status == 200:
            expected = sum(a * b for a, b in zip(self.expected[one], self.expected[other]))
            self.check("similarity", close(json.loads(body), [expected, 1.0], 1e-4), body)
        return "similarity", status, body

    def write(self, client, rng):
        with self.lock:
            self.number += 1
            row = f"row-{self.number}"
            self.unknown.add(row)
        text = rng.choice(self.texts)
        status, body = client.post("/upsert", {"rows": [{"id": row, "text": text, "payload": {"kind": "written"}}]})
        with self.lock:
            self.unknown.discard(row)
            if status == 200:
                self.rows[row] = text
        return "upsert", status, body

    def delete(self, client, rng):
        with self.lock:
            row = rng.choice(list(self.rows)) if self.rows else None
            if row is None:
                return "delete", None, b""
            text = self.rows.pop(row)
            self.unknown.add(row)
        status, body = client.post("/delete", {"ids": [row]})
        with self.lock:
            self.unknown.discard(row)
            if status != 200:
                self.rows[row] = text
        return "delete", status, body

    def client(self, seed, writes=True):
        client, rng = Client(self.port), random.Random(seed)
        kinds = [self.embed] * 5 + [self.find] * 3 + [self.compare] + ([self.write] * 2 + [self.delete] if writes else [])
        while not self.stop.is_set():
            started = time.time()
            try:
                kind, status, body = rng.choice(kinds)(client, rng)
            except OSError as error:
                kind, status, body = "connection", type(error).__name__, str(error)
            with self.lock:
                self.statuses[f"{kind} {status}"] += 1
                # Busy, loading, or what a lock or a full disk makes of a write; anything else is a fault.
                expected = status in (200, 429, 503, None) or status == 507 and kind in ("upsert", "delete")
                if not expected and len(self.wrong) < 1000:
                    self.wrong.append(f"{kind} {status}: {body!r:.300}")
            self.stop.wait(max(0.0, rng.expovariate(self.rate) - (time.time() - started)))


class Faults:
    def __init__(self, port, model, store):
        self.port, self.model, self.store = port, model, store
        self.counts = collections.Counter()

    def raw(self, data, wait=0.0, answer=False):
        with socket.create_connection(("127.0.0.1", self.port)) as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset, as of a killed process
            s.sendall(data)
            time.sleep(wait)
            if answer:
                s.recv(10)

    def request(self, body, length=None):
        head = f"POST /v1/embeddings HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {length or len(body)}\r\n\r\n"
        return head.encode() + body

    def half_a_request(self):
        self.raw(self.request(b'{"input": "a', 5000), 0.2)

    def no_answer_wanted(self):
        self.raw(self.request(json.dumps({"input": ["a dog " * 100] * 64}).encode()), 0.01)

    def model_replaced(self):
        for name in ("model.safetensors", "config.json"):
            copy = self.model / f"{name}.new"
            shutil.copyfile(self.model / name, copy)
            os.replace(copy, self.model / name)

    def store_locked(self):
        other = sqlite3.connect(self.store / "index.sqlite", isolation_level=None, timeout=30)
        other.execute("BEGIN IMMEDIATE")
        time.sleep(3)
        other.execute("ROLLBACK")
        other.close()

    def disk_full(self):
        filler = self.store.parent / "filler"
        try:
            with open(filler, "wb") as file:
                while True:
                    file.write(bytes(1 << 16))
        except OSError:
            pass
        time.sleep(3)
        filler.unlink()

    def nonsense(self):
        self.raw(os.urandom(4000), 0.1)
        self.raw(self.request(b"\xff\xfe{{{{"), 0.1, answer=True)

    def a_byte_a_second(self):
        with socket.create_connection(("127.0.0.1", self.port)) as s:
            for byte in self.request(b'{"input": "a"}')[:6]:
                s.sendall(bytes([byte]))
                time.sleep(1)

    def run(self, stop, seconds):
        kinds = [self.half_a_request, self.no_answer_wanted, self.model_replaced, self.store_locked, self.disk_full, self.nonsense, self.a_byte_a_second]
        while True:
            for kind in kinds:
                if stop.wait(seconds):
                    return
                kind()
                self.counts[kind.__name__] += 1


def resident_mb(pid):
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS"))) / 1024


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("mm"), parser.add_argument("model")
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--rate", type=float, help="requests a second of all clients [default: 0.7 of what the server answers without a pause]")
    parser.add_argument("--every", type=float, default=10, help="seconds between faults")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    texts = sorted({" ".join(rng.choices(WORDS, k=rng.randint(3, 40))) for _ in range(60)})
    folder = pathlib.Path(tempfile.mkdtemp(prefix="mm-serve-faults-"))
    disk = folder / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", disk], check=True)
    try:
        shutil.copytree(arguments.model, folder / "model", symlinks=False)
        (folder / "rows.jsonl").write_text("".join(json.dumps({"id": f"fixed-{n}", "text": t, "kind": "fixed"}) + "\n" for n, t in enumerate(texts)))
        store, port = disk / "store", free_port()
        build = [arguments.mm, "index", "build", folder / "rows.jsonl", "--model", folder / "model", "--modality", "text", "--store", store]
        subprocess.run(build, check=True, stdout=subprocess.DEVNULL)
        config = folder / "serve.toml"
        config.write_text(f'port = {port}\nstore = "{store}"\nwritable = true\nreload_seconds = 2\n[[model]]\nname = "m"\npath = "{folder / "model"}"\n')
        log = open(folder / "log", "wb")
        server = subprocess.Popen([arguments.mm, "serve", "--config", config], stdout=log, stderr=log)
        try:
            measure(arguments, server, port, texts, folder, store)
        finally:
            server.terminate()
            print("the server ended with", server.wait(60))
    finally:
        subprocess.run(["umount", "-l", disk])
        shutil.rmtree(folder)


def capacity(port, texts, clients, seconds=30):
    """Requests a second of the same kinds without a pause between them. Nothing is written."""
    load = Load(port, texts, float("inf"))
    threads = [threading.Thread(target=load.client, args=(n, False), daemon=True) for n in range(clients)]
    [thread.start() for thread in threads]
    time.sleep(seconds)
    load.stop.set()
    [thread.join(120) for thread in threads]
    if load.wrong:
        raise SystemExit(f"the server answers wrongly without faults: {load.wrong[0]}")
    return sum(count for kind, count in load.statuses.items() if kind.endswith(" 200")) / seconds


def measure(arguments, server, port, texts, folder, store):
    for _ in range(600):
        try:
            with socket.create_connection(("127.0.0.1", port)) as s:
                s.sendall(b"GET /ready HTTP/1.0\r\n\r\n")
                if b" 200 " in s.recv(100):
                    break
        except OSError:
            pass
        time.sleep(0.2)
    clients = 8
    rate = arguments.rate or 0.7 * capacity(port, texts, clients)
    print(f"{rate:.1f} requests a second", flush=True)
    load = Load(port, texts, rate / clients)
    faults = Faults(port, folder / "model", store)
    threads = [threading.Thread(target=load.client, args=(n,), daemon=True) for n in range(clients)]
    threads.append(threading.Thread(target=faults.run, args=(load.stop, arguments.every), daemon=True))
    [thread.start() for thread in threads]
    started, memory = time.time(), []
    while time.time() - started < arguments.minutes * 60 and server.poll() is None:
        time.sleep(10)
        memory.append(resident_mb(server.pid))
        minutes = (time.time() - started) / 60
        if len(memory) % 30 == 0:
            print(f"{minutes:.1f} min: {sum(load.statuses.values())} requests, {len(load.wrong)} wrong, {memory[-1]:.0f} MB", flush=True)
    load.stop.set()
    [thread.join(120) for thread in threads]
    print("faults:", dict(faults.counts))
    print("answers:", dict(sorted(load.statuses.items())))
    # The median of a fifth, since a model that is being loaded is in memory twice.
    part = max(1, len(memory) // 5)
    early, late = sorted(memory[part : 2 * part])[part // 2], sorted(memory[-part:])[part // 2]
    print(f"resident memory: {early:.1f} MB in the second fifth, {late:.1f} MB in the last ({late / early - 1:+.1%}); highest {max(memory):.1f} MB")
    database = sqlite3.connect(f"file:{store / 'index.sqlite'}?mode=ro", uri=True)
    stored = {row for (row,) in database.execute("SELECT id FROM row_data WHERE id LIKE 'row-%'")}
    lost, extra = set(load.rows) - stored, stored - set(load.rows) - load.unknown
    print(f"rows: {len(load.rows)} acknowledged, {len(lost)} of them lost, {len(extra)} that were refused or deleted are there")
    for wrong in load.wrong[:20]:
        print("wrong:", wrong)
    subprocess.run([arguments.mm, "index", "check", "--store", store], check=True)
    if load.wrong or lost or extra or server.poll() is not None:
        sys.exit(f"{len(load.wrong)} wrong answers, {len(lost)} rows lost, {len(extra)} rows too many, server {server.poll()}")


if __name__ == "__main__":
    main()
