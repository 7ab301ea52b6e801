"""A host under faults: a real sshd of this user, podspawn behind it, and what is left of both."""

import fcntl
import json
import os
import pathlib
import shutil
import signal
import subprocess
import time

STAGE = pathlib.Path(os.environ["FAULTS_STAGE"])
REGISTRY = os.environ["FAULTS_REGISTRY"]
PROGRAM = STAGE / "bin/podspawn"


def image(name):
    return f"{REGISTRY}/podspawn/{name}:1"


class Host:
    """Its directories, its sshd, and the commands that run on it."""

    def __init__(self, out, config="", data=None, environment=(), limits=()):
        self.dir = pathlib.Path(out)
        self.data = pathlib.Path(data or self.dir / "data")
        self.run = self.dir / "run"
        for path in (self.data, self.run, self.dir / "sshd"):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.environment = {"XDG_DATA_HOME": str(self.data), "XDG_RUNTIME_DIR": str(self.run),
                            "XDG_CONFIG_HOME": str(self.dir / "config")}
        self.config = self.dir / "config.yaml"
        self.config.write_text(f"defaults: {{image: {image('busybox')}}}\n{config}")
        self.more = dict(environment)
        self.limits = list(limits)
        self.daemon = None
        self.start_sshd()

    def podfile(self, pod, text):
        """The user's own, for pods of this name."""
        own = self.dir / "config/podspawn/podfiles"
        own.mkdir(parents=True, exist_ok=True)
        (own / f"{pod}.yaml").write_text(text)

    def start_sshd(self):
        sshd = self.dir / "sshd"
        (sshd / "sshd.pid").unlink(missing_ok=True)
        variables = " ".join(f"{k}={v}" for k, v in {**self.environment, **self.more}.items())
        script = f'. {STAGE}/lib/common.sh; . {STAGE}/lib/sshd.sh; port=$(free_port); echo $port; ' \
            'dir=$1; shift; prepare_sshd "$dir" "$port" "$@" >&2'
        force = f"{PROGRAM} --config {self.config} spawn"
        argv = ["bash", "-c", script, "faults", str(sshd), force, "SetEnv " + variables]
        self.port = subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()
        program = shutil.which("sshd", path="/usr/sbin:/usr/bin:/usr/local/sbin")
        log = open(sshd / "log", "a", encoding="utf-8")
        argv = [*self.limits, program, "-D", "-e", "-f", str(sshd / "sshd_config")]
        self.daemon = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.wait("sshd starts", lambda: (sshd / "sshd.pid").exists())

    def ssh(self, *options):
        sshd = self.dir / "sshd"
        return [
            "ssh", "-F", "none", "-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-o", "IdentityAgent=none",
            "-o", "LogLevel=ERROR", "-o", f"UserKnownHostsFile={sshd}/known_hosts", "-i", f"{sshd}/client_key",
            "-o", "ServerAliveInterval=15", "-p", self.port, *options, "127.0.0.1",
        ]

    def podspawn(self, *arguments, limit=120, prefix=()):
        argv = [*prefix, PROGRAM, "--config", self.config, *arguments]
        environment = {**os.environ, **self.environment}
        return subprocess.run(argv, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=limit, check=False)

    def pods(self):
        listed = self.podspawn("list", "--all", "--format", "json")
        return json.loads(listed.stdout) if listed.returncode == 0 else []

    def wait(self, what, condition, limit=60):
        end = time.monotonic() + limit
        while not condition():
            if time.monotonic() > end:
                raise SystemExit(f"faults: waited {limit} s in vain: {what}")
            time.sleep(0.05)

    def close(self):
        self.daemon.terminate()
        self.daemon.wait()

    # What is left.

    def leftovers(self):
        """Everything that should not be there once no pod is; empty when all is well."""
        left = []
        for process in processes():
            if process.pid != os.getpid() and not descends_from(process.pid, os.getpid()):
                left.append(f"process {process.pid} {process.comm}: {process.command}")
        for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines():
            if str(self.dir) in line:
                left.append("mount " + line)
        for line in pathlib.Path("/proc/net/unix").read_text().splitlines():
            if str(self.dir) in line and "sshd" not in line:
                left.append("socket " + line)
        left += [f"lock {path}" for path in self.locked()]
        return left

    def locked(self):
        """Lock files and directories that somebody still holds."""
        found = []
        for pattern in ("podspawn/*/lock", "podspawn/v1/lock", "podspawn/pods/*", "podspawn/v1/tmp/layer-*"):
            for base in (self.run, self.data):
                for path in base.glob(pattern):
                    fd = os.open(path, os.O_RDONLY)
                    try:
                        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    except BlockingIOError:
                        found.append(path)
                    finally:
                        os.close(fd)
        return found


class Process:
    """One of this user's processes."""

    def __init__(self, pid):
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
        self.pid = pid
        self.comm = stat[stat.index("(") + 1:stat.rindex(")")]
        rest = stat[stat.rindex(")") + 2:].split()
        self.state, self.parent = rest[0], int(rest[1])
        self.command = pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()

    def namespace(self, kind):
        try:
            return os.readlink(f"/proc/{self.pid}/ns/{kind}")
        except OSError:
            return None


def owners():
    """The ids that this user's processes may have."""
    import pwd
    name = pwd.getpwuid(os.getuid()).pw_name
    ranges = [(os.getuid(), 1)]
    for line in pathlib.Path("/etc/subuid").read_text().splitlines():
        who, start, count = line.split(":")
        if who == name:
            ranges.append((int(start), int(count)))
    return ranges


OWNERS = owners()


def processes():
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            uid = entry.stat().st_uid
            status = (entry / "status").read_text() if uid == 0 else ""
            if uid == 0:
                # What is not dumpable belongs to root in /proc.
                uid = int(status.split("\nUid:\t")[1].split()[0])
            if any(start <= uid < start + count for start, count in OWNERS):
                process = Process(int(entry.name))
                if process.state != "Z":
                    found.append(process)
        except (OSError, ValueError, IndexError):
            pass
    return found


def descends_from(pid, ancestor):
    while pid > 1:
        if pid == ancestor:
            return True
        try:
            pid = Process(pid).parent
        except (OSError, ValueError):
            return False
    return False


def send(pid, number):
    try:
        os.kill(pid, number)
        return True
    except (ProcessLookupError, PermissionError):
        return False


def kill_pods():
    for process in processes():
        if process.comm == "podspawn-pod":
            send(process.pid, signal.SIGKILL)
