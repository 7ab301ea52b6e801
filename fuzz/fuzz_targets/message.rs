//! Messages on a supervisor's control socket, from both sides, with any number of descriptors. The
//! first byte says how many; messages are separated by NUL bytes.
#![no_main]

use std::fs;
use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, RawFd};

use libfuzzer_sys::fuzz_target;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use podspawn_runtime::pod::{Connection, Reply, Request};
use rustix::net::RecvFlags;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// What the kernel takes beside one message, and more than a receiver has room for.
const MOST: usize = 5;

fuzz_target!(|data: &[u8]| {
    let Some((&count, said)) = data.split_first() else {
        return;
    };
    let open = descriptors();
    for message in said.split(|byte| *byte == 0) {
        hear::<Request>(message, usize::from(count) % MOST);
        hear::<Reply>(message, usize::from(count) % MOST);
    }
    // None is left of those that came, whatever came with them.
    assert_eq!(descriptors(), open);
});

/// Sends the bytes, and hears them as a message. What is understood is said the same way again.
fn hear<M: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(bytes: &[u8], count: usize) {
    let (here, there) = Connection::pair().expect("a pair");
    let beside: Vec<RawFd> = vec![2; count];
    let rights = [ControlMessage::ScmRights(&beside)];
    let rights = if beside.is_empty() { &[] } else { &rights[..] };
    let here_fd = here.as_fd().as_raw_fd();
    sendmsg::<()>(here_fd, &[IoSlice::new(bytes)], rights, MsgFlags::empty(), None).expect("sent");
    let Ok((message, fds)) = there.receive::<M>(RecvFlags::DONTWAIT) else {
        return;
    };
    assert!(fds.len() <= count);
    here.send(&message, &[]).expect("sent again");
    let (again, fds) = there.receive::<M>(RecvFlags::DONTWAIT).expect("understood again");
    assert_eq!(again, message);
    assert!(fds.is_empty());
}

fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").expect("proc").count()
}
