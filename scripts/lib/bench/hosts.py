"""What the suites that go over ssh share: real sshds with connected masters, and ending pods.

An environment that podspawn's processes are to have is given to each sshd by SetEnv.
"""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import time

import common

STAGE = pathlib.Path(os.environ["BENCH_STAGE"])


class Sshd:
    """A real sshd of this user and a connected master."""

    def __init__(self, directory, force, settings=()):
        self.dir = directory
        script = f'. {STAGE}/lib/common.sh; . {STAGE}/lib/sshd.sh; port=$(free_port); echo $port; prepare_sshd "$@"'
        script = script.replace('prepare_sshd "$@"', 'dir=$1; shift; prepare_sshd "$dir" "$port" "$@" >&2')
        argv = ["bash", "-c", script, "bench", str(self.dir), force, *settings]
        self.port = subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()
        program = shutil.which("sshd", path="/usr/sbin:/usr/bin:/usr/local/sbin")
        log = open(self.dir / "log", "w", encoding="utf-8")
        config = self.dir / "sshd_config"
        self.daemon = subprocess.Popen([program, "-D", "-e", "-f", config], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.ssh = [
            "ssh", "-F", "none", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none",
            "-o", "LogLevel=ERROR", "-o", f"UserKnownHostsFile={self.dir}/known_hosts", "-i", f"{self.dir}/client_key",
            "-S", f"{self.dir}/m", "-p", self.port, "127.0.0.1",
        ]
        for _ in range(200):
            if (self.dir / "sshd.pid").exists():
                break
            time.sleep(0.02)
        self.master = subprocess.Popen([*self.ssh[:1], "-M", "-N", *self.ssh[1:]], stdin=subprocess.DEVNULL)
        for _ in range(200):
            if (self.dir / "m").exists():
                break
            time.sleep(0.02)

    def true(self):
        return common.run([*self.ssh, "true"])

    def stream(self, source):
        with open(source, "rb") as file:
            return common.run([*self.ssh, "cat"], stdin=file)

    def close(self):
        for process in (self.master, self.daemon):
            process.terminate()
            process.wait()


def supervisors():
    """The supervisors of this user's pods."""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        try:
            mine = entry.name.isdigit() and entry.stat().st_uid == os.getuid()
            if mine and (entry / "comm").read_text().strip() == "podspawn-pod":
                if (entry / "stat").read_text().split(") ")[1][0] != "Z":
                    found.append(int(entry.name))
        except OSError:
            pass
    return found


def children(pid):
    return [int(p) for p in pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def own_memory(pid):
    """Memory of a process that is not of a file, in KiB. Of processes that were forked from each
    other, each has what they share."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
    fields = dict(line.split(":") for line in status)
    return sum(int(fields[name].split()[0]) for name in ("RssAnon", "RssShmem"))


def descriptors(podspawn, env=None):
    """How many the supervisor of the only pod has open, by its own account."""
    listed = subprocess.run([*podspawn, "list", "--format", "json"], env=env, check=True, capture_output=True)
    (pod,) = json.loads(listed.stdout)
    return pod["descriptors"]


def end_pods():
    for pid in supervisors():
        os.kill(pid, signal.SIGKILL)
    while supervisors():
        time.sleep(0.002)
    # The kernel takes the namespaces apart after that; not what a login waits for.
    time.sleep(0.05)
