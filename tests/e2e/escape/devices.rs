//! Devices: which there are, and that none can be made.

use crate::support::host::Host;
use crate::tests;

tests![
    no_device_can_be_made,
    devices_are_those_of_the_design_and_no_others,
    the_hosts_devices_cannot_be_changed,
];

/// As mknod(1) takes them: a disk, a virtual machine's disk, a loop device, all memory, …
const DEVICES: [&str; 12] = [
    "null c 1 3",
    "zero c 1 5",
    "mem c 1 1",
    "port c 1 4",
    "kmsg c 1 11",
    "tty c 5 0",
    "fuse c 10 229",
    "tun c 10 200",
    "kvm c 10 232",
    "loop0 b 7 0",
    "sda b 8 0",
    "vda b 253 0",
];

/// Where files are kept in every way that there is: the pod's root, memory, a kept home, a workspace.
const PLACES: [&str; 4] = ["/tmp", "/dev/shm", "~", "/workspace/default"];

/// As the session user and as root of the container, with a kept home and a kept workspace.
fn hosts() -> [Host; 2] {
    ["", "user: root\n"].map(|user| {
        let host = Host::with_config("debian", &format!("home: persistent\n{user}"));
        host.podfile("mount: bind\n");
        host
    })
}

fn no_device_can_be_made() {
    for host in hosts() {
        let home = host.ssh("echo ~").run().line();
        for place in PLACES {
            let place = place.replace('~', &home);
            let free = host.ssh(format!("touch {place}/file && rm {place}/file"));
            assert_eq!(free.run().line(), "", "a file can be made in {place}");
            for device in DEVICES {
                let (name, numbers) = device.split_once(' ').unwrap();
                let path = format!("{place}/{name}");
                let output = host.ssh(format!("mknod {path} {numbers}")).run();
                // That, and not that there is no mknod.
                let said = format!("mknod: {path}: Operation not permitted\n");
                assert_eq!(output.errors(), said, "{device} in {place}: {output}");
                assert_eq!(output.code, Some(1), "{device} in {place}");
                let there = host.ssh(format!("test -e {path}")).run();
                assert_eq!(there.code, Some(1), "{device} in {place}");
            }
        }
    }
}

/// Those that the OCI runtime specification wants of every container, as stat(1) says it.
const DESIGN: [&str; 15] = [
    "symbolic link, '/dev/fd' -> '/proc/self/fd', 0:0",
    "character special file, '/dev/full', 1:7",
    "directory, '/dev/mqueue', 0:0",
    "character special file, '/dev/null', 1:3",
    "symbolic link, '/dev/ptmx' -> 'pts/ptmx', 0:0",
    "directory, '/dev/pts', 0:0",
    "character special file, '/dev/pts/ptmx', 5:2",
    "character special file, '/dev/random', 1:8",
    "directory, '/dev/shm', 0:0",
    "symbolic link, '/dev/stderr' -> '/proc/self/fd/2', 0:0",
    "symbolic link, '/dev/stdin' -> '/proc/self/fd/0', 0:0",
    "symbolic link, '/dev/stdout' -> '/proc/self/fd/1', 0:0",
    "character special file, '/dev/tty', 5:0",
    "character special file, '/dev/urandom', 1:9",
    "character special file, '/dev/zero', 1:5",
];

/// Where the host's kernel shows its memory there is this too; what it leads to is masked.
const CORE: &str = "symbolic link, '/dev/kcore' -> '/proc/kcore'";

fn devices_are_those_of_the_design_and_no_others() {
    // Not find(1)'s own tests of kinds: they believe the directory, which has files to mount on.
    let list = "find /dev -mindepth 1 | LC_ALL=C sort | while read -r path; do
        stat -c '%F, %N, %Hr:%Lr' \"$path\"; done";
    for host in hosts() {
        let seen = host.ssh(list).run().line();
        let seen: Vec<&str> = seen.lines().filter(|line| !line.contains(CORE)).collect();
        assert_eq!(seen, DESIGN);
        let memory = host.ssh("head -c 1 /dev/kcore 2>/dev/null | wc -c").run();
        assert_eq!(memory.text(), "0\n", "{memory}");
        // Nor is there one anywhere else.
        let others = host
            .ssh("find / -xdev -path /proc -prune -o \\( -type c -o -type b \\) -print")
            .run();
        assert_eq!(others.text(), "", "{others}");
    }
}

/// They are the host's own, shown in the container.
fn the_hosts_devices_cannot_be_changed() {
    for host in hosts() {
        for device in ["null", "zero", "full", "tty", "random", "urandom"] {
            for command in ["chmod 600", "chown 0:0"] {
                let path = format!("/dev/{device}");
                let output = host.ssh(format!("{command} {path}")).run();
                assert_eq!(output.code, Some(1), "{command} {path}: {output}");
                let errors = output.errors();
                let refused = "Operation not permitted\n";
                assert!(errors.ends_with(refused), "{command} {path}: {output}");
            }
        }
    }
}
