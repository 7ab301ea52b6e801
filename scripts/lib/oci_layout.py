"""Writes OCI image layouts: layers as tar files, their configuration, their index.

Standard library only; zstd goes through the zstd program. Everything written is
a function of its input: entries sorted, times clamped to SOURCE_DATE_EPOCH.

As a program: ``oci_layout.py snapshot ROOT STATE LAYER`` writes what changed
below ROOT since STATE was written as one layer, and brings STATE up to date.
"""

import gzip
import hashlib
import io
import json
import os
import platform
import shutil
import stat
import subprocess
import sys
import tarfile

EPOCH = int(os.environ.get("SOURCE_DATE_EPOCH", "1700000000"))
INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
SUFFIX = {"plain": "", "gzip": "+gzip", "zstd": "+zstd"}
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def architecture():
    """This machine's architecture as images name it."""
    machine = platform.machine()
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(machine, machine)


class Layer:
    """One layer's tar file, written entry by entry in the order given."""

    def __init__(self, path, compression="gzip"):
        self.path = path
        self.compression = compression
        self.tar = tarfile.open(
            path, "w", format=tarfile.PAX_FORMAT, errors="surrogateescape"
        )

    @classmethod
    def closed(cls, path, compression="gzip"):
        """A tar file that is there already."""
        layer = cls.__new__(cls)
        layer.path, layer.compression = path, compression
        return layer

    def _add(self, name, kind, mode, uid=0, gid=0, data=None, link="", mtime=None, xattrs=None):
        info = tarfile.TarInfo(os.fsdecode(name))
        info.type, info.mode, info.uid, info.gid = kind, mode, uid, gid
        info.linkname = os.fsdecode(link)
        info.mtime = EPOCH if mtime is None else min(int(mtime), EPOCH)
        for key, value in sorted((xattrs or {}).items()):
            # Raw bytes travel as surrogates, which tarfile writes back as they were.
            info.pax_headers["SCHILY.xattr." + key] = value.decode("utf-8", "surrogateescape")
        if data is not None:
            info.size = len(data)
            self.tar.addfile(info, io.BytesIO(data))
        else:
            self.tar.addfile(info)

    def dir(self, name, mode=0o755, **more):
        self._add(name, tarfile.DIRTYPE, mode, **more)

    def file(self, name, data=b"", mode=0o644, **more):
        data = data.encode() if isinstance(data, str) else data
        self._add(name, tarfile.REGTYPE, mode, data=data, **more)

    def symlink(self, name, target, **more):
        self._add(name, tarfile.SYMTYPE, 0o777, link=target, **more)

    def hardlink(self, name, target, **more):
        self._add(name, tarfile.LNKTYPE, 0o644, link=target, **more)

    def fifo(self, name, mode=0o644, **more):
        self._add(name, tarfile.FIFOTYPE, mode, **more)

    def whiteout(self, name):
        head, tail = os.path.split(name)
        self._add(os.path.join(head, ".wh." + tail), tarfile.REGTYPE, 0o644, data=b"")

    def opaque(self, name):
        self._add(os.path.join(name, ".wh..wh..opq"), tarfile.REGTYPE, 0o644, data=b"")

    def sparse(self, name, size, chunks):
        """A sparse file in the PAX 1.0 format; chunks are (offset, bytes)."""
        table = f"{len(chunks)}\n" + "".join(f"{at}\n{len(data)}\n" for at, data in chunks)
        table = table.encode()
        table += b"\0" * (-len(table) % 512)
        body = table + b"".join(data for _, data in chunks)
        head, tail = os.path.split(name)
        info = tarfile.TarInfo(os.path.join(head, "GNUSparseFile.0", tail))
        info.mode, info.mtime, info.size = 0o644, EPOCH, len(body)
        info.pax_headers = {
            "GNU.sparse.major": "1",
            "GNU.sparse.minor": "0",
            "GNU.sparse.name": name,
            "GNU.sparse.realsize": str(size),
        }
        self.tar.addfile(info, io.BytesIO(body))

    def close(self):
        self.tar.close()
        return self


def _digest(path):
    state = hashlib.sha256()
    with open(path, "rb") as source:
        while block := source.read(1 << 20):
            state.update(block)
    return "sha256:" + state.hexdigest()


def _compress(source, target, how):
    if how == "plain":
        shutil.copyfile(source, target)
    elif how == "zstd":
        subprocess.run(["zstd", "-q", "-3", "-f", source, "-o", target], check=True)
    else:
        with open(source, "rb") as plain, open(target, "wb") as out:
            with gzip.GzipFile("", "wb", 6, out, mtime=0) as packed:
                shutil.copyfileobj(plain, packed, 1 << 20)


class Layout:
    """An OCI layout directory under construction."""

    def __init__(self, path):
        self.path = path
        self.blobs = os.path.join(path, "blobs", "sha256")
        os.makedirs(self.blobs)

    def _store(self, path):
        digest, size = _digest(path), os.path.getsize(path)
        os.replace(path, os.path.join(self.blobs, digest.split(":")[1]))
        return {"digest": digest, "size": size}

    def json(self, media_type, value):
        """Stores a document; returns its descriptor."""
        scratch = os.path.join(self.path, "document")
        with open(scratch, "w") as out:
            json.dump(value, out, sort_keys=True, separators=(",", ":"))
        return {"mediaType": media_type, **self._store(scratch)}

    def image(self, layers, config=None, arch=None):
        """Stores one image of closed layers; returns its manifest's descriptor."""
        arch = arch or architecture()
        blobs, diff_ids = [], []
        for layer in layers:
            diff_ids.append(_digest(layer.path))
            packed = os.path.join(self.path, "layer")
            _compress(layer.path, packed, layer.compression)
            media_type = LAYER + SUFFIX[layer.compression]
            blobs.append({"mediaType": media_type, **self._store(packed)})
        created = "2023-11-14T22:13:20Z"
        document = {
            "created": created,
            "architecture": arch,
            "os": "linux",
            "config": {"Env": [PATH], "Cmd": ["/bin/sh"], **(config or {})},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
            "history": [
                {"created": created, "created_by": f"scripts/make-images, layer {n}"}
                for n, _ in enumerate(layers, 1)
            ],
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": self.json(CONFIG, document),
            "layers": blobs,
        }
        descriptor = self.json(MANIFEST, manifest)
        descriptor["platform"] = {"architecture": arch, "os": "linux"}
        return descriptor

    def index(self, manifests):
        """Stores a multi-platform index; returns its descriptor."""
        value = {"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}
        return self.json(INDEX, value)

    def close(self, descriptor, name):
        """Names the image and completes the layout."""
        entry = {**descriptor, "annotations": {"org.opencontainers.image.ref.name": name}}
        with open(os.path.join(self.path, "index.json"), "w") as out:
            json.dump({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]}, out)
        with open(os.path.join(self.path, "oci-layout"), "w") as out:
            out.write('{"imageLayoutVersion":"1.0.0"}')


# What a package manager leaves behind, and what the bootstrap puts in for its own time.
SKIP_CONTENTS = {"dev", "proc", "sys", "run", "tmp"}
# Of these only the directories stay.
SKIP_FILES = ("var/lib/apt/lists/", "var/cache/apt/", "var/log/")
SKIP = {
    "etc/resolv.conf",
    "etc/hostname",
    "etc/machine-id",
    "usr/sbin/policy-rc.d",
    "var/cache/ldconfig/aux-cache",
    "var/lib/dpkg/lock",
    "var/lib/dpkg/lock-frontend",
    "var/lib/dpkg/status-old",
    "var/lib/dpkg/diversions-old",
    "etc/apt/apt.conf.d/00mmdebstrap",
    "etc/apt/apt.conf.d/99mmdebstrap",
    "usr/sbin/start-stop-daemon.REAL",
}


def _walk(root):
    """Every path below root on its own file system, parents first, sorted."""
    device = os.lstat(root).st_dev
    pending = [""]
    while pending:
        here = pending.pop()
        names = sorted(os.listdir(os.path.join(root, here)), reverse=True)
        for name in names:
            path = os.path.join(here, name)
            if path in SKIP:
                continue
            info = os.lstat(os.path.join(root, path))
            if path.startswith(SKIP_FILES) and not stat.S_ISDIR(info.st_mode):
                continue
            if stat.S_ISDIR(info.st_mode) and path not in SKIP_CONTENTS and info.st_dev == device:
                pending.append(path)
            yield path, info


def _signature(root, path, info):
    if stat.S_ISDIR(info.st_mode):
        return [info.st_mode, info.st_uid, info.st_gid]
    link = os.readlink(os.path.join(root, path)) if stat.S_ISLNK(info.st_mode) else ""
    return [info.st_mode, info.st_uid, info.st_gid, info.st_size, info.st_mtime_ns, link]


def snapshot(root, state_path, layer_path):
    """Writes what changed below root since state_path as a layer."""
    before = {}
    if os.path.exists(state_path):
        with open(state_path) as source:
            before = json.load(source)
    entries = dict(_walk(root))
    after = {path: _signature(root, path, info) for path, info in entries.items()}
    layer = Layer(layer_path)
    seen = {}
    for path in sorted(after):
        info, full = entries[path], os.path.join(root, path)
        if before.get(path) == after[path]:
            if info.st_nlink > 1 and not stat.S_ISDIR(info.st_mode):
                seen.setdefault(info.st_ino, path)
            continue
        common = {"uid": info.st_uid, "gid": info.st_gid, "mtime": info.st_mtime}
        mode = stat.S_IMODE(info.st_mode)
        if stat.S_ISDIR(info.st_mode):
            layer.dir(path, mode, **common)
        elif stat.S_ISLNK(info.st_mode):
            layer.symlink(path, os.readlink(full), **common)
        elif stat.S_ISREG(info.st_mode):
            if info.st_nlink > 1 and info.st_ino in seen:
                layer.hardlink(path, seen[info.st_ino], **common)
                continue
            seen[info.st_ino] = path
            xattrs = {
                key: os.getxattr(full, key)
                for key in os.listxattr(full)
                if not key.startswith("system.")
            }
            with open(full, "rb") as source:
                layer.file(path, source.read(), mode, xattrs=xattrs, **common)
    for path in sorted(before.keys() - after.keys()):
        if os.path.dirname(path) in after or os.path.dirname(path) == "":
            layer.whiteout(path)
    layer.close()
    with open(state_path, "w") as out:
        json.dump(after, out)


if __name__ == "__main__":
    if len(sys.argv) != 5 or sys.argv[1] != "snapshot":
        sys.exit("usage: oci_layout.py snapshot ROOT STATE LAYER")
    snapshot(*sys.argv[2:])
