//! The sftp-server under paramiko, the client of Ansible and many scripts.

mod support;

use std::process::Command;

use support::{Bench, skip, works};

/// Connects by a socket, as paramiko would through a channel.
const SCRIPT: &str = r#"
import hashlib, os, socket, stat, subprocess, sys
import paramiko

ours, theirs = socket.socketpair()
server = subprocess.Popen([sys.argv[1]], stdin=theirs, stdout=theirs)
theirs.close()
class Channel(socket.socket):
    def get_name(self):
        return "test"
sftp = paramiko.SFTPClient(Channel(fileno=ours.detach()))
data = os.urandom(3_000_000)
with sftp.open("f", "wb") as f:
    f.set_pipelined(True)
    f.write(data)
with sftp.open("f", "rb") as f:
    f.prefetch()
    assert f.read() == data
with sftp.open("f", "rb") as f:
    assert f.readv([(0, 10), (2_999_990, 10)]) is not None
    f.seek(1_000_000)
    assert f.read(5) == data[1_000_000:1_000_005]
with sftp.open("f", "ab") as f:
    f.write(b"more")
assert sftp.stat("f").st_size == 3_000_004
with sftp.open("f", "r+b") as f:
    f.truncate(10)
    assert f.stat().st_size == 10
sftp.chmod("f", 0o600)
sftp.utime("f", (5, 6))
s = sftp.lstat("f")
assert stat.S_IMODE(s.st_mode) == 0o600 and (s.st_atime, s.st_mtime) == (5, 6), s
sftp.symlink("f", "l")
assert sftp.readlink("l") == "f"
assert stat.S_ISLNK(sftp.lstat("l").st_mode) and stat.S_ISREG(sftp.stat("l").st_mode)
sftp.mkdir("d", 0o700)
assert sorted(sftp.listdir(".")) == ["d", "f", "l"]
assert sorted(a.filename for a in sftp.listdir_iter(".")) == ["d", "f", "l"]
try:
    sftp.rename("f", "l")
    raise SystemExit("it replaced l")
except OSError:
    pass
sftp.posix_rename("f", "l")
assert not stat.S_ISLNK(sftp.lstat("l").st_mode)
for missing in (lambda: sftp.stat("none"), lambda: sftp.open("none"), lambda: sftp.remove("none")):
    try:
        missing()
        raise SystemExit("it is there")
    except FileNotFoundError:
        pass
sftp.chdir("d")
assert sftp.getcwd().endswith("/d") and sftp.normalize("..") == sftp.normalize("/" + sftp.getcwd() + "/..")
sftp.chdir(None)
sftp.rmdir("d")
sftp.remove("l")
assert sftp.listdir(".") == []
sftp.close()
assert server.wait(10) == 0
"#;

#[test]
fn paramiko_is_content() {
    // Debian's, where there are several.
    let python = ["/usr/bin/python3", "python3"]
        .into_iter()
        .find(|python| works(python, &["-c", "import paramiko"]));
    let Some(python) = python else {
        return skip("no paramiko: install python3-paramiko");
    };
    let bench = Bench::new();
    let output = Command::new(python)
        .args(["-c", SCRIPT])
        .arg(bench.server("", ""))
        .output()
        .expect("it can be run");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
