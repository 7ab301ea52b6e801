//! The far end of the old scp protocol, under OpenSSH's scp and without it.

mod support;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Output};

use support::{Bench, GUEST, assert_same_tree, feed, noise};

/// Runs scp in `local`; "the other side" is the guest in `remote`, started by a shell
/// as sshd would, with its stderr apart.
fn scp(bench: &Bench, args: &[&str]) -> Output {
    let wrapper = bench.path("ssh");
    let bin = bench.path("bin");
    if !bin.exists() {
        fs::create_dir(&bin).expect("mkdir");
        std::os::unix::fs::symlink(bench.path("guest"), bin.join("scp")).expect("symlink");
        bench.script(
            &wrapper,
            &format!(
                "for last; do :; done\ncd {} && PATH={}:$PATH exec sh -c \"$last\" 2>>{}\n",
                bench.path("remote").display(),
                bin.display(),
                bench.path("stderr").display()
            ),
        );
    }
    Command::new("scp")
        .args(["-q", "-O", "-S"])
        .arg(&wrapper)
        .args(args)
        .current_dir(bench.path("local"))
        .output()
        .expect("scp")
}

fn scp_works(bench: &Bench, args: &[&str]) {
    let output = scp(bench, args);
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{output:?}"
    );
}

fn scp_fails(bench: &Bench, args: &[&str]) -> String {
    let output = scp(bench, args);
    assert!(!output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn make_tree(tree: &Path) {
    fs::create_dir_all(tree.join("a/b")).expect("mkdir");
    fs::create_dir(tree.join("empty")).expect("mkdir");
    for size in [0, 1, 262_144, 1_000_001] {
        fs::write(tree.join(format!("a/{size}")), noise(size as u64, size)).expect("write");
    }
    fs::write(tree.join("a/b/ sp ace'"), b"x").expect("write");
    fs::set_permissions(tree.join("a/1"), fs::Permissions::from_mode(0o751)).expect("chmod");
    fs::set_permissions(tree.join("a/b"), fs::Permissions::from_mode(0o500)).expect("chmod");
    let old = std::time::UNIX_EPOCH + std::time::Duration::from_secs(981_173_106);
    for path in ["a/1", "a/b"] {
        fs::File::open(tree.join(path))
            .expect("open")
            .set_modified(old)
            .expect("utimes");
    }
}

#[test]
fn trees_go_up_and_down() {
    let bench = Bench::new();
    let tree = bench.path("local/tree");
    make_tree(&tree);
    scp_works(&bench, &["-rp", "tree", "host:"]);
    scp_works(&bench, &["-rp", "host:tree", "back"]);
    for copy in [bench.path("remote/tree"), bench.path("local/back")] {
        assert_same_tree(&tree, &copy);
        for path in ["a/1", "a/b"] {
            assert_eq!(
                fs::metadata(copy.join(path)).expect("stat").mtime(),
                981_173_106
            );
        }
    }
    // Special bits arrive with -p only, and without it the mask holds.
    let special = bench.path("local/special");
    fs::write(&special, b"x").expect("write");
    fs::set_permissions(&special, fs::Permissions::from_mode(0o4777)).expect("chmod");
    scp_works(&bench, &["special", "host:plain"]);
    scp_works(&bench, &["-p", "special", "host:special"]);
    let mode = |name: &str| {
        fs::metadata(bench.path("remote").join(name))
            .expect("stat")
            .mode()
    };
    assert_eq!(mode("plain") & 0o7000, 0);
    assert_eq!(mode("special") & 0o7777, 0o4777);
    // Onto a longer file.
    fs::write(bench.path("remote/plain"), noise(1, 5000)).expect("write");
    scp_works(&bench, &["tree/a/1", "host:plain"]);
    assert_eq!(
        fs::metadata(bench.path("remote/plain"))
            .expect("stat")
            .len(),
        1
    );
    // Several into a directory.
    fs::create_dir(bench.path("remote/into")).expect("mkdir");
    scp_works(&bench, &["tree/a/0", "tree/a/1", "host:into"]);
    assert_eq!(
        fs::read_dir(bench.path("remote/into")).expect("ls").count(),
        2
    );
}

#[test]
fn errors_reach_the_client() {
    let bench = Bench::new();
    fs::write(bench.path("local/f"), b"x").expect("write");
    fs::write(bench.path("remote/f"), b"y").expect("write");
    fs::create_dir(bench.path("remote/d")).expect("mkdir");
    fs::create_dir(bench.path("local/d")).expect("mkdir");
    assert!(scp_fails(&bench, &["host:none", "x"]).contains("No such file"));
    assert!(scp_fails(&bench, &["host:d", "x"]).contains("not a regular file"));
    assert!(scp_fails(&bench, &["f", "host:no/where"]).contains("No such file"));
    assert!(scp_fails(&bench, &["f", "f", "host:f"]).contains("Not a directory"));
    assert!(scp_fails(&bench, &["-r", "d", "host:f"]).contains("Not a directory"));
    // The rest still arrives.
    assert!(scp_fails(&bench, &["host:none", "host:f", "d"]).contains("No such file"));
    assert_eq!(fs::read(bench.path("local/d/f")).expect("read"), b"y");
    assert_eq!(fs::read(bench.path("remote/f")).expect("read"), b"y");
}

/// The guest without a client: arguments, and all that the other side says.
fn guest(bench: &Bench, args: &[&str], said: &[u8]) -> Output {
    let mut command = Command::new(GUEST);
    let output = feed(
        command
            .arg("scp")
            .args(args)
            .current_dir(bench.path("remote")),
        said,
    );
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    output
}

#[test]
fn names_that_are_paths_are_refused() {
    let bench = Bench::new();
    fs::create_dir(bench.path("remote/in")).expect("mkdir");
    for name in ["../x", "..", ".", "", "/tmp/x", "a/b"] {
        for record in [
            format!("C0644 1 {name}\nx\0"),
            format!("D0755 0 {name}\nE\n"),
        ] {
            let output = guest(&bench, &["-r", "-t", "in"], record.as_bytes());
            assert_eq!(output.status.code(), Some(1));
            assert!(output.stdout.starts_with(b"\0\x01scp: "), "{output:?}");
            assert_eq!(
                output.stdout.iter().filter(|&&b| b == 0).count(),
                1,
                "{output:?}"
            );
        }
    }
    assert_eq!(
        fs::read_dir(bench.path("remote/in")).expect("ls").count(),
        0
    );
    assert_eq!(fs::read_dir(bench.path("remote")).expect("ls").count(), 1);
}

#[test]
fn nonsense_is_refused() {
    let bench = Bench::new();
    let mut long = b"C0644 1 ".to_vec();
    long.resize(100_000, b'a');
    for said in [
        &b"hello\n"[..],
        b"\n",
        b"E\n",
        b"C\n",
        b"C0644 99999999999999999999 a\n",
        b"C9999 1 a\n",
        b"T1 2\n",
        b"D0755 0 d\n",
        &long,
    ] {
        let output = guest(&bench, &["-t", "."], said);
        assert_eq!(output.status.code(), Some(1), "{said:?}");
        assert!(
            output.stdout.starts_with(b"\0\x01scp: protocol error"),
            "{output:?}"
        );
    }
    assert_eq!(fs::read_dir(bench.path("remote")).expect("ls").count(), 0);
    // A claim of a file that never comes, and an end in the middle of a record.
    let output = guest(
        &bench,
        &["-t", "."],
        b"C0644 9223372036854775807 f\nonly this",
    );
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        fs::read(bench.path("remote/f")).expect("read"),
        b"only this"
    );
    assert_eq!(
        guest(&bench, &["-t", "."], b"C0644 1").status.code(),
        Some(1)
    );
    // The other side gives up.
    assert_eq!(
        guest(&bench, &["-t", "."], b"\x02gone\n").status.code(),
        Some(1)
    );
    assert_eq!(
        guest(&bench, &["-f", "f"], b"\x02gone\n").status.code(),
        Some(1)
    );
    assert_eq!(guest(&bench, &["-f", "f"], b"").status.code(), Some(1));
    assert_eq!(guest(&bench, &["-t", "."], b"").status.code(), Some(0));
}

#[test]
fn patterns_expand_without_a_shell() {
    let bench = Bench::new();
    for name in ["b.txt", "a.txt", "c.log"] {
        fs::write(bench.path("remote").join(name), name).expect("write");
    }
    let output = guest(&bench, &["-f", "--", "*.txt", "c.lo[g]"], &[0; 20]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "C0644 5 a.txt\na.txt\0C0644 5 b.txt\nb.txt\0C0644 5 c.log\nc.log\0"
    );
    let output = guest(&bench, &["-f", "none*"], &[0; 20]);
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.starts_with(b"\x01scp: none*: No such file"));
}

#[test]
fn a_fifo_is_not_waited_for() {
    let bench = Bench::new();
    let fifo = bench.path("remote/fifo");
    assert!(
        Command::new("mkfifo")
            .arg(&fifo)
            .status()
            .expect("mkfifo")
            .success()
    );
    assert!(scp_fails(&bench, &["host:fifo", "x"]).contains("not a regular file"));
}
