//! The kernel's ways out: system calls, namespaces, mounts, tracing, settings.

use super::both;
use crate::support::client::Output;
use crate::support::host::Host;
use crate::tests;

tests![
    the_filter_is_in_force,
    no_namespace_can_be_made_or_entered,
    nothing_can_be_mounted_or_unmounted,
    nothing_outside_can_be_traced,
    no_setting_of_the_kernel_can_be_written,
    keyrings_are_closed,
    control_groups_cannot_start_programs,
];

/// What perl says of a system call: its result, or the error's number.
fn call(host: &Host, call: &str) -> Output {
    let program = format!("my $r = syscall({call}); print $r < 0 ? 0 + $! : 'done';");
    host.ssh(format!("perl -e '{program}'")).run()
}

const EPERM: &str = "1";
const ENOSYS: &str = "38";

/// Numbers of system calls.
#[cfg(target_arch = "x86_64")]
mod number {
    pub const CLONE: u32 = 56;
    pub const PTRACE: u32 = 101;
    pub const ADD_KEY: u32 = 248;
    pub const KEYCTL: u32 = 250;
    pub const UNSHARE: u32 = 272;
    pub const SETNS: u32 = 308;
    pub const BPF: u32 = 321;
    pub const IO_URING_SETUP: u32 = 425;
    pub const FSOPEN: u32 = 430;
    pub const CLONE3: u32 = 435;
}
#[cfg(not(target_arch = "x86_64"))]
mod number {
    pub const CLONE: u32 = 220;
    pub const PTRACE: u32 = 117;
    pub const ADD_KEY: u32 = 217;
    pub const KEYCTL: u32 = 219;
    pub const UNSHARE: u32 = 97;
    pub const SETNS: u32 = 268;
    pub const BPF: u32 = 280;
    pub const IO_URING_SETUP: u32 = 425;
    pub const FSOPEN: u32 = 430;
    pub const CLONE3: u32 = 435;
}

fn the_filter_is_in_force() {
    for host in both() {
        let status = host
            .ssh("grep -e ^Seccomp: -e ^NoNewPrivs: /proc/self/status | cut -f2")
            .run();
        assert_eq!(status.line(), "1\n2", "{status}");
        for unwanted in [number::BPF, number::IO_URING_SETUP] {
            let answer = call(&host, &format!("{unwanted}, 0, 0, 0"));
            assert_eq!(answer.line(), EPERM, "system call {unwanted}: {answer}");
        }
        assert_eq!(
            call(&host, &format!("{}, 0, 0", number::CLONE3)).line(),
            ENOSYS
        );
    }
    // A program of another image, with a terminal or without, by sftp too.
    let busybox = Host::shared("busybox");
    let seen = busybox.ssh("grep -c '^Seccomp:.2' /proc/self/status").run();
    assert_eq!(seen.line(), "1");
}

fn no_namespace_can_be_made_or_entered() {
    for host in both() {
        for flag in [
            0x1000_0000,
            0x0002_0000,
            0x2000_0000,
            0x4000_0000,
            0x0800_0000,
        ] {
            let unshare = call(&host, &format!("{}, {flag}", number::UNSHARE));
            assert_eq!(unshare.line(), EPERM, "{flag:#x}: {unshare}");
            let clone = call(
                &host,
                &format!("{}, {flag} | 17, 0, 0, 0, 0", number::CLONE),
            );
            assert_eq!(clone.line(), EPERM, "{flag:#x}: {clone}");
        }
        let enter =
            "open(my $f, \"<\", \"/proc/1/ns/mnt\") or open($f, \"<\", \"/proc/self/ns/mnt\");";
        let program = format!(
            "{enter} print syscall({}, fileno($f), 0) < 0 ? 0 + $! : q(done)",
            number::SETNS
        );
        assert_eq!(host.ssh(format!("perl -e '{program}'")).run().line(), EPERM);
    }
}

fn nothing_can_be_mounted_or_unmounted() {
    for host in both() {
        for command in [
            "mount -t tmpfs none /mnt",
            "mount -t proc proc /mnt",
            "mount --bind /etc /mnt",
            "mount -o remount,rw /proc/sys",
            "mount -o remount,rw,bind /run/podspawn/guest",
            "umount /proc/sys",
            "umount -l /run/podspawn/guest",
            "chroot / /bin/true",
        ] {
            let output = host.ssh(command).run();
            assert_ne!(output.code, Some(0), "{command}: {output}");
        }
        assert_eq!(
            call(&host, &format!("{}, 0, 0", number::FSOPEN)).line(),
            EPERM
        );
    }
}

fn nothing_outside_can_be_traced() {
    const ATTACH: u32 = 16;
    for host in both() {
        let seen = host.ssh("cat /proc/[0-9]*/comm").run();
        for name in ["podspawn", "podspawn-pod", "sshd"] {
            assert!(!seen.text().lines().any(|line| line == name), "{seen}");
        }
    }
    let host = Host::shared("debian");
    // The container's init is root's there.
    let answer = call(&host, &format!("{}, {ATTACH}, 1, 0, 0", number::PTRACE));
    assert_eq!(answer.line(), EPERM, "{answer}");
    for place in ["root", "cwd", "mem", "environ", "fd/0"] {
        let output = host
            .ssh(format!("ls /proc/1/{place}/ || cat /proc/1/{place}"))
            .run();
        assert_ne!(output.code, Some(0), "{place}: {output}");
    }
}

fn no_setting_of_the_kernel_can_be_written() {
    let [_, root] = both();
    let output = root
        .ssh(
            "for f in $(find /proc/sys /sys -type f -perm /222 2>/dev/null) /proc/sysrq-trigger; do \
             case $f in */fs/cgroup/*) continue;; esac; \
             (: >>$f) 2>/dev/null && echo $f; done; echo end",
        )
        .run();
    assert_eq!(output.line(), "end", "{output}");
}

fn keyrings_are_closed() {
    for host in both() {
        let add = format!(
            "{}, (my $t = q(user)), (my $d = q(x)), (my $p = q(y)), 1, -3",
            number::ADD_KEY
        );
        assert_eq!(call(&host, &add).line(), EPERM);
        assert_eq!(
            call(&host, &format!("{}, 0, -3, 0", number::KEYCTL)).line(),
            EPERM
        );
    }
}

fn control_groups_cannot_start_programs() {
    let [_, root] = both();
    let output = root
        .ssh("find / -xdev -name release_agent -o -name notify_on_release 2>/dev/null; find /sys/fs/cgroup -name release_agent; find /sys/fs/cgroup -type f -exec sh -c '(: >>\"$0\") 2>/dev/null && echo \"$0\"' {} \\;; mkdir /sys/fs/cgroup/x 2>/dev/null && echo made; echo end")
        .run();
    assert_eq!(output.line(), "end", "{output}");
}
