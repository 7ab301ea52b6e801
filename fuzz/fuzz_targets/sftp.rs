//! A client of the guest's sftp-server that says anything. The first byte chooses
//! whether the rest is the stream itself, or packets to be framed, each after two
//! bytes of length.
#![no_main]

mod jail;

use std::io;
use std::sync::LazyLock;

use jail::Jail;
use libfuzzer_sys::fuzz_target;
use podspawn_guest::sftp::policy::Policy;
use podspawn_guest::sftp::serve;
use podspawn_guest::sftp::server::Server;
use podspawn_guest::sftp::transport::{Sent, Transport, Wait};
use podspawn_guest::sftp::wire::MAX_PACKET;

static JAIL: LazyLock<Jail> = LazyLock::new(Jail::new);

const INIT: [u8; 9] = [0, 0, 0, 5, 1, 0, 0, 0, 3];

struct Client {
    said: Vec<u8>,
    at: usize,
    heard: Vec<u8>,
    turn: usize,
}

impl Transport for Client {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        assert!(!buffer.is_empty());
        // In uneven pieces.
        self.turn += 1;
        let n = buffer
            .len()
            .min(self.said.len() - self.at)
            .min(1 + self.turn * 37 % 5000);
        buffer[..n].copy_from_slice(&self.said[self.at..self.at + n]);
        self.at += n;
        Ok(n)
    }

    fn write(&mut self, bytes: &[u8], otherwise: Wait) -> io::Result<Sent> {
        self.turn += 1;
        match (self.turn % 5, otherwise) {
            (0, Wait::No) => return Ok(Sent::NotNow),
            (1, Wait::ToWriteOrRead) => return Ok(Sent::ReadFirst),
            _ => {}
        }
        let n = bytes.len().min(1 + self.turn * 101 % 70_000);
        self.heard.extend_from_slice(&bytes[..n]);
        Ok(Sent::Bytes(n))
    }
}

/// Every reply is whole and of a kind that a server sends; returns how many there are.
fn check(mut heard: &[u8]) -> usize {
    let mut replies = 0;
    while let Some((len, rest)) = heard.split_first_chunk::<4>() {
        let len = u32::from_be_bytes(*len) as usize;
        assert!((5..=MAX_PACKET).contains(&len), "a reply of {len} bytes");
        let (packet, rest) = rest.split_at(len);
        assert!(
            matches!(packet[0], 2 | 101..=105 | 201),
            "a reply of kind {}",
            packet[0]
        );
        heard = rest;
        replies += 1;
    }
    assert!(heard.is_empty(), "a cut reply");
    replies
}

fuzz_target!(|data: &[u8]| {
    let Some((&mode, data)) = data.split_first() else {
        return;
    };
    let mut said = INIT.to_vec();
    let mut packets = None;
    if mode & 1 == 0 {
        said.extend_from_slice(data);
    } else {
        let mut rest = data;
        let mut count = 1;
        while let Some((len, after)) = rest.split_first_chunk::<2>() {
            let len = usize::from(u16::from_be_bytes(*len)).min(after.len());
            // Shorter ones end the session.
            if len < 5 {
                break;
            }
            said.extend_from_slice(&(len as u32).to_be_bytes());
            said.extend_from_slice(&after[..len]);
            rest = &after[len..];
            count += 1;
        }
        packets = Some(count);
    }
    JAIL.run(move || {
        let mut client = Client {
            said,
            at: 0,
            heard: Vec::new(),
            turn: usize::from(mode),
        };
        let ended = serve(&mut client, Server::new(Policy::default()));
        let replies = check(&client.heard);
        if let Some(packets) = packets {
            ended.expect("nothing that ends a session was said");
            assert_eq!(replies, packets, "one reply to every packet");
        }
    });
});
