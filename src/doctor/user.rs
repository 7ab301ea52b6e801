//! What the facts about one user mean. Pure.

use super::Finding;
use super::facts::UserFacts;

/// What images expect to have.
const ENOUGH: u64 = 65_536;

/// The controllers that the limits of a pod need.
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];

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
    found.push(limits(facts));
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

fn limits(facts: &UserFacts) -> Finding {
    let what = "limits";
    let Some(controllers) = &facts.controllers else {
        return Finding::limited(
            what,
            "no systemd of this user's runs",
            "limits apply where the user may write to a cgroup of their own, else not",
            format!("loginctl enable-linger {}", facts.name),
        );
    };
    let missing: Vec<&str> = CONTROLLERS
        .into_iter()
        .filter(|name| !controllers.iter().any(|c| c == name))
        .collect();
    if missing.is_empty() {
        return Finding::good(what, format!("can apply: {}", CONTROLLERS.join(", ")));
    }
    Finding::limited(
        what,
        format!("the user's systemd has no {}", missing.join(", ")),
        "the limits of that kind do not apply",
        "systemctl edit user@.service: [Service], Delegate=cpu memory pids",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::State;

    fn alice() -> UserFacts {
        UserFacts {
            name: "alice".into(),
            subids: [65_536; 2],
            overlay: Some(Ok(())),
            store: "/home/alice/.local/share/podspawn".into(),
            run: Some(Ok("/run/user/1000/podspawn".into())),
            tun: true,
            lingers: Some(true),
            controllers: Some(["cpu", "memory", "pids"].map(String::from).into()),
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
        assert_eq!(with(|f| f.lingers = Some(false)), [("lingering", Broken)]);
        assert_eq!(with(|f| f.lingers = None), []);
        assert_eq!(with(|f| f.controllers = None), [("limits", Limited)]);
        assert_eq!(
            with(|f| f.controllers = Some(vec!["cpu".into(), "pids".into()])),
            [("limits", Limited)]
        );
    }
}
