//! Whether `podspawn verify-image` says what sessions then find.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use crate::support::host::Host;
use crate::tests;

tests![
    a_full_image_fits,
    what_is_missing_is_named,
    an_image_without_a_shell_does_not_fit,
    it_leaves_nothing,
    it_leaves_nothing_where_homes_and_roots_are_kept,
];

fn verified(host: &Host, image: &str) -> (Option<i32>, Value) {
    let output = host.run(["verify-image", "--format", "json", &Host::reference(image)]);
    let found = serde_json::from_str(&output.text()).unwrap_or_else(|e| panic!("{e}: {output}"));
    (output.code, found)
}

fn finding<'a>(found: &'a Value, name: &str) -> &'a Value {
    let list = found["findings"].as_array().unwrap();
    let one = list.iter().find(|finding| finding["name"] == name);
    one.unwrap_or_else(|| panic!("{name} in {found}"))
}

fn a_full_image_fits() {
    let host = Host::empty(&Host::reference("busybox"));
    let (code, found) = verified(&host, "debian");
    assert_eq!(code, Some(0), "{found}");
    for name in [
        "shell",
        "sftp-server",
        "scp",
        "rsync",
        "git",
        "UTF-8 locale",
    ] {
        assert_eq!(finding(&found, name)["state"], "present", "{found}");
    }
    for name in [
        "ssh session",
        "sftp round trip",
        "scp round trip",
        "rsync round trip",
    ] {
        assert_eq!(finding(&found, name)["state"], "present", "{found}");
    }
    if crate::support::setup::get().ttys {
        assert_eq!(finding(&found, "terminal")["state"], "present", "{found}");
    }
}

fn what_is_missing_is_named() {
    let host = Host::with_image("busybox");
    let (code, found) = verified(&host, "busybox");
    assert_eq!(code, Some(0), "{found}");
    assert_eq!(finding(&found, "rsync")["state"], "missing");
    assert_eq!(finding(&found, "sftp-server")["state"], "injected");
    assert_eq!(finding(&found, "rsync round trip")["state"], "skipped");
    assert_eq!(
        finding(&found, "sftp round trip")["state"],
        "present",
        "{found}"
    );
    // The table for people says the same.
    let table = host.run(["verify-image", "--no-login", &Host::reference("busybox")]);
    assert_eq!(table.code, Some(0), "{table}");
    assert!(table.text().contains("injected by podspawn"), "{table}");
    assert!(
        table
            .text()
            .contains("for rsync: the image has no package manager"),
        "{table}"
    );
    assert_eq!(table.errors(), "");
}

fn an_image_without_a_shell_does_not_fit() {
    let host = Host::with_image("scratch-static");
    let (code, found) = verified(&host, "scratch-static");
    assert_eq!(code, Some(1), "{found}");
    assert_eq!(found["fits"], false);
    assert_eq!(finding(&found, "shell")["state"], "missing");
    assert_eq!(
        finding(&found, "scp round trip")["state"],
        "present",
        "{found}"
    );
}

/// No pod, no directory, and the user's own pod goes on.
fn it_leaves_nothing() {
    let host = Host::with_image("busybox");
    host.ssh("echo kept >/tmp/mine").run();
    let own = host.supervisors().len();
    assert_eq!(own, 1);
    verified(&host, "busybox");
    crate::support::wait_for(
        "the throw-away pod is gone",
        Duration::from_secs(20),
        || host.supervisors().len() == own,
    );
    assert_eq!(host.ssh("cat /tmp/mine").run().text(), "kept\n");
    let left: Vec<_> = fs::read_dir(host.storage().join("pods"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .filter(|name| name.to_string_lossy().contains("verify"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

fn names_in(dir: &Path) -> BTreeSet<OsString> {
    let entries = fs::read_dir(dir).unwrap();
    entries.map(|entry| entry.unwrap().file_name()).collect()
}

/// Whatever the configuration keeps of pods, it keeps nothing of this one, and the user's home on
/// the host is not where it tries to move files.
fn it_leaves_nothing_where_homes_and_roots_are_kept() {
    let host = Host::with_image("busybox");
    let own = host.dir.join("homes").join(&host.user);
    fs::create_dir_all(own.join("default")).unwrap();
    let homes_dir = format!(
        "state:\n  homes_dir: {}\n",
        host.dir.join("homes").display()
    );
    let reference = Host::reference("busybox");
    let moved = PathBuf::from(std::env::var("HOME").unwrap()).join("podspawn-verify");
    let places = [
        own,
        host.dir.join("run/podspawn"),
        host.storage().join("pods"),
    ];
    // What is made once and stays: a directory of claims, a file of numbers.
    verified(&host, "busybox");
    for config in [
        "session:\n  mode: persistent\nstorage:\n  keep_root: true\n",
        "session:\n  mode: destroy-on-disconnect\n",
        "session:\n  grace_period: 0s\nhome: persistent\n",
        "home: host\n",
    ] {
        host.configure(&format!(
            "defaults:\n  image: {reference}\nnetwork: none\n{homes_dir}{config}"
        ));
        let before = places.each_ref().map(|dir| names_in(dir));
        let (code, found) = verified(&host, "busybox");
        assert_eq!(code, Some(0), "{config}: {found}");
        host.wait_until_empty(Duration::from_secs(20));
        assert_eq!(
            places.each_ref().map(|dir| names_in(dir)),
            before,
            "{config}"
        );
        assert!(!moved.exists(), "{config}");
    }
}
