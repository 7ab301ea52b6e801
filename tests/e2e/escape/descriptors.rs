//! What is open in processes of a pod. The host looks: no process can hide anything from it.

use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::support::client::{self, local};
use crate::support::host::Host;
use crate::support::process::{self, Process};
use crate::support::{setup, wait_for};
use crate::tests;

tests![no_process_inside_has_a_descriptor_that_leads_to_the_host];

const LIMIT: Duration = Duration::from_secs(30);

/// The descriptors of a process, by what the kernel calls them.
#[track_caller]
fn open_in(process: &Process) -> BTreeMap<u32, String> {
    let (pid, dir) = (process.pid.to_string(), format!("/proc/{}/fd", process.pid));
    // As root of the pod's user namespace, which is the user's who looks.
    let look = ["find", dir.as_str(), "-type", "l", "-printf", "%f %l\n"];
    let output = local(
        "nsenter",
        [&["--user", "--target", pid.as_str()][..], &look].concat(),
    );
    assert_eq!(output.code, Some(0), "{output}");
    let text = output.text();
    let lines = text.lines().filter_map(|line| line.split_once(' '));
    lines
        .map(|(number, what)| (number.parse().unwrap(), what.to_owned()))
        .collect()
}

/// The process with this command line, once it is there.
#[track_caller]
fn running(command: &str) -> Process {
    let find = || process::all().into_iter().find(|p| p.command == command);
    wait_for(command, LIMIT, || find().is_some());
    find().unwrap()
}

/// The three standard streams, each of which is as `fits` says, and nothing else.
#[track_caller]
fn only_streams(process: &Process, fits: impl Fn(&str) -> bool) {
    let mut open = open_in(process);
    // The inits' own, by which they hear of the ends of processes.
    open.retain(|_, what| what != "anon_inode:[signalfd]");
    let numbers: Vec<u32> = open.keys().copied().collect();
    assert_eq!(numbers, [0, 1, 2], "{process:?}: {open:?}");
    assert!(
        open.values().all(|what| fits(what)),
        "{process:?}: {open:?}"
    );
}

/// `podspawn exec`, called by a program that has more open than its streams.
fn exec_with_open_files(host: &Host, command: &[&str]) -> Child {
    let podspawn = host.podspawn([&["exec", "default"], command].concat());
    let mut shell = Command::new("sh");
    shell
        .args(["-c", "exec 7</etc 8</etc/passwd 9</; exec \"$@\"", "sh"])
        .arg(podspawn.get_program())
        .args(podspawn.get_args());
    client::clean(&mut shell);
    shell.envs(host.environment());
    let piped = || Stdio::piped();
    shell.stdin(piped()).stdout(piped()).stderr(piped());
    shell.spawn().unwrap()
}

fn no_process_inside_has_a_descriptor_that_leads_to_the_host() {
    let host = Host::with_config("debian", "");
    host.podfile(&format!(
        "services: [{{name: side, image: '{}', command: [sleep, '91004']}}]\n",
        Host::reference("busybox")
    ));
    let mut sessions = vec![host.ssh("exec sleep 91001").spawn()];
    let command = running("sleep 91001");
    // sshd's own, as it gave them.
    let stream = |what: &str| what.starts_with("pipe:[") || what.starts_with("socket:[");
    only_streams(&command, stream);

    sessions.push(host.ssh("sftp").option("-s").spawn());
    let server = || {
        let mut inside = host.pod_processes().into_iter();
        inside.find(|process| process.name == "sftp-server")
    };
    wait_for("the sftp-server", LIMIT, || server().is_some());
    only_streams(&server().unwrap(), stream);

    sessions.push(exec_with_open_files(&host, &["sleep", "91003"]));
    only_streams(&running("sleep 91003"), stream);

    if setup::get().ttys {
        let shell = host.ssh("exec sleep 91002").option("-tt");
        sessions.push(shell.spawn());
        // The terminal of the pod, by its name there.
        only_streams(&running("sleep 91002"), |what| what == "/dev/pts/0");
    }

    // The host's null device; a service's output is its log.
    let log = host.storage().join("pods/default/services/side/log");
    let (null, log) = ("/dev/null", log.to_str().unwrap());
    only_streams(&running("sleep 91004"), |what| [null, log].contains(&what));
    let mut inits = host.pod_processes();
    inits.retain(|process| process.name == "guest");
    assert_eq!(inits.len(), 2, "{inits:?}");
    for init in inits {
        only_streams(&init, |what| [null, log].contains(&what));
    }
    for mut session in sessions {
        session.kill().unwrap();
        session.wait().unwrap();
    }
}
