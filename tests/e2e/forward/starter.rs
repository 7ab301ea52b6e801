//! Pods that a connection behind the session module has made, by the process that its helper left.

use std::fs;
use std::time::Duration;

use super::host::{Differences, RootHost};
use super::reach::{control, over};
use crate::support::{process, wait_for};
use crate::tests;

tests![
    a_session_starts_another_pod_of_the_users,
    a_session_without_a_starter_says_what_to_do,
    a_pod_that_a_starter_made_holds_nothing_of_its_connection,
];

const LIMIT: Duration = Duration::from_secs(30);

fn a_session_starts_another_pod_of_the_users() {
    let host = RootHost::new();
    let output = host
        .host
        .ssh("hostname")
        .env("PODSPAWN_PROJECT", "web")
        .run();
    assert_eq!(output.line(), "web");
    let output = host
        .host
        .ssh("hostname")
        .env("PODSPAWN_PROJECT", "../web")
        .run();
    assert_eq!(output.code, Some(125), "{output}");
    assert_eq!(host.host.supervisors().len(), 2);
    let starters = || process::with_argument("session-helper");
    wait_for("no helper outlives its connection", LIMIT, || {
        starters().is_empty()
    });
}

/// Nobody is left who could make a pod.
fn a_session_without_a_starter_says_what_to_do() {
    let host = RootHost::new();
    let control = control(&host);
    let _master = host.tunnel(&["-M", "-S", &control]);
    wait_for("the master is up", LIMIT, || fs::metadata(&control).is_ok());
    assert_eq!(over(&host, "echo up").line(), "up");
    let config = host.host.dir.join("config.yaml").display().to_string();
    for starter in process::with_argument(&format!("{config} session-helper")) {
        starter.kill();
    }
    for supervisor in host.host.supervisors() {
        supervisor.kill();
    }
    host.host.wait_until_empty(LIMIT);
    let refused = over(&host, "echo reached");
    assert_eq!(refused.code, Some(125), "{refused}");
    assert!(refused.complaint().contains("log in again"), "{refused}");
    assert_eq!(refused.text(), "");
}

/// The connection's own pod ends in its time, whatever becomes of the other; and nobody who asks
/// for a pod waits for an answer of that one.
fn a_pod_that_a_starter_made_holds_nothing_of_its_connection() {
    let host = RootHost::with(&Differences {
        config: "session:\n  grace_period: 1s\n",
        ..Differences::default()
    });
    let podfile = host.host.dir.join("web.yaml");
    fs::write(&podfile, "mode: persistent\n").unwrap();
    let list = format!("web: {{podfile: {}}}\n", podfile.display());
    fs::write(host.host.dir.join("projects.yaml"), list).unwrap();
    let there = || -> Vec<String> {
        let listed = host.podspawn(["list", "--quiet"]).line();
        listed.lines().map(str::to_owned).collect()
    };
    let made = host.host.ssh("hostname").env("PODSPAWN_PROJECT", "web");
    assert_eq!(made.run().line(), "web");
    wait_for("the connection's own pod ends", LIMIT, || {
        there() == ["web"] && host.host.supervisors().len() == 1
    });
    // What is open in the other is its own: no socket of the starter's, by which pods are asked for.
    let listening = fs::read_to_string("/proc/net/unix").unwrap();
    let of_starters: Vec<&str> = listening
        .lines()
        .filter(|line| line.contains("/.starters/"))
        .filter_map(|line| line.split_whitespace().nth(6))
        .collect();
    let web = host.host.supervisors().remove(0);
    for entry in fs::read_dir(format!("/proc/{}/fd", web.pid)).unwrap() {
        let open = fs::read_link(entry.unwrap().path()).unwrap();
        let name = open.to_string_lossy();
        let inode = name
            .strip_prefix("socket:[")
            .map(|n| n.trim_end_matches(']'));
        assert!(
            inode.is_none_or(|inode| !of_starters.contains(&inode)),
            "{name} is a starter's"
        );
    }
}
