//! CVE-2019-5736: podspawn's own executable behind a process of the container.

use std::fs;

use super::{both, both_of};
use crate::support::host::Host;
use crate::tests;

tests![
    the_program_behind_a_process_cannot_be_written,
    a_program_that_begins_cannot_be_caught,
];

/// The guest, as the host keeps it.
fn guest(host: &Host) -> Vec<Vec<u8>> {
    let files = fs::read_dir(host.storage().join("guest")).unwrap();
    let mut files: Vec<_> = files
        .map(|f| fs::read(f.unwrap().path()).unwrap())
        .collect();
    files.sort();
    files
}

/// What leads to the guest in every image, and in one that has neither sftp-server nor scp.
const ALWAYS: [&str; 3] = ["/proc/1/exe", "/proc/self/exe", "/run/podspawn/guest"];
const BY_NAME: [&str; 2] = ["/usr/lib/openssh/sftp-server", "/usr/bin/scp"];

/// The kernel's word that a file was there and was not opened. Anything else was no attempt.
const REFUSALS: [&str; 3] = [
    "Permission denied",
    "Read-only file system",
    "Text file busy",
];

fn the_program_behind_a_process_cannot_be_written() {
    let full = both().map(|host| (host, ALWAYS.to_vec()));
    let bare = both_of("busybox").map(|host| (host, [&ALWAYS[..], &BY_NAME].concat()));
    let mut tried = 0;
    for (host, targets) in full.into_iter().chain(bare) {
        host.ssh("true").run();
        let before = guest(&host);
        assert_eq!(before.len(), 1);
        for target in targets {
            let mut commands: Vec<_> = [">", ">>", "<>"]
                .map(|how| format!(": {how}{target}"))
                .into();
            // Of a file that is not being run, which the guest always is.
            if target != "/proc/self/exe" {
                commands.push(format!("chmod 777 {target}"));
            }
            for command in commands {
                // In a shell of its own: of this one it would be the end.
                let output = host.ssh(format!("({command}) 2>&1")).run();
                assert_ne!(output.code, Some(0), "{command}: {output}");
                let refused = REFUSALS.iter().any(|why| output.text().contains(why));
                assert!(refused, "{command} was not tried: {output}");
                tried += 1;
            }
        }
        assert_eq!(guest(&host), before);
    }
    assert_eq!(tried, 2 * (3 + 5) * 4 - 4);
}

/// Sessions that begin while a program waits for them in `/proc`.
fn a_program_that_begins_cannot_be_caught() {
    let watch = "n=0; while [ $n -lt 300 ]; do n=$((n+1)); for p in /proc/[0-9]*; do \
                 (: >>$p/exe) 2>/dev/null && readlink $p/exe; done; done; echo end";
    for host in both() {
        host.ssh("true").run();
        let before = guest(&host);
        let watcher = std::thread::scope(|scope| {
            let watcher = scope.spawn(|| host.ssh(watch).run());
            for _ in 0..5 {
                host.ssh("true").run();
            }
            watcher.join().unwrap()
        });
        assert_eq!(watcher.text(), "end\n", "{watcher}");
        assert_eq!(guest(&host), before);
    }
}
