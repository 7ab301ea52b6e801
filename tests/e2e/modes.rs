//! When pods end, what outlives them, how many there are, and what each may use.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::process::Signal;

use crate::support::client::finish;
use crate::support::host::Host;
use crate::support::process::{self, Process, signal};
use crate::support::wait_for;
use crate::tests;

tests![
    destroy_on_disconnect_ends_with_the_last_session,
    a_persistent_pod_stays,
    a_persistent_home_outlives_the_pod,
    a_kept_root_outlives_the_pod,
    the_hosts_home_where_the_administrator_wants_it,
    homes_where_the_administrator_keeps_them,
    a_home_swapped_for_a_link_is_not_followed,
    the_maximal_lifetime_ends_sessions_with_a_line,
    a_user_file_overrides_the_mode,
    a_project_is_a_pod_of_its_own,
    no_more_pods_than_are_allowed,
    a_reconnect_in_the_last_moment_keeps_the_pod,
    a_session_about_to_come_in_keeps_the_pod,
    a_session_during_teardown_gets_a_new_pod,
    a_fork_bomb_ends_inside,
    a_memory_hog_ends_inside,
];

const LIMIT: Duration = Duration::from_secs(30);

#[track_caller]
fn the_supervisor(host: &Host) -> Process {
    let mut found = host.supervisors();
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

/// Kills the pod as a crash of the host would.
#[track_caller]
fn crash(host: &Host) {
    for supervisor in host.supervisors() {
        supervisor.kill();
    }
    host.wait_until_empty(LIMIT);
}

/// Ends it as `kill` does.
#[track_caller]
fn end(host: &Host) {
    for supervisor in host.supervisors() {
        signal(supervisor.pid, Signal::TERM);
    }
    host.wait_until_empty(LIMIT);
}

fn destroy_on_disconnect_ends_with_the_last_session() {
    let host = Host::with_config("busybox", "session:\n  mode: destroy-on-disconnect\n");
    let first = host.ssh("touch /tmp/mark; cat").spawn();
    wait_for("the first session is in", LIMIT, || {
        host.ssh("test -e /tmp/mark").run().code == Some(0)
    });
    // The second one has gone, the first has not.
    assert_eq!(host.ssh("ls /tmp/mark").run().line(), "/tmp/mark");
    let first = finish(first, b"bye".to_vec(), LIMIT).unwrap();
    assert_eq!(first.line(), "bye");
    host.wait_until_empty(LIMIT);
    assert_eq!(host.ssh("test -e /tmp/mark").run().code, Some(1));
}

fn a_persistent_pod_stays() {
    let config = "session:\n  mode: persistent\n  grace_period: 1s\n  max_lifetime: 2s\n";
    let host = Host::with_config("busybox", config);
    host.ssh("sleep 6543 >/dev/null 2>&1 & echo $! >/tmp/pid")
        .run();
    std::thread::sleep(Duration::from_secs(4));
    let there = host.ssh("kill -0 $(cat /tmp/pid) && echo there");
    assert_eq!(there.run().line(), "there");
}

fn a_persistent_home_outlives_the_pod() {
    let host = Host::with_config("busybox", "session:\n  mode: persistent\n");
    let wrote = host.ssh("echo mine >~/file; mkdir -p ~/a/b; echo gone >/tmp/gone; stat -c %U ~");
    assert_eq!(wrote.run().line(), host.user);
    for end in [crash, end] {
        end(&host);
        let output = host.ssh("cat ~/file; ls -d ~/a/b; test -e /tmp/gone || echo fresh; id -un");
        let expected = format!("mine\n/home/{0}/a/b\nfresh\n{0}", host.user);
        assert_eq!(output.run().line(), expected);
    }
    // Another pod has a home of its own.
    let other = host.ssh("test -e ~/file").env("PODSPAWN_PROJECT", "other");
    assert_eq!(other.run().code, Some(1));
}

fn a_kept_root_outlives_the_pod() {
    let config = "session:\n  mode: persistent\nstorage:\n  keep_root: true\n";
    let host = Host::with_config("debian", config);
    let change = "echo changed >~/here; rm /etc/motd; echo more >>/etc/issue; mkdir -p ~/d && \
                  chmod 000 ~/d; ln -s /nowhere ~/l";
    // Root of the container writes, as a package manager would.
    host.configure(&format!(
        "defaults:\n  image: {}\nuser: root\n{config}",
        Host::reference("debian")
    ));
    assert_eq!(host.ssh(change).run().code, Some(0));
    for end in [end, crash, end] {
        end(&host);
        let look = "cat ~/here; test -e /etc/motd || echo removed; tail -1 /etc/issue; \
                    stat -c %a ~/d; readlink ~/l";
        assert_eq!(
            host.ssh(look).run().line(),
            "changed\nremoved\nmore\n0\n/nowhere"
        );
    }
    // Nothing of that reaches a pod that keeps nothing, and that does not take it away.
    let reference = Host::reference("debian");
    end(&host);
    host.configure(&format!("defaults:\n  image: {reference}\nuser: root\n"));
    assert_eq!(
        host.ssh("test -e /etc/motd && echo whole").run().line(),
        "whole"
    );
    end(&host);
    host.configure(&format!(
        "defaults:\n  image: {reference}\nuser: root\n{config}"
    ));
    assert_eq!(host.ssh("tail -1 /etc/issue").run().line(), "more");
}

fn the_hosts_home_where_the_administrator_wants_it() {
    let host = Host::with_config("busybox", "home: host\n");
    let home = std::env::var("HOME").unwrap();
    let mark = format!("podspawn-test-{}", host.port);
    assert_eq!(
        host.ssh(format!("echo inside >~/{mark}")).run().code,
        Some(0)
    );
    let path = std::path::Path::new(&home).join(mark);
    let text = fs::read_to_string(&path);
    let _ = fs::remove_file(path);
    assert_eq!(text.unwrap(), "inside\n");
}

/// A host whose administrator keeps homes, and where; nobody has one there yet.
fn keeping_homes() -> (Host, PathBuf) {
    let host = Host::with_image("busybox");
    let homes = host.dir.join("homes");
    host.configure(&format!(
        "defaults:\n  image: {}\nsession:\n  mode: persistent\nstate:\n  homes_dir: {}\n",
        Host::reference("busybox"),
        homes.display()
    ));
    (host, homes)
}

fn homes_where_the_administrator_keeps_them() {
    let (host, homes) = keeping_homes();
    let refused = host.ssh("true").run();
    assert_eq!(refused.code, Some(125), "{refused}");
    assert!(refused.complaint().contains("state.homes_dir"), "{refused}");
    fs::create_dir_all(homes.join(&host.user)).unwrap();
    assert_eq!(host.ssh("echo x >~/file").run().code, Some(0));
    let file = homes.join(&host.user).join("default/file");
    assert_eq!(fs::read_to_string(file).unwrap(), "x\n");
    // A pod for one command keeps nothing.
    let reference = Host::reference("busybox");
    host.configure(&format!(
        "home: persistent\nstate:\n  homes_dir: {}\n",
        homes.display()
    ));
    let once = host.run(["run", &reference, "sh", "-c", "echo once >~/once"]);
    assert_eq!(once.code, Some(0), "{once}");
    let homes: Vec<_> = fs::read_dir(homes.join(&host.user)).unwrap().collect();
    assert_eq!(homes.len(), 1, "{homes:?}");
}

/// Whatever the name of the home is at the moment, a pod has the directory or is not made.
fn a_home_swapped_for_a_link_is_not_followed() {
    let (host, homes) = keeping_homes();
    let own = homes.join(&host.user);
    let outside = host.dir.join("outside");
    for dir in [&own, &outside] {
        fs::create_dir_all(dir).unwrap();
    }
    fs::write(outside.join("secret"), "secret").unwrap();
    let look = "ls -A ~; touch ~/touched";
    // At rest: refused, and said.
    symlink(&outside, own.join("default")).unwrap();
    let refused = host.ssh(look).run();
    assert_eq!(refused.code, Some(125), "{refused}");
    assert!(refused.complaint().contains("the home"), "{refused}");
    fs::remove_file(own.join("default")).unwrap();
    // While pods are made.
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (path, link) = (own.join("default"), own.join("link"));
            for round in 0.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let aside = own.join(format!("aside{round}"));
                let _ = fs::rename(&path, &aside);
                let _ = symlink(&outside, &link);
                let _ = fs::rename(&link, &path);
                let _ = fs::remove_file(&path);
                // One that a pod has made meanwhile stays: it would be gone under that pod.
                let _ = renameat_with(CWD, &aside, CWD, &path, RenameFlags::NOREPLACE);
            }
        });
        let looks: Vec<_> = (0..10)
            .map(|_| {
                let output = host.ssh(look).run();
                for supervisor in host.supervisors() {
                    supervisor.kill();
                }
                output
            })
            .collect();
        // First, for a failure would wait for that thread.
        stop.store(true, Ordering::Relaxed);
        for output in looks {
            assert!(matches!(output.code, Some(0 | 125)), "{output}");
            assert!(!output.text().contains("secret"), "{output}");
        }
    });
    let left: Vec<_> = fs::read_dir(&outside).unwrap().flatten().collect();
    assert_eq!(left.len(), 1, "{left:?}");
}

fn the_maximal_lifetime_ends_sessions_with_a_line() {
    let host = Host::with_config("busybox", "session:\n  max_lifetime: 3s\n");
    let output = host.ssh("sleep 7654; echo not reached").run();
    assert_ne!(output.code, Some(0), "{output}");
    assert_eq!(
        output.complaint(),
        "podspawn: pod default ended: it reached its maximal lifetime of 3s"
    );
    assert_eq!(output.text(), "");
    assert_eq!(host.ssh("echo next").run().line(), "next");
}

fn a_user_file_overrides_the_mode() {
    let host = Host::with_config("busybox", "session:\n  mode: persistent\n");
    fs::create_dir(host.dir.join("users")).unwrap();
    let own = host.dir.join(format!("users/{}.yaml", host.user));
    fs::write(own, "mode: destroy-on-disconnect\n").unwrap();
    assert_eq!(host.ssh("true").run().code, Some(0));
    host.wait_until_empty(LIMIT);
}

fn a_project_is_a_pod_of_its_own() {
    let host = Host::with_image("busybox");
    let at = |project: &str, command: &str| {
        host.ssh(command)
            .env("PODSPAWN_PROJECT", project)
            .run()
            .line()
    };
    assert_eq!(at("web.pod", "echo web >/tmp/mark; hostname"), "web");
    assert_eq!(at("web", "cat /tmp/mark"), "web");
    assert_eq!(at("api", "test -e /tmp/mark || hostname"), "api");
    assert_eq!(
        host.ssh("test -e /tmp/mark || hostname").run().line(),
        "default"
    );
    assert_eq!(host.supervisors().len(), 3);
    let bad = host.ssh("true").env("PODSPAWN_PROJECT", "../x").run();
    assert_eq!(bad.code, Some(125), "{bad}");
    assert!(bad.complaint().contains("no pod name"), "{bad}");
}

fn no_more_pods_than_are_allowed() {
    let host = Host::with_config("busybox", "resources:\n  max_per_user: 2\n");
    for _ in 0..3 {
        let clients: Vec<_> = (0..6)
            .map(|n| {
                host.ssh("sleep 1; echo in")
                    .env("PODSPAWN_PROJECT", &format!("p{n}"))
                    .spawn()
            })
            .collect();
        let outputs: Vec<_> = clients
            .into_iter()
            .map(|c| finish(c, Vec::new(), Duration::from_secs(90)).unwrap())
            .collect();
        let (inside, refused): (Vec<_>, Vec<_>) =
            outputs.into_iter().partition(|o| o.code == Some(0));
        assert_eq!(inside.len(), 2, "{refused:?}");
        for output in refused {
            assert_eq!(output.code, Some(125), "{output}");
            let line = output.complaint();
            assert!(
                line.starts_with("podspawn: you have 2 pods: p")
                    && line.contains("resources.max_per_user allows 2"),
                "{line}"
            );
        }
        assert_eq!(host.supervisors().len(), 2);
        crash(&host);
    }
    // One that was killed does not count.
    assert_eq!(host.ssh("echo works").run().line(), "works");
}

/// The supervisor sleeps through the end of the grace period, and finds the one who
/// came in its last moment when it wakes.
fn a_reconnect_in_the_last_moment_keeps_the_pod() {
    let host = Host::with_config("busybox", "session:\n  grace_period: 1s\n");
    for round in 0..3 {
        host.ssh(format!("echo kept{round} >/tmp/mark")).run();
        let supervisor = the_supervisor(&host);
        signal(supervisor.pid, Signal::STOP);
        let client = host.ssh("cat /tmp/mark").spawn();
        wait_for("the session waits at the door", LIMIT, || {
            !host.sessions().is_empty()
        });
        std::thread::sleep(Duration::from_secs(2));
        signal(supervisor.pid, Signal::CONT);
        let output = finish(client, Vec::new(), LIMIT).unwrap();
        assert_eq!(output.line(), format!("kept{round}"), "{}", host.log());
        assert_eq!(the_supervisor(&host).pid, supervisor.pid);
    }
    host.wait_until_empty(LIMIT);
}

/// Who holds the pod lock is looking for the pod: it waits for them.
fn a_session_about_to_come_in_keeps_the_pod() {
    let host = Host::with_config("busybox", "session:\n  grace_period: 1s\n");
    host.ssh("echo kept >/tmp/mark").run();
    let lock = fs::File::open(host.dir.join("run/podspawn/default/lock")).unwrap();
    lock.lock_shared().unwrap();
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(host.ssh("cat /tmp/mark").run().line(), "kept");
    drop(lock);
    host.wait_until_empty(LIMIT);
}

fn a_session_during_teardown_gets_a_new_pod() {
    let host = Host::with_config("debian", "session:\n  grace_period: 1s\n");
    // It must be killed, for which the supervisor waits a while.
    let stubborn = "trap '' TERM HUP; touch /tmp/mark; while :; do sleep 1; done";
    let start = format!("nohup setsid bash -c {stubborn:?} >/dev/null 2>&1 &");
    for round in 0..2 {
        assert_eq!(host.ssh(&start).run().code, Some(0));
        let old = the_supervisor(&host);
        // The log goes on from pod to pod, and the second of a round is killed.
        wait_for("the pod is ending", LIMIT, || {
            host.log().matches("ending: ").count() > round
        });
        let control = host.dir.join("run/podspawn/default/control");
        assert!(!control.exists() && !host.pod_processes().is_empty());
        let begin = Instant::now();
        let output = host.ssh("test -e /tmp/mark || echo new").run();
        assert_eq!(output.line(), "new", "{}", host.log());
        assert!(begin.elapsed() < LIMIT);
        assert_ne!(the_supervisor(&host).pid, old.pid);
        crash(&host);
    }
}

fn a_fork_bomb_ends_inside() {
    let host = Host::with_config("debian", "security:\n  pids_limit: 40\n");
    let before = process::all().len();
    let bomb = host.ssh("ulimit -u; f() { f | f & }; f 2>/dev/null; sleep 4");
    let bomb = bomb.spawn();
    let mut most = 0;
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(4) {
        most = most.max(host.pod_processes().len());
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(
        (20..60).contains(&most),
        "{most} processes, {before} before"
    );
    // Others of this user are not held up: outside, in another pod, and in this one,
    // where a session may at least look.
    assert_eq!(
        std::process::Command::new("true").status().unwrap().code(),
        Some(0)
    );
    let other = host
        .ssh("echo $(echo fine)")
        .env("PODSPAWN_PROJECT", "other");
    assert_eq!(other.run().line(), "fine");
    assert_eq!(host.ssh("echo in").run().line(), "in");
    let _ = host.ssh("kill -9 -1").run();
    let _ = finish(bomb, Vec::new(), LIMIT);
    wait_for("the bomb is over", LIMIT, || {
        host.ssh("echo $(echo again)").run().text() == "again\n"
    });
}

fn a_memory_hog_ends_inside() {
    let host = Host::with_config("debian", "  memory: 64m\n");
    // Perl and dd allocate what they are told.
    let hog = host
        .ssh("dd if=/dev/zero of=/dev/null bs=256M count=1; echo status $?")
        .run();
    assert!(hog.text().contains("status 1"), "{hog}");
    let modest = host.ssh("dd if=/dev/zero of=/dev/null bs=16M count=1 2>/dev/null && echo fine");
    assert_eq!(modest.run().line(), "fine");
}
