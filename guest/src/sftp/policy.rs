//! What the options of `sftp-server` take away: `-R`, `-P` and `-p`. Runs in
//! `sftp-server`.

use super::wire::{Request, open};

/// The extensions, the name that options know them by, and their version.
const EXTENSIONS: [(&str, &str, &str); 11] = [
    ("posix-rename@openssh.com", "posix-rename", "1"),
    ("statvfs@openssh.com", "statvfs", "2"),
    ("fstatvfs@openssh.com", "fstatvfs", "2"),
    ("hardlink@openssh.com", "hardlink", "1"),
    ("fsync@openssh.com", "fsync", "1"),
    ("lsetstat@openssh.com", "lsetstat", "1"),
    ("limits@openssh.com", "limits", "1"),
    ("expand-path@openssh.com", "expand-path", "1"),
    ("copy-data", "copy-data", "1"),
    ("home-directory", "home-directory", "1"),
    ("users-groups-by-id@openssh.com", "users-groups-by-id", "1"),
];

/// The requests of the protocol itself, by the names that options know.
const REQUESTS: [&str; 18] = [
    "open", "close", "read", "write", "lstat", "fstat", "setstat", "fsetstat", "opendir",
    "readdir", "remove", "mkdir", "rmdir", "realpath", "stat", "rename", "readlink", "symlink",
];

/// Which requests are served.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    /// Nothing may be changed (`-R`).
    pub read_only: bool,
    /// If given, nothing else is served (`-p`).
    pub only: Option<Vec<String>>,
    /// Never served (`-P`).
    pub never: Vec<String>,
}

impl Policy {
    /// Whether a request is to be served.
    pub fn permits(&self, request: &Request<'_>) -> bool {
        let (name, writes) = describe(request);
        self.serves(name) && !(self.read_only && writes)
    }

    /// The extensions that are announced, each with its version.
    pub fn extensions(&self) -> impl Iterator<Item = (&'static [u8], &'static [u8])> {
        const WRITING: [&str; 5] = ["posix-rename", "hardlink", "fsync", "lsetstat", "copy-data"];
        EXTENSIONS
            .into_iter()
            .filter(|(_, name, _)| self.serves(name) && !(self.read_only && WRITING.contains(name)))
            .map(|(full, _, version)| (full.as_bytes(), version.as_bytes()))
    }

    fn serves(&self, name: &str) -> bool {
        self.only
            .as_ref()
            .is_none_or(|only| only.iter().any(|n| n == name))
            && !self.never.iter().any(|n| n == name)
    }

    /// Whether `name` is one that `-P` and `-p` take.
    pub fn knows(name: &str) -> bool {
        Self::names().any(|known| known == name)
    }

    /// All names that `-P` and `-p` take.
    pub fn names() -> impl Iterator<Item = &'static str> {
        REQUESTS
            .into_iter()
            .chain(EXTENSIONS.into_iter().map(|(_, name, _)| name))
    }
}

/// The name of a request, and whether it changes anything.
fn describe(request: &Request<'_>) -> (&'static str, bool) {
    match request {
        Request::Open { flags, .. } => (
            "open",
            flags & (open::WRITE | open::APPEND | open::CREAT | open::TRUNC) != 0,
        ),
        Request::Close { .. } => ("close", false),
        Request::Read { .. } => ("read", false),
        Request::Write { .. } => ("write", true),
        Request::Lstat { .. } => ("lstat", false),
        Request::Fstat { .. } => ("fstat", false),
        Request::Setstat { .. } => ("setstat", true),
        Request::Fsetstat { .. } => ("fsetstat", true),
        Request::Opendir { .. } => ("opendir", false),
        Request::Readdir { .. } => ("readdir", false),
        Request::Remove { .. } => ("remove", true),
        Request::Mkdir { .. } => ("mkdir", true),
        Request::Rmdir { .. } => ("rmdir", true),
        Request::Realpath { .. } => ("realpath", false),
        Request::Stat { .. } => ("stat", false),
        Request::Rename { .. } => ("rename", true),
        Request::Readlink { .. } => ("readlink", false),
        Request::Symlink { .. } => ("symlink", true),
        Request::PosixRename { .. } => ("posix-rename", true),
        Request::Statvfs { .. } => ("statvfs", false),
        Request::Fstatvfs { .. } => ("fstatvfs", false),
        Request::Hardlink { .. } => ("hardlink", true),
        Request::Fsync { .. } => ("fsync", true),
        Request::Lsetstat { .. } => ("lsetstat", true),
        Request::Limits => ("limits", false),
        Request::ExpandPath { .. } => ("expand-path", false),
        Request::CopyData(_) => ("copy-data", true),
        Request::HomeDirectory { .. } => ("home-directory", false),
        Request::UsersGroupsById { .. } => ("users-groups-by-id", false),
        Request::Unknown => ("", false),
    }
}
