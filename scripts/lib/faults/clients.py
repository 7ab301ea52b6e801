"""Clients that know what they should see, and say what they saw."""

import collections
import hashlib
import os
import random
import signal
import subprocess
import threading
import time

from host import PROGRAM, image

# A client that has not ended by then hangs.
LIMIT = 150

# Signals that tell of a fault in a program.
CRASHES = [signal.SIGILL, signal.SIGTRAP, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGSEGV, signal.SIGSYS]

KINDS = ["login", "login", "login", "slow", "terminal", "upload", "download", "sftp", "pull"]


class Clients:
    """So many clients at work until they are told to stop."""

    def __init__(self, host, count, seed, kinds=KINDS, pods=4):
        self.host, self.kinds, self.pods = host, kinds, pods
        self.outcomes = collections.Counter()
        self.bad = []
        self.lock = threading.Lock()
        self.stopped = threading.Event()
        self.threads = [threading.Thread(target=self.work, args=(random.Random(f"{seed} {n}"), n)) for n in range(count)]

    def start(self):
        for thread in self.threads:
            thread.start()

    def stop(self):
        self.stopped.set()
        for thread in self.threads:
            thread.join()

    def work(self, noise, number):
        rounds = 0
        while not self.stopped.is_set():
            rounds += 1
            # Images are one store's: one client pulls, the others log in.
            kind = noise.choice(self.kinds) if number != 0 or "pull" not in self.kinds else "pull"
            if kind == "pull" and number != 0:
                kind = "login"
            outcome, detail = getattr(self, kind)(noise, f"{number}.{rounds}")
            with self.lock:
                self.outcomes[kind, outcome] += 1
                if outcome in ("WRONG", "HUNG", "UNCLEAR"):
                    self.bad.append(f"{kind} {number}.{rounds}: {outcome}: {detail}")

    def run(self, argv, want, data=b"", environment=None):
        """Runs a client; its outcome is judged by `want`, the output of a success."""
        begin = time.monotonic()
        try:
            done = subprocess.run(argv, input=data, capture_output=True, timeout=LIMIT, check=False, env=environment)
        except subprocess.TimeoutExpired as hung:
            return "HUNG", f"{time.monotonic() - begin:.0f} s; {hung.stdout!r} {hung.stderr!r}"
        said = done.stderr.decode(errors="replace")
        detail = f"status {done.returncode}, {done.stdout[-200:]!r}, {said[-300:]!r}"
        # sshd, told to end, may have passed on the status and not all of the output; its
        # client says so, with the program's own status.
        if done.returncode == 0 and "closed by remote host" in said and not want(done.stdout):
            return "cut off", ""
        if done.returncode == 0:
            return ("ok", "") if want(done.stdout) else ("WRONG", detail)
        # ssh itself says that the connection broke, podspawn says why in a line, or the
        # program was killed, which its status tells.
        broken = done.returncode == 255 or done.returncode > 128 or done.returncode < 0
        if broken and abs(done.returncode) % 128 not in CRASHES:
            return "cut off", ""
        # On a terminal there is one stream for both.
        line = said if b"podspawn: " not in done.stdout else done.stdout.decode(errors="replace")
        if "podspawn: " in line and done.returncode in (125, 126, 127):
            return "refused", line
        # The program's own word, where it may not have what it needs.
        if any(why in said for why in ("can't fork", "Too many open files", "No space left")):
            return "failed inside", said
        if done.returncode == 1 and ("onnection" in said or "lost" in said):
            return "cut off", ""
        return "UNCLEAR", detail

    def ssh(self, noise, command, want, data=b"", options=()):
        pod = f"p{noise.randrange(self.pods)}"
        argv = self.host.ssh("-o", f"SetEnv=PODSPAWN_PROJECT={pod}", *options)
        return self.run([*argv, command], want, data)

    def login(self, noise, token):
        return self.ssh(noise, f"echo {token}", lambda out: out == f"{token}\n".encode())

    def slow(self, noise, token):
        nap = noise.uniform(0.1, 1.5)
        return self.ssh(noise, f"sleep {nap:.2f}; echo {token}", lambda out: out == f"{token}\n".encode())

    def terminal(self, noise, token):
        return self.ssh(noise, f"echo {token}", lambda out: out == f"{token}\r\n".encode(), options=["-tt"])

    def upload(self, noise, token):
        data = noise.randbytes(noise.randrange(1 << 21))
        want = hashlib.sha256(data).hexdigest()
        return self.ssh(noise, f"cat >/tmp/{token} && sha256sum </tmp/{token}", lambda out: out.split()[:1] == [want.encode()], data)

    def download(self, noise, token):
        size = noise.randrange(1 << 21)
        command = f"head -c {size} /dev/zero; echo {token}"
        return self.ssh(noise, command, lambda out: out == bytes(size) + f"{token}\n".encode())

    def sftp(self, noise, token):
        path = self.host.dir / f"sftp-{token}"
        path.write_bytes(noise.randbytes(noise.randrange(1 << 20)))
        argv = self.host.ssh("-o", f"SetEnv=PODSPAWN_PROJECT=p{noise.randrange(self.pods)}")
        options = [a if a != "-p" else "-P" for a in argv[1:-1]]
        batch = f"put {path} /tmp/{token}\nget /tmp/{token} {path}.back\n".encode()
        try:
            return self.run(
                ["sftp", *options, "-b", "-", argv[-1]],
                lambda _: (path.parent / (path.name + ".back")).read_bytes() == path.read_bytes(), batch,
            )
        finally:
            for name in (path, path.parent / (path.name + ".back")):
                name.unlink(missing_ok=True)

    def pull(self, noise, token):
        base = [PROGRAM, "--config", self.host.config]
        environment = {**os.environ, **self.host.environment}
        subprocess.run([*base, "rmi", image("debian")], capture_output=True, env=environment, timeout=LIMIT, check=False)
        return self.run([*base, "pull", "-q", image("debian")], lambda out: out.startswith(b"sha256:"), environment=environment)
