//! Which limits a pod of this user's gets, and by what: a scope of their systemd's, a
//! cgroup of version 2 that they may write to, or none.
//!
//! Not guessed: a process asks as a pod's launcher does, and what the kernel then has in
//! force is what counts. What it means is pure.

use std::process::Command;

use podspawn_runtime::cgroup::{self, Given, Membership};
use podspawn_runtime::limits::Limits;

use super::Finding;
use crate::cli::Place;
use crate::exit::Failure;
use crate::output;
use crate::spec::host_user;

const WHAT: &str = "limits";

/// One of each kind, so wide that they stop nothing.
const TRIED: Limits = Limits {
    cpus: Some(1.0),
    memory: Some(1 << 30),
    pids: Some(1000),
};

/// Has this process put into a cgroup as a pod would be, and answers with what it got.
/// It is to end then.
///
/// # Errors
///
/// When the answer cannot be written.
pub fn ask(place: &Place) -> Result<(), Failure> {
    let user = host_user(place, place.config.mode);
    let own = rustix::process::getpid();
    let given = cgroup::give("doctor", own, &user, &TRIED);
    let text = serde_json::to_string(&given).map_err(std::io::Error::from)?;
    Ok(output::answer(&text)?)
}

/// What such a process got. Its cgroup goes with it.
///
/// # Errors
///
/// One line, when it could not be asked.
pub fn tried(mut podspawn: Command) -> Result<Given, String> {
    let done = podspawn
        .args(["doctor", "--try-cgroup"])
        .output()
        .map_err(|e| e.to_string())?;
    let given: Given =
        serde_json::from_slice(&done.stdout).map_err(|_| super::said(&done.stderr))?;
    if let Some(membership) = &given.membership {
        membership.remove();
    }
    Ok(given)
}

/// Judges, for the user `name`; `lingers` is `None` where there is no systemd.
#[must_use]
pub fn finding(tried: &Result<Given, String>, name: &str, lingers: Option<bool>) -> Finding {
    let given = match tried {
        Ok(given) => given,
        Err(why) => {
            return Finding::broken(WHAT, why.clone(), "no pod can be made", "correct that");
        }
    };
    let (by, delegate) = match &given.membership {
        Some(Membership::Scope { .. }) => (
            "a scope of the user's systemd",
            "systemctl edit user@.service: [Service], Delegate=cpu memory pids",
        ),
        Some(Membership::Directory(_)) => (
            "a cgroup of version 2 that belongs to the user",
            "echo +cpu +memory +pids into cgroup.subtree_control of the cgroups above it",
        ),
        None => return none(given, name, lingers),
    };
    let limits = &given.limits;
    let all = [
        ("cpus", limits.cpus),
        ("memory", limits.memory),
        ("pids", limits.pids),
    ];
    let named = |there: bool| {
        let names: Vec<&str> = all.iter().filter(|l| l.1 == there).map(|l| l.0).collect();
        names.join(", ")
    };
    let missing = named(false);
    if missing.is_empty() {
        return Finding::good(WHAT, format!("{by}: {}", named(true)));
    }
    Finding::limited(
        WHAT,
        format!("{by}, which does not limit {missing}"),
        "the limits of that kind do not apply to a whole pod",
        delegate,
    )
}

fn none(given: &Given, name: &str, lingers: Option<bool>) -> Finding {
    let why = given.limits.missing.as_deref().unwrap_or("no reason given");
    let fix = match lingers {
        Some(false) => format!("loginctl enable-linger {name}"),
        Some(true) => format!("systemctl start user@$(id -u {name}).service"),
        None => format!(
            "see cgroups; without systemd, chown to {name} a cgroup that sshd starts their sessions in"
        ),
    };
    Finding::limited(
        WHAT,
        format!("no cgroup: {why}"),
        "memory is limited for each process by itself, pids for the session user alone, cpus not",
        fix,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::State;
    use podspawn_runtime::limits::CgroupLimits;

    fn given(membership: Option<Membership>, cpus: bool) -> Result<Given, String> {
        Ok(Given {
            limits: CgroupLimits {
                missing: membership.is_none().then(|| "this host has none".into()),
                cpus,
                memory: membership.is_some(),
                pids: membership.is_some(),
            },
            membership,
        })
    }

    fn directory() -> Option<Membership> {
        Some(Membership::Directory("/sys/fs/cgroup/alice/x".into()))
    }

    #[test]
    fn what_is_in_force_is_told_and_what_is_not() {
        let all = finding(&given(directory(), true), "alice", None);
        assert_eq!(all.state, State::Good);
        assert_eq!(
            all.found,
            "a cgroup of version 2 that belongs to the user: cpus, memory, pids"
        );
        let some = finding(&given(directory(), false), "alice", None);
        assert_eq!(some.state, State::Limited);
        assert!(some.found.ends_with("does not limit cpus"), "{some:?}");
        let none = finding(&given(None, false), "alice", Some(false));
        assert_eq!(none.state, State::Limited);
        assert_eq!(none.found, "no cgroup: this host has none");
        assert_eq!(none.fix, "loginctl enable-linger alice");
        let failed = finding(&Err("x".into()), "alice", None);
        assert_eq!(failed.state, State::Broken);
    }

    #[test]
    fn every_remedy_is_one_line() {
        for lingers in [None, Some(false), Some(true)] {
            for membership in [None, directory()] {
                let finding = finding(&given(membership, false), "alice", lingers);
                assert!(!finding.costs.is_empty());
                assert_eq!(finding.fix.lines().count(), 1, "{finding:?}");
            }
        }
    }
}
