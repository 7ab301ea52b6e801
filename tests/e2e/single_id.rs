//! A user without subordinate ids: everything belongs to that one id, and it works.

use crate::support::client::local;
use crate::support::host::Host;
use crate::support::setup;
use crate::support::terminal::Terminal;
use crate::tests;

tests![
    a_login_works_in_every_image,
    everything_belongs_to_the_user,
    a_login_without_terminal_is_silent,
    a_pull_says_it_once_in_one_line,
    a_terminal_works,
    what_the_pod_wrote_can_be_removed,
];

fn a_login_works_in_every_image() {
    for image in ["busybox", "alpine-like", "debian", "layers120", "tricky"] {
        let host = Host::with_image(image);
        let output = host
            .ssh("echo in; id -u; touch ~/x && cat | wc -c; exit 6")
            .input("four")
            .run();
        assert_eq!(
            output.text(),
            format!("in\n{}\n4\n", local("id", ["-u"]).line()),
            "{image}: {output}"
        );
        assert_eq!(output.code, Some(6), "{image}: {output}");
    }
}

fn everything_belongs_to_the_user() {
    let host = Host::with_image("debian");
    let uid = local("id", ["-u"]).line();
    let map = host.ssh("cat /proc/self/uid_map").run().line();
    assert_eq!(map.lines().count(), 1, "{map}");
    assert_eq!(map.split_whitespace().nth(2), Some("1"), "{map}");
    assert_eq!(
        host.ssh("stat -c %u / /etc/passwd /usr/bin").run().line(),
        format!("{uid}\n{uid}\n{uid}")
    );
}

fn a_login_without_terminal_is_silent() {
    let host = Host::with_image("busybox");
    for _ in 0..2 {
        let output = host.ssh("true").run();
        assert_eq!(
            (output.code, output.text(), output.errors()),
            (Some(0), String::new(), String::new())
        );
    }
}

fn a_pull_says_it_once_in_one_line() {
    let reference = format!("{}/podspawn/debian:1", setup::get().registry);
    let host = Host::empty(&reference);
    let output = host.run(["pull", &reference]);
    assert_eq!(output.code, Some(0), "{output}");
    let notices = output
        .errors()
        .lines()
        .filter(|line| line.contains("subordinate") || line.contains("subuid"))
        .count();
    assert_eq!(notices, 1, "{output}");
}

fn a_terminal_works() {
    if !setup::get().ttys {
        return;
    }
    let host = Host::with_image("debian");
    let mut client = Terminal::open(host.login().command());
    client.send("tty; stty size; echo $((20+3))$((20+4))\n");
    client.expect("/dev/pts/");
    client.expect("24 80");
    client.expect("2324");
    client.send("exit 3\n");
    assert_eq!(client.wait().code(), Some(3));
}

fn what_the_pod_wrote_can_be_removed() {
    let host = Host::with_image("debian");
    host.ssh("mkdir -p /tmp/a/b && echo x >/tmp/a/b/c && chmod 500 /tmp/a")
        .run();
    for process in host.supervisors() {
        process.kill();
    }
    host.wait_until_empty(std::time::Duration::from_secs(5));
    assert_eq!(host.ssh("ls /tmp").run().line(), "");
}
