//! Who one is inside, and what of the host is out of reach.

use std::fs;

use crate::support::client::local;
use crate::support::host::Host;
use crate::tests;

tests![
    the_user_is_the_user,
    the_user_has_a_passwd_entry_and_a_home,
    other_ids_are_subordinate,
    files_of_the_image_have_their_owners,
    files_written_inside_are_ours,
    the_host_is_out_of_sight,
    no_capability_is_left,
    kernel_settings_are_out_of_reach,
    the_podspawn_program_cannot_be_written,
    root_of_the_container_is_not_the_user,
];

fn id(option: &str) -> String {
    local("id", [option]).line()
}

fn the_user_is_the_user() {
    for image in ["debian", "busybox"] {
        let host = Host::shared(image);
        assert_eq!(
            host.ssh("id -u; id -un").run().line(),
            format!("{}\n{}", id("-u"), id("-un")),
            "{image}"
        );
    }
}

fn the_user_has_a_passwd_entry_and_a_home() {
    let host = Host::shared("debian");
    let output = host.ssh("getent passwd \"$(id -un)\" | cut -d: -f1,3,6; echo ~; test -d ~ && stat -c %U ~; id -gn").run();
    let text = output.line();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[0], format!("{}:{}:{}", host.user, id("-u"), lines[1]));
    assert_eq!(lines[2], host.user);
    assert!(!lines[3].is_empty());
}

fn other_ids_are_subordinate() {
    let host = Host::shared("debian");
    let uid = id("-u");
    let map = host.ssh("cat /proc/self/uid_map").run().line();
    let lines: Vec<Vec<&str>> = map
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert!(
        lines.iter().any(|line| line[0] == uid && line[2] == "1"),
        "{map}"
    );
    let total: u64 = lines
        .iter()
        .map(|line| line[2].parse::<u64>().unwrap())
        .sum();
    assert!(total > 65000, "{map}");
}

fn files_of_the_image_have_their_owners() {
    let host = Host::shared("debian");
    assert_eq!(
        host.ssh("stat -c '%u:%g' / /etc/passwd /usr/bin/sudo")
            .run()
            .line(),
        "0:0\n0:0\n0:0"
    );
    assert_eq!(
        host.ssh("stat -c '%U:%G %a' /etc/shadow").run().line(),
        "root:shadow 640"
    );
}

fn files_written_inside_are_ours() {
    let host = Host::with_image("busybox");
    host.ssh("echo mine >/tmp/written-inside").run();
    let found = local(
        "find",
        [
            host.storage().join("pods"),
            "-name".into(),
            "written-inside".into(),
            "-user".into(),
            id("-un").into(),
        ],
    );
    // Behind the overlay it is the user's file as well, where it can be looked at from outside.
    let inside = host.ssh("stat -c '%u %g' /tmp/written-inside").run().line();
    assert_eq!(inside, format!("{} {}", id("-u"), id("-g")));
    assert!(found.text().ends_with("/tmp/written-inside\n"), "{found}");
}

fn the_host_is_out_of_sight() {
    let host = Host::shared("debian");
    let dir = host.dir.display();
    assert_eq!(
        host.ssh(format!("ls {dir} 2>/dev/null || echo hidden"))
            .run()
            .line(),
        "hidden"
    );
    let processes = host.ssh("ls -d /proc/[0-9]* | wc -l").run().line();
    assert!(processes.parse::<u32>().unwrap() < 40, "{processes}");
    let namespaces = host
        .ssh("for n in user mnt pid net ipc uts; do readlink /proc/self/ns/$n; done")
        .run()
        .line();
    for inside in namespaces.lines() {
        let kind = inside.split(':').next().unwrap();
        let outside = fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
        assert_ne!(outside.to_str().unwrap(), inside);
    }
    let mounts = host
        .ssh("cut -d' ' -f4,5 /proc/self/mountinfo")
        .run()
        .line();
    assert!(!mounts.contains("authorized_keys"), "{mounts}");
    assert_eq!(
        host.ssh("cat /proc/1/comm /proc/1/cmdline | tr '\\0' ' ' | grep -c sshd")
            .run()
            .text(),
        "0\n"
    );
}

fn no_capability_is_left() {
    let host = Host::shared("debian");
    let status = host
        .ssh("grep -e CapEff -e CapPrm -e CapInh -e CapAmb /proc/self/status | cut -f2 | sort -u")
        .run();
    assert_eq!(status.line(), "0000000000000000");
    assert_eq!(
        host.ssh("chown root:root /tmp 2>/dev/null || echo refused")
            .run()
            .line(),
        "refused"
    );
}

fn kernel_settings_are_out_of_reach() {
    let host = Host::shared("debian");
    for path in [
        "/proc/sys/kernel/core_pattern",
        "/proc/sysrq-trigger",
        "/sys/kernel/uevent_helper",
        "/proc/kcore",
        "/sys/firmware/memmap",
    ] {
        let output = host
            .ssh(format!(
                "test -e {path} || exit 1; echo x 2>/dev/null >{path}"
            ))
            .run();
        assert_ne!(output.code, Some(0), "{path}");
    }
    assert_eq!(
        host.ssh("mount -t tmpfs none /mnt 2>/dev/null || echo refused")
            .run()
            .line(),
        "refused"
    );
}

/// CVE-2019-5736: a program of the pod must not reach the host's file behind it.
fn the_podspawn_program_cannot_be_written() {
    let host = Host::shared("debian");
    let command =
        "for p in /proc/[0-9]*; do (: >>$p/exe) 2>/dev/null && readlink $p/exe; done; echo end";
    let output = host.ssh(command).run();
    assert_eq!(output.text(), "end\n", "{output}");
}

fn root_of_the_container_is_not_the_user() {
    let host = Host::with_config("debian", "user: root\n");
    assert_eq!(host.ssh("id -u; cd; pwd").run().line(), "0\n/root");
    host.ssh("echo root >/tmp/of-root").run();
    let owner = host
        .ssh(": >/tmp/x; stat -c %u /tmp/x; awk '$1 == 0 { print $2 }' /proc/self/uid_map")
        .run()
        .line();
    let mut lines = owner.lines();
    assert_eq!(lines.next(), Some("0"));
    assert_ne!(lines.next(), Some(id("-u").as_str()));
}
