//! What fails is refused: no session, and no forwarding into the host's network.

use std::time::{Duration, Instant};

use super::host::{Differences, RootHost, STACK};
use crate::support::host::executable;
use crate::support::net::Answerer;
use crate::support::{process, setup, wait_for};
use crate::tests;

tests![
    a_pod_that_cannot_start_is_said_in_one_line,
    a_helper_that_hangs_is_ended,
    a_helper_that_is_not_there,
    the_auth_line_is_missing,
    the_auth_line_is_skipped,
    the_session_line_is_missing,
    the_session_line_is_skipped,
    the_session_line_is_optional,
    a_session_line_after_it_refuses,
    an_argument_makes_no_sense,
];

/// No session runs and nothing of the host is reached; returns what the client is told.
#[track_caller]
pub fn is_refused(host: &RootHost) -> String {
    let decoy = Answerer::new("host");
    let output = host.host.ssh("echo reached").run();
    assert_ne!(output.code, Some(0), "{output}");
    let said = output.text() + &output.errors();
    assert!(!said.contains("reached"), "{output}");
    for name in ["localhost", "127.0.0.1"] {
        assert_eq!(host.through(&format!("{name}:{}", decoy.port)), "");
    }
    let port = crate::support::host::free_port();
    let forward = format!("{port}:127.0.0.1:{}", decoy.port);
    let mut listener = host.tunnel(&["-R", &forward]);
    let end = Instant::now() + Duration::from_secs(10);
    while Instant::now() < end && listener.0.try_wait().unwrap().is_none() {
        assert_eq!(crate::support::net::ask(port), "", "the host listens");
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(decoy.asked(), 0, "the host was reached");
    said
}

#[track_caller]
fn says(host: &RootHost, what: &str) {
    let said = is_refused(host);
    let line = said.trim_end();
    assert!(
        line.starts_with("podspawn: ") && line.contains(what),
        "{said:?}"
    );
    assert_eq!(line.lines().count(), 1, "{said:?}");
}

fn with_stack(stack: String) -> RootHost {
    RootHost::with(&Differences {
        stack,
        ..Differences::default()
    })
}

fn a_pod_that_cannot_start_is_said_in_one_line() {
    let host = RootHost::with(&Differences {
        image: Some("127.0.0.1:9/none:1"),
        ..Differences::default()
    });
    says(&host, "127.0.0.1:9/none:1");
}

fn a_helper_that_hangs_is_ended() {
    let helper = setup::get().work.join("hanging-helper");
    executable(&helper, "#!/bin/sh\nsleep 74747 &\nsleep 74747\n");
    let host = RootHost::with(&Differences {
        helper: Some(helper),
        arguments: "timeout=1".into(),
        ..Differences::default()
    });
    says(&host, "not ready within 1 s");
    wait_for("what it started has ended", Duration::from_secs(10), || {
        process::with_argument("sleep 74747").is_empty()
    });
}

fn a_helper_that_is_not_there() {
    let host = RootHost::with(&Differences {
        helper: Some("/nowhere/podspawn".into()),
        ..Differences::default()
    });
    says(&host, "without an answer");
}

fn the_auth_line_is_missing() {
    let host = with_stack(STACK.replace("auth optional @MODULE@\n", ""));
    says(&host, "missing from the auth lines");
}

fn the_auth_line_is_skipped() {
    let host = with_stack(STACK.replace(
        "auth optional",
        "auth sufficient pam_permit.so\nauth optional",
    ));
    says(&host, "missing from the auth lines");
}

/// sshd alone would not notice: the child does.
fn the_session_line_is_missing() {
    let host = with_stack(STACK.replace("session required @MODULE@\n", ""));
    is_refused(&host);
}

fn the_session_line_is_skipped() {
    let host = with_stack(STACK.replace(
        "session required @MODULE@",
        "session sufficient pam_permit.so\nsession required @MODULE@",
    ));
    is_refused(&host);
}

/// sshd opens the session all the same, in a network with nothing in it.
fn the_session_line_is_optional() {
    let host = RootHost::with(&Differences {
        stack: STACK.replace("session required @MODULE@", "session optional @MODULE@"),
        image: Some("127.0.0.1:9/none:1"),
        ..Differences::default()
    });
    is_refused(&host);
}

/// The pod is up by then: sshd goes on without a session, and what it forwards is the pod's.
fn a_session_line_after_it_refuses() {
    is_refused(&with_stack(format!(
        "{STACK}session required pam_deny.so\n"
    )));
}

fn an_argument_makes_no_sense() {
    let host = RootHost::with(&Differences {
        arguments: "timeuot=9".into(),
        ..Differences::default()
    });
    says(&host, "timeuot=9");
}
