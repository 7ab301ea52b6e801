//! A kept root that was tampered with between two pods: links to the host in the places that the
//! next pod is set up in.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;

use crate::support::canary::Canary;
use crate::support::client::local;
use crate::support::host::Host;
use crate::support::process::signal;
use crate::tests;

tests![
    links_in_a_kept_root_lead_nowhere,
    links_that_the_container_made_lead_nowhere,
];

/// What podspawn writes, and what it mounts something on.
const PLACES: [&str; 20] = [
    "/dev",
    "/dev/pts",
    "/etc",
    "/etc/group",
    "/etc/hostname",
    "/etc/hosts",
    "/etc/passwd",
    "/etc/resolv.conf",
    "/etc/sudoers.d",
    "/home",
    "/proc",
    "/root",
    "/run",
    "/run/podspawn",
    "/run/podspawn/guest",
    "/run/ssh-agent",
    "/sys",
    "/tmp",
    "/usr/lib/openssh",
    "/workspace",
];

const KEEPING: &str = "session:\n  mode: persistent\nstorage:\n  keep_root: true\n";

/// A host whose pods keep their root and have a workspace.
fn keeping(user: &str) -> Host {
    let more = "security:\n  sudo: true\n";
    let host = Host::with_config("busybox", &format!("{KEEPING}{user}{more}"));
    host.podfile("mount: bind\n");
    host
}

#[track_caller]
fn end(host: &Host) {
    for supervisor in host.supervisors() {
        signal(supervisor.pid, Signal::TERM);
    }
    host.wait_until_empty(Duration::from_secs(30));
}

/// Runs a script on the host as root of the user's own namespace, to whom files of pods belong.
#[track_caller]
fn as_their_root(script: &str, arguments: &[&Path]) {
    let mapped = ["--user", "--map-auto", "--map-root-user", "sh", "-euc"].map(PathBuf::from);
    let words = mapped.into_iter().chain([script.into(), "sh".into()]);
    let output = local("unshare", words.chain(arguments.iter().map(PathBuf::from)));
    assert_eq!(output.code, Some(0), "{output}");
}

/// A pod is made of what is there, or is refused in one line.
#[track_caller]
fn comes_up_or_is_refused(host: &Host, what: &str) {
    let output = host.ssh("echo in").run();
    match output.code {
        Some(0) => assert_eq!(output.text(), "in\n", "{what}: {output}"),
        code => {
            assert_eq!(code, Some(125), "{what}: {output}");
            output.complaint();
        }
    }
}

/// The user's own doing, on the host: any place can be a link, those of mounts too.
fn links_in_a_kept_root_lead_nowhere() {
    let host = keeping("");
    let kept = host.storage().join("pods/default/kept");
    let (upper, saved) = (kept.join("upper"), host.dir.join("saved"));
    assert_eq!(host.ssh("echo fresh").run().line(), "fresh");
    end(&host);
    as_their_root("cp -a \"$1\" \"$2\"", &[&kept, &saved]);
    let outside = host.dir.join("outside");
    // What is there would be changed, what is not would be made: by libcontainer `fd`, which one
    // that is there would stop.
    let dirs = [
        "pts",
        "podspawn",
        "ssh-agent",
        "default",
        host.user.as_str(),
    ];
    let files = ["guest", "passwd", "group", "hosts", "ptmx"];
    let canary = Canary::new(&outside, &dirs, &files);
    let (far, up) = ("/..".repeat(20), outside.display());
    let links = [outside.clone(), PathBuf::from(format!(".{far}{up}"))];
    for place in PLACES {
        // With the same directory inside, where the link leads to, and without.
        for (link, inside) in [(&links[0], "yes"), (&links[0], "no"), (&links[1], "yes")] {
            let script = "rm -rf \"$6\"; cp -a \"$7\" \"$6\"; cd \"$1\"
                case $4 in yes) mkdir -p \".$3/pts\" \".$3/ssh-agent\";; esac
                mkdir -p \".${2%/*}\"; rm -rf \".$2\"; ln -s \"$5\" \".$2\"; test -h \".$2\"";
            let (place, inside) = (Path::new(place), Path::new(inside));
            as_their_root(
                script,
                &[&upper, place, &outside, inside, link, &kept, &saved],
            );
            let (place, inside) = (place.display(), inside.display());
            let what = format!("{place} -> {}, inside: {inside}", link.display());
            comes_up_or_is_refused(&host, &what);
            end(&host);
            canary.is_untouched(&what);
        }
    }
}

/// What a program in the pod can do itself: everything but to what is mounted.
fn links_that_the_container_made_lead_nowhere() {
    let host = keeping("user: root\n");
    let outside = host.dir.join("outside");
    let canary = Canary::new(&outside, &["podspawn", "ssh-agent"], &["passwd", "hosts"]);
    let at = outside.display();
    for tampered in [
        format!("rm /etc/passwd /etc/hosts; ln -s {at}/passwd {at}/hosts /etc/"),
        format!("mv /etc /moved; ln -s {at} /etc"),
        format!("mv /run /moved; ln -s {at} /run"),
        format!("mkdir -p {at}; mv /run /moved; ln -s {at} /run"),
        format!("mv /workspace /moved; ln -s {at} /workspace"),
        format!("mv /home /moved; ln -s {at} /home"),
    ] {
        let made = host.ssh(format!("{tampered} && echo made")).run();
        assert_eq!(made.text(), "made\n", "{tampered}: {made}");
        end(&host);
        comes_up_or_is_refused(&host, &tampered);
        end(&host);
        canary.is_untouched(&tampered);
        let kept = host.storage().join("pods/default/kept");
        as_their_root("rm -rf \"$1\"", &[&kept]);
    }
}
