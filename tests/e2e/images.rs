//! Images from a registry and from files, as a user meets them: pulled, logged in to, refused.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use crate::support::client::Output;
use crate::support::host::Host;
use crate::support::terminal::Terminal;
use crate::support::{setup, wait_for};
use crate::tests;

tests![
    busybox_runs,
    alpine_like_runs,
    debian_runs,
    a_hundred_and_twenty_layers_run,
    tricky_layers_are_as_they_should_be,
    one_static_program_runs,
    an_index_is_resolved_for_this_machine,
    dockers_manifest_is_understood,
    a_docker_save_archive_loads,
    a_layout_loads_under_a_name,
    a_login_pulls_what_is_missing,
    a_login_shows_progress_on_a_terminal,
    images_are_listed_and_removed,
    an_image_in_use_stays_usable,
    refused_unknown_image,
    refused_unknown_tag,
    refused_without_password,
    refused_other_platform,
    refused_damaged_blob,
    refused_truncated_blob,
    refused_bad_reference,
    refused_silent_host,
    refused_missing_file,
    a_login_without_its_image_says_why,
    a_bad_configuration_is_one_line,
];

fn reference(name: &str) -> String {
    format!("{}/podspawn/{name}", setup::get().registry)
}

/// A host that pulled this image by a command and makes pods of it.
fn pulled(name: &str) -> Host {
    let reference = reference(name);
    let host = Host::empty(&reference);
    let output = host.run(["pull", &reference]);
    assert_eq!(output.code, Some(0), "{output}");
    host
}

fn busybox_runs() {
    let host = pulled("busybox:1");
    assert_eq!(
        host.ssh("cat /etc/group; test -x /bin/busybox && echo $((1+1))")
            .run()
            .line()
            .lines()
            .last(),
        Some("2")
    );
}

fn alpine_like_runs() {
    let host = pulled("alpine-like:1");
    assert_eq!(
        host.ssh(
            ". /etc/os-release; echo $ID $FROM_IMAGE; ls /bin/bash 2>/dev/null || echo no bash"
        )
        .run()
        .line(),
        "alpine-like alpine-like\nno bash"
    );
}

fn debian_runs() {
    let host = pulled("debian:1");
    let output = host.ssh("cat /etc/motd; ls -d /usr/share/doc /usr/share/man 2>/dev/null; dpkg --verify --verify-format rpm 2>/dev/null | grep -v -e /usr/share/doc -e /usr/share/man -e /usr/share/info | grep -v ' c '").run();
    // Nothing but what the last layer removed differs from what dpkg installed.
    assert_eq!(output.text(), "Welcome to the pod.\n", "{output}");
    assert_eq!(
        host.ssh("stat -c '%a %U' /usr/bin/passwd /tmp /root")
            .run()
            .line(),
        "4755 root\n1777 root\n700 root"
    );
}

fn a_hundred_and_twenty_layers_run() {
    let host = pulled("layers120:1");
    assert_eq!(
        host.ssh("cat /top; ls /layers | sort -n").run().line(),
        "120\n119\n120"
    );
}

fn tricky_layers_are_as_they_should_be() {
    let host = pulled("tricky:1");
    let ok = |command: &str, expected: &str| {
        assert_eq!(host.ssh(command).run().line(), expected, "{command}")
    };
    ok("ls /t/removed 2>/dev/null || cat /t/kept", "top");
    ok("ls -A /t/opaque", "new");
    ok(
        "cat /t/file-then-dir/inside /t/dir-then-file",
        "inside\na file",
    );
    ok("cat /t/links/a/one; ls /t/links/b", "linked");
    ok("cat /t/links/across-layers", "linked");
    ok(
        "stat -c '%a %u:%g' /t/modes /t/modes/setuid /t/modes/setgid /t/modes/sticky",
        "2775 7:8\n4755 0:0\n2755 0:8\n1777 0:0",
    );
    ok("stat -c '%a %u:%g' /t/modes/owned", "640 1234:4321");
    ok("ls /t/names | wc -l", "7");
    ok("cat /t/names/latin-*", "latin");
    ok(
        "cat /t/names/nnnnn*; cat $(find /t/names -name leaf)",
        "long\ndeep",
    );
    ok(
        "cat '/t/names/new\nline and space' /t/names/to-latin; readlink /t/names/dangling",
        "newline\nlatin\n/nowhere/at/all",
    );
    ok(
        "wc -c </t/sparse; head -c 5 /t/sparse; tail -c 3 /t/sparse; dd if=/t/sparse bs=1 skip=5242880 count=6 2>/dev/null",
        "10485760\nbeginendmiddle",
    );
    ok(
        "test $(du -k /t/sparse | cut -f1) -lt 100 && test -p /t/fifo && echo yes",
        "yes",
    );
    ok("cat /t/removed-then-back /t/modes/implied", "back\nimplied");
}

fn one_static_program_runs() {
    let host = pulled("scratch-static:1");
    // There is no shell to ask.
    let output = host.ssh("true").run();
    assert_eq!(output.code, Some(127), "{output}");
    assert!(
        output.complaint().contains("shell") || output.complaint().contains("/bin/sh"),
        "{output}"
    );
    let output = host.login().run();
    assert_eq!(output.code, Some(127), "{output}");
    output.complaint();
}

fn an_index_is_resolved_for_this_machine() {
    let host = pulled("multiarch:1");
    assert_eq!(
        host.ssh("ls /wrong-platform 2>/dev/null; echo right")
            .run()
            .line(),
        "right"
    );
}

fn dockers_manifest_is_understood() {
    let host = pulled("busybox:docker");
    assert_eq!(host.ssh("echo docker").run().line(), "docker");
}

fn a_docker_save_archive_loads() {
    let host = Host::empty("docker.io/podspawn-test/saved:1");
    let archive = setup::get().stage.join("images/docker-save.tar");
    let output = host.run(["load".into(), archive]);
    assert_eq!(output.code, Some(0), "{output}");
    assert_eq!(host.ssh("echo $FROM_IMAGE").run().line(), "alpine-like");
}

fn a_layout_loads_under_a_name() {
    let host = Host::empty("localhost/named:7");
    let layout = setup::get().stage.join("images/alpine-like");
    let output = host.run([
        "load".as_ref(),
        layout.as_os_str(),
        "--name".as_ref(),
        "localhost/named:7".as_ref(),
    ]);
    assert_eq!(output.code, Some(0), "{output}");
    assert_eq!(host.ssh("echo $FROM_IMAGE").run().line(), "alpine-like");
}

fn a_login_pulls_what_is_missing() {
    let host = Host::empty(&reference("debian:1"));
    let output = host.ssh("true").limit(120).run();
    assert_eq!(
        (output.code, output.text(), output.errors()),
        (Some(0), String::new(), String::new())
    );
    assert_eq!(
        host.ssh("cat /etc/motd").run().line(),
        "Welcome to the pod."
    );
}

fn a_login_shows_progress_on_a_terminal() {
    if !setup::get().ttys {
        return;
    }
    let host = Host::empty(&reference("debian:1"));
    let mut client = Terminal::open(host.ssh("echo arr''ived").option("-t").command());
    client.expect("arrived");
    assert!(client.wait().success());
    assert!(
        client.raw().contains("debian"),
        "no progress was shown: {:?}",
        client.raw()
    );
}

fn images_are_listed_and_removed() {
    let host = pulled("busybox:1");
    let reference = reference("busybox:1");
    let listed = host.run(["images"]);
    assert_eq!(listed.code, Some(0), "{listed}");
    // Repository and tag may be columns of their own.
    let repository = reference.trim_end_matches(":1");
    assert!(listed.text().contains(repository), "{listed}");
    let removed = host.run(["rmi", &reference]);
    assert_eq!(removed.code, Some(0), "{removed}");
    assert!(!host.run(["images"]).text().contains(repository));
    assert_eq!(layers(&host), 0);
    let again = host.run(["rmi", &reference]);
    assert_eq!(again.code, Some(125), "{again}");
    again.complaint();
}

fn an_image_in_use_stays_usable() {
    let host = pulled("busybox:1");
    let client = host
        .ssh("sleep 3; cat /etc/group >/dev/null && ls /bin/busybox")
        .spawn();
    wait_for("the pod is up", Duration::from_secs(20), || {
        !host.supervisors().is_empty()
    });
    // Refused, or put off until the pod is gone: the pod must not lose its files.
    host.run(["rmi", &reference("busybox:1")]);
    let output =
        crate::support::client::finish(client, Vec::new(), Duration::from_secs(20)).unwrap();
    assert_eq!(output.line(), "/bin/busybox");
}

fn layers(host: &Host) -> usize {
    fs::read_dir(host.storage().join("v1/layers"))
        .into_iter()
        .flatten()
        .count()
}

/// One line, status 125, and nothing half stored.
#[track_caller]
fn refused(arguments: &[&str], words: &[&str]) -> (Host, Output) {
    let host = Host::empty(&reference("busybox:1"));
    let output = host.run(arguments);
    assert_eq!(output.code, Some(125), "{output}");
    assert!(output.stdout.is_empty(), "{output}");
    let line = output.complaint();
    for word in words {
        assert!(line.contains(word), "{word:?} is not in: {line}");
    }
    assert_nothing_stored(&host);
    (host, output)
}

#[track_caller]
fn assert_nothing_stored(host: &Host) {
    for part in ["v1/tmp", "v1/images", "v1/refs", "v1/layers"] {
        let left: Vec<_> = fs::read_dir(host.storage().join(part))
            .into_iter()
            .flatten()
            .flatten()
            .map(|e| e.path())
            .collect();
        assert!(left.is_empty(), "left: {left:?}");
    }
}

fn refused_unknown_image() {
    let reference = reference("no-such-image:1");
    refused(&["pull", &reference], &[&reference]);
}

fn refused_unknown_tag() {
    let reference = reference("busybox:no-such-tag");
    refused(&["pull", &reference], &[&reference]);
}

fn refused_without_password() {
    let reference = format!("{}/private/busybox:1", setup::get().private);
    refused(&["pull", &reference], &[&reference, "401"]);
}

fn refused_other_platform() {
    let reference = reference("other-platform:1");
    refused(&["pull", &reference], &[&reference, "linux"]);
}

/// Changes the blob of this image's last layer in the registry's own storage.
fn damage(name: &str, change: impl FnOnce(&mut Vec<u8>)) -> String {
    let setup = setup::get();
    let layout = setup.stage.join("images").join(name);
    let read =
        |path: PathBuf| -> Value { serde_json::from_slice(&fs::read(path).unwrap()).unwrap() };
    let blob = |descriptor: &Value| {
        descriptor["digest"]
            .as_str()
            .unwrap()
            .strip_prefix("sha256:")
            .unwrap()
            .to_owned()
    };
    let manifest = blob(&read(layout.join("index.json"))["manifests"][0]);
    let manifest = read(layout.join("blobs/sha256").join(manifest));
    let layer = blob(manifest["layers"].as_array().unwrap().last().unwrap());
    let stored = format!(
        "docker/registry/v2/blobs/sha256/{}/{layer}/data",
        &layer[..2]
    );
    let stored = setup.registry_storage.join(stored);
    let mut bytes = fs::read(&stored).unwrap();
    change(&mut bytes);
    fs::write(&stored, bytes).unwrap();
    reference(&format!("{name}:1"))
}

/// A pull that fails at one layer: those that were whole may stay, for the next attempt.
#[track_caller]
fn refused_at_a_layer(reference: &str, word: &str) {
    let host = Host::empty(reference);
    let output = host.run(["pull", reference]);
    assert_eq!(output.code, Some(125), "{output}");
    // Before that it says how far it came.
    let line = output.errors().lines().last().unwrap().to_owned();
    assert!(line.starts_with("podspawn: "), "{output}");
    assert!(line.contains(reference) && line.contains(word), "{line}");
    for part in ["v1/tmp", "v1/images", "v1/refs"] {
        let left: Vec<_> = fs::read_dir(host.storage().join(part))
            .into_iter()
            .flatten()
            .flatten()
            .collect();
        assert!(left.is_empty(), "left: {left:?}");
    }
    assert!(layers(&host) <= 1);
    let login = host.ssh("true").run();
    assert_eq!(login.code, Some(125), "{login}");
    login.complaint();
}

fn refused_damaged_blob() {
    let reference = damage("to-damage", |bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
    });
    refused_at_a_layer(&reference, "digest");
}

fn refused_truncated_blob() {
    let reference = damage("to-truncate", |bytes| bytes.truncate(bytes.len() - 100_000));
    refused_at_a_layer(&reference, "bytes");
}

fn refused_bad_reference() {
    for bad in ["127.0.0.1/Upper:1", "a b", "../../etc", "busybox:1:2", ""] {
        refused(&["pull", bad], &["reference"]);
    }
}

fn refused_silent_host() {
    // Nothing listens on the discard port of loopback.
    let reference = "127.0.0.1:9/podspawn/busybox:1";
    let host = Host::empty(reference);
    let output = host.run(["pull", reference]);
    assert_eq!(output.code, Some(125), "{output}");
    // Before that it says that it tries again.
    let last = output.errors().lines().last().unwrap().to_owned();
    assert!(
        last.starts_with("podspawn: ") && last.contains(reference),
        "{output}"
    );
    assert_nothing_stored(&host);
    // A login without a terminal keeps that to itself.
    let login = host.ssh("true").run();
    assert_eq!(login.code, Some(125), "{login}");
    assert!(login.complaint().contains(reference), "{login}");
}

fn refused_missing_file() {
    refused(&["load", "/no/such/file.tar"], &["/no/such/file.tar"]);
    refused(&["load", "/etc/passwd"], &["/etc/passwd"]);
}

fn a_login_without_its_image_says_why() {
    let wanted = reference("no-such-image:1");
    let host = Host::empty(&wanted);
    let output = host.ssh("true").run();
    assert_eq!(output.code, Some(125), "{output}");
    assert!(output.stdout.is_empty(), "{output}");
    assert!(output.complaint().contains(&wanted), "{output}");
    host.wait_until_empty(Duration::from_secs(5));
}

fn a_bad_configuration_is_one_line() {
    let host = Host::with_image("busybox");
    let file = host.dir.join("config.yaml");
    for (text, words) in [
        ("defaults:\n  imgae: busybox\n", ["imgae", "2"]),
        (
            "defaults:\n  image: busybox\nsession:\n  grace_period: soon\n",
            ["grace_period", "4"],
        ),
        ("defaults: [\n", ["config.yaml", "yaml"]),
    ] {
        host.configure(text);
        let output = host.ssh("true").run();
        assert_eq!(output.code, Some(125), "{output}");
        let line = output.complaint();
        assert!(line.contains(file.to_str().unwrap()), "{line}");
        for word in words {
            assert!(line.contains(word), "{word:?} is not in: {line}");
        }
    }
}
