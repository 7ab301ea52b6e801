//! podspawn as the login shell of container users.
//!
//! sshd hands the forced command to the user's login shell, and a shell reads
//! files in the user's home. podspawn as that shell reads none, and saves the
//! start of one. It runs nothing but itself: the forced command that
//! `server-setup` writes, or, for a login without sshd, a session. Pure but for
//! the question whether two paths are one file.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::exit::Failure;

/// The arguments that are meant, if podspawn was started as a shell: with `-c`, or under a
/// name that begins with `-`. `is_self` says whether a path is this program.
///
/// # Errors
///
/// When something else is to be run than podspawn.
pub fn arguments(
    given: Vec<OsString>,
    is_self: impl FnOnce(&Path) -> bool,
) -> Result<Vec<OsString>, Failure> {
    let login = given
        .first()
        .is_some_and(|name| name.as_bytes().starts_with(b"-"));
    let asked = match given.get(1..).unwrap_or_default() {
        [] if login => None,
        [option, command] if option == "-c" => Some(command),
        _ if login => return Err(refused()),
        _ => return Ok(given),
    };
    if let Some(command) = asked
        && !is_the_forced_command(command, is_self)
    {
        return Err(refused());
    }
    Ok(vec!["podspawn".into(), "spawn".into()])
}

/// `[exec ]PATH spawn`, where PATH is this program.
fn is_the_forced_command(command: &OsStr, is_self: impl FnOnce(&Path) -> bool) -> bool {
    let command = command.as_bytes();
    let command = command.strip_prefix(b"exec ").unwrap_or(command);
    let Some(path) = command.strip_suffix(b" spawn") else {
        return false;
    };
    path.starts_with(b"/") && is_self(Path::new(OsStr::from_bytes(path)))
}

fn refused() -> Failure {
    Failure::new(
        "this account runs its pod and nothing else: log in through sshd, set up by podspawn server-setup",
    )
}

/// Whether `path` is the program of this process.
#[must_use]
pub fn is_this_program(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let id = |path: &Path| std::fs::metadata(path).map(|m| (m.dev(), m.ino())).ok();
    let this = id(Path::new("/proc/self/exe"));
    this.is_some() && this == id(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meant(args: &[&str]) -> Result<Vec<OsString>, Failure> {
        let args = args.iter().map(OsString::from).collect();
        arguments(args, |path| path == Path::new("/usr/bin/podspawn"))
    }

    #[test]
    fn the_forced_command_and_a_bare_login_are_sessions() {
        let spawn = ["podspawn", "spawn"].map(OsString::from);
        for args in [
            &["podspawn", "-c", "exec /usr/bin/podspawn spawn"][..],
            &["podspawn", "-c", "/usr/bin/podspawn spawn"],
            &["-podspawn", "-c", "exec /usr/bin/podspawn spawn"],
            &["-podspawn"],
        ] {
            assert_eq!(meant(args).unwrap(), spawn, "{args:?}");
        }
    }

    #[test]
    fn nothing_else_is_run() {
        for command in [
            "",
            "id",
            "exec /bin/sh",
            "exec /usr/bin/podspawn spawn; id",
            "exec /usr/bin/podspawn  spawn",
            "exec /usr/bin/podspawn spawn\n",
            "exec /usr/bin/podspawn spawn --user root",
            "exec /usr/bin/podspawn pull spawn",
            "exec /tmp/podspawn spawn",
            "exec podspawn spawn",
            "exec $0 spawn",
            "/usr/lib/openssh/sftp-server",
        ] {
            assert!(meant(&["podspawn", "-c", command]).is_err(), "{command}");
        }
        for args in [
            &["-podspawn", "images"][..],
            &["-podspawn", "-c"],
            &["-podspawn", "-c", "a", "b"],
            &["-podspawn", "--login"],
        ] {
            assert!(meant(args).is_err(), "{args:?}");
        }
    }

    #[test]
    fn other_arguments_stay_as_they_are() {
        for args in [
            &["podspawn"][..],
            &["podspawn", "images"],
            &["podspawn", "-c"],
            &[],
        ] {
            assert_eq!(
                meant(args).unwrap(),
                args.iter().map(OsString::from).collect::<Vec<_>>()
            );
        }
    }

    #[test]
    fn a_program_knows_itself() {
        assert!(is_this_program(&std::env::current_exe().unwrap()));
        assert!(!is_this_program(Path::new("/bin/sh")));
        assert!(!is_this_program(Path::new("/nowhere")));
    }
}
