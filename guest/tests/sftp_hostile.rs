//! The sftp-server without a client: what only a hostile one would send.

mod support;

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use support::{Bench, Fields, GUEST, Raw, fields, noise};

const OK: u32 = 0;
const EOF: u32 = 1;
const FAILURE: u32 = 4;
const BAD_MESSAGE: u32 = 5;
const OP_UNSUPPORTED: u32 = 8;

const READ: u32 = 1;
const WRITE: u32 = 2;
const CREAT: u32 = 8;

fn extended(name: &str) -> Fields {
    fields().string(name)
}

fn number(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes[..4].try_into().expect("four bytes"))
}

#[test]
fn what_cannot_be_followed_ends_the_session() {
    let bench = Bench::new();
    let server = bench.server("", "");
    for garbage in [
        &[0, 0, 0, 0][..],
        &[0xff, 0xff, 0xff, 0xff, 1, 2, 3],
        &[0, 4, 0, 1, 1],
        &[0, 0, 0, 1, 5],
        &[0, 0, 0, 4, 5, 0, 0, 0],
        b"GET / HTTP/1.1\r\n\r\n",
    ] {
        let (mut raw, _) = Raw::greet(&server);
        raw.send(garbage);
        // It ends by itself, while the client still holds the connection.
        let end = Instant::now() + Duration::from_secs(10);
        let status = loop {
            if let Some(status) = raw.child.try_wait().expect("wait") {
                break status;
            }
            assert!(Instant::now() < end, "{garbage:?} did not end the session");
            std::thread::sleep(Duration::from_millis(2));
        };
        assert_eq!(status.code(), Some(1), "{garbage:?}");
        assert_eq!(raw.finish().1, [], "{garbage:?}");
    }
    // Requests before INIT.
    let mut raw = Raw::start(&mut Command::new(&server));
    raw.send(&fields().u32(1).string("/").packet(16));
    assert_eq!(raw.finish(), (Some(1), vec![]));
    // An end in the middle of a packet is an end.
    let (mut raw, _) = Raw::greet(&server);
    raw.send(&[0, 0, 0, 9, 16]);
    assert_eq!(raw.finish(), (Some(0), vec![]));
}

#[test]
fn a_claimed_length_takes_no_memory() {
    let bench = Bench::new();
    // All that it may map is 24 MB.
    let (mut raw, _) = Raw::greet(bench.server("ulimit -v 24000;", ""));
    for len in [0x7fff_ffff, 0xffff_ffff, 0x0004_0000] {
        assert_eq!(raw.status(11, fields().u32(len)), BAD_MESSAGE);
        assert_eq!(
            raw.status(6, fields().string("h").u64(0).u32(len)),
            BAD_MESSAGE
        );
        let attrs = fields().string("x").u32(0x8000_0000).u32(len);
        assert_eq!(raw.status(9, attrs), BAD_MESSAGE);
    }
    let handle = raw.open("f", READ | WRITE | CREAT);
    let (kind, body) = raw.ask(5, fields().string(&handle).u64(0).u32(u32::MAX));
    assert_eq!((kind, number(&body)), (101, EOF));
    assert_eq!(raw.finish(), (Some(0), vec![]));
}

#[test]
fn truncated_requests_are_bad_messages_and_no_more() {
    let bench = Bench::new();
    fs::write(bench.path("remote/keep"), b"kept").expect("write");
    let (mut raw, _) = Raw::greet(bench.server("", ""));
    for kind in (3..=20).chain([200]) {
        assert_eq!(raw.status(kind, fields()), BAD_MESSAGE, "{kind}");
        assert_eq!(raw.status(kind, fields().u32(5)), BAD_MESSAGE, "{kind}");
    }
    for name in [
        "posix-rename@openssh.com",
        "statvfs@openssh.com",
        "fstatvfs@openssh.com",
        "hardlink@openssh.com",
        "fsync@openssh.com",
        "lsetstat@openssh.com",
        "expand-path@openssh.com",
        "copy-data",
        "home-directory",
        "users-groups-by-id@openssh.com",
    ] {
        assert_eq!(raw.status(200, extended(name)), BAD_MESSAGE, "{name}");
        assert_eq!(
            raw.status(200, extended(name).u32(9)),
            BAD_MESSAGE,
            "{name}"
        );
    }
    // A whole request but for the last field.
    assert_eq!(raw.status(13 + 5, fields().string("keep")), BAD_MESSAGE);
    assert_eq!(
        raw.status(9, fields().string("keep").u32(1).u32(0)),
        BAD_MESSAGE
    );
    assert_eq!(fs::read(bench.path("remote/keep")).expect("read"), b"kept");
}

#[test]
fn what_is_not_known_is_unsupported() {
    let bench = Bench::new();
    let (mut raw, _) = Raw::greet(bench.server("", ""));
    for kind in [0, 2, 21, 22, 99, 100, 101, 105, 199, 201, 255] {
        assert_eq!(raw.status(kind, fields()), OP_UNSUPPORTED, "{kind}");
    }
    for name in ["", "no-such@openssh.com", "posix-rename"] {
        assert_eq!(
            raw.status(200, extended(name).string("a").string("b")),
            OP_UNSUPPORTED
        );
    }
}

#[test]
fn only_handles_that_were_given_are_taken() {
    let bench = Bench::new();
    fs::write(bench.path("remote/f"), b"x").expect("write");
    let (mut raw, _) = Raw::greet(bench.server("", ""));
    let file = raw.open("f", READ | WRITE);
    let (kind, body) = raw.ask(11, fields().string("."));
    assert_eq!(kind, 102);
    let dir = body[4..].to_vec();
    let stale = raw.open("f", READ);
    assert_eq!(raw.status(4, fields().string(&stale)), OK);
    assert_eq!(raw.status(4, fields().string(&stale)), FAILURE);
    // Its slot is taken again, by another.
    let again = raw.open("f", READ);
    assert_ne!(stale, again);
    let mut next = file.clone();
    *next.last_mut().expect("not empty") ^= 0x40;
    for bogus in [
        &b""[..],
        b"\0",
        b"\0\0\0\0",
        &[0xff; 8],
        &[0; 9],
        &[0; 256],
        &stale,
        &next,
    ] {
        let handle = || fields().string(bogus);
        assert_eq!(raw.status(4, handle()), FAILURE);
        assert_eq!(raw.status(5, handle().u64(0).u32(10)), FAILURE);
        assert_eq!(raw.status(6, handle().u64(0).string("data")), FAILURE);
        assert_eq!(raw.status(8, handle()), FAILURE);
        assert_eq!(raw.status(10, handle().u32(4).u32(0)), FAILURE);
        assert_eq!(raw.status(12, handle()), FAILURE);
        assert_eq!(
            raw.status(200, extended("fstatvfs@openssh.com").string(bogus)),
            FAILURE
        );
        assert_eq!(
            raw.status(200, extended("fsync@openssh.com").string(bogus)),
            FAILURE
        );
        let copy = extended("copy-data")
            .string(bogus)
            .u64(0)
            .u64(0)
            .string(&file)
            .u64(0);
        assert_eq!(raw.status(200, copy), FAILURE);
        let copy = extended("copy-data")
            .string(&file)
            .u64(0)
            .u64(0)
            .string(bogus)
            .u64(0);
        assert_eq!(raw.status(200, copy), FAILURE);
    }
    // Of the wrong kind.
    assert_eq!(raw.status(12, fields().string(&file)), FAILURE);
    assert_eq!(raw.status(5, fields().string(&dir).u64(0).u32(10)), FAILURE);
    assert_eq!(
        raw.status(6, fields().string(&dir).u64(0).string("x")),
        FAILURE
    );
    // A directory can be asked for its attributes all the same.
    assert_eq!(raw.ask(8, fields().string(&dir)).0, 105);
}

#[test]
fn handles_are_bounded_by_the_descriptors() {
    let bench = Bench::new();
    fs::write(bench.path("remote/f"), b"x").expect("write");
    let (mut raw, _) = Raw::greet(bench.server("ulimit -n 40;", ""));
    let (_, limits) = raw.ask(200, extended("limits@openssh.com"));
    let limit = |i: usize| u64::from_be_bytes(limits[i * 8..][..8].try_into().expect("eight"));
    assert_eq!([limit(0), limit(1), limit(2)], [262_144, 261_120, 261_120]);
    let max = limit(3);
    assert!((16..40).contains(&max), "{max}");
    let handles: Vec<_> = (0..max).map(|_| raw.open("f", READ)).collect();
    for _ in 0..100 {
        assert_eq!(
            raw.status(3, fields().string("f").u32(READ).u32(0)),
            FAILURE
        );
        assert_eq!(raw.status(11, fields().string(".")), FAILURE);
        // And nothing is created by what cannot be opened.
        assert_eq!(
            raw.status(3, fields().string("new").u32(WRITE | CREAT).u32(0)),
            FAILURE
        );
    }
    assert!(!bench.path("remote/new").exists());
    for handle in &handles {
        assert_eq!(raw.status(4, fields().string(handle)), OK);
    }
    raw.open("f", READ);
}

#[test]
fn it_says_nothing_even_to_nonsense() {
    for args in [&["-x"][..], &["-u", "zz"], &["-h"], &["operand"]] {
        let output = Command::new(GUEST)
            .arg("sftp-server")
            .args(args)
            .output()
            .expect("it runs");
        assert!(!output.status.success() && output.stderr.is_empty() && output.stdout.is_empty());
    }
    let output = Command::new(GUEST)
        .args(["sftp-server", "-Q", "requests"])
        .output();
    let list = String::from_utf8(output.expect("it runs").stdout).expect("plain");
    assert!(list.lines().any(|line| line == "open") && list.lines().any(|l| l == "copy-data"));
}

#[test]
fn every_request_gets_one_reply_whatever_is_in_it() {
    let bench = Bench::new();
    let (mut raw, _) = Raw::greet(bench.server("", ""));
    // Relative names only, of one letter: nothing outside is reached.
    let pieces: Vec<Vec<u8>> = (0..6_u64)
        .map(|i| match i {
            0 => fields().string("a").0,
            1 => fields().string("b").0,
            2 => fields().u32(0).0,
            3 => fields().u32(0x8000_000f).0,
            4 => fields().string([0, 0, 0, 0, 0, 0, 0, 1]).0,
            _ => fields().u64(1 << 40).0,
        })
        .collect();
    let random = noise(11, 30_000);
    for (i, choice) in random.chunks(6).enumerate() {
        let mut request = fields().u32(i as u32);
        if choice[0] % 8 == 0 {
            const NAMES: [&str; 4] = [
                "copy-data",
                "lsetstat@openssh.com",
                "limits@openssh.com",
                "fsync@openssh.com",
            ];
            request = request.string(NAMES[choice[1] as usize % 4]);
        }
        for &pick in &choice[2..] {
            request
                .0
                .extend_from_slice(&pieces[pick as usize % pieces.len()]);
        }
        let kind = if choice[0] % 8 == 0 {
            200
        } else {
            3 + choice[1] % 19
        };
        raw.send(&request.packet(kind));
        let reply = raw.receive();
        assert_eq!(number(&reply[1..]), i as u32);
        assert!((101..=105).contains(&reply[0]) || reply[0] == 201);
    }
    assert_eq!(raw.finish(), (Some(0), vec![]));
}
