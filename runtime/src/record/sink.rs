//! Where lines go: a file, the journal, or nowhere.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::SystemTime;

use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, openat};
use rustix::net::{
    AddressFamily, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, send, socket_with,
};

use super::{journal, timestamp};

/// A place that lines can go to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Sink {
    /// The journal, where the host has one.
    #[default]
    Journal,
    /// A file, made for the user alone if it is missing; the journal where it
    /// cannot be opened.
    File(PathBuf),
    /// Nowhere.
    Nowhere,
}

/// The place, ready to be written to. A process that is going to leave the
/// host's namespaces opens it before.
#[derive(Debug)]
pub struct OpenSink(Option<Open>);

#[derive(Debug)]
enum Open {
    File(OwnedFd),
    Journal(OwnedFd),
}

impl Sink {
    /// Opens the place. One that cannot be opened takes nothing.
    #[must_use]
    pub fn open(&self) -> OpenSink {
        OpenSink(match self {
            Self::Journal => open_journal(),
            Self::File(path) => open_file(path).or_else(open_journal),
            Self::Nowhere => None,
        })
    }
}

/// Somebody may have put something in the file's place that keeps a writer
/// waiting, or that it should not write to.
fn open_file(path: &PathBuf) -> Option<Open> {
    let flags = OFlags::WRONLY
        | OFlags::APPEND
        | OFlags::CREATE
        | OFlags::NOFOLLOW
        | OFlags::NONBLOCK
        | OFlags::NOCTTY
        | OFlags::CLOEXEC;
    let fd = openat(CWD, path, flags, Mode::RUSR | Mode::WUSR).ok()?;
    let kind = FileType::from_raw_mode(fstat(&fd).ok()?.st_mode);
    (kind == FileType::RegularFile).then_some(Open::File(fd))
}

fn open_journal() -> Option<Open> {
    let socket = socket_with(
        AddressFamily::UNIX,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )
    .ok()?;
    connect(&socket, &SocketAddrUnix::new(journal::SOCKET).ok()?).ok()?;
    Some(Open::Journal(socket))
}

impl OpenSink {
    /// Whether lines arrive anywhere.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.0.is_some()
    }

    /// Writes one line, given without its end. The journal gets the fields too.
    pub fn line(&self, line: &str, fields: &[(&str, &str)]) {
        match &self.0 {
            None => {}
            Some(Open::File(fd)) => {
                let _ = rustix::io::write(fd, format!("{line}\n").as_bytes());
            }
            Some(Open::Journal(socket)) => {
                let message = journal::message(line, fields);
                let _ = send(socket, &message, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
            }
        }
    }

    /// Writes one event of a pod's or session's, with its time and whose it is
    /// where the place does not know.
    pub fn event(&self, time: SystemTime, text: &str, fields: &[(&str, &str)]) {
        if let Some(Open::Journal(_)) = &self.0 {
            return self.line(text, fields);
        }
        let whose: Vec<&str> = fields.iter().map(|(_, value)| *value).collect();
        let line = format!("{} {}: {text}", timestamp(time), whose.join("/"));
        self.line(&line, &[]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::Path;

    fn sink(path: &Path) -> OpenSink {
        Sink::File(path.to_owned()).open()
    }

    #[test]
    fn a_file_is_made_for_its_user_alone_and_appended_to() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        sink(&path).line("one", &[]);
        sink(&path).line("two", &[("X", "y")]);
        assert_eq!(fs::read_to_string(&path).unwrap(), "one\ntwo\n");
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn lines_of_many_writers_are_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let line = "x".repeat(3000);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let open = sink(&path);
                    (0..50).for_each(|_| open.line(&line, &[]));
                });
            }
        });
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 400);
        assert!(text.lines().all(|l| l == line));
    }

    #[test]
    fn what_is_no_file_is_not_written_to_and_not_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("target"), "").unwrap();
        symlink("target", at("link")).unwrap();
        let fifo = rustix::fs::mknodat(CWD, at("fifo"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0);
        fifo.unwrap();
        for path in [
            at("link"),
            at("fifo"),
            at("missing/log"),
            dir.path().to_owned(),
            "/dev/full".into(),
        ] {
            assert!(open_file(&path).is_none(), "{}", path.display());
            sink(&path).line("a test of podspawn's", &[]);
        }
        assert_eq!(fs::read_to_string(at("target")).unwrap(), "");
        assert!(!Sink::Nowhere.open().is_open());
    }
}
