//! The services of a pod, reached from the client's side.
//!
//! The host has decoys at the same ports of all its addresses, and the service's own among these.

use std::net::IpAddr;
use std::process::Command;
use std::time::Duration;

use super::host::RootHost;
use crate::services::{POSTGRES, REDIS};
use crate::support::client::{clean, run};
use crate::support::host::free_port;
use crate::support::net::{Answerer, PING, PONG, QUESTION, body, by_socks, ping_url, psql, say};
use crate::support::wait_for;
use crate::tests;

tests![
    psql_reaches_postgres_through_a_forward,
    every_kind_of_forward_reaches_a_service,
];

const LIMIT: Duration = Duration::from_secs(120);

/// Where the first service of a pod is.
const FIRST: [&str; 2] = ["10.213.0.2", "fd70:6f64:0:100::2"];

fn with_service(image: &str, services: &str) -> RootHost {
    let host = RootHost::new();
    host.load(image);
    host.host.podfile(&format!("services:\n{services}"));
    host
}

/// Gives the host the addresses that a service has too.
fn take_addresses(decoy: &Answerer) {
    for address in FIRST {
        let mut ip = Command::new("ip");
        let address: IpAddr = address.parse().unwrap();
        ip.args(["address", "replace", &address.to_string(), "dev", "lo"]);
        clean(&mut ip);
        assert_eq!(run(ip, Vec::new(), LIMIT).line(), "");
        assert_eq!(body(&say(address, decoy.port, QUESTION)), "host");
    }
}

fn psql_reaches_postgres_through_a_forward() {
    let host = with_service("postgres", POSTGRES);
    let decoy = Answerer::everywhere(5432, "host");
    assert_ne!(psql(5432, "select 42").code, Some(0), "the decoy is none");
    let before = decoy.asked();
    let port = free_port();
    // Nothing but this makes the pod.
    let _tunnel = host.tunnel(&["-L", &format!("{port}:db:5432")]);
    wait_for("postgres answers", LIMIT, || {
        psql(port, "select 6 * 7").text() == "42\n"
    });
    let made = "create table t as select generate_series(1, 100000) x; select sum(x) from t";
    assert_eq!(psql(port, made).line(), "5000050000");
    assert_eq!(decoy.asked(), before);
}

fn every_kind_of_forward_reaches_a_service() {
    let host = with_service("redis", REDIS);
    let decoy = Answerer::everywhere(6379, "host");
    take_addresses(&decoy);
    let before = decoy.asked();
    let up = host.host.ssh("echo up").limit(180).run();
    assert_eq!(up.line(), "up");
    for name in ["cache", FIRST[0], &format!("[{}]", FIRST[1])] {
        let output = host.client(&["-W", &format!("{name}:6379")]).input(PING);
        assert_eq!(output.run().text(), PONG, "-W {name}");
        let (port, socks) = (free_port(), free_port());
        let forward = format!("{port}:{name}:6379");
        let _tunnel = host.tunnel(&["-L", &forward, "-D", &socks.to_string()]);
        let mut answer = Vec::new();
        wait_for(&forward, LIMIT, || {
            answer = say([127, 0, 0, 1].into(), port, PING);
            !answer.is_empty()
        });
        assert_eq!(String::from_utf8_lossy(&answer), PONG, "-L {name}");
        let got = by_socks(socks, &ping_url(name, 6379));
        assert_eq!(got.text(), PONG, "-D {name}: {got}");
    }
    assert_eq!(decoy.asked(), before);
}
