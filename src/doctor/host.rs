//! What the facts about a host mean. Pure.

use super::Finding;
use super::facts::{HostFacts, RootFacts, SshdFacts};
use crate::server::pam::Stack;

/// The AppArmor profile that the package installs, where it is kept.
const PROFILE: &str = "/usr/share/podspawn/apparmor/podspawn";

/// Judges.
#[must_use]
pub fn findings(facts: &HostFacts) -> Vec<Finding> {
    let mut found = vec![kernel(&facts.kernel)];
    found.push(user_namespaces(facts));
    found.push(id_mappers(facts.id_mappers));
    found.extend(network(facts));
    found.push(cgroups(facts));
    if let Some(config) = &facts.config {
        found.push(configuration(config));
    }
    if let Some(root) = &facts.root {
        found.extend(root_findings(root));
    }
    found
}

fn kernel(release: &str) -> Finding {
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map(str::parse::<u32>);
    let version = match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor),
        _ => (0, 0),
    };
    let found = format!("Linux {release}");
    if version >= (5, 11) {
        Finding::good("kernel", found)
    } else {
        Finding::broken(
            "kernel",
            found,
            "an overlay cannot be mounted by users",
            "boot Linux 5.11 or newer",
        )
    }
}

fn user_namespaces(facts: &HostFacts) -> Finding {
    let what = "user namespaces";
    let none = "no pod can be made";
    if facts.max_user_namespaces == Some(0) {
        return Finding::broken(
            what,
            "user.max_user_namespaces is 0",
            none,
            "echo user.max_user_namespaces=65536 >>/etc/sysctl.d/60-podspawn.conf; sysctl --system",
        );
    }
    if facts.unprivileged_userns_clone == Some(0) {
        return Finding::broken(
            what,
            "kernel.unprivileged_userns_clone is 0",
            none,
            "echo kernel.unprivileged_userns_clone=1 >>/etc/sysctl.d/60-podspawn.conf; sysctl --system",
        );
    }
    match facts.apparmor_restricts {
        None | Some(0) => Finding::good(what, "allowed"),
        Some(_) => restricted(facts),
    }
}

/// AppArmor takes the capabilities in a user namespace from programs without a profile.
fn restricted(facts: &HostFacts) -> Finding {
    let what = "user namespaces";
    let on = "kernel.apparmor_restrict_unprivileged_userns is on";
    match facts.apparmor_label.as_deref() {
        None | Some("unconfined") => Finding::broken(
            what,
            match facts.apparmor_profile {
                false => format!("{on}, and there is no profile for podspawn"),
                true => format!("{on}, and podspawn's profile is not in force"),
            },
            "no pod can be made",
            match facts.apparmor_profile {
                false => format!(
                    "cp {PROFILE} /etc/apparmor.d/podspawn; apparmor_parser -r /etc/apparmor.d/podspawn"
                ),
                true => "apparmor_parser -r /etc/apparmor.d/podspawn; it is for /usr/bin/podspawn and no other file".into(),
            },
        ),
        Some(profile) => {
            Finding::good(what, format!("allowed by the AppArmor profile {profile}"))
        }
    }
}

fn id_mappers(found: [Option<bool>; 2]) -> Finding {
    let what = "newuidmap, newgidmap";
    let costs = "pods have a single user id: no package manager, no other users inside";
    match found {
        [Some(true), Some(true)] => Finding::good(what, "there, with the privilege they need"),
        [None, _] | [_, None] => {
            Finding::broken(what, "not installed", costs, "apt-get install uidmap")
        }
        _ => Finding::broken(
            what,
            "neither setuid nor with capabilities of their own",
            costs,
            "chmod u+s /usr/bin/newuidmap /usr/bin/newgidmap",
        ),
    }
}

fn network(facts: &HostFacts) -> Vec<Finding> {
    let costs = "pods reach nothing but their own loopback";
    let tun = match facts.tun {
        Some(mode) if mode & 0o006 == 0o006 => Finding::good("/dev/net/tun", "open to users"),
        Some(mode) => Finding::broken(
            "/dev/net/tun",
            format!("mode {mode:o}"),
            costs,
            "chmod 666 /dev/net/tun",
        ),
        None => Finding::broken(
            "/dev/net/tun",
            "not there",
            costs,
            "modprobe tun; echo tun >/etc/modules-load.d/tun.conf",
        ),
    };
    let pasta = match &facts.pasta {
        Some(path) => Finding::good("pasta", path.display().to_string()),
        None => Finding::broken("pasta", "not installed", costs, "apt-get install passt"),
    };
    let nft = match &facts.nft {
        Some(path) => Finding::good("nft", path.display().to_string()),
        None => Finding::limited(
            "nft",
            "not installed",
            "companion services reach nothing outside of their pod",
            "apt-get install nftables",
        ),
    };
    vec![tun, pasta, nft]
}

fn cgroups(facts: &HostFacts) -> Finding {
    let what = "cgroups";
    match (facts.cgroup2, facts.systemd) {
        (true, true) => Finding::good(what, "version 2, kept by systemd"),
        (true, false) => Finding::limited(
            what,
            "version 2, without systemd",
            "limits apply where a user may write to a cgroup of their own, else not",
            "give each user a cgroup that belongs to them",
        ),
        (false, _) => Finding::limited(
            what,
            "not version 2 alone",
            "no limits apply: a pod can use what its user can",
            "boot with systemd.unified_cgroup_hierarchy=1",
        ),
    }
}

fn configuration(config: &Result<Vec<String>, String>) -> Finding {
    let what = "configuration";
    match config {
        Ok(unused) if unused.is_empty() => Finding::good(what, "read"),
        Ok(unused) => Finding::limited(
            what,
            format!(
                "keys that have no effect in this version: {}",
                unused.join(", ")
            ),
            "what they say is not done",
            "take them out, or wait for a version that knows them",
        ),
        Err(line) => Finding::broken(what, line.clone(), "no session starts", "correct the file"),
    }
}

fn root_findings(root: &RootFacts) -> Vec<Finding> {
    let mut found = Vec::new();
    match &root.program {
        Some(Ok(path)) => found.push(Finding::good("program", path.display().to_string())),
        Some(Err(why)) => found.push(Finding::broken(
            "program",
            why.clone(),
            "somebody else than root decides what every session runs",
            "install podspawn where only root can write",
        )),
        None => {}
    }
    match &root.sshd {
        Some(Ok(sshd)) => found.extend(sshd_findings(sshd, root)),
        Some(Err(why)) => found.push(Finding::broken(
            "sshd",
            why.clone(),
            "no container user can log in",
            "podspawn server-setup",
        )),
        None => {}
    }
    found.push(match root.listener {
        Some(pid) => Finding::good("sshd runs", format!("process {pid}")),
        None => Finding::limited(
            "sshd runs",
            "no listening sshd was found by its pid file",
            "nobody can log in, unless systemd listens for it",
            "systemctl start ssh",
        ),
    });
    found.push(users(root));
    found
}

fn sshd_findings(sshd: &SshdFacts, root: &RootFacts) -> Vec<Finding> {
    let mut found = Vec::new();
    found.push(if sshd.differences.is_empty() {
        let forwarding = if sshd.forwards {
            "open, into the pod"
        } else {
            "closed"
        };
        Finding::good(
            "sshd",
            format!("the block for container users is in force; forwarding is {forwarding}"),
        )
    } else {
        Finding::broken(
            "sshd",
            sshd.differences.join("; "),
            "sessions or forwarding of container users reach the host",
            "podspawn server-setup",
        )
    });
    let what = "session module";
    found.push(match (sshd.forwards, root.stack) {
        (true, Some(Stack::With)) if sshd.uses_pam && root.module.is_some() => {
            Finding::good(what, "in sshd's PAM stack")
        }
        (true, _) => Finding::broken(
            what,
            "forwarding is open, and the module is not wholly in sshd's PAM stack",
            "forwarding of container users reaches the host's network, or their logins are refused",
            "podspawn server-setup --with-forwarding, or --without-forwarding",
        ),
        (false, None | Some(Stack::Without)) => {
            Finding::good(what, "not used: forwarding is closed")
        }
        (false, _) => Finding::broken(
            what,
            "in sshd's PAM stack, and forwarding is closed",
            "the module is asked for nothing; a line without the other refuses logins",
            "podspawn server-setup --without-forwarding",
        ),
    });
    if !sshd.who.is_empty() {
        let named = sshd.who.iter().any(|line| {
            line.starts_with("allow")
                && line
                    .split_whitespace()
                    .any(|word| word == crate::server::GROUP)
        });
        if !named {
            found.push(Finding::limited(
                "who may log in",
                sshd.who.join("; "),
                "sshd may refuse container users",
                "add AllowGroups podspawn, or see that the users are named",
            ));
        }
    }
    found
}

fn users(root: &RootFacts) -> Finding {
    let what = "container users";
    let named = |all: Vec<&str>| all.join(", ");
    let shells: Vec<&str> = root
        .users
        .iter()
        .filter(|u| !u.2)
        .map(|u| u.0.as_str())
        .collect();
    if !shells.is_empty() {
        return Finding::limited(
            what,
            format!("the login shell of {} is not podspawn", named(shells)),
            "a shell that sshd starts reads files in their homes, on the host",
            "usermod --shell /usr/bin/podspawn NAME",
        );
    }
    let keyless: Vec<&str> = root
        .users
        .iter()
        .filter(|u| u.3 == 0)
        .map(|u| u.0.as_str())
        .collect();
    if !keyless.is_empty() {
        return Finding::limited(
            what,
            format!("{} without a key of podspawn's", named(keyless)),
            "they log in only by what else sshd accepts",
            "podspawn add-user NAME --key-file FILE",
        );
    }
    match root.users.len() {
        0 => Finding::limited(
            what,
            "none",
            "nobody lands in a pod",
            "podspawn add-user NAME --key-file FILE",
        ),
        count => Finding::good(what, format!("{count}, with podspawn as their shell")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::State;

    fn host() -> HostFacts {
        HostFacts {
            kernel: "6.1.0-50-amd64".into(),
            max_user_namespaces: Some(7000),
            id_mappers: [Some(true); 2],
            tun: Some(0o666),
            pasta: Some("/usr/bin/pasta".into()),
            nft: Some("/usr/sbin/nft".into()),
            cgroup2: true,
            systemd: true,
            config: Some(Ok(Vec::new())),
            root: Some(RootFacts {
                program: Some(Ok("/usr/bin/podspawn".into())),
                sshd: Some(Ok(SshdFacts {
                    uses_pam: true,
                    ..SshdFacts::default()
                })),
                listener: Some(1),
                stack: Some(Stack::Without),
                module: None,
                users: vec![("alice".into(), "/usr/bin/podspawn".into(), true, 1)],
            }),
            ..HostFacts::default()
        }
    }

    fn bad(facts: &HostFacts) -> Vec<(&'static str, State)> {
        let all = findings(facts);
        for finding in &all {
            let well = finding.state == State::Good;
            assert_eq!(well, finding.fix.is_empty(), "{finding:?}");
            assert_eq!(well, finding.costs.is_empty(), "{finding:?}");
        }
        all.iter()
            .filter(|f| f.state != State::Good)
            .map(|f| (f.what, f.state))
            .collect()
    }

    fn with(change: impl FnOnce(&mut HostFacts)) -> Vec<(&'static str, State)> {
        let mut facts = host();
        change(&mut facts);
        bad(&facts)
    }

    fn with_root(change: impl FnOnce(&mut RootFacts)) -> Vec<(&'static str, State)> {
        with(|facts| change(facts.root.as_mut().unwrap()))
    }

    #[test]
    fn a_host_as_it_should_be_has_nothing_to_say() {
        assert_eq!(bad(&host()), []);
    }

    #[test]
    fn each_precondition_is_missed_by_itself() {
        use State::{Broken, Limited};
        assert_eq!(
            with(|f| f.kernel = "5.10.0-rc1".into()),
            [("kernel", Broken)]
        );
        assert_eq!(with(|f| f.kernel = "odd".into()), [("kernel", Broken)]);
        assert_eq!(with(|f| f.kernel = "5.11".into()), []);
        assert_eq!(
            with(|f| f.max_user_namespaces = Some(0)),
            [("user namespaces", Broken)]
        );
        assert_eq!(
            with(|f| f.unprivileged_userns_clone = Some(0)),
            [("user namespaces", Broken)]
        );
        let restricted = |label: Option<&str>, installed| {
            with(|f| {
                f.apparmor_restricts = Some(1);
                f.apparmor_label = label.map(Into::into);
                f.apparmor_profile = installed;
            })
        };
        for installed in [false, true] {
            for label in [None, Some("unconfined")] {
                let found = restricted(label, installed);
                assert_eq!(found, [("user namespaces", Broken)]);
            }
            assert_eq!(restricted(Some("podspawn"), installed), []);
        }
        assert_eq!(
            with(|f| f.id_mappers = [Some(true), Some(false)]),
            [("newuidmap, newgidmap", Broken)]
        );
        assert_eq!(
            with(|f| f.id_mappers[0] = None),
            [("newuidmap, newgidmap", Broken)]
        );
        assert_eq!(with(|f| f.tun = Some(0o660)), [("/dev/net/tun", Broken)]);
        assert_eq!(with(|f| f.pasta = None), [("pasta", Broken)]);
        assert_eq!(with(|f| f.nft = None), [("nft", Limited)]);
        assert_eq!(with(|f| f.systemd = false), [("cgroups", Limited)]);
        assert_eq!(
            with(|f| f.config = Some(Err("x:1".into()))),
            [("configuration", Broken)]
        );
    }

    #[test]
    fn forwarding_is_into_the_pod_or_closed() {
        use State::Broken;
        let sshd = |forwards| {
            Some(Ok(SshdFacts {
                forwards,
                uses_pam: true,
                ..SshdFacts::default()
            }))
        };
        let state = |forwards, stack, module: bool| {
            with_root(|r| {
                r.sshd = sshd(forwards);
                r.stack = Some(stack);
                r.module = module.then(|| "/m".into());
            })
        };
        let broken = [("session module", Broken)];
        assert_eq!(state(true, Stack::With, true), []);
        assert_eq!(state(true, Stack::With, false), broken);
        assert_eq!(state(true, Stack::Without, true), broken);
        assert_eq!(state(true, Stack::Broken, true), broken);
        assert_eq!(state(false, Stack::Without, true), []);
        assert_eq!(state(false, Stack::Broken, true), broken);
    }

    #[test]
    fn sshd_and_its_users_are_looked_at() {
        use State::{Broken, Limited};
        let different = SshdFacts {
            differences: vec!["x".into()],
            ..SshdFacts::default()
        };
        assert_eq!(
            with_root(|r| r.sshd = Some(Ok(different))),
            [("sshd", Broken)]
        );
        assert_eq!(
            with_root(|r| r.sshd = Some(Err("x".into()))),
            [("sshd", Broken)]
        );
        let who = |line: &str| SshdFacts {
            who: vec![line.into()],
            ..SshdFacts::default()
        };
        assert_eq!(
            with_root(|r| r.sshd = Some(Ok(who("allowgroups admin")))),
            [("who may log in", Limited)]
        );
        assert_eq!(
            with_root(|r| r.sshd = Some(Ok(who("allowgroups podspawn")))),
            []
        );
        assert_eq!(
            with_root(|r| r.program = Some(Err("x".into()))),
            [("program", Broken)]
        );
        assert_eq!(
            with_root(|r| r.users[0].2 = false),
            [("container users", Limited)]
        );
        assert_eq!(
            with_root(|r| r.users[0].3 = 0),
            [("container users", Limited)]
        );
    }
}
