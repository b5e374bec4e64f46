"""A server with invented answers, to test the page of `mm serve` in a browser.

    python3 mock.py [--port 8765] [--images FOLDER]

Three servers: PORT is open, PORT + 1 needs the key "secret", PORT + 2 has no index and only an answering model.
Texts of a query that do something: "slow" takes 3 s, "busy" answers 429 twice, "overload" always 503, "nothing" finds nothing.
GET /mock/log gives the JSON bodies that arrived since it was last asked for.
"""

import argparse, base64, functools, hashlib, json, math, pathlib, re, struct, threading, time, zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, quote, urlsplit

PAGE = pathlib.Path(__file__).parents[2] / "src" / "page"
SCRIPTS = ["texts", "tasks", "requests", "files", "media", "history", "search", "ask", "main"]


def assemble():
    """The page as mm-serve/src/routes/page.rs makes it."""
    script = "".join((PAGE / f"{name}.js").read_text("utf-8") for name in SCRIPTS)
    page = (PAGE / "index.html").read_text("utf-8")
    return page.replace("{{style}}", (PAGE / "style.css").read_text("utf-8")).replace("{{script}}", script).encode()

KINDS = [("bird", (196, 70, 60)), ("cat", (214, 150, 60)), ("boat", (60, 110, 190)), ("tree", (70, 140, 80)), ("moon", (120, 110, 170))]


def png(width, height, pixel, kind=2):
    rows = b"".join(b"\0" + b"".join(bytes(pixel(x / width, y / height)) for x in range(width)) for y in range(height))
    chunk = lambda name, data: struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
    header = struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@functools.cache
def scene(number, width=None, height=None):
    """A landscape with one disc, in the colors of its kind."""
    color = KINDS[number % 5][1]
    width, height = width or (240, 180, 150)[number % 3], height or (160, 180, 220)[number % 3]
    shift = number * 0.7

    def pixel(x, y):
        if math.hypot((x - 0.5 - 0.2 * math.sin(shift)) * width, (y - 0.4) * height) < 0.2 * min(width, height):
            return color
        hill = 0.68 + 0.08 * math.sin(6 * x + shift)
        return (150, 168, 140) if y > hill + 0.1 else (176, 192, 164) if y > hill else (222 - int(40 * y), 232 - int(20 * y), 240)

    return png(width, height, pixel)


def heat(image):
    """A translucent heat map of the size of a PNG file."""
    width, height = struct.unpack(">II", base64.b64decode(image.partition(",")[2])[16:24])
    warm = lambda x, y: (255, 70, 0, int(210 * math.exp(-14 * ((x - 0.5) ** 2 + (y - 0.35) ** 2))))
    return png(width, height, warm, kind=6)


@functools.cache
def wav(seconds=1.0, rate=8000):
    samples = b"".join(struct.pack("<h", int(12000 * math.sin(2 * math.pi * 440 * i / rate))) for i in range(int(seconds * rate)))
    return b"RIFF" + struct.pack("<I", 36 + len(samples)) + b"WAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 1, rate, 2 * rate, 2, 16) + b"data" + struct.pack("<I", len(samples)) + samples


def policy(page):
    digest = lambda tag: base64.b64encode(hashlib.sha256(re.search(rf"<{tag}>(.*?)</{tag}>".encode(), page, re.S)[1]).digest()).decode()
    return (f"default-src 'none'; script-src 'sha256-{digest('script')}'; style-src 'sha256-{digest('style')}'; img-src 'self' data: blob:; "
            "media-src 'self' data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, port, key=None, index=True, images=()):
        super().__init__(("127.0.0.1", port), Handler)
        self.key, self.index, self.images, self.log, self.busy = key, index, images, [], 0

    def handle_error(self, *_):  # a browser that closed the connection
        pass


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def reply(self, body, status=200, kind="application/json", **headers):
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def fail(self, status, message, param=None, **headers):
        self.reply({"error": {"message": message, "type": "invalid_request_error", "param": param, "code": None}}, status, **headers)

    def refused(self):
        if self.server.key and self.headers.get("Authorization") != f"Bearer {self.server.key}":
            self.fail(401, "this server needs a key: send Authorization: Bearer KEY")
            return True

    def do_GET(self):
        url = urlsplit(self.path)
        if url.path == "/":
            page = assemble()
            return self.reply(page, kind="text/html; charset=utf-8", Content_Security_Policy=policy(page))
        if url.path == "/mock/log":
            log, self.server.log = self.server.log, []
            return self.reply(log)
        if self.refused():
            return
        if url.path == "/v1/models":
            model = lambda name, modalities, *able: {"id": name, "object": "model", "created": 0, "owned_by": "mm", "modalities": modalities, "capabilities": able}
            some = [model("blip-vqa", ["text", "image"], "answer", "explain")]
            more = [model("clip", ["text", "image"], "embed", "zero_shot"), model("vilt", ["text", "image"], "answer"), model("blip", ["text", "image"], "caption"),
                    model("smolvlm", ["text", "image"], "chat"), model("whisper", ["audio"], "transcribe")]
            return self.reply({"object": "list", "data": some + more if self.server.index else some})
        if url.path == "/index":
            if not self.server.index:
                return self.fail(404, "no index")
            return self.reply({"rows": 1234, "modalities": ["text", "image", "audio"], "words": True, "fields": ["kind", "year", "taken on"]})
        if url.path == "/media":
            row = parse_qs(url.query)
            number = int(row["id"][0].rsplit("-", 1)[1])
            if row["field"] == ["sound"]:
                return self.reply(wav(), kind="audio/wav")
            if number == 8:
                return self.fail(404, "the file is gone")
            if self.server.images:
                return self.reply(self.server.images[number % len(self.server.images)].read_bytes(), kind="image/png")
            return self.reply(scene(number), kind="image/png")
        self.fail(404, "no such page")

    def do_POST(self):
        raw = self.rfile.read(int(self.headers["Content-Length"]))
        if self.refused():
            return
        if self.path == "/v1/audio/transcriptions":
            self.server.log.append({"path": self.path, "wav": b"RIFF" in raw, "model": b"whisper" in raw})
            return self.reply({"text": "a small red bird sings on a branch"})
        body = json.loads(raw)
        self.server.log.append({"path": self.path, **body})
        {"/search": self.search, "/answer": self.answer, "/caption": self.caption, "/v1/chat/completions": self.chat}[self.path](body)

    def search(self, body):
        text, filter = body.get("text", ""), body.get("filter", "")
        if "wrong" in filter:
            return self.fail(400, f"unknown field wrong; did you mean year?\n  {filter}\n  {' ' * filter.index('wrong')}^^^^^", "filter")
        if text == "slow":
            time.sleep(3)
        if text == "overload":
            return self.fail(503, "the model is still loading", Retry_After="1")
        if text == "busy" and self.server.busy < 2:
            self.server.busy += 1
            return self.fail(429, "too many requests", Retry_After="1")
        results = []
        for i in range(0 if text == "nothing" else body["k"]):
            kind = KINDS[i % 5][0]
            modality = "video" if i == 20 else "audio" if i % 6 == 4 else "image"
            id, field = f"{kind}-{i}", "image" if modality == "image" else "sound"
            caption = f"a {kind} over low hills in the year {1990 + i}" if i % 3 else None
            if self.server.images:
                name = self.server.images[i % len(self.server.images)]
                id, caption = f"{name.parent.name}/{name.stem}-{i}", name.with_suffix(".txt").read_text(errors="ignore").splitlines()[0] if name.with_suffix(".txt").exists() else None
            payload = {"kind": kind, "year": 1990 + i, "taken on": None, field: f"/data/{kind}/{i}", "license": "CC0", "place": {"lat": 48.1, "lon": 11.6}}
            media = [{"modality": modality, "field": field, "url": f"/media?id={quote(id)}&field={field}"}]
            results.append({"rank": i + 1, "id": id, "score": 0.342 / (1 + i / 30), "text": caption, "payload": payload, "media": media})
        steps = [{"name": "image", "method": "exact", "rows": 1234, "filtered": 310 if filter else None, "scored": 310 if filter else 1234, "seconds": 0.004, "note": None}]
        if body.get("hybrid") or body.get("words"):
            steps.append({"name": "words", "method": "bm25", "rows": 1234, "filtered": None, "scored": 88, "seconds": 0.001, "note": "combined by rank"})
        self.reply({"results": results, "steps": steps, "seconds": 0.021})

    def answer(self, body):
        scores = [("red", 0.81), ("orange", 0.11), ("brown", 0.05), ("pink", 0.02), ("red and white", 0.01)]
        reply = {"answer": "red", "results": [{"rank": i + 1, "answer": a, "score": s, "logit": math.log(s)} for i, (a, s) in enumerate(scores)]}
        if body.get("explain"):
            reply["heat_map"] = "data:image/png;base64," + base64.b64encode(heat(body["image"])).decode()
        self.reply(reply)

    def caption(self, body):
        self.reply({"text": "a red bird over low hills", "score": -0.3, "finished": True, "tokens": 7})

    def chat(self, body):
        question = body["messages"][-1]["content"]
        question = question if isinstance(question, str) else question[-1]["text"]
        words = "The image shows a red bird over low hills. It is day, and the sky is clear.".split(" ")
        if question == "long":
            words *= 40
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        try:
            for word in words:
                event = json.dumps({"choices": [{"index": 0, "delta": {"content": word + " "}, "finish_reason": None}]})
                for half in (event[:20], event[20:] + "\r\n\r\n"):  # events may be cut anywhere
                    self.wfile.write((("data: " if half == event[:20] else "") + half).encode())
                    self.wfile.flush()
                time.sleep(0.03)
            self.wfile.write(b"data: [DONE]\n\n")
        except (BrokenPipeError, ConnectionResetError):
            self.server.log.append({"stopped": True})


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=8765)
    parser.add_argument("--images", type=pathlib.Path)
    args = parser.parse_args()
    images = sorted(args.images.rglob("*.png"))[::17] if args.images else []
    servers = [Server(args.port, images=images), Server(args.port + 1, key="secret", images=images), Server(args.port + 2, index=False)]
    for server in servers[1:]:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"http://127.0.0.1:{args.port}/", flush=True)
    servers[0].serve_forever()
