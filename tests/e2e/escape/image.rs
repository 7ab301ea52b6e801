//! Images made to harm: what podspawn reads of them, and what it writes into them.

use std::path::Path;

use crate::support::canary::Canary;
use crate::support::host::Host;
use crate::tests;

tests![
    a_hostile_image_reaches_nothing,
    accounts_and_profiles_of_an_image_stay_in_it,
    the_hosts_terminfo_cannot_be_changed,
];

/// What podspawn writes into an image goes where the image's links lead inside, or not at all.
fn a_hostile_image_reaches_nothing() {
    let canary = Canary::new(Path::new("/tmp/podspawn-canary"), &[], &["passwd", "group"]);
    for config in ["", "user: root\n", "security:\n  sudo: true\n"] {
        let host = Host::with_config("hostile", config);
        let output = host.ssh("cat /etc/passwd; echo in").run();
        if output.code == Some(0) {
            assert!(output.text().ends_with("in\n"), "{output}");
        } else {
            assert_eq!(output.code, Some(125), "{output}");
            assert_eq!(output.errors().lines().count(), 1, "{output}");
        }
        canary.is_untouched(config);
    }
}

/// Accounts, profiles, a shell and terminfo that leave a mark in a place that is inside and on the
/// host, where sessions could write; `/dev` is a link to another.
fn accounts_and_profiles_of_an_image_stay_in_it() {
    let place = "/tmp/podspawn-canary-files";
    let canary = Canary::new(
        Path::new(place),
        &["home", "dev", "terminfo", "terminfo/x"],
        &["home/.profile", "terminfo/x/xterm-256color"],
    );
    let marks = format!("cat {place}/marks");
    // As the account that the image has for it: home and shell are the image's.
    let host = Host::with_config("hostile-files", "user: image\n");
    let output = host.ssh(format!("id -un; echo ~; {marks}")).run();
    let expected = format!("evil\n{place}/home\nshell\nprofile\nown profile\n");
    assert_eq!(output.text(), expected, "{output}");
    canary.is_untouched("a command as the image's user");
    let output = host.login().input(format!("{marks}\n")).run();
    assert!(output.text().contains("own profile"), "{output}");
    canary.is_untouched("a shell as the image's user");
    for config in ["", "user: root\n"] {
        let host = Host::with_config("hostile-files", config);
        let shell = host.login().env("TERM", "xterm-256color");
        let output = shell.input(format!("{marks}; ls /dev/null\n")).run();
        assert_eq!(output.text(), "profile\n/dev/null\n", "{output}");
        canary.is_untouched(config);
    }
}

fn the_hosts_terminfo_cannot_be_changed() {
    let host = Host::with_config("debian", "user: root\n");
    let look = |what: &str| host.ssh(what).run().line();
    let dirs = look("ls -d /run/podspawn/terminfo.*");
    let entries = look("find /run/podspawn/terminfo.*/ -type f | head -n 2");
    assert!(!dirs.is_empty() && !entries.is_empty());
    // Were they the user's, as in a host's directory of theirs, the mount would still be read-only.
    let mounts = look("cut -d' ' -f5,6 /proc/self/mountinfo | grep '^/run/podspawn/'");
    assert_eq!(mounts.lines().count(), 1 + dirs.lines().count(), "{mounts}");
    for mount in mounts.lines() {
        assert!(mount.contains(" ro,"), "{mounts}");
    }
    let of_dirs = dirs.lines().flat_map(|dir| {
        [
            "touch @/new",
            "ln -s / @/link",
            "chmod 777 @",
            "mv @ /tmp/away",
        ]
        .map(|command| command.replace('@', dir))
    });
    let of_entries = entries.lines().flat_map(|entry| {
        [": >>@", "rm @", "chmod 777 @", "mv @ /tmp/away"]
            .map(|command| command.replace('@', entry))
    });
    for command in of_dirs.chain(of_entries) {
        let output = host.ssh(format!("({command}) 2>&1")).run();
        assert_ne!(output.code, Some(0), "{command}: {output}");
        // For the directory, for its mount, or for a file of somebody who has no id in the pod.
        let refusals = [
            "Read-only file system",
            "Device or resource busy",
            "Permission denied",
            "Operation not permitted",
        ];
        let refused = refusals.iter().any(|why| output.text().contains(why));
        assert!(refused, "{command}: {output}");
    }
}
