"""The driver of scripts/pull-faults: runs pulls as FAULTS_USER and breaks them, as root."""

import hashlib
import json
import os
import pathlib
import pwd
import random
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time

STAGE = pathlib.Path(os.environ["FAULTS_STAGE"])
USER = pwd.getpwnam(os.environ["FAULTS_USER"])
SEED = int(os.environ.get("SEED") or random.SystemRandom().randrange(1 << 32))
REPOSITORY = "faults/image:1"
# More than the image needs, so that only the ballast makes the room scarce.
DISK = 160 << 20


class Failed(Exception):
    """A run that did not go as it must."""


def start(argv, home):
    env = {"HOME": str(home), "PATH": os.environ["PATH"], "XDG_DATA_HOME": str(home / "data"), "XDG_RUNTIME_DIR": str(home / "run")}
    return subprocess.Popen(
        [str(word) for word in (STAGE / "bin/podspawn", *argv)], env=env, cwd="/", stdin=subprocess.DEVNULL, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, user=USER.pw_uid, group=USER.pw_gid, extra_groups=[],
        start_new_session=True,
    )  # fmt: skip


def podspawn(argv, home, seconds=120):
    process = start(argv, home)
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise Failed(f"{argv} took more than {seconds} s") from None
    return process.returncode, out, err


def mine(path):
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.chown(path, USER.pw_uid, USER.pw_gid)
    return path


class Registry:
    """The real one, on a port that stays the same."""

    def __init__(self):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        config = (STAGE / "registry/config.yml").read_text()
        self.config = STAGE / "registry/fixed.yml"
        self.config.write_text(re.sub(r"127\.0\.0\.1:0", f"127.0.0.1:{self.port}", config))
        self.reference = f"127.0.0.1:{self.port}/{REPOSITORY}"
        self.process = None

    def up(self):
        if self.process:
            return
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "stdin": subprocess.DEVNULL}
        env = {**os.environ, "OTEL_TRACES_EXPORTER": "none"}
        self.process = subprocess.Popen(["docker-registry", "serve", self.config], env=env, **quiet)
        for _ in range(500):
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
                return
            except OSError:
                time.sleep(0.02)
        raise SystemExit("the registry did not start")

    def kill(self):
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None


def tree_of(store):
    """Everything of the published layers and images, as one digest."""
    state = hashlib.sha256()
    for part in ("layers", "images"):
        top = store / "v1" / part
        for where, dirs, files in sorted(os.walk(os.fsencode(top))):
            for name in sorted(dirs + files):
                path = os.path.join(where, name)
                info = os.lstat(path)
                # Podspawn's own files beside a layer have the time of the pull.
                own = os.path.dirname(path).count(b"/") <= os.fsencode(top).count(b"/") + 1
                times = 0 if own else info.st_mtime_ns
                row = [os.path.relpath(path, os.fsencode(top)), info.st_mode, info.st_uid, info.st_gid, times]
                if not stat.S_ISDIR(info.st_mode):
                    row += [info.st_nlink, info.st_size]
                if stat.S_ISREG(info.st_mode):
                    with open(path, "rb") as file:
                        row.append(hashlib.sha256(file.read()).hexdigest())
                if stat.S_ISLNK(info.st_mode):
                    row.append(os.readlink(path))
                else:
                    row += [(x, os.getxattr(path, x)) for x in sorted(os.listxattr(path))]
                state.update(repr(row).encode())
    return state.hexdigest()


class Runs:
    def __init__(self):
        self.registry = Registry()
        self.registry.up()
        # Of its own: what others have to write is not waited for.
        self.disk = STAGE / "disk"
        self.disk.mkdir()
        with open(STAGE / "disk.img", "wb") as file:
            file.truncate(DISK)
        subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "0", STAGE / "disk.img"], check=True)
        subprocess.run(["mount", "-o", "loop", STAGE / "disk.img", self.disk], check=True)
        home = mine(self.disk / "whole")
        mine(home / "run")
        code, self.digest, err = podspawn(["pull", "--quiet", self.registry.reference], home)
        if code != 0:
            raise SystemExit(f"the first pull failed: {err}")
        self.whole = tree_of(home / "data/podspawn")
        began = time.monotonic()
        shutil.rmtree(home)
        mine(home / "run")
        podspawn(["pull", "--quiet", self.registry.reference], home)
        self.takes = time.monotonic() - began
        shutil.rmtree(home)

    def broken(self, code, err):
        """What a pull that fails may say."""
        lines = err.strip().splitlines()
        if code != 125 or len(lines) != 1 or not lines[0].startswith("podspawn: "):
            raise Failed(f"a pull that cannot succeed ends with status {code} and says {err!r}")

    def recover(self, home):
        code, out, err = podspawn(["store", "check"], home)
        if code != 0:
            raise Failed(f"store check: status {code}: {out}{err}")
        code, out, err = podspawn(["pull", "--quiet", self.registry.reference], home)
        if (code, out, err) != (0, self.digest, ""):
            raise Failed(f"the next pull: status {code}: {out}{err}")
        store = home / "data/podspawn"
        if left := os.listdir(store / "v1/tmp"):
            raise Failed(f"left behind: {left}")
        if tree_of(store) != self.whole:
            raise Failed("the store has something else than after a pull without faults")

    def pull(self, home):
        return start(["pull", "--quiet", self.registry.reference], home)

    def one_registry(self, chance, home):
        self.registry.up()
        process = self.pull(home)
        time.sleep(chance.uniform(0, self.takes))
        self.registry.kill()
        if chance.random() < 0.5:
            time.sleep(chance.uniform(0, 0.5))
            self.registry.up()
        try:
            _, err = process.communicate(timeout=120)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise Failed("it never gave up") from None
        if process.returncode != 0:
            self.broken(process.returncode, err)
        self.registry.up()
        return process.returncode != 0

    def one_kill(self, chance, home):
        for _ in range(chance.choice((1, 1, 1, 2, 4))):
            process = self.pull(home)
            # On a busy machine the next one may take longer than the first.
            time.sleep(chance.uniform(0, self.takes * 1.6))
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
        return process.returncode != 0

    def one_disk(self, chance, home):
        ballast = home.parent / "ballast"
        free = os.statvfs(home)
        free = free.f_bavail * free.f_frsize
        # The image and its layers take about 45 MB.
        with open(ballast, "wb") as file:
            os.posix_fallocate(file.fileno(), 0, free - chance.randrange(50 << 20))
        code, _, err = podspawn(["pull", "--quiet", self.registry.reference], home)
        if code != 0:
            self.broken(code, err)
            if "space" not in err:
                raise Failed(f"a full disk, but it says: {err}")
            code, out, err = podspawn(["store", "check"], home)
            if code != 0:
                raise Failed(f"store check on a full disk: status {code}: {out}{err}")
            code = 1
        ballast.unlink()
        return code != 0

    def close(self):
        self.registry.kill()
        subprocess.run(["umount", self.disk], check=True)

    def run(self, kind, number):
        chance = random.Random(f"{SEED} {kind} {number}")
        home = mine(self.disk / "home")
        mine(home / "run")
        try:
            hit = getattr(self, "one_" + kind)(chance, home)
            self.recover(home)
            return hit, None
        except Failed as failure:
            return False, f"{kind} {number}: {failure}"
        finally:
            shutil.rmtree(home)


def main():
    wanted = {"registry": 50, "disk": 50, "kill": 200}
    if len(sys.argv) > 1:
        wanted = {kind: int(count) for kind, _, count in (word.partition("=") for word in sys.argv[1:])}
    print(f"SEED={SEED}")
    runs, results, failures = Runs(), {}, []
    print(f"a pull takes {runs.takes:.2f} s")
    try:
        for kind, count in wanted.items():
            hits = 0
            for number in range(count):
                hit, failure = runs.run(kind, number)
                hits += hit
                if failure:
                    failures.append(failure)
                    print(failure, flush=True)
            results[kind] = {"runs": count, "pulls broken": hits}
            print(f"{kind}: {count} runs, in {hits} of them the pull did not finish", flush=True)
    finally:
        runs.close()
    print(json.dumps(results))
    print(f"{sum(wanted.values())} runs, {len(failures)} failed")
    sys.exit(bool(failures))


main()
