//! One command over ssh: statuses, signals, streams, environment. Where that makes sense, the
//! same command goes to a plain sshd, and the answers must be equal.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use crate::support::client::Output;
use crate::support::host::Host;
use crate::support::{Noise, process, wait_for};
use crate::tests;

tests![
    statuses_are_those_of_plain_sshd,
    death_by_signal_reaches_the_client,
    nothing_but_the_command_writes,
    first_login_is_silent,
    standard_error_stays_apart,
    end_of_input_arrives,
    input_of_a_closed_client_is_empty,
    a_gibibyte_passes_unchanged,
    a_reader_that_leaves_ends_the_writer,
    a_shell_reads_commands_without_terminal,
    environment_passes_through,
    session_variables_are_set,
    working_directory_is_a_writable_home,
    no_descriptor_leaks_in,
    background_job_does_not_hold_the_session,
    sessions_share_one_pod,
    sessions_share_one_connection,
    twenty_sessions_at_once,
];

#[track_caller]
fn same_as_plain(host: &Host, command: &str, input: &[u8]) -> Output {
    let expected = Host::plain().ssh(command).input(input).run();
    let found = host.ssh(command).input(input).run();
    assert_eq!(
        found, expected,
        "{command}\nhere: {found}\nplain sshd: {expected}"
    );
    found
}

fn statuses_are_those_of_plain_sshd() {
    let host = Host::shared("debian");
    let commands = [
        "true",
        "false",
        "exit 42",
        "exit 254",
        "exit 255",
        "echo out; echo err >&2; exit 3",
        "printf 'no newline'",
        "printf '\\000\\001\\377'",
        "no-such-command-at-all 2>/dev/null",
        "/etc/passwd 2>/dev/null",
        "sh -c 'kill -TERM $$'; echo $?",
        "set -e; false; echo not reached",
        "exec sh -c 'exit 9'",
        "",
    ];
    for command in commands {
        same_as_plain(&host, command, b"");
    }
    assert_eq!(host.ssh("exit 42").run().code, Some(42));
    assert_eq!(host.ssh("no-such-command-at-all").run().code, Some(127));
    assert_eq!(host.ssh("/etc/passwd").run().code, Some(126));
}

fn death_by_signal_reaches_the_client() {
    let host = Host::shared("debian");
    for signal in ["KILL", "TERM", "HUP", "INT", "QUIT", "PIPE", "SEGV", "USR1"] {
        // Of one shell on both sides: bash ignores SIGQUIT where dash does not.
        same_as_plain(&host, &format!("exec sh -c 'kill -{signal} $$'"), b"");
    }
    // ssh shows what it was told in its debug messages alone.
    let seen = |host: &Host| {
        let output = host
            .ssh("kill -9 $$")
            .option("-v")
            .option("-oLogLevel=DEBUG1")
            .run();
        let told = output.errors().contains("rtype exit-signal");
        (output.code, told)
    };
    let (found, plain) = (seen(&host), seen(&Host::plain()));
    assert_eq!(found, plain);
    assert_eq!(found, (Some(255), true));
}

fn nothing_but_the_command_writes() {
    let host = Host::shared("busybox");
    let output = host.ssh("true").run();
    assert_eq!(
        (output.code, output.stdout, output.stderr),
        (Some(0), vec![], vec![])
    );
}

fn first_login_is_silent() {
    for image in ["busybox", "debian"] {
        let host = Host::with_image(image);
        let output = host.ssh("true").run();
        assert_eq!(
            (output.code, output.stdout, output.stderr),
            (Some(0), vec![], vec![]),
            "{image}"
        );
    }
}

fn standard_error_stays_apart() {
    let host = Host::shared("debian");
    let output = same_as_plain(
        &host,
        "for n in 1 2 3; do echo o$n; echo e$n >&2; done",
        b"",
    );
    assert_eq!(output.text(), "o1\no2\no3\n");
    assert_eq!(output.errors(), "e1\ne2\ne3\n");
}

fn end_of_input_arrives() {
    let host = Host::shared("debian");
    assert_eq!(same_as_plain(&host, "cat", b"x").text(), "x");
    assert_eq!(
        same_as_plain(&host, "cat >/dev/null; echo done", b"anything").text(),
        "done\n"
    );
    assert_eq!(
        same_as_plain(&host, "read a; read b; echo \"$b$a\"", b"one\ntwo\nthree\n").text(),
        "twoone\n"
    );
}

fn input_of_a_closed_client_is_empty() {
    let host = Host::shared("debian");
    let output = host
        .ssh("cat; echo end")
        .option("-n")
        .input("not to be read")
        .run();
    assert_eq!(output.line(), "end");
}

/// Through one `cat`, so both ways at once.
fn a_gibibyte_passes_unchanged() {
    const SIZE: usize = 1 << 30;
    let host = Host::shared("debian");
    let mut child = host.ssh("cat").spawn();
    let mut stdin = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || {
        let (mut noise, mut sent, mut buffer) = (Noise::new(1), Sha256::new(), vec![0; 1 << 17]);
        for _ in 0..SIZE / buffer.len() {
            noise.fill(&mut buffer);
            sent.update(&buffer);
            stdin.write_all(&buffer).unwrap();
        }
        sent.finalize()
    });
    let (mut stdout, mut received, mut size) = (child.stdout.take().unwrap(), Sha256::new(), 0);
    let mut buffer = vec![0; 1 << 17];
    loop {
        let count = stdout.read(&mut buffer).unwrap();
        if count == 0 {
            break;
        }
        received.update(&buffer[..count]);
        size += count;
    }
    assert_eq!(size, SIZE);
    assert_eq!(writer.join().unwrap(), received.finalize());
    assert!(child.wait().unwrap().success());
}

fn a_reader_that_leaves_ends_the_writer() {
    let host = Host::with_image("busybox");
    let mark = "yes reader-that-leaves";
    let mut child = host.ssh(format!("exec {mark}")).spawn();
    let mut first = [0; 4];
    child.stdout.take().unwrap().read_exact(&mut first).unwrap();
    assert_eq!(&first, b"read");
    child.kill().unwrap();
    child.wait().unwrap();
    wait_for("the writer has ended", Duration::from_secs(10), || {
        process::with_argument(mark).is_empty()
    });
}

fn a_shell_reads_commands_without_terminal() {
    for image in ["debian", "alpine-like"] {
        let host = Host::shared(image);
        let output = host
            .login()
            .option("-T")
            .input("echo hi\ntest -t 0 || echo none\n")
            .run();
        assert_eq!(output.line(), "hi\nnone", "{image}");
        let output = host.login().option("-T").input("exit 11\n").run();
        assert_eq!(output.code, Some(11), "{image}");
    }
}

fn environment_passes_through() {
    let host = Host::shared("debian");
    let output = host
        .ssh("echo $LANG $LC_TIME $COLORTERM $FROM_IMAGE")
        .env("LANG", "en_US.UTF-8")
        .env("LC_TIME", "C.UTF-8")
        .env("COLORTERM", "truecolor")
        .run();
    assert_eq!(output.line(), "en_US.UTF-8 C.UTF-8 truecolor debian");
    // Nothing of the host's own leaks into the pod.
    let all = host.ssh("env").run().line();
    for name in ["SSH_ORIGINAL_COMMAND", "XDG_DATA_HOME", "XDG_CONFIG_HOME"] {
        assert!(
            !all.lines()
                .any(|line| line.starts_with(&format!("{name}="))),
            "{name} in\n{all}"
        );
    }
}

fn session_variables_are_set() {
    let host = Host::shared("debian");
    let output = host.ssh("echo $USER $LOGNAME; echo $SSH_CONNECTION; echo $SSH_CLIENT; echo $HOME $SHELL; echo $PATH").run();
    let text = output.line();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], format!("{0} {0}", host.user));
    assert!(
        lines[1].starts_with("127.0.0.1 ")
            && lines[1].ends_with(&format!("127.0.0.1 {}", host.port)),
        "{text}"
    );
    assert!(lines[2].starts_with("127.0.0.1 "), "{text}");
    let [home, shell] = lines[3].split(' ').collect::<Vec<_>>()[..] else {
        panic!("{text}")
    };
    assert!(home.starts_with('/'), "{text}");
    assert_eq!(shell, "/bin/bash");
    assert!(lines[4].split(':').any(|dir| dir == "/usr/bin"), "{text}");
}

fn working_directory_is_a_writable_home() {
    for image in ["debian", "busybox", "alpine-like"] {
        let host = Host::shared(image);
        let output = host
            .ssh("test \"$(pwd)\" = \"$HOME\" && echo x >here && cat here && rm here && ls -A")
            .run();
        assert_eq!(output.code, Some(0), "{image}: {output}");
        assert!(output.text().starts_with("x\n"), "{image}: {output}");
    }
}

fn no_descriptor_leaks_in() {
    let host = Host::shared("debian");
    // The fourth is the one with which ls reads the directory.
    assert_eq!(host.ssh("ls /proc/self/fd").run().line(), "0\n1\n2\n3");
}

fn background_job_does_not_hold_the_session() {
    let host = Host::with_image("debian");
    let begin = Instant::now();
    let output = host
        .ssh("sleep 4321 >/dev/null 2>&1 </dev/null & echo started")
        .run();
    assert_eq!(output.line(), "started");
    assert!(begin.elapsed() < Duration::from_secs(20));
    // As with plain sshd, it goes on.
    assert_eq!(host.ssh("pgrep -cx sleep").run().line(), "1");
}

fn sessions_share_one_pod() {
    let host = Host::with_image("busybox");
    assert_eq!(
        host.ssh("echo shared >/tmp/mark; readlink /proc/self/ns/mnt")
            .run()
            .code,
        Some(0)
    );
    let pod = |what: &str| {
        host.ssh(format!("readlink /proc/self/ns/{what}"))
            .run()
            .line()
    };
    for namespace in ["user", "mnt", "pid", "net", "ipc", "uts"] {
        assert_eq!(pod(namespace), pod(namespace), "{namespace}");
    }
    assert_eq!(host.ssh("cat /tmp/mark").run().line(), "shared");
}

fn sessions_share_one_connection() {
    let host = Host::shared("debian");
    let socket = host.dir.join("mux");
    let path = format!("-oControlPath={}", socket.display());
    let mut master = host
        .login()
        .option(path.clone())
        .option("-M")
        .option("-N")
        .command()
        .spawn()
        .unwrap();
    wait_for("the master listens", Duration::from_secs(20), || {
        socket.exists()
    });
    for number in 0..5 {
        let output = host
            .ssh(format!("cat; exit {number}"))
            .option(path.clone())
            .input("through")
            .run();
        assert_eq!(
            (output.code, output.text().as_str()),
            (Some(number), "through")
        );
    }
    let ended = host.login().option(path).option("-Oexit").run();
    assert_eq!(ended.code, Some(0), "{ended}");
    master.wait().unwrap();
}

fn twenty_sessions_at_once() {
    let host = Host::shared("busybox");
    host.ssh("true").run();
    let commands: Vec<_> = (0..20)
        .map(|n| (n, host.ssh(format!("echo {n}; sleep 1; exit {n}")).spawn()))
        .collect();
    for (number, child) in commands {
        let output =
            crate::support::client::finish(child, Vec::new(), Duration::from_secs(60)).unwrap();
        assert_eq!(
            (output.code, output.text()),
            (Some(number), format!("{number}\n")),
            "{output}"
        );
    }
}
