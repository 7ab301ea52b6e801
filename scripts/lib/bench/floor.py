"""What the steps of a pull take when each is done by itself, by the fastest tool there is.

Every step reads from memory, writes nowhere (but for the files), and runs alone.
"""

import json
import os
import pathlib
import shutil
import subprocess
import urllib.request

import common


def _layers(layout):
    blobs = layout / "blobs" / "sha256"
    index = json.loads((layout / "index.json").read_text())
    manifest = json.loads((blobs / index["manifests"][0]["digest"].split(":")[1]).read_text())
    return [blobs / layer["digest"].split(":")[1] for layer in manifest["layers"]], manifest


def _fetch(reference, manifest):
    host, rest = reference.split("/", 1)
    base = f"http://{host}/v2/{rest.rsplit(':', 1)[0]}/blobs/"
    urls = [base + layer["digest"] for layer in manifest["layers"]]
    urllib.request.urlopen(f"http://{host}/v2/").close()
    argv = ["curl", "-fsS", "--parallel", "--parallel-max", "6"]
    for url in urls:
        argv += ["-o", "/dev/null", url]
    return common.run(argv)


def _expand(blob, target):
    magic = blob.read_bytes()[:2] if blob.stat().st_size else b""
    tool = ["zstd", "-dc"] if magic == b"\x28\xb5" else ["igzip", "-dc"]
    if target:
        with open(target, "wb") as out:
            subprocess.run([*tool, blob], stdout=out, check=True)
    return common.run([*tool, blob])


def measure(layout, reference, place):
    """The floor in seconds, and of what it is made."""
    layers, manifest = _layers(layout)
    fetch = _fetch(reference, manifest)
    work = pathlib.Path(str(place) + ".tars")
    work.mkdir()
    steps = {"fetch": [fetch], "hash": [], "inflate": [], "hash content": [], "create": []}
    try:
        for number, blob in enumerate(layers):
            tar, root = work / str(number), place / str(number)
            steps["inflate"].append(_expand(blob, tar))
            steps["hash"].append(common.run(["sha256sum", blob]))
            steps["hash content"].append(common.run(["sha256sum", tar]))
            root.mkdir()
            steps["create"].append(common.run(["tar", "--numeric-owner", "-xpf", tar, "-C", root]))
            tar.unlink()
        steps["create"].append(common.run(["sync", "-f", place]))
    finally:
        shutil.rmtree(work)
    least = max(sum(map(sum, steps.values())) / os.cpu_count(), *(max(took) for took in steps.values()))
    shown = ", ".join(f"{name} {sum(took):.2f}" for name, took in steps.items())
    return least, shown
