//! The environment of a session's program. Pure.
//!
//! Three sources, later ones win: the image's configuration, what the ssh
//! connection brought, and what podspawn knows of the session itself.

use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use crate::guest;
use crate::pod::PodInfo;

/// Where programs are looked for when the image does not say.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Variables that describe the host or steer podspawn, and so stay outside.
const HOST_ONLY: &[&str] = &[
    "BASH_ENV",
    "DBUS_SESSION_BUS_ADDRESS",
    "DISPLAY",
    "ENV",
    "HOME",
    "KRB5CCNAME",
    "LOGNAME",
    "MAIL",
    "OLDPWD",
    "PATH",
    "PWD",
    "SHELL",
    "SHLVL",
    "SSH_AUTH_SOCK",
    "SSH_ORIGINAL_COMMAND",
    "SSH_TTY",
    "SSH_USER_AUTH",
    "USER",
    "XAUTHORITY",
    "_",
];

/// The same, for everything that begins so.
const HOST_ONLY_PREFIXES: &[&str] = &["BASH_FUNC_", "LD_", "PODSPAWN_", "XDG_"];

/// Of the variables that sshd set, those that mean the same inside: TERM,
/// COLORTERM, LANG, LC_*, SSH_CONNECTION, and whatever else the administrator
/// lets clients send (`AcceptEnv`).
pub fn pass_through(vars: impl Iterator<Item = (OsString, OsString)>) -> Vec<(OsString, OsString)> {
    vars.filter(|(name, _)| {
        let name = name.as_bytes();
        !name.is_empty()
            && !HOST_ONLY.iter().any(|n| n.as_bytes() == name)
            && !HOST_ONLY_PREFIXES
                .iter()
                .any(|p| name.starts_with(p.as_bytes()))
    })
    .collect()
}

/// An environment block in the making.
#[derive(Debug)]
pub struct Environment(Vec<(Vec<u8>, Vec<u8>)>);

impl Environment {
    /// The environment of a session, but for the shell.
    #[must_use]
    pub fn new(
        info: &PodInfo,
        client: &[(OsString, OsString)],
        tty: Option<&Path>,
        terminfo: usize,
    ) -> Self {
        let mut env = Self(Vec::new());
        env.set("PATH", PATH);
        for line in &info.env {
            if let Some((name, value)) = line.split_once('=')
                && !name.is_empty()
            {
                env.set(name, value);
            }
        }
        for (name, value) in client {
            env.set(name, value);
        }
        env.set("USER", &info.user.name);
        env.set("LOGNAME", &info.user.name);
        env.set("HOME", &info.user.home);
        env.set("container", "podspawn");
        if let Some(tty) = tty {
            env.set("SSH_TTY", tty);
            if terminfo > 0 {
                // The empty first entry is the image's own place.
                let host: String = (0..terminfo)
                    .map(|n| format!(":{}", guest::terminfo(n)))
                    .collect();
                env.set("TERMINFO_DIRS", host);
            }
        } else {
            env.unset("TERM");
        }
        env
    }

    /// Sets one variable.
    pub fn set(&mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) {
        let (name, value) = (name.as_ref().as_bytes(), value.as_ref().as_bytes());
        match self.0.iter_mut().find(|(n, _)| n == name) {
            Some((_, v)) => *v = value.to_vec(),
            None => self.0.push((name.to_vec(), value.to_vec())),
        }
    }

    fn unset(&mut self, name: &str) {
        self.0.retain(|(n, _)| n != name.as_bytes());
    }

    /// The value of one variable.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<OsString> {
        let found = self.0.iter().find(|(n, _)| n == name.as_bytes());
        found.map(|(_, v)| OsString::from_vec(v.clone()))
    }

    /// As `execve(2)` takes it; what holds a NUL cannot be passed and is left out.
    #[must_use]
    pub fn block(&self) -> Vec<CString> {
        let joined = self.0.iter().map(|(n, v)| [n.as_slice(), b"=", v].concat());
        joined.filter_map(|line| CString::new(line).ok()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::SessionUser;

    fn os(pairs: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
        pairs
            .iter()
            .map(|(n, v)| (OsString::from(n), OsString::from(v)))
            .collect()
    }

    fn info(env: &[&str]) -> PodInfo {
        PodInfo {
            pod: "default".into(),
            image: "busybox".into(),
            env: env.iter().map(|s| (*s).to_owned()).collect(),
            user: SessionUser {
                name: "alice".into(),
                uid: 1000,
                gid: 1000,
                groups: vec![],
                home: "/home/alice".into(),
                shell: None,
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
    fn the_hosts_own_variables_stay_outside() {
        let vars = os(&[
            ("LANG", "de_DE.UTF-8"),
            ("LC_ALL", "C"),
            ("HOME", "/home/a"),
            ("LD_PRELOAD", "/x"),
            ("XDG_RUNTIME_DIR", "/run"),
            ("SSH_ORIGINAL_COMMAND", "rm"),
            ("SSH_CONNECTION", "1 2 3 4"),
            ("GIT_AUTHOR_NAME", "A"),
            ("BASH_ENV", "/x"),
        ]);
        let passed = pass_through(vars.into_iter());
        let names: Vec<_> = passed.iter().map(|(n, _)| n.to_str().unwrap()).collect();
        assert_eq!(
            names,
            ["LANG", "LC_ALL", "SSH_CONNECTION", "GIT_AUTHOR_NAME"]
        );
    }

    #[test]
    fn the_client_wins_over_the_image_and_podspawn_over_both() {
        let info = info(&[
            "PATH=/opt/bin",
            "LANG=C",
            "HOME=/root",
            "USER=app",
            "=x",
            "broken",
        ]);
        let client = os(&[("LANG", "en"), ("TERM", "xterm")]);
        let env = Environment::new(&info, &client, Some(Path::new("/dev/pts/0")), 2);
        let get = |n| env.get(n).map(|v| v.into_string().unwrap());
        assert_eq!(get("PATH").unwrap(), "/opt/bin");
        assert_eq!(get("LANG").unwrap(), "en");
        assert_eq!(get("HOME").unwrap(), "/home/alice");
        assert_eq!(get("USER").unwrap(), "alice");
        assert_eq!(get("TERM").unwrap(), "xterm");
        assert_eq!(
            get("TERMINFO_DIRS").unwrap(),
            ":/run/podspawn/terminfo.0:/run/podspawn/terminfo.1"
        );
        assert_eq!(
            env.block()
                .iter()
                .filter(|l| l.to_bytes().starts_with(b"LANG="))
                .count(),
            1
        );
    }

    #[test]
    fn without_a_terminal_there_is_none_named() {
        let env = Environment::new(&info(&["TERM=dumb"]), &os(&[("TERM", "xterm")]), None, 1);
        assert_eq!(
            (
                env.get("TERM"),
                env.get("SSH_TTY"),
                env.get("TERMINFO_DIRS")
            ),
            (None, None, None)
        );
    }
}
