//! Forwarding into the pod without the administrator: an unprivileged sshd inside the pod's
//! network, reached by a ProxyCommand.

use std::fs;
use std::process::Stdio;
use std::time::Duration;

use crate::audit;
use crate::services::{POSTGRES, REDIS};
use crate::support::carry::carry_by;
use crate::support::client::{Ssh, options};
use crate::support::host::{Host, free_port, make_key};
use crate::support::net::{
    Answerer, PING, PONG, QUESTION, ask, body, by_socks, ping_url, psql, say,
};
use crate::support::screen::{Screen, clock, shows};
use crate::support::terminal::Terminal;
use crate::support::{setup, wait_for};
use crate::tests;

tests![
    sessions_are_in_the_pod,
    sessions_are_written_down,
    a_session_may_have_a_terminal,
    forwarding_reaches_the_pod,
    a_low_port_of_the_pod_can_be_listened_on,
    it_ends_with_its_client,
    an_x11_client_shows_its_window,
    without_a_key_it_says_what_to_do,
];

const LIMIT: Duration = Duration::from_secs(30);

/// Those that need services and a world outside.
pub fn outside() -> crate::support::Tests {
    vec![(
        "services_are_reached_and_the_host_is_not",
        Box::new(services_are_reached_and_the_host_is_not),
    )]
}

fn host() -> Host {
    with_keys(Host::with_image("busybox").uninstalled())
}

/// The user has set up what the sshd inside needs.
fn with_keys(host: Host) -> Host {
    let own = host.storage().join("sshd");
    fs::create_dir(&own).unwrap();
    fs::copy(host.dir.join("client_key.pub"), own.join("authorized_keys")).unwrap();
    make_key(&own.join("host_key"), "ed25519", &[]);
    let key = fs::read_to_string(own.join("host_key.pub")).unwrap();
    let known = fs::read_to_string(host.dir.join("known_hosts")).unwrap();
    fs::write(host.dir.join("known_hosts"), format!("{known}mypod {key}")).unwrap();
    for path in [
        &host.dir,
        &host.storage(),
        &own,
        &own.join("authorized_keys"),
    ] {
        let mode = fs::metadata(path).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::mode(&mode.permissions()) & 0o755;
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    }
    host
}

fn command_on(host: &Host) -> String {
    format!(
        "{} --config {}/config.yaml sshd",
        setup::get().stage.join("bin/podspawn").display(),
        host.dir.display()
    )
}

/// A client of the sshd inside.
fn inside<'h>(host: &'h Host, client: Ssh<'h>) -> Ssh<'h> {
    let outer: Vec<String> = options(host);
    let proxy = format!(
        "ssh {} -p {} {}@127.0.0.1 {}",
        outer
            .iter()
            .map(|word| format!("'{word}'"))
            .collect::<Vec<_>>()
            .join(" "),
        host.port,
        host.user,
        command_on(host)
    );
    client
        .option(format!("-oProxyCommand={proxy}"))
        .option("-oHostKeyAlias=mypod")
}

fn run(host: &Host, command: &str) -> crate::support::client::Output {
    inside(host, host.ssh(command)).run()
}

struct Forward(std::process::Child);

impl Forward {
    fn new(host: &Host, arguments: &[&str]) -> Self {
        let mut client = inside(host, host.login().option("-N"));
        for argument in arguments {
            client = client.option(*argument);
        }
        let mut command = client.command();
        command.stdin(Stdio::null()).stdout(Stdio::null());
        Self(command.stderr(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Forward {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn sessions_are_in_the_pod() {
    let host = host();
    let there = run(&host, "hostname; id -un; exit 7");
    assert_eq!(there.code, Some(7), "{there}");
    assert_eq!(there.text(), format!("default\n{}\n", host.user));
    // No capability of the way there is left.
    let status = run(
        &host,
        "grep -E 'Cap(Prm|Eff|Inh|Amb)|NoNewPrivs' /proc/self/status",
    )
    .text();
    assert_eq!(status.matches("0000000000000000").count(), 4, "{status}");
    assert!(status.contains("NoNewPrivs:\t1"), "{status}");
    let echoed = inside(&host, host.ssh("cat")).input("through").run();
    assert_eq!(echoed.text(), "through");
    assert_eq!(host.supervisors().len(), 1);
}

fn sessions_are_written_down() {
    let host = host();
    let audit = host.dir.join("audit.json");
    host.configure(&format!(
        "defaults: {{image: {}}}\nlog: {{audit_log: {}}}\n",
        Host::reference("busybox"),
        audit.display()
    ));
    assert_eq!(run(&host, "exit 7").code, Some(7));
    let lines = audit::read(&audit);
    let of = |event: &str| {
        let mut found = lines.iter().filter(|l| l["event"] == event);
        let line = found.next().unwrap_or_else(|| panic!("{event}: {lines:?}"));
        assert!(found.next().is_none(), "{event}: {lines:?}");
        line
    };
    let user = nix::unistd::User::from_name(&host.user).unwrap().unwrap();
    let (came, left) = (of("connect"), of("disconnect"));
    for line in [came, of("command"), left] {
        assert_eq!(line["user"], host.user);
        assert_eq!(line["uid"], user.uid.as_raw(), "{line}");
        assert_eq!(line["session"], came["session"]);
    }
    let client = came["client"].as_str().unwrap();
    assert!(client.starts_with("127.0.0.1 "), "{client}");
    assert_eq!(of("command")["command"], "exit 7");
    assert_eq!(left["status"], 7);
}

fn a_session_may_have_a_terminal() {
    let host = host();
    let mut terminal =
        Terminal::open(inside(&host, host.ssh("tty; sleep 1").option("-tt")).command());
    terminal.expect("/dev/pts/");
    assert!(terminal.wait().success());
}

fn forwarding_reaches_the_pod() {
    let host = host();
    let decoy = Answerer::new("host");
    let port = decoy.port;
    let line = format!(
        "mkdir -p /tmp/www && echo pod >/tmp/www/index.html && httpd -p 127.0.0.1:{port} -h /tmp/www"
    );
    assert_eq!(run(&host, &line).code, Some(0));
    for name in ["localhost", "127.0.0.1", "default"] {
        let output = inside(&host, host.login())
            .option("-W")
            .option(format!("{name}:{port}"))
            .input(QUESTION)
            .run();
        // The pod's own name is another address of its loopback.
        let expected = if name == "default" { "" } else { "pod" };
        assert_eq!(body(&output.stdout), expected, "{name}: {output}");
    }
    let local = free_port();
    let _forward = Forward::new(&host, &["-L", &format!("{local}:localhost:{port}")]);
    wait_for("the forward answers", LIMIT, || ask(local) == "pod");
    assert_eq!(decoy.asked(), 0);
}

fn services_are_reached_and_the_host_is_not() {
    let host = Host::with_loaded("postgres", "session:\n  grace_period: 10s\n");
    host.load("redis");
    host.podfile(&format!("services:\n{POSTGRES}{REDIS}"));
    let host = with_keys(host.uninstalled());
    let decoys = [5432, 6379, 7000].map(|port| Answerer::everywhere(port, "host"));
    let (port, socks) = (free_port(), free_port());
    let forward = format!("{port}:db:5432");
    let _forward = Forward::new(&host, &["-L", &forward, "-D", &socks.to_string()]);
    wait_for("postgres answers", Duration::from_secs(120), || {
        psql(port, "select 6 * 7").text() == "42\n"
    });
    let got = by_socks(socks, &ping_url("cache", 6379));
    assert_eq!(got.text(), PONG, "{got}");
    let through = |destination: &str, input: &str| {
        let client = inside(&host, host.login()).option("-W").option(destination);
        client.input(input).run().text()
    };
    assert_eq!(through("cache:6379", PING), PONG);
    // Whatever the host has, from a pod that does get out.
    for address in [
        "127.0.0.1",
        "localhost",
        "198.51.100.2",
        "198.51.100.77",
        "[2001:db8:51::2]",
    ] {
        assert_eq!(
            through(&format!("{address}:6379"), QUESTION),
            "",
            "{address}"
        );
    }
    // A client that ends its side first has pasta of 2023 repeat what the other side says.
    for address in ["203.0.113.9", "198.51.100.1"] {
        let port = free_port();
        let _forward = Forward::new(&host, &["-L", &format!("{port}:{address}:7000")]);
        let mut seen = Vec::new();
        wait_for(address, LIMIT, || {
            seen = say([127, 0, 0, 1].into(), port, "x\n");
            !seen.is_empty()
        });
        assert_eq!(seen, b"outside sees 198.51.100.2\n", "{address}");
    }
    assert!(decoys.iter().all(|decoy| decoy.asked() == 0));
}

fn a_low_port_of_the_pod_can_be_listened_on() {
    let host = host();
    let client = Answerer::new("client");
    let _forward = Forward::new(&host, &["-R", &format!("80:127.0.0.1:{}", client.port)]);
    let mut answer = String::new();
    wait_for("the pod's port 80 answers", LIMIT, || {
        answer = run(&host, "wget -qO- http://127.0.0.1:80/ 2>/dev/null").text();
        !answer.is_empty()
    });
    assert_eq!(answer, "client\n");
}

fn it_ends_with_its_client() {
    let host = host();
    host.configure(&format!(
        "defaults:\n  image: {}\nsession:\n  grace_period: 1s\n",
        Host::reference("busybox")
    ));
    let forward = Forward::new(&host, &[]);
    wait_for("the pod is up", LIMIT, || host.supervisors().len() == 1);
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(host.supervisors().len(), 1, "the connection holds it");
    drop(forward);
    host.wait_until_empty(LIMIT);
}

fn an_x11_client_shows_its_window() {
    let host = host();
    let screen = Screen::start(&host, "a");
    let xclock = carry_by(&host, "xclock", |host, command| {
        inside(host, host.ssh(command))
    });
    for trusted in [true, false] {
        let session = inside(&host, host.ssh(clock(&xclock, "#ff0080")));
        shows(
            &screen,
            screen.forwarded(session, trusted).spawn(),
            0xff_0080,
        );
    }
}

fn without_a_key_it_says_what_to_do() {
    let host = Host::with_image("busybox").uninstalled();
    let home = fs::metadata(format!(
        "{}/.ssh/authorized_keys",
        std::env::var("HOME").unwrap()
    ));
    if home.is_ok() {
        return crate::support::skip("this user has keys of their own");
    }
    let output = host.ssh(command_on(&host)).run();
    assert_eq!(output.code, Some(125), "{output}");
    assert!(output.complaint().contains("authorized_keys"), "{output}");
    assert_eq!(output.text(), "");
}
