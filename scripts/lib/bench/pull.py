"""podspawn pull against podman pull: the same registry, the same device, a file system of its own
for every pull, because creating files soon after a mass deletion is slow on ext4.

The floor of an image is measured in the same run with the fastest tools there are: what fetching
its blobs, hashing and inflating them, hashing the archives and creating their files take, each by
itself. No pull can be faster than the work divided among all cores, nor than the slowest step of
one layer, since a gzip stream is inflated from its beginning to its end.

Run as root, for the file systems; the pulls run as the ordinary user BENCH_USER.
"""

import os
import pathlib
import pwd
import signal
import subprocess
import sys
import time

import common
import floor
import shaper

OUT = pathlib.Path(sys.argv[1])
STAGE = pathlib.Path(os.environ["BENCH_STAGE"])
IMAGES = pathlib.Path(os.environ["BENCH_IMAGES"])
USER = pwd.getpwnam(os.environ["BENCH_USER"])
PLAIN, TLS = os.environ["BENCH_REGISTRY"], os.environ["BENCH_REGISTRY_TLS"]
CERTS = os.environ["BENCH_CERTS"]
ROUNDS = int(os.environ.get("ROUNDS") or 3)
DISK = 3 << 30

# What is pulled, by which way, and the most of podman's time that it may take.
CASES = {
    "dev": ("dev", "plain", "<= 0.22"),
    "dev-one": ("dev-one", "plain", "<= 0.22"),
    "postgres": ("postgres", "plain", None),
    "many": ("many", "plain", "<= 0.27"),
    "big": ("big", "plain", "<= 0.32"),
    "tiny": ("tiny", "plain", "<= 0.6"),
    "dev-zstd": ("dev-zstd", "plain", None),
    "dev-tls": ("dev", "tls", None),
    "dev-far": ("dev", "far", None),
}


class Disk:
    """A new file system on the device that OUT is on, mounted. Always in the same file, whose
    blocks are there, so that the file system around it has nothing to do for it."""

    def __init__(self, name):
        self.image, self.place = OUT / "disk.img", OUT / name
        self.place.mkdir()
        if not self.image.exists():
            block = bytes(4 << 20)
            with open(self.image, "wb") as file:
                for _ in range(DISK // len(block)):
                    file.write(block)
                os.fsync(file.fileno())
        command = ["mkfs.ext4", "-q", "-F", "-m", "0", "-E", "nodiscard", self.image]
        subprocess.run(command, check=True)
        loop = ["losetup", "--find", "--show", "--direct-io=on", self.image]
        self.loop = subprocess.run(loop, check=True, capture_output=True, text=True).stdout.strip()
        subprocess.run(["mount", "-o", "noinit_itable", self.loop, self.place], check=True)
        os.chmod(self.place, 0o700)
        os.chown(self.place, USER.pw_uid, USER.pw_gid)
        # What making it left to be written is not the next one's business.
        subprocess.run(["sync", "-f", self.place], check=True)

    def __enter__(self):
        return self.place

    def __exit__(self, *_):
        subprocess.run(["umount", self.place], check=True)
        subprocess.run(["losetup", "--detach", self.loop], check=True)
        self.place.rmdir()


class Pull:
    """One finished pull."""

    def __init__(self, argv, **env):
        env = {"HOME": USER.pw_dir, "USER": USER.pw_name, "PATH": os.environ["PATH"], "LANG": "C.UTF-8", **env}
        start = time.perf_counter()
        process = subprocess.Popen(
            [str(word) for word in argv], env=env, cwd="/", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, user=USER.pw_uid, group=USER.pw_gid, extra_groups=[],
        )  # fmt: skip
        # One line on either: neither pipe can fill up.
        _, status, usage = os.wait4(process.pid, 0)
        self.seconds = time.perf_counter() - start
        self.cpu = usage.ru_utime + usage.ru_stime
        self.memory = usage.ru_maxrss / 1024
        process.returncode = os.waitstatus_to_exitcode(status)
        self.said = process.stdout.read().decode().strip()
        if process.returncode != 0:
            raise SystemExit(f"bench: {argv}: {process.stderr.read().decode()}")


def ours(reference, place):
    runtime = place / "run"
    runtime.mkdir(mode=0o700)
    os.chown(runtime, USER.pw_uid, USER.pw_gid)
    argv = [STAGE / "bin/podspawn", "--config", OUT / "config.yaml", "pull", "--quiet", reference]
    return Pull(argv, XDG_DATA_HOME=str(place / "data"), XDG_RUNTIME_DIR=str(runtime))


def podman(reference, place):
    runtime = place / "run"
    runtime.mkdir(mode=0o700)
    os.chown(runtime, USER.pw_uid, USER.pw_gid)
    trust = ["--cert-dir", f"{CERTS}/{TLS}"] if reference.startswith(TLS) else ["--tls-verify=false"]
    # Its own choice is vfs where no configuration is, which copies every layer.
    argv = ["podman", "--storage-driver", "overlay", "--root", place / "root", "--runroot", place / "r", "--cgroup-manager", "cgroupfs"]
    pull = Pull([*argv, "pull", "-q", *trust, reference], XDG_RUNTIME_DIR=str(runtime))
    # It leaves a process that keeps its namespace, and the file system with it.
    for pid in runtime.glob("libpod/tmp/pause.pid"):
        os.kill(int(pid.read_text()), signal.SIGKILL)
        common.wait_gone(int(pid.read_text()))
    return pull


def measure(report, name, wanted_floor):
    image, way, budget = CASES[name]
    addresses = {"plain": PLAIN, "tls": TLS, "far": shaper.ADDRESS}
    reference = f"{addresses[way]}/bench/{image}:1"
    rounds = {"podspawn": [], "podman": []}
    for number in range(-1, ROUNDS):
        for who, pull in (("podspawn", ours), ("podman", podman)):
            if number < 0 and who == "podman" and ROUNDS > 1:
                continue  # The registry's files are in memory after one.
            with Disk(f"{who}-{number + 1}") as place:
                done = pull(reference, place)
            if number >= 0:
                rounds[who].append(done)
    for who, pulls in rounds.items():
        seconds = [pull.seconds for pull in pulls]
        report.add(f"{name}: {who} pull", common.median(seconds), "s", spread=seconds)
    mine, theirs = ([pull.seconds for pull in rounds[who]] for who in rounds)
    report.add(f"{name}: podspawn / podman", common.paired(mine, theirs, lambda a, b: a / b), "ratio", budget, "podman pull")
    if wanted_floor:
        with Disk("floor") as place:
            least, steps = floor.measure(IMAGES / image, reference, place)
        report.add(f"{name}: floor ({steps})", least, "s")
        report.add(f"{name}: podspawn / floor", common.median(mine) / least, "ratio", "<= 1.3", "floor")
    for who, pulls in rounds.items():
        limit = "<= 128" if who == "podspawn" else None
        report.add(f"{name}: {who} peak memory", max(pull.memory for pull in pulls), "MiB", limit)
        report.add(f"{name}: {who} CPU", common.median([pull.cpu for pull in pulls]), "s")


def main():
    # An exception, so that nothing stays mounted.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    chosen = (os.environ.get("CASES") or ",".join(CASES)).split(",")
    (OUT / "config.yaml").write_text(f"registries: {{certs: {CERTS}}}\n")
    report = common.Report("pull")
    relay = shaper.start(PLAIN) if any(CASES[name][1] == "far" for name in chosen) else None
    try:
        for name in chosen:
            measure(report, name, CASES[name][1] == "plain")
    finally:
        if relay:
            relay.kill()
            relay.wait()
    report.write(OUT)


if __name__ == "__main__":
    main()
