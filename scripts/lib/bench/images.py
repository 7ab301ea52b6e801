"""The images that `scripts/bench pull` measures with, as OCI layouts, kept until their recipe changes.

    python3 images.py OUT

Made from the distribution's own packages, and of content that is the same in every run.
"""

import hashlib
import importlib.machinery
import importlib.util
import inspect
import os
import random
import shutil
import sys
import tempfile

HERE = os.path.dirname(os.path.realpath(__file__))
sys.dont_write_bytecode = True


def _script(name):
    path = os.path.join(HERE, "..", "..", name)
    loader = importlib.machinery.SourceFileLoader(name.replace("-", "_"), path)
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
    loader.exec_module(module)
    return module


make_images = _script("make-images")
oci_layout = make_images.oci_layout
Layer, Layout = oci_layout.Layer, oci_layout.Layout

DEVELOPMENT = [
    ([], []),
    (["ca-certificates", "curl", "openssh-client", "openssh-sftp-server"], []),
    (["build-essential", "pkg-config"], []),
    (["git", "rsync", "tmux", "procps", "less", "nano", "sudo", "locales"], []),
    (["python3", "python3-venv", "python3-dev"], []),
    (["gdb", "cmake", "ninja-build"], []),
    ([], ["useradd -m dev", "echo 'Welcome.' >/etc/motd", "rm -rf /usr/share/info"]),
]

POSTGRESQL = [
    ([], []),
    ([], ["groupadd -r postgres --gid=999 && useradd -r -g postgres --uid=999 --home-dir=/var/lib/postgresql postgres"]),
    (["gnupg", "less"], []),
    (["locales"], ["localedef -i en_US -f UTF-8 en_US.UTF-8"]),
    (["libnss-wrapper", "xz-utils", "zstd"], []),
    ([], ["mkdir /docker-entrypoint-initdb.d"]),
    (["postgresql"], ["rm -rf /var/lib/postgresql/*/main"]),
    ([], ["install -d -o postgres -g postgres -m 3777 /var/run/postgresql"]),
    ([], ["install -d -o postgres -g postgres -m 1777 /var/lib/postgresql/data"]),
]


def development(out, work):
    """Seven layers; the same with zstd; and all of it squashed to one layer."""
    paths = make_images.distribution_layers(work, DEVELOPMENT, squashed=True)
    kinds = {"dev": (paths[:-1], "gzip"), "dev-zstd": (paths[:-1], "zstd"), "dev-one": (paths[-1:], "gzip")}
    for name, (chosen, how) in kinds.items():
        _image(out, name, [_copy(path, how) for path in chosen])


def postgresql(out, work):
    paths = make_images.distribution_layers(work, POSTGRESQL)
    _image(out, "postgres", [Layer.closed(path) for path in paths])


def many(out, work):
    """One layer of 60,000 small files in 600 directories."""
    chance = random.Random(7)
    words = [chance.randbytes(3).hex() for _ in range(4000)]
    layer = Layer(work + "/1")
    for outer in range(20):
        layer.dir(f"m{outer}")
        for inner in range(30):
            where = f"m{outer}/package-{inner}"
            layer.dir(where)
            for number in range(100):
                text = " ".join(chance.choices(words, k=chance.randrange(20, 600)))
                layer.file(f"{where}/module_{number}.js", text)
    _image(out, "many", [layer.close()])


def big(out, work):
    """One layer of a few large files, half of which does not compress."""
    chance = random.Random(11)
    words = [chance.randbytes(4).hex().encode() for _ in range(5000)]
    layer = Layer(work + "/1")
    for number in range(6):
        blocks = []
        for _ in range(512):
            blocks.append(chance.randbytes(32 << 10))
            blocks.append(b" ".join(chance.choices(words, k=3641))[: 32 << 10])
        layer.file(f"weights-{number}.bin", b"".join(blocks))
    _image(out, "big", [layer.close()])


def tiny(out, work):
    _image(out, "tiny", [make_images.busybox_layer(work + "/1")])


def _copy(path, how):
    shutil.copyfile(path, path + "." + how)
    return Layer.closed(path + "." + how, how)


def _image(out, name, layers):
    target, fresh = os.path.join(out, name), os.path.join(out, f".{name}.{os.getpid()}")
    layout = Layout(fresh)
    layout.close(layout.image(layers), f"podspawn-bench/{name}:latest")
    shutil.rmtree(target, ignore_errors=True)
    os.rename(fresh, target)


RECIPES = [development, postgresql, many, big, tiny]


def main():
    out = os.path.abspath(sys.argv[1])
    os.makedirs(out, exist_ok=True)
    state = hashlib.sha256(inspect.getsource(make_images.distribution_layers).encode())
    for path in (__file__, oci_layout.__file__, "/etc/os-release"):
        with open(path, "rb") as source:
            state.update(source.read())
    wanted, stamp = state.hexdigest(), os.path.join(out, "key")
    if os.path.exists(stamp):
        with open(stamp, encoding="ascii") as source:
            if source.read() == wanted:
                return
    for recipe in RECIPES:
        print(f"bench: making images: {recipe.__name__}", file=sys.stderr)
        with tempfile.TemporaryDirectory(prefix="podspawn-images.") as work:
            recipe(out, work)
    with open(stamp, "w", encoding="ascii") as done:
        done.write(wanted)


if __name__ == "__main__":
    main()
