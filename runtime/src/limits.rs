//! What a pod may use of the host, and by which means the kernel sees to it.
//!
//! With a cgroup of the pod's own its limits are those of the whole pod. Without
//! one there are resource limits of its processes (`setrlimit(2)`): `RLIMIT_NPROC`
//! is counted for each user of each user namespace since Linux 5.14, so that it
//! limits one pod's session user and nobody else; `RLIMIT_DATA` is what one process
//! may allocate. For processors there is nothing.
//!
//! Pure, but for [`counts_processes_by_namespace`].

use serde::{Deserialize, Serialize};

use crate::pod::Limit;

/// What is configured. `None`: no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Limits {
    /// Processors.
    pub cpus: Option<f64>,
    /// Bytes.
    pub memory: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
}

/// Resource limits that a session's program gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProgramLimits {
    /// `RLIMIT_NPROC`.
    pub processes: Option<u64>,
    /// `RLIMIT_DATA`.
    pub data: Option<u64>,
}

/// What the pod's cgroup limits.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupLimits {
    /// Why there is no such cgroup.
    pub missing: Option<String>,
    /// `cpu.max` is set.
    pub cpus: bool,
    /// `memory.max` is set.
    pub memory: bool,
    /// `pids.max` is set.
    pub pids: bool,
}

/// What sessions' programs are limited to because the cgroup does not do it.
#[must_use]
pub fn of_programs(limits: &Limits, cgroup: &CgroupLimits, by_namespace: bool) -> ProgramLimits {
    ProgramLimits {
        processes: limits.pids.filter(|_| !cgroup.pids && by_namespace),
        data: limits.memory.filter(|_| !cgroup.memory),
    }
}

/// What to say of each configured limit.
#[must_use]
pub fn report(limits: &Limits, cgroup: &CgroupLimits, by_namespace: bool) -> Vec<Limit> {
    let missing = cgroup
        .missing
        .clone()
        .unwrap_or_else(|| "the pod's cgroup has no such controller".into());
    let limit = |name: &str, value: String, in_force: bool, how: String| Limit {
        name: name.into(),
        value,
        in_force,
        how,
    };
    let mut all = Vec::new();
    if let Some(cpus) = limits.cpus {
        all.push(match cgroup.cpus {
            true => limit(
                "cpus",
                cpus.to_string(),
                true,
                "cgroup, the whole pod".into(),
            ),
            false => limit("cpus", cpus.to_string(), false, missing.clone()),
        });
    }
    if let Some(bytes) = limits.memory {
        let how = match cgroup.memory {
            true => "cgroup, the whole pod".into(),
            false => format!("RLIMIT_DATA, each process ({missing})"),
        };
        all.push(limit("memory", size(bytes), true, how));
    }
    if let Some(pids) = limits.pids {
        all.push(match (cgroup.pids, by_namespace) {
            (true, _) => limit(
                "pids",
                pids.to_string(),
                true,
                "cgroup, the whole pod".into(),
            ),
            (false, true) => limit(
                "pids",
                pids.to_string(),
                true,
                format!("RLIMIT_NPROC, the session user's in this pod ({missing})"),
            ),
            (false, false) => limit(
                "pids",
                pids.to_string(),
                false,
                format!(
                    "{missing}, and before Linux 5.14 RLIMIT_NPROC counts all of a user's processes"
                ),
            ),
        });
    }
    all
}

/// A size as one would write it.
#[must_use]
pub fn size(bytes: u64) -> String {
    for (unit, factor) in [
        ("t", 1u64 << 40),
        ("g", 1 << 30),
        ("m", 1 << 20),
        ("k", 1 << 10),
    ] {
        if bytes >= factor && bytes.is_multiple_of(factor) {
            return format!("{}{unit}", bytes / factor);
        }
    }
    bytes.to_string()
}

/// Whether this kernel counts processes for each user namespace.
#[must_use]
pub fn counts_processes_by_namespace() -> bool {
    let name = rustix::system::uname();
    since_5_14(&name.release().to_string_lossy())
}

fn since_5_14(release: &str) -> bool {
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map_while(|n| n.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(5), Some(14))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Limits = Limits {
        cpus: Some(2.0),
        memory: Some(2 << 30),
        pids: Some(256),
    };

    #[test]
    fn a_cgroup_that_does_it_leaves_nothing_to_resource_limits() {
        let cgroup = CgroupLimits {
            missing: None,
            cpus: true,
            memory: true,
            pids: true,
        };
        assert_eq!(of_programs(&ALL, &cgroup, true), ProgramLimits::default());
        assert!(report(&ALL, &cgroup, true).iter().all(|l| l.in_force));
        let part = CgroupLimits {
            memory: false,
            ..cgroup
        };
        let programs = of_programs(&ALL, &part, true);
        assert_eq!((programs.processes, programs.data), (None, Some(2 << 30)));
    }

    #[test]
    fn without_a_cgroup_it_is_said_what_is_not_in_force() {
        let cgroup = CgroupLimits {
            missing: Some("no cgroup".into()),
            ..CgroupLimits::default()
        };
        let force = |by_namespace| {
            report(&ALL, &cgroup, by_namespace)
                .into_iter()
                .map(|l| (l.name, l.value, l.in_force))
                .collect::<Vec<_>>()
        };
        let line = |name: &str, value: &str, f| (name.to_owned(), value.to_owned(), f);
        assert_eq!(
            force(true),
            [
                line("cpus", "2", false),
                line("memory", "2g", true),
                line("pids", "256", true)
            ]
        );
        assert_eq!(force(false)[2], line("pids", "256", false));
        assert_eq!(of_programs(&ALL, &cgroup, false).processes, None);
        assert!(report(&Limits::default(), &cgroup, true).is_empty());
    }

    #[test]
    fn releases_compare_as_numbers() {
        for (release, since) in [
            ("5.14.0-427.el9.x86_64", true),
            ("5.4.0-150-generic", false),
            ("6.1.0-rc1", true),
            ("10.0", true),
            ("5.13.19", false),
            ("4.18.0", false),
            ("", false),
        ] {
            assert_eq!(since_5_14(release), since, "{release}");
        }
    }

    #[test]
    fn sizes_are_short() {
        assert_eq!(size(2 << 30), "2g");
        assert_eq!(size(1536 << 20), "1536m");
        assert_eq!(size(1000), "1000");
    }
}
