//! sftp and scp of OpenSSH.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::process::Stdio;
use std::time::Duration;

use super::{Battery, Image, digest, far, fresh, make_tree, name, openssh, sftp, sftp_ok, tree};
use crate::support::client::{self, Output};
use crate::support::host::Host;
use crate::support::{Noise, wait_for};

pub fn all() -> Battery {
    vec![
        ("sftp_is_silent", sftp_is_silent),
        ("internal_sftp_is_recognised", internal_sftp_is_recognised),
        ("sftp_carries_a_tree", sftp_carries_a_tree),
        ("sftp_resumes", sftp_resumes),
        ("sftp_globs", sftp_globs),
        (
            "sftp_renames_links_and_changes_modes",
            sftp_renames_links_and_changes_modes,
        ),
        (
            "sftp_with_many_requests_in_flight",
            sftp_with_many_requests_in_flight,
        ),
        ("sftp_beyond_four_gibibytes", sftp_beyond_four_gibibytes),
        ("sftp_twenty_thousand_files", sftp_twenty_thousand_files),
        ("sftp_no_space_left", sftp_no_space_left),
        ("sftp_permission_denied", sftp_permission_denied),
        ("sftp_client_killed", sftp_client_killed),
        ("sftp_stays_in_the_container", sftp_stays_in_the_container),
        ("scp_of_today", |image| scp(image, "-s")),
        ("scp_of_old", |image| scp(image, "-O")),
        ("scp_says_what_is_missing", scp_says_what_is_missing),
    ]
}

/// The subsystem as any client starts it, with nothing to say.
fn subsystem(host: &Host, input: &[u8]) -> Output {
    let mut command = openssh(host, "ssh");
    command.arg("-s").arg(client::target(host)).arg("sftp");
    client::run(command, input.to_vec(), Duration::from_secs(30))
}

fn sftp_is_silent(image: Image) {
    let plain = Host::plain();
    let host = image.host();
    assert_eq!(subsystem(&host, b""), subsystem(&plain, b""));
    // SSH_FXP_INIT, version 3: the answer is SSH_FXP_VERSION and nothing else.
    let mut command = openssh(&host, "ssh");
    command.arg("-s").arg(client::target(&host)).arg("sftp");
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child
        .stdin
        .as_mut()
        .unwrap()
        .write_all(&[0, 0, 0, 5, 1, 0, 0, 0, 3])
        .unwrap();
    let mut head = [0; 9];
    child
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut head)
        .unwrap();
    assert_eq!(head[4..], [2, 0, 0, 0, 3]);
    let rest = client::finish(child, Vec::new(), Duration::from_secs(10)).unwrap();
    assert!(rest.stderr.is_empty(), "{rest}");
    let length = u32::from_be_bytes(head[..4].try_into().unwrap()) as usize;
    assert_eq!(rest.stdout.len(), length - 5, "{rest}");
    // The first login of a pod is as silent.
    let fresh = Host::with_image(image.name());
    assert_eq!(subsystem(&fresh, b"").stderr, b"");
}

fn internal_sftp_is_recognised(image: Image) {
    let host = Host::with_subsystem(image.name(), "internal-sftp");
    let output = sftp_ok(&host, "pwd\nmkdir seen\nls -1\nrmdir seen\n");
    assert!(output.contains("seen"), "{output}");
}

fn sftp_carries_a_tree(image: Image) {
    let host = image.host();
    let (here, back, there) = (fresh(&host), fresh(&host), name("tree"));
    make_tree(&here);
    sftp_ok(
        &host,
        &format!("mkdir {there}\nput -rp {} {there}/x\n", here.display()),
    );
    sftp_ok(&host, &format!("get -rp {there}/x {}/x\n", back.display()));
    assert_eq!(tree(&back.join("x")), tree(&here));
}

fn sftp_resumes(image: Image) {
    let host = image.host();
    let (here, there) = (fresh(&host), name("resumed"));
    let data = Noise::new(7).bytes(2_000_000);
    let (whole, part, back) = (here.join("whole"), here.join("part"), here.join("back"));
    fs::write(&whole, &data).unwrap();
    fs::write(&part, &data[..777_777]).unwrap();
    fs::write(&back, &data[..1_234_567]).unwrap();
    let (w, p, b) = (whole.display(), part.display(), back.display());
    sftp_ok(
        &host,
        &format!("put {p} {there}\nreput {w} {there}\nreget {there} {b}\n"),
    );
    assert_eq!(fs::read(&back).unwrap(), data);
}

fn sftp_globs(image: Image) {
    let host = image.host();
    let (here, there) = (fresh(&host), name("globs"));
    for file in ["a.txt", "b.txt", "c.dat", ".hidden.txt", "[odd].txt"] {
        fs::write(here.join(file), file).unwrap();
    }
    sftp_ok(
        &host,
        &format!("mkdir {there}\nput {}/* {there}/\n", here.display()),
    );
    let listed = sftp_ok(&host, &format!("ls -1 {there}/*.txt\n"));
    let mut names: Vec<&str> = listed
        .lines()
        .map(|line| line.rsplit('/').next().unwrap().trim())
        .collect();
    names.sort_unstable();
    assert_eq!(names, ["[odd].txt", "a.txt", "b.txt"]);
    let back = fresh(&host);
    sftp_ok(
        &host,
        &format!(
            "get {there}/?.* {}/\nrm {there}/*.txt\nls -1a {there}\n",
            back.display()
        ),
    );
    assert_eq!(tree(&back).len(), 3);
    let left = sftp_ok(&host, &format!("ls -1a {there}\n"));
    assert!(left.contains("c.dat") && !left.contains("a.txt"), "{left}");
}

fn sftp_renames_links_and_changes_modes(image: Image) {
    let host = image.host();
    let (here, there) = (fresh(&host), name("ops"));
    fs::write(here.join("new"), "new").unwrap();
    fs::write(here.join("old"), "the old one").unwrap();
    let (n, o, b) = (here.join("new"), here.join("old"), here.join("back"));
    let (n, o, b) = (n.display(), o.display(), b.display());
    let batch = format!(
        "mkdir {there}\ncd {there}\nput {n} new\nput {o} old\nrename new old\nget old {b}\n\
         symlink old link\nln old hard\nchmod 600 old\nls -l\ndf\nrm link\nmkdir dir\nrmdir dir\n"
    );
    let listed = sftp_ok(&host, &batch);
    assert_eq!(fs::read_to_string(here.join("back")).unwrap(), "new");
    for file in ["old", "hard"] {
        let line = listed
            .lines()
            .find(|line| line.ends_with(&format!(" {file}")))
            .unwrap_or_else(|| panic!("{listed}"));
        assert!(line.starts_with("-rw-------"), "{line}");
    }
    assert!(
        listed
            .lines()
            .any(|line| line.starts_with('l') && line.contains(" link")),
        "{listed}"
    );
    let output = sftp(&host, &format!("get {there}/no-such-file {b}\n"));
    assert_eq!(output.code, Some(1), "{output}");
    assert!(output.errors().contains("not found"), "{output}");
}

fn sftp_with_many_requests_in_flight(image: Image) {
    let host = image.host();
    let (here, there) = (fresh(&host), name("flight"));
    let (file, back) = (here.join("file"), here.join("back"));
    fs::write(&file, Noise::new(8).bytes(30_000_001)).unwrap();
    for (requests, block) in [("64", "32768"), ("256", "1000"), ("3", "261120")] {
        let mut command = openssh(&host, "sftp");
        command
            .args(["-q", "-R", requests, "-B", block, "-b", "-"])
            .arg(client::target(&host));
        let batch = format!(
            "put {} {there}\nget {there} {}\n",
            file.display(),
            back.display()
        );
        let output = client::run(command, batch.into(), Duration::from_secs(180));
        assert_eq!((output.code, output.errors()), (Some(0), String::new()));
        assert_eq!(
            digest(&back),
            digest(&file),
            "{requests} requests of {block}"
        );
    }
}

/// The end of a file of 5 GiB goes there by resuming; all of it comes back.
fn sftp_beyond_four_gibibytes(image: Image) {
    const SIZE: u64 = 5 << 30;
    let host = image.host();
    let (here, there) = (fresh(&host), name("huge"));
    let (file, nearly, back) = (here.join("file"), here.join("nearly"), here.join("back"));
    let end = Noise::new(9).bytes(1 << 20);
    let sparse = fs::File::create(&file).unwrap();
    sparse.set_len(SIZE).unwrap();
    sparse.write_all_at(&end, SIZE - (1 << 20)).unwrap();
    let resumed = client::local(
        "truncate",
        [
            "-s",
            &(SIZE - (1 << 20)).to_string(),
            nearly.to_str().unwrap(),
        ],
    );
    assert_eq!(resumed.code, Some(0));
    // The far side makes its file as long as that without sending it.
    let extended = super::clients::paramiko(
        &host,
        "truncate",
        &[&there, &(SIZE - (1 << 20)).to_string()],
    );
    assert_eq!(extended.code, Some(0), "{extended}");
    sftp_ok(
        &host,
        &format!("reput {} {there}\nls -ln {there}\n", file.display()),
    );
    // The last megabyte and a bit, over the sftp protocol's 64-bit offsets.
    fs::File::create(&back)
        .unwrap()
        .set_len(SIZE - (3 << 19))
        .unwrap();
    sftp_ok(&host, &format!("reget {there} {}\n", back.display()));
    assert_eq!(fs::metadata(&back).unwrap().size(), SIZE);
    let mut found = vec![0; 3 << 19];
    fs::File::open(&back)
        .unwrap()
        .read_exact_at(&mut found, SIZE - (3 << 19))
        .unwrap();
    assert!(found[..1 << 19].iter().all(|byte| *byte == 0) && found[1 << 19..] == end);
    if image == Image::Busybox {
        sftp_ok(&host, &format!("get {there} {}\n", back.display()));
        assert_eq!(digest(&back), digest(&file));
    }
    sftp_ok(&host, &format!("rm {there}\n"));
    fs::remove_dir_all(&here).unwrap();
}

/// And with links a directory of 50,000 entries.
fn sftp_twenty_thousand_files(image: Image) {
    let host = image.host();
    let (here, back, there) = (fresh(&host), fresh(&host), name("many"));
    for number in 0..20_000 {
        fs::write(here.join(format!("file-{number}")), format!("{number}\n")).unwrap();
    }
    sftp_ok(&host, &format!("put -r {} {there}\n", here.display()));
    sftp_ok(&host, &format!("get -r {there} {}/x\n", back.display()));
    let names = |tree: std::collections::BTreeMap<_, super::Entry>| -> Vec<_> {
        let digest = |entry| {
            if let super::Entry::File { digest, .. } = entry {
                digest
            } else {
                String::new()
            }
        };
        tree.into_iter()
            .map(|(path, entry)| (path, digest(entry)))
            .collect()
    };
    assert_eq!(names(tree(&back.join("x"))), names(tree(&here)));
    let links: String = (0..30_000)
        .map(|number| format!("symlink file-1 {there}/link-{number}\n"))
        .collect();
    sftp_ok(&host, &links);
    assert_eq!(
        sftp_ok(&host, &format!("ls -1f {there}\n")).lines().count(),
        50_000
    );
    fs::remove_dir_all(&here).unwrap();
    fs::remove_dir_all(&back).unwrap();
}

fn sftp_no_space_left(image: Image) {
    let host = image.host();
    let here = fresh(&host);
    let file = here.join("file");
    // More than any container's /dev/shm has.
    fs::File::create(&file).unwrap().set_len(300 << 20).unwrap();
    let output = sftp(&host, &format!("put {} /dev/shm/full\n", file.display()));
    assert_eq!(output.code, Some(1), "{output}");
    assert!(!output.stderr.is_empty(), "{output}");
    sftp_ok(&host, "rm /dev/shm/full\nls\n");
}

fn sftp_permission_denied(image: Image) {
    let host = image.host();
    let file = fresh(&host).join("file");
    fs::write(&file, "x").unwrap();
    for target in ["/denied", "/proc/denied"] {
        let output = sftp(&host, &format!("put {} {target}\n", file.display()));
        assert_eq!(output.code, Some(1), "{target}: {output}");
    }
    let output = sftp(&host, "mkdir /denied\n");
    assert_eq!(output.code, Some(1), "{output}");
    assert!(output.errors().contains("ermission denied"), "{output}");
}

fn sftp_client_killed(image: Image) {
    let host = Host::with_image(image.name());
    let (here, there) = (fresh(&host), name("killed"));
    let file = here.join("file");
    fs::File::create(&file).unwrap().set_len(2 << 30).unwrap();
    sftp_ok(&host, "ls\n");
    let mut command = openssh(&host, "sftp");
    command.args(["-q", "-b", "-"]).arg(client::target(&host));
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut client = command.spawn().unwrap();
    let batch = format!("put {} {there}\n", file.display());
    client
        .stdin
        .as_mut()
        .unwrap()
        .write_all(batch.as_bytes())
        .unwrap();
    let listed = || sftp(&host, &format!("ls -l {there}\n")).text();
    wait_for("the transfer runs", Duration::from_secs(20), || {
        listed().lines().any(|line| line.starts_with('-'))
    });
    for child in crate::support::process::descendants(i32::try_from(client.id()).unwrap()) {
        child.kill();
    }
    client.kill().unwrap();
    client.wait().unwrap();
    wait_for("the session has ended", Duration::from_secs(10), || {
        host.sessions().is_empty()
    });
    sftp_ok(&host, &format!("rm {there}\nls\n"));
}

fn sftp_stays_in_the_container(image: Image) {
    let host = image.host();
    let file = fresh(&host).join("file");
    // What the host has there is out of reach: the path does not exist inside.
    let output = sftp(&host, &format!("ls {}/config.yaml\n", host.dir.display()));
    assert_eq!(output.code, Some(1), "{output}");
    let batch = format!("get /proc/self/status {}\n", file.display());
    if sftp(&host, &batch).code == Some(0) {
        let status = fs::read_to_string(&file).unwrap();
        if let Some(line) = status.lines().find(|line| line.starts_with("CapEff")) {
            assert!(line.ends_with("0000000000000000"), "{line}");
        }
    }
}

fn scp(image: Image, protocol: &str) {
    let host = image.host();
    let (here, back, there) = (fresh(&host), fresh(&host), name("scp"));
    make_tree(&here);
    let copy = |from: String, to: String| {
        let mut command = openssh(&host, "scp");
        command.args([protocol, "-q", "-r", "-p"]).arg(from).arg(to);
        let output = client::run(command, Vec::new(), Duration::from_secs(60));
        assert_eq!(
            (output.code, output.text(), output.errors()),
            (Some(0), String::new(), String::new())
        );
    };
    copy(here.display().to_string(), far(&host, &there));
    copy(far(&host, &there), back.join("x").display().to_string());
    assert_eq!(tree(&back.join("x")), tree(&here));
    // One file, and under its own name into a directory.
    copy(
        here.join("big").display().to_string(),
        far(&host, &format!("{there}/copied")),
    );
    copy(
        far(&host, &format!("{there}/copied")),
        back.display().to_string(),
    );
    assert_eq!(digest(&back.join("copied")), digest(&here.join("big")));
}

fn scp_says_what_is_missing(image: Image) {
    let host = image.host();
    let back = fresh(&host);
    for protocol in ["-s", "-O"] {
        let mut command = openssh(&host, "scp");
        command
            .args([protocol, "-q"])
            .arg(far(&host, "no-such-file"))
            .arg(&back);
        let output = client::run(command, Vec::new(), Duration::from_secs(60));
        assert_eq!(output.code, Some(1), "{protocol}: {output}");
        assert!(
            output.errors().contains("o such file"),
            "{protocol}: {output}"
        );
    }
}
