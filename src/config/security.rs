//! The section `security` of the configuration: how pods are confined.
//!
//! Pure. Capabilities are named as Docker and podman name them, with or without
//! `CAP_`; `ALL` is every one of them.

use std::path::PathBuf;

use podspawn_runtime::capability::{self, Capability};
use podspawn_runtime::security::{Security, Tmpfs};

use super::value::{Entry, Value};
use super::yaml::Problem;
use super::{Config, put, quote};

/// What Docker gives a container if it is not told to drop anything.
const DOCKERS: [&str; 14] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

/// Options of a tmpfs that a container may be given.
const TMPFS_OPTIONS: [&str; 14] = [
    "rw",
    "ro",
    "exec",
    "noexec",
    "suid",
    "nosuid",
    "dev",
    "nodev",
    "relatime",
    "noatime",
    "strictatime",
    "sync",
    "async",
    "defaults",
];

/// Options of a tmpfs that have a value.
const TMPFS_VALUES: [&str; 4] = ["size", "mode", "nr_inodes", "nr_blocks"];

/// `security.…` as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confinement {
    drop: Vec<String>,
    add: Vec<String>,
    no_new_privileges: bool,
    sudo: bool,
    readonly_rootfs: bool,
    tmpfs: Vec<Tmpfs>,
}

impl Default for Confinement {
    fn default() -> Self {
        let add = [
            "CHOWN",
            "SETUID",
            "SETGID",
            "DAC_OVERRIDE",
            "FOWNER",
            "NET_BIND_SERVICE",
        ];
        Self {
            drop: vec!["ALL".into()],
            add: add.map(String::from).to_vec(),
            no_new_privileges: true,
            sudo: false,
            readonly_rootfs: false,
            tmpfs: Vec::new(),
        }
    }
}

impl Confinement {
    /// What it comes to: Docker's capabilities without those dropped, and with
    /// those added.
    #[must_use]
    pub fn security(&self) -> Security {
        let dropped = |name: &str| self.drop.iter().any(|d| d == "ALL" || d == name);
        let mut names: Vec<String> = DOCKERS
            .into_iter()
            .filter(|name| !dropped(name))
            .map(String::from)
            .collect();
        if self.add.iter().any(|name| name == "ALL") {
            names = capability::all().map(|c| bare(&c.to_string())).collect();
        }
        names.extend(self.add.iter().filter(|name| *name != "ALL").cloned());
        names.sort_unstable();
        names.dedup();
        Security {
            capabilities: names.iter().filter_map(|name| named(name)).collect(),
            no_new_privileges: self.no_new_privileges,
            sudo: self.sudo,
            readonly_rootfs: self.readonly_rootfs,
            tmpfs: self.tmpfs.clone(),
        }
    }
}

fn bare(name: &str) -> String {
    name.strip_prefix("CAP_").unwrap_or(name).to_owned()
}

fn named(name: &str) -> Option<Capability> {
    format!("CAP_{name}").parse().ok()
}

type Outcome = Result<(), Problem>;

fn capabilities(value: Value<'_>) -> Result<Vec<String>, Problem> {
    let mut names = Vec::new();
    for item in value.list()? {
        let Some(text) = item.text()? else {
            return Err(item.problem("an entry of the list is empty"));
        };
        let name = bare(&text.to_ascii_uppercase());
        if name != "ALL" && named(&name).is_none() {
            return Err(item.problem(format!(
                "{} is no capability; write ALL or a name of capabilities(7)",
                quote(text)
            )));
        }
        names.push(name);
    }
    Ok(names)
}

pub(super) fn cap_drop(config: &mut Config, value: Value<'_>) -> Outcome {
    config.security.drop = capabilities(value)?;
    Ok(())
}

pub(super) fn cap_add(config: &mut Config, value: Value<'_>) -> Outcome {
    config.security.add = capabilities(value)?;
    Ok(())
}

pub(super) fn no_new_privileges(config: &mut Config, value: Value<'_>) -> Outcome {
    put(&mut config.security.no_new_privileges, value.flag()?)
}

pub(super) fn sudo(config: &mut Config, value: Value<'_>) -> Outcome {
    put(&mut config.security.sudo, value.flag()?)
}

pub(super) fn readonly_rootfs(config: &mut Config, value: Value<'_>) -> Outcome {
    put(&mut config.security.readonly_rootfs, value.flag()?)
}

/// `PATH: OPTIONS`, the options as in `mount -o`.
pub(super) fn tmpfs(config: &mut Config, value: Value<'_>) -> Outcome {
    let mut mounts = Vec::new();
    for Entry { key, line, value } in value.entries()? {
        let problem = |text: String| Problem::new(line, text).below(key);
        let path = mount_point(key).map_err(problem)?;
        let text = value.text().map_err(|p| p.below(key))?.unwrap_or_default();
        let options = text.split(',').filter(|option| !option.is_empty());
        let options = options
            .map(|option| tmpfs_option(option).map_err(problem))
            .collect::<Result<_, _>>()?;
        mounts.push(Tmpfs { path, options });
    }
    config.security.tmpfs = mounts;
    Ok(())
}

/// A place that is the pod's own to cover: not one that podspawn or the kernel
/// needs there.
fn mount_point(text: &str) -> Result<PathBuf, String> {
    let parts: Vec<&str> = text.split('/').skip(1).collect();
    let sound = text.starts_with('/')
        && text.len() > 1
        && parts.iter().all(|part| !matches!(*part, "" | "." | ".."));
    if !sound {
        return Err("not an absolute path without . and ..".into());
    }
    let kept = ["proc", "sys", "dev", "etc", "usr"];
    if kept.contains(&parts[0]) || text == "/run" || text.starts_with("/run/podspawn") {
        return Err("memory cannot be mounted there".into());
    }
    Ok(text.into())
}

fn tmpfs_option(option: &str) -> Result<String, String> {
    let known = match option.split_once('=') {
        None => TMPFS_OPTIONS.contains(&option),
        Some((name, value)) => {
            let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'%';
            TMPFS_VALUES.contains(&name) && !value.is_empty() && value.bytes().all(plain)
        }
    };
    if known {
        Ok(option.to_owned())
    } else {
        Err(format!(
            "{} is no mount option of a tmpfs, such as size=64m or noexec",
            quote(option)
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(confinement: &Confinement) -> Vec<String> {
        let security = confinement.security();
        security
            .capabilities
            .iter()
            .map(|c| bare(&c.to_string()))
            .collect()
    }

    #[test]
    fn the_default_is_the_runtimes() {
        let mut ours = Confinement::default().security();
        let mut theirs = Security::default();
        ours.capabilities.sort_by_key(ToString::to_string);
        theirs.capabilities.sort_by_key(ToString::to_string);
        assert_eq!(ours, theirs);
    }

    #[test]
    fn dropping_one_keeps_what_docker_gives() {
        let some = Confinement {
            drop: vec!["NET_RAW".into()],
            add: vec!["SYS_PTRACE".into()],
            ..Confinement::default()
        };
        let names = names(&some);
        assert!(!names.contains(&"NET_RAW".into()));
        assert!(names.contains(&"SYS_PTRACE".into()) && names.contains(&"MKNOD".into()));
    }

    #[test]
    fn places_that_podspawn_needs_are_refused() {
        for bad in [
            "",
            "/",
            "tmp",
            "/tmp/../etc",
            "/tmp//x",
            "/proc/x",
            "/run",
            "/run/podspawn/x",
            "/etc",
            "/dev/shm",
        ] {
            assert!(mount_point(bad).is_err(), "{bad}");
        }
        for good in ["/tmp", "/run/lock", "/var/cache"] {
            assert!(mount_point(good).is_ok(), "{good}");
        }
    }

    #[test]
    fn options_of_other_file_systems_are_refused() {
        for bad in ["lowerdir=/etc", "size=", "size=1,x", "bind", "uid=0"] {
            assert!(tmpfs_option(bad).is_err(), "{bad}");
        }
        for good in ["size=64m", "mode=1777", "noexec"] {
            assert!(tmpfs_option(good).is_ok(), "{good}");
        }
    }
}
