//! Pods begin once, end whole, and nothing that is killed leaves anything behind.

use std::fs;
use std::time::{Duration, Instant};

use crate::support::client::{Output, finish};
use crate::support::host::Host;
use crate::support::process::{self, Process};
use crate::support::{Noise, setup, wait_for};
use crate::tests;

tests![
    ten_first_logins_make_one_pod,
    ten_first_logins_pull_once,
    the_pod_outlives_the_session_by_the_grace_period,
    a_login_within_the_grace_period_keeps_the_pod,
    a_long_session_keeps_the_pod,
    killing_the_supervisor_leaves_nothing,
    killing_an_idle_supervisor_leaves_nothing,
    killing_a_session_leaves_nothing,
    killing_sshds_child_leaves_nothing,
    killing_everything_at_random_leaves_nothing,
    killing_the_first_login_at_any_moment,
    killing_a_pull_at_any_moment,
    orphans_are_reaped,
    what_the_pod_wrote_is_gone_with_it,
];

const SHORT: &str = "session:\n  grace_period: 1s\n";
const LIMIT: Duration = Duration::from_secs(15);

fn together(host: &Host, count: usize, command: &str) -> Vec<Output> {
    let children: Vec<_> = (0..count).map(|_| host.ssh(command).spawn()).collect();
    let outputs = children
        .into_iter()
        .map(|child| finish(child, Vec::new(), Duration::from_secs(120)));
    outputs
        .map(|output| output.unwrap_or_else(|output| panic!("no end: {output}")))
        .collect()
}

#[track_caller]
fn one_pod(host: &Host, outputs: &[Output]) {
    let first = outputs[0].line();
    assert!(first.starts_with("mnt:["), "{first}");
    for output in outputs {
        assert_eq!(output.line(), first);
    }
    assert_eq!(host.supervisors().len(), 1, "{:?}", host.supervisors());
}

fn ten_first_logins_make_one_pod() {
    for _ in 0..3 {
        let host = Host::with_image("busybox");
        one_pod(&host, &together(&host, 10, "readlink /proc/self/ns/mnt"));
    }
}

fn ten_first_logins_pull_once() {
    let host = Host::empty(&format!("{}/podspawn/alpine-like:1", setup::get().registry));
    one_pod(&host, &together(&host, 10, "readlink /proc/self/ns/mnt"));
}

fn the_pod_outlives_the_session_by_the_grace_period() {
    let host = Host::with_config("busybox", "session:\n  grace_period: 3s\n");
    assert_eq!(
        host.ssh("echo mine >/tmp/mark; sleep 5432 >/dev/null 2>&1 </dev/null &")
            .run()
            .code,
        Some(0)
    );
    let ended = Instant::now();
    std::thread::sleep(Duration::from_secs(1));
    assert!(
        !host.pod_processes().is_empty(),
        "the pod ended before its time"
    );
    host.wait_until_empty(LIMIT);
    assert!(
        ended.elapsed() >= Duration::from_millis(2500),
        "the pod ended after {:?}",
        ended.elapsed()
    );
    assert!(process::with_argument("sleep 5432").is_empty());
    // A new one has nothing of the old one's.
    assert_eq!(host.ssh("test -e /tmp/mark").run().code, Some(1));
}

fn a_login_within_the_grace_period_keeps_the_pod() {
    // Long enough for a login on a busy machine, and together they take longer.
    let host = Host::with_config("busybox", "session:\n  grace_period: 8s\n");
    host.ssh("echo kept >/tmp/mark").run();
    for _ in 0..4 {
        std::thread::sleep(Duration::from_millis(2500));
        assert_eq!(host.ssh("cat /tmp/mark").run().line(), "kept");
    }
}

fn a_long_session_keeps_the_pod() {
    let host = Host::with_config("busybox", SHORT);
    assert_eq!(
        host.ssh("echo a >/tmp/a; sleep 4; cat /tmp/a").run().line(),
        "a"
    );
}

/// A login with something that runs in it, and its client.
fn busy(host: &Host, mark: &str) -> std::process::Child {
    let child = host.ssh(format!("sleep {mark}; echo not reached")).spawn();
    wait_for("the command runs", Duration::from_secs(30), || {
        running(mark)
    });
    child
}

fn running(mark: &str) -> bool {
    process::runs(&format!("sleep {mark}"))
}

#[track_caller]
fn next_login_works(host: &Host) {
    let output = host.ssh("echo works").run();
    assert_eq!(output.code, Some(0), "{output}\n{}", host.log());
    assert_eq!(output.line(), "works");
}

#[track_caller]
fn the_only(what: &str, mut found: Vec<Process>) -> Process {
    assert_eq!(found.len(), 1, "{what}: {found:?}");
    found.remove(0)
}

fn killing_the_supervisor_leaves_nothing() {
    let host = Host::with_image("busybox");
    let devices = fs::read_to_string("/proc/net/dev").unwrap().lines().count();
    let client = busy(&host, "7001");
    the_only("supervisor", host.supervisors()).kill();
    let output = finish(client, Vec::new(), LIMIT).expect("the session ends with its pod");
    assert_ne!(output.code, Some(0), "{output}");
    assert!(!output.text().contains("not reached"), "{output}");
    host.wait_until_empty(Duration::from_secs(2));
    assert!(!running("7001"));
    assert_eq!(
        fs::read_to_string("/proc/net/dev").unwrap().lines().count(),
        devices
    );
    next_login_works(&host);
}

fn killing_an_idle_supervisor_leaves_nothing() {
    let host = Host::with_image("busybox");
    for round in 0..5 {
        assert_eq!(
            host.ssh(format!(
                "test ! -e /tmp/mark; echo $? {round}; echo >/tmp/mark"
            ))
            .run()
            .line(),
            format!("0 {round}")
        );
        the_only("supervisor", host.supervisors()).kill();
    }
    next_login_works(&host);
    // What the killed ones wrote is swept by those that came after.
    let left = || {
        fs::read_dir(host.storage().join("pods/default"))
            .unwrap()
            .count()
    };
    wait_for("the old directories are gone", LIMIT, || left() <= 4);
}

fn killing_a_session_leaves_nothing() {
    let host = Host::with_config("busybox", SHORT);
    let client = busy(&host, "7002");
    let sessions = host.sessions();
    assert!(!sessions.is_empty());
    for session in sessions {
        session.kill();
    }
    let output = finish(client, Vec::new(), LIMIT).expect("ssh ends with the session");
    assert_ne!(output.code, Some(0), "{output}");
    next_login_works(&host);
    wait_for("its command has ended", LIMIT, || !running("7002"));
    host.wait_until_empty(LIMIT);
    next_login_works(&host);
}

fn killing_sshds_child_leaves_nothing() {
    let host = Host::with_config("busybox", SHORT);
    let client = busy(&host, "7003");
    for child in host.sshd_children() {
        child.kill();
    }
    let output = finish(client, Vec::new(), LIMIT).expect("ssh ends with its server");
    assert_eq!(output.code, Some(255), "{output}");
    next_login_works(&host);
    wait_for("its session has ended", LIMIT, || {
        host.sessions().is_empty()
    });
    host.wait_until_empty(LIMIT);
    next_login_works(&host);
}

fn killing_everything_at_random_leaves_nothing() {
    let host = Host::with_config("busybox", SHORT);
    let mut noise = Noise::new(4);
    for round in 0..6 {
        let clients: Vec<_> = (0..3)
            .map(|n| host.ssh(format!("echo up; sleep 71{round}{n}")).spawn())
            .collect();
        std::thread::sleep(Duration::from_millis(noise.next() % 400));
        let mut victims = host.pod_processes();
        victims.extend(host.sessions());
        victims.extend(host.sshd_children());
        for _ in 0..victims.len().min(3) {
            victims[(noise.next() % victims.len() as u64) as usize].kill();
        }
        std::thread::sleep(Duration::from_millis(100));
        for client in clients {
            // Those that were spared go on: their client leaves.
            let _ = finish(client, Vec::new(), Duration::from_millis(200));
        }
        next_login_works(&host);
    }
    host.wait_until_empty(LIMIT);
    for round in 0..6 {
        assert!(
            process::with_argument(&format!("sleep 71{round}")).is_empty(),
            "round {round}"
        );
    }
}

/// The pod is being made when its maker dies.
fn killing_the_first_login_at_any_moment() {
    let host = Host::with_config("busybox", SHORT);
    for round in 0..20 {
        let mut client = host.ssh("true").spawn();
        // Of the making itself only a few milliseconds are seen: look closely.
        let begin = Instant::now();
        while host.sessions().is_empty() && begin.elapsed() < Duration::from_secs(5) {}
        std::thread::sleep(Duration::from_millis(round * 2));
        for victim in host.sessions().iter().chain(&host.sshd_children()) {
            victim.kill();
        }
        let _ = client.wait();
        next_login_works(&host);
        for supervisor in host.supervisors() {
            supervisor.kill();
        }
        host.wait_until_empty(LIMIT);
    }
}

fn killing_a_pull_at_any_moment() {
    let reference = format!("{}/podspawn/debian:1", setup::get().registry);
    let host = Host::empty(&reference);
    let begin = Instant::now();
    let whole = host.run(["pull", &reference]);
    assert_eq!(whole.code, Some(0), "{whole}");
    let usual = begin.elapsed();
    let mut noise = Noise::new(5);
    for round in 0..8 {
        let removed = host.run(["rmi", &reference]);
        assert_eq!(removed.code, Some(0), "{removed}");
        let mut pull = host.podspawn(["pull", &reference]);
        pull.stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null());
        let mut pull = pull.spawn().unwrap();
        std::thread::sleep(usual.mul_f64((noise.next() % 1000) as f64 / 1000.0));
        // The children first would be told of an end that is none.
        let children = process::descendants(i32::try_from(pull.id()).unwrap());
        pull.kill().unwrap();
        pull.wait().unwrap();
        if round % 2 == 0 {
            children.iter().for_each(Process::kill);
        }
        let next = host.run(["pull", &reference]);
        assert_eq!(next.code, Some(0), "round {round}: {next}");
    }
    let output = host
        .ssh("cat /etc/motd; test -x /usr/bin/rsync && git --version >/dev/null && echo whole")
        .run();
    assert_eq!(output.line(), "Welcome to the pod.\nwhole");
    let left: Vec<_> = fs::read_dir(host.storage().join("v1/tmp"))
        .into_iter()
        .flatten()
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

fn orphans_are_reaped() {
    let host = Host::with_image("debian");
    let output = host
        .ssh("for n in $(seq 50); do sh -c 'sleep 0.2 &' ; done; sleep 1; ps -eo stat= | grep -c Z")
        .run();
    assert_eq!(output.text(), "0\n", "{output}");
}

fn what_the_pod_wrote_is_gone_with_it() {
    let host = Host::with_config("busybox", SHORT);
    host.ssh(
        "mkdir -p /tmp/a/b; echo x >/tmp/a/b/c; chmod 000 /tmp/a; ln -s /etc /tmp/l; mkfifo /tmp/p",
    )
    .run();
    host.wait_until_empty(LIMIT);
    next_login_works(&host);
    host.wait_until_empty(LIMIT);
    let find = crate::support::client::local(
        "find",
        [host.storage().join("pods"), "-name".into(), "c".into()],
    );
    assert_eq!(find.text(), "", "{find}");
}
