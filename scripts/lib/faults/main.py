"""The fault runs. Each ends with what it counted, and fails when something is wrong."""

import collections
import os
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time

from clients import Clients
from host import Host, descends_from, image, kill_pods, processes, send

SEED = os.environ["SEED"]
KILLS = int(os.environ["KILLS"])
CLIENTS = int(os.environ["CLIENTS"])
OUT = pathlib.Path(sys.argv[2])
# In the command of what a service runs.
SERVICE = "podspawn-service"
CONFIG = "session: {grace_period: 2s}\nresources: {max_per_user: 0}\n"


class Verdict:
    """What was found wrong."""

    def __init__(self):
        self.wrong = []

    def check(self, good, what):
        print(f"{'ok  ' if good else 'FAIL'} {what}")
        if not good:
            self.wrong.append(what)

    def clients(self, clients):
        print("clients:")
        for (kind, outcome), count in sorted(clients.outcomes.items()):
            print(f"  {kind:<9} {outcome:<8} {count}")
        self.check(not clients.bad, "every client saw its result or a clear error")
        for line in clients.bad[:20]:
            print("     " + line)

    def afterwards(self, host):
        """No pod is being used any more: what is alive answers, then goes; nothing is left."""
        for pod in host.pods():
            if pod["state"] in ("running", "idle"):
                done = host.podspawn("exec", pod["pod"], "true")
                gone = done.returncode == 125 and "not running" in done.stderr
                self.check(done.returncode == 0 or gone, f"pod {pod['pod']} answers {done.stderr.strip()}")
            else:
                self.check(pod["state"] in ("stopped", "starting"), f"pod {pod['pod']} is {pod['state']}")
        host.podspawn("stop", "--all")
        end = time.monotonic() + 30
        while (left := host.leftovers()) and any(not l.startswith("process") or "sshd" not in l for l in left):
            if time.monotonic() > end:
                break
            time.sleep(0.2)
        host.close()
        time.sleep(0.3)
        left = host.leftovers()
        self.check(not left, "no process, mount, socket or lock is left")
        for line in left[:20]:
            print("     " + line)
        cleaned = host.podspawn("cleanup")
        self.check(cleaned.returncode == 0, f"cleanup works {cleaned.stderr.strip()}")
        run = [p.name for p in (host.run / "podspawn").glob("*") if p.name != ".metrics"]
        # Those with a dot are the store's own.
        pods = [p.name for p in (host.data / "podspawn/pods").glob("[!.]*")]
        self.check(not run and not pods, f"cleanup leaves nothing: {run} {pods}")
        self.store(host)

    def store(self, host):
        checked = host.podspawn("store", "check")
        if "unrecognized subcommand" not in checked.stderr:
            self.check(checked.returncode == 0, f"the store passes its check {checked.stdout[-300:]} {checked.stderr[-300:]}")
        for name in ("busybox", "debian"):
            pulled = host.podspawn("pull", "-q", image(name))
            self.check(pulled.returncode == 0, f"{name} is pulled {pulled.stderr.strip()}")
            ran = host.podspawn("run", image(name), "sh", "-c", "echo whole")
            self.check(ran.stdout == "whole\n", f"{name} runs {ran.stdout!r} {ran.stderr.strip()}")
        tmp = [p.name for p in (host.data / "podspawn/v1/tmp").glob("*")]
        self.check(not tmp, f"nothing half done is in the store {tmp}")


def role(process, daemon, own):
    """Which part of podspawn a process is; None for what is not to be killed."""
    if process.comm in ("pasta", "pasta.avx2", "slirp4netns"):
        return "egress"
    if process.comm == "podspawn-egress":
        return "keeper"
    if process.comm == "podspawn-pod":
        return "supervisor"
    if SERVICE in process.command:
        return "service"
    if process.comm.startswith("sshd"):
        return "sshd child" if process.pid != daemon and descends_from(process.pid, daemon) else None
    if process.comm != "podspawn":
        return None
    words = process.command.split()
    if "pull" in words:
        return "pull"
    if "spawn" not in words:
        return None
    user, mount = process.namespace("user"), process.namespace("mnt")
    if user is None or user == own[0]:
        # Not dumpable: it has entered, or is about to.
        return "session" if user is None else "launcher"
    return "pull" if mount == own[1] else "session"


def victims(host, own):
    """The processes that may be killed, by their role."""
    by_role = collections.defaultdict(list)
    for process in processes():
        if (what := role(process, host.daemon.pid, own)) is not None:
            by_role[what].append(process.pid)
    return by_role


def kills():
    verdict, noise = Verdict(), random.Random(SEED)
    host = Host(OUT, CONFIG)
    host.podspawn("pull", image("busybox"))
    host.podfile("p0", f"""\
services:
  - name: web
    image: {image('busybox')}
    ports: [8000]
    command: [sh, -c, 'echo page >/tmp/page; exec httpd -f -p 8000 -h /tmp -r {SERVICE}']
""")
    own = (os.readlink("/proc/self/ns/user"), os.readlink("/proc/self/ns/mnt"))
    clients = Clients(host, CLIENTS, SEED)
    clients.start()
    done, stopped = collections.Counter(), []
    begin = time.monotonic()
    try:
        while sum(done.values()) < KILLS:
            by_role = victims(host, own)
            # Launchers live for milliseconds: some are waited for.
            hunt = noise.random() < 0.2
            patience = time.monotonic() + 0.5
            while hunt and "launcher" not in by_role and time.monotonic() < patience:
                by_role = victims(host, own)
            now = time.monotonic()
            for due, pid in [s for s in stopped if s[0] <= now]:
                send(pid, signal.SIGKILL)
                stopped.remove((due, pid))
            if by_role:
                what = "launcher" if hunt and "launcher" in by_role else noise.choice(sorted(by_role))
                pid = noise.choice(by_role[what])
                how = noise.choice(["KILL", "TERM", "STOP"])
                if send(pid, getattr(signal, "SIG" + how)):
                    done[what, how] += 1
                    if how == "STOP":
                        stopped.append((now + noise.uniform(0, 0.5), pid))
            time.sleep(noise.uniform(0.01, 0.25))
    finally:
        for _, pid in stopped:
            send(pid, signal.SIGKILL)
        print(f"{sum(done.values())} kills with seed {SEED} in {time.monotonic() - begin:.0f} s:")
        for (what, how), count in sorted(done.items()):
            print(f"  {what:<10} {how if how != 'STOP' else 'STOP, then KILL':<14} {count}")
        clients.stop()
    verdict.clients(clients)
    verdict.afterwards(host)
    return verdict


def disk_full():
    verdict = Verdict()
    small = pathlib.Path(os.environ["FAULTS_STAGE"]) / "small"
    host = Host(OUT, CONFIG + f"log: {{audit_log: {small}/audit}}\n", data=small / "data")
    verdict.check(host.podspawn("pull", image("busybox")).returncode == 0, "there is room for a small image")
    full = host.podspawn("pull", image("debian"))
    verdict.check(full.returncode == 125 and "No space left" in full.stderr, f"a pull without room says so: {full.stderr.strip()}")
    with open(small / "ballast", "wb") as ballast:
        try:
            while True:
                ballast.write(b"\0" * 65536)
                ballast.flush()
        except OSError:
            pass
    clients = Clients(host, CLIENTS, SEED, kinds=["login", "slow", "terminal"])
    clients.start()
    time.sleep(10)
    (small / "ballast").unlink()
    time.sleep(5)
    clients.stop()
    verdict.clients(clients)
    # The small image again is all that there is room for.
    after = subprocess.run([*host.ssh(), "echo works"], capture_output=True, text=True, check=False)
    verdict.check(after.stdout == "works\n", f"with room again, logins work {after.stderr}")
    host.podspawn("stop", "--all")
    checked = host.podspawn("store", "check")
    if "unrecognized subcommand" not in checked.stderr:
        verdict.check(checked.returncode == 0, f"the store passes its check {checked.stdout[-300:]} {checked.stderr[-300:]}")
    again = host.podspawn("pull", "-q", image("busybox"))
    verdict.check(again.returncode == 0, f"the image is whole {again.stderr.strip()}")
    host.close()
    time.sleep(0.3)
    left = host.leftovers()
    verdict.check(not left, f"no process, mount, socket or lock is left {left}")
    return verdict


def run_deleted():
    verdict = Verdict()
    host = Host(OUT, CONFIG)
    host.podspawn("pull", image("busybox"))
    for round_ in range(5):
        live = subprocess.Popen([*host.ssh(), "echo up; sleep 4; echo done"], stdout=subprocess.PIPE, text=True)
        live.stdout.readline()
        # A supervisor may be quicker than this, and make it anew.
        shutil.rmtree(host.run / "podspawn", ignore_errors=True)
        clients = Clients(host, 4, f"{SEED} {round_}", kinds=["login", "slow"], pods=1)
        clients.start()
        default = subprocess.run([*host.ssh(), "echo in"], capture_output=True, text=True, timeout=150, check=False)
        clean = default.stdout == "in\n" or (default.returncode == 125 and default.stderr.startswith("podspawn: "))
        verdict.check(clean, f"a login meanwhile: {default.stdout!r} {default.stderr!r}")
        verdict.check(live.stdout.read() == "done\n" and live.wait() == 0, "the session goes on")
        time.sleep(1)
        clients.stop()
        verdict.clients(clients)
    host.wait("all pods end", lambda: not any(p.comm == "podspawn-pod" for p in processes()), 90)
    verdict.afterwards(host)
    return verdict


def clock():
    verdict = Verdict()
    library = next(pathlib.Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
    moment = OUT / "moment"
    moment.write_text("+0\n")
    environment = {
        "LD_PRELOAD": library, "FAKETIME_TIMESTAMP_FILE": moment, "FAKETIME_NO_CACHE": 1,
        "FAKETIME_DONT_FAKE_MONOTONIC": 1,
    }
    host = Host(OUT, "session: {grace_period: 4s}\n", environment=environment)
    host.podspawn("pull", image("busybox"))

    def ssh(command):
        return subprocess.run([*host.ssh(), command], capture_output=True, text=True, timeout=60, check=False)

    verdict.check(ssh("echo kept >/tmp/mark; echo up").stdout == "up\n", "a login")
    session = subprocess.Popen([*host.ssh(), "echo up; sleep 3; echo done"], stdout=subprocess.PIPE, text=True)
    session.stdout.readline()
    moment.write_text("+3600\n")
    verdict.check(session.stdout.read() == "done\n" and session.wait() == 0, "a session goes on")
    time.sleep(2)
    verdict.check(ssh("cat /tmp/mark").stdout == "kept\n", "the pod is still there within its grace period")
    pods = host.pods()
    verdict.check(len(pods) == 1 and pods[0]["age"] < 60, f"its age is that of its clock: {pods}")
    moment.write_text("-3600\n")
    time.sleep(1)
    verdict.check(ssh("cat /tmp/mark").stdout == "kept\n", "and when the clock goes back")
    begin = time.monotonic()
    host.wait("the pod ends", lambda: not any(p.comm == "podspawn-pod" for p in processes()), 30)
    verdict.check(3 <= time.monotonic() - begin < 20, f"it ends after its grace period: {time.monotonic() - begin:.1f} s")
    times = [line.split("T")[1][:2] for line in host.podspawn("logs").stdout.splitlines()]
    verdict.check(len(set(times)) > 1, "the clock that the supervisor saw did jump")
    verdict.afterwards(host)
    return verdict


def limited(name, values, prlimit):
    verdict = Verdict()
    host = Host(OUT, CONFIG)
    host.podspawn("pull", image("busybox"))
    for value in values:
        host.close()
        host.limits = ["prlimit", prlimit(value), "--"]
        host.start_sshd()
        clients = Clients(host, min(CLIENTS, 8), f"{SEED} {value}", kinds=["login", "slow", "terminal", "upload", "sftp"])
        clients.start()
        time.sleep(6)
        clients.stop()
        print(f"{name} {value}:")
        verdict.clients(clients)
        kill_pods()
    host.close()
    host.limits = []
    host.start_sshd()
    time.sleep(1)
    after = subprocess.run([*host.ssh(), "echo works"], capture_output=True, text=True, check=False)
    verdict.check(after.stdout == "works\n", f"without the limit, logins work {after.stderr}")
    verdict.afterwards(host)
    return verdict


def nproc():
    return limited("RLIMIT_NPROC", [12, 20, 28, 40, 60, 100], lambda n: f"--nproc={n}:{n}")


def nofile():
    return limited("RLIMIT_NOFILE", [8, 12, 16, 20, 24, 32, 48], lambda n: f"--nofile={n}:{n}")


def main():
    runs = {"kills": kills, "disk-full": disk_full, "run-deleted": run_deleted, "clock": clock, "nproc": nproc, "nofile": nofile}
    verdict = runs[sys.argv[1]]()
    print(f"{sys.argv[1]}: " + ("all is well" if not verdict.wrong else f"{len(verdict.wrong)} wrong"))
    sys.exit(1 if verdict.wrong else 0)


main()
