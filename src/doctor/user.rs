//! What the facts about one user mean. Pure.

use super::facts::UserFacts;
use super::{Finding, cgroup, pod, store};

/// What images expect to have.
const ENOUGH: u64 = 65_536;

/// Judges.
#[must_use]
pub fn findings(facts: &UserFacts) -> Vec<Finding> {
    let mut found = vec![subids(facts)];
    found.extend(facts.overlay.as_ref().map(|tried| overlay(facts, tried)));
    found.extend(facts.run.as_ref().map(run_directory));
    if !facts.tun {
        found.push(Finding::broken(
            "tun",
            "this user cannot open /dev/net/tun",
            "pods reach nothing but their own loopback",
            "chmod 666 /dev/net/tun",
        ));
    }
    found.extend(facts.lingers.map(|lingers| lingering(&facts.name, lingers)));
    found.extend(facts.pod.iter().flat_map(pod::findings));
    let limits = facts.limits.as_ref();
    found.extend(limits.map(|tried| cgroup::finding(tried, &facts.name, facts.lingers)));
    let health = facts.health.as_ref();
    found.extend(health.map(|health| store::finding(health, &facts.name)));
    found
}

fn subids(facts: &UserFacts) -> Finding {
    let [users, groups] = facts.subids;
    let what = "subordinate ids";
    let found = format!("{users} user and {groups} group ids");
    let fix = format!(
        "usermod --add-subuids FIRST-LAST --add-subgids FIRST-LAST {}",
        facts.name
    );
    match users.min(groups) {
        0 => Finding::limited(
            what,
            found,
            "a single id in the pod: no package manager, no other users inside",
            fix,
        ),
        1..ENOUGH => Finding::limited(what, found, "images with higher ids are refused", fix),
        _ => Finding::good(what, found),
    }
}

fn overlay(facts: &UserFacts, tried: &Result<(), String>) -> Finding {
    let what = "overlay";
    let store = facts.store.display();
    match tried {
        Ok(()) => Finding::good(what, format!("mounted at {store}, as this user")),
        Err(why) => Finding::broken(
            what,
            format!("{store}: {why}"),
            "no pod can be made",
            "set storage.root to a local file system (ext4, xfs or btrfs), and see user namespaces",
        ),
    }
}

fn run_directory(run: &Result<std::path::PathBuf, String>) -> Finding {
    let what = "run directory";
    match run {
        Ok(path) => Finding::good(what, path.display().to_string()),
        Err(why) => Finding::broken(
            what,
            why.clone(),
            "no pod can be made",
            "remove it or correct its owner",
        ),
    }
}

fn lingering(name: &str, lingers: bool) -> Finding {
    if lingers {
        return Finding::good("lingering", "on: pods outlive logins");
    }
    Finding::broken(
        "lingering",
        "off",
        "systemd ends the user's pods with their last login, before the grace period",
        format!("loginctl enable-linger {name}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::State;
    use podspawn_runtime::cgroup::{Given, Membership};
    use podspawn_runtime::limits::CgroupLimits;

    fn alice() -> UserFacts {
        UserFacts {
            name: "alice".into(),
            subids: [65_536; 2],
            overlay: Some(Ok(())),
            store: "/home/alice/.local/share/podspawn".into(),
            run: Some(Ok("/run/user/1000/podspawn".into())),
            tun: true,
            pod: Some(Ok("pasta".into())),
            lingers: Some(true),
            limits: Some(Ok(Given {
                membership: Some(Membership::Directory("/sys/fs/cgroup/x".into())),
                limits: CgroupLimits {
                    missing: None,
                    cpus: true,
                    memory: true,
                    pids: true,
                },
            })),
            health: Some(Ok(String::new())),
        }
    }

    fn with(change: impl FnOnce(&mut UserFacts)) -> Vec<(&'static str, State)> {
        let mut facts = alice();
        change(&mut facts);
        findings(&facts)
            .into_iter()
            .filter(|f| f.state != State::Good)
            .map(|f| (f.what, f.state))
            .collect()
    }

    #[test]
    fn each_precondition_is_missed_by_itself() {
        use State::{Broken, Limited};
        assert_eq!(with(|_| ()), []);
        assert_eq!(with(|f| f.subids[1] = 0), [("subordinate ids", Limited)]);
        assert_eq!(
            with(|f| f.subids = [1000; 2]),
            [("subordinate ids", Limited)]
        );
        assert_eq!(
            with(|f| f.overlay = Some(Err("x".into()))),
            [("overlay", Broken)]
        );
        assert_eq!(
            with(|f| f.run = Some(Err("x".into()))),
            [("run directory", Broken)]
        );
        assert_eq!(with(|f| f.tun = false), [("tun", Broken)]);
        assert_eq!(with(|f| f.pod = Some(Err("x".into()))), [("pod", Broken)]);
        assert_eq!(with(|f| f.pod = None), []);
        assert_eq!(with(|f| f.lingers = Some(false)), [("lingering", Broken)]);
        assert_eq!(with(|f| f.lingers = None), []);
        assert_eq!(
            with(|f| f.limits = Some(Ok(Given::default()))),
            [("limits", Limited)]
        );
        assert_eq!(
            with(|f| f.health = Some(Err(vec!["x".into()]))),
            [("store", Broken)]
        );
    }
}
