"""podspawn pull against podman pull, from the same registry into the same file system.

Every round pulls into a fresh store; creating files soon after a mass deletion is slow on ext4,
so stores are kept until the end.
"""

import os
import pathlib
import shutil
import subprocess
import sys

import common

OUT = pathlib.Path(sys.argv[1])
STAGE = pathlib.Path(os.environ["BENCH_STAGE"])
REGISTRY = os.environ["BENCH_REGISTRY"]
ROUNDS = int(os.environ.get("ROUNDS") or 5)


def main():
    run = OUT / "run"
    run.mkdir(mode=0o700)
    os.environ["XDG_RUNTIME_DIR"] = str(run)
    (OUT / "config.yaml").write_text("{}\n")
    report = common.Report("pull")
    for image in ("debian", "busybox"):
        reference = f"{REGISTRY}/podspawn/{image}:1"
        numbers = iter(range(1000))

        def ours(image=image, reference=reference, numbers=numbers):
            store = OUT / f"ours-{image}-{next(numbers)}"
            env = {**os.environ, "XDG_DATA_HOME": str(store)}
            return common.run([STAGE / "bin/podspawn", "--config", OUT / "config.yaml", "pull", "--quiet", reference], env=env)

        def podman(image=image, reference=reference, numbers=numbers):
            store = OUT / f"podman-{image}-{next(numbers)}"
            base = ["podman", "--root", store, "--runroot", OUT / "runroot", "--cgroup-manager", "cgroupfs"]
            return common.run([*base, "pull", "-q", "--tls-verify=false", reference])

        contestants = {"ours": ours}
        if shutil.which("podman"):
            contestants["podman"] = podman
        times = common.interleaved(contestants, ROUNDS)
        report.add(f"{image}: podspawn pull", common.median(times["ours"]), "s", spread=times["ours"])
        if "podman" in times:
            report.add(f"{image}: podman pull", common.median(times["podman"]), "s", spread=times["podman"])
            ratio = common.paired(times["ours"], times["podman"], lambda a, b: a / b)
            budget = {"debian": "<= 0.22", "busybox": "<= 0.6"}[image]
            report.add(f"{image}: podspawn / podman", ratio, "ratio", budget, "podman pull")
        else:
            print("no podman figures: podman is not installed", file=sys.stderr)
    report.write(OUT)
    # What was unpacked belongs to subordinate ids.
    for store in [*OUT.glob("ours-*"), *OUT.glob("podman-*")]:
        subprocess.run(["unshare", "--user", "--map-auto", "--map-root-user", "rm", "-rf", store], check=False, capture_output=True)


main()
