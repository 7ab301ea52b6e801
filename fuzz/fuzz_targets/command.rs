//! Any value of `SSH_ORIGINAL_COMMAND`. A command reaches the container byte for byte; what is
//! taken for sshd's own sftp command must be what a shell would run.
#![no_main]

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use libfuzzer_sys::fuzz_target;
use podspawn::original_command::OriginalCommand;

fuzz_target!(|data: &[u8]| {
    match parse(data.to_vec()) {
        OriginalCommand::Shell => panic!("a command became none"),
        OriginalCommand::Command(command) => assert_eq!(command.as_bytes(), data),
        OriginalCommand::Sftp { args } => {
            let program = data.split(|b| b" \t".contains(b)).next().expect("a first");
            assert!(program == b"internal-sftp" || program.ends_with(b"/sftp-server"));
            assert!(!data.contains(&0));
            // Nothing that a shell would do more with than split it, outside of quotes; and every
            // quote is closed, so that with each word quoted it means the same.
            let mut again = b"internal-sftp".to_vec();
            for arg in &args {
                again.extend(b" '");
                for part in arg.as_bytes() {
                    match part {
                        b'\'' => again.extend(b"'\\''"),
                        byte => again.push(*byte),
                    }
                }
                again.push(b'\'');
            }
            assert_eq!(parse(again), OriginalCommand::Sftp { args });
            // Without quotes and escapes there is one way to split.
            if !data.iter().any(|b| b"'\"\\".contains(b)) {
                assert!(!data.iter().any(|b| b"\n;&|<>()$`*?[]{}!#~".contains(b)));
            }
        }
    }
});

fn parse(bytes: Vec<u8>) -> OriginalCommand {
    OriginalCommand::parse(Some(OsString::from_vec(bytes)))
}
