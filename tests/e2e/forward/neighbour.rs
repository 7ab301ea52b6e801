//! What another user of the host can do with somebody's session.

use std::ffi::OsStr;
use std::time::Duration;

use super::host::RootHost;
use crate::support::agent::Agent;
use crate::support::client::{Output, run};
use crate::support::{process, setup, wait_for};
use crate::tests;

tests![
    another_user_cannot_use_the_agent,
    another_user_cannot_come_into_a_pod,
];

const LIMIT: Duration = Duration::from_secs(60);

/// `ssh-add -l` at `socket`, as somebody on the host.
fn keys(host: &RootHost, user: &str, socket: &str) -> Output {
    let mut command = host.command_as(user, OsStr::new("env"));
    command
        .arg(format!("SSH_AUTH_SOCK={socket}"))
        .args(["ssh-add", "-l"]);
    run(command, Vec::new(), LIMIT)
}

fn another_user_cannot_use_the_agent() {
    let host = RootHost::new();
    let agent = Agent::start(&host.host, "one");
    let names = agent
        .ssh(&host.host, "echo $SSH_AUTH_SOCK; exec sleep 4401")
        .spawn();
    wait_for("the session runs", LIMIT, || process::runs("sleep 4401"));
    let all = process::all();
    let inside = all.iter().find(|p| p.command == "sleep 4401").unwrap().pid;
    let environment = std::fs::read(format!("/proc/{inside}/environ")).unwrap();
    let environment = String::from_utf8(environment).unwrap();
    let socket = environment
        .split('\0')
        .find_map(|entry| entry.strip_prefix("SSH_AUTH_SOCK="))
        .expect("the session has an agent");
    // Root, who may do everything, shows that the path is right.
    let path = format!("/proc/{inside}/root{socket}");
    assert_eq!(keys(&host, "root", &path).line(), agent.keys());
    let other = &setup::get().root.as_ref().unwrap().other;
    let refused = keys(&host, other, &path);
    assert_eq!(refused.code, Some(2), "{refused}");
    assert!(refused.errors().contains("Permission denied"), "{refused}");
    process::signal(inside, rustix::process::Signal::TERM);
    drop(names);
}

/// Connects to a pod's control socket, and says whether it is hung up on.
const CONNECT: &str = "import select, socket, sys
control = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
try:
    control.connect(sys.argv[1])
except OSError as e:
    sys.exit(e.strerror)
heard, _, _ = select.select([control], [], [], 3)
print('hung up' if heard and not control.recv(99) else 'waited for')
";

/// Not through the directory, nor where that lets them in.
fn another_user_cannot_come_into_a_pod() {
    let host = RootHost::new();
    assert_eq!(host.host.ssh("echo up").run().line(), "up");
    let setup = setup::get().root.as_ref().unwrap();
    let run = format!("/run/user/{}", setup.uid);
    let control = format!("{run}/podspawn/default/control");
    let connect = |user: &str| {
        let mut command = host.command_as(user, OsStr::new("python3"));
        command.args(["-c", CONNECT, &control]);
        run_it(command)
    };
    assert_eq!(connect(&setup.user).line(), "waited for");
    let refused = connect(&setup.other);
    assert_eq!(refused.errors(), "Permission denied\n", "{refused}");
    let mut open = host.command_as("root", OsStr::new("chmod"));
    open.arg("a+rwx")
        .args(["", "/podspawn", "/podspawn/default"].map(|below| format!("{run}{below}")));
    open.arg(&control);
    assert_eq!(run_it(open).line(), "");
    assert_eq!(connect(&setup.other).line(), "hung up");
    assert_eq!(connect(&setup.user).line(), "waited for");
}

fn run_it(command: std::process::Command) -> Output {
    run(command, Vec::new(), LIMIT)
}
