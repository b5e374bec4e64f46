"""A temporary folder with a small data set, the processes that are started in it, and what their runs and outputs are
compared by. Everything that was started is ended, also what became a daemon."""

import ctypes
import json
import os
import pathlib
import random
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time

import numpy as np
from PIL import Image
from safetensors.numpy import load_file

CONFIG = """task = "representation"
cache_dir = "cache"
[data]
manifest = "data.jsonl"
split = {{ column = "split" }}
[data.columns.modalities]
image = "image"
[loader]
batch_size = 12
[inputs.image]
kind = "image"
image_size = 16
[model]
kind = "vae"
latent_dim = 3
network = {{ hidden_dims = [16], channels = [8, 16] }}
[train]
epochs = {epochs}
log_every_steps = 1
save_every_steps = {save}
precision = "f32"
optimizer = {{ lr = 1e-3, eps = 1e-6 }}
"""
# Weights may differ by so much from those of one process.
TOLERANCE = 1e-5
# Variables by which a launcher or scheduler around this script would speak to mm.
LAUNCHERS = ("SLURM_", "SBATCH_", "OMPI_", "PMIX_", "TORCHELASTIC_", "MASTER_", "RANK", "WORLD_SIZE", "LOCAL_", "RAY_", "MM_")


class Skip(Exception):
    """Why a part is left out."""


def need(*programs, package):
    """Skips a part where a program is missing, and says which package of Debian has it."""
    for program in programs:
        if not shutil.which(program):
            raise Skip(f"no {program} on the PATH (Debian: apt-get install {package})")


def need_root():
    if os.geteuid() != 0:
        raise Skip("needs root")


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def wait_until(is_true, what, seconds=120):
    """Waits until a function returns something true, which is returned."""
    end = time.monotonic() + seconds
    while not (found := is_true()):
        assert time.monotonic() < end, f"waited {seconds} s for {what}"
        time.sleep(0.01)
    return found


def descendants():
    """The processes that this one started, and those that they started."""
    children = {}
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if state != "Z":
            children.setdefault(int(parent), []).append(int(stat.parent.name))
    found, open_ = [], [os.getpid()]
    while open_:
        own = children.get(open_.pop(), [])
        found += own
        open_ += own
    return found


def has_variable(pid, variable):
    try:
        return variable.encode() in pathlib.Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False


class Workplace:
    def __init__(self, mm):
        # Processes whose parent has ended become children of this one (PR_SET_CHILD_SUBREAPER), so that none is lost.
        ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="mm-cluster-"))
        for name in ["logs", "tmp"]:
            (self.folder / name).mkdir()
        kept = {name: value for name, value in os.environ.items() if not name.startswith(LAUNCHERS)}
        self.variables = {
            **kept, "PATH": f"{pathlib.Path(mm).resolve().parent}:{os.environ['PATH']}", "TMPDIR": str(self.folder / "tmp"),
            "OMP_NUM_THREADS": "1", "GOMP_SPINCOUNT": "1000", "CUDA_VISIBLE_DEVICES": "", "MM_DIST_TIMEOUT_SECONDS": "60",
        }
        self.logs, self.undo, self.trained = {}, [], set()
        self.write_data()

    def write_data(self):
        numbers, rows = np.random.default_rng(0), []
        for number in range(60):
            colors = numbers.integers(0, 256, (4, 4, 3), dtype=np.uint8)
            Image.fromarray(colors.repeat(4, 0).repeat(4, 1)).save(self.folder / f"{number}.png")
            split = "train" if number < 48 else "valid"
            rows.append({"id": str(number), "image": f"{number}.png", "split": split})
        (self.folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        # 240 steps, and 600 of which each is saved.
        (self.folder / "short.toml").write_text(CONFIG.format(epochs=60, save=1000))
        (self.folder / "long.toml").write_text(CONFIG.format(epochs=150, save=1))

    def write_tables(self, name, count, rows):
        """Tables NAME-0.csv … of random texts."""
        words = "a the quick brown fox jumps over lazy dog twice elan naive cafe".split()
        rng = random.Random(0)
        for number in range(count):
            texts = (" ".join(rng.choices(words, k=24)) for _ in range(rows))
            lines = (f"{number}-{row},{text}\n" for row, text in enumerate(texts))
            (self.folder / f"{name}-{number}.csv").write_text("id,text\n" + "".join(lines))
        return f"{name}-{{0..{count - 1}}}.csv"

    def start(self, command, **variables):
        """Starts a program in the folder; what it prints is in a file."""
        log = self.folder / "logs" / f"{len(self.logs)}-{pathlib.Path(command[0]).name}.txt"
        with open(log, "wb") as file:
            process = subprocess.Popen([str(part) for part in command], cwd=self.folder, env={**self.variables, **variables},
                                       stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT)
        self.logs[process.pid] = (command, log)
        return process

    def output(self, process):
        return self.logs[process.pid][1].read_text(errors="replace")

    def finish(self, process, seconds=300, status=0):
        """What a program printed, which has to end in time with an exit status (or, for None, with any but 0)."""
        command = " ".join(map(str, self.logs[process.pid][0]))
        try:
            found = process.wait(seconds)
        except subprocess.TimeoutExpired:
            found = f"none after {seconds} s"
        is_expected = found == status if status is not None else found not in [0, f"none after {seconds} s"]
        assert is_expected, f"{command}: exit status {found}:\n" + self.output(process)[-4000:]
        return self.output(process)

    def run(self, command, seconds=300, **variables):
        return self.finish(self.start(command, **variables), seconds)

    def train(self, name, out, *more):
        """The command that trains by short.toml or long.toml."""
        return ["mm", "train", f"{name}.toml", "--out", out, *more]

    def steps(self, out):
        """The number of steps that a run has logged."""
        try:
            return (self.folder / out / "metrics.jsonl").read_text().count('"split":"train"')
        except FileNotFoundError:
            return 0

    def wait_for_steps(self, out, steps, *processes):
        def is_there():
            for process in processes:
                assert process.poll() is None, "ended before it was disturbed:\n" + self.output(process)[-4000:]
            return self.steps(out) >= steps
        wait_until(is_there, f"{steps} steps in {out}")

    def compare_weights(self, name, out):
        """The most that a weight differs from that of one process with the same config."""
        if name not in self.trained:
            self.run(self.train(name, f"one-{name}"))
            self.trained.add(name)
        expected, found = (load_file(self.folder / run / "checkpoints/last.safetensors") for run in [f"one-{name}", out])
        # Batch normalization takes away what the bias of the convolution before it adds: its gradient is zero but for
        # rounding, which Adam scales up.
        names = [n for n in expected if n.startswith("model.") and not re.search(r"conv_blocks\.\d+\.conv\.bias$", n)]
        assert len(names) > 4 and expected.keys() == found.keys(), (sorted(expected), sorted(found))
        step = [json.loads((self.folder / run / "result.json").read_text())["steps"] for run in [f"one-{name}", out]]
        assert step[0] == step[1], f"{step} steps"
        largest = max(float(np.abs(expected[n].astype(np.float64) - found[n]).max()) for n in names)
        assert largest <= TOLERANCE, f"weights differ by {largest:.1e}, more than {TOLERANCE:.0e}, after {step[0]} steps"
        return f"{step[0]} steps, weights differ from one process's by at most {largest:.1e}"

    def sessions(self, out):
        """At which steps training began, and was continued."""
        return [json.loads(line)["step"] for line in (self.folder / out / "sessions.jsonl").read_text().splitlines()]

    def compare_shards(self, expected, found):
        """The number of files that a worker wrote, which have to be equal in two folders, byte for byte."""
        def files(folder):
            paths = [p for part in ["text_emb", "metadata", "shards"] for p in (self.folder / folder / part).iterdir()]
            return {str(p.relative_to(self.folder / folder)): p.read_bytes() for p in paths}
        one, many = files(expected), files(found)
        differing = sorted(name for name in one.keys() | many.keys() if one.get(name) != many.get(name))
        assert one and not differing, f"{expected} and {found} differ in {differing[:10]}"
        return len(one)

    def clean(self):
        """Ends everything that was started, and undoes the rest."""
        for number, seconds in [(signal.SIGTERM, 8), (signal.SIGKILL, 8)]:
            end = time.monotonic() + seconds
            while running := descendants():
                for pid in running:
                    try:
                        os.kill(pid, number)
                    except ProcessLookupError:
                        pass
                time.sleep(0.2)
                if time.monotonic() > end:
                    break
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            pass
        # What libfaketime leaves of a process that was killed.
        for file in [f"/dev/shm/{name}_{pid}" for pid in self.logs for name in ["faketime_shm", "sem.faketime_sem"]]:
            pathlib.Path(file).unlink(missing_ok=True)
        while self.undo:
            subprocess.run(self.undo.pop(), stderr=subprocess.DEVNULL)

    def remove(self):
        self.clean()
        shutil.rmtree(self.folder, ignore_errors=True)
