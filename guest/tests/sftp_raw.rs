//! The sftp-server without a client: what clients can hardly be made to ask.

mod support;

use std::fs;

use support::{Bench, Fields, Raw, fields, noise};

const OK: u32 = 0;
const EOF: u32 = 1;
const NO_SUCH_FILE: u32 = 2;
const PERMISSION_DENIED: u32 = 3;
const FAILURE: u32 = 4;
const BAD_MESSAGE: u32 = 5;

const READ: u32 = 1;
const WRITE: u32 = 2;
const CREAT: u32 = 8;
const EXCL: u32 = 0x20;

fn extended(name: &str) -> Fields {
    fields().string(name)
}

fn number(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes[..4].try_into().expect("four bytes"))
}

/// The string at the beginning of `bytes`, and what follows.
fn string(bytes: &[u8]) -> (&[u8], &[u8]) {
    bytes[4..].split_at(number(bytes) as usize)
}

#[test]
fn extensions_are_announced() {
    let bench = Bench::new();
    let (raw, version) = Raw::greet(bench.server("", ""));
    let mut rest = &version[5..];
    let mut announced = Vec::new();
    while !rest.is_empty() {
        let (name, after) = string(rest);
        let (value, after) = string(after);
        announced.push(format!(
            "{}={}",
            String::from_utf8_lossy(name),
            String::from_utf8_lossy(value)
        ));
        rest = after;
    }
    announced.sort();
    assert_eq!(
        announced,
        [
            "copy-data=1",
            "expand-path@openssh.com=1",
            "fstatvfs@openssh.com=2",
            "fsync@openssh.com=1",
            "hardlink@openssh.com=1",
            "home-directory=1",
            "limits@openssh.com=1",
            "lsetstat@openssh.com=1",
            "posix-rename@openssh.com=1",
            "statvfs@openssh.com=2",
            "users-groups-by-id@openssh.com=1",
        ]
    );
    assert_eq!(raw.finish(), (Some(0), vec![]));
}

#[test]
fn reads_and_writes_at_the_edges() {
    let bench = Bench::new();
    let data = noise(4, 300_000);
    fs::write(bench.path("remote/f"), &data).expect("write");
    let (mut raw, _) = Raw::greet(bench.server("", ""));
    let handle = raw.open("f", READ | WRITE);
    let read = |offset: u64, len: u32| fields().string(&handle).u64(offset).u32(len);
    let (kind, body) = raw.ask(5, read(0, u32::MAX));
    assert_eq!((kind, number(&body)), (103, 261_120));
    assert!(body[4..] == data[..261_120]);
    let (kind, body) = raw.ask(5, read(0, 0));
    assert_eq!((kind, number(&body)), (103, 0));
    assert_eq!(raw.status(5, read(300_000, 1)), EOF);
    assert_eq!(raw.status(5, read(1 << 62, 10)), EOF);
    for offset in [1 << 63, u64::MAX] {
        assert_ne!(raw.status(5, read(offset, 10)), OK);
        assert_ne!(
            raw.status(6, fields().string(&handle).u64(offset).string("x")),
            OK
        );
    }
    assert_eq!(
        raw.status(6, fields().string(&handle).u64(3).string("")),
        OK
    );
    assert_eq!(
        raw.status(6, fields().string(&handle).u64(3).string("abc")),
        OK
    );
    let write_only = raw.open("f", WRITE);
    assert_ne!(
        raw.status(5, fields().string(&write_only).u64(0).u32(1)),
        OK
    );
    let read_only = raw.open("f", READ);
    assert_ne!(
        raw.status(6, fields().string(&read_only).u64(0).string("x")),
        OK
    );
    let mut expected = data;
    expected[3..6].copy_from_slice(b"abc");
    assert!(fs::read(bench.path("remote/f")).expect("read") == expected);
}

#[test]
fn open_flags_are_obeyed() {
    const APPEND: u32 = 4;
    const TRUNC: u32 = 0x10;
    let bench = Bench::new();
    let file = bench.path("remote/f");
    fs::write(&file, b"12345").expect("write");
    let (mut raw, _) = Raw::greet(bench.server("umask 022;", ""));
    let open = |path: &str, flags: u32| fields().string(path).u32(flags).u32(0);
    assert_eq!(raw.status(3, open("f", WRITE | CREAT | EXCL)), FAILURE);
    assert_eq!(raw.status(3, open("none", READ)), NO_SUCH_FILE);
    assert_eq!(raw.status(3, open("f/x", READ)), NO_SUCH_FILE);
    assert_eq!(raw.status(3, open("a\0b", READ | CREAT)), BAD_MESSAGE);
    assert_eq!(raw.status(3, open("", READ)), NO_SUCH_FILE);
    let handle = raw.open("f", WRITE | APPEND);
    assert_eq!(
        raw.status(6, fields().string(&handle).u64(0).string("6")),
        OK
    );
    assert_eq!(fs::read(&file).expect("read"), b"123456");
    raw.open("f", WRITE | TRUNC);
    assert_eq!(fs::read(&file).expect("read"), b"");
    let (kind, _) = raw.ask(
        3,
        fields().string("g").u32(WRITE | CREAT).u32(4).u32(0o4777),
    );
    assert_eq!(kind, 102);
    use std::os::unix::fs::PermissionsExt;
    let mode = fs::metadata(bench.path("remote/g"))
        .expect("stat")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o755);
}

#[test]
fn replies_come_in_order_however_requests_arrive() {
    let bench = Bench::new();
    let data = noise(5, 64 * 1000);
    fs::write(bench.path("remote/f"), &data).expect("write");
    let (mut raw, _) = Raw::greet(bench.server("", ""));
    let handle = raw.open("f", READ);
    let mut all = Vec::new();
    for i in 0..64_u32 {
        let read = fields()
            .u32(i)
            .string(&handle)
            .u64(u64::from(i) * 1000)
            .u32(1000);
        all.extend_from_slice(&read.packet(5));
    }
    // All at once, then byte by byte.
    raw.send(&all);
    for pass in 0..2 {
        for (i, piece) in data.chunks(1000).enumerate() {
            let reply = raw.receive();
            assert_eq!(reply[0], 103);
            assert_eq!(number(&reply[1..]), i as u32);
            assert!(&reply[9..] == piece);
        }
        if pass == 0 {
            all.iter().for_each(|&byte| raw.send(&[byte]));
        }
    }
    assert_eq!(raw.finish(), (Some(0), vec![]));
}

#[test]
fn a_client_may_write_everything_before_it_reads() {
    let bench = Bench::new();
    fs::write(bench.path("remote/f"), noise(5, 10_000)).expect("write");
    let (mut raw, _) = Raw::greet(bench.server("", ""));
    let handle = raw.open("f", READ);
    // Replies of 5 MB wait while this is written; no pipe holds as much.
    let mut all = Vec::new();
    for i in 0..500 {
        all.extend_from_slice(&fields().u32(i).string(&handle).u64(0).u32(10_000).packet(5));
        all.extend_from_slice(&fields().u32(i).string([b'x'; 300]).packet(99));
    }
    raw.send(&all);
    for i in 0..500 {
        let reply = raw.receive();
        assert_eq!((reply[0], number(&reply[1..])), (103, i));
        assert_eq!(raw.receive()[0], 101);
    }
}

#[test]
fn copy_data_copies_what_it_should() {
    let bench = Bench::new();
    let data = noise(6, 500_000);
    fs::write(bench.path("remote/a"), &data).expect("write");
    let (mut raw, _) = Raw::greet(bench.server("", ""));
    let a = raw.open("a", READ | WRITE);
    let a_too = raw.open("a", READ | WRITE);
    let b = raw.open("b", READ | WRITE | CREAT);
    let copy = |from: &[u8], at: u64, len: u64, to: &[u8], to_at: u64| {
        extended("copy-data")
            .string(from)
            .u64(at)
            .u64(len)
            .string(to)
            .u64(to_at)
    };
    assert_eq!(raw.status(200, copy(&a, 100, 1000, &b, 7)), OK);
    let copied = fs::read(bench.path("remote/b")).expect("read");
    assert!(copied[..7] == [0; 7] && copied[7..] == data[100..1100]);
    assert_eq!(raw.status(200, copy(&a, 0, 0, &b, 0)), OK);
    assert!(fs::read(bench.path("remote/b")).expect("read") == data);
    // Onto itself, whatever the handle.
    assert_ne!(raw.status(200, copy(&a, 0, 0, &a, 10)), OK);
    assert_ne!(raw.status(200, copy(&a, 0, 100, &a_too, 99)), OK);
    assert_eq!(raw.status(200, copy(&a, 0, 100, &a_too, 100)), OK);
    for offset in [1 << 63, u64::MAX] {
        assert_ne!(raw.status(200, copy(&a, offset, 10, &b, 0)), OK);
        assert_ne!(raw.status(200, copy(&a, 0, 10, &b, offset)), OK);
    }
    // A file that has data but no length.
    let status = raw.open("/proc/self/status", READ);
    let c = raw.open("c", WRITE | CREAT);
    assert_eq!(raw.status(200, copy(&status, 0, 0, &c, 0)), OK);
    assert!(
        fs::read(bench.path("remote/c"))
            .expect("read")
            .starts_with(b"Name:")
    );
}

#[test]
fn names_and_homes_are_looked_up() {
    let bench = Bench::new();
    let (mut raw, _) = Raw::greet(bench.server("", ""));
    let ids = fields().u32(0).u32(4_000_000_000).0;
    let ask = extended("users-groups-by-id@openssh.com")
        .string(&ids)
        .string(&ids);
    let (kind, body) = raw.ask(200, ask);
    assert_eq!(kind, 201);
    let (users, rest) = string(&body);
    let (groups, rest) = string(rest);
    assert!(rest.is_empty());
    for list in [users, groups] {
        let (first, second) = string(list);
        assert_eq!((first, second), (&b"root"[..], &[0, 0, 0, 0][..]));
    }
    let odd = extended("users-groups-by-id@openssh.com")
        .string("abc")
        .string("");
    assert_eq!(raw.status(200, odd), BAD_MESSAGE);
    let name = |body: &[u8]| {
        assert_eq!(number(body), 1);
        String::from_utf8(string(&body[4..]).0.to_vec()).expect("plain")
    };
    assert_eq!(
        name(&raw.ask(200, extended("home-directory").string("root")).1),
        "/root"
    );
    assert_eq!(
        raw.status(200, extended("home-directory").string("no-such")),
        NO_SUCH_FILE
    );
    let remote = fs::canonicalize(bench.path("remote")).expect("it exists");
    let remote = remote.to_str().expect("plain");
    let expand = |path: &str| extended("expand-path@openssh.com").string(path);
    assert_eq!(name(&raw.ask(200, expand("~/x")).1), format!("{remote}/x"));
    assert_eq!(name(&raw.ask(200, expand("~root/../root")).1), "/root");
    assert_eq!(name(&raw.ask(16, fields().string("")).1), remote);
    assert_eq!(
        name(&raw.ask(16, fields().string(".//../remote/./new")).1),
        format!("{remote}/new")
    );
}

#[test]
fn options_take_away() {
    let bench = Bench::new();
    fs::write(bench.path("remote/f"), b"kept").expect("write");
    let (mut raw, version) = Raw::greet(bench.server("", "-R"));
    assert!(!String::from_utf8_lossy(&version).contains("copy-data"));
    raw.open("f", READ);
    for flags in [WRITE, READ | WRITE, READ | CREAT, READ | 0x10, READ | 4] {
        let open = fields().string("f").u32(flags).u32(0);
        assert_eq!(raw.status(3, open), PERMISSION_DENIED, "{flags}");
    }
    let two = || fields().string("f").string("g");
    for kind in [18, 20] {
        assert_eq!(raw.status(kind, two()), PERMISSION_DENIED);
    }
    for kind in [13, 15] {
        assert_eq!(raw.status(kind, fields().string("f")), PERMISSION_DENIED);
    }
    for kind in [9, 14] {
        assert_eq!(
            raw.status(kind, fields().string("f").u32(0)),
            PERMISSION_DENIED
        );
    }
    for name in ["posix-rename@openssh.com", "hardlink@openssh.com"] {
        let request = extended(name).string("f").string("g");
        assert_eq!(raw.status(200, request), PERMISSION_DENIED);
    }
    assert_eq!(fs::read(bench.path("remote/f")).expect("read"), b"kept");

    let (mut raw, version) = Raw::greet(bench.server("", "-P remove,statvfs"));
    assert!(!String::from_utf8_lossy(&version).contains("\0statvfs@"));
    assert_eq!(raw.status(13, fields().string("f")), PERMISSION_DENIED);
    raw.open("f", READ);

    let (mut raw, _) = Raw::greet(bench.server("", "-p realpath"));
    assert_eq!(
        raw.status(3, fields().string("f").u32(READ).u32(0)),
        PERMISSION_DENIED
    );
    assert_eq!(raw.ask(16, fields().string("/")).0, 104);

    let (mut raw, _) = Raw::greet(bench.server("", "-d /proc -u 077"));
    let (_, body) = raw.ask(16, fields().string("."));
    assert_eq!(string(&body[4..]).0, b"/proc");
    let path = bench.path("remote/masked");
    raw.open(path.to_str().expect("plain"), WRITE | CREAT);
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(
        fs::metadata(path).expect("stat").permissions().mode() & 0o777,
        0o600
    );
}
