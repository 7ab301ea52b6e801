//! The original command is data: it arrives byte for byte.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use crate::support::Noise;
use crate::support::host::Host;
use crate::tests;

tests![
    quotes_and_expansions_mean_what_they_mean_to_sh,
    newlines_survive,
    bytes_that_are_no_text_survive,
    a_hundred_kilobytes_survive,
    any_bytes_survive,
    leading_and_trailing_blanks_survive,
    options_are_no_options_of_podspawn,
];

/// Both shells that a container is likely to have.
const IMAGES: [&str; 2] = ["debian", "busybox"];

fn quotes_and_expansions_mean_what_they_mean_to_sh() {
    let commands = [
        r#"echo "a b"  'c  d' e\ f"#,
        r#"printf '%s\n' "$(echo "$(printf 'nested "quotes"')")""#,
        r#"echo '$HOME' "\$HOME" `echo back`"#,
        "x='it'\\''s'; echo \"$x\"",
        "echo *no-match* ?; set -f; echo *",
        "for i in 1 2 3; do echo $i; done | while read l; do echo \"[$l]\"; done",
        "cat <<'E'\n$not \"expanded\" `here`\nE",
        "echo a;echo b&&echo c||echo d # a comment",
        "echo $((6*7)) ${UNSET:-default} \"${UNSET:-'q'}\"",
        "printf '%s|' \"\" '' x",
        r"printf '%s' '\\\\ \n \t'",
        "echo ~nobody >/dev/null; echo !history! '{a,b}'",
        "echo 'ünïcödé ☃'",
    ];
    for image in IMAGES {
        let host = Host::shared(image);
        for command in commands {
            let expected = Host::plain().ssh(command).run();
            let found = host.ssh(command).run();
            assert_eq!(found, expected, "{image}: {command}");
        }
    }
}

fn newlines_survive() {
    for image in IMAGES {
        let host = Host::shared(image);
        assert_eq!(
            host.ssh("echo one\necho two\n\necho 'three\nfour'\n")
                .run()
                .line(),
            "one\ntwo\nthree\nfour"
        );
        assert_eq!(host.ssh("printf '%s' 'a\tb\rc'").run().stdout, b"a\tb\rc");
    }
}

fn bytes_that_are_no_text_survive() {
    let mut command = b"printf %s '".to_vec();
    // Every byte but NUL, which no argument can hold, and the quote.
    let all: Vec<u8> = (1..=255).filter(|byte| *byte != b'\'').collect();
    command.extend(&all);
    command.push(b'\'');
    for image in IMAGES {
        let found = Host::shared(image)
            .ssh(OsString::from_vec(command.clone()))
            .run();
        assert_eq!(found.code, Some(0), "{image}: {found}");
        assert_eq!(found.stdout, all, "{image}");
    }
}

fn a_hundred_kilobytes_survive() {
    let mut noise = Noise::new(2);
    let data: String = (0..100_000)
        .map(|_| char::from(b'a' + (noise.next() % 26) as u8))
        .collect();
    for image in IMAGES {
        let found = Host::shared(image).ssh(format!("printf %s {data}")).run();
        assert_eq!(
            (found.code, found.stdout == data.as_bytes()),
            (Some(0), true),
            "{image}: {found}"
        );
    }
}

fn any_bytes_survive() {
    let host = Host::shared("busybox");
    let mut noise = Noise::new(3);
    for round in 0..20 {
        let length = (noise.next() % 400) as usize;
        let mut data = noise.bytes(length);
        data.retain(|byte| *byte != 0);
        let mut command = b"printf %s '".to_vec();
        for byte in &data {
            if *byte == b'\'' {
                command.extend(b"'\\''");
            } else {
                command.push(*byte);
            }
        }
        command.push(b'\'');
        let found = host.ssh(OsString::from_vec(command)).run();
        assert_eq!(
            (found.code, &found.stdout),
            (Some(0), &data),
            "round {round}"
        );
    }
}

fn leading_and_trailing_blanks_survive() {
    let host = Host::shared("debian");
    assert_eq!(host.ssh("  echo x  ").run().line(), "x");
    assert_eq!(host.ssh(" ").run(), Host::plain().ssh(" ").run());
    // sh shows its own argument.
    let shown = host
        .ssh(" tr '\\0' '\\n' </proc/$$/cmdline | tail -n +3 ")
        .run();
    assert_eq!(
        shown.line(),
        " tr '\\0' '\\n' </proc/$$/cmdline | tail -n +3 "
    );
}

fn options_are_no_options_of_podspawn() {
    let host = Host::shared("debian");
    for command in [
        "--help",
        "--version",
        "-c true",
        "spawn --help",
        "sftp-server --help",
    ] {
        let found = host.ssh(format!(" {command}")).run();
        assert_eq!(
            found.code,
            Host::plain().ssh(format!(" {command}")).run().code,
            "{command}: {found}"
        );
        assert!(!found.text().contains("podspawn"), "{command}: {found}");
    }
}
