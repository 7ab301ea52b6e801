"""The fidelity image: every kind of entry that a layer can have, and what the image specification
makes of them, computed here by a model that knows nothing of overlays.

Everything lies below /t. `probe`, a program in the image, prints each file below a directory as one
line, and `expected` beside the layout has the lines that are due.
"""

import hashlib
import io
import os
import struct
import subprocess
import tarfile

PROBE = os.path.join(os.path.dirname(os.path.realpath(__file__)), "probe.c")
EPOCH = 1_600_000_000
NOBODY = 65534
# The ids that every test user's pod has.
IDS = 65536


class File:
    """An inode of the model."""

    def __init__(self, kind, mode, uid, gid, mtime, data=b"", link=b"", xattrs=None, size=None):
        self.kind, self.mode, self.data, self.link = kind, mode, data, link
        # Whom this map does not have is nobody.
        self.uid, self.gid = (i if i < IDS else NOBODY for i in (uid, gid))
        self.mtime, self.xattrs, self.size = mtime, xattrs or {}, len(data) if size is None else size
        # Names that later layers hide. Overlay has the link count from the layer, so they count.
        self.hidden = 0

    def line(self, path, links):
        digest = hashlib.sha256(self.data).hexdigest() if self.kind == "f" else self.link.hex() or "-"
        xattrs = ",".join(f"{name}={value.hex()}" for name, value in sorted(self.xattrs.items())) or "-"
        size = self.size if self.kind == "f" else 0
        second, nano = self.mtime
        return f"{path.hex()} {self.kind} {self.mode:o} {self.uid}:{self.gid} {size} {links} {second}.{nano:09} {digest} {xattrs}"


class Model:
    """The tree after each layer."""

    def __init__(self):
        self.tree = {}
        self.lower = {}

    def remove(self, path, itself=True):
        for known in [p for p in self.tree if p.startswith(path + b"/") or (itself and p == path)]:
            self.hide(known)

    def hide(self, path):
        file = self.tree.pop(path)
        file.hidden += self.lower.get(path) is file

    def put(self, path, file):
        parent = os.path.dirname(path)
        if parent and parent not in self.tree:
            self.put(parent, File("d", 0o755, 0, 0, (0, 0)))
        old = self.tree.get(path)
        if not (old and old.kind == "d" and file.kind == "d"):
            self.remove(path)
        self.tree[path] = file

    def lines(self):
        links = {}
        for file in self.tree.values():
            links[id(file)] = links.get(id(file), 0) + 1
        return sorted(file.line(path, 1 if file.kind == "d" else links[id(file)] + file.hidden) for path, file in self.tree.items())


class Writer:
    """One layer, written and modelled entry by entry."""

    def __init__(self, layer, model):
        self.tar, self.model = layer.tar, model
        self.lower = model.lower = dict(model.tree)

    def _write(self, path, kind, mode, uid, gid, mtime, data=None, link=b"", xattrs=None, gnu=False, extra=None):
        info = tarfile.TarInfo(os.fsdecode(path))
        info.type, info.mode, info.uid, info.gid, info.linkname = kind, mode, uid, gid, os.fsdecode(link)
        info.mtime = 0 if mtime[0] < 0 else mtime[0]
        if mtime[1] or mtime[0] < 0:
            whole, nano = mtime
            sign = ""
            if whole < 0:
                sign, whole, nano = "-", (-whole - 1, -whole)[nano == 0], (1_000_000_000 - nano) % 1_000_000_000
            info.pax_headers["mtime"] = f"{sign}{whole}.{nano:09}"
        for name, value in (xattrs or {}).items():
            info.pax_headers["SCHILY.xattr." + name] = value.decode("utf-8", "surrogateescape")
        info.pax_headers.update(extra or {})
        info.size = len(data or b"")
        if gnu:
            info.pax_headers = {}
            header = info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")
            self.tar.fileobj.write(header)
            self.tar.offset += len(header)
            body = data + bytes(-len(data) % 512)
            self.tar.fileobj.write(body)
            self.tar.offset += len(body)
            return
        self.tar.addfile(info, io.BytesIO(data) if data is not None else None)

    def dir(self, path, mode=0o755, uid=0, gid=0, mtime=(EPOCH, 0), **more):
        self._write(path, tarfile.DIRTYPE, mode, uid, gid, mtime, **more)
        self.model.put(path, File("d", mode, uid, gid, mtime, xattrs=more.get("xattrs")))

    def file(self, path, data=b"", mode=0o644, uid=0, gid=0, mtime=(EPOCH, 0), kept=True, **more):
        self._write(path, tarfile.REGTYPE, mode, uid, gid, mtime, data=data, **more)
        xattrs = more.get("xattrs") if kept else None
        self.model.put(path, File("f", mode, uid, gid, mtime, data, xattrs=xattrs))

    def symlink(self, path, link, uid=0, gid=0, mtime=(EPOCH, 0)):
        self._write(path, tarfile.SYMTYPE, 0o777, uid, gid, mtime, link=link)
        self.model.put(path, File("l", 0o777, uid, gid, mtime, link=link))

    def hardlink(self, path, target):
        self._write(path, tarfile.LNKTYPE, 0o644, 0, 0, (EPOCH, 0), link=target)
        self.model.put(path, self.model.tree[target])

    def fifo(self, path, mode=0o620, uid=3, gid=4, mtime=(EPOCH, 0)):
        self._write(path, tarfile.FIFOTYPE, mode, uid, gid, mtime)
        self.model.put(path, File("p", mode, uid, gid, mtime))

    def device(self, path):
        """Not made: an ordinary user cannot."""
        self._write(path, tarfile.CHRTYPE, 0o666, 0, 0, (EPOCH, 0))
        self.model.remove(path)

    def sparse(self, path, size, chunks):
        table = f"{len(chunks)}\n" + "".join(f"{at}\n{len(data)}\n" for at, data in chunks)
        body = table.encode() + bytes(-len(table) % 512) + b"".join(data for _, data in chunks)
        head, tail = os.path.split(path)
        extra = {
            "GNU.sparse.major": "1", "GNU.sparse.minor": "0",
            "GNU.sparse.name": os.fsdecode(path), "GNU.sparse.realsize": str(size),
        }  # fmt: skip
        self._write(os.path.join(head, b"GNUSparseFile.0", tail), tarfile.REGTYPE, 0o644, 0, 0, (EPOCH, 0), data=body, extra=extra)
        whole = bytearray(size)
        for at, data in chunks:
            whole[at : at + len(data)] = data
        self.model.put(path, File("f", 0o644, 0, 0, (EPOCH, 0), bytes(whole)))

    def whiteout(self, path):
        """Removes what the layers below have; what this layer has stays."""
        head, tail = os.path.split(path)
        self._write(os.path.join(head, b".wh." + tail), tarfile.REGTYPE, 0o644, 0, 0, (EPOCH, 0), data=b"")
        self._hide(lambda known: known == path or known.startswith(path + b"/"))

    def opaque(self, path):
        self._write(os.path.join(path, b".wh..wh..opq"), tarfile.REGTYPE, 0o644, 0, 0, (EPOCH, 0), data=b"")
        self._hide(lambda known: known.startswith(path + b"/"))

    def _hide(self, hidden):
        for known, file in self.lower.items():
            if hidden(known) and self.model.tree.get(known) is file:
                self.model.hide(known)


def bottom(w):
    w.dir(b"t", mtime=(EPOCH, 1))
    w.file(b"t/plain", b"plain\n")
    w.file(b"t/empty")
    w.file(b"t/large", bytes(range(256)) * 4096)
    w.file(b"t/zeros", bytes(300_000))
    w.dir(b"t/gone")
    w.file(b"t/gone/inside", b"x")
    w.file(b"t/gone-file", b"x")
    w.dir(b"t/opaque", 0o711)
    w.file(b"t/opaque/old", b"old")
    w.dir(b"t/opaque/deeper")
    w.file(b"t/opaque/deeper/old", b"old")
    w.dir(b"t/links")
    w.file(b"t/links/one", b"linked", 0o640, 5, 6, (EPOCH, 5), xattrs={"user.of": b"all"})
    w.hardlink(b"t/links/two", b"t/links/one")
    w.dir(b"t/other")
    w.hardlink(b"t/other/three", b"t/links/one")
    w.file(b"t/links/lower", b"of the lower layer", 0o604, 7, 8, (EPOCH, 9))
    w.symlink(b"t/links/absolute", b"/t/plain")
    w.symlink(b"t/links/relative", b"../plain", 9, 10, (EPOCH, 77))
    w.symlink(b"t/links/dangling", b"/no/such/../thing")
    w.symlink(b"t/links/itself", b"itself")
    w.symlink(b"t/links/out", b"../../../../../../etc/passwd")
    w.symlink(b"t/links/long", b"l/" * 150)
    w.symlink(b"t/links/raw", b"caf\xe9")
    w.hardlink(b"t/links/of-a-symlink", b"t/links/dangling")
    w.device(b"t/null")
    w.file(b"t/was-a-file", b"x")
    w.device(b"t/was-a-file")
    w.fifo(b"t/pipe")
    w.dir(b"t/modes", 0o3775, 1000, 1001)
    for mode in (0o4755, 0o2755, 0o6711, 0o1644, 0, 0o777, 0o7777):
        w.file(b"t/modes/%o" % mode, b"#!/bin/sh\n", mode, 11, 12)
    for mode in (0o1777, 0o2770, 0, 0o555):
        w.dir(b"t/modes/d%o" % mode, mode, 1, 2)
    w.file(b"t/modes/d555/inside", b"x")
    capability = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)
    w.file(b"t/xattr", b"x", xattrs={"user.a": b"\0\xff", "user.long": b"v" * 200, "security.capability": capability}, mode=0o755)
    w.file(b"t/orders", b"x", xattrs={"user.overlay.opaque": b"y", "trusted.x": b"y"}, kept=False)
    w.dir(b"t/xattr-dir", xattrs={"user.d": b"dir"})
    w.file(b"t/" + b"p" * 255, b"the longest name\n")
    deep = b"/".join([b"d" * 80] * 6)
    w.file(b"t/" + deep + b"/leaf", b"implied parents, pax\n")
    w.file(b"t/" + b"g" * 180, b"gnu\n", gnu=True)
    w.file(b"t/latin-\xe9", b"latin\n")
    w.file(b"t/new\nline \x01 and\ttab", b"control\n")
    w.file("t/ünï-漢字".encode(), b"unicode\n")
    w.sparse(b"t/sparse", 3 << 20, [(0, b"begin"), (1 << 20, b"middle"), ((3 << 20) - 3, b"end")])
    w.sparse(b"t/hole-at-the-end", 1 << 20, [(4096, b"data")])
    w.file(b"t/nano", b"x", mtime=(EPOCH, 123_456_789))
    w.file(b"t/before", b"x", mtime=(-150_000_000, 500_000_000))
    w.file(b"t/just-before", b"x", mtime=(-1, 999_999_999))
    w.dir(b"t/before-dir", mtime=(-1000, 5))
    w.file(b"t/far", b"x", mtime=(4_000_000_000, 0))
    w.file(b"t/huge-ids", b"x", 0o600, 3_000_000_000, 4_000_000_000)
    w.file(b"t/mapped-ids", b"x", 0o600, 65_000, 999)
    w.file(b"t/twice", b"the first", 0o600, 1, 1)
    w.file(b"t/twice", b"the last")
    w.dir(b"t/dir-then-file-in-one-layer")
    w.file(b"t/dir-then-file-in-one-layer/x", b"x")
    w.file(b"t/dir-then-file-in-one-layer", b"file")
    w.file(b"t/file-then-dir", b"x")
    w.dir(b"t/dir-then-file")
    w.file(b"t/dir-then-file/x", b"x")
    w.file(b"t/file-then-link", b"x")
    w.dir(b"t/dir-then-link")
    w.file(b"t/dir-then-link/x", b"x")
    w.symlink(b"t/link-then-dir", b"links")
    w.dir(b"t/stays", 0o750, 21, 22, (EPOCH, 23), xattrs={"user.s": b"s"})
    w.dir(b"t/changes", 0o700)
    w.file(b"t/changes/kept", b"x")
    w.dir(b"t/comes-back")
    w.file(b"t/comes-back/old", b"x")


def middle(w):
    w.dir(b"t", 0o751, mtime=(EPOCH, 2))
    w.whiteout(b"t/gone")
    w.whiteout(b"t/gone-file")
    w.whiteout(b"t/never-was")
    # Whichever of the two comes first.
    w.file(b"t/opaque/new", b"new")
    w.opaque(b"t/opaque")
    w.hardlink(b"t/links/across", b"t/links/lower")
    w.hardlink(b"t/links/across-too", b"t/links/lower")
    w.dir(b"t/file-then-dir", 0o705)
    w.file(b"t/file-then-dir/x", b"x")
    w.file(b"t/dir-then-file", b"file")
    w.symlink(b"t/file-then-link", b"plain")
    w.symlink(b"t/dir-then-link", b"links")
    w.dir(b"t/link-then-dir")
    w.file(b"t/link-then-dir/x", b"x")
    w.file(b"t/stays/new", b"of a directory that this layer only implies")
    w.dir(b"t/changes", 0o2755, 31, 32, (EPOCH, 33), xattrs={"user.now": b"1"})
    w.whiteout(b"t/comes-back")
    w.dir(b"t/comes-back", 0o700)
    w.file(b"t/comes-back/new", b"x")
    w.file(b"t/plain", b"changed\n", 0o600, 41, 42)


def top(w):
    w.whiteout(b"t/links/two")
    w.whiteout(b"t/comes-back/new")
    w.file(b"t/gone", b"back, as a file")
    w.file(b"t/stays/deeper/new", b"implied again")
    w.dir(b"t/opaque/deeper", 0o700)
    w.hardlink(b"t/links/again", b"t/links/across")


def image(layout, work, layer, base):
    """Stores the image on top of the layer `base`, made with the class `layer`; its lines too."""
    program = os.path.join(work, "probe")
    subprocess.run(["gcc", "-static", "-O1", "-s", "-o", program, PROBE], check=True)
    model, layers = Model(), [base]
    helper = layer(work + "/helper")
    with open(program, "rb") as source:
        helper.file("probe", source.read(), 0o755)
    layers.append(helper.close())
    for number, (write, how) in enumerate(((bottom, "gzip"), (middle, "zstd"), (top, "plain"))):
        one = layer(f"{work}/fidelity-{number}", how)
        write(Writer(one, model))
        layers.append(one.close())
    with open(os.path.join(layout.path, "expected"), "w", encoding="ascii") as out:
        out.write("\n".join(model.lines()) + "\n")
    return layout.image(layers)
