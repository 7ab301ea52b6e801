//! File transfer with the clients that people have, against an image with OpenSSH's own tools,
//! one with busybox and one with a single static program.

mod clients;
mod openssh;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::support::client::{self, Output};
use crate::support::host::Host;
use crate::support::{Noise, Tests};

/// What the image of a battery has of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Image {
    /// sftp-server, scp, rsync and git.
    Debian,
    /// A shell and tar.
    Busybox,
    /// Nothing.
    Scratch,
}

impl Image {
    fn name(self) -> &'static str {
        match self {
            Self::Debian => "debian",
            Self::Busybox => "busybox",
            Self::Scratch => "scratch-static",
        }
    }

    fn host(self) -> std::sync::Arc<Host> {
        Host::shared(self.name())
    }
}

type Battery = Vec<(&'static str, fn(Image))>;

/// Every battery against every image.
pub fn all() -> Vec<(&'static str, Tests)> {
    let images = [Image::Debian, Image::Busybox, Image::Scratch];
    let tests = |image: Image| {
        let all: Battery = [openssh::all(), clients::all()].concat();
        let bind = move |(name, test): (&'static str, fn(Image))| -> (&'static str, Box<dyn FnOnce() + Send>) {
            (name, Box::new(move || test(image)))
        };
        all.into_iter().map(bind).collect()
    };
    images.map(|image| (image.name(), tests(image))).into()
}

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A directory of the client's, empty.
fn fresh(host: &Host) -> PathBuf {
    let path = host
        .files()
        .join(format!("t{}", NUMBER.fetch_add(1, Ordering::Relaxed)));
    fs::create_dir(&path).unwrap();
    path
}

/// A name that no other test uses on the far side.
fn name(what: &str) -> String {
    format!("{what}-{}", NUMBER.fetch_add(1, Ordering::Relaxed))
}

/// One of OpenSSH's clients with its options, up to the names.
fn openssh(host: &Host, program: &str) -> Command {
    let mut command = Command::new(program);
    command
        .args(client::options(host))
        .args(["-o", &format!("Port={}", host.port)]);
    client::clean(&mut command);
    command.current_dir(host.files());
    command
}

/// `user@host:path`.
fn far(host: &Host, path: &str) -> String {
    format!("{}:{path}", client::target(host))
}

/// The words of an ssh command line for clients that start ssh themselves.
fn ssh_words(host: &Host) -> String {
    let words: Vec<String> = client::options(host)
        .into_iter()
        .map(|word| format!("'{word}'"))
        .collect();
    format!("ssh {} -p {}", words.join(" "), host.port)
}

/// The same for clients that split the line at blanks and know no quotes.
fn ssh_words_unquoted(host: &Host) -> String {
    // Of the options this alone has a blank in it.
    ssh_words(host)
        .replace("'-o' 'SendEnv=LANG LC_* COLORTERM PODSPAWN_*' ", "")
        .replace('\'', "")
}

/// Runs a batch of sftp commands, which may fail.
#[track_caller]
fn sftp(host: &Host, batch: &str) -> Output {
    let mut command = openssh(host, "sftp");
    command.args(["-q", "-b", "-"]).arg(client::target(host));
    client::run(command, batch.into(), Duration::from_secs(180))
}

/// Runs a batch of sftp commands that must succeed in silence.
#[track_caller]
fn sftp_ok(host: &Host, batch: &str) -> String {
    let output = sftp(host, batch);
    assert_eq!(output.code, Some(0), "{batch}\n{output}");
    assert!(output.stderr.is_empty(), "{batch}\n{output}");
    // A batch echoes its commands.
    output
        .text()
        .lines()
        .filter(|line| !line.starts_with("sftp> "))
        .map(|line| format!("{line}\n"))
        .collect()
}

/// What a file is, for comparison.
#[derive(Debug, PartialEq, Eq)]
enum Entry {
    Directory {
        mode: u32,
    },
    File {
        mode: u32,
        size: u64,
        mtime: i64,
        digest: String,
    },
    Link {
        target: PathBuf,
    },
}

fn digest(path: &Path) -> String {
    let (mut state, mut file, mut buffer) = (
        Sha256::new(),
        fs::File::open(path).unwrap(),
        vec![0; 1 << 20],
    );
    while let count @ 1.. = file.read(&mut buffer).unwrap() {
        state.update(&buffer[..count]);
    }
    state
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Everything below a directory, by digest and by stat.
fn tree(root: &Path) -> BTreeMap<PathBuf, Entry> {
    let mut found = BTreeMap::new();
    let mut pending = vec![root.to_path_buf()];
    while let Some(here) = pending.pop() {
        for path in fs::read_dir(&here)
            .unwrap()
            .map(|entry| entry.unwrap().path())
        {
            let meta = fs::symlink_metadata(&path).unwrap();
            let mode = meta.mode() & 0o7777;
            let entry = if meta.is_dir() {
                pending.push(path.clone());
                Entry::Directory { mode }
            } else if meta.is_symlink() {
                Entry::Link {
                    target: fs::read_link(&path).unwrap(),
                }
            } else {
                Entry::File {
                    mode,
                    size: meta.len(),
                    mtime: meta.mtime(),
                    digest: digest(&path),
                }
            };
            found.insert(path.strip_prefix(root).unwrap().to_path_buf(), entry);
        }
    }
    found
}

/// A tree with everything that every client can carry: no links.
fn make_tree(root: &Path) {
    let mut noise = Noise::new(6);
    let directories = ["", "sub", "sub/deep", "sub/empty", "with space", "mode 700"];
    for directory in directories {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    let long = "l".repeat(200);
    let names: [(&[u8], usize, u32); 10] = [
        (b"empty", 0, 0o644),
        (b"one", 1, 0o600),
        (b"block", 32768, 0o644),
        (b"block-and-one", 32769, 0o644),
        (b"big", 3_000_000, 0o640),
        (b"sub/script", 100, 0o755),
        (b"sub/deep/quote ' \" and $(x) `y`", 10, 0o444),
        (b"with space/a  b", 20, 0o644),
        ("sub/ünïcödé ☃".as_bytes(), 5, 0o644),
        (b"sub/latin-\xe9", 7, 0o644),
    ];
    let with_long = names
        .iter()
        .map(|(name, size, mode)| (name.to_vec(), *size, *mode));
    for (name, size, mode) in with_long.chain([(format!("sub/{long}").into_bytes(), 3, 0o644)]) {
        let path = root.join(OsString::from_vec(name));
        fs::write(&path, noise.bytes(size)).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let file = fs::File::open(&path).unwrap();
        let when = std::time::UNIX_EPOCH + Duration::from_secs(1_600_000_000 + size as u64);
        file.set_modified(when).unwrap();
    }
    fs::set_permissions(root.join("mode 700"), fs::Permissions::from_mode(0o700)).unwrap();
}

/// Links too, for clients that carry them.
fn add_links(root: &Path) {
    symlink("one", root.join("to-one")).unwrap();
    symlink("/nowhere/at all", root.join("sub/dangling")).unwrap();
    symlink("../sub", root.join("sub/to-directory")).unwrap();
}
