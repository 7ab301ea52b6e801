//! Reading the configuration files: the thin shell around [`Config::apply`].
//!
//! Runs as the user. Root's files must be root's: whoever can write the
//! administrator's file decides what everybody's sessions run. What is opened is
//! checked through its descriptor, so that nothing can be put in its place in
//! between, and a pipe or a device is never waited for.

use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, Stat};
use rustix::io::Errno;

use super::{Config, ConfigError, Source};
use crate::account::{Account, Directories, per_user_config};

/// The administrator's file for everybody.
pub const SERVER: &str = "/etc/podspawn/config.yaml";

/// Largest file that is read, in bytes.
const MOST: u64 = 64 * 1024;

/// Where the files are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Locations {
    /// The administrator's file for everybody, and the per-user files in `users`
    /// beside it.
    pub server: PathBuf,
    /// Whether `server` was named on the command line: then it must exist, and
    /// may belong to the user.
    pub named: bool,
    /// The user's own file.
    pub own: PathBuf,
}

impl Locations {
    /// The usual places, or those beside the file that `--config` named.
    #[must_use]
    pub fn new(named: Option<&Path>, directories: &Directories) -> Self {
        Self {
            server: named.unwrap_or(Path::new(SERVER)).to_owned(),
            named: named.is_some(),
            own: directories.own_config(),
        }
    }
}

/// Who may have written a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trust {
    /// Root.
    Root,
    /// Root or the user, and nobody else through the file's group.
    RootOrUser,
    /// Root or the user; a group that the user lets in is the user's affair.
    Own,
}

/// Reads all files there are.
///
/// # Errors
///
/// When a file cannot be read, is not to be trusted, or says something wrong.
pub fn load(locations: &Locations, account: &Account) -> Result<Config, ConfigError> {
    let mut config = Config::default();
    let trust = if locations.named {
        Trust::RootOrUser
    } else {
        Trust::Root
    };
    let per_user = per_user_config(&locations.server, account);
    let files = [
        (locations.server.as_path(), Source::Server, trust),
        (per_user.as_path(), Source::PerUser, trust),
        (locations.own.as_path(), Source::Own, Trust::Own),
    ];
    for (path, source, trust) in files {
        match read(path, trust, account.uid)? {
            Some(bytes) => config.apply(path, &bytes, source)?,
            None if source == Source::Server && locations.named => {
                return Err(refused(path, "there is no such file"));
            }
            None => {}
        }
    }
    Ok(config)
}

/// The content of a file that `locations` lead to: the administrator's, or the
/// user's own. `None` if there is none.
///
/// # Errors
///
/// When it cannot be read or is not to be trusted.
pub fn beside(
    locations: &Locations,
    path: &Path,
    own: bool,
    account: &Account,
) -> Result<Option<Vec<u8>>, ConfigError> {
    let trust = match (own, locations.named) {
        (true, _) => Trust::Own,
        (false, true) => Trust::RootOrUser,
        (false, false) => Trust::Root,
    };
    read(path, trust, account.uid)
}

/// Reads the administrator's file for everybody alone: what concerns the host.
///
/// # Errors
///
/// As [`load`].
pub fn load_server(named: Option<&Path>) -> Result<Config, ConfigError> {
    let path = named.unwrap_or(Path::new(SERVER));
    let trust = named.map_or(Trust::Root, |_| Trust::RootOrUser);
    let mut config = Config::default();
    match read(path, trust, rustix::process::geteuid().as_raw())? {
        Some(bytes) => config.apply(path, &bytes, Source::Server)?,
        None if named.is_some() => return Err(refused(path, "there is no such file")),
        None => {}
    }
    Ok(config)
}

fn refused(path: &Path, text: impl Into<String>) -> ConfigError {
    ConfigError {
        file: path.to_owned(),
        line: None,
        key: String::new(),
        text: text.into(),
    }
}

/// The content of a file; `None` if there is none.
fn read(path: &Path, trust: Trust, uid: u32) -> Result<Option<Vec<u8>>, ConfigError> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let fd = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(fd) => fd,
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
        Err(e) => return Err(refused(path, format!("cannot open it: {}", describe(e)))),
    };
    let stat = rustix::fs::fstat(&fd)
        .map_err(|e| refused(path, format!("cannot read it: {}", describe(e))))?;
    check(&stat, trust, uid)
        .and_then(|()| content(fd))
        .map(Some)
        .map_err(|text| refused(path, text))
}

/// What a small regular file holds, whoever wrote it. It was opened without waiting.
///
/// # Errors
///
/// What is wrong with it.
pub fn content(fd: OwnedFd) -> Result<Vec<u8>, String> {
    let failed = |e: std::io::Error| format!("cannot read it: {e}");
    let stat = rustix::fs::fstat(&fd).map_err(|e| failed(e.into()))?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err("not a regular file".into());
    }
    let size = usize::try_from(stat.st_size).unwrap_or(0);
    let mut bytes = Vec::with_capacity(size.min(MOST as usize));
    File::from(fd)
        .take(MOST + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > MOST {
        return Err("larger than 64 KiB".into());
    }
    Ok(bytes)
}

fn describe(errno: Errno) -> String {
    match errno {
        Errno::ACCESS => "permission denied; every user must be able to read it".into(),
        other => std::io::Error::from(other).to_string(),
    }
}

fn check(stat: &Stat, trust: Trust, uid: u32) -> Result<(), String> {
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err("not a regular file".into());
    }
    let owner = stat.st_uid;
    match trust {
        Trust::Root if owner != 0 => {
            return Err(format!(
                "belongs to user id {owner}; it must belong to root"
            ));
        }
        Trust::RootOrUser | Trust::Own if owner != 0 && owner != uid => {
            return Err(format!("belongs to user id {owner}, neither root nor you"));
        }
        _ => {}
    }
    let (writable, command) = match trust {
        Trust::Own => (Mode::WOTH, "o-w"),
        Trust::Root | Trust::RootOrUser => (Mode::WGRP | Mode::WOTH, "go-w"),
    };
    if Mode::from_raw_mode(stat.st_mode).intersects(writable) {
        return Err(format!("others can write to it; chmod {command}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{Permissions, create_dir, set_permissions, write};
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

    struct Host {
        dir: tempfile::TempDir,
        account: Account,
    }

    impl Host {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            create_dir(dir.path().join("users")).unwrap();
            Self {
                dir,
                account: Account::of_process().unwrap(),
            }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.dir
                .path()
                .join(name.replace("NAME", &self.account.name))
        }

        fn put(&self, name: &str, text: &str, mode: u32) {
            write(self.path(name), text).unwrap();
            set_permissions(self.path(name), Permissions::from_mode(mode)).unwrap();
        }

        fn load(&self) -> Result<Config, String> {
            let locations = Locations {
                server: self.path("config.yaml"),
                named: true,
                own: self.path("own.yaml"),
            };
            load(&locations, &self.account)
                .map_err(|e| e.to_string().replace(self.dir.path().to_str().unwrap(), ""))
        }
    }

    #[test]
    fn later_files_go_before_earlier_ones() {
        let host = Host::new();
        host.put(
            "config.yaml",
            "session: {grace_period: 1s}\ndefaults: {shell: /bin/a}\n",
            0o644,
        );
        assert_eq!(host.load().unwrap().grace_period, Duration::from_secs(1));
        host.put(
            "users/NAME.yaml",
            "session: {grace_period: 2s}\nshell: /bin/b\n",
            0o644,
        );
        assert_eq!(host.load().unwrap().grace_period, Duration::from_secs(2));
        host.put("own.yaml", "session: {grace_period: 3s}\n", 0o664);
        let config = host.load().unwrap();
        assert_eq!(config.grace_period, Duration::from_secs(3));
        assert_eq!(config.shell, Path::new("/bin/b"));
    }

    #[test]
    fn a_named_file_must_exist_and_the_usual_one_need_not() {
        let host = Host::new();
        assert_eq!(
            host.load().unwrap_err(),
            "/config.yaml: there is no such file"
        );
        let locations = Locations {
            server: host.path("nothing"),
            named: false,
            own: host.path("own.yaml"),
        };
        assert_eq!(load(&locations, &host.account), Ok(Config::default()));
    }

    #[test]
    fn files_that_others_can_write_are_refused() {
        let host = Host::new();
        for mode in [0o664, 0o646] {
            host.put("config.yaml", "", mode);
            let expected = "/config.yaml: others can write to it; chmod go-w";
            assert_eq!(host.load().unwrap_err(), expected);
        }
        host.put("config.yaml", "", 0o644);
        host.put("own.yaml", "", 0o646);
        assert_eq!(
            host.load().unwrap_err(),
            "/own.yaml: others can write to it; chmod o-w"
        );
    }

    #[test]
    fn owners_are_checked() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut stat = rustix::fs::fstat(file.as_file()).unwrap();
        for (owner, root, root_or_user, own) in [
            (0, true, true, true),
            (1000, false, true, true),
            (1001, false, false, false),
        ] {
            stat.st_uid = owner;
            assert_eq!(check(&stat, Trust::Root, 1000).is_ok(), root, "{owner}");
            assert_eq!(
                check(&stat, Trust::RootOrUser, 1000).is_ok(),
                root_or_user,
                "{owner}"
            );
            assert_eq!(check(&stat, Trust::Own, 1000).is_ok(), own, "{owner}");
        }
    }

    #[test]
    fn only_small_regular_files_are_read() {
        let host = Host::new();
        host.put("config.yaml", &"#".repeat(65_536), 0o644);
        assert_eq!(host.load(), Ok(Config::default()));
        host.put("config.yaml", &"#".repeat(65_537), 0o644);
        assert_eq!(host.load().unwrap_err(), "/config.yaml: larger than 64 KiB");
        std::fs::remove_file(host.path("config.yaml")).unwrap();
        create_dir(host.path("config.yaml")).unwrap();
        assert_eq!(host.load().unwrap_err(), "/config.yaml: not a regular file");
        std::fs::remove_dir(host.path("config.yaml")).unwrap();
        // Nobody writes to it: opening must not wait.
        let fifo = host.path("config.yaml");
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, FileType::Fifo, Mode::RUSR, 0).unwrap();
        assert_eq!(host.load().unwrap_err(), "/config.yaml: not a regular file");
    }
}
