"""What a program that uses paramiko does: paramiko_client.py DIR PORT USER ACTION ARGUMENT…

The battery writes a transcript of results without anything that differs between hosts, so
that two servers can be compared by comparing what this writes.
"""

import errno
import hashlib
import stat
import sys

import paramiko

directory, port, user, action, *arguments = sys.argv[1:]
client = paramiko.SSHClient()
client.load_host_keys(directory + "/known_hosts")
client.connect(
    "127.0.0.1",
    int(port),
    user,
    key_filename=directory + "/client_key",
    allow_agent=False,
    look_for_keys=False,
    timeout=30,
)
sftp = client.open_sftp()


def say(*words):
    print(*words)


def attempt(what, function, *given):
    """The result, or that it failed, with what programs ask for: missing, or not permitted."""
    try:
        say(what, function(*given))
    except IOError as error:
        # Without a number it is a failure whose text is the server's own choice.
        say(what, "failed", errno.errorcode.get(error.errno, ""))


def shown(path, follow=True):
    found = sftp.stat(path) if follow else sftp.lstat(path)
    kind = stat.S_IFMT(found.st_mode)
    size = found.st_size if kind == stat.S_IFREG else "-"
    return f"{oct(found.st_mode)} {size}"


def battery(base):
    sftp.mkdir(base, 0o755)
    root = sftp.normalize(base)
    here = lambda name: base + "/" + name
    data = bytes(range(256)) * 1000
    for size in (0, 1, 255, 32768, 100_000, 256_000):
        with sftp.open(here("file"), "w") as out:
            out.write(data[:size])
        say("size", size, sftp.stat(here("file")).st_size)
        with sftp.open(here("file")) as source:
            source.prefetch(size)
            say("digest", size, hashlib.sha256(source.read()).hexdigest())
    with sftp.open(here("file")) as source:
        say("readv", [hashlib.md5(part).hexdigest() for part in source.readv([(0, 10), (99_999, 10_000), (255_990, 10)])])
    with sftp.open(here("file"), "r+") as both:
        both.seek(1000)
        both.write(b"in the middle")
        both.seek(998)
        say("overwritten", both.read(17))
        both.truncate(2000)
        say("truncated", both.stat().st_size)
    with sftp.open(here("file"), "a") as out:
        out.write(b"at the end")
    say("appended", sftp.stat(here("file")).st_size)
    attempt("exclusive", lambda: sftp.open(here("file"), "wx"))
    with sftp.open(here("huge"), "w") as out:
        out.seek(5 << 30)
        out.write(b"far out")
    say("huge", shown(here("huge")))
    with sftp.open(here("huge")) as source:
        source.seek((5 << 30) - 3)
        say("far", source.read(20))
    sftp.remove(here("huge"))
    for mode in (0o600, 0o755, 0o4711, 0o1777, 0):
        sftp.chmod(here("file"), mode)
        say("chmod", shown(here("file")))
    sftp.chmod(here("file"), 0o644)
    sftp.utime(here("file"), (1_000_000_000, 1_234_567_890))
    say("utime", sftp.stat(here("file")).st_atime, sftp.stat(here("file")).st_mtime)
    own = sftp.stat(here("file"))
    attempt("chown to oneself", lambda: sftp.chown(here("file"), own.st_uid, own.st_gid))
    attempt("truncate", lambda: sftp.truncate(here("file"), 10))
    say("truncated", shown(here("file")))
    sftp.symlink("file", here("link"))
    sftp.symlink("/nowhere at all", here("dangling"))
    say("link", sftp.readlink(here("link")), shown(here("link")), shown(here("link"), False))
    say("dangling", sftp.readlink(here("dangling")), shown(here("dangling"), False)[:4])
    attempt("stat dangling", shown, here("dangling"))
    attempt("readlink of a file", sftp.readlink, here("file"))
    sftp.mkdir(here("dir"), 0o700)
    say("dir", shown(here("dir")))
    attempt("mkdir again", sftp.mkdir, here("dir"))
    attempt("open a directory", lambda: sftp.open(here("dir"), "w"))
    attempt("remove a directory", sftp.remove, here("dir"))
    with sftp.open(here("dir/in"), "w") as out:
        out.write(b"x")
    attempt("rmdir of one with a file", sftp.rmdir, here("dir"))
    attempt("rmdir of a file", sftp.rmdir, here("file"))
    attempt("list a file", sftp.listdir, here("file"))
    attempt("list nothing", sftp.listdir, here("none"))
    attempt("below a file", shown, here("file/x"))
    with sftp.open(here("other"), "w") as out:
        out.write(b"other")
    attempt("rename onto a file", sftp.rename, here("other"), here("file"))
    attempt("posix_rename onto a file", sftp.posix_rename, here("other"), here("file"))
    say("renamed", shown(here("file")))
    attempt("rename nothing", sftp.posix_rename, here("none"), here("x"))
    attempt("rename a directory", sftp.posix_rename, here("dir"), here("dir2"))
    for name in ("x" * 255, "ünïcödé ☃", " blank ", "-dash", "*star?[x]", "quote'\"", "new\nline"):
        with sftp.open(here(name), "w") as out:
            out.write(name)
        say("name", shown(here(name)))
    attempt("name too long", lambda: sftp.open(here("x" * 256), "w"))
    attempt("path too long", shown, here("x/" * 3000))
    attempt("empty path", lambda: sftp.normalize("") != "")
    say("list", sorted(sftp.listdir(base)))
    say("attributes", sorted((a.filename, oct(a.st_mode)) for a in sftp.listdir_attr(base)))
    say("iterated", len(list(sftp.listdir_iter(base))))
    for path in (".", "dir2/../file", "./dir2//in", "none", "link"):
        found = sftp.normalize(here(path))
        say("normal", path, found.replace(root, "ROOT", 1))
    say("absolute", sftp.normalize("/../../usr/../"))
    attempt("closed handle", lambda: closed())
    for name in sftp.listdir(base):
        if name != "dir2":
            sftp.remove(here(name))
    sftp.remove(here("dir2/in"))
    sftp.rmdir(here("dir2"))
    sftp.rmdir(base)
    attempt("gone", shown, base)


def closed():
    handle = sftp.open(arguments[0] + "/file")
    number = handle.handle
    handle.close()
    answer, _ = sftp._request(paramiko.sftp.CMD_FSTAT, number)
    return answer


def truncate(path, size):
    sftp.open(path, "a").close()
    sftp.truncate(path, int(size))


{"battery": battery, "truncate": truncate}[action](*arguments)
client.close()
