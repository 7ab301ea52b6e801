//! Services of a Podfile: reached by name, kept in volumes, started again, waited for.
//!
//! Runs where [`super::network`] does, with images of real servers.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use podspawn_images::digest::Digest;
use serde_json::{Value, json};

use crate::support::client::local;
use crate::support::decoys::{Decoys, link_local};
use crate::support::host::Host;
use crate::support::net::PONG;
use crate::support::process::{self, Process};
use crate::support::terminal::Terminal;
use crate::support::{setup, wait_for};
use crate::tests;

tests![
    psql_reaches_postgres_by_name_and_its_data_outlive_the_pod,
    services_reach_each_other_and_the_world_outside,
    services_have_ipv6_too,
    services_do_not_reach_the_host,
    a_service_that_dies_is_started_again,
    a_service_that_does_not_start_is_named_with_its_last_words,
    an_images_health_check_tells_that_it_is_ready,
    a_shell_opens_at_once_and_is_told,
    a_podfile_that_is_wrong_is_named,
];

const LIMIT: Duration = Duration::from_secs(60);

/// A PostgreSQL server, called db.
pub const POSTGRES: &str = "  - name: db
    image: podspawn-test/postgres
    ports: [5432]
    volumes: ['pgdata:/var/lib/postgresql/data']
    ready: psql -h 127.0.0.1 -U postgres -c 'select 1'
";
/// A Redis server, called cache.
pub const REDIS: &str = "  - name: cache
    image: podspawn-test/redis
    ports: [6379]
";

/// A host whose project `default` has these services. Its dev container has psql and socat.
fn host(services: &str) -> Host {
    let host = Host::with_loaded("postgres", "session:\n  grace_period: 3s\n");
    host.load("redis");
    host.podfile(&format!(
        "env: {{PGUSER: postgres, WHO: '${{PODSPAWN_USER}}'}}\nservices:\n{services}"
    ));
    host
}

fn psql_reaches_postgres_by_name_and_its_data_outlive_the_pod() {
    let host = host(&format!("{POSTGRES}{REDIS}"));
    let made = host
        .ssh("psql -qtA -h db -c 'create table t (x int); insert into t values (41), (1); select sum(x) from t' && echo $WHO")
        .limit(180)
        .run();
    assert_eq!(made.line(), format!("42\n{}", host.user));
    // Redis beside it, by hand: the dev container has no client of its own.
    let pong = host
        .ssh("printf 'PING\\r\\n' | socat -t 2 - TCP:cache:6379")
        .run();
    assert_eq!(pong.line().trim(), "+PONG");
    let hosts = host.ssh("cat /etc/hosts").run().text();
    assert!(
        hosts.contains("\tdb\n") && hosts.contains("\tcache\n"),
        "{hosts}"
    );
    host.wait_until_empty(LIMIT);
    assert!(host.log().contains("ended"), "{}", host.log());
    let again = host
        .ssh("psql -qtA -h db -c 'select sum(x) from t'")
        .limit(180)
        .run();
    assert_eq!(again.line(), "42");
}

fn services_reach_each_other_and_the_world_outside() {
    let asking = "  - name: asking
    image: podspawn-test/postgres
    command: [sleep infinity]
    ready: |
      set -e
      psql -h db -U postgres -c 'select 1'
      psql -h $(getent ahostsv6 db | cut -d' ' -f1 | grep -m1 ^fd70:) -U postgres -c 'select 1'
      echo x | socat -t 2 - TCP4:203.0.113.9:7000 | grep -q 'outside sees 198.51.100.2'
      echo x | socat -t 2 - 'TCP6:[2001:db8:9::9]:7000' | grep -q 'outside sees 2001:db8:51::2'
";
    // The image's entry point is a server; a shell in its place runs the command.
    let asking = asking.replace("command: [sleep infinity]", "env: {PGDATA: /tmp/own}");
    let host = host(&format!("{POSTGRES}{asking}"));
    let up = host.ssh("echo up").limit(180).run();
    assert_eq!(up.line(), "up");
    let leaked = host
        .ssh("ls /var/lib/postgresql/data 2>/dev/null | wc -l")
        .run();
    assert_eq!(
        leaked.line(),
        "0",
        "the dev container sees a service's files"
    );
}

fn services_have_ipv6_too() {
    let host = host(REDIS);
    let found = host
        .ssh("getent ahostsv4 cache | head -1; getent ahostsv6 cache | head -1")
        .limit(120)
        .run()
        .line();
    let addresses: Vec<&str> = found
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert_eq!(addresses, ["10.213.0.2", "fd70:6f64:0:100::2"]);
    for way in [
        "TCP4:cache",
        "TCP6:cache",
        "TCP4:10.213.0.2",
        "TCP6:[fd70:6f64:0:100::2]",
    ] {
        let line = format!("printf 'PING\\r\\nQUIT\\r\\n' | socat -t 20 - '{way}:6379'");
        assert_eq!(host.ssh(line).run().text(), PONG, "{way}");
    }
}

/// Asks everybody, over TCP and UDP, with and without the device by its name; prints who answered.
const ASK: &str = r#"
import socket, sys, threading
def ask(address, port, kind, device):
    try:
        family, _, _, _, at = socket.getaddrinfo(address, port, type=kind)[0]
        asking = socket.socket(family, kind)
        asking.settimeout(3)
        if device:
            asking.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
        asking.connect(at)
        asking.send(b"x\n")
        print(address, asking.recv(64).decode().strip(), flush=True)
    except OSError:
        pass
port, *addresses = sys.argv[1:]
for address in addresses:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        for device in (False, True):
            threading.Thread(target=ask, args=(address, int(port), kind, device)).start()
"#;

/// Seen from the network of a service, which nothing but the pod's own forwards.
fn services_do_not_reach_the_host() {
    let host = host(REDIS);
    // Holds the pod until its input ends.
    let mut held = host.ssh("cat").spawn();
    let redis = || running(&host, "redis-server *").first().map(|p| p.pid);
    wait_for("redis runs", Duration::from_secs(120), || redis().is_some());
    let pid = redis().unwrap().to_string();
    let ask = |port: &str, addresses: &[&str]| {
        let inside = [
            "--preserve-credentials",
            "--user",
            "--net",
            "--target",
            &pid,
        ];
        let mut words = inside.to_vec();
        words.extend(["python3", "-c", ASK, port]);
        words.extend(addresses);
        local("nsenter", words).line()
    };
    let decoys = Decoys::on(7203, &["::"]);
    let on_link = format!("{}%eth0", link_local());
    let addresses = [
        "127.0.0.1",
        "198.51.100.2",
        "198.51.100.77",
        "198.51.100.1",
        "169.254.1.1",
        "10.213.0.1",
        "::1",
        "2001:db8:51::2",
        "2001:db8:51::1",
        "fd70:6f64:0:100::1",
        &on_link,
    ];
    assert_eq!(ask("7203", &addresses), "");
    decoys.were_not_reached();
    // The way out is there: by TCP and UDP, with the device and without.
    let outside = ask("7000", &["203.0.113.9", "2001:db8:9::9"]);
    for seen in [
        "203.0.113.9 outside sees 198.51.100.2",
        "2001:db8:9::9 outside sees 2001:db8:51::2",
    ] {
        assert_eq!(outside.matches(seen).count(), 4, "{outside}");
    }
    drop(held.stdin.take());
    assert!(held.wait().unwrap().success());
}

/// The processes of this host's pods that `command` begins.
fn running(host: &Host, command: &str) -> Vec<Process> {
    let supervisors = host.supervisors();
    let all = supervisors.iter().flat_map(|s| process::descendants(s.pid));
    all.filter(|p| p.command.contains(command)).collect()
}

fn a_service_that_dies_is_started_again() {
    let host = host(REDIS);
    host.ssh("printf 'SET kept 1\\r\\n' | socat -t 2 - TCP:cache:6379")
        .limit(120)
        .run();
    let before = running(&host, "redis-server *");
    assert!(!before.is_empty(), "{:?}", process::all());
    before.iter().for_each(Process::kill);
    wait_for("redis answers again", LIMIT, || {
        let pong = host
            .ssh("printf 'PING\\r\\n' | socat -t 2 - TCP:cache:6379 2>/dev/null")
            .run();
        pong.text().contains("+PONG")
    });
    assert!(
        host.log()
            .contains("service cache: it ended with status 137"),
        "{}",
        host.log()
    );
}

fn a_service_that_does_not_start_is_named_with_its_last_words() {
    let host = host(
        "  - name: broken
    image: podspawn-test/redis
    command: [sh, -c, 'echo the disk is made of cheese; exit 3']
    ports: [1]
",
    );
    let refused = host.ssh("echo not reached").limit(120).run();
    assert_eq!(refused.code, Some(125), "{refused}");
    assert_eq!(refused.text(), "");
    let line = refused.complaint();
    assert!(line.contains("service broken does not start"), "{line}");
    assert!(
        line.contains("status 3") && line.contains("made of cheese"),
        "{line}"
    );

    // One that cannot even be created: nothing of the pod stays.
    host.podfile("services:\n  - {name: gone, image: podspawn-test/redis, volumes: ['/nowhere/at/all:/x']}\n",
    );
    host.wait_until_empty(LIMIT);
    let refused = host.ssh("echo not reached").limit(120).run();
    assert_eq!(refused.code, Some(125), "{refused}");
    let line = refused.complaint();
    assert!(
        line.contains("service gone: cannot use the volume /nowhere/at/all"),
        "{line}"
    );
    host.wait_until_empty(LIMIT);
}

/// Loads busybox as `podspawn-test/NAME`, its configuration with this health check.
fn load_with_health(host: &Host, name: &str, check: &Value) {
    let from = setup::get().stage.join("images/busybox");
    let layout = host.dir.join(format!("layout-{name}"));
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    for blob in fs::read_dir(from.join("blobs/sha256")).unwrap().flatten() {
        fs::copy(blob.path(), blobs.join(blob.file_name())).unwrap();
    }
    fs::copy(from.join("oci-layout"), layout.join("oci-layout")).unwrap();
    let read = |path: &Path| -> Value { serde_json::from_slice(&fs::read(path).unwrap()).unwrap() };
    let blob = |descriptor: &Value| -> PathBuf {
        blobs.join(&descriptor["digest"].as_str().unwrap()["sha256:".len()..])
    };
    let put = |value: &Value, descriptor: &mut Value| {
        let bytes = serde_json::to_vec(value).unwrap();
        let digest = Digest::of(&bytes).to_string();
        fs::write(blobs.join(&digest["sha256:".len()..]), &bytes).unwrap();
        descriptor["digest"] = digest.into();
        descriptor["size"] = bytes.len().into();
    };
    let mut index = read(&from.join("index.json"));
    let mut manifest = read(&blob(&index["manifests"][0]));
    let mut config = read(&blob(&manifest["config"]));
    config["config"]["Healthcheck"] = check.clone();
    put(&config, &mut manifest["config"]);
    put(&manifest, &mut index["manifests"][0]);
    fs::write(layout.join("index.json"), index.to_string()).unwrap();
    let name = format!("podspawn-test/{name}");
    let arguments = [
        "load".as_ref(),
        layout.as_os_str(),
        "--name".as_ref(),
        name.as_ref(),
    ];
    let loaded = host.run(arguments);
    assert_eq!(loaded.code, Some(0), "podspawn load {name}: {loaded}");
}

fn an_images_health_check_tells_that_it_is_ready() {
    let host = Host::with_loaded("busybox", "");
    let second = 1_000_000_000_u64;
    load_with_health(
        &host,
        "slow",
        &json!({"Test": ["CMD", "test", "-e", "/tmp/up"], "Interval": 30 * second}),
    );
    // The first attempt takes longer than it may.
    let hangs = "test -e /tmp/tried || { touch /tmp/tried; sleep 600; }";
    load_with_health(
        &host,
        "hangs",
        &json!({"Test": ["CMD-SHELL", hangs], "Timeout": second}),
    );
    load_with_health(&host, "ill", &json!({"Test": ["CMD", "false"]}));
    load_with_health(&host, "odd", &json!({"Test": ["CMD-SHELL"]}));
    host.podfile(
        "services:
  - {name: slow, image: podspawn-test/slow, command: [sh, -c, 'sleep 3; touch /tmp/up; exec sleep 600']}
  - {name: hangs, image: podspawn-test/hangs, command: [sleep, '600']}
  - {name: said, image: podspawn-test/ill, command: [sleep, '600'], ready: 'true'}
  - {name: odd, image: podspawn-test/odd, command: [sleep, '600'], ready: 'true'}
",
    );
    let up = host.ssh("echo up").limit(180).run();
    assert_eq!(up.line(), "up", "{}", host.log());
    let log = host.log();
    let took = |name: &str| -> u64 {
        let said = format!("service {name} is ready after ");
        let rest = log.split(&said).nth(1).unwrap_or_else(|| panic!("{log}"));
        rest.split(' ').next().unwrap().parse().unwrap()
    };
    assert!(took("slow") >= 2900, "{log}");
    assert!(took("hangs") >= 1000, "{log}");
    let mut left = running(&host, "sleep 600");
    left.retain(|process| process.command.starts_with("sleep"));
    assert_eq!(
        left.len(),
        4,
        "an attempt that hung is still there: {left:?}"
    );

    // Told while it is not ready, and refused where it makes no sense.
    assert_eq!(host.run(["stop"]).code, Some(0));
    host.podfile("services:\n  - {name: ill, image: podspawn-test/ill, command: [sleep, '600']}\n");
    let mut terminal = Terminal::open(host.login().option("-tt").command());
    terminal.expect("podspawn: still starting: ill");
    wait_for("the failing check is shown", LIMIT, || {
        let shown = host.run(["inspect", "default"]).text();
        shown.contains("its image's health check ends with status 1")
    });
    terminal.send("exit\n");
    terminal.wait();
    assert_eq!(host.run(["stop"]).code, Some(0));
    host.podfile("services:\n  - {name: odd, image: podspawn-test/odd, command: [sleep, '600']}\n");
    let refused = host.ssh("true").run();
    assert_eq!(refused.code, Some(125), "{refused}");
    assert!(
        refused
            .complaint()
            .contains("service odd: the health check of the image"),
        "{refused}"
    );
}

fn a_shell_opens_at_once_and_is_told() {
    let host = host(
        "  - name: slow
    image: podspawn-test/redis
    ready: sleep 6
",
    );
    let mut terminal = Terminal::open(host.login().option("-tt").command());
    terminal.expect("podspawn: still starting: slow");
    terminal.send("echo shell-is-$((1+1))\n");
    terminal.expect("shell-is-2");
    terminal.send("exit\n");
    terminal.wait();
}

fn a_podfile_that_is_wrong_is_named() {
    let host = host(REDIS);
    let path = host.podfile("base: x\npackages: [git]\n");
    let refused = host.ssh("true").run();
    assert_eq!(refused.code, Some(125), "{refused}");
    assert_eq!(
        refused.complaint(),
        format!(
            "podspawn: {}:2: packages: needs an image to be built, which this version does not do; put it into the image that base names",
            path.display()
        )
    );
}
