//! Whether `podspawn verify-image` says what sessions then find.

use std::time::Duration;

use serde_json::Value;

use crate::support::host::Host;
use crate::tests;

tests![
    a_full_image_fits,
    what_is_missing_is_named,
    an_image_without_a_shell_does_not_fit,
    it_leaves_nothing,
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
    let left: Vec<_> = std::fs::read_dir(host.storage().join("pods"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .filter(|name| name.to_string_lossy().contains("verify"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}
