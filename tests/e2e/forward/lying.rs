//! A user decides what their helper sends: root takes only what it should be.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::denial::is_refused;
use super::host::{Differences, RootHost};
use crate::support::host::executable;
use crate::support::{setup, wait_for};
use crate::tests;

tests![
    the_users_own_network_is_entered,
    the_hosts_network_is_refused,
    another_users_network_is_refused,
    what_is_no_network_is_refused,
    names_that_can_change_are_refused,
    the_number_of_descriptors_must_be_right,
    other_answers_are_refused,
];

/// A helper that tells the truth but for `@CHANGE@`: the network is one that the user has made.
const HELPER: &str = r#"#!/usr/bin/python3
import array, fcntl, os, socket, subprocess, time
def memory(data=b"127.0.0.1 localhost\n", seals=0xe):
    fd = os.memfd_create("names", os.MFD_ALLOW_SEALING)
    os.write(fd, data)
    fcntl.fcntl(fd, 1033, seals)
    return fd
def own():
    made = subprocess.Popen(["unshare", "--user", "--map-root-user", "--net", "sleep", "300"])
    path = f"/proc/{made.pid}/ns/net"
    while os.readlink(path) == os.readlink("/proc/self/ns/net"):
        time.sleep(0.01)
    return os.open(path, os.O_RDONLY)
module, (lease, other) = socket.socket(fileno=3), socket.socketpair()
fds, text = [own(), memory(), memory(), lease.fileno()], b"ok"
@CHANGE@
module.sendmsg([text], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))])
"#;

fn with_helper(name: &str, change: &str) -> RootHost {
    let helper = setup::get().work.join(format!("helper-{name}"));
    executable(&helper, &HELPER.replace("@CHANGE@", change));
    RootHost::with(&Differences {
        helper: Some(helper),
        arguments: "timeout=30".into(),
        force: Some("sh -c 'readlink /proc/self/ns/net; echo reached'".into()),
        ..Differences::default()
    })
}

#[track_caller]
fn refuses(host: &RootHost, what: &str) {
    let said = is_refused(host);
    assert!(said.contains(what), "{said:?} does not say {what:?}");
}

/// The helper of these tests is believed when it tells the truth.
fn the_users_own_network_is_entered() {
    let host = with_helper("true", "");
    let output = host.host.ssh("").run().line();
    let here = fs::read_link("/proc/self/ns/net").unwrap();
    assert!(
        output.starts_with("net:[") && output.ends_with("\nreached"),
        "{output}"
    );
    assert!(!output.contains(here.to_str().unwrap()), "{output}");
}

fn the_hosts_network_is_refused() {
    let change = r#"fds[0] = os.open("/proc/self/ns/net", os.O_RDONLY)"#;
    refuses(&with_helper("host", change), "the host's own network");
}

/// A process as `user`, in the network of `/proc/PID` if one is given, else in one of its own.
fn sleeper(user: &str, network: Option<u32>) -> Child {
    let mut command = Command::new(if network.is_some() { "nsenter" } else { "env" });
    if let Some(pid) = network {
        command.arg(format!("--net=/proc/{pid}/ns/net"));
    }
    command.args(["setpriv", "--reuid", user, "--regid", user, "--init-groups"]);
    if network.is_none() {
        command.args(["unshare", "--user", "--map-root-user", "--net"]);
    }
    let child = command.args(["sleep", "300"]).stdin(Stdio::null()).spawn();
    let child = child.unwrap();
    let link = format!("/proc/{}/ns/net", child.id());
    let own = fs::read_link("/proc/self/ns/net").unwrap();
    wait_for("the network is there", Duration::from_secs(10), || {
        fs::read_link(&link).is_ok_and(|there| there != own)
    });
    child
}

/// The user has a process in a network that somebody else has made, left there by root.
fn another_users_network_is_refused() {
    let root = setup::get().root.as_ref().unwrap();
    let mut other = sleeper(&root.other, None);
    let mut own = sleeper(&root.user, Some(other.id()));
    let change = format!(
        r#"fds[0] = os.open("/proc/{}/ns/net", os.O_RDONLY)"#,
        own.id()
    );
    refuses(
        &with_helper("others", &change),
        "a network namespace of uid",
    );
    for process in [&mut own, &mut other] {
        process.kill().unwrap();
        process.wait().unwrap();
    }
}

fn what_is_no_network_is_refused() {
    for (name, path) in [
        ("user", "/proc/self/ns/user"),
        ("file", "/etc/passwd"),
        ("null", "/dev/null"),
    ] {
        let change = format!(r#"fds[0] = os.open("{path}", os.O_RDONLY)"#);
        refuses(
            &with_helper(name, &change),
            "instead of a network namespace",
        );
    }
    let change = r#"fds[3] = os.open("/dev/null", os.O_RDONLY)"#;
    refuses(&with_helper("lease", change), "instead of a socket");
}

fn names_that_can_change_are_refused() {
    refuses(
        &with_helper("unsealed", "fds[1] = memory(seals=4)"),
        "a file that can change",
    );
    let change = "fds[2] = memory(b'x' * 65537)";
    refuses(&with_helper("large", change), "larger than 64 KiB");
    let change = r#"fds[1] = os.open("/etc/hosts", os.O_RDONLY)"#;
    refuses(
        &with_helper("file", change),
        "instead of a sealed memory file",
    );
}

fn the_number_of_descriptors_must_be_right() {
    for (name, change) in [
        ("three", "fds.pop()"),
        ("five", "fds.append(fds[3])"),
        ("many", "fds += [fds[3]] * 20"),
    ] {
        refuses(&with_helper(name, change), "did not answer as it should");
    }
}

fn other_answers_are_refused() {
    let host = with_helper("text", r#"text = b"ok\x1b[31m\nno""#);
    refuses(&host, "ok?[31m?no");
}
