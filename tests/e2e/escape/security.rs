//! What the section `security` of the configuration opens and closes.

use crate::support::host::Host;
use crate::tests;

tests![
    sudo_works_when_it_is_on,
    sudo_does_not_when_it_is_off,
    capabilities_are_what_the_configuration_says,
    a_read_only_root_takes_nothing,
];

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
