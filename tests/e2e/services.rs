//! Services of a Podfile: reached by name, kept in volumes, started again, waited for.
//!
//! Runs where [`super::network`] does, with images of real servers.

use std::time::Duration;

use crate::support::host::Host;
use crate::support::process::{self, Process};
use crate::support::terminal::Terminal;
use crate::support::wait_for;
use crate::tests;

tests![
    psql_reaches_postgres_by_name_and_its_data_outlive_the_pod,
    services_reach_each_other_and_the_world_outside,
    a_service_that_dies_is_started_again,
    a_service_that_does_not_start_is_named_with_its_last_words,
    a_shell_opens_at_once_and_is_told,
    a_podfile_that_is_wrong_is_named,
];

const LIMIT: Duration = Duration::from_secs(60);

const POSTGRES: &str = "  - name: db
    image: podspawn-test/postgres
    ports: [5432]
    volumes: ['pgdata:/var/lib/postgresql/data']
    ready: psql -h 127.0.0.1 -U postgres -c 'select 1'
";
const REDIS: &str = "  - name: cache
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
    ready: psql -h db -U postgres -c 'select 1' && echo x | socat -t 2 - TCP4:203.0.113.9:7000 | grep -q 'outside sees 198.51.100.2'
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
