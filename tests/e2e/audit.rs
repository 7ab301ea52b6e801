//! The audit log: what happened can be read from it, whatever a user does.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::support::host::Host;
use crate::support::wait_for;
use crate::tests;

tests![
    sessions_and_pods_are_written_down,
    many_sessions_leave_whole_lines,
    a_failed_login_is_written_down,
    the_log_of_all_pods_says_whose_line_it_is,
    a_log_that_cannot_be_written_costs_no_login,
];

const LIMIT: Duration = Duration::from_secs(20);

fn host(more: &str) -> Host {
    let host = Host::with_image("busybox");
    let dir = host.dir.display().to_string();
    host.configure(&format!(
        "defaults:\n  image: {}\nlog:\n  audit_log: {dir}/audit-{{user}}.json\n{}",
        Host::reference("busybox"),
        more.replace("DIR", &dir),
    ));
    host
}

fn lines(host: &Host) -> Vec<Value> {
    read(&host.dir.join(format!("audit-{}.json", host.user)))
}

/// The lines of an audit log, each of which is whole.
pub fn read(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.is_ascii() && text.ends_with('\n'), "{text:?}");
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
        .collect()
}

fn sessions_and_pods_are_written_down() {
    let host = host("");
    let command = "printf '\u{1b}[2J\u{202e}\n'; exit 3";
    assert_eq!(host.ssh(command).run().code, Some(3));
    let sftp = host.ssh("sftp").option("-s").run();
    assert_eq!(sftp.code, Some(0), "{sftp}");
    host.run(["exec", "default", "sh", "-c", "kill -9 $$"]);
    assert_eq!(host.run(["stop"]).code, Some(0));
    wait_for("the pod is gone", LIMIT, || {
        lines(&host).last().is_some_and(|l| l["event"] == "destroy")
    });
    let lines = lines(&host);
    let events: Vec<&str> = lines.iter().map(|l| l["event"].as_str().unwrap()).collect();
    assert_eq!(
        events,
        [
            "connect",
            "command",
            "create",
            "disconnect",
            "connect",
            "subsystem",
            "disconnect",
            "connect",
            "command",
            "disconnect",
            "destroy"
        ]
    );
    for line in &lines {
        assert_eq!(line["user"], host.user);
        assert_eq!(line["pod"], "default");
        assert!(line["time"].as_str().unwrap().ends_with('Z'), "{line}");
    }
    let client = lines[0]["client"].as_str().unwrap();
    assert!(client.starts_with("127.0.0.1 "), "{client}");
    assert_eq!(lines[0]["terminal"], false);
    assert_eq!(lines[1]["command"], command);
    assert_eq!(lines[2]["image"], Host::reference("busybox"));
    assert_eq!(lines[3]["status"], 3);
    assert!(lines[3]["duration_ms"].is_u64());
    assert_eq!(lines[5]["subsystem"], "sftp");
    assert!(lines[7].get("client").is_none(), "{}", lines[7]);
    assert_eq!(lines[8]["argv"][2], "kill -9 $$");
    assert_eq!(lines[9]["signal"], 9);
    let reason = lines[10]["reason"].as_str().unwrap();
    assert!(reason.contains("stop"), "{reason}");
    // One name a session, and no other has it.
    assert_eq!(lines[0]["session"], lines[3]["session"]);
    assert_ne!(lines[0]["session"], lines[4]["session"]);
    let file = host.dir.join(format!("audit-{}.json", host.user));
    let mode = fs::metadata(file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

fn many_sessions_leave_whole_lines() {
    let host = host("");
    let children: Vec<_> = (0..12)
        .map(|n| host.ssh(format!("echo {n} {}", "x".repeat(3000))).spawn())
        .collect();
    for child in children {
        let output = crate::support::client::finish(child, Vec::new(), LIMIT * 3).unwrap();
        assert_eq!(output.code, Some(0), "{output}");
    }
    let lines = lines(&host);
    let count = |event: &str| lines.iter().filter(|l| l["event"] == event).count();
    let counts = ["connect", "command", "disconnect", "create"].map(count);
    assert_eq!(counts, [12, 12, 12, 1]);
}

fn a_failed_login_is_written_down() {
    let host = host("");
    let text = fs::read_to_string(host.dir.join("config.yaml")).unwrap();
    host.configure(&text.replace("podspawn/busybox:1", "podspawn/no-such:1"));
    assert_eq!(host.ssh("true").run().code, Some(125));
    let lines = lines(&host);
    let last = lines.last().unwrap();
    assert_eq!(last["event"], "disconnect");
    assert!(
        last["error"].as_str().unwrap().contains("no-such"),
        "{last}"
    );
    // What is wrong before there is any pod to speak of.
    host.podfile("base: [x\n");
    assert_eq!(host.ssh("true").run().code, Some(125));
    let lines = self::lines(&host);
    let last = lines.last().unwrap();
    assert_eq!(last["event"], "disconnect");
    let error = last["error"].as_str().unwrap();
    assert!(error.contains("podfile.yaml"), "{last}");
}

fn the_log_of_all_pods_says_whose_line_it_is() {
    let host = host("  file: DIR/all.log\n");
    assert_eq!(host.ssh("true").run().code, Some(0));
    assert_eq!(host.run(["stop"]).code, Some(0));
    let text = fs::read_to_string(host.dir.join("all.log")).unwrap();
    let whose = format!(" {}/default: ", host.user);
    assert!(text.lines().count() >= 3, "{text}");
    assert!(text.lines().all(|l| l.contains(&whose)), "{text}");
}

fn a_log_that_cannot_be_written_costs_no_login() {
    let host = Host::with_image("busybox");
    for place in ["/dev/full", "/nowhere/at/all.json", "/proc/self/mem", "/"] {
        host.configure(&format!(
            "defaults:\n  image: {}\nlog:\n  audit_log: {place}\n  file: {place}\n",
            Host::reference("busybox"),
        ));
        assert_eq!(host.ssh("echo works").run().line(), "works", "{place}");
        assert_eq!(host.run(["stop"]).line(), "default");
    }
}
