"""File transfer through podspawn against a plain sshd with OpenSSH's sftp-server.

Both ends of every contestant are the same programs over a master that is already connected;
what differs is where the far end runs. Clients read from and write to memory, far ends the same
file system: the pod's upper directory and a directory beside it. Two pods are measured: an image
with OpenSSH's own sftp-server and rsync, and a busybox image, which the guest serves.
"""

import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

import common
from hosts import STAGE, Sshd, end_pods

OUT = pathlib.Path(sys.argv[1])
REGISTRY = os.environ["BENCH_REGISTRY"]
ROUNDS = int(os.environ.get("ROUNDS") or 7)
LARGE = 256 << 20
SMALL, SMALL_SIZE = 2000, 4 << 10


class Place:
    """One sshd, and a directory behind it."""

    def __init__(self, sshd, directory):
        self.sshd = sshd
        self.directory = directory
        self.options = sshd.ssh[1:-1]
        common.run([*sshd.ssh, f"mkdir -p {directory}"])

    def remote(self, path):
        return f"127.0.0.1:{self.directory}/{path}"

    def fresh(self):
        """Removes what the last round put here; not timed."""
        common.run([*self.sshd.ssh, f"rm -rf {self.directory}/put {self.directory}/put.d"])


class Clients:
    """The transfers that are timed. What is put is fresh each time; what is got was put once."""

    def __init__(self, local):
        self.local = local
        self.large = local / "large"
        with open(self.large, "wb") as file:
            for _ in range(LARGE >> 20):
                file.write(os.urandom(1 << 20))
        self.small = local / "small.d"
        self.small.mkdir()
        for number in range(SMALL):
            (self.small / f"file-{number:05}").write_bytes(os.urandom(SMALL_SIZE))

    def seed(self, place):
        sftp(place, f"put {self.large} {place.directory}/large", f"put -r {self.small} {place.directory}/small.d")

    def _got(self):
        shutil.rmtree(self.local / "got", ignore_errors=True)
        (self.local / "got").mkdir()
        return self.local / "got"

    def sftp_put(self, place):
        place.fresh()
        return sftp(place, f"put {self.large} {place.directory}/put")

    def sftp_get(self, place):
        return sftp(place, f"get {place.directory}/large {self._got()}/large")

    def sftp_put_small(self, place):
        place.fresh()
        return sftp(place, f"put -r {self.small} {place.directory}/put.d")

    def sftp_get_small(self, place):
        return sftp(place, f"get -r {place.directory}/small.d {self._got()}/small.d")

    def scp_put(self, place):
        place.fresh()
        return common.run(["scp", "-q", *scp_options(place), self.large, place.remote("put")])

    def scp_get(self, place):
        return common.run(["scp", "-q", *scp_options(place), place.remote("large"), self._got() / "large"])

    def rsync_put(self, place):
        place.fresh()
        return common.run(["rsync", "-aW", "-e", rsync_shell(place), self.large, place.remote("put")])

    def rsync_get(self, place):
        return common.run(["rsync", "-aW", "-e", rsync_shell(place), place.remote("large"), self._got() / "large"])

    def rsync_put_small(self, place):
        place.fresh()
        return common.run(["rsync", "-a", "-e", rsync_shell(place), f"{self.small}/", place.remote("put.d/")])

    def stream_put(self, place):
        place.fresh()
        with open(self.large, "rb") as file:
            return common.run([*place.sshd.ssh, f"cat >{place.directory}/put"], stdin=file)

    def stream_get(self, place):
        return common.run([*place.sshd.ssh, f"cat {place.directory}/large"])


def sftp(place, *lines):
    batch = "".join(f"{line}\n" for line in lines).encode()
    with tempfile.TemporaryFile() as file:
        file.write(batch)
        file.seek(0)
        return common.run(["sftp", "-q", "-b", "-", *scp_options(place), "127.0.0.1"], stdin=file)


def scp_options(place):
    """ssh's options as scp and sftp spell them."""
    words, options = iter(place.options), []
    for word in words:
        if word == "-S":
            options += ["-o", f"ControlPath={next(words)}"]
        elif word == "-p":
            options += ["-P", next(words)]
        else:
            options += [word, next(words)]
    return options


def rsync_shell(place):
    return " ".join(["ssh", *place.options])


def pod(image, settings, data):
    """An sshd whose sessions are in a pod of this image, with a store of its own."""
    home = OUT / image
    (home / "run").mkdir(parents=True, mode=0o700)
    reference = f"{REGISTRY}/podspawn/{image}:1"
    env = {"XDG_DATA_HOME": str(data / image), "XDG_RUNTIME_DIR": str(home / "run")}
    (home / "config.yaml").write_text(f"defaults: {{image: {reference}}}\nsession: {{grace_period: 600s}}\n")
    podspawn = f"{STAGE}/bin/podspawn --config {home}/config.yaml"
    common.run([*podspawn.split(), "pull", "--quiet", reference], env={**os.environ, **env})
    sshd = Sshd(home / "sshd", podspawn + " spawn", ["SetEnv " + " ".join(f"{k}={v}" for k, v in env.items()), *settings])
    return sshd, Place(sshd, "/tmp/bench")


def main():
    report = common.Report("transfer")
    data = OUT / "data"
    data.mkdir()
    local = pathlib.Path(tempfile.mkdtemp(prefix="podspawn-bench-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None))
    sshds = []
    try:
        clients = Clients(local)
        plain_sshd = Sshd(OUT / "plain", "")
        sshds.append(plain_sshd)
        plain = Place(plain_sshd, data / "plain")
        places = {"plain": plain}
        for image in ("debian", "busybox"):
            sshd, places[image] = pod(image, (), data)
            sshds.append(sshd)
        for place in places.values():
            clients.seed(place)

        def measure(name, transfer, image, budget, peer):
            contest = {who: (lambda place=places[who]: transfer(place)) for who in (image, "plain")}
            times = common.interleaved(contest, ROUNDS)
            ratios = [b / a for a, b in zip(times[image], times["plain"])]
            report.add(name, common.median(ratios), "ratio", budget, peer, spread=ratios)

        for title, image, budget in (("the image's sftp-server", "debian", ">= 0.97"), ("the guest's sftp-server", "busybox", ">= 0.95")):
            peer = "plain sshd, OpenSSH's sftp-server"
            measure(f"sftp put, one of {LARGE >> 20} MiB, {title}", clients.sftp_put, image, budget, peer)
            measure(f"sftp get, one of {LARGE >> 20} MiB, {title}", clients.sftp_get, image, budget, peer)
            measure(f"sftp put, {SMALL} of {SMALL_SIZE >> 10} KiB, {title}", clients.sftp_put_small, image, budget, peer)
            measure(f"sftp get, {SMALL} of {SMALL_SIZE >> 10} KiB, {title}", clients.sftp_get_small, image, budget, peer)
            measure(f"scp put, {title}", clients.scp_put, image, budget, peer)
            measure(f"scp get, {title}", clients.scp_get, image, budget, peer)
        measure("rsync put", clients.rsync_put, "debian", None, "plain sshd")
        measure("rsync get", clients.rsync_get, "debian", None, "plain sshd")
        measure(f"rsync put, {SMALL} of {SMALL_SIZE >> 10} KiB", clients.rsync_put_small, "debian", None, "plain sshd")
        measure("stream put, ssh host 'cat >file'", clients.stream_put, "debian", ">= 0.97", "plain sshd")
        measure("stream get, ssh host 'cat file'", clients.stream_get, "debian", ">= 0.97", "plain sshd")
    finally:
        end_pods()
        for sshd in sshds:
            sshd.close()
        shutil.rmtree(local, ignore_errors=True)
        subprocess.run(["unshare", "--user", "--map-auto", "--map-root-user", "rm", "-rf", str(data)], check=False, stderr=subprocess.DEVNULL)
    report.write(OUT)


main()
