"""Many pods at once: what joining one costs then, and what an idle one holds.

Each pod has a store and a run directory of its own, as if it were another user's. Sessions are
`podspawn spawn` as sshd would start it, without sshd, so that what is timed is podspawn. PODS=N
sets how many there are.
"""

import os
import pathlib
import statistics
import subprocess
import sys
import time

import common
from hosts import STAGE, children, descriptors, end_pods, own_memory, supervisors

OUT = pathlib.Path(sys.argv[1])
IMAGE = os.environ["BENCH_REGISTRY"] + "/podspawn/busybox:1"
PODS = int(os.environ.get("PODS") or 200)
SESSIONS = 20


def environment(number):
    home = OUT / f"u{number}"
    return {**os.environ, "XDG_DATA_HOME": str(home / "data"), "XDG_RUNTIME_DIR": str(home / "run"), "SSH_ORIGINAL_COMMAND": "true"}


PODSPAWN = [STAGE / "bin/podspawn", "--config", OUT / "config.yaml"]


def session(number):
    return common.run([*PODSPAWN, "spawn"], env=environment(number))


def joins(numbers):
    """The times of several sessions in each of these pods, in milliseconds."""
    return [session(number) * 1000 for _ in range(SESSIONS) for number in numbers]


def of_podspawn(pid):
    """The supervisor and its children that are podspawn's: pasta is not."""
    return [pid, *(p for p in children(pid) if not pathlib.Path(f"/proc/{p}/comm").read_text().startswith("pas"))]


def main():
    (OUT / "config.yaml").write_text(f"defaults: {{image: {IMAGE}}}\nsession: {{grace_period: 1h}}\n")
    report = common.Report("pods")
    created, first = [], []
    try:
        for number in range(PODS):
            (OUT / f"u{number}/run").mkdir(parents=True, mode=0o700)
            common.run([*PODSPAWN, "pull", "--quiet", IMAGE], env=environment(number))
            created.append(session(number) * 1000)
            if number == 0:
                first = joins([0])
        time.sleep(1)
        step = max(PODS // 10, 1)
        among = [0, *range(step, PODS, step)]
        same, last = joins([0]), joins(among)
        for number in range(PODS):
            for _ in range(SESSIONS):
                session(number)
        pids = supervisors()
        if len(pids) != PODS:
            raise SystemExit(f"bench: {len(pids)} pods are there, not {PODS}")
        memory = [sum(own_memory(p) for p in of_podspawn(pid)) / 1024 for pid in pids]
        held = [descriptors(PODSPAWN, environment(number)) for number in range(PODS)]
        tenth = max(PODS // 10, 1)
        report.add("creating a pod, the first tenth", common.median(created[:tenth]), "ms", spread=created[:tenth])
        report.add("creating a pod, the last tenth", common.median(created[-tenth:]), "ms", spread=created[-tenth:])
        report.add("joining, 1 pod", common.median(first), "ms", spread=first)
        report.add(f"joining the same, {PODS} pods", common.median(same), "ms", spread=same)
        report.add(f"joining any, {PODS} pods", common.median(last), "ms", spread=last)
        report.add(f"joining the same, {PODS} pods / 1 pod", common.median(same) / common.median(first), "ratio")
        report.add("own memory of an idle pod", statistics.mean(memory), "MiB", "<= 5", spread=memory)
        report.add("descriptors of a supervisor", statistics.mean(held), "", spread=held)
        report.write(OUT)
    finally:
        end_pods()
        homes = [str(path) for path in OUT.glob("u*")]
        subprocess.run(["unshare", "--user", "--map-auto", "--map-root-user", "rm", "-rf", *homes], check=False, capture_output=True)


main()
