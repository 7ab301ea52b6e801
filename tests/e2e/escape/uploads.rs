//! Files that a client uploads, into a home that outlives the pod.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::support::client;
use crate::support::host::Host;
use crate::tests;

tests![uploads_do_not_run_on_the_host];

const LIMIT: Duration = Duration::from_secs(30);

/// What a login on an ordinary host runs or reads, of what is in a home.
const FILES: [&str; 10] = [
    ".bashrc",
    ".bash_profile",
    ".profile",
    ".ssh/rc",
    ".ssh/environment",
    ".pam_environment",
    ".config/environment.d/x.conf",
    ".config/systemd/user/x.service",
    ".config/systemd/user/default.target.wants/x.service",
    ".local/share/systemd/user/x.service",
];

/// Leaves a mark, whether it is run, sourced, or read as variables or as a unit.
fn evil(mark: &Path) -> String {
    let (mark, lib) = (mark.display(), "LD_PRELOAD=/nonexistent/evil.so");
    format!("{lib}\nexport {lib}\n[Service]\nExecStart=/bin/touch {mark}\ntouch {mark}\n")
}

/// Puts them into the home by sftp.
#[track_caller]
fn upload(host: &Host, mark: &Path) {
    let file = host.files().join("evil");
    fs::write(&file, evil(mark)).unwrap();
    let mut batch = String::new();
    for name in FILES {
        let dirs: Vec<_> = Path::new(name).ancestors().skip(1).collect();
        for dir in dirs.iter().rev().filter(|dir| !dir.as_os_str().is_empty()) {
            // One that is there already is fine.
            batch.push_str(&format!("-mkdir {}\n", dir.display()));
        }
        batch.push_str(&format!(
            "put {} {name}\nchmod 755 {name}\n",
            file.display()
        ));
    }
    let mut sftp = Command::new("sftp");
    sftp.args(client::options(host))
        .arg(format!("-oPort={}", host.port))
        .args(["-q", "-b", "-"])
        .arg(client::target(host));
    client::clean(&mut sftp);
    let output = client::run(sftp, batch.into_bytes(), LIMIT);
    assert_eq!(output.code, Some(0), "{output}");
}

/// Where the user's files would be, if one of them were there.
fn at_home() -> Vec<(PathBuf, bool)> {
    let home = PathBuf::from(std::env::var("HOME").unwrap());
    let files = FILES.iter().map(|name| home.join(name));
    files.map(|file| (file.clone(), file.exists())).collect()
}

fn uploads_do_not_run_on_the_host() {
    let host = Host::with_image("debian");
    let homes = host.dir.join("homes");
    fs::create_dir_all(homes.join(&host.user)).unwrap();
    let image = Host::reference("debian");
    let before = at_home();
    for (kept, state) in [
        (host.storage().join("pods/default/home"), String::new()),
        (
            homes.join(&host.user).join("default"),
            format!("state:\n  homes_dir: {}\n", homes.display()),
        ),
    ] {
        host.configure(&format!(
            "defaults:\n  image: {image}\nhome: persistent\nnetwork: none\n{state}"
        ));
        // Where sessions could write on the host.
        let mark = host.dir.join("files/mark");
        let (inside, on_host) = (PathBuf::from("/tmp/podspawn-mark"), &mark);
        for mark in [&inside, on_host] {
            upload(&host, mark);
            for name in FILES {
                let found = fs::read_to_string(kept.join(name)).unwrap();
                assert_eq!(found, evil(mark), "{name}");
            }
            // In the pod where they were uploaded, and in the next.
            for _ in 0..2 {
                for client in [host.ssh("true"), host.login().input("exit\n")] {
                    let output = client.run();
                    assert!(output.code.is_some(), "{output}");
                    assert!(!on_host.exists(), "{output}");
                }
                if *mark == inside {
                    // The container's own bash reads what is for it.
                    let there = host.run(["exec", "default", "ls", "/tmp/podspawn-mark"]);
                    assert_eq!(there.text(), "/tmp/podspawn-mark\n", "{there}");
                    assert!(!Path::new("/tmp/podspawn-mark").exists());
                }
                assert_eq!(host.run(["stop", "default"]).code, Some(0));
                host.wait_until_empty(LIMIT);
            }
        }
        assert_eq!(at_home(), before);
    }
}
