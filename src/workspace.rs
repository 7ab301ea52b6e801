//! Workspaces: the files of a project that outlive its pods, in `STORE/workspaces/POD`,
//! and the Podfile in one.
//!
//! Runs in the session, as the user, outside of the pod. A workspace is written from
//! inside of pods, so nothing in it is trusted: no link is followed, nothing but a small
//! regular file is read, and it says what [`Rules`] leave to it. Only `podspawn rm
//! --clean` removes one.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use podspawn_runtime::pod::PodName;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::io::Errno;

use crate::config::{ConfigError, read};
use crate::podfile::{Podfile, Rules};

/// Where a Podfile is sought in a workspace, first come.
const NAMES: [&str; 2] = ["podfile.yaml", ".podspawn/podfile.yaml"];

/// Where the workspace of the pod `name` is, in the store at `root`.
pub fn path(root: &Path, name: &PodName) -> PathBuf {
    root.join("workspaces").join(name.as_str())
}

/// The Podfile in the workspace at `dir`, which sessions see at `inside`; `None` where
/// there is none.
///
/// # Errors
///
/// When it cannot be read, or says something wrong.
pub fn podfile(dir: &Path, inside: &Path, rules: &Rules) -> Result<Option<Podfile>, ConfigError> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let dir = match openat(CWD, dir, flags, Mode::empty()) {
        Ok(dir) => dir,
        // One that is no directory is refused where it is to be mounted.
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
        Err(e) => return Err(refused(inside, cannot_open(e))),
    };
    for name in NAMES {
        let file = inside.join(name);
        match open(&dir, name) {
            Err(Errno::NOENT | Errno::NOTDIR) => {}
            Err(e) => return Err(refused(&file, cannot_open(e))),
            Ok(fd) => {
                let bytes = read::content(fd).map_err(|text| refused(&file, text))?;
                return Podfile::read(&file, &bytes, rules).map(Some);
            }
        }
    }
    Ok(None)
}

/// Opens a file beneath the workspace and nowhere else; never waits for one.
fn open(dir: &OwnedFd, name: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    openat2(dir, name, flags, Mode::empty(), resolve)
}

fn cannot_open(errno: Errno) -> String {
    match errno {
        Errno::LOOP => "a link, which is not followed there".into(),
        other => format!("cannot open it: {}", std::io::Error::from(other)),
    }
}

fn refused(file: &Path, text: impl Into<String>) -> ConfigError {
    ConfigError {
        file: file.to_owned(),
        line: None,
        key: String::new(),
        text: text.into(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use rustix::fs::{FileType, mknodat};

    use super::*;

    const RULES: Rules = Rules {
        host_paths: false,
        images: true,
        local_registries: false,
        mode: false,
    };

    fn of(dir: &Path) -> Result<Option<Podfile>, String> {
        podfile(dir, Path::new("/workspace/web"), &RULES).map_err(|e| e.to_string())
    }

    #[test]
    fn a_podfile_is_found_in_either_place() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(of(&dir.path().join("none")), Ok(None));
        assert_eq!(of(dir.path()), Ok(None));
        fs::create_dir(dir.path().join(".podspawn")).unwrap();
        assert_eq!(of(dir.path()), Ok(None));
        fs::write(dir.path().join(".podspawn/podfile.yaml"), "shell: /bin/b\n").unwrap();
        assert_eq!(
            of(dir.path()).unwrap().unwrap().shell,
            Some("/bin/b".into())
        );
        fs::write(dir.path().join("podfile.yaml"), "shell: /bin/a\n").unwrap();
        assert_eq!(
            of(dir.path()).unwrap().unwrap().shell,
            Some("/bin/a".into())
        );
        fs::write(dir.path().join("podfile.yaml"), "env: {}\nshel: /bin/a\n").unwrap();
        let expected = "/workspace/web/podfile.yaml:2: shel: unknown field; did you mean shell?";
        assert_eq!(of(dir.path()).unwrap_err(), expected);
    }

    #[test]
    fn links_lead_nowhere_and_nothing_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        fs::write(elsewhere.path().join("podfile.yaml"), "shell: /bin/a\n").unwrap();
        let file = dir.path().join("podfile.yaml");
        let link = "/workspace/web/podfile.yaml: a link, which is not followed there";
        for target in ["/etc/shadow", "../x", "other"] {
            symlink(target, &file).unwrap();
            assert_eq!(of(dir.path()).unwrap_err(), link, "{target}");
            fs::remove_file(&file).unwrap();
        }
        symlink(elsewhere.path(), dir.path().join(".podspawn")).unwrap();
        let link = "/workspace/web/.podspawn/podfile.yaml: a link, which is not followed there";
        assert_eq!(of(dir.path()).unwrap_err(), link);
        // Nor is the workspace itself one.
        symlink(elsewhere.path(), dir.path().join("web")).unwrap();
        assert_eq!(of(&dir.path().join("web")), Ok(None));

        mknodat(CWD, &file, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        assert!(of(dir.path()).unwrap_err().ends_with("not a regular file"));
        fs::remove_file(&file).unwrap();
        fs::create_dir(&file).unwrap();
        assert!(of(dir.path()).unwrap_err().ends_with("not a regular file"));
        fs::remove_dir(&file).unwrap();
        fs::write(&file, vec![b'#'; 65_537]).unwrap();
        assert!(of(dir.path()).unwrap_err().ends_with("larger than 64 KiB"));
    }
}
