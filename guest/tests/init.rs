//! `init` as process 1 of a PID namespace, and as an ordinary process.

mod support;

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use support::{GUEST, is_root, skip, wait_until, works};

/// `init` as process 1, or `None` with the reason said.
fn process_1(args: &[&str]) -> Option<Command> {
    let flags = if is_root() { "-fp" } else { "-Urfp" };
    if !works("unshare", &[flags, "true"]) {
        skip("no PID namespaces");
        return None;
    }
    let mut command = Command::new("unshare");
    command
        .arg(flags)
        .args(["--kill-child", GUEST, "init"])
        .args(args);
    command
        // Where a directory of PATH may not be searched, nothing is "not found".
        .env("PATH", "/usr/bin:/bin")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    Some(command)
}

/// A running `init` that is ended when the test is over.
struct Init {
    unshare: Child,
    pid: String,
}

impl Init {
    fn start(mut command: Command) -> Self {
        let unshare = command.spawn().expect("unshare");
        let children = format!("/proc/{0}/task/{0}/children", unshare.id());
        let pid = || {
            fs::read_to_string(&children)
                .unwrap_or_default()
                .trim()
                .to_owned()
        };
        wait_until("init to start", || {
            let command = fs::read(format!("/proc/{}/cmdline", pid())).unwrap_or_default();
            command.starts_with(GUEST.as_bytes())
        });
        // Every signal that can be is blocked: it has begun.
        let status = format!("/proc/{}/status", pid());
        wait_until("init to block signals", || {
            let status = fs::read_to_string(&status).unwrap_or_default();
            let blocked = status
                .lines()
                .find_map(|line| line.strip_prefix("SigBlk:\t"));
            blocked.is_some_and(|mask| mask != "0000000000000000")
        });
        let pid = pid();
        Self { unshare, pid }
    }

    /// Runs a script in init's PID namespace, as a session does: not as its child.
    fn join(&self, script: &str) {
        let user: &[&str] = if is_root() {
            &[]
        } else {
            &["-U", "--preserve-credentials"]
        };
        let status = Command::new("nsenter")
            .args(["-t", &self.pid, "-p"])
            .args(user)
            .args(["--", "sh", "-c", script])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .expect("nsenter");
        assert!(status.success());
    }

    fn signal(&self, signal: &str) {
        assert!(works("kill", &["-s", signal, &self.pid]));
    }

    fn children(&self) -> usize {
        fs::read_to_string(format!("/proc/{0}/task/{0}/children", self.pid))
            .map_or(0, |children| children.split_whitespace().count())
    }

    fn status(&self, field: &str) -> String {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).expect("it runs");
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(field))
            .expect("the field");
        line.trim_start_matches(':').trim().to_owned()
    }

    fn wait(&mut self) -> Option<i32> {
        self.unshare.wait().expect("wait").code()
    }
}

impl Drop for Init {
    fn drop(&mut self) {
        // unshare was told to take its child along.
        let _ = self.unshare.kill();
        let _ = self.unshare.wait();
    }
}

#[test]
fn orphans_are_reaped() {
    let Some(command) = process_1(&[]) else {
        return;
    };
    let init = Init::start(command);
    init.join("for i in $(seq 200); do (sleep 0.0$i & ) ; done; (setsid sleep 60 &)");
    // All but the last end, and none stays.
    wait_until("the orphans to be reaped", || init.children() == 1);
    let idle = || {
        let stat = fs::read_to_string(format!("/proc/{}/stat", init.pid)).expect("it runs");
        stat.rsplit(')')
            .next()
            .expect("fields")
            .split(' ')
            .skip(12)
            .take(2)
            .collect::<String>()
    };
    let (time, switches) = (idle(), init.status("voluntary_ctxt_switches"));
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(idle(), time, "it took processor time while idle");
    assert_eq!(
        init.status("voluntary_ctxt_switches"),
        switches,
        "it woke up while idle"
    );
    let resident: u64 = init
        .status("VmRSS")
        .trim_end_matches(" kB")
        .trim()
        .parse()
        .expect("a number");
    assert!(cfg!(debug_assertions) || resident < 1500, "{resident} kB");
}

#[test]
fn it_ends_when_told_to() {
    for signal in ["TERM", "INT"] {
        let Some(command) = process_1(&[]) else {
            return;
        };
        let mut init = Init::start(command);
        init.join("(sleep 60 &); (sleep 60 &)");
        // A stopped process has to be told to go on.
        init.join("(sh -c 'kill -STOP $$; sleep 60' &)");
        wait_until("the orphans to be there", || init.children() >= 3);
        let start = Instant::now();
        init.signal(signal);
        assert_eq!(init.wait(), Some(0));
        assert!(
            start.elapsed() < Duration::from_secs(4),
            "{:?}",
            start.elapsed()
        );
    }
}

#[test]
fn processes_get_the_time_to_end() {
    let Some(command) = process_1(&[]) else {
        return;
    };
    let mut init = Init::start(command);
    let dir = tempfile::tempdir().expect("tempdir");
    let (ready, done) = (dir.path().join("ready"), dir.path().join("done"));
    init.join(&format!(
        "(trap 'sleep 0.5; echo done >{}; exit' TERM; touch {}; while :; do sleep 0.05; done) &",
        done.display(),
        ready.display()
    ));
    wait_until("the trap", || ready.exists());
    init.signal("TERM");
    assert_eq!(init.wait(), Some(0));
    assert_eq!(fs::read_to_string(done).expect("it was written"), "done\n");
}

#[test]
fn its_patience_has_an_end() {
    let Some(command) = process_1(&[]) else {
        return;
    };
    let mut init = Init::start(command);
    init.join("(trap '' TERM; while :; do sleep 60; done) &");
    wait_until("the stubborn one", || init.children() >= 1);
    let start = Instant::now();
    init.signal("TERM");
    assert_eq!(init.wait(), Some(0));
    let took = start.elapsed();
    assert!(
        (podspawn_guest::init::GRACE..Duration::from_secs(12)).contains(&took),
        "{took:?}"
    );
}

#[test]
fn other_signals_do_nothing() {
    let Some(command) = process_1(&[]) else {
        return;
    };
    let init = Init::start(command);
    for signal in [
        "HUP", "USR1", "USR2", "PIPE", "QUIT", "ALRM", "CHLD", "RTMIN",
    ] {
        init.signal(signal);
    }
    std::thread::sleep(Duration::from_millis(200));
    assert!(init.status("State").starts_with('S'));
}

#[test]
fn a_command_gives_its_status() {
    for (script, status) in [
        ("exit 0", 0),
        ("exit 7", 7),
        ("kill -9 $$", 137),
        ("kill $$", 143),
    ] {
        let Some(mut command) = process_1(&["--", "sh", "-c", script]) else {
            return;
        };
        assert_eq!(
            command.status().expect("it runs").code(),
            Some(status),
            "{script}"
        );
    }
    let Some(mut command) = process_1(&["--", "no-such-command"]) else {
        return;
    };
    let output = command.output().expect("it runs");
    assert_eq!(output.status.code(), Some(127));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(
        said,
        "init: cannot run no-such-command: No such file or directory\n"
    );
    let Some(mut command) = process_1(&["--", "/etc/passwd"]) else {
        return;
    };
    assert_eq!(command.status().expect("it runs").code(), Some(126));
}

#[test]
fn a_command_has_clean_signals_and_its_environment() {
    let script = "grep -E '^Sig(Blk|Ign)' /proc/self/status; echo $X; echo $0 $1";
    let Some(mut command) = process_1(&["--", "sh", "-c", script, "a", "b c"]) else {
        return;
    };
    let output = command.env("X", "of mine").output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines[2..], ["of mine", "a b c"], "{said}");
    for (line, name) in lines.iter().zip(["SigBlk:", "SigIgn:"]) {
        let mask = line.strip_prefix(name).expect("the mask").trim();
        let mask = u64::from_str_radix(mask, 16).expect("hexadecimal");
        // Signals 32 and 33 are the C library's own, and its business.
        assert_eq!(mask & !(0b11 << 31), 0, "{line}");
    }
}

#[test]
fn signals_reach_the_command() {
    let dir = tempfile::tempdir().expect("tempdir");
    let ready = dir.path().join("ready");
    let script = format!(
        "trap 'exit 42' TERM; trap 'exit 43' HUP; touch {}; while :; do sleep 0.05; done",
        ready.display()
    );
    // A real-time signal is some image's stop signal.
    for (signal, status) in [("TERM", 42), ("HUP", 43), ("RTMIN+3", 42)] {
        let Some(command) = process_1(&["--", "sh", "-c", &script]) else {
            return;
        };
        let _ = fs::remove_file(&ready);
        let mut init = Init::start(command);
        wait_until("the trap", || ready.exists());
        init.signal(signal);
        assert_eq!(init.wait(), Some(status), "{signal}");
    }
}

#[test]
fn orphans_of_a_command_are_reaped_too() {
    let script = "for i in 1 2 3 4 5; do (sleep 0.05 &); done; exec sleep 60";
    let Some(command) = process_1(&["--", "sh", "-c", script]) else {
        return;
    };
    let init = Init::start(command);
    wait_until("the orphans to be reaped", || {
        let children = format!("/proc/{0}/task/{0}/children", init.pid);
        let only = fs::read_to_string(children).unwrap_or_default();
        let name = fs::read_to_string(format!("/proc/{}/comm", only.trim()));
        name.is_ok_and(|name| name == "sleep\n")
    });
}

#[test]
fn elsewhere_it_does_not_touch_other_processes() {
    let mut bystander = Command::new("sleep").arg("60").spawn().expect("sleep");
    let mut init = Command::new(GUEST)
        .arg("init")
        .stdin(Stdio::null())
        .spawn()
        .expect("it can be run");
    let status = format!("/proc/{}/status", init.id());
    wait_until("init to block signals", || {
        fs::read_to_string(&status)
            .is_ok_and(|s| !s.contains("SigBlk:\t0000000000000000") && s.contains("podspawn-guest"))
    });
    assert!(works("kill", &[&init.id().to_string()]));
    assert_eq!(init.wait().expect("wait").code(), Some(0));
    assert!(
        bystander.try_wait().expect("wait").is_none(),
        "the bystander was killed"
    );
    bystander.kill().expect("kill");
    bystander.wait().expect("wait");
}
