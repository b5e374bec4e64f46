"""Training and sharded embedding as on a cluster, on this host alone: launchers, schedulers, links that are cut, clocks
that differ. Each is compared with one undisturbed process.

    python cluster.py MM TORCHRUN ROOT [--only torchrun,slurm]

ROOT is the repository. A part whose programs are missing is skipped. Packages: ray[data]==2.60.* pyarrow numpy pillow
safetensors.
"""

import argparse
import glob
import importlib.util
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time
import traceback

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from cluster_processes import Skip, Workplace, descendants, free_port, has_variable, need, need_root, wait_until

# Where a run that is trained to its end is disturbed.
DISTURBED_STEP = 60


def rank_variables(rank, address="127.0.0.1", port=0):
    return {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": "0", "MASTER_ADDR": address, "MASTER_PORT": str(port)}


def check_torchrun(place):
    if not place.torchrun.exists():
        raise Skip(f"no {place.torchrun}")
    torchrun = [place.torchrun, "--no-python", "--nproc-per-node", "2"]
    place.run([*torchrun, "--master-port", free_port(), *place.train("short", "torchrun")])
    two = place.compare_weights("short", "torchrun")
    restarts = ["--master-port", free_port(), "--max-restarts", "3"]
    process = place.start([*torchrun, *restarts, *place.train("long", "restarted", "--resume")])
    place.wait_for_steps("restarted", DISTURBED_STEP, process)
    victim = next(pid for pid in descendants() if has_variable(pid, "RANK=1"))
    os.kill(victim, signal.SIGKILL)
    place.finish(process)
    sessions = place.sessions("restarted")
    assert len(sessions) == 2 and sessions[1] > 0, f"began at the steps {sessions}"
    restarted = place.compare_weights("long", "restarted")
    return f"2 ranks: {two}; rank 1 killed, continued from step {sessions[1]}: {restarted}"


def check_mpirun(place):
    need("mpirun", package="openmpi-bin")
    version = subprocess.check_output(["mpirun", "--version"], text=True)
    if "Open MPI" not in version:
        raise Skip(f"mpirun is not Open MPI's: {version.splitlines()[0]}")
    # As root, on a host without ssh, with fewer cores than ranks.
    variables = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "OMPI_MCA_plm_rsh_agent": "true",
                 "OMPI_MCA_rmaps_base_oversubscribe": "1", "MASTER_PORT": str(free_port())}
    place.run(["mpirun", "-np", "2", *place.train("short", "mpirun")], **variables)
    return f"2 ranks: {place.compare_weights('short', 'mpirun')}"


SLURM_CONFIG = """ClusterName=mm
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=5
MailProg=/bin/true
NodeName={host} NodeAddr=127.0.0.1 Port={first} CPUs=4
NodeName={host}-second NodeHostname={host} NodeAddr=127.0.0.1 Port={second} CPUs=4
PartitionName=all Nodes={host},{host}-second Default=YES State=UP
"""
SLURM_PACKAGES = "slurmctld slurmd slurm-client munge"


def start_slurm(place):
    """Two slurmd on this host, in the folder."""
    need("slurmctld", "slurmd", "srun", "sbatch", "scontrol", "munged", package=SLURM_PACKAGES)
    need_root()
    folder = place.folder / "slurm"
    (folder / "state").mkdir(parents=True)
    key, config, host = folder / "munge.key", folder / "slurm.conf", socket.gethostname().split(".")[0]
    try:
        socket.gethostbyname(host)
    except OSError:
        raise Skip(f"the name of this host, {host}, has no address; add it to /etc/hosts") from None
    key.write_bytes(os.urandom(1024))
    key.chmod(0o600)
    ports = dict(zip(["controller", "first", "second"], [free_port() for _ in range(3)]))
    config.write_text(SLURM_CONFIG.format(host=host, folder=folder, **ports))
    (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\n")
    place.variables["SLURM_CONF"] = str(config)
    files = [f"--{name}={folder}/munge.{name.split('-')[0]}" for name in ["socket", "pid-file", "seed-file", "key-file"]]
    daemons = [place.start(["munged", "--foreground", "--force", *files])]
    wait_until((folder / "munge.socket").exists, "munged")
    daemons.append(place.start(["slurmctld", "-D", "-f", config]))
    daemons += [place.start(["slurmd", "-D", "-f", config, "-N", node]) for node in [host, f"{host}-second"]]

    def is_ready():
        for daemon in daemons:
            assert daemon.poll() is None, "a daemon ended:\n" + place.output(daemon)[-2000:]
        return slurm(place, "sinfo", "-h", "-N", "-o", "%T").split() == ["idle", "idle"]
    try:
        wait_until(is_ready, "two idle nodes", 60)
    except AssertionError as error:
        raise AssertionError(f"{error}\n" + "\n".join(place.output(daemon)[-1500:] for daemon in daemons)) from error


def slurm(place, *command, **variables):
    """What a command of Slurm prints."""
    return subprocess.run(command, cwd=place.folder, env={**place.variables, **variables}, stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL, text=True).stdout.strip()


def slurm_tasks(place, job):
    """The state and the number of restarts of each task of a job."""
    shown = slurm(place, "scontrol", "--oneliner", "show", "job", job)
    return re.findall(r"JobState=(\w+).*?Restarts=(\d+)", shown)


def finish_job(place, job, name, seconds=180):
    """Waits until all tasks of a job are completed (one that is requeued may be called failed until it begins again); returns
    how many restarts there were."""
    end = time.monotonic() + seconds
    while not (tasks := slurm_tasks(place, job)) or any(state != "COMPLETED" for state, _ in tasks):
        logs = "".join(path.read_text(errors="replace")[-3000:] for path in place.folder.glob(f"{name}-*.txt"))
        assert time.monotonic() < end, f"job {job} after {seconds} s: {tasks}\n{logs}"
        if any(state == "PENDING" and int(restarts) for state, restarts in tasks):
            # Slurm lets a requeued job wait for two minutes.
            slurm(place, "scontrol", "update", f"JobId={job}", "StartTime=now")
        time.sleep(0.5)
    return sum(int(restarts) for _, restarts in tasks)


def check_slurm(place):
    start_slurm(place)
    place.run(["srun", "--nodes", "2", "--ntasks", "2", *place.train("short", "srun")])
    two = place.compare_weights("short", "srun")

    def submit(script, name, *options, **variables):
        command = ["sbatch", "--parsable", "--cpus-per-task=1", f"--output={name}-%j.txt", *options, place.root / "docs/deploy" / script]
        return slurm(place, *map(str, command), **variables)
    job = submit("slurm-train.sh", "train", "--nodes=2", CONFIG="long.toml", OUT="requeued")
    place.wait_for_steps("requeued", DISTURBED_STEP)
    slurm(place, "scontrol", "requeue", job)
    restarts, sessions = finish_job(place, job, "train"), place.sessions("requeued")
    assert restarts == 1 and len(sessions) == 2 and sessions[1] > 0, f"{restarts} restarts, began at the steps {sessions}"
    requeued = place.compare_weights("long", "requeued")
    model, shards = place.fixtures / "bert-plain", place.write_tables("array", 100, 200)
    place.run(["mm", "embed", "--model", model, "--shards", shards, "--out", "array-alone"])
    job = submit("slurm-embed.sh", "embed", "--array=0-3", MODEL=str(model), SHARDS=shards, OUT="array")
    wait_until(lambda: any(state != "PENDING" for state, _ in slurm_tasks(place, f"{job}_1")), "a task of the array")
    slurm(place, "scontrol", "requeue", f"{job}_1")
    restarts = finish_job(place, job, "embed")
    assert restarts == 1, f"{restarts} tasks were requeued"
    files = place.compare_shards("array-alone", "array")
    return (f"srun over 2 nodes: {two}; requeued, continued from step {sessions[1]}: {requeued}; "
            f"array of 4 tasks, one requeued: {files} files of 100 shards equal one worker's")


def check_namespaces(place, timeout=10):
    need("ip", package="iproute2")
    need_root()
    names = [f"mm{os.getpid()}{end}" for end in "ab"]
    for name in names:
        made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True)
        if made.returncode:
            raise Skip(f"ip netns add: {made.stderr.strip()}")
        place.undo.append(["ip", "netns", "del", name])
    # Both ends of the link are made inside, with addresses that are kept for documentation.
    place.run(["ip", "link", "add", names[0], "netns", names[0], "type", "veth", "peer", "name", names[1], "netns", names[1]])
    for end, name in enumerate(names):
        place.run(["ip", "-n", name, "address", "add", f"192.0.2.{end + 1}/24", "dev", name])
        for device in ["lo", name]:
            place.run(["ip", "-n", name, "link", "set", device, "up"])

    def start(config, out, port, *more):
        inside = [["ip", "netns", "exec", name, *place.train(config, out, *more)] for name in names]
        return [place.start(command, **rank_variables(rank, "192.0.2.1", port), GLOO_SOCKET_IFNAME=names[rank],
                            MM_DIST_TIMEOUT_SECONDS=str(timeout)) for rank, command in enumerate(inside)]
    for rank in start("short", "namespaces", 29500):
        place.finish(rank)
    two = place.compare_weights("short", "namespaces")
    ranks = start("long", "cut", 29501, "--set", "train.epochs=1000000")
    place.wait_for_steps("cut", DISTURBED_STEP, *ranks)
    place.run(["ip", "-n", names[0], "link", "set", names[0], "down"])
    begun, took = time.monotonic(), {}
    while len(took) < 2 and time.monotonic() < begun + timeout + 60:
        took |= {n: time.monotonic() - begun for n, rank in enumerate(ranks) if n not in took and rank.poll() is not None}
        time.sleep(0.02)
    errors = []
    for rank, process in enumerate(ranks):
        text = place.finish(process, 1, status=None)
        errors.append(next((line for line in text.splitlines() if line.startswith("error: ")), text))
        assert f"rank {1 - rank}" in errors[rank].replace(f"rank {rank}: ", ""), f"rank {rank} does not name the other: {errors[rank]}"
    assert max(took.values()) <= timeout + 5, f"the ranks ended after {took} s; {errors}"
    return (f"2 ranks: {two}; link cut: ended with an error that names the other after {took[0]:.1f} and {took[1]:.1f} s "
            f"(MM_DIST_TIMEOUT_SECONDS={timeout})")


def check_ray(place):
    if not importlib.util.find_spec("ray"):
        raise Skip("no Python package ray[data]")
    model, words = place.fixtures / "bert-plain", "a the quick brown fox jumps over lazy dog twice elan naive cafe".split()
    numbers = np.random.default_rng(1)
    texts = [" ".join(numbers.choice(words, numbers.integers(1, 20))) for _ in range(3000)]
    table = pa.table({"id": [str(n) for n in range(3000)], "number": range(3000), "caption": texts})
    pa.parquet.write_table(table, place.folder / "texts.parquet")
    script, own = place.root / "docs/deploy/ray_mm.py", {"RAY_TMPDIR": str(place.folder), "RAY_USAGE_STATS_ENABLED": "0"}
    options = ["--column", "text=caption"]
    place.run([sys.executable, script, model, "texts.parquet", "ray-out", *options, "--rows", "128"], 400, **own)
    place.run(["mm", "embed", "--model", model, "--data", "texts.parquet", *options, "--out", "texts.npy"])
    found = pa.parquet.read_table(place.folder / "ray-out").sort_by("number")
    vectors, expected = np.stack(found["text_embedding"].to_numpy()), np.load(place.folder / "texts.npy")
    assert found["caption"].to_pylist() == texts and vectors.shape == expected.shape, (vectors.shape, expected.shape)
    largest = np.abs(vectors - expected).max()
    assert largest <= 1e-6, f"vectors differ by {largest:.1e}"
    return f"{len(texts)} texts by ray_mm.py, vectors differ from those of mm embed --data by at most {largest:.1e}"


def clock(hours):
    """Variables that set the clock (CLOCK_REALTIME) of a process ahead; times of files are those of the file system."""
    folders = ["/usr/lib/*/faketime", "/usr/lib*/faketime", "/usr/local/lib/faketime"]
    found = [path for folder in folders for path in glob.glob(f"{folder}/libfaketimeMT.so.1")]
    if not found:
        raise Skip("no libfaketimeMT.so.1 (Debian: apt-get install libfaketime)")
    return {"LD_PRELOAD": found[0], "FAKETIME": f"{hours:+d}h", "FAKETIME_DONT_FAKE_MONOTONIC": "1", "NO_FAKE_STAT": "1"}


def owners(place, out):
    """The worker that has the lease of each shard, and how many hours its clock is ahead, by the lease itself."""
    found = {}
    for file in (place.folder / out / "leases").glob("*.lease"):
        try:
            owner = file.read_text()
        except FileNotFoundError:
            continue
        if owner:
            found[file.stem] = owner, (int(owner.rsplit("-", 1)[1], 16) / 1e9 - time.time()) / 3600
    return found


def summary(output):
    """What a worker printed with --json."""
    return next(json.loads(line) for line in output.splitlines() if line.startswith("{"))


def check_leases(place):
    """Workers on one folder whose clocks differ by hours."""
    model, shards = place.fixtures / "bert-plain", place.write_tables("clocks", 4, 16000)
    begun = time.monotonic()
    command = ["mm", "embed", "--model", model, "--json", "--shards"]
    place.run([*command, shards, "--out", "clocks-alone"])
    seconds = (time.monotonic() - begun) / 4
    # Each shard takes longer than a lease lasts, so the lease has to be renewed.
    lease, names = max(0.2, seconds / 4), [f"clocks-{n}" for n in range(4)]
    own = {"MM_LEASE_SECONDS": f"{lease:.2f}"}
    place.run([*command, "clocks-0.csv", "--out", "first-alone"])
    longest = 0
    for number, hours in enumerate([3, -3]):
        out = f"clocks-{number}"
        workers = [place.start([*command, shards, "--out", out], **own, **other) for other in [{}, clock(hours)]]
        held, ahead = {}, []
        while any(worker.poll() is None for worker in workers):
            for name, (owner, difference) in owners(place, out).items():
                before = held.setdefault(name, owner)
                is_done = (place.folder / out / "shards" / f"{name}.json").exists()
                assert before == owner or is_done, f"{owner} took the lease of {name} from {before}, which lives"
                held[name] = owner
                ahead.append(difference)
            time.sleep(0.02)
        assert min(map(abs, ahead)) < 0.1 and min(abs(h - hours) for h in ahead) < 0.1, f"clocks of the workers: {set(ahead)}"
        results = [summary(place.finish(worker))["processed"] for worker in workers]
        assert sum(results) == len(names) and min(results) > 0, f"of {len(names)} shards the workers processed {results}"
        place.compare_shards("clocks-alone", out)
        # One of both is killed, and the other takes its lease.
        for victim, variables in enumerate([({}, clock(hours)), (clock(hours), {})]):
            out = f"killed-{number}-{victim}"
            first = place.start([*command, "clocks-0.csv", "--out", out], **own, **variables[0])
            before = wait_until(lambda: owners(place, out).get("clocks-0"), "the lease")
            time.sleep(lease / 2)
            assert first.poll() is None, "ended before it was killed"
            first.kill()
            first.wait()
            begun = time.monotonic()
            other = place.start([*command, "clocks-0.csv", "--out", out], **own, **variables[1])
            wait_until(lambda: owners(place, out).get("clocks-0", before)[0] != before[0], "another worker on the lease")
            took = time.monotonic() - begun
            assert took > lease * 0.6, f"the lease of {lease:.1f} s was taken after {took:.1f} s"
            place.finish(other)
            place.compare_shards("first-alone", out)
            longest = max(longest, took)
    return (f"2 workers, one 3 h ahead or behind, leases of {lease:.1f} s, shards of {seconds:.1f} s: no lease taken from a worker "
            f"that lives, those of 4 killed workers taken after at most {longest:.1f} s, all files equal one worker's")


def check_clocks(place):
    clock(1)
    leases, port = check_leases(place), free_port()
    for rank in range(2):
        out = f"clocks-{rank}-ahead"
        own = [clock(1) if other == rank else {} for other in range(2)]
        ranks = [place.start(place.train("short", out), **rank_variables(n, port=port), **own[n]) for n in range(2)]
        for process in ranks:
            place.finish(process)
        weights = place.compare_weights("short", out)
        # Rank 0 writes the file, with its time in the name.
        written = int(next((place.folder / out).glob("events.out.tfevents.*")).name.split(".")[3])
        assert abs((written - time.time()) / 3600 - (1 - rank)) < 0.1, f"the clock of rank 0 showed {written}"
    return f"{leases}; 2 ranks, one 1 h ahead: {weights}"


PARTS = {"torchrun": check_torchrun, "mpirun": check_mpirun, "slurm": check_slurm, "namespaces": check_namespaces,
         "ray": check_ray, "clocks": check_clocks}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mm", type=pathlib.Path)
    parser.add_argument("torchrun", type=pathlib.Path)
    parser.add_argument("root", type=pathlib.Path)
    parser.add_argument("--only", default=",".join(PARTS), help="parts, separated by commas: " + ", ".join(PARTS))
    arguments = parser.parse_args()
    parts = arguments.only.split(",")
    if unknown := [part for part in parts if part not in PARTS]:
        parser.error(f"--only: no part {', '.join(unknown)}; expected {', '.join(PARTS)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    place, failed = Workplace(arguments.mm), []
    place.torchrun, place.root = arguments.torchrun.absolute(), arguments.root.resolve()
    place.fixtures = place.root / "crates/mm-repr/tests/fixtures"
    try:
        for part in parts:
            try:
                print(f"{part}: {PARTS[part](place)}", flush=True)
            except Skip as reason:
                print(f"skipped: {part}: {reason}", flush=True)
            except Exception:
                failed.append(part)
                print(f"{part}: FAILED\n{traceback.format_exc()}", flush=True)
            finally:
                place.clean()
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        for number in [signal.SIGINT, signal.SIGTERM]:
            signal.signal(number, signal.SIG_IGN)
        place.remove()
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


main()
