//! The version 2 hierarchy as the host shows it: where a process is, what limits it,
//! and making a cgroup where the user may (`cgroups(7)`, *delegation*).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};
use rustix::process::Pid;

use super::{Given, Membership};
use crate::limits::{CgroupLimits, Limits};

/// Where the hierarchy is mounted.
pub struct Hierarchy {
    mount: PathBuf,
}

impl Hierarchy {
    /// The one of this process' mount namespace.
    pub fn of_host() -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
        Some(Self {
            mount: mount_point(&mounts)?,
        })
    }

    /// The directory of the cgroup that a process is in.
    pub fn cgroup_of(&self, pid: Pid) -> Option<PathBuf> {
        let text = fs::read_to_string(format!("/proc/{}/cgroup", pid.as_raw_nonzero())).ok()?;
        Some(self.mount.join(relative(&text)?))
    }
}

/// Where cgroup2 is mounted whole, in the text of `mountinfo`.
fn mount_point(mountinfo: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (mount, file_system) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        let is_whole = root == "/" && file_system.starts_with("cgroup2 ");
        is_whole.then(|| PathBuf::from(point))
    })
}

/// The path of the version 2 line of `/proc/PID/cgroup`, without the first slash.
fn relative(text: &str) -> Option<&str> {
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    // Outside of what this cgroup namespace shows.
    (!path.starts_with("..")).then_some(path)
}

/// What a cgroup's files say.
pub fn limits_of(dir: &Path) -> CgroupLimits {
    let set =
        |file: &str| fs::read_to_string(dir.join(file)).is_ok_and(|text| !text.starts_with("max"));
    CgroupLimits {
        missing: None,
        cpus: set("cpu.max"),
        memory: set("memory.max"),
        pids: set("pids.max"),
    }
}

/// Moves a process.
pub fn enter(dir: &Path, pid: Pid) -> io::Result<()> {
    fs::write(dir.join("cgroup.procs"), pid.as_raw_nonzero().to_string())
}

/// Makes a cgroup with these limits below the highest one above this process that
/// the user may write to, and moves `pid` there.
pub fn directory(name: &str, pid: Pid, limits: &Limits) -> Result<Given, String> {
    let base = base()?;
    sweep(&base);
    let dir = base.join(format!("{PREFIX}{name}-{}", pid.as_raw_nonzero()));
    let failed = |e: io::Error| format!("cannot make the cgroup {}: {e}", dir.display());
    fs::create_dir(&dir).map_err(failed)?;
    // Refused where a process is in the way, and in no need where it is done.
    for controller in ["cpu", "memory", "pids"] {
        let _ = fs::write(
            base.join("cgroup.subtree_control"),
            format!("+{controller}"),
        );
    }
    for (file, value) in settings(limits) {
        let _ = fs::write(dir.join(file), value);
    }
    enter(&dir, pid).map_err(|e| {
        let _ = fs::remove_dir(&dir);
        failed(e)
    })?;
    let mut limits = limits_of(&dir);
    let missing = ["cpu", "memory", "pids"]
        .iter()
        .any(|c| !dir.join(format!("{c}.max")).exists());
    limits.missing = missing.then(|| format!("{} has not every controller", base.display()));
    Ok(Given {
        membership: Some(Membership::Directory(dir)),
        limits,
    })
}

const PREFIX: &str = "podspawn-";

/// The highest cgroup above this process that the user may write to.
fn base() -> Result<PathBuf, String> {
    let none = || "no cgroup above this session may be written to".to_owned();
    let hierarchy = Hierarchy::of_host().ok_or("this host has no cgroup version 2")?;
    let own = hierarchy
        .cgroup_of(rustix::process::getpid())
        .ok_or_else(none)?;
    own.ancestors()
        .take_while(|dir| dir.starts_with(&hierarchy.mount))
        .filter(|dir| is_writable(dir))
        .last()
        .map(Path::to_path_buf)
        .ok_or_else(none)
}

/// Removes what ended pods left, and says whether there is nothing of the pod `name`.
pub fn is_gone(name: &str) -> bool {
    let Ok(base) = base() else {
        return true;
    };
    sweep(&base);
    let own = format!("{PREFIX}{name}-");
    let mut left = fs::read_dir(base).into_iter().flatten().flatten();
    !left.any(|entry| entry.file_name().to_string_lossy().starts_with(&own))
}

/// Only its owner may make cgroups in it; root of the host would own the whole tree.
fn is_writable(dir: &Path) -> bool {
    [dir.to_path_buf(), dir.join("cgroup.procs")]
        .iter()
        .all(|path| access(path, Access::WRITE_OK).is_ok())
}

/// Removes what ended pods left: a cgroup with a process in it cannot be removed.
fn sweep(base: &Path) {
    for entry in fs::read_dir(base).into_iter().flatten().flatten() {
        if !entry.file_name().to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        for below in fs::read_dir(entry.path()).into_iter().flatten().flatten() {
            if below.file_type().is_ok_and(|t| t.is_dir()) {
                let _ = fs::remove_dir(below.path());
            }
        }
        let _ = fs::remove_dir(entry.path());
    }
}

/// Interface files and what to write into them.
fn settings(limits: &Limits) -> Vec<(&'static str, String)> {
    const PERIOD: f64 = 100_000.0;
    let mut all = Vec::new();
    if let Some(cpus) = limits.cpus {
        // The kernel takes no less than a millisecond.
        let quota = (cpus * PERIOD).round().max(1000.0);
        all.push(("cpu.max", format!("{quota} {PERIOD}")));
    }
    if let Some(bytes) = limits.memory {
        all.push(("memory.max", bytes.to_string()));
    }
    if let Some(pids) = limits.pids {
        all.push(("pids.max", pids.to_string()));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hierarchy_is_found_on_hosts_of_both_kinds() {
        let unified = "25 1 0:23 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n";
        let hybrid = "30 25 0:26 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n\
                      31 25 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let part = "25 1 0:23 /a/b /mnt rw - cgroup2 cgroup2 rw\n";
        let at = |text| mount_point(text).map(|p| p.display().to_string());
        assert_eq!(at(unified).as_deref(), Some("/sys/fs/cgroup"));
        assert_eq!(at(hybrid).as_deref(), Some("/sys/fs/cgroup/unified"));
        assert_eq!(at(part), None);
        assert_eq!(
            relative("1:cpu:/x\n0::/user.slice/a\n"),
            Some("user.slice/a")
        );
        assert_eq!(relative("0::/\n"), Some(""));
        assert_eq!(relative("0::/../x\n"), None);
        assert_eq!(relative("1:cpu:/x\n"), None);
    }

    #[test]
    fn limits_are_what_the_kernel_reads() {
        let limits = Limits {
            cpus: Some(1.5),
            memory: Some(1 << 30),
            pids: Some(7),
        };
        let all = settings(&limits);
        let value = |file| &all.iter().find(|(f, _)| *f == file).unwrap().1;
        assert_eq!(value("cpu.max"), "150000 100000");
        assert_eq!(value("memory.max"), "1073741824");
        assert_eq!(value("pids.max"), "7");
        let little = Limits {
            cpus: Some(0.000_1),
            ..Limits::default()
        };
        assert_eq!(settings(&little), [("cpu.max", "1000 100000".to_owned())]);
        assert!(settings(&Limits::default()).is_empty());
    }
}
