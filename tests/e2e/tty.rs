//! Sessions with a terminal, driven from a terminal: what a person would see.

use std::io::{Read, Write};
use std::time::Duration;

use rustix::process::Signal;
use rustix::termios::{LocalModes, SpecialCodeIndex};

use crate::support::host::Host;
use crate::support::terminal::Terminal;
use crate::support::{process, wait_for};
use crate::tests;

tests![
    a_command_gets_a_terminal_of_the_container,
    statuses_pass_with_a_terminal,
    the_last_output_is_not_lost,
    window_size_follows,
    initial_modes_are_the_clients,
    control_c_interrupts,
    control_d_ends_the_shell,
    control_z_stops_a_job,
    the_shell_is_a_login_shell,
    a_shell_without_bash,
    top_runs,
    tmux_runs_and_survives_a_reconnect,
    a_terminal_that_the_image_does_not_know,
    a_terminal_that_nobody_knows,
    bytes_pass_raw,
    a_client_that_dies_hangs_up,
    no_message_when_nothing_is_wrong,
];

fn terminal(host: &Host, command: &str) -> Terminal {
    Terminal::open(host.ssh(command).option("-t").command())
}

/// A shell whose prompt is known.
fn shell(host: &Host) -> Terminal {
    let mut terminal = Terminal::open(host.login().command());
    terminal.send("PS1='rea''dy> '\n");
    terminal.expect("ready> ");
    terminal
}

fn a_command_gets_a_terminal_of_the_container() {
    for image in ["debian", "busybox"] {
        let host = Host::shared(image);
        let mut client = terminal(
            &host,
            "tty; test -t 0 && test -t 1 && test -t 2 && echo all; ls -l $(tty)",
        );
        client.expect("all");
        assert!(client.wait().success());
        let text = client.raw();
        assert!(text.starts_with("/dev/pts/"), "{text}");
        assert!(text.contains("\ncrw"), "{text}");
        // The same with -tt and no terminal on this side.
        let output = host.ssh("tty").option("-tt").run();
        assert!(output.text().starts_with("/dev/pts/"), "{output}");
    }
}

fn statuses_pass_with_a_terminal() {
    let host = Host::shared("debian");
    let status = |command: &str| terminal(&host, command).wait().code();
    assert_eq!(status("true"), Some(0));
    assert_eq!(status("exit 7"), Some(7));
    assert_eq!(status("no-such-command"), Some(127));
    for command in ["kill -9 $$", "kill -TERM $$"] {
        let expected = terminal(&Host::plain(), command).wait().code();
        assert_eq!(
            terminal(&host, command).wait().code(),
            expected,
            "{command}"
        );
    }
}

fn the_last_output_is_not_lost() {
    let host = Host::shared("debian");
    for _ in 0..10 {
        let output = host.ssh("seq 1 20000; exit 3").option("-tt").run();
        assert_eq!(output.code, Some(3));
        let text = output.text();
        assert_eq!(text.lines().count(), 20000);
        assert!(text.ends_with("20000\r\n"));
    }
}

fn window_size_follows() {
    let host = Host::shared("debian");
    let mut client = shell(&host);
    client.send("stty size\n");
    client.expect("24 80");
    client.resize(50, 132);
    client.send("stty size\n");
    client.expect("50 132");
    // A program is told while it runs.
    client
        .send("sh -c 'trap \"stty size\" WINCH; echo wait\"\"ing; while :; do sleep 0.1; done'\n");
    client.expect("waiting");
    client.resize(30, 100);
    client.expect("30 100");
    client.send("\x03");
}

/// `stty -a` of the pod is that of plain sshd, with a client whose terminal is unusual.
fn initial_modes_are_the_clients() {
    let shown = |host: &Host| {
        let command = host.ssh("stty -a").option("-t").command();
        let mut client = Terminal::with_modes(command, |modes| {
            modes.special_codes[SpecialCodeIndex::VERASE] = 0x08;
            modes.special_codes[SpecialCodeIndex::VINTR] = 0x0b;
            modes.local_modes.remove(LocalModes::ECHOE);
        });
        assert!(client.wait().success());
        let mut text = client.raw();
        // The speed is the host kernel's affair.
        text.drain(..text.find("rows").expect("stty shows rows"));
        text
    };
    let found = shown(&Host::shared("debian"));
    assert!(
        found.contains("erase = ^H") && found.contains("intr = ^K") && found.contains("-echoe"),
        "{found}"
    );
    assert_eq!(found, shown(&Host::plain()));
}

fn control_c_interrupts() {
    let host = Host::shared("debian");
    let mut client = shell(&host);
    client.send("sleep 3333; echo status=$?\n");
    wait_for("sleep runs", Duration::from_secs(10), || {
        process::runs("sleep 3333")
    });
    client.send("\x03");
    client.expect("^C");
    client.send("echo after=$?\n");
    client.expect("after=130");
    assert!(process::with_argument("sleep 3333").is_empty());
    // And a command that has the terminal without a shell around it.
    let mut client = terminal(&host, "exec sleep 3334");
    wait_for("sleep runs", Duration::from_secs(10), || {
        process::runs("sleep 3334")
    });
    client.send("\x03");
    let expected = {
        let mut client = terminal(&Host::plain(), "exec sleep 3335");
        wait_for("sleep runs", Duration::from_secs(10), || {
            process::runs("sleep 3335")
        });
        client.send("\x03");
        client.wait().code()
    };
    assert_eq!(client.wait().code(), expected);
}

fn control_d_ends_the_shell() {
    let host = Host::shared("debian");
    let mut client = shell(&host);
    // Typed while a command runs, it would be the command's; bash shows its prompt once it reads.
    client.send("PS1='was=$? '; (exit 5)\n");
    client.expect("was=5 ");
    client.send("\x04");
    assert_eq!(client.wait().code(), Some(5));
}

fn control_z_stops_a_job() {
    let host = Host::shared("debian");
    let mut client = shell(&host);
    client.send("sleep 3336\n");
    wait_for("sleep runs", Duration::from_secs(10), || {
        process::runs("sleep 3336")
    });
    client.send("\x1a");
    client.expect("Stopped");
    client.send("kill %1; fg; echo ended\n");
    client.expect("ended");
    assert!(!client.contents().contains("no job control"));
}

fn the_shell_is_a_login_shell() {
    let host = Host::shared("debian");
    let mut client = shell(&host);
    client.send("echo $0; shopt -q login_shell && echo it''is\n");
    client.expect("-bash");
    client.expect("itis");
    let host = Host::shared("alpine-like");
    let mut client = Terminal::open(host.login().command());
    client.send("echo profile=$PROFILE_WAS_READ\n");
    client.expect("profile=yes");
}

fn a_shell_without_bash() {
    for image in ["busybox", "alpine-like"] {
        let host = Host::shared(image);
        let mut client = shell(&host);
        client.send("echo $((20+3))$((20+4)); exit 4\n");
        client.expect("2324");
        assert_eq!(client.wait().code(), Some(4), "{image}");
    }
}

fn top_runs() {
    let host = Host::shared("debian");
    let mut client = terminal(&host, "top");
    client.expect("Tasks:");
    client.expect("PID USER");
    client.send("q");
    assert!(client.wait().success());
}

fn tmux_runs_and_survives_a_reconnect() {
    let host = Host::with_image("debian");
    let mut client = shell(&host);
    client.send("tmux new -s work\n");
    client.expect("[work]");
    client.send("echo in-$((20+3))-tmux\n");
    client.expect("in-23-tmux");
    client.resize(40, 120);
    client.send("clear; stty size\n");
    // One row is the status line.
    client.expect("39 120");
    // As if the connection was lost.
    process::signal(client.pid(), Signal::KILL);
    client.wait();
    let mut client = terminal(&host, "tmux attach -t work");
    client.expect("39 120");
    client.send("exit\n");
    client.expect("[exited]");
    assert!(client.wait().success());
}

fn a_terminal_that_the_image_does_not_know() {
    let host = Host::shared("debian");
    for name in ["alacritty", "kitty-direct"] {
        let command = host
            .ssh("infocmp \"$TERM\" >/dev/null && tput cols && clear")
            .option("-t")
            .env("TERM", name)
            .command();
        let mut client = Terminal::open(command);
        let status = client.wait();
        assert!(status.success(), "{name}: {}", client.raw());
        assert!(client.raw().contains("80"), "{name}: {}", client.raw());
    }
}

fn a_terminal_that_nobody_knows() {
    for image in ["debian", "busybox"] {
        let host = Host::shared(image);
        let command = host.login().env("TERM", "no-such-terminal").command();
        let mut client = Terminal::open(command);
        client.send("echo $TERM-$((40+2))\n");
        client.expect("no-such-terminal-42");
    }
}

fn bytes_pass_raw() {
    let host = Host::shared("debian");
    let command = "stty raw -echo; echo ready; head -c 256 | od -An -v -tu1 | tr -s ' \\n' ' '";
    // ssh's own escape character is off without a terminal on its side.
    let mut child = host.ssh(command).option("-tt").option("-enone").spawn();
    let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    // Before that the terminal would take some of them for itself.
    let mut ready = [0; 6];
    stdout.read_exact(&mut ready).unwrap();
    assert_eq!(&ready, b"ready\n");
    let all: Vec<u8> = (0..=255).collect();
    stdin.write_all(&all).unwrap();
    let mut found = String::new();
    stdout.read_to_string(&mut found).unwrap();
    let expected: Vec<String> = all.iter().map(u8::to_string).collect();
    assert_eq!(found.trim(), expected.join(" "));
    assert!(child.wait().unwrap().success());
}

fn a_client_that_dies_hangs_up() {
    let host = Host::with_image("debian");
    let told = "trap 'echo hup >/tmp/hup; exit' HUP; echo wait''ing; while :; do sleep 0.1; done";
    let mut other = terminal(&host, told);
    other.expect("waiting");
    process::signal(other.pid(), Signal::KILL);
    other.wait();
    wait_for("the command was told", Duration::from_secs(10), || {
        host.ssh("cat /tmp/hup 2>/dev/null").run().text() == "hup\n"
    });
    let mut client = shell(&host);
    client.send("sleep 3337; echo on\n");
    wait_for("sleep runs", Duration::from_secs(10), || {
        process::runs("sleep 3337")
    });
    process::signal(client.pid(), Signal::KILL);
    client.wait();
    wait_for("the job has ended", Duration::from_secs(10), || {
        process::with_argument("sleep 3337").is_empty()
    });
    wait_for("its session has ended", Duration::from_secs(10), || {
        host.sessions().is_empty()
    });
}

fn no_message_when_nothing_is_wrong() {
    let host = Host::shared("debian");
    let mut client = terminal(&host, "true");
    assert!(client.wait().success());
    assert_eq!(client.raw(), "");
}
