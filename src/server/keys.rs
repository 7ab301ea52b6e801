//! Public keys of container users: one file a user in `auth.key_dir`.
//!
//! Adding keys runs as root, reading them for sshd as whoever sshd says. What
//! sshd is given is never a user's own file: only root's, of a regular type and
//! a sane size, under a name that cannot leave the directory.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use super::accounts;
use super::files::{self, Change};
use crate::exit::Failure;

/// Largest file of keys, in bytes.
const MOST: u64 = 64 * 1024;

/// The types of keys that OpenSSH knows and does not refuse by itself.
const TYPES: [&str; 7] = [
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "ssh-rsa",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
];

/// The keys in a text of one a line, checked and as they will be written. Options in
/// front of a key are refused: what a container user may do is sshd's configuration.
///
/// # Errors
///
/// The first line that is no key.
pub fn parse(text: &str) -> Result<Vec<String>, Failure> {
    let lines = text.lines().map(str::trim);
    lines
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(key)
        .collect()
}

fn key(line: &str) -> Result<String, Failure> {
    let short: String = line.chars().take(40).collect();
    let refused = |why: &str| Err(Failure::new(format!("{short:?} is no public key: {why}")));
    let mut words = line.split_whitespace();
    let (Some(kind), Some(blob)) = (words.next(), words.next()) else {
        return refused("a type and a key are expected, as in ~/.ssh/id_ed25519.pub");
    };
    if line.contains("PRIVATE KEY") {
        return refused("it is a private one");
    }
    if !TYPES.contains(&kind) {
        return refused("it begins with none of OpenSSH's key types; options are not taken");
    }
    if inner_type(blob).as_deref() != Some(kind) {
        return refused("it is damaged");
    }
    let comment: Vec<&str> = words.collect();
    if comment
        .iter()
        .any(|word| word.chars().any(char::is_control))
    {
        return refused("there is a control character in its comment");
    }
    let line = format!("{kind} {blob} {}", comment.join(" "));
    Ok(line.trim_end().to_owned())
}

/// The type that the key itself names: its first string, a length and that many bytes.
fn inner_type(blob: &str) -> Option<String> {
    let bytes = decode(blob)?;
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let name = rest.get(..usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
    // Something must follow: the key.
    (rest.len() > name.len() + 16).then(|| String::from_utf8(name.to_vec()).ok())?
}

fn decode(base64: &str) -> Option<Vec<u8>> {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD
        .decode(base64)
        .ok()
}

/// The file of a user's keys.
///
/// # Errors
///
/// When the name cannot be a user's.
pub fn path(key_dir: &Path, user: &str) -> Result<PathBuf, Failure> {
    accounts::check_name(user)?;
    Ok(key_dir.join(user))
}

/// Adds keys to a user's file, each once.
///
/// # Errors
///
/// When the file cannot be read or written.
pub fn add(key_dir: &Path, user: &str, new: &[String]) -> Result<(), Failure> {
    let path = path(key_dir, user)?;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(key_dir)
        .map_err(|e| Failure::new(format!("{}: {e}", key_dir.display())))?;
    let mut lines =
        files::read(&path)?.map_or_else(Vec::new, |text| text.lines().map(str::to_owned).collect());
    for key in new {
        if !lines.iter().any(|line| same(line, key)) {
            lines.push(key.clone());
        }
    }
    let text = Some(lines.iter().map(|line| format!("{line}\n")).collect());
    files::replace(&Change { path, text })
}

/// Whether two lines are one key, whatever their comments are.
fn same(a: &str, b: &str) -> bool {
    let words = |line: &str| -> Vec<String> {
        line.split_whitespace().take(2).map(str::to_owned).collect()
    };
    words(a) == words(b)
}

/// The keys in a user's file, for sshd.
///
/// # Errors
///
/// When there is no such file, or one that somebody else than root could have written.
pub fn read(key_dir: &Path, user: &str) -> Result<Vec<String>, Failure> {
    let path = path(key_dir, user)?;
    let io = |e: io::Error| Failure::new(format!("{}: {e}", path.display()));
    let flags =
        OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let fd = rustix::fs::open(&path, flags, Mode::empty()).map_err(|e| io(e.into()))?;
    let file = File::from(fd);
    let stat = file.metadata().map_err(io)?;
    let wrong = if !stat.is_file() {
        "not a regular file"
    } else if stat.uid() != 0 {
        "does not belong to root"
    } else if stat.mode() & 0o022 != 0 {
        "others can write to it"
    } else if stat.len() > MOST {
        "larger than 64 KiB"
    } else {
        ""
    };
    if !wrong.is_empty() {
        return Err(Failure::new(format!("{}: {wrong}", path.display())));
    }
    let mut text = String::new();
    file.take(MOST).read_to_string(&mut text).map_err(io)?;
    parse(&text).map_err(|failure| failure.context(path.display()))
}

/// Of `keys`, the one that a client offers, or all if it is not said which.
#[must_use]
pub fn matching(keys: Vec<String>, offered: Option<(&str, &str)>) -> Vec<String> {
    let wanted =
        |line: &String| offered.is_none_or(|(kind, blob)| same(line, &format!("{kind} {blob}")));
    keys.into_iter().filter(wanted).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKHEChKNnpDDzUa0mEZ4kG1bWqvXlrEZN0yeLtNRKXmv";

    #[test]
    fn keys_are_taken_one_a_line() {
        let text = format!("# alice's\n\n {KEY} alice@laptop  2 \r\n{KEY}\n");
        assert_eq!(
            parse(&text).unwrap(),
            [format!("{KEY} alice@laptop 2"), KEY.to_owned()]
        );
        assert_eq!(parse("").unwrap(), Vec::<String>::new());
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let damaged = KEY.replace("AAAAC3", "AAAAC4");
        let other = KEY.replace("ssh-ed25519", "ssh-rsa");
        for line in [
            "x",
            "ssh-ed25519",
            "ssh-ed25519 !!!",
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5",
            "ssh-dss AAAAB3NzaC1kc3MAAACB",
            "-----BEGIN OPENSSH PRIVATE KEY-----",
            &damaged,
            &other,
            &format!("command=\"id\" {KEY}"),
            &format!("{KEY} a\x1b[31m"),
        ] {
            let line = parse(line).unwrap_err().line().to_owned();
            assert!(line.contains("is no public key"), "{line}");
        }
    }

    #[test]
    fn a_name_does_not_leave_the_directory() {
        let dir = Path::new("/etc/podspawn/keys");
        assert_eq!(path(dir, "alice").unwrap(), dir.join("alice"));
        for name in [
            "",
            ".",
            "..",
            "../alice",
            "/etc/passwd",
            "a/b",
            "a\0b",
            "-a",
            ".a",
            "a\n",
        ] {
            assert!(path(dir, name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn the_offered_key_is_found_whatever_its_comment() {
        let keys = vec![format!("{KEY} alice"), "ssh-rsa AAAA bob".to_owned()];
        let (kind, blob) = KEY.split_once(' ').unwrap();
        assert_eq!(
            matching(keys.clone(), Some((kind, blob))),
            [format!("{KEY} alice")]
        );
        assert_eq!(
            matching(keys.clone(), Some((kind, "AAAA"))),
            Vec::<String>::new()
        );
        assert_eq!(matching(keys.clone(), None), keys);
    }

    #[test]
    fn only_roots_regular_files_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("alice");
        fs::write(&file, format!("{KEY}\n")).unwrap();
        let is_root = rustix::process::geteuid().is_root();
        assert_eq!(read(dir.path(), "alice").is_ok(), is_root);
        if is_root {
            use std::os::unix::fs::PermissionsExt;
            let refused = || read(dir.path(), "alice").unwrap_err().line().to_owned();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o666)).unwrap();
            assert!(refused().ends_with("others can write to it"));
            fs::remove_file(&file).unwrap();
            std::os::unix::fs::symlink("/etc/passwd", &file).unwrap();
            assert!(refused().contains("Too many levels of symbolic links"));
            fs::remove_file(&file).unwrap();
            rustix::fs::mknodat(
                rustix::fs::CWD,
                &file,
                rustix::fs::FileType::Fifo,
                Mode::RUSR,
                0,
            )
            .unwrap();
            assert!(refused().ends_with("not a regular file"));
            fs::remove_file(&file).unwrap();
            fs::write(&file, " ".repeat(65_537)).unwrap();
            assert!(refused().ends_with("larger than 64 KiB"));
        }
    }
}
