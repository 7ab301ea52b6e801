//! The store's upkeep: prune, df, check and repair, and what a host's users share.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::support::client;
use crate::support::host::Host;
use crate::support::{setup, wait_for};
use crate::tests;

tests![
    prune_leaves_what_a_pod_uses,
    prune_and_df_agree,
    damage_is_found_and_mended,
    damage_that_cannot_be_mended_stays_and_says_so,
    what_root_pulled_for_all_nobody_fetches,
];

const LIMIT: Duration = Duration::from_secs(60);

/// Runs a line of shell where the files of layers can be changed.
fn as_owner(line: &str) {
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-auto", "--map-root-user", "sh", "-ec", line]);
    let output = client::run(command, Vec::new(), LIMIT);
    assert_eq!(output.code, Some(0), "{output}");
}

fn layers(host: &Host) -> Vec<String> {
    let entries = fs::read_dir(host.storage().join("v1/layers")).unwrap();
    entries
        .map(|e| e.unwrap().path().display().to_string())
        .collect()
}

fn prune_leaves_what_a_pod_uses() {
    let host = Host::with_image("busybox");
    let reference = Host::reference("busybox");
    let client = host.ssh("read line; ls /bin/busybox").spawn();
    wait_for("the pod is up", LIMIT, || !host.supervisors().is_empty());
    let removed = host.run(["rmi", &reference]);
    assert_eq!(removed.code, Some(0), "{removed}");
    let pruned = host.run(["prune", "--all"]);
    assert_eq!(pruned.code, Some(0), "{pruned}");
    assert!(pruned.errors().contains("in use"), "{pruned}");
    assert_eq!(layers(&host).len(), 1);
    let output = client::finish(client, b"go\n".to_vec(), LIMIT).unwrap();
    assert_eq!(output.line(), "/bin/busybox");
    host.wait_until_empty(LIMIT);
    let pruned = host.run(["prune"]);
    assert!(pruned.text().contains("deleted sha256:"), "{pruned}");
    assert!(pruned.text().contains("1 layer removed"), "{pruned}");
    assert_eq!(layers(&host).len(), 0);
}

fn prune_and_df_agree() {
    let host = Host::with_image("busybox");
    let df = |host: &Host| -> serde_json::Value {
        let output = host.run(["df", "--format", "json"]);
        assert_eq!(output.code, Some(0), "{output}");
        serde_json::from_str(&output.text()).unwrap()
    };
    let before = df(&host);
    assert_eq!(before["totals"]["images"]["count"], 1);
    assert!(
        before["totals"]["images"]["size"].as_u64().unwrap() > 500_000,
        "{before}"
    );
    assert_eq!(before["totals"]["images"]["reclaimable"], 0);
    assert!(host.run(["df"]).line().starts_with("WHAT "));
    // Nothing is lost to a prune that has nothing to do.
    assert!(host.run(["prune"]).line().starts_with("0 layers"));
    let pruned = host.run(["prune", "--all", "--format", "json"]);
    let pruned: serde_json::Value = serde_json::from_str(&pruned.line()).unwrap();
    assert_eq!(pruned["layers"].as_array().unwrap().len(), 1);
    assert!(pruned["freed"].as_u64().unwrap() > 500_000, "{pruned}");
    assert_eq!(df(&host)["totals"]["images"]["size"], 0);
    // A store that is not there is not made.
    let empty = Host::empty("x");
    for verb in [&["prune"][..], &["df"], &["store", "check"]] {
        let output = empty.run(verb);
        assert_eq!(output.code, Some(0), "{output}");
    }
    assert!(!empty.storage().exists());
}

fn damage_is_found_and_mended() {
    let host = Host::with_image("debian");
    let well = host.run(["store", "check"]);
    assert_eq!(
        well.line(),
        "1 name, 1 image and 6 layers are as they should be"
    );
    let passwd = layers(&host);
    let mut passwd = passwd.iter().map(|layer| format!("{layer}/fs/etc/passwd"));
    let passwd = passwd.find(|file| Path::new(file).exists()).unwrap();
    let before = fs::read(&passwd).unwrap();
    as_owner(&format!("sed -i s/root/toor/ {passwd}"));
    let found = host.run(["store", "check", "--no-repair"]);
    assert_eq!(found.code, Some(125), "{found}");
    assert!(
        found.complaint().contains("not those that were unpacked"),
        "{found}"
    );
    let mended = host.run(["store", "check"]);
    assert_eq!(mended.code, Some(0), "{mended}");
    assert!(
        mended
            .text()
            .starts_with("mended; 1 name, 1 image and 6 layers"),
        "{mended}"
    );
    assert_eq!(fs::read(&passwd).unwrap(), before);

    // A layer, a configuration and a name that are gone or cut short.
    let v1 = host.storage().join("v1");
    let image = fs::read_dir(v1.join("images"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    as_owner(&format!(
        "rm -rf {}; : > {}/config.json",
        layers(&host)[0],
        image.display()
    ));
    let mended = host.run(["store", "check"]);
    assert_eq!(mended.code, Some(0), "{mended}");
    as_owner(&format!("rm -rf {}", image.display()));
    let mended = host.run(["store", "check"]);
    assert_eq!(mended.code, Some(0), "{mended}");
    let well = host.run(["store", "check", "--quiet"]);
    assert_eq!(well.line(), "");
    assert_eq!(
        host.ssh("cat /etc/motd").run().line(),
        "Welcome to the pod."
    );
}

fn damage_that_cannot_be_mended_stays_and_says_so() {
    let host = Host::empty("localhost/named:7");
    let layout = setup::get().stage.join("images/busybox");
    let loaded = host.run([
        "load".as_ref(),
        layout.as_os_str(),
        "--name".as_ref(),
        "127.0.0.1:9/x:1".as_ref(),
    ]);
    assert_eq!(loaded.code, Some(0), "{loaded}");
    let layer = &layers(&host)[0];
    as_owner(&format!("echo damage > {layer}/fs/new"));
    let output = host.run(["store", "check"]);
    assert_eq!(output.code, Some(125), "{output}");
    assert!(output.errors().contains("cannot be mended"), "{output}");
    // It is where it was, and serves as well as it can.
    assert_eq!(layers(&host).len(), 1);
    host.configure("defaults:\n  image: 127.0.0.1:9/x:1\nsession:\n  grace_period: 1s\n");
    assert_eq!(host.ssh("cat /new").run().line(), "damage");
    // In use, nothing is touched.
    let mut client = host.ssh("sleep 60").spawn();
    wait_for("the pod is up", LIMIT, || !host.supervisors().is_empty());
    let output = host.run(["store", "check"]);
    assert_eq!(output.code, Some(125), "{output}");
    assert!(output.errors().contains("stop it"), "{output}");
    client.kill().unwrap();
    client.wait().unwrap();
}

fn what_root_pulled_for_all_nobody_fetches() {
    let host = Host::empty("x");
    let cache = host.dir.join("cache");
    host.configure(&format!("storage:\n  system_cache: {}\n", cache.display()));
    let reference = Host::reference("debian");
    let refused = host.run(["pull", "--system", &reference]);
    assert_eq!(refused.code, Some(125), "{refused}");
    assert!(refused.complaint().contains("root"), "{refused}");
    // The root of a namespace is as good as any.
    let pull = host.podspawn(["pull", "--system", "--quiet", &reference]);
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user"]);
    command.arg(pull.get_program()).args(pull.get_args());
    client::clean(&mut command);
    let filled = client::run(command, Vec::new(), LIMIT);
    let digest = filled.line();
    assert!(!host.storage().exists());
    assert!(fs::read_dir(cache.join("blobs/sha256")).unwrap().count() >= 8);

    // By digest, from a registry that is not there.
    let (_, name) = reference.split_once('/').unwrap();
    let name = name.strip_suffix(":1").unwrap();
    let pulled = host.run(["pull", "--quiet", &format!("127.0.0.1:9/{name}@{digest}")]);
    assert_eq!(pulled.line(), digest);
    // A blob that is not what its name says is not believed.
    for blob in fs::read_dir(cache.join("blobs/sha256")).unwrap() {
        let path = blob.unwrap().path();
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&path, bytes).unwrap();
    }
    let other = Host::empty("x");
    other.configure(&format!("storage:\n  system_cache: {}\n", cache.display()));
    let pulled = other.run(["pull", &reference]);
    assert_eq!(
        (pulled.code, pulled.text().trim_end()),
        (Some(0), &*digest),
        "{pulled}"
    );
    let checked = other.run(["store", "check"]);
    assert_eq!(checked.code, Some(0), "{checked}");
}
