//! `ssh -A`: the client's agent inside, for the one session that it was forwarded to.

use std::fs;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use rustix::process::Signal;

use crate::support::agent::Agent;
use crate::support::carry::carry;
use crate::support::client::{self, Output, Ssh, finish};
use crate::support::host::Host;
use crate::support::process;
use crate::support::terminal::Terminal;
use crate::support::{setup, wait_for};
use crate::tests;

tests![
    the_same_key_inside_and_out,
    each_session_sees_its_own_agent,
    ssh_and_git_go_onwards,
    a_root_session_and_nobody_else,
    another_container_of_the_pod_does_not_see_it,
    killing_the_session_revokes_it,
    fifty_sessions_leave_nothing,
    what_is_not_the_users_socket_is_refused,
    a_socket_that_vanishes_is_refused,
    the_place_since_openssh_10_1,
    tmux_has_an_agent_after_a_reconnect,
    without_forwarding_there_is_none,
];

const LIMIT: Duration = Duration::from_secs(60);

/// What the supervisor has mounted for agents, and what it shows of them inside.
fn left(host: &Host) -> (Vec<String>, String) {
    let mounted = host
        .pod_processes()
        .iter()
        .flat_map(|p| {
            let all = fs::read_to_string(format!("/proc/{}/mountinfo", p.pid)).unwrap_or_default();
            all.lines()
                .filter(|line| line.contains("/agent-"))
                .map(str::to_owned)
                .collect::<Vec<_>>()
        })
        .collect();
    (mounted, host.ssh("ls -A /run/ssh-agent").run().line())
}

#[track_caller]
fn nothing_is_left(host: &Host) {
    wait_for("no socket and no mount is left", LIMIT, || {
        left(host) == (vec![], String::new())
    });
}

fn the_same_key_inside_and_out() {
    let host = Host::with_image("debian");
    let agent = Agent::start(&host, "one");
    let output = agent.ssh(&host, "ssh-add -l; echo $SSH_AUTH_SOCK; readlink /run/ssh-agent/current; ls -A /run/ssh-agent | wc -l").run();
    let text = output.line();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], agent.keys());
    let name = lines[1].strip_prefix("/run/ssh-agent/").expect(&text);
    assert!(name.starts_with("agent-") && name.ends_with(".sock"));
    assert_eq!(lines[2], name);
    assert_eq!(lines[3], "2");
    // With a terminal too.
    let command = agent.ssh(&host, "ssh-add -l").option("-t").command();
    let mut client = Terminal::open(command);
    client.expect("(ED25519)");
    assert!(client.wait().success());
    nothing_is_left(&host);
}

/// Holds a session until it is dropped.
struct Held(Child);

impl Held {
    fn with(ssh: Ssh<'_>) -> Self {
        Self(ssh.spawn())
    }

    fn end(mut self) {
        drop(self.0.stdin.take());
        self.0.wait().unwrap();
    }
}

fn each_session_sees_its_own_agent() {
    let host = Host::with_image("debian");
    let (one, two) = (Agent::start(&host, "one"), Agent::start(&host, "two"));
    assert_ne!(one.keys(), two.keys());
    let current = || {
        host.ssh("SSH_AUTH_SOCK=/run/ssh-agent/current ssh-add -l")
            .run()
            .text()
            .trim_end()
            .to_owned()
    };
    let command = "ssh-add -l >/tmp/$0; cat >/dev/null; ssh-add -l >/tmp/$0.again";
    let hold = |agent: &Agent, name: &str| {
        let held = Held::with(agent.ssh(&host, &command.replace("$0", name)));
        wait_for("the session runs", LIMIT, || current() == agent.keys());
        held
    };
    let older = hold(&one, "older");
    let newer = hold(&two, "newer");
    assert_eq!(current(), two.keys());
    newer.end();
    wait_for("current follows the older", LIMIT, || {
        current() == one.keys()
    });
    older.end();
    for (name, agent) in [("older", &one), ("newer", &two)] {
        let seen = host.ssh(format!("cat /tmp/{name} /tmp/{name}.again")).run();
        assert_eq!(seen.line(), format!("{0}\n{0}", agent.keys()), "{name}");
    }
    nothing_is_left(&host);
    assert!(current().is_empty());
}

/// From the container to an sshd that lets in whoever has the agent's key.
fn ssh_and_git_go_onwards() {
    let host = Host::with_image("debian");
    let agent = Agent::start(&host, "key");
    let sshd = carry(&host, "sshd");
    let public = fs::read_to_string(host.dir.join("key.key.pub")).unwrap();
    let prepare = format!(
        "mkdir -m 700 ~/d && cd ~/d && ssh-keygen -q -t ed25519 -N '' -f host_key && \
         cat >authorized_keys && \
         printf '%s\\n' \"HostKey $PWD/host_key\" \"AuthorizedKeysFile $PWD/authorized_keys\" \
           'UsePAM no' 'StrictModes no' 'PasswordAuthentication no' >config && \
         printf '%s\\n' '#!/bin/sh' \"exec ssh -F none -oBatchMode=yes -oStrictHostKeyChecking=no \
           -oUserKnownHostsFile=/dev/null -oLogLevel=ERROR \
           -oProxyCommand='{sshd} -i -f $PWD/config' \\\"\\$@\\\"\" >onward && chmod +x onward && \
         git init -q -b main repository && cd repository && \
         git -c user.name=a -c user.email=a@b commit -q --allow-empty -m 'through the agent'"
    );
    let prepared = host.ssh(prepare).input(public).run();
    assert_eq!(prepared.code, Some(0), "{prepared}");
    let onward = "~/d/onward onward echo arrived";
    assert_eq!(agent.ssh(&host, onward).run().line(), "arrived");
    let clone = "GIT_SSH=$HOME/d/onward git clone -q ssh://onward/$HOME/d/repository /tmp/clone && \
                 git -C /tmp/clone log --format=%s";
    assert_eq!(agent.ssh(&host, clone).run().line(), "through the agent");
    // It was the agent that opened the door.
    let refused = host.ssh(onward).run();
    assert!(refused.errors().contains("Permission denied"), "{refused}");
}

fn a_root_session_and_nobody_else() {
    let host = Host::with_config("debian", "session:\n  grace_period: 10s\nuser: root\n");
    let agent = Agent::start(&host, "one");
    let other = "setpriv --reuid 1234 --regid 1234 --clear-groups";
    let output = agent
        .ssh(&host, &format!("id -u; ssh-add -l; {other} ssh-add -l 2>&1; {other} ls /run/ssh-agent 2>&1; touch /run/ssh-agent/x 2>&1"))
        .run();
    let text = output.text();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[..2], ["0", &agent.keys()], "{output}");
    assert!(lines[2].contains("Permission denied"), "{output}");
    assert!(lines[3].contains("Permission denied"), "{output}");
    assert!(lines[4].contains("Read-only"), "{output}");
}

fn another_container_of_the_pod_does_not_see_it() {
    let host = Host::with_image("busybox");
    // Says to whoever connects what it sees of agents, and that this is all.
    let peek = "find /run /tmp /proc/*/root/run/ssh-agent -name '*agent*' 2>/dev/null; \
                ls -A /run/ssh-agent 2>/dev/null; echo nothing else";
    host.podfile(&format!(
        "services:\n  - name: peek\n    image: {}\n    command: [nc, -ll, -p, '7300', -e, sh, -c, {peek:?}]\n    ports: [7300]\n",
        Host::reference("busybox")
    ));
    let agent = Agent::start(&host, "alice");
    let seen = agent
        .ssh(&host, "test -S $SSH_AUTH_SOCK && nc peek 7300 </dev/null")
        .run();
    assert_eq!(seen.line(), "nothing else", "{seen}");
}

fn killing_the_session_revokes_it() {
    let host = Host::with_image("debian");
    let agent = Agent::start(&host, "one");
    // It outlives its session, and would use the agent if it could.
    let command = "echo $SSH_AUTH_SOCK; \
        setsid sh -c 'while ssh-add -l; do sleep 0.1; done; echo gone >/tmp/gone' >/dev/null 2>&1; sleep 1000";
    let mut child = agent.ssh(&host, command).spawn();
    wait_for("the socket is there", LIMIT, || {
        left(&host).1.contains("agent-")
    });
    // Not the one that looked.
    wait_for("one session is left", LIMIT, || host.sessions().len() == 1);
    process::signal(host.sessions()[0].pid, Signal::KILL);
    child.wait().unwrap();
    nothing_is_left(&host);
    wait_for("who kept the path has no agent", LIMIT, || {
        host.ssh("cat /tmp/gone 2>/dev/null").run().text() == "gone\n"
    });
}

fn fifty_sessions_leave_nothing() {
    let host = Host::with_image("debian");
    let agents = [Agent::start(&host, "one"), Agent::start(&host, "two")];
    let keys = [agents[0].keys(), agents[1].keys()];
    host.ssh("true").run();
    let children: Vec<_> = (0..50)
        .map(|n| {
            let command = "echo $SSH_AUTH_SOCK; ssh-add -l; sleep 1; ssh-add -l";
            agents[n % 2].ssh(&host, command).spawn()
        })
        .collect();
    let mut sockets = Vec::new();
    for (n, child) in children.into_iter().enumerate() {
        let output: Output = finish(child, Vec::new(), Duration::from_secs(120)).unwrap();
        let text = output.line();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[1..], [&*keys[n % 2], &*keys[n % 2]], "{output}");
        sockets.push(lines[0].to_owned());
    }
    sockets.sort();
    sockets.dedup();
    assert_eq!(sockets.len(), 50);
    nothing_is_left(&host);
}

/// A session by hand that must go on without the agent, with one line.
#[track_caller]
fn refused(host: &Host, socket: &Path, why: &str) {
    let command = "echo [$SSH_AUTH_SOCK]";
    let output = client::run(
        Agent::by_hand(host, socket, command),
        Vec::new(),
        Duration::from_secs(60),
    );
    assert_eq!(
        (output.code, &*output.text()),
        (Some(0), "[]\n"),
        "{output}"
    );
    let line = output.complaint();
    assert!(
        line.starts_with("podspawn: no ssh agent in this session: ") && line.contains(why),
        "{line}"
    );
}

fn what_is_not_the_users_socket_is_refused() {
    let host = Host::with_image("busybox");
    let agent = Agent::start(&host, "one");
    let at = |name: &str| host.dir.join(name);
    std::os::unix::fs::symlink(&agent.socket, at("link")).unwrap();
    refused(&host, &at("link"), "link is a symlink");
    refused(&host, &at("config.yaml"), "config.yaml is no socket");
    refused(&host, &at("none"), "cannot look at");
    refused(&host, Path::new("one.sock"), "no absolute path");
    refused(&host, Path::new("/dev/null"), "is no socket");
    // Streams that are a protocol are none the worse for it.
    let mut sftp = Agent::by_hand(&host, &at("link"), "");
    sftp.env("SSH_ORIGINAL_COMMAND", "internal-sftp");
    let init = [0, 0, 0, 5, 1, 0, 0, 0, 3];
    let output = client::run(sftp, init.to_vec(), LIMIT);
    assert_eq!(output.stdout.get(4..9), Some(&[2u8, 0, 0, 0, 3][..]));
}

/// The supervisor is stopped between the session's look and its own.
fn a_socket_that_vanishes_is_refused() {
    let host = Host::with_image("busybox");
    assert_eq!(host.ssh("true").run().code, Some(0));
    let supervisor = host.supervisors()[0].pid;
    for replaced in [false, true] {
        let agent = Agent::start(&host, &format!("v{replaced}"));
        process::signal(supervisor, Signal::STOP);
        let session = Agent::by_hand(&host, &agent.socket, "echo [$SSH_AUTH_SOCK]")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let looked = || {
            let fds = fs::read_dir(format!("/proc/{}/fd", session.id()));
            fds.is_ok_and(|fds| {
                fds.flatten()
                    .any(|fd| fs::read_link(fd.path()).is_ok_and(|to| to == agent.socket))
            })
        };
        wait_for("the session has looked", LIMIT, looked);
        fs::remove_file(&agent.socket).unwrap();
        let other = replaced.then(|| std::os::unix::net::UnixListener::bind(&agent.socket));
        process::signal(supervisor, Signal::CONT);
        let output = finish(session, Vec::new(), Duration::from_secs(60)).unwrap();
        assert_eq!(
            (output.code, &*output.text()),
            (Some(0), "[]\n"),
            "{output}"
        );
        let line = output.complaint();
        let why = if replaced {
            "was replaced"
        } else {
            "No such file"
        };
        assert!(line.contains(why), "{line}");
        drop(other);
    }
}

fn the_place_since_openssh_10_1() {
    let host = Host::with_image("debian");
    let dir = setup::get().work.join(".ssh/agent");
    fs::create_dir_all(&dir).unwrap();
    let socket = dir.join(format!("s.{}.sshd.Xy", std::process::id()));
    let agent = Agent::at(&host, "new", &socket);
    let spawn = Agent::by_hand(&host, &socket, "ssh-add -l");
    assert_eq!(client::run(spawn, Vec::new(), LIMIT).line(), agent.keys());
    let _ = fs::remove_file(socket);
}

fn tmux_has_an_agent_after_a_reconnect() {
    let host = Host::with_image("debian");
    let agent = Agent::start(&host, "one");
    let start = "SSH_AUTH_SOCK=/run/ssh-agent/current tmux new -d -s work 'sh -i' && ssh-add -l";
    assert_eq!(agent.ssh(&host, start).run().line(), agent.keys());
    nothing_is_left(&host);
    let attach = agent.ssh(&host, "tmux attach -t work").option("-t");
    let mut client = Terminal::open(attach.command());
    client.send("ssh-add -l | tr a-z A-Z\n");
    client.expect("(ED25519)");
    client.expect("SHA256:");
    client.send("exit\n");
    assert!(client.wait().success());
}

fn without_forwarding_there_is_none() {
    let host = Host::shared("debian");
    let seen = host.ssh("env | grep -c SSH_AUTH_SOCK; ls -A /run/ssh-agent");
    assert_eq!(seen.run().text(), "0\n");
}
