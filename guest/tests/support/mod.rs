//! What the guest's tests share: the built binary behind OpenSSH's own clients, a
//! bare SFTP connection, and skipping with a reason.

#![allow(dead_code)]

use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// The guest as cargo built it.
pub const GUEST: &str = env!("CARGO_BIN_EXE_podspawn-guest");

/// Says why a test cannot run here; in CI that is a failure.
pub fn skip(why: &str) {
    assert!(
        std::env::var_os("CI").is_none_or(|ci| ci != "true"),
        "cannot run in CI: {why}"
    );
    let _ = writeln!(std::io::stderr(), "skipped: {why}");
}

/// Whether `program` with `args` ends well here.
pub fn works(program: &str, args: &[&str]) -> bool {
    Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Whether this process is root.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Waits until `done` says so.
pub fn wait_until(what: &str, done: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Bytes that do not repeat at any block size, different for each `seed`.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    std::iter::repeat_with(&mut next)
        .flatten()
        .take(len)
        .collect()
}

/// A directory with `local` and `remote` in it, a copy of the guest that everybody
/// may run, and a log of what the guest wrote to stderr: nothing, as `Drop` asserts.
pub struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().expect("tempdir");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
        let bench = Self { dir };
        for name in ["local", "remote"] {
            fs::create_dir(bench.path(name)).expect("mkdir");
        }
        // Not by this process, as in `script`.
        let copied = Command::new("cp")
            .arg(GUEST)
            .arg(bench.path("guest"))
            .status();
        assert!(copied.expect("cp").success());
        fs::write(bench.path("stderr"), b"").expect("write");
        fs::set_permissions(bench.path("stderr"), fs::Permissions::from_mode(0o666))
            .expect("chmod");
        bench
    }

    /// `name` below the directory.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A script that runs the guest's sftp-server, begun in `remote`, after `before`.
    pub fn server(&self, before: &str, options: &str) -> PathBuf {
        let path = self.path("server");
        let guest = self.path("guest");
        let (guest, remote) = (guest.display(), self.path("remote"));
        let stderr = self.path("stderr");
        self.script(
            &path,
            &format!(
                "cd {} || exit 1\n{before} exec {guest} sftp-server {options} 2>>{}\n",
                remote.display(),
                stderr.display()
            ),
        );
        path
    }

    /// Writes an executable script. Another process does it: were it open for writing
    /// here, a test that forks meanwhile would hold it open, and it could not be run.
    pub fn script(&self, path: &Path, body: &str) {
        let mut command = Command::new("sh");
        command
            .args(["-c", "cat >\"$0\" && chmod 755 \"$0\""])
            .arg(path);
        let output = feed(&mut command, format!("#!/bin/sh\n{body}").as_bytes());
        assert!(output.status.success(), "{output:?}");
    }

    /// OpenSSH's sftp in `local`, connected to the server, fed with `batch`.
    pub fn sftp_with(&self, server: &Path, args: &[&str], batch: impl AsRef<[u8]>) -> Output {
        let mut command = Command::new("sftp");
        command.args(args).arg("-b").arg("-").arg("-D").arg(server);
        feed(command.current_dir(self.path("local")), batch.as_ref())
    }

    /// The same with the plain server; it must end well, and say nothing.
    pub fn sftp(&self, batch: impl AsRef<[u8]>) -> String {
        let output = self.sftp_with(&self.server("", ""), &["-q"], batch);
        assert!(output.status.success(), "{output:?}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// The same, for a batch of which a command fails; returns what sftp says.
    pub fn sftp_fails(&self, batch: impl AsRef<[u8]>) -> String {
        let output = self.sftp_with(&self.server("", ""), &["-q"], batch);
        assert!(!output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let log = fs::read(self.path("stderr")).expect("the log");
            assert_eq!(
                String::from_utf8_lossy(&log),
                "",
                "the guest wrote to stderr"
            );
        }
    }
}

/// Runs a command with `input` on stdin.
pub fn feed(command: &mut Command, input: &[u8]) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it can be run");
    let mut stdin = child.stdin.take().expect("piped");
    let input = input.to_vec();
    let writer = std::thread::spawn(move || {
        // It may end before it has read everything.
        let _ = stdin.write_all(&input);
    });
    let output = child.wait_with_output().expect("it ends");
    writer.join().expect("no panic");
    output
}

/// Asserts that two trees are the same in names, kinds, modes, targets and contents.
pub fn assert_same_tree(a: &Path, b: &Path) {
    let (a_meta, b_meta) = (
        fs::symlink_metadata(a).expect("stat"),
        fs::symlink_metadata(b).expect("stat"),
    );
    assert_eq!(a_meta.file_type(), b_meta.file_type(), "{}", b.display());
    assert_eq!(
        a_meta.permissions(),
        b_meta.permissions(),
        "{}",
        b.display()
    );
    if a_meta.is_dir() {
        let names = |path: &Path| {
            let mut names: Vec<_> = fs::read_dir(path)
                .expect("ls")
                .map(|e| e.expect("entry").file_name())
                .collect();
            names.sort();
            names
        };
        let (a_names, b_names) = (names(a), names(b));
        assert!(a_names == b_names, "names in {} differ", b.display());
        for name in a_names {
            assert_same_tree(&a.join(&name), &b.join(&name));
        }
    } else if a_meta.is_symlink() {
        assert_eq!(
            fs::read_link(a).expect("link"),
            fs::read_link(b).expect("link")
        );
    } else {
        let same = fs::read(a).expect("read") == fs::read(b).expect("read");
        assert!(same, "contents of {} differ", b.display());
    }
}

/// A connection without a client: packets as the test wants them.
pub struct Raw {
    pub child: Child,
    pub input: Option<ChildStdin>,
    pub output: ChildStdout,
}

/// The fields of a packet, put one after the other.
#[derive(Clone, Default)]
pub struct Fields(pub Vec<u8>);

impl Fields {
    pub fn u32(mut self, value: u32) -> Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }
    pub fn u64(mut self, value: u64) -> Self {
        self.0.extend_from_slice(&value.to_be_bytes());
        self
    }
    pub fn string(self, value: impl AsRef<[u8]>) -> Self {
        let value = value.as_ref();
        let mut fields = self.u32(value.len() as u32);
        fields.0.extend_from_slice(value);
        fields
    }
    /// The packet of this kind: a length, the kind, and the fields.
    pub fn packet(&self, kind: u8) -> Vec<u8> {
        let mut packet = (self.0.len() as u32 + 1).to_be_bytes().to_vec();
        packet.push(kind);
        packet.extend_from_slice(&self.0);
        packet
    }
}

/// No fields yet.
pub fn fields() -> Fields {
    Fields::default()
}

impl Raw {
    /// Starts `command`, which runs an sftp-server.
    pub fn start(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("it can be run");
        let (input, output) = (child.stdin.take(), child.stdout.take().expect("piped"));
        Self {
            child,
            input,
            output,
        }
    }

    /// Starts the server of `bench` and greets it; returns the VERSION packet too.
    pub fn greet(server: impl AsRef<OsStr>) -> (Self, Vec<u8>) {
        let mut raw = Self::start(&mut Command::new(server));
        raw.send(&fields().u32(3).packet(1));
        let version = raw.receive();
        assert_eq!(version[..5], [2, 0, 0, 0, 3]);
        (raw, version)
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.input
            .as_mut()
            .expect("open")
            .write_all(bytes)
            .expect("it reads");
    }

    /// The next packet: its kind and what follows.
    pub fn receive(&mut self) -> Vec<u8> {
        let mut len = [0; 4];
        self.output.read_exact(&mut len).expect("a reply");
        let len = u32::from_be_bytes(len) as usize;
        assert!(len <= 256 * 1024, "a reply of {len} bytes");
        let mut packet = vec![0; len];
        self.output
            .read_exact(&mut packet)
            .expect("the whole reply");
        packet
    }

    /// Sends one request, its id before the other fields, and takes its reply: the kind
    /// and what follows the id.
    pub fn ask(&mut self, kind: u8, rest: Fields) -> (u8, Vec<u8>) {
        const ID: u32 = 0xfeed_1234;
        let mut all = fields().u32(ID);
        all.0.extend_from_slice(&rest.0);
        self.send(&all.packet(kind));
        let reply = self.receive();
        assert_eq!(reply[1..5], ID.to_be_bytes(), "the reply's id");
        (reply[0], reply[5..].to_vec())
    }

    /// The same, for a request that is answered by a status.
    pub fn status(&mut self, kind: u8, rest: Fields) -> u32 {
        let (kind, body) = self.ask(kind, rest);
        assert_eq!(kind, 101, "a status");
        u32::from_be_bytes(body[..4].try_into().expect("four bytes"))
    }

    /// Opens `path`; `flags` as in OPEN.
    pub fn open(&mut self, path: &str, flags: u32) -> Vec<u8> {
        let (kind, body) = self.ask(3, fields().string(path).u32(flags).u32(0));
        assert_eq!(kind, 102, "a handle: {body:?}");
        body[4..].to_vec()
    }

    /// Closes the connection and takes the exit status and whatever was left to read.
    pub fn finish(mut self) -> (Option<i32>, Vec<u8>) {
        self.input = None;
        let mut rest = Vec::new();
        self.output.read_to_end(&mut rest).expect("read");
        (self.child.wait().expect("it ends").code(), rest)
    }
}
