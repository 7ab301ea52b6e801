//! `ssh -X` and `-Y`: a real client inside shows its window on a real X server here.
//!
//! The sshd of these tests has no session module, so its displays are on the host's
//! loopback and reach the pod through the relay.

use std::time::Duration;

use rustix::process::Signal;

use crate::support::carry::carry;
use crate::support::client::Output;
use crate::support::host::Host;
use crate::support::screen::{Screen, clock, shows};
use crate::support::{process, wait_for};
use crate::tests;

tests![
    a_trusted_client_shows_its_window,
    an_untrusted_client_shows_its_window,
    an_image_with_nothing_but_busybox,
    several_displays_at_once,
    a_wrong_cookie_is_refused,
    the_cookie_is_the_sessions_alone,
    a_killed_session_leaves_nothing,
    a_missing_cookie_is_one_line,
    other_displays_of_the_image_stay,
];

const LIMIT: Duration = Duration::from_secs(60);

fn host(image: &str) -> Host {
    Host::with_sshd(image, &[("X11Forwarding no", "X11Forwarding yes")])
}

fn a_window(image: &str, trusted: bool) {
    let host = host(image);
    let screen = Screen::start(&host, "a");
    let xclock = carry(&host, "xclock");
    assert_eq!(screen.pixel(3, 3), 0);
    let session = screen.forwarded(host.ssh(clock(&xclock, "#ff0080")), trusted);
    shows(&screen, session.spawn(), 0xff_0080);
}

fn a_trusted_client_shows_its_window() {
    a_window("debian", true);
}

fn an_untrusted_client_shows_its_window() {
    a_window("debian", false);
}

fn an_image_with_nothing_but_busybox() {
    a_window("busybox", true);
}

fn several_displays_at_once() {
    let host = host("debian");
    let xclock = carry(&host, "xclock");
    let screens = [Screen::start(&host, "a"), Screen::start(&host, "b")];
    let colours = [("#00ff00", 0x00_ff00), ("#0000ff", 0x00_00ff)];
    let sessions: Vec<_> = screens
        .iter()
        .zip(colours)
        .map(|(screen, (name, _))| {
            let session = screen
                .forwarded(host.ssh(clock(&xclock, name)), true)
                .spawn();
            std::thread::sleep(Duration::from_millis(200));
            session
        })
        .collect();
    for (screen, (_, colour)) in screens.iter().zip(colours) {
        wait_for("the window is on its own screen", LIMIT, || {
            screen.pixel(3, 3) == colour
        });
    }
    for ((screen, session), (_, colour)) in screens.iter().zip(sessions).zip(colours) {
        shows(screen, session, colour);
    }
}

#[track_caller]
fn run(host: &Host, screen: &Screen, command: &str) -> Output {
    screen.forwarded(host.ssh(command), true).run()
}

fn a_wrong_cookie_is_refused() {
    let host = host("debian");
    let screen = Screen::start(&host, "a");
    let xdpyinfo = carry(&host, "xdpyinfo");
    let right = run(&host, &screen, &format!("{xdpyinfo} | grep dimensions"));
    assert!(right.line().contains("200x150"), "{right}");
    let spoil = "umask 077; { head -c -4 $XAUTHORITY; printf 'nope'; } >/tmp/wrong";
    for wrong in [spoil, "umask 077; : >/tmp/wrong"] {
        let command = format!("{wrong}; XAUTHORITY=/tmp/wrong {xdpyinfo}");
        let output = run(&host, &screen, &command);
        assert_ne!(output.code, Some(0), "{output}");
        assert!(
            output.errors().contains("unable to open display"),
            "{output}"
        );
    }
}

/// What is inside of displays and cookies.
fn left(host: &Host) -> String {
    host.ssh("ls -A /tmp/.X11-unix /dev/shm 2>/dev/null")
        .run()
        .text()
}

const NOTHING: &str = "/dev/shm:\n\n/tmp/.X11-unix:\n";

fn the_cookie_is_the_sessions_alone() {
    let host = host("debian");
    let screen = Screen::start(&host, "a");
    let output = run(
        &host,
        &screen,
        "echo $DISPLAY; stat -c '%a %U' $XAUTHORITY; n=${DISPLAY#:}; \
         stat -c '%a %U %F' /tmp/.X11-unix/X${n%.*}; stat -c '%a %U' /tmp/.X11-unix; \
         wc -c <$XAUTHORITY; od -An -tx1 -N4 $XAUTHORITY | tr -d ' '; ls ~/.Xauthority 2>&1 | wc -l; \
         env | grep -ci 'cookie'",
    );
    let text = output.text();
    let lines: Vec<&str> = text.lines().collect();
    let number = lines[0].strip_prefix(':').expect(&text);
    let number = number.strip_suffix(".0").expect(&text);
    assert_eq!(lines[1], format!("600 {}", host.user));
    assert_eq!(lines[2], format!("600 {} socket", host.user));
    assert_eq!(lines[3], "1777 root");
    // One record: a family, and four counted strings.
    let size = 2 + 4 * 2 + number.len() + "MIT-MAGIC-COOKIE-1".len() + 16;
    assert_eq!(lines[4], size.to_string(), "{text}");
    assert_eq!(lines[5], "ffff0000", "{text}");
    assert_eq!(output.errors(), "", "{output}");
    wait_for("cookie and socket are gone", LIMIT, || {
        left(&host) == NOTHING
    });
    // A session without -X knows of no display.
    let seen = host.ssh("echo [$DISPLAY$XAUTHORITY]").run();
    assert_eq!(seen.line(), "[]");
}

fn a_killed_session_leaves_nothing() {
    let host = host("debian");
    let screen = Screen::start(&host, "a");
    let mut child = screen.forwarded(host.ssh("sleep 1000"), true).spawn();
    wait_for("the cookie is there", LIMIT, || {
        left(&host).contains("xauthority-")
    });
    let leader = host
        .sessions()
        .into_iter()
        .find(|p| host.sessions().iter().any(|child| child.parent == p.pid))
        .expect("a session and its keeper");
    process::signal(leader.pid, Signal::KILL);
    child.wait().unwrap();
    wait_for("cookie and socket are gone", LIMIT, || {
        left(&host) == NOTHING
    });
    wait_for("the keeper is gone", LIMIT, || host.sessions().is_empty());
}

fn a_missing_cookie_is_one_line() {
    let host = Host::with_sshd(
        "busybox",
        &[
            ("X11Forwarding no", "X11Forwarding yes"),
            ("PrintMotd no", "PrintMotd no\nXAuthLocation /bin/true"),
            // Other tests had a cookie for this number.
            ("SetEnv XDG", "SetEnv XAUTHORITY=/nonexistent XDG"),
        ],
    );
    let screen = Screen::start(&host, "a");
    let output = run(&host, &screen, "echo [$DISPLAY]");
    assert_eq!((output.code, &*output.text()), (Some(0), "[]\n"));
    let line = output.complaint();
    assert!(
        line.starts_with("podspawn: no X11 display in this session: ")
            && line.contains("has no cookie for"),
        "{line}"
    );
}

/// A number that something inside has already is left alone; what a killed keeper
/// left is not.
fn other_displays_of_the_image_stay() {
    let host = host("debian");
    let screen = Screen::start(&host, "a");
    let xdpyinfo = carry(&host, "xdpyinfo");
    let number = |text: &str| -> u32 {
        let number = text.trim().trim_start_matches(':').split('.').next();
        number.and_then(|n| n.parse().ok()).expect(text)
    };
    let first = number(&run(&host, &screen, "echo $DISPLAY").line());
    // Not a socket, for as many numbers as sshds of other tests may have come between.
    let occupied = format!(
        "for n in $(seq {first} {}); do : >/tmp/.X11-unix/X$n; done",
        first + 30
    );
    assert_eq!(host.ssh(occupied).run().code, Some(0));
    let output = run(
        &host,
        &screen,
        &format!("echo $DISPLAY; {xdpyinfo} | grep -c dimensions"),
    );
    let text = output.line();
    assert!(number(text.lines().next().unwrap()) > first + 30, "{text}");
    assert_eq!(text.lines().nth(1), Some("1"), "{text}");
    assert_eq!(host.ssh("rm /tmp/.X11-unix/*").run().code, Some(0));
    // Somebody kills the keeper.
    let mut held = screen.forwarded(host.ssh("sleep 1000"), true).spawn();
    wait_for("the cookie is there", LIMIT, || {
        left(&host).contains("xauthority-")
    });
    let sessions = host.sessions();
    let keeper = sessions
        .iter()
        .find(|p| sessions.iter().any(|parent| parent.pid == p.parent))
        .expect("a keeper");
    process::signal(keeper.pid, Signal::KILL);
    held.kill().unwrap();
    held.wait().unwrap();
    wait_for("the session is gone", LIMIT, || host.sessions().is_empty());
    assert!(left(&host).contains('X'));
    let output = run(&host, &screen, &format!("{xdpyinfo} | grep -c dimensions"));
    assert_eq!(output.line(), "1");
}
