//! The commands about pods: what they show, what they run, what they end.

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::support::client::{Output, finish};
use crate::support::host::Host;
use crate::support::terminal::Terminal;
use crate::support::{process, setup, wait_for};
use crate::tests;

tests![
    list_shows_what_is_there,
    stop_gives_programs_time_to_end,
    stop_now_gives_none,
    a_pod_that_was_stopped_is_made_anew,
    a_supervisor_that_hangs_is_shown_and_can_be_killed,
    rm_takes_everything,
    exec_passes_arguments_streams_and_statuses,
    shell_makes_the_pod_and_reads_its_input,
    nothing_of_the_hosts_environment_gets_in,
    run_is_gone_when_its_program_is,
    run_pulls_what_is_missing,
    logs_tell_a_pods_life,
    logs_are_followed_to_the_end,
    inspect_and_status_agree,
    cleanup_takes_what_killed_pods_left,
    cleanup_does_not_disturb_logins,
];

/// Those that need a terminal of the host's.
pub fn with_terminals() -> crate::support::Tests {
    let test = exec_and_shell_have_the_terminal_of_their_caller;
    vec![(
        "exec_and_shell_have_the_terminal_of_their_caller",
        Box::new(test),
    )]
}

const LIMIT: Duration = Duration::from_secs(20);

fn json(output: &Output) -> Value {
    assert_eq!(output.code, Some(0), "{output}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output}"))
}

fn list(host: &Host, more: &[&str]) -> Vec<Value> {
    let output = host.run([&["list", "--format", "json"], more].concat());
    json(&output).as_array().unwrap().clone()
}

/// A session that has said "up" and goes on.
fn session(host: &Host, command: &str) -> std::process::Child {
    use std::io::Read;
    let mut child = host.ssh(command).spawn();
    let mut up = [0; 3];
    child.stdout.as_mut().unwrap().read_exact(&mut up).unwrap();
    assert_eq!(&up, b"up\n");
    child
}

fn pod_dirs(host: &Host) -> [PathBuf; 2] {
    [
        host.dir.join("run/podspawn/default"),
        host.storage().join("pods/default"),
    ]
}

fn list_shows_what_is_there() {
    let host = Host::with_image("busybox");
    assert_eq!(list(&host, &["--all"]), [] as [Value; 0]);
    let table = host.run(["list"]).line();
    assert_eq!(table.lines().count(), 1, "{table}");
    let one = session(&host, "echo up; sleep 60");
    let two = session(&host, "echo up; sleep 60");
    let pods = list(&host, &[]);
    assert_eq!(pods.len(), 1, "{pods:?}");
    let pod = &pods[0];
    assert_eq!(pod["pod"], "default");
    assert_eq!(pod["state"], "running");
    assert_eq!(pod["sessions"], 2);
    assert_eq!(pod["image"], Host::reference("busybox"));
    assert_eq!(pod["mode"], "grace-period");
    assert_eq!(pod["supervisor"], host.supervisors()[0].pid);
    let table = host.run(["list"]).line();
    let row: Vec<&str> = table.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(row[..2], ["default", "running"], "{table}");
    assert_eq!(host.run(["list", "-q"]).line(), "default");
    for mut session in [one, two] {
        session.kill().unwrap();
        session.wait().unwrap();
    }
    wait_for("the pod is idle", LIMIT, || {
        list(&host, &[])[0]["state"] == "idle"
    });
    let idle = &list(&host, &[])[0];
    assert_eq!(idle["sessions"], 0);
    assert!(idle["expires_in"].as_u64().unwrap() <= 10, "{idle}");
    assert_eq!(host.run(["stop"]).line(), "default");
    assert_eq!(list(&host, &[]), [] as [Value; 0]);
    let all = list(&host, &["--all"]);
    assert_eq!((all.len(), &all[0]["state"]), (1, &"stopped".into()));
}

/// Says so when it is asked to end.
const POLITE: &str =
    "trap '' HUP; trap 'echo asked; exit 3' TERM; echo up; while :; do sleep 0.05; done";

fn stop_gives_programs_time_to_end() {
    let host = Host::with_image("busybox");
    let client = session(&host, POLITE);
    let stopped = host.run(["stop", "default"]);
    assert_eq!(stopped.line(), "default");
    host.wait_until_empty(LIMIT);
    let output = finish(client, Vec::new(), LIMIT).expect("the session ends");
    assert_eq!(output.text(), "asked\n", "{output}");
    let again = host.run(["stop", "default"]);
    assert_eq!(again.code, Some(125));
    assert_eq!(again.complaint(), "podspawn: pod default is not running");
    // Nothing is there to be stopped, and that is no failure.
    assert_eq!(host.run(["stop", "--all"]).line(), "");
}

fn stop_now_gives_none() {
    let host = Host::with_image("busybox");
    let client = session(&host, POLITE);
    let stopped = host.run(["stop", "--now", "--format", "json"]);
    assert_eq!(json(&stopped), serde_json::json!({"stopped": "default"}));
    host.wait_until_empty(LIMIT);
    let output = finish(client, Vec::new(), LIMIT).expect("the session ends");
    assert_eq!(output.text(), "", "{output}");
    assert_ne!(output.code, Some(0), "{output}");
}

fn a_pod_that_was_stopped_is_made_anew() {
    let host = Host::with_image("busybox");
    assert_eq!(host.ssh("echo x >/tmp/mark").run().code, Some(0));
    for _ in 0..3 {
        assert_eq!(host.run(["stop"]).line(), "default");
        let output = host
            .ssh("ls /tmp/mark 2>/dev/null; echo >/tmp/mark; echo new")
            .run();
        assert_eq!(output.line(), "new");
    }
}

fn a_supervisor_that_hangs_is_shown_and_can_be_killed() {
    let host = Host::with_image("busybox");
    assert_eq!(host.ssh("true").run().code, Some(0));
    let supervisor = host.supervisors().remove(0);
    process::signal(supervisor.pid, Signal::STOP);
    let begin = Instant::now();
    let pod = list(&host, &[]).remove(0);
    assert_eq!(pod["state"], "unresponsive", "{pod}");
    assert_eq!(pod["supervisor"], supervisor.pid);
    assert!(begin.elapsed() < LIMIT);
    let orderly = host.run(["stop"]);
    assert_eq!(orderly.code, Some(125));
    assert!(
        orderly.complaint().contains("stop --now kills it"),
        "{orderly}"
    );
    assert_eq!(host.run(["stop", "--now"]).line(), "default");
    host.wait_until_empty(LIMIT);
    assert_eq!(host.ssh("echo works").run().line(), "works");
}

fn rm_takes_everything() {
    let host = Host::with_image("busybox");
    let odd = "mkdir -p /tmp/a/b; echo x >/tmp/a/b/c; chmod 000 /tmp/a; mkfifo /tmp/p";
    assert_eq!(host.ssh(odd).run().code, Some(0));
    let refused = host.run(["rm", "default"]);
    assert_eq!(refused.code, Some(125));
    assert!(refused.complaint().contains("is running"), "{refused}");
    assert_eq!(host.run(["rm", "--force", "default"]).line(), "default");
    host.wait_until_empty(LIMIT);
    for dir in pod_dirs(&host) {
        assert!(!dir.exists(), "{}", dir.display());
    }
    let missing = host.run(["rm", "default"]);
    assert_eq!(missing.code, Some(125));
    assert!(
        missing.complaint().contains("there is no pod default"),
        "{missing}"
    );
    assert_eq!(host.ssh("test ! -e /tmp/a && echo new").run().line(), "new");
    // One that was killed leaves what nobody has tidied.
    host.supervisors().remove(0).kill();
    host.wait_until_empty(LIMIT);
    assert_eq!(host.run(["rm", "--all"]).line(), "default");
    for dir in pod_dirs(&host) {
        assert!(!dir.exists(), "{}", dir.display());
    }
}

fn exec_passes_arguments_streams_and_statuses() {
    let host = Host::with_image("busybox");
    let early = host.run(["exec", "default", "true"]);
    assert_eq!(early.code, Some(125));
    assert!(early.complaint().contains("is not running"), "{early}");
    assert!(
        !pod_dirs(&host)[0].exists(),
        "asking made the pod's directory"
    );
    assert_eq!(host.ssh("true").run().code, Some(0));
    let nasty = ["", " a  b ", "$(id)", "'\"\\", "*", "-n", "--", "\n", "ü"];
    let script = r#"for a; do printf '<%s>' "$a"; done"#;
    let command = ["exec", "default", "sh", "-c", script, "sh"];
    let output = host.run(command.iter().chain(&nasty));
    let expected: String = nasty.iter().map(|a| format!("<{a}>")).collect();
    assert_eq!(
        (output.code, output.text()),
        (Some(0), expected),
        "{output}"
    );
    let output = crate::support::client::run(
        host.podspawn(["exec", "default", "sh", "-c", "cat; echo err >&2; exit 42"]),
        b"\0\xffin".to_vec(),
        LIMIT,
    );
    assert_eq!(output.code, Some(42), "{output}");
    assert_eq!(
        (&output.stdout[..], &output.stderr[..]),
        (&b"\0\xffin"[..], &b"err\n"[..])
    );
    let code = |args: &[&str]| host.run([&["exec", "default"], args].concat()).code;
    assert_eq!(code(&["no-such-program"]), Some(127));
    assert_eq!(code(&["/etc/passwd"]), Some(126));
    let killed = host.run(["exec", "default", "sh", "-c", "kill -9 $$"]);
    assert_eq!(killed.signal, Some(9), "{killed}");
    let missing = host.run(["exec", "default", "no\x1bsuch"]);
    assert_eq!(missing.complaint().matches('\x1b').count(), 0, "{missing}");
}

fn shell_makes_the_pod_and_reads_its_input() {
    let host = Host::with_image("busybox");
    let output = crate::support::client::run(
        host.podspawn(["shell", "web"]),
        b"hostname; exit 5\n".to_vec(),
        LIMIT,
    );
    assert_eq!(
        (output.code, output.text()),
        (Some(5), "web\n".into()),
        "{output}"
    );
    assert_eq!(list(&host, &[])[0]["pod"], "web");
    // The same pod as a login's.
    host.run(["exec", "web", "touch", "/tmp/mark"]);
    let login = host.ssh("ls /tmp").env("PODSPAWN_PROJECT", "web").run();
    assert_eq!(login.line(), "mark");
}

fn nothing_of_the_hosts_environment_gets_in() {
    let host = Host::with_image("busybox");
    assert_eq!(host.ssh("true").run().code, Some(0));
    let mut command = host.podspawn(["exec", "default", "env"]);
    command
        .env("SECRET", "1")
        .env("LANG", "de_DE.UTF-8")
        .env("LC_ALL", "C");
    let text = crate::support::client::run(command, Vec::new(), LIMIT).line();
    assert!(
        text.contains("LANG=C.UTF-8\n") && text.contains("LC_ALL=C\n"),
        "{text}"
    );
    assert!(!text.contains("SECRET") && !text.contains("XDG_"), "{text}");
}

fn run_is_gone_when_its_program_is() {
    let host = Host::with_image("busybox");
    let reference = Host::reference("busybox");
    let output = host.run(["run", &reference, "sh", "-c", "hostname; exit 7"]);
    assert_eq!(output.code, Some(7), "{output}");
    assert!(output.text().starts_with("run-"), "{output}");
    wait_for("the pod is gone", LIMIT, || host.pod_processes().is_empty());
    assert_eq!(list(&host, &[]), [] as [Value; 0]);
    // One that is killed takes its pod along, too.
    let mut command = host.podspawn(["run", &reference, "sh", "-c", "echo up; sleep 8191"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    wait_for("it runs", LIMIT, || {
        !process::with_argument("sleep 8191")
            .iter()
            .any(|p| p.command.starts_with("podspawn"))
            && list(&host, &[]).len() == 1
    });
    child.kill().unwrap();
    child.wait().unwrap();
    host.wait_until_empty(LIMIT);
    wait_for("its program is gone", LIMIT, || {
        process::with_argument("sleep 8191").is_empty()
    });
}

fn run_pulls_what_is_missing() {
    let reference = format!("{}/podspawn/alpine-like:1", setup::get().registry);
    let host = Host::with_image("busybox");
    let mark = host.run(["run", &reference, "cat", "/etc/os-release"]);
    assert_eq!(mark.code, Some(0), "{mark}");
    assert!(mark.stderr.is_empty(), "{mark}");
    let images = host.run(["images"]).line();
    assert!(images.contains("alpine-like"), "{images}");
    let wrong = host.run([
        "run",
        &format!("{}/podspawn/no-such:1", setup::get().registry),
    ]);
    assert_eq!(wrong.code, Some(125));
    assert!(wrong.complaint().contains("no-such"), "{wrong}");
}

fn logs_tell_a_pods_life() {
    let host = Host::with_image("busybox");
    let missing = host.run(["logs"]);
    assert_eq!(missing.code, Some(125));
    assert!(
        missing.complaint().contains("there is no pod default"),
        "{missing}"
    );
    assert_eq!(host.ssh("true").run().code, Some(0));
    assert_eq!(host.run(["stop"]).code, Some(0));
    let text = host.run(["logs"]).line();
    for event in [
        " is up, image ",
        " session 1 came; 1 there\n",
        " session 1 ended; 0 there\n",
        " ending: ",
    ] {
        assert!(text.contains(event), "{event} is not in {text}");
    }
    assert!(text.ends_with("Z ended"), "{text}");
    // Times that sort, to the millisecond.
    assert!(
        text.lines()
            .all(|l| l.as_bytes()[4] == b'-' && l.as_bytes()[23] == b'Z'),
        "{text}"
    );
    // The next pod goes on with it.
    assert_eq!(host.ssh("true").run().code, Some(0));
    let longer = host.run(["logs", "default"]).line();
    assert!(
        longer.starts_with(&text) && longer.len() > text.len(),
        "{longer}"
    );
    assert_eq!(host.run(["logs", "-n", "1"]).line().lines().count(), 1);
    let lines = host.run(["logs", "--format", "json"]).line();
    for line in lines.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        assert!(
            line["time"].is_string() && line["message"].is_string(),
            "{line}"
        );
    }
}

fn logs_are_followed_to_the_end() {
    let host = Host::with_image("busybox");
    assert_eq!(host.ssh("true").run().code, Some(0));
    let mut command = host.podspawn(["logs", "-f"]);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let follower = command.spawn().unwrap();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(host.run(["stop"]).code, Some(0));
    let output = finish(follower, Vec::new(), LIMIT).expect("it ends with the pod");
    assert_eq!(output.code, Some(0), "{output}");
    assert!(output.text().ends_with("ended\n"), "{output}");
}

fn inspect_and_status_agree() {
    let host = Host::with_image("busybox");
    assert_eq!(host.ssh("true").run().code, Some(0));
    let inspected = json(&host.run(["inspect"]));
    let pod = &inspected[0];
    assert_eq!(pod["paths"]["run"], pod_dirs(&host)[0].to_str().unwrap());
    assert_eq!(
        pod["paths"]["storage"],
        pod_dirs(&host)[1].to_str().unwrap()
    );
    assert_eq!(pod["user"]["name"], host.user);
    assert_eq!(pod["supervisor"], host.supervisors()[0].pid);
    let status = json(&host.run(["status", "--format", "json"]));
    for same in ["pod", "state", "image", "mode", "created", "supervisor"] {
        assert_eq!(status["pods"][0][same], pod[same], "{same}");
    }
    let text = host.run(["status", "default"]).line();
    assert!(
        text.contains(&format!("image       {}", Host::reference("busybox"))),
        "{text}"
    );
    for verb in ["inspect", "status"] {
        let missing = host.run([verb, "nowhere"]);
        assert_eq!(missing.code, Some(125));
        assert!(
            missing.complaint().contains("there is no pod nowhere"),
            "{missing}"
        );
    }
}

fn cleanup_takes_what_killed_pods_left() {
    let host = Host::with_image("busybox");
    assert_eq!(host.run(["cleanup"]).line(), "");
    for round in 0..3 {
        assert_eq!(
            host.ssh(format!("echo >/tmp/left{round}")).run().code,
            Some(0)
        );
        let supervisor = host.supervisors().remove(0);
        supervisor.kill();
        wait_for("the supervisor has ended", LIMIT, || supervisor.has_ended());
        host.wait_until_empty(LIMIT);
    }
    assert_eq!(host.run(["cleanup"]).line(), "default");
    for dir in pod_dirs(&host) {
        assert!(!dir.exists(), "{}", dir.display());
    }
    // A pod that lives is none of its business.
    let client = session(&host, "echo up; cat; test -e /tmp && echo still here");
    assert_eq!(host.run(["cleanup", "--format", "json"]).line(), "");
    let output = finish(client, b"x".to_vec(), LIMIT).expect("the session ends");
    assert_eq!(output.text(), "xstill here\n", "{output}");
}

fn cleanup_does_not_disturb_logins() {
    let host = Host::with_config("busybox", "session:\n  grace_period: 0s\n");
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                let output = host.run(["cleanup"]);
                assert_eq!(output.code, Some(0), "{output}");
            }
        });
        let logins = 0..12;
        let outputs: Vec<Output> = logins
            .map(|n| host.ssh(format!("echo {n}")).run())
            .collect();
        over.store(true, Ordering::Relaxed);
        for (n, output) in outputs.iter().enumerate() {
            assert_eq!(output.line(), n.to_string());
        }
    });
    host.wait_until_empty(LIMIT);
    assert_eq!(host.run(["cleanup"]).code, Some(0));
    // Names with a dot are not those of pods.
    let left: Vec<_> = fs::read_dir(host.storage().join("pods"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .filter(|name| !name.as_encoded_bytes().starts_with(b"."))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

fn exec_and_shell_have_the_terminal_of_their_caller() {
    let host = Host::with_image("busybox");
    assert_eq!(host.ssh("true").run().code, Some(0));
    let mut terminal =
        Terminal::open(host.podspawn(["exec", "default", "sh", "-c", "tty; stty size; exit 9"]));
    terminal.expect("/dev/pts/0");
    terminal.expect("24 80");
    assert_eq!(terminal.wait().code(), Some(9));
    let mut terminal = Terminal::open(host.podspawn(["shell"]));
    terminal.send("stty size; echo TE''RM=$TERM\r");
    terminal.expect("TERM=xterm-256color");
    terminal.resize(30, 100);
    terminal.send("stty size\r");
    terminal.expect("30 100");
    // The keyboard's interrupt is for what runs inside.
    terminal.send("sleep 100\r");
    std::thread::sleep(Duration::from_millis(300));
    terminal.send("\x03");
    terminal.send("echo inter''rupted; exit 4\r");
    terminal.expect("interrupted");
    assert_eq!(terminal.wait().code(), Some(4));
}
