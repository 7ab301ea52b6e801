//! What forwarding reaches.

use std::fs;
use std::os::unix::net::UnixListener;
use std::process::Command;
use std::time::Duration;

use super::host::{Differences, RootHost};
use crate::support::carry::carry;
use crate::support::client::Output;
use crate::support::host::free_port;
use crate::support::net::{Answerer, ask, body, by_socks};
use crate::support::screen::{Screen, clock, shows};
use crate::support::{setup, wait_for};
use crate::tests;

tests![
    local_forwards_reach_the_pod,
    dynamic_forwards_reach_the_pod,
    standard_streams_reach_the_pod,
    listeners_are_the_pods,
    a_low_port_can_be_listened_on,
    a_forward_alone_starts_the_pod_and_holds_it,
    one_master_serves_many_sessions_and_late_forwards,
    a_pod_restarted_under_a_live_master,
    paths_of_sockets_stay_closed,
    ordinary_users_and_root_are_unaffected,
    a_setuid_program_gains_nothing,
    an_x11_display_is_in_the_pod,
    an_x11_client_shows_its_window,
];

const LIMIT: Duration = Duration::from_secs(30);

/// A host whose pod knows a name of its own, and a decoy that the pod has a rival of.
fn with_service() -> (RootHost, Answerer) {
    let host = RootHost::with(&Differences {
        config: "session:\n  grace_period: 10s\nuser: root\n",
        ..Differences::default()
    });
    let decoy = Answerer::new("host");
    host.serve(&decoy);
    let named = host.host.ssh("echo 127.0.0.1 postgres >>/etc/hosts").run();
    assert_eq!(named.code, Some(0), "{named}");
    (host, decoy)
}

#[track_caller]
fn reaches(what: &str, port: u16, word: &str) {
    wait_for(what, LIMIT, || !ask(port).is_empty());
    assert_eq!(ask(port), word, "{what}");
}

fn local_forwards_reach_the_pod() {
    let (host, decoy) = with_service();
    let before = decoy.asked();
    for name in ["localhost", "127.0.0.1", "postgres"] {
        let port = free_port();
        let forward = format!("{port}:{name}:{}", decoy.port);
        let _tunnel = host.tunnel(&["-L", &forward]);
        reaches(&forward, port, "pod");
    }
    // A name that only the pod's own files could know.
    assert_eq!(host.through(&format!("nowhere.invalid:{}", decoy.port)), "");
    assert_eq!(decoy.asked(), before);
}

fn dynamic_forwards_reach_the_pod() {
    let (host, decoy) = with_service();
    let before = decoy.asked();
    let port = free_port();
    let _tunnel = host.tunnel(&["-D", &port.to_string()]);
    wait_for("the client listens", LIMIT, || {
        std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
    });
    for name in ["localhost", "127.0.0.1", "postgres"] {
        let got = by_socks(port, &format!("http://{name}:{}/", decoy.port));
        assert_eq!(got.line(), "pod", "{name}");
    }
    assert_eq!(decoy.asked(), before);
}

fn standard_streams_reach_the_pod() {
    let (host, decoy) = with_service();
    let before = decoy.asked();
    for name in ["localhost", "127.0.0.1", "postgres"] {
        assert_eq!(
            host.through(&format!("{name}:{}", decoy.port)),
            "pod",
            "{name}"
        );
    }
    assert_eq!(decoy.asked(), before);
}

/// The pod reaches the client at `port`, and the host's listener there is not disturbed.
fn listens(host: &RootHost, decoy: &Answerer) {
    let client = Answerer::new("client");
    let forward = format!("{}:127.0.0.1:{}", decoy.port, client.port);
    let _tunnel = host.tunnel(&["-R", &forward]);
    let question = format!("wget -qO- http://127.0.0.1:{}/ 2>/dev/null", decoy.port);
    let mut answer = String::new();
    wait_for(&forward, LIMIT, || {
        answer = host.host.ssh(&question).run().text();
        !answer.is_empty()
    });
    assert_eq!(answer, "client\n");
    assert_eq!(decoy.asked(), 0);
    assert_eq!(ask(decoy.port), "host");
}

fn listeners_are_the_pods() {
    listens(&RootHost::new(), &Answerer::new("host"));
}

fn a_low_port_can_be_listened_on() {
    listens(&RootHost::new(), &Answerer::on(80, "host"));
}

fn a_forward_alone_starts_the_pod_and_holds_it() {
    let host = RootHost::with(&Differences {
        config: "session:\n  grace_period: 1s\n",
        ..Differences::default()
    });
    assert!(host.host.supervisors().is_empty());
    let tunnel = host.tunnel(&[]);
    wait_for("the pod is up", LIMIT, || {
        host.host.supervisors().len() == 1
    });
    let supervisor = host.host.supervisors();
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(host.host.supervisors()[0].pid, supervisor[0].pid);
    drop(tunnel);
    host.host.wait_until_empty(LIMIT);
}

pub fn control(host: &RootHost) -> String {
    host.host.dir.join("m").display().to_string()
}

pub fn over(host: &RootHost, command: &str) -> Output {
    let control = control(host);
    host.host.ssh(command).option("-S").option(control).run()
}

fn one_master_serves_many_sessions_and_late_forwards() {
    let (host, decoy) = with_service();
    let before = decoy.asked();
    let control = control(&host);
    let _master = host.tunnel(&["-M", "-S", &control]);
    wait_for("the master is up", LIMIT, || fs::metadata(&control).is_ok());
    // Each goes on when all three are there.
    let spaces = "echo here >>/tmp/here; until [ $(wc -l </tmp/here) -eq 3 ]; do sleep 0.1; done
        for n in net mnt pid; do readlink /proc/self/ns/$n; done";
    let said = std::thread::scope(|scope| {
        let all: Vec<_> = (0..3)
            .map(|_| scope.spawn(|| over(&host, spaces).line()))
            .collect();
        all.into_iter()
            .map(|one| one.join().unwrap())
            .collect::<Vec<_>>()
    });
    let host_spaces = fs::read_link("/proc/self/ns/net").unwrap();
    assert!(!said[0].contains(host_spaces.to_str().unwrap()));
    assert!(said[0].starts_with("net:["), "{said:?}");
    assert!(said.iter().all(|one| *one == said[0]), "{said:?}");
    let port = free_port();
    let forward = format!("{port}:postgres:{}", decoy.port);
    let late = host
        .client(&["-S", &control, "-O", "forward", "-L", &forward])
        .run();
    assert_eq!(late.code, Some(0), "{late}");
    reaches("a late forward", port, "pod");
    assert_eq!(decoy.asked(), before);
}

/// Sessions over the old connection join the new pod; its forwards stay in the network of the
/// pod that was, where nobody answers.
fn a_pod_restarted_under_a_live_master() {
    let host = RootHost::new();
    let decoy = Answerer::new("host");
    host.serve(&decoy);
    let control = control(&host);
    let port = free_port();
    let forward = format!("{port}:localhost:{}", decoy.port);
    let _master = host.tunnel(&["-M", "-S", &control, "-L", &forward]);
    reaches("the first pod", port, "pod");
    for supervisor in host.host.supervisors() {
        supervisor.kill();
    }
    host.host.wait_until_empty(LIMIT);
    assert_eq!(ask(port), "");
    // By a session of the same connection, and then by another connection.
    assert_eq!(over(&host, "echo made").line(), "made");
    for supervisor in host.host.supervisors() {
        supervisor.kill();
    }
    host.host.wait_until_empty(LIMIT);
    host.serve(&decoy);
    assert_eq!(over(&host, "echo joined").line(), "joined");
    assert_eq!(host.host.supervisors().len(), 1);
    assert_eq!(ask(port), "", "the old network");
    assert_eq!(host.through(&format!("localhost:{}", decoy.port)), "pod");
}

fn paths_of_sockets_stay_closed() {
    let host = RootHost::new();
    let dir = host.host.files();
    let path = dir.join("service.sock");
    let service = UnixListener::bind(&path).unwrap();
    service.set_nonblocking(true).unwrap();
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
    let port = free_port();
    {
        let _tunnel = host.tunnel(&["-L", &format!("{port}:{}", path.display())]);
        wait_for("the client listens", LIMIT, || {
            std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        assert_eq!(ask(port), "");
    }
    assert!(service.accept().is_err(), "the host's socket was reached");
    let made = dir.join("made.sock");
    let listener = format!("{}:127.0.0.1:{port}", made.display());
    let output = host
        .client(&["-o", "ExitOnForwardFailure=yes", "-R", &listener, "-N"])
        .run();
    assert_ne!(output.code, Some(0), "{output}");
    assert!(!made.exists());
}

fn ordinary_users_and_root_are_unaffected() {
    let host = RootHost::with(&Differences {
        // They could not log in if it had a say.
        helper: Some("/bin/false".into()),
        ..Differences::default()
    });
    let decoy = Answerer::new("host");
    let spaces = fs::read_link("/proc/self/ns/net").unwrap();
    for user in [setup::get().root.as_ref().unwrap().other.as_str(), "root"] {
        let command = "readlink /proc/self/ns/net; id -un";
        let output = host.host.ssh(command).option("-l").option(user).run();
        let expected = format!("{}\n{user}", spaces.display());
        assert_eq!(output.line(), expected);
        let output = host
            .client(&["-l", user, "-W", &format!("localhost:{}", decoy.port)])
            .input(crate::support::net::QUESTION)
            .run();
        assert_eq!(body(&output.stdout), "host", "{user}: {output}");
    }
}

/// Before the session joins the pod it runs the user's login shell on the host's files.
fn a_setuid_program_gains_nothing() {
    let program = setup::get().stage.join("bin/setuid-id");
    let host = RootHost::with(&Differences {
        force: Some(format!("{} -u", program.display())),
        ..Differences::default()
    });
    let uid = setup::get().root.as_ref().unwrap().uid.to_string();
    let other = setup::get().root.as_ref().unwrap().other.as_str();
    let outside = host
        .host
        .ssh(format!("{} -u", program.display()))
        .option("-l")
        .option(other)
        .run();
    assert_eq!(outside.line(), "0", "the program is setuid");
    assert_eq!(host.host.ssh("").run().line(), uid);
}

fn an_x11_display_is_in_the_pod() {
    let host = RootHost::with(&Differences {
        force: Some("sh -c 'echo $DISPLAY; cat /proc/net/tcp'".into()),
        ..Differences::default()
    });
    let authority = host.host.files().join("xauthority");
    let xauth = Command::new("xauth")
        .arg("-f")
        .arg(&authority)
        .args(["add", ":77", ".", &"0123456789abcdef".repeat(2)])
        .output();
    if !xauth.is_ok_and(|done| done.status.success()) {
        return crate::support::skip("xauth does not run");
    }
    let output = host
        .host
        .ssh("")
        .option("-Y")
        .env("DISPLAY", ":77")
        .env("XAUTHORITY", authority.to_str().unwrap())
        .run();
    let text = output.text();
    assert!(text.starts_with("localhost:10"), "{output}");
    // 127.0.0.1 port 6010, listening, in this network alone.
    assert!(text.contains("0100007F:177A 00000000:0000 0A"), "{output}");
    assert!(
        !fs::read_to_string("/proc/net/tcp")
            .unwrap()
            .contains("0100007F:177A 00000000:0000 0A")
    );
}

fn an_x11_client_shows_its_window() {
    let host = RootHost::new();
    let screen = Screen::start(&host.host, "a");
    let xclock = carry(&host.host, "xclock");
    for trusted in [true, false] {
        assert_eq!(screen.pixel(3, 3), 0);
        let session = screen.forwarded(host.host.ssh(clock(&xclock, "#ff0080")), trusted);
        shows(&screen, session.spawn(), 0xff_0080);
    }
    // sshd's own listener, without a relay.
    let display = screen.forwarded(host.host.ssh("echo $DISPLAY"), true).run();
    assert!(display.line().starts_with("localhost:"), "{display}");
}
