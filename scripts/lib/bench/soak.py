"""Many short logins into one pod: memory and descriptors of its supervisor must stay as they are.

Fails if they do not. LOGINS=N sets how many there are, over a few ssh connections at once.
"""

import concurrent.futures
import os
import pathlib
import random
import subprocess
import sys
import time

import common
from hosts import STAGE, Sshd, descriptors, end_pods, own_memory, supervisors

OUT = pathlib.Path(sys.argv[1])
IMAGE = os.environ["BENCH_REGISTRY"] + "/podspawn/busybox:1"
LOGINS = int(os.environ.get("LOGINS") or 20000)
AT_ONCE = 4
HOME = OUT / "home"
POD_ENV = {"XDG_DATA_HOME": str(HOME / "data"), "XDG_RUNTIME_DIR": str(HOME / "run")}

# What a day of work looks like, shortened: most end well, some fail or are killed.
COMMANDS = [("true", 0), ("cat /etc/passwd", 0), ("exit 3", 3), ("sh -c 'sleep 0.01 & exit 0'", 0), ("head -c 100000 /dev/zero", 0), ("missing-command", 127)]


def look(pid):
    """Memory that is its own, in KiB, and descriptors."""
    return own_memory(pid), descriptors([f"{STAGE}/bin/podspawn", "--config", f"{OUT}/config.yaml"])


def settled(pid):
    """Once the last sessions have left."""
    seen = look(pid)
    for _ in range(50):
        time.sleep(0.1)
        now = look(pid)
        if now == seen:
            break
        seen = now
    return seen


def login(ssh, number):
    command, expected = COMMANDS[random.Random(number).randrange(len(COMMANDS))]
    got = subprocess.run([*ssh, command], stdin=subprocess.DEVNULL, capture_output=True, check=False)
    return None if got.returncode == expected else f"login {number}: {command!r}: status {got.returncode}: {got.stderr!r}"


def main():
    (HOME / "run").mkdir(parents=True, mode=0o700)
    (OUT / "config.yaml").write_text(f"defaults: {{image: {IMAGE}}}\nsession: {{grace_period: 600s}}\n")
    os.environ.update(POD_ENV)
    podspawn = f"{STAGE}/bin/podspawn --config {OUT}/config.yaml"
    common.run([*podspawn.split(), "pull", "--quiet", IMAGE])
    sshd = Sshd(OUT / "sshd", podspawn + " spawn", ["SetEnv " + " ".join(f"{k}={v}" for k, v in POD_ENV.items())])
    report = common.Report("soak")
    try:
        with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
            warm_up = max(LOGINS // 20, 50)
            for bad in filter(None, pool.map(lambda n: login(sshd.ssh, n), range(warm_up))):
                raise SystemExit("soak: " + bad)
            (pid,) = supervisors()
            before = settled(pid)
            started = time.monotonic()
            failures = [bad for bad in pool.map(lambda n: login(sshd.ssh, n), range(LOGINS)) if bad]
            took = time.monotonic() - started
        if supervisors() != [pid]:
            raise SystemExit(f"soak: the pod {pid} did not stay: {supervisors()}")
        after = settled(pid)
        report.add("logins", LOGINS, "")
        report.add("logins a second", LOGINS / took, "1/s")
        report.add("failed", len(failures), "", "0")
        report.add("own memory of the supervisor, before", before[0], "KiB")
        report.add("own memory of the supervisor, after", after[0], "KiB", f"<= {before[0] + 256}")
        report.add("descriptors of the supervisor, before", before[1], "")
        report.add("descriptors of the supervisor, after", after[1], "", f"{before[1]}")
        report.write(OUT)
        for bad in failures[:10]:
            print("soak:", bad, file=sys.stderr)
        if failures or after[0] > before[0] + 256 or after[1] != before[1]:
            raise SystemExit("soak: not as it was")
    finally:
        sshd.close()
        end_pods()


main()
