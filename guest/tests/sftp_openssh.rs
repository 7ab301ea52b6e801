//! The sftp-server under OpenSSH's own client, connected without sshd (`sftp -D`).

mod support;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::process::{Command, Stdio};

use support::{Bench, assert_same_tree, is_root, noise, skip, wait_until, works};

#[test]
fn files_of_all_sizes_arrive_byte_for_byte() {
    let bench = Bench::new();
    let mut batch = String::new();
    let sizes = [
        0, 1, 4095, 32_767, 32_768, 32_769, 261_119, 261_120, 261_121, 262_144, 5_000_001,
    ];
    for size in sizes {
        fs::write(
            bench.path(format!("local/{size}")),
            noise(size as u64, size),
        )
        .expect("write");
        batch += &format!("put -p {size}\nget -p {size} back-{size}\n");
    }
    let secret = bench.path("local/1");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o640)).expect("chmod");
    set_mtime(&secret, 981_173_106);
    bench.sftp(batch);
    for size in sizes {
        let local = bench.path(format!("local/{size}"));
        assert_same_tree(&local, &bench.path(format!("remote/{size}")));
        assert_same_tree(&local, &bench.path(format!("local/back-{size}")));
    }
    for copy in ["remote/1", "local/back-1"] {
        assert_eq!(
            fs::metadata(bench.path(copy)).expect("stat").mtime(),
            981_173_106
        );
    }
}

fn set_mtime(path: &std::path::Path, seconds: u64) {
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
    let file = fs::File::options().write(true).open(path).expect("open");
    file.set_modified(time).expect("utimes");
}

#[test]
fn any_number_of_requests_of_any_size_may_be_in_flight() {
    let bench = Bench::new();
    fs::write(bench.path("local/a"), noise(7, 3_000_000)).expect("write");
    let server = bench.server("", "");
    for (requests, size) in [
        ("1", "32768"),
        ("64", "32768"),
        ("1024", "1000"),
        ("64", "261120"),
        ("2", "200000"),
    ] {
        let args = ["-q", "-R", requests, "-B", size];
        let output = bench.sftp_with(&server, &args, "put a\nget a b\n");
        assert!(
            output.status.success() && output.stderr.is_empty(),
            "{output:?}"
        );
        assert_same_tree(&bench.path("local/a"), &bench.path("remote/a"));
        assert_same_tree(&bench.path("local/a"), &bench.path("local/b"));
    }
}

#[test]
fn broken_off_transfers_resume() {
    let bench = Bench::new();
    let whole = noise(3, 700_000);
    fs::write(bench.path("local/up"), &whole).expect("write");
    fs::write(bench.path("remote/up"), &whole[..300_001]).expect("write");
    fs::write(bench.path("remote/down"), &whole).expect("write");
    fs::write(bench.path("local/down"), &whole[..1]).expect("write");
    bench.sftp("reput up\nreget down\n");
    assert!(fs::read(bench.path("remote/up")).expect("read") == whole);
    assert!(fs::read(bench.path("local/down")).expect("read") == whole);
}

#[test]
fn trees_go_up_and_down() {
    let bench = Bench::new();
    let tree = bench.path("local/tree");
    fs::create_dir_all(tree.join("a/b/c")).expect("mkdir");
    fs::create_dir(tree.join("empty")).expect("mkdir");
    fs::write(tree.join("a/b/c/deep"), noise(1, 10_000)).expect("write");
    fs::write(tree.join("a/run"), b"#!/bin/sh\n").expect("write");
    fs::set_permissions(tree.join("a/run"), fs::Permissions::from_mode(0o751)).expect("chmod");
    fs::set_permissions(tree.join("a/b"), fs::Permissions::from_mode(0o700)).expect("chmod");
    bench.sftp("put -rp tree\nget -rp tree back\n");
    assert_same_tree(&tree, &bench.path("remote/tree"));
    assert_same_tree(&tree, &bench.path("local/back"));
}

#[test]
fn patterns_expand() {
    let bench = Bench::new();
    for name in ["a.txt", "b.txt", "c.log", ".txt", "x[1]"] {
        fs::write(bench.path("remote").join(name), name).expect("write");
    }
    bench.sftp("get *.txt\nget x\\[1\\]\n");
    let mut names: Vec<_> = fs::read_dir(bench.path("local"))
        .expect("ls")
        .map(|entry| {
            entry
                .expect("entry")
                .file_name()
                .into_string()
                .expect("plain")
        })
        .collect();
    names.sort();
    assert_eq!(names, ["a.txt", "b.txt", "x[1]"]);
    let listed = bench.sftp("ls -1 ?.log\n");
    assert!(listed.ends_with("c.log\n"), "{listed}");
}

#[test]
fn rename_replaces_only_where_it_should() {
    let bench = Bench::new();
    let remote = |name: &str| bench.path("remote").join(name);
    fs::write(remote("a"), b"a").expect("write");
    fs::write(remote("b"), b"b").expect("write");
    fs::create_dir(remote("d")).expect("mkdir");
    // Legacy: the protocol's own rename.
    bench.sftp_fails("rename -l a b\n");
    assert_eq!(fs::read(remote("b")).expect("read"), b"b");
    bench.sftp("rename -l a c\nrename -l d e\n");
    assert_eq!(fs::read(remote("c")).expect("read"), b"a");
    assert!(!remote("a").exists() && remote("e").is_dir() && !remote("d").exists());
    assert_eq!(fs::metadata(remote("c")).expect("stat").nlink(), 1);
    // posix-rename.
    bench.sftp("rename c b\n");
    assert_eq!(fs::read(remote("b")).expect("read"), b"a");
    bench.sftp_fails("rename b e\n");
    bench.sftp_fails("rename none x\n");
}

#[test]
fn links_point_where_they_should() {
    let bench = Bench::new();
    let remote = |name: &str| bench.path("remote").join(name);
    fs::write(remote("file"), b"x").expect("write");
    bench.sftp("ln -s file sym\nln file hard\nsymlink /no/where dangling\n");
    assert_eq!(
        fs::read_link(remote("sym")).expect("link").as_os_str(),
        "file"
    );
    assert_eq!(
        fs::read_link(remote("dangling")).expect("link").as_os_str(),
        "/no/where"
    );
    let (a, b) = (fs::metadata(remote("file")), fs::metadata(remote("hard")));
    assert_eq!(a.expect("stat").ino(), b.expect("stat").ino());
    bench.sftp("rm sym\nrm hard\n");
    assert!(remote("file").exists() && fs::symlink_metadata(remote("sym")).is_err());
    bench.sftp_fails("ln file file\n");
}

#[test]
fn attributes_change() {
    let bench = Bench::new();
    let remote = |name: &str| bench.path("remote").join(name);
    fs::write(remote("f"), b"x").expect("write");
    symlink("f", remote("l")).expect("symlink");
    bench.sftp("chmod 4711 f\nmkdir d\nchmod 1770 d\n");
    assert_eq!(
        fs::metadata(remote("f")).expect("stat").mode() & 0o7777,
        0o4711
    );
    assert_eq!(
        fs::metadata(remote("d")).expect("stat").mode() & 0o7777,
        0o1770
    );
    // A link has no mode on Linux; that of its target stays.
    bench.sftp_fails("chmod -h 600 l\n");
    assert_eq!(
        fs::metadata(remote("f")).expect("stat").mode() & 0o7777,
        0o4711
    );
    bench.sftp("rmdir d\n");
    assert!(!remote("d").exists());
    if !is_root() {
        // To oneself is no change, and to anybody else is not allowed.
        let own = fs::metadata(remote("f")).expect("stat").uid();
        bench.sftp(format!("chown {own} f\n"));
        bench.sftp_fails(format!("chown {} f\n", own + 1));
        return;
    }
    bench.sftp("chown 12345 f\nchgrp 23456 f\nchown -h 777 l\n");
    let stat = fs::metadata(remote("f")).expect("stat");
    assert_eq!((stat.uid(), stat.gid()), (12345, 23456));
    assert_eq!(fs::symlink_metadata(remote("l")).expect("stat").uid(), 777);
}

#[test]
fn listings_read_like_ls() {
    let bench = Bench::new();
    let remote = bench.path("remote");
    fs::write(remote.join("plain"), noise(0, 1234)).expect("write");
    set_mtime(&remote.join("plain"), 951_782_400);
    fs::write(remote.join(".hidden"), b"").expect("write");
    symlink("plain", remote.join("sym")).expect("symlink");
    let listed = bench.sftp("ls -la\n");
    let line = listed
        .lines()
        .find(|line| line.ends_with("plain"))
        .expect("a line");
    assert!(line.starts_with("-rw-"), "{line}");
    assert!(line.contains(" 1234 ") && line.contains(" 2000 "), "{line}");
    if is_root() {
        assert!(line.contains(" root "), "{line}");
    }
    for name in [".", "..", ".hidden", "sym"] {
        assert!(
            listed
                .lines()
                .any(|line| line.split(' ').next_back() == Some(name)),
            "{listed}"
        );
    }
    let listed = bench.sftp("ls -1\n");
    assert_eq!(listed.lines().skip(1).collect::<Vec<_>>(), ["plain", "sym"]);
    assert!(bench.sftp("df\n").contains('%'));
    assert!(bench.sftp("df -i\n").contains('%'));
    assert!(
        bench
            .sftp("pwd\n")
            .contains(remote.to_str().expect("plain"))
    );
}

#[test]
fn the_server_copies_by_itself() {
    let bench = Bench::new();
    let data = noise(9, 1_000_003);
    fs::write(bench.path("remote/a"), &data).expect("write");
    bench.sftp("copy a b\n");
    assert!(fs::read(bench.path("remote/b")).expect("read") == data);
}

#[test]
fn twenty_thousand_small_files() {
    let bench = Bench::new();
    let tree = bench.path("local/small");
    fs::create_dir(&tree).expect("mkdir");
    for i in 0..20_000_usize {
        fs::write(tree.join(format!("file-{i}")), noise(i as u64, i % 700)).expect("write");
    }
    bench.sftp("put -r small\nget -r small back\n");
    assert_same_tree(&tree, &bench.path("remote/small"));
    assert_same_tree(&tree, &bench.path("local/back"));
}

#[test]
fn a_directory_of_fifty_thousand() {
    let bench = Bench::new();
    for i in 0..50_000 {
        fs::File::create(bench.path(format!("remote/{i:05}"))).expect("create");
    }
    let listed = bench.sftp("ls -1\n");
    assert!(
        listed
            .lines()
            .skip(1)
            .eq((0..50_000).map(|i| format!("{i:05}")))
    );
}

#[test]
fn names_are_bytes() {
    let bench = Bench::new();
    let long = vec![0xe9; 255];
    for name in [
        b"\xff\xfe caf\xe9".as_slice(),
        b"-dash",
        b" space ",
        b"a'\"b",
        &long,
    ] {
        let name = OsStr::from_bytes(name);
        fs::write(bench.path("local").join(name), name.as_bytes()).expect("write");
    }
    fs::create_dir(bench.path("remote/up")).expect("mkdir");
    bench.sftp("put -r . up\nget -r up down\n");
    fs::remove_dir_all(bench.path("remote/expect")).ok();
    assert_same_tree(&bench.path("remote/up"), &bench.path("local/down"));
    assert_eq!(
        fs::read_dir(bench.path("remote/up")).expect("ls").count(),
        5
    );
    assert_eq!(
        fs::read(bench.path("remote/up").join(OsStr::from_bytes(&long))).expect("read"),
        long
    );
    let mut batch = b"put -- -dash ".to_vec();
    batch.extend_from_slice(&[b'x'; 256]);
    assert!(bench.sftp_fails(batch).contains("open"));
}

#[test]
fn sparse_and_huge_files() {
    let bench = Bench::new();
    let file = fs::File::create(bench.path("remote/huge")).expect("create");
    file.set_len(5 << 30).expect("truncate");
    file.write_all_at(b"the end", (5 << 30) - 7).expect("write");
    // All but the last piece is there already, as a hole.
    let part = fs::File::create(bench.path("local/huge")).expect("create");
    part.set_len((5 << 30) - 100_000).expect("truncate");
    bench.sftp("reget huge\n");
    let mut end = [0; 7];
    let local = fs::File::open(bench.path("local/huge")).expect("open");
    assert_eq!(local.metadata().expect("stat").len(), 5 << 30);
    local.read_exact_at(&mut end, (5 << 30) - 7).expect("read");
    assert_eq!(&end, b"the end");
    // And the other way.
    file.set_len((5 << 30) - 9).expect("truncate");
    bench.sftp("reput huge\n");
    assert_eq!(file.metadata().expect("stat").len(), 5 << 30);
    end = [0; 7];
    let remote = fs::File::open(bench.path("remote/huge")).expect("open");
    remote.read_exact_at(&mut end, (5 << 30) - 7).expect("read");
    assert_eq!(&end, b"the end");
    // A hole of 64 MiB through the whole way.
    fs::File::create(bench.path("remote/hole"))
        .expect("create")
        .set_len(64 << 20)
        .expect("hole");
    bench.sftp("get hole\n");
    assert_eq!(
        fs::metadata(bench.path("local/hole")).expect("stat").len(),
        64 << 20
    );
}

#[test]
fn a_full_disk_is_a_failure_and_no_more() {
    if !works("unshare", &["-Urm", "true"]) {
        return skip("no user namespaces, so no small file system");
    }
    let bench = Bench::new();
    fs::write(bench.path("local/big"), noise(1, 3 << 20)).expect("write");
    fs::write(bench.path("local/small"), b"fits").expect("write");
    let mount = format!(
        "mount -t tmpfs -o size=1m none {0} && cd {0} &&",
        bench.path("remote").display()
    );
    // The server's own mount namespace ends with it, so look at the result through it.
    let server = bench.server(&mount, "");
    let outer = bench.path("outer");
    bench.script(&outer, &format!("exec unshare -Urm {}\n", server.display()));
    let output = bench.sftp_with(
        &outer,
        &["-q"],
        "-put big\nls -l\nrm big\nput small\nget small back\n-put big\n",
    );
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        said.to_lowercase().contains("failure") || said.contains("No space"),
        "{said}"
    );
    assert_eq!(fs::read(bench.path("local/back")).expect("read"), b"fits");
}

#[test]
fn what_the_user_may_not_do_is_refused() {
    let bench = Bench::new();
    let secret = bench.path("remote/secret");
    fs::write(&secret, b"secret").expect("write");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o000)).expect("chmod");
    fs::set_permissions(bench.path("remote"), fs::Permissions::from_mode(0o555)).expect("chmod");
    fs::write(bench.path("local/new"), b"new").expect("write");
    // Root may do all of it, so be somebody else.
    let before = if is_root() {
        "exec setpriv --reuid 65534 --regid 65534 --clear-groups"
    } else {
        ""
    };
    let server = bench.server("", "");
    let other = bench.path("other");
    bench.script(&other, &format!("{before} {}\n", server.display()));
    for batch in [
        "get secret\n",
        "put new\n",
        "rm secret\n",
        "mkdir d\n",
        "chmod 777 /etc/passwd\n",
        "put new secret\n",
        "rename secret x\n",
    ] {
        let output = bench.sftp_with(&other, &["-q"], batch);
        assert!(!output.status.success(), "{batch}: {output:?}");
        let said = String::from_utf8_lossy(&output.stderr).to_lowercase();
        assert!(
            said.contains("permission denied") || said.contains("not permitted"),
            "{said}"
        );
    }
    fs::set_permissions(bench.path("remote"), fs::Permissions::from_mode(0o755)).expect("chmod");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).expect("chmod");
    assert_eq!(fs::read(&secret).expect("read"), b"secret");
}

#[test]
fn a_killed_client_takes_the_server_with_it() {
    let bench = Bench::new();
    fs::File::create(bench.path("remote/big"))
        .expect("create")
        .set_len(1 << 40)
        .expect("hole");
    let server = bench.server(&format!("echo $$ >{};", bench.path("pid").display()), "");
    let mut client = Command::new("sftp")
        .args(["-q", "-D"])
        .arg(&server)
        .current_dir(bench.path("local"))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("sftp");
    use std::io::Write;
    let stdin = client.stdin.as_mut().expect("piped");
    stdin.write_all(b"get big /dev/null\n").expect("write");
    wait_until("the transfer to begin", || {
        fs::read_to_string(bench.path("pid")).is_ok_and(|pid| {
            fs::read_to_string(format!("/proc/{}/io", pid.trim()))
                .is_ok_and(|io| io.lines().any(|l| l.starts_with("wchar:") && l.len() > 14))
        })
    });
    client.kill().expect("kill");
    client.wait().expect("wait");
    let pid = fs::read_to_string(bench.path("pid")).expect("read");
    wait_until("the server to end", || !running(pid.trim()));
}

/// Whether a process is there and not only waiting to be reaped.
fn running(pid: &str) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}
