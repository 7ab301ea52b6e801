//! What a pod reaches and what it does not: the world outside, the host, the neighbour.
//!
//! Runs in a network namespace of its own that stands for a host (`scripts/lib/outside.sh`).
//! Whatever must not be reached has somebody listening there, so that an answer is seen.

use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::Signal;

use crate::support::decoys::{Decoys, link_local};
use crate::support::host::Host;
use crate::support::process::{self, Process};
use crate::support::{setup, wait_for};
use crate::tests;

tests![
    a_pod_reaches_the_world_outside,
    names_are_those_of_the_hosts_name_server,
    a_name_server_on_the_host_answers_and_nothing_else_does,
    the_host_is_closed,
    a_neighbours_pod_is_out_of_reach,
    abstract_sockets_of_the_host_are_out_of_reach,
    the_first_command_has_the_network,
    none_is_none,
    pasta_that_dies_is_started_anew,
    killing_the_supervisor_ends_pasta,
    killing_the_keeper_leaves_a_pod_without_network,
];

const GRACE: &str = "session:\n  grace_period: 10s\n";

/// The tests change what the whole host sees.
static RESOLV_CONF: Mutex<()> = Mutex::new(());

fn host() -> Host {
    Host::with_loaded("postgres", GRACE)
}

/// A client's side of a conversation, in the pod: what it gets, or nothing within two seconds.
fn ask(host: &Host, address: &str) -> String {
    let command = format!("echo x | timeout 2 socat -t 1 - {address} 2>/dev/null");
    host.ssh(command).run().text().trim().to_owned()
}

/// The first line of the same, where it must be reached, however slow the machine is.
fn reach(host: &Host, address: &str) -> String {
    // The client closes after the world outside does; a datagram has no end but silence.
    let command = format!("echo x | timeout 60 socat -t 1 -T 10 -,ignoreeof {address} 2>&1");
    let said = host.ssh(command).limit(120).run().text();
    said.lines().next().unwrap_or_default().to_owned()
}

fn a_pod_reaches_the_world_outside() {
    let host = host();
    for (address, seen) in [
        ("TCP4:203.0.113.9:7000", "198.51.100.2"),
        ("UDP4:203.0.113.9:7000", "198.51.100.2"),
        ("TCP6:[2001:db8:9::9]:7000", "2001:db8:51::2"),
        ("UDP6:[2001:db8:9::9]:7000", "2001:db8:51::2"),
    ] {
        assert_eq!(
            reach(&host, address),
            format!("outside sees {seen}"),
            "{address}"
        );
    }
}

fn names_are_those_of_the_hosts_name_server() {
    let _lock = RESOLV_CONF.lock();
    let host = host();
    let found = host
        .ssh("getent ahostsv4 outside.test; getent ahostsv6 outside.test")
        .run();
    assert!(found.text().contains("203.0.113.9"), "{found}");
    assert!(found.text().contains("2001:db8:9::9"), "{found}");
    assert_eq!(host.ssh("getent hosts nowhere.test").run().code, Some(2));
}

/// Answers every question with 192.0.2.99, and counts.
fn stub_resolver(address: SocketAddr) -> Arc<AtomicUsize> {
    let socket = UdpSocket::bind(address).unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    std::thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            count.fetch_add(1, Ordering::SeqCst);
            // The question ends five bytes after the name's last, empty label.
            let name = buffer[12..length].iter().position(|b| *b == 0).unwrap_or(0);
            let question = buffer[12..12 + name + 5].to_vec();
            let is_a = question[name + 2] == 1;
            let mut answer = buffer[..2].to_vec();
            answer.extend([0x81, 0x80, 0, 1, 0, u8::from(is_a), 0, 0, 0, 0]);
            answer.extend(&question);
            if is_a {
                answer.extend([0xc0, 0x0c, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 99]);
            }
            let _ = socket.send_to(&answer, from);
        }
    });
    asked
}

fn a_name_server_on_the_host_answers_and_nothing_else_does() {
    let _lock = RESOLV_CONF.lock();
    let path = setup::get().outside.as_ref().unwrap();
    let usual = fs::read(path).unwrap();
    let asked = stub_resolver("127.0.0.53:53".parse().unwrap());
    let decoys = Decoys::on(7201, &["127.0.0.1", "127.0.0.53"]);
    fs::write(path, "nameserver 127.0.0.53\noptions edns0 trust-ad\n").unwrap();
    let host = host();
    let found = host
        .ssh("getent ahostsv4 stub.test | head -1; cat /etc/resolv.conf")
        .run();
    fs::write(path, usual).unwrap();
    assert!(found.text().starts_with("192.0.2.99"), "{found}");
    assert!(
        found
            .text()
            .contains("nameserver 169.254.1.1\noptions edns0 trust-ad"),
        "{found}"
    );
    assert!(asked.load(Ordering::SeqCst) > 0);
    for kind in ["TCP4", "UDP4"] {
        assert_eq!(ask(&host, &format!("{kind}:169.254.1.1:7201")), "");
    }
    decoys.were_not_reached();
}

fn the_host_is_closed() {
    let host = host();
    let decoys = Decoys::on(7200, &["::"]);
    let link_local = link_local();
    let v4 = [
        "127.0.0.1",
        "127.99.99.99",
        "0.0.0.0",
        // The address that the pod shares with the host, one that it does not, the gateway.
        "198.51.100.2",
        "198.51.100.77",
        "198.51.100.1",
        "169.254.1.1",
    ];
    let on_link = format!("{link_local}%eth0");
    let v6 = [
        "::1",
        "::",
        "::ffff:127.0.0.1",
        "2001:db8:51::2",
        "2001:db8:51::1",
        &on_link,
    ];
    let mut script = String::new();
    for kind in ["TCP", "UDP"] {
        // A socket that is bound to the device does not find the pod's own loopback.
        for bound in ["", ",so-bindtodevice=eth0"] {
            for address in v4 {
                script.push_str(&attempt(&format!("{kind}4:{address}:7200{bound}")));
            }
            for address in v6 {
                script.push_str(&attempt(&format!("{kind}6:[{address}]:7200{bound}")));
            }
        }
    }
    script.push_str("wait\n");
    let heard = host.ssh("sh -s").input(script).run();
    assert_eq!(heard.code, Some(0), "{heard}");
    assert_eq!(heard.text(), "", "{heard}");
    decoys.were_not_reached();
}

fn attempt(address: &str) -> String {
    format!("(echo x | timeout 3 socat -t 2 - '{address}' 2>/dev/null | sed 's|^|{address} |') &\n")
}

fn a_neighbours_pod_is_out_of_reach() {
    let host = host();
    let mut script = String::new();
    for port in [7100, 7000] {
        for kind in ["TCP", "UDP"] {
            for bound in ["", ",so-bindtodevice=eth0"] {
                for address in ["127.0.0.1", "198.51.100.2", "198.51.100.1", "198.51.100.77"] {
                    script.push_str(&attempt(&format!("{kind}4:{address}:{port}{bound}")));
                }
                for address in ["::1", "2001:db8:51::2", "2001:db8:51::1"] {
                    script.push_str(&attempt(&format!("{kind}6:[{address}]:{port}{bound}")));
                }
            }
        }
    }
    script.push_str(&attempt("ABSTRACT-CONNECT:podspawn-neighbour"));
    // Where the neighbour has services, and this pod nothing at all.
    for (bridge, service) in [
        ("4:10.213.0.1", "4:10.213.0.2"),
        ("6:[fd70:6f64:0:100::1]", "6:[fd70:6f64:0:100::2]"),
    ] {
        for kind in ["TCP", "UDP"] {
            script.push_str(&attempt(&format!("{kind}{bridge}:7100")));
        }
        script.push_str(&attempt(&format!("TCP{service}:6379")));
    }
    script.push_str("wait\n");
    let heard = host.ssh("sh -s").input(script).run();
    assert_eq!(heard.code, Some(0), "{heard}");
    assert!(!heard.text().contains("neighbour\n"), "{heard}");
    for network in ["10.213.", "fd70:"] {
        assert!(!heard.text().contains(network), "{heard}");
    }
    // The gateway does answer, for the world that it leads to: the attempts were real.
    assert_eq!(
        reach(&host, "TCP4:198.51.100.1:7000"),
        "outside sees 198.51.100.2"
    );
}

fn abstract_sockets_of_the_host_are_out_of_reach() {
    let host = host();
    let name = UnixAddr::from_abstract_name(b"podspawn-decoy").unwrap();
    let listener = UnixListener::bind_addr(&name).unwrap();
    listener.set_nonblocking(true).unwrap();
    assert_eq!(ask(&host, "ABSTRACT-CONNECT:podspawn-decoy"), "");
    assert!(listener.accept().is_err(), "somebody came");
}

fn the_first_command_has_the_network() {
    let host = host();
    for _ in 0..4 {
        for (address, seen) in [
            ("TCP4:203.0.113.9:7000", "198.51.100.2"),
            ("TCP6:[2001:db8:9::9]:7000", "2001:db8:51::2"),
        ] {
            // The pod's very first command, and no second try.
            assert_eq!(reach(&host, address), format!("outside sees {seen}"));
            assert_eq!(host.run(["stop", "default"]).code, Some(0));
        }
    }
}

fn none_is_none() {
    let host = Host::with_loaded("postgres", &format!("network: none\n{GRACE}"));
    let devices = host
        .ssh("cat /proc/net/dev | tail -n +3 | cut -d: -f1")
        .run();
    assert_eq!(devices.line().trim(), "lo");
    assert_eq!(ask(&host, "TCP4:203.0.113.9:7000"), "");
    assert_eq!(
        below(&host, "pasta").len() + below(&host, "podspawn-egress").len(),
        0
    );
}

/// The processes of this name below the host's supervisor.
fn below(host: &Host, name: &str) -> Vec<Process> {
    let supervisors = host.supervisors();
    let all = supervisors.iter().flat_map(|s| process::descendants(s.pid));
    // pasta's executable is called after the processor it is made for.
    all.filter(|p| p.name == name || (name == "pasta" && p.command.starts_with("pasta ")))
        .collect()
}

fn pasta_that_dies_is_started_anew() {
    let host = host();
    assert_eq!(
        reach(&host, "TCP4:203.0.113.9:7000"),
        "outside sees 198.51.100.2"
    );
    let decoys = Decoys::on(7202, &["127.0.0.1"]);
    for _ in 0..2 {
        let pasta = below(&host, "pasta");
        assert_eq!(pasta.len(), 1);
        pasta[0].kill();
        wait_for("pasta runs again", Duration::from_secs(30), || {
            let now = below(&host, "pasta");
            now.len() == 1 && now[0].pid != pasta[0].pid
        });
        wait_for("the network works again", Duration::from_secs(30), || {
            reach(&host, "TCP4:203.0.113.9:7000") == "outside sees 198.51.100.2"
        });
        for kind in ["TCP4", "UDP4"] {
            assert_eq!(
                ask(
                    &host,
                    &format!("{kind}:127.0.0.1:7202,so-bindtodevice=eth0")
                ),
                ""
            );
        }
    }
    decoys.were_not_reached();
    assert!(
        host.log()
            .contains("no egress: pasta was killed by signal 9"),
        "{}",
        host.log()
    );
}

fn killing_the_supervisor_ends_pasta() {
    let host = host();
    host.ssh("true").run();
    let started: Vec<Process> = ["pasta", "podspawn-egress"]
        .iter()
        .flat_map(|name| below(&host, name))
        .collect();
    assert_eq!(started.len(), 2, "{started:?}");
    host.supervisors()[0].kill();
    wait_for("both are gone", Duration::from_secs(15), || {
        let now = process::all();
        started.iter().all(|p| !now.iter().any(|n| n.pid == p.pid))
    });
    host.wait_until_empty(Duration::from_secs(15));
}

fn killing_the_keeper_leaves_a_pod_without_network() {
    let host = host();
    host.ssh("true").run();
    let pasta = below(&host, "pasta");
    process::signal(below(&host, "podspawn-egress")[0].pid, Signal::KILL);
    wait_for("pasta is gone too", Duration::from_secs(15), || {
        below(&host, "pasta").is_empty()
    });
    assert_eq!(pasta.len(), 1);
    assert_eq!(host.ssh("echo here").run().line(), "here");
    wait_for("it is in the log", Duration::from_secs(15), || {
        host.log().contains("no egress any more")
    });
}
