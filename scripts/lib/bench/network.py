"""A pod's network: to a service against a plain veth pair, and to the world outside against pasta alone.

The same program, flow.c, is on either side of all of them and measures by itself, so that nothing
of a session counts. The plain veth pair is the one between the host, which is a network namespace,
and the world (scripts/lib/outside.sh). pasta alone has the very options of the pod's own, in
namespaces that have nothing else; podman, where it knows pasta, has its own.

What is sent out goes to an address that does not answer within 10 us: whoever does, pasta of 2023
(Debian 12) takes for local, and such a connection stands still and is reset, podspawn or not.

Run by an ordinary user in the host's network namespace, see scripts/bench.
"""

import os
import pathlib
import shutil
import subprocess
import sys
import time

import common
from hosts import STAGE, children, end_pods, supervisors

sys.path.insert(0, str(STAGE / "lib"))
from oci_layout import PATH, Layer, Layout  # noqa: E402

OUT = pathlib.Path(sys.argv[1])
ROUNDS = int(os.environ.get("ROUNDS") or 10)
FLOW = STAGE / "bin/flow"
IMAGE = "podspawn-bench/flow:1"
NEAR, FAR = ((address, os.environ["BENCH_PORT"]) for address in ("203.0.113.9", "198.51.100.1"))
PORT = "7000"
WAYS = {"send": "sent", "fetch": "fetched", "turn": "round trip"}


def make_image(path):
    """A shell, and flow, which serves where a service is made of it."""
    layer = Layer(str(OUT / "layer"))
    layer.dir("tmp", 0o1777)
    layer.file("bin/busybox", pathlib.Path(shutil.which("busybox")).read_bytes(), 0o755)
    for applet in ("sh", "true", "cat", "sleep"):
        layer.symlink("bin/" + applet, "busybox")
    layer.file("bin/flow", FLOW.read_bytes(), 0o755)
    layer.file("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n")
    layer.file("etc/group", "root:x:0:\n")
    layout = Layout(str(path))
    layout.close(layout.image([layer.close()], {"Cmd": ["/bin/flow", "serve", PORT], "Env": [PATH]}), IMAGE)


def output(argv, **options):
    """Of a session of its own, as one in a pod is: the kernel's scheduler groups processes by that."""
    options |= {"stdin": subprocess.DEVNULL, "capture_output": True, "start_new_session": True}
    done = subprocess.run(argv, text=True, check=False, **options)
    if done.returncode != 0:
        raise SystemExit(f"bench: {' '.join(map(str, argv))}: status {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def wait(what, happened):
    for _ in range(500):
        if happened():
            return
        time.sleep(0.01)
    raise SystemExit(f"bench: waited for {what} in vain")


class Pod:
    """A dev container, in a pod with a store of its own."""

    def __init__(self, name, layout, podfile):
        home = OUT / name
        podfiles = home / "config/podspawn/podfiles"
        podfiles.mkdir(parents=True)
        (home / "run").mkdir(mode=0o700)
        (podfiles / "default.yaml").write_text(podfile)
        (home / "config.yaml").write_text(f"defaults: {{image: '{IMAGE}'}}\nsession: {{grace_period: 1h}}\n")
        places = {"XDG_DATA_HOME": home / "data", "XDG_RUNTIME_DIR": home / "run", "XDG_CONFIG_HOME": home / "config"}
        self.env = {**os.environ, **{key: str(path) for key, path in places.items()}}
        self.podspawn = [STAGE / "bin/podspawn", "--config", home / "config.yaml"]
        output([*self.podspawn, "load", "--quiet", layout], env=self.env)
        before = supervisors()
        self.session("true")
        (self.supervisor,) = set(supervisors()) - set(before)

    def session(self, command):
        return output([*self.podspawn, "spawn"], env={**self.env, "SSH_ORIGINAL_COMMAND": command})

    def flow(self, *words):
        return float(self.session("exec flow " + " ".join(words)))

    def address_of(self, service):
        """The first that it has, which is of IPv4."""
        lines = [line.split() for line in self.session("cat /etc/hosts").splitlines()]
        return next(words[0] for words in lines if service in words[1:])

    def pasta(self):
        """The command line of the pasta that it gets out by."""
        for keeper in children(self.supervisor):
            for pid in children(keeper):
                words = pathlib.Path(f"/proc/{pid}/cmdline").read_text().split("\0")[:-1]
                if words and words[0] == "pasta":
                    return words
        raise SystemExit("bench: the pod has no pasta")


class Plain:
    """The host itself."""

    def flow(self, *words):
        return float(output([FLOW, *words]))


class Alone:
    """pasta and namespaces that have nothing else."""

    def __init__(self, words):
        self.inside = subprocess.Popen(["unshare", "--user", "--map-root-user", "--net", "sleep", "infinity"])
        proc, ready = pathlib.Path(f"/proc/{self.inside.pid}"), OUT / "pasta.pid"
        wait("namespaces", lambda: (proc / "comm").read_text() == "sleep\n")
        # What says for whom, and where it says that it is ready.
        words = [word for word in words if word not in ("--netns-only", "--netns", "/proc/self/fd/0")]
        words[words.index("--pid") + 1] = str(ready)
        self.pasta = subprocess.Popen([*words, str(self.inside.pid)], stdin=subprocess.DEVNULL, start_new_session=True)
        wait("pasta", lambda: ready.exists() and ready.stat().st_size)
        self.enter = ["nsenter", "--target", str(self.inside.pid), "--user", "--net", "--preserve-credentials", FLOW]

    def flow(self, *words):
        return float(output([*self.enter, *words]))

    def close(self):
        for process in (self.pasta, self.inside):
            process.terminate()
            process.wait()


class Podman:
    """A container of podman's that gets out by pasta."""

    def __init__(self):
        home = OUT / "podman"
        (home / "run").mkdir(parents=True, mode=0o700)
        os.environ["XDG_RUNTIME_DIR"] = str(home / "run")
        self.podman = ["podman", "--cgroup-manager", "cgroupfs", "--root", home / "root", "--runroot", home / "r"]
        image = output([*self.podman, "import", "-q", OUT / "layer"]).strip()
        run = ["run", "-d", "--cgroups", "disabled", "--network", "pasta", "--name", "bench", image, "sleep", "100000"]
        output([*self.podman, *run])

    def flow(self, *words):
        return float(output([*self.podman, "exec", "bench", "flow", *words]))

    def close(self):
        output([*self.podman, "rm", "-f", "-t", "0", "bench"])


def measure(report, name, contest, amounts):
    """Our place, which is the first, against its peers: {title: (place, address, port)}."""
    ours, *peers = contest
    for way, amount in amounts.items():
        runs = {
            title: (lambda place=place, to=to: place.flow(way, *to, str(amount))) for title, (place, *to) in contest.items()
        }  # fmt: skip
        times = common.interleaved(runs, ROUNDS)
        what, turn = f"{name}: {WAYS[way]}", way == "turn"
        for title, seconds in times.items():
            values = [took * 1e6 if turn else amount / took / (1 << 20) for took in seconds]
            report.add(f"{what}, {title}", common.median(values), "us" if turn else "MiB/s", spread=values)
        for title in peers:
            ratios = [a / b if turn else b / a for a, b in zip(times[ours], times[title])]
            report.add(f"{what}, {ours} / {title}", common.median(ratios), "ratio", peer=title, spread=ratios)


def main():
    layout, closing = OUT / "image", []
    make_image(layout)
    report = common.Report("network")
    try:
        pod = Pod("service", layout, f"services: [{{name: peer, image: '{IMAGE}', ports: [{PORT}]}}]\n")
        contest = {"podspawn": (pod, pod.address_of("peer"), PORT), "veth pair": (Plain(), *NEAR)}
        measure(report, "service", contest, {"send": 2 << 30, "fetch": 2 << 30, "turn": 20000})
        end_pods()
        pod = Pod("egress", layout, "{}\n")
        places = {"podspawn": pod, "pasta alone": Alone(pod.pasta())}
        closing.append(places["pasta alone"])
        try:
            places["podman"] = Podman()
            closing.append(places["podman"])
        except SystemExit as failure:
            print(f"no figures of podman: {failure}", file=sys.stderr)
        for to, amounts in ((FAR, {"send": 256 << 20}), (NEAR, {"fetch": 1 << 30, "turn": 10000})):
            measure(report, "egress", {title: (place, *to) for title, place in places.items()}, amounts)
    finally:
        end_pods()
        for place in closing:
            place.close()
    report.write(OUT)


main()
