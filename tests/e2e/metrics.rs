//! What Prometheus reads: a strict parser takes it, and the numbers are right.

use std::time::Duration;

use crate::support::client::{self, Output};
use crate::support::host::Host;
use crate::support::{setup, wait_for};
use crate::tests;

tests![
    the_text_is_what_prometheus_reads,
    what_happened_is_counted,
    killed_sessions_leave_whole_numbers,
];

const LIMIT: Duration = Duration::from_secs(20);

fn text(host: &Host) -> String {
    let output: Output = host.run(["status", "--prometheus"]);
    output.line() + "\n"
}

fn value(text: &str, name: &str, label: &str) -> f64 {
    let line = text
        .lines()
        .find(|l| l.starts_with(&format!("{name}{{")) && l.contains(label))
        .unwrap_or_else(|| panic!("{name} {label} is not in\n{text}"));
    line.rsplit_once(' ').unwrap().1.parse().unwrap()
}

fn the_text_is_what_prometheus_reads() {
    let host = Host::with_image("busybox");
    let empty = text(&host);
    assert_eq!(host.ssh("true").run().code, Some(0));
    for text in [empty, text(&host)] {
        let mut promtool = std::process::Command::new("promtool");
        promtool.args(["check", "metrics"]);
        client::clean(&mut promtool);
        let checked = client::run(promtool, text.clone().into_bytes(), LIMIT);
        assert_eq!(checked.code, Some(0), "{checked}\n{text}");
        assert_eq!(checked.errors() + &checked.text(), "", "{text}");
    }
}

fn what_happened_is_counted() {
    let host = Host::with_image("busybox");
    for _ in 0..3 {
        assert_eq!(host.ssh("true").run().code, Some(0));
    }
    let counted = text(&host);
    assert_eq!(value(&counted, "podspawn_sessions_total", ""), 3.0);
    assert_eq!(value(&counted, "podspawn_creates_total", ""), 1.0);
    assert_eq!(value(&counted, "podspawn_create_seconds_count", ""), 1.0);
    assert_eq!(value(&counted, "podspawn_join_seconds_count", ""), 2.0);
    assert!(value(&counted, "podspawn_create_seconds_sum", "") > 0.0);
    let state = "state=\"idle\"";
    wait_for("the pod is idle", LIMIT, || {
        value(&text(&host), "podspawn_pods", state) == 1.0
    });
    assert_eq!(
        value(&text(&host), "podspawn_pods", "state=\"running\""),
        0.0
    );
    host.configure(&format!(
        "defaults:\n  image: {}/podspawn/no-such:1\n",
        setup::get().registry
    ));
    assert_eq!(host.run(["stop"]).code, Some(0));
    assert_eq!(host.ssh("true").run().code, Some(125));
    let counted = text(&host);
    assert_eq!(
        value(&counted, "podspawn_failures_total", "what=\"image\""),
        1.0
    );
    assert_eq!(value(&counted, "podspawn_sessions_total", ""), 3.0);
}

fn killed_sessions_leave_whole_numbers() {
    let host = Host::with_image("busybox");
    let clients: Vec<_> = (0..6).map(|_| host.ssh("sleep 60").spawn()).collect();
    wait_for("all are in", LIMIT * 3, || {
        value(&text(&host), "podspawn_sessions", "") == 6.0
    });
    for session in host.sessions() {
        session.kill();
    }
    for client in clients {
        client::finish(client, Vec::new(), LIMIT).unwrap();
    }
    wait_for("all are out", LIMIT, || {
        value(&text(&host), "podspawn_sessions", "") == 0.0
    });
    assert_eq!(value(&text(&host), "podspawn_sessions_total", ""), 6.0);
    assert_eq!(host.ssh("true").run().code, Some(0));
    assert_eq!(value(&text(&host), "podspawn_sessions_total", ""), 7.0);
}
