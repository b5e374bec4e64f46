"""What `mm serve --fetch-from` sends to private addresses: nothing. Needs root (network namespaces) and no network.

    python benches/serve_private_addresses.py MM MODEL IMAGE.png        (MODEL: a checkpoint that embeds images)

Three namespaces: the server's; one with public addresses, a name server and a web server that redirects; and one with 10.0.0.2,
192.168.7.2 and 169.254.169.254, where a socket counts every IP packet. The server is asked for images at addresses in all spellings, at
names that resolve to private addresses, to a public and a private one, or to another address at each lookup, and at redirects to all of
these. Packages: none.
"""

import ctypes
import http.server
import json
import os
import pathlib
import socket
import socketserver
import struct
import subprocess
import sys
import threading
import time
import urllib.request

PUBLIC, NAMES = "93.184.216.34", "93.184.216.53"
VICTIMS = ("10.0.0.2", "192.168.7.2", "169.254.169.254")
HOSTS = {
    "ok.test": [[PUBLIC]],
    "private.test": [["10.0.0.2"]],
    "home.test": [["192.168.7.2"]],
    "cloud.test": [["169.254.169.254"]],
    "mixed.test": [[PUBLIC, "10.0.0.2"]],
    "rebind.test": [[PUBLIC], ["10.0.0.2"]],
}
ADDRESSES = [
    "10.0.0.2", "167772162", "0xa000002", "012.0.0.2", "10.2", "[::ffff:10.0.0.2]", "[::ffff:a00:2]", "[64:ff9b::a00:2]", "169.254.169.254",
    "2852039166", "0251.0376.0251.0376", "192.168.7.2", "ok.test@10.0.0.2", "10.0.0.2#@ok.test", "10.0.0.2?@ok.test", "ok.test%2f@10.0.0.2",
]  # fmt: skip


def sh(command):
    subprocess.run(command, shell=True, check=True)


def enter(namespace):
    """Moves this thread into a network namespace."""
    with open(f"/run/netns/{namespace}") as file:
        if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), 0x40000000):  # CLONE_NEWNET
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def in_namespace(namespace, work):
    """Runs `work` in a thread of its own in a namespace."""

    def run():
        enter(namespace)
        work()

    threading.Thread(target=run, daemon=True).start()


def name_server():
    asked = {}
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind((NAMES, 53))
    while True:
        query, sender = server.recvfrom(512)
        labels, at = [], 12
        while query[at]:
            labels.append(query[at + 1 : at + 1 + query[at]].decode())
            at += query[at] + 1
        name, kind = ".".join(labels), struct.unpack(">H", query[at + 1 : at + 3])[0]
        answers = HOSTS.get(name, [[]])
        number = asked.get(name, 0)
        found = answers[number % len(answers)] if kind == 1 else []
        if kind == 1:
            asked[name] = number + 1
        records = b"".join(b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 0, 4) + socket.inet_aton(address) for address in found)
        code = 0x8180 if name in HOSTS else 0x8183
        server.sendto(query[:2] + struct.pack(">HHHHH", code, 1, len(found), 0, 0) + query[12 : at + 5] + records, sender)


def web_server(image):
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path.startswith("/to?"):
                self.send_response(302)
                self.send_header("location", self.path[4:])
                self.end_headers()
                return
            self.send_response(200)
            self.send_header("content-type", "image/png")
            self.end_headers()
            self.wfile.write(image)

        def log_message(self, *_):
            pass

    class Server(http.server.ThreadingHTTPServer):
        server_bind = socketserver.TCPServer.server_bind  # HTTPServer's looks up its own name

    Server((PUBLIC, 80), Handler).serve_forever()


def main():
    mm, model, image = sys.argv[1:4]
    for name in ("app", "public", "victim"):
        subprocess.run(["ip", "netns", "del", f"mm-{name}"], stderr=subprocess.DEVNULL)
        sh(f"ip netns add mm-{name} && ip -n mm-{name} link set lo up")
    for name, addresses in (("public", (PUBLIC, NAMES)), ("victim", VICTIMS)):
        sh(f"ip link add mm-a-{name} netns mm-app type veth peer name mm-b netns mm-{name}")
        sh(f"ip -n mm-app link set mm-a-{name} up && ip -n mm-{name} link set mm-b up")
        own = "93.184.216.1" if name == "public" else "10.0.0.1"
        sh(f"ip -n mm-app addr add {own}/24 dev mm-a-{name}")
        for address in addresses:
            sh(f"ip -n mm-{name} addr add {address}/24 dev mm-b")
            sh(f"ip -n mm-app route replace {address}/32 dev mm-a-{name} src {own}")
        sh(f"ip -n mm-{name} route add default dev mm-b")
    folder = pathlib.Path("/etc/netns/mm-app")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "resolv.conf").write_text(f"nameserver {NAMES}\noptions timeout:1 attempts:1\n")
    packets = []

    def receive(sniffer):
        try:
            return sniffer.recv(2000)
        except OSError:  # the namespace is gone
            return None

    def sniff():
        sniffer = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.ntohs(0x0003))
        sniffer.bind(("mm-b", 0))
        while frame := receive(sniffer):
            # IPv4; neighbour discovery of IPv6 is the kernel's own.
            if frame[12:14] == b"\x08\x00":
                packets.append(frame)

    in_namespace("mm-victim", sniff)
    in_namespace("mm-public", name_server)
    in_namespace("mm-public", lambda: web_server(pathlib.Path(image).read_bytes()))
    time.sleep(2)
    command = ["ip", "netns", "exec", "mm-app", mm, "serve", "--model", model, "--port", "8099"]
    command += [part for host in HOSTS for part in ("--fetch-from", host)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        ask(packets)
    finally:
        server.terminate()
        server.wait(60)
        for name in ("app", "public", "victim"):
            subprocess.run(["ip", "netns", "del", f"mm-{name}"])
        (folder / "resolv.conf").unlink()
        folder.rmdir()


def ask(packets):
    results = {}

    def work():
        enter("mm-app")
        base = "http://127.0.0.1:8099"
        for _ in range(300):
            try:
                urllib.request.urlopen(base + "/ready").read()
                break
            except OSError:
                time.sleep(0.2)

        def status(url):
            body = json.dumps({"input": [{"image": url}]}).encode()
            request = urllib.request.Request(base + "/v1/embeddings", body, {"content-type": "application/json"})
            try:
                return urllib.request.urlopen(request, timeout=60).status
            except urllib.error.HTTPError as error:
                if url == "http://ok.test/a.png":
                    print(error.read().decode())
                return error.code

        results["http://ok.test/a.png"] = status("http://ok.test/a.png")
        urls = [f"http://{host}/" for host in [*ADDRESSES, *list(HOSTS)[1:]]]
        for url in urls + [f"http://ok.test/to?{url}" for url in urls] + ["http://rebind.test/"] * 4:
            results[url] = max(results.get(url, 0), status(url)) if url != "http://rebind.test/" else min(results.get(url, 999), status(url))
        # That packets are counted at all.
        before = len(packets)
        try:
            socket.create_connection(("10.0.0.2", 80), timeout=1).close()
        except OSError:
            pass
        time.sleep(0.5)
        results["counted"] = len(packets) - before
        results["sent"] = before

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    counted, sent = results.pop("counted"), results.pop("sent")
    allowed = {url: status for url, status in results.items() if status == 200}
    print(f"{len(results)} URLs; answered: {sorted(allowed)}; refused: {len(results) - len(allowed)}, with {sorted(set(results.values()) - {200})}")
    print(f"packets at private addresses: {sent} (a connection that was made on purpose: {counted})")
    fine = {"http://ok.test/a.png", "http://rebind.test/", "http://ok.test/to?http://rebind.test/"}
    if sent or not counted or "http://ok.test/a.png" not in allowed or set(allowed) - fine:
        sys.exit("a request reached a private address, or the check does not work")


if __name__ == "__main__":
    main()
