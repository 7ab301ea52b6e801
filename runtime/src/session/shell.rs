//! Which program an action means. Pure; what exists is found by trying.

use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use super::Action;
use crate::guest;
use crate::pod::PodInfo;
use crate::supervisor::SFTP_SERVERS;

/// One program to try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// The file.
    pub path: PathBuf,
    /// Its arguments, its own name first.
    pub args: Vec<OsString>,
    /// It is a shell of the user's, for `SHELL`.
    pub is_shell: bool,
}

/// What to try for an action, best first. `path` is the program's `PATH`.
#[must_use]
pub fn programs(
    action: &Action,
    info: &PodInfo,
    shells: &[PathBuf],
    path: Option<&OsStr>,
) -> Vec<Program> {
    match action {
        Action::Program(args) => {
            let name = args.first().map_or(Path::new(""), Path::new);
            let places = match path {
                Some(path) if !name.as_os_str().as_bytes().contains(&b'/') => {
                    std::env::split_paths(path).map(|d| d.join(name)).collect()
                }
                _ => vec![name.to_owned()],
            };
            let with = |path| Program {
                path,
                args: args.clone(),
                is_shell: false,
            };
            places.into_iter().map(with).collect()
        }
        Action::Shell => each_shell(info, shells, |shell| {
            let mut name = OsString::from("-");
            name.push(shell.file_name().unwrap_or_default());
            vec![name]
        }),
        Action::Command(line) => {
            let mut programs = each_shell(info, shells, |shell| {
                vec![
                    shell.file_name().unwrap_or_default().into(),
                    "-c".into(),
                    OsString::from_vec(line.clone()),
                ]
            });
            // An image without a shell can still be copied from and to.
            if let Some(words) = plain_scp(line) {
                let args = [OsString::from("scp")].into_iter().chain(words).collect();
                programs.push(Program {
                    path: guest::PATH.into(),
                    args,
                    is_shell: false,
                });
            }
            programs
        }
        Action::Sftp(args) => {
            let with = |path: &str| Program {
                path: path.into(),
                args: [OsString::from("sftp-server")]
                    .into_iter()
                    .chain(args.iter().cloned())
                    .collect(),
                is_shell: false,
            };
            SFTP_SERVERS
                .iter()
                .copied()
                .chain([guest::PATH])
                .map(with)
                .collect()
        }
    }
}

fn each_shell(
    info: &PodInfo,
    shells: &[PathBuf],
    args: impl Fn(&Path) -> Vec<OsString>,
) -> Vec<Program> {
    let own = info.user.shell.as_deref().map(PathBuf::from);
    let mut seen: Vec<PathBuf> = Vec::new();
    for shell in own.into_iter().chain(shells.iter().cloned()) {
        let refuses = matches!(
            shell.file_name().and_then(|n| n.to_str()),
            Some("nologin" | "false")
        );
        if shell.is_absolute() && !refuses && !seen.contains(&shell) {
            seen.push(shell);
        }
    }
    seen.into_iter()
        .map(|path| Program {
            args: args(&path),
            path,
            is_shell: true,
        })
        .collect()
}

/// The arguments of `scp -t …` or `scp -f …` as OpenSSH's client sends it, when
/// there is nothing in it that only a shell understands.
fn plain_scp(line: &[u8]) -> Option<Vec<OsString>> {
    let rest = line.strip_prefix(b"scp ")?;
    if rest.iter().any(|b| b"\\'\"`$&;|<>(){}\n\t~#".contains(b)) {
        return None;
    }
    let words: Vec<OsString> = rest
        .split(|b| *b == b' ')
        .filter(|w| !w.is_empty())
        .map(|w| OsString::from_vec(w.to_vec()))
        .collect();
    words
        .iter()
        .any(|w| w == "-t" || w == "-f")
        .then_some(words)
}

/// Arguments as `execve(2)` takes them; `None` when one holds a NUL.
#[must_use]
pub fn c_strings(args: &[OsString]) -> Option<Vec<CString>> {
    args.iter()
        .map(|a| CString::new(a.as_bytes()).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::SessionUser;

    fn info(shell: Option<&str>) -> PodInfo {
        PodInfo {
            pod: "p".into(),
            image: "i".into(),
            env: vec![],
            user: SessionUser {
                name: "a".into(),
                uid: 1,
                gid: 1,
                groups: vec![],
                home: "/".into(),
                shell: shell.map(Into::into),
            },
            working_dir: "/".into(),
            workspace: None,
            comes_up: false,
            has_groups: true,
            has_root: true,
            network: 0,
            agents: true,
            limits: Default::default(),
            cgroup: None,
            privileges: Default::default(),
        }
    }

    #[test]
    fn a_command_is_one_argument_byte_for_byte() {
        let line = b"echo '\xff' \"$(x)\"\n".to_vec();
        let shells = ["/bin/bash".into(), "/bin/sh".into()];
        let programs = programs(&Action::Command(line.clone()), &info(None), &shells, None);
        assert_eq!(programs.len(), 2);
        assert_eq!(
            programs[0].args,
            [
                OsString::from("bash"),
                "-c".into(),
                OsString::from_vec(line)
            ]
        );
    }

    #[test]
    fn a_shell_is_a_login_shell_and_the_users_own_comes_first() {
        let shells = ["/bin/bash".into(), "/bin/sh".into()];
        let programs = programs(&Action::Shell, &info(Some("/bin/sh")), &shells, None);
        let args: Vec<_> = programs
            .iter()
            .map(|p| p.args[0].to_str().unwrap())
            .collect();
        assert_eq!(args, ["-sh", "-bash"]);
    }

    #[test]
    fn a_program_is_looked_for_as_a_shell_would_and_gets_its_arguments_as_they_are() {
        let looked_for = |name: &str| -> Vec<PathBuf> {
            let args = vec![OsString::from(name), "$(id) ".into()];
            let action = Action::Program(args.clone());
            let programs = programs(&action, &info(None), &[], Some(OsStr::new("/a:/b")));
            assert!(programs.iter().all(|p| p.args == args && !p.is_shell));
            programs.into_iter().map(|p| p.path).collect()
        };
        assert_eq!(looked_for("ls"), ["/a/ls", "/b/ls"].map(PathBuf::from));
        assert_eq!(looked_for("/x/ls"), [PathBuf::from("/x/ls")]);
        assert_eq!(looked_for("./ls"), [PathBuf::from("./ls")]);
    }

    #[test]
    fn sftp_falls_back_to_the_guest() {
        let last = programs(&Action::Sftp(vec!["-R".into()]), &info(None), &[], None)
            .pop()
            .unwrap();
        assert_eq!(
            (last.path, last.args),
            (guest::PATH.into(), vec!["sftp-server".into(), "-R".into()])
        );
    }

    #[test]
    fn only_a_plain_scp_needs_no_shell() {
        assert_eq!(
            plain_scp(b"scp -r -t -- /tmp"),
            Some(["-r", "-t", "--", "/tmp"].map(OsString::from).to_vec())
        );
        for line in [
            &b"scp -t $(x)"[..],
            b"scp a b",
            b"scpx -t",
            b"scp -t 'a b'",
            b"scp -t a; id",
        ] {
            assert_eq!(plain_scp(line), None);
        }
    }
}
