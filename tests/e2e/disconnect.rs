//! Sessions that end in other ways than by themselves: what ends with them, and
//! what stays.

use std::time::Duration;

use rustix::process::Signal;

use crate::support::client::finish;
use crate::support::host::Host;
use crate::support::process::{self, Process, signal};
use crate::support::terminal::Terminal;
use crate::support::{setup, wait_for};
use crate::tests;

tests![
    a_command_ends_with_its_client,
    a_command_ends_with_its_network,
    a_command_ends_with_sshds_child,
    a_terminal_hangs_up_and_what_detached_itself_stays,
    a_terminal_without_a_network_hangs_up,
    tmux_outlives_a_lost_network_and_is_found_again,
    a_clean_exit_leaves_background_jobs_to_the_grace_period,
];

const LIMIT: Duration = Duration::from_secs(30);

/// An sshd that soon notices that a client is gone.
fn host(image: &str) -> Host {
    let alive = "UsePAM no\nClientAliveInterval 1\nClientAliveCountMax 2";
    Host::with_config_and_sshd(image, "session:\n  grace_period: 20s\n", alive)
}

fn running(mark: &str) -> bool {
    process::runs(&format!("sleep {mark}"))
}

#[track_caller]
fn ends(mark: &str) {
    wait_for(&format!("sleep {mark} ends"), LIMIT, || !running(mark));
}

#[track_caller]
fn starts(mark: &str) {
    wait_for(&format!("sleep {mark} runs"), LIMIT, || running(mark));
}

fn pid(child: &std::process::Child) -> i32 {
    i32::try_from(child.id()).unwrap()
}

fn a_command_ends_with_its_client() {
    let host = host("busybox");
    // Two of one command; a shell that waits for them.
    let mut client = host.ssh("sleep 8101 & sleep 8102; true").spawn();
    starts("8101");
    starts("8102");
    client.kill().unwrap();
    client.wait().unwrap();
    ends("8101");
    ends("8102");
    assert_eq!(host.ssh("echo works").run().line(), "works");
}

fn a_command_ends_with_its_network() {
    let host = host("busybox");
    let mut client = host.ssh("sleep 8111").spawn();
    starts("8111");
    // It answers no more, as behind a cable that was pulled.
    signal(pid(&client), Signal::STOP);
    ends("8111");
    wait_for("the session has ended", LIMIT, || {
        host.sessions().is_empty()
    });
    client.kill().unwrap();
    client.wait().unwrap();
}

fn a_command_ends_with_sshds_child() {
    let host = host("busybox");
    let client = host.ssh("sleep 8121").spawn();
    starts("8121");
    host.sshd_children().iter().for_each(Process::kill);
    ends("8121");
    let output = finish(client, Vec::new(), LIMIT).unwrap();
    assert_eq!(output.code, Some(255), "{output}");
}

/// What people do before they lose their connection. The shell passes SIGHUP on to
/// what it started; the others asked not to be told.
fn jobs(round: usize) -> ([String; 4], String) {
    let marks = ["1", "2", "3", "4"].map(|n| format!("82{round}{n}"));
    let [own, nohup, setsid, front] = &marks;
    let typed = format!(
        "sleep {own} & \nnohup sleep {nohup} >/dev/null 2>&1 & \nsetsid sleep {setsid} & \nsleep {front}\n"
    );
    (marks, typed)
}

fn terminal(host: &Host) -> Terminal {
    let mut client = Terminal::open(host.login().command());
    client.send("PS1='rea''dy> '\n");
    client.expect("ready> ");
    client
}

/// How a client is lost.
type Loss = fn(&Host, &Terminal);

fn a_terminal_hangs_up_and_what_detached_itself_stays() {
    if !setup::get().ttys {
        return;
    }
    let losses: [Loss; 3] = [
        |_, client| signal(client.pid(), Signal::KILL),
        |host, _| host.sshd_children().iter().for_each(Process::kill),
        |host, _| host.sessions().iter().for_each(Process::kill),
    ];
    for (round, lose) in losses.into_iter().enumerate() {
        let host = host("debian");
        let mut client = terminal(&host);
        let (marks, typed) = jobs(round);
        client.send(typed);
        marks.iter().for_each(|mark| starts(mark));
        lose(&host, &client);
        let [own, nohup, setsid, front] = &marks;
        ends(front);
        ends(own);
        std::thread::sleep(Duration::from_secs(1));
        assert!(running(nohup), "round {round}");
        assert!(running(setsid), "round {round}");
        assert_eq!(host.ssh("pgrep -c sleep").run().line(), "2");
        let log = host.run(["logs"]).line();
        assert!(
            log.contains(" session 1 ended;") || log.contains(" session 1 was cut off;"),
            "{log}"
        );
    }
}

fn a_terminal_without_a_network_hangs_up() {
    if !setup::get().ttys {
        return;
    }
    let host = host("debian");
    let mut client = terminal(&host);
    client.send("sleep 8211\n");
    starts("8211");
    signal(client.pid(), Signal::STOP);
    ends("8211");
    wait_for("the session has ended", LIMIT, || {
        host.sessions().is_empty()
    });
}

fn tmux_outlives_a_lost_network_and_is_found_again() {
    if !setup::get().ttys {
        return;
    }
    let host = host("debian");
    let mut client = Terminal::open(host.ssh("tmux new -s work").option("-t").command());
    client.expect("[work]");
    client.send("echo be''fore; sleep 8301\n");
    client.expect("before");
    starts("8301");
    signal(client.pid(), Signal::STOP);
    wait_for("the session has ended", LIMIT, || {
        host.sessions().is_empty()
    });
    assert!(running("8301"));
    let again = Terminal::open(host.ssh("tmux attach -t work").option("-t").command());
    again.expect("before");
    assert!(running("8301"));
}

fn a_clean_exit_leaves_background_jobs_to_the_grace_period() {
    let config = "session:\n  grace_period: 3s\n";
    let host = Host::with_config("busybox", config);
    let start = host.ssh("sleep 8401 >/dev/null 2>&1 & echo started").run();
    assert_eq!(start.line(), "started");
    std::thread::sleep(Duration::from_secs(1));
    assert!(running("8401"));
    ends("8401");
    host.wait_until_empty(LIMIT);
}
