"""Sessions through podspawn against the same sshd without it, over ControlMasters.

Every client is the same ssh over a master that is already connected, so that what is timed is
the session: sshd's fork, the forced command, the pod. podman, where it is installed and works
for this user, stands in the same place as podspawn.
"""

import os
import pathlib
import shutil
import subprocess
import sys
import time

import common
from hosts import STAGE, Sshd, end_pods

OUT = pathlib.Path(sys.argv[1])
IMAGE = os.environ["BENCH_REGISTRY"] + "/podspawn/debian:1"
ROUNDS = int(os.environ.get("ROUNDS") or 40)
HOME = OUT / "home"
POD_ENV = {"XDG_DATA_HOME": str(HOME / "data"), "XDG_RUNTIME_DIR": str(HOME / "run")}


def podman_peers():
    """Forced commands for podman exec and podman run, if podman works for this user."""
    podman = shutil.which("podman")
    if podman is None:
        return None, "podman is not installed"
    os.environ["XDG_RUNTIME_DIR"] = str(HOME / "run")
    base = [podman, "--cgroup-manager", "cgroupfs", "--root", str(HOME / "podman"), "--runroot", str(HOME / "podman-run")]
    pull = subprocess.run([*base, "pull", "-q", "--tls-verify=false", IMAGE], capture_output=True, text=True, check=False)
    if pull.returncode != 0:
        return None, "podman pull: " + pull.stderr.strip().splitlines()[-1]
    start = [*base, "run", "-d", "--cgroups", "disabled", "--network", "none", "--name", "bench", IMAGE, "sleep", "100000"]
    started = subprocess.run(start, capture_output=True, text=True, check=False)
    if started.returncode != 0:
        return None, "podman run: " + started.stderr.strip().splitlines()[-1]
    line = " ".join(base)
    return {
        "exec": f'{line} exec -i bench sh -c "$SSH_ORIGINAL_COMMAND"',
        "run": f'{line} run --rm -i --cgroups disabled --network none {IMAGE} sh -c "$SSH_ORIGINAL_COMMAND"',
        "base": base,
    }, None


def agent_cost(report, spawn):
    """What a forwarded agent adds to a session in a pod that runs."""
    socket = HOME / "agent"
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", socket], stdout=subprocess.DEVNULL)
    try:
        while not socket.exists():
            time.sleep(0.01)
        env = {**os.environ, "SSH_ORIGINAL_COMMAND": "true"}
        forwarded = {**env, "SSH_AUTH_SOCK": str(socket)}
        times = common.interleaved(
            {"with": lambda: common.run(spawn, env=forwarded), "without": lambda: common.run(spawn, env=env)},
            ROUNDS * 2, warm_up=3,
        )
        cost = common.paired(times["with"], times["without"], lambda a, b: (a - b) * 1000)
        report.add("what an agent adds to a warm session", cost, "ms", "< 1", "podspawn without -A")
    finally:
        agent.terminate()
        agent.wait()


def main():
    (HOME / "run").mkdir(parents=True, mode=0o700)
    (OUT / "config.yaml").write_text(f"defaults: {{image: {IMAGE}}}\nsession: {{grace_period: 600s}}\n")
    os.environ.update(POD_ENV)
    settings = ["SetEnv " + " ".join(f"{k}={v}" for k, v in POD_ENV.items())]
    podspawn = f"{STAGE}/bin/podspawn --config {OUT}/config.yaml"
    common.run([*podspawn.split(), "pull", IMAGE])
    ours, plain = Sshd(OUT / "ours", podspawn + " spawn", settings), Sshd(OUT / "plain", "", settings)
    open_sshds = [ours, plain]
    report = common.Report("session")
    try:
        common.run([*ours.ssh, "true"])
        times = common.interleaved({"ours": ours.true, "plain": plain.true}, ROUNDS, warm_up=3)
        milli = {name: [t * 1000 for t in list_] for name, list_ in times.items()}
        report.add("warm ssh host true, plain sshd", common.median(milli["plain"]), "ms", spread=milli["plain"])
        report.add("warm ssh host true, podspawn", common.median(milli["ours"]), "ms", spread=milli["ours"])
        warm = common.paired(milli["ours"], milli["plain"], lambda a, b: a - b)
        report.add("warm overhead", warm, "ms", "<= 3", "plain sshd")

        agent_cost(report, [*podspawn.split(), "spawn"])

        def cold():
            end_pods()
            return ours.true()

        times = common.interleaved({"cold": cold, "plain": plain.true}, max(ROUNDS // 2, 5))
        milli = {name: [t * 1000 for t in list_] for name, list_ in times.items()}
        report.add("cold ssh host true, podspawn", common.median(milli["cold"]), "ms", spread=milli["cold"])
        first = common.paired(milli["cold"], milli["plain"], lambda a, b: a - b)
        report.add("cold overhead, image present", first, "ms", "<= 40", "plain sshd")

        big = OUT / "big"
        with open(big, "wb") as file:
            for _ in range(256):
                file.write(os.urandom(1 << 20))
        stream = common.interleaved(
            {"ours": lambda: ours.stream(big), "plain": lambda: plain.stream(big)}, max(ROUNDS // 8, 3)
        )
        ratio = common.paired(stream["ours"], stream["plain"], lambda a, b: b / a)
        report.add("stream through ssh host cat, 256 MiB", ratio, "ratio", ">= 0.97", "plain sshd")

        peers, why = podman_peers()
        if peers is None:
            print(f"no podman figures: {why}", file=sys.stderr)
        else:
            for kind in ("exec", "run"):
                try:
                    peer = Sshd(OUT / ("podman-" + kind), peers[kind], settings)
                    open_sshds.append(peer)
                    mine = ours.true if kind == "exec" else cold
                    times = common.interleaved({"ours": mine, "peer": peer.true}, max(ROUNDS // 4, 5))
                    value = common.paired(times["ours"], times["peer"], lambda a, b: a / b)
                    peer_ms = [t * 1000 for t in times["peer"]]
                    report.add(f"podman {kind} in the same place", common.median(peer_ms), "ms", spread=peer_ms)
                    report.add(f"podspawn / podman {kind}", value, "ratio", peer="podman " + kind)
                except SystemExit as failure:
                    print(f"no figure for podman {kind}: {failure}", file=sys.stderr)
            subprocess.run([*peers["base"], "rm", "-f", "-t", "0", "bench"], capture_output=True, check=False)
    finally:
        end_pods()
        for sshd in open_sshds:
            sshd.close()
    report.write(OUT)


main()
