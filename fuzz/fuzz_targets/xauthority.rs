//! An Xauthority file that holds anything. What is found in it must be of it, and
//! what is written of it must be read as the same.
#![no_main]

// The module alone: the crate around it would bring a container runtime along.
#[allow(dead_code)]
#[path = "../../runtime/src/sockets/authority.rs"]
mod authority;

use authority::{LOCAL, WILD, local, records};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut again = Vec::new();
    for record in records(data) {
        again.extend(record.file().expect("counted by 16 bits"));
    }
    // All of it, but for what is cut short at the end.
    assert!(data.starts_with(&again));
    for number in [0, 10] {
        let Some(found) = local(data, b"host", number) else {
            continue;
        };
        assert_eq!((found.family, found.address), (LOCAL, &b"host"[..]));
        assert_eq!(found.number, number.to_string().as_bytes());
        assert!(!found.data.is_empty());
        let mut wild = found;
        (wild.family, wild.address) = (WILD, b"");
        let file = wild.file().expect("counted by 16 bits");
        assert_eq!(records(&file).collect::<Vec<_>>(), [wild]);
    }
});
