//! Ways out of a container, each tried; and what the section `security` opens or closes.
//!
//! What is tried as an ordinary user is tried as root of the container too, who may do more.

use std::fs;
use std::path::Path;

use crate::support::client::Output;
use crate::support::host::Host;
use crate::tests;

tests![
    the_filter_is_in_force,
    no_namespace_can_be_made_or_entered,
    nothing_can_be_mounted_or_unmounted,
    nothing_outside_can_be_traced,
    the_program_behind_a_process_cannot_be_written,
    no_descriptor_of_the_host_is_open,
    no_device_can_be_made,
    no_setting_of_the_kernel_can_be_written,
    keyrings_are_closed,
    control_groups_cannot_start_programs,
    a_hostile_image_reaches_nothing,
    uploads_do_not_run_on_the_host,
    sudo_works_when_it_is_on,
    sudo_does_not_when_it_is_off,
    capabilities_are_what_the_configuration_says,
    a_read_only_root_takes_nothing,
];

/// The shared host, and one whose sessions are root of the container.
fn both() -> [std::sync::Arc<Host>; 2] {
    let root = Host::with_config("debian", "user: root\n");
    [Host::shared("debian"), std::sync::Arc::new(root)]
}

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

/// CVE-2019-5736.
fn the_program_behind_a_process_cannot_be_written() {
    let guest = |host: &Host| {
        let dir = host.storage().join("guest");
        let mut files: Vec<_> = fs::read_dir(dir)
            .unwrap()
            .map(|f| fs::read(f.unwrap().path()).unwrap())
            .collect();
        files.sort();
        files
    };
    for host in both() {
        host.ssh("true").run();
        let before = guest(&host);
        for target in [
            "/proc/1/exe",
            "/proc/self/exe",
            "/run/podspawn/guest",
            "/usr/lib/openssh/sftp-server",
        ] {
            let command = format!("cp {target} /tmp/x 2>/dev/null; exec 3>>{target} && echo x >&3");
            // The image's own files are the pod's to change: what runs for podspawn is not.
            if target.starts_with("/usr") {
                continue;
            }
            let output = host.ssh(command).run();
            assert_ne!(output.code, Some(0), "{target}: {output}");
        }
        // A session that begins while a program waits to catch it in /proc.
        let watch = host.ssh(
            "n=0; while [ $n -lt 300 ]; do n=$((n+1)); for p in /proc/[0-9]*; do \
             (: >>$p/exe) 2>/dev/null && readlink $p/exe; done; done; echo end",
        );
        let watcher = std::thread::scope(|scope| {
            let watcher = scope.spawn(|| watch.run());
            for _ in 0..5 {
                host.ssh("true").run();
            }
            watcher.join().unwrap()
        });
        assert_eq!(watcher.text(), "end\n", "{watcher}");
        assert_eq!(guest(&host), before);
    }
}

fn no_descriptor_of_the_host_is_open() {
    for host in both() {
        // Of ls itself: its streams, and the directory.
        let output = host
            .ssh("ls -l /proc/self/fd | grep -v '^total' | { grep -cv -e pipe: -e socket: -e /proc/ || true; }")
            .run();
        assert_eq!(output.line(), "0", "{output}");
        assert_eq!(host.ssh("ls /proc/self/fd | wc -l").run().line(), "4");
    }
}

fn no_device_can_be_made() {
    for host in both() {
        for command in [
            "mknod /tmp/null c 1 3",
            "mknod /tmp/disk b 8 0",
            "cat /dev/sda /dev/vda /dev/mem /dev/kmsg",
        ] {
            let output = host.ssh(command).run();
            assert_ne!(output.code, Some(0), "{command}: {output}");
        }
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

/// What podspawn writes into an image goes where the image's links lead inside, or not at all.
fn a_hostile_image_reaches_nothing() {
    let canary = Path::new("/tmp/podspawn-canary");
    let _ = fs::remove_dir_all(canary);
    fs::create_dir(canary).unwrap();
    for name in ["passwd", "group"] {
        fs::write(canary.join(name), "root::0:0::/:/bin/sh\n").unwrap();
    }
    for config in ["", "user: root\n", "security:\n  sudo: true\n"] {
        let host = Host::with_config("hostile", config);
        let output = host.ssh("cat /etc/passwd; echo in").run();
        if output.code == Some(0) {
            assert!(output.text().ends_with("in\n"), "{output}");
        } else {
            assert_eq!(output.code, Some(125), "{output}");
            assert_eq!(output.errors().lines().count(), 1, "{output}");
        }
    }
    let mut names: Vec<_> = fs::read_dir(canary)
        .unwrap()
        .map(|f| f.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["group", "passwd"]);
    for name in ["passwd", "group"] {
        assert_eq!(
            fs::read_to_string(canary.join(name)).unwrap(),
            "root::0:0::/:/bin/sh\n"
        );
    }
    fs::remove_dir_all(canary).unwrap();
}

/// A shell that sshd starts on the host reads none of what a client can put into its home.
fn uploads_do_not_run_on_the_host() {
    let host = Host::with_image("debian");
    let home = Path::new(&std::env::var("HOME").unwrap()).to_owned();
    let before =
        [".bashrc", ".profile", ".ssh/rc", ".pam_environment"].map(|name| home.join(name).exists());
    let made = host.ssh("mkdir -p ~/.ssh && for f in .bashrc .profile .ssh/rc .pam_environment; do echo 'echo evil >&2; touch /tmp/podspawn-evil' >~/$f; done").run();
    assert_eq!(made.code, Some(0), "{made}");
    let after =
        [".bashrc", ".profile", ".ssh/rc", ".pam_environment"].map(|name| home.join(name).exists());
    assert_eq!(before, after);
    let next = host.ssh("true").run();
    assert_eq!(
        (next.code, next.errors()),
        (Some(0), "evil\n".to_owned()),
        "bash reads it in the container: {next}"
    );
    assert!(!Path::new("/tmp/podspawn-evil").exists());
    host.ssh("rm -f ~/.bashrc ~/.profile ~/.ssh/rc ~/.pam_environment")
        .run();
}

fn sudo_works_when_it_is_on() {
    let host = Host::with_config("debian", "security:\n  sudo: true\n");
    let output = host.ssh("sudo -n id -u && sudo -n sh -c 'chown 0:0 ~ && touch /etc/by-root && stat -c %u /etc/by-root'").run();
    assert_eq!(output.text(), "0\n0\n", "{output}");
    assert_eq!(output.code, Some(0), "{output}");
    // Root of the container is confined all the same.
    let root = host.ssh("sudo -n grep ^Seccomp: /proc/self/status; sudo -n mount -t tmpfs none /mnt || echo refused").run();
    assert_eq!(root.text(), "Seccomp:\t2\nrefused\n", "{root}");
}

fn sudo_does_not_when_it_is_off() {
    let host = Host::shared("debian");
    let output = host.ssh("sudo -n id -u").run();
    assert_ne!(output.code, Some(0), "{output}");
    assert_eq!(output.text(), "");
}

fn capabilities_are_what_the_configuration_says() {
    let bounding = |host: &Host| {
        host.ssh("grep ^CapBnd /proc/self/status | cut -f2")
            .run()
            .line()
    };
    // chown, dac_override, fowner, setgid, setuid, net_bind_service.
    assert_eq!(bounding(&Host::shared("debian")), "00000000000004cb");
    let none = Host::with_config("debian", "security:\n  cap_add: []\n");
    assert_eq!(bounding(&none), "0000000000000000");
    let some = Host::with_config("debian", "security:\n  cap_add: [CAP_SYS_CHROOT, kill]\n");
    assert_eq!(bounding(&some), format!("{:016x}", 1u64 << 18 | 1 << 5));
}

fn a_read_only_root_takes_nothing() {
    let host = Host::with_config(
        "debian",
        "security:\n  readonly_rootfs: true\n  tmpfs:\n    /tmp: size=1m,mode=1777\n    /var/tmp:\n",
    );
    let output = host
        .ssh("touch /x /etc/x ~/x 2>/dev/null; touch /tmp/x /var/tmp/x && ls /tmp /var/tmp")
        .run();
    assert_eq!(output.text(), "/tmp:\nx\n\n/var/tmp:\nx\n", "{output}");
    let full = host.ssh("head -c 2000000 /dev/zero >/tmp/big").run();
    assert_ne!(full.code, Some(0), "{full}");
    assert_eq!(host.ssh("touch /x").run().code, Some(1));
}
