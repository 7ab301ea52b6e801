//! Property tests of the SFTP decoder and encoder.

use podspawn_guest::sftp::attrs::Attrs;
use podspawn_guest::sftp::reply::Out;
use podspawn_guest::sftp::wire::{MAX_PACKET, Packet, Reader, Request, packet_len};
use proptest::prelude::*;

fn attrs() -> impl Strategy<Value = Attrs> {
    (
        any::<Option<u64>>(),
        any::<Option<(u32, u32)>>(),
        any::<Option<u32>>(),
        any::<Option<(u32, u32)>>(),
    )
        .prop_map(|(size, owner, mode, times)| Attrs {
            size,
            owner,
            mode,
            times,
        })
}

proptest! {
    #[test]
    fn any_bytes_decode_or_fail(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let decoded = Packet::decode(&bytes);
        prop_assert_eq!(decoded.is_err(), bytes.len() < 5);
        let _ = packet_len(&bytes);
    }

    #[test]
    fn every_kind_decodes_or_fails(
        kind in any::<u8>(),
        strings in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 0..5),
        tail in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let mut bytes = vec![kind, 0, 0, 0, 7];
        for string in &strings {
            bytes.extend_from_slice(&(string.len() as u32).to_be_bytes());
            bytes.extend_from_slice(string);
        }
        bytes.extend_from_slice(&tail);
        prop_assert!(Packet::decode(&bytes).is_ok());
    }

    #[test]
    fn attributes_survive_the_wire(attrs in attrs()) {
        let mut bytes = Vec::new();
        attrs.encode(&mut bytes);
        let mut reader = Reader::new(&bytes);
        prop_assert_eq!(Attrs::decode(&mut reader), Ok(attrs));
        prop_assert!(reader.is_empty());
        for cut in 0..bytes.len() {
            prop_assert!(Attrs::decode(&mut Reader::new(&bytes[..cut])).is_err());
        }
    }

    #[test]
    fn a_string_is_what_is_there(bytes in prop::collection::vec(any::<u8>(), 0..50)) {
        match Reader::new(&bytes).string() {
            Ok(string) => {
                let len = u32::from_be_bytes(bytes[..4].try_into().unwrap()) as usize;
                prop_assert_eq!(string, &bytes[4..4 + len]);
            }
            Err(_) => {
                let claimed = bytes.first_chunk::<4>().map(|len| u32::from_be_bytes(*len));
                prop_assert!(claimed.is_none_or(|len| len as usize > bytes.len() - 4));
            }
        }
    }

    #[test]
    fn replies_are_framed(
        id in any::<u32>(),
        data in prop::collection::vec(any::<u8>(), 0..2000),
        max in 0usize..3000,
    ) {
        // Too small on purpose: it has to grow.
        let mut out = Out::with_capacity(16);
        out.status(id, podspawn_guest::sftp::wire::Code::Eof, "x");
        let before = out.len();
        out.data(id, max, |room| -> Result<usize, ()> {
            assert_eq!(room.len(), max);
            let n = data.len().min(max);
            room[..n].copy_from_slice(&data[..n]);
            Ok(n)
        }).unwrap();
        let n = data.len().min(max);
        let packet = out.bytes()[before..].to_vec();
        prop_assert_eq!(packet_len(&packet), Ok(Some(packet.len() - 4)));
        let mut reader = Reader::new(&packet[4..]);
        prop_assert_eq!(reader.u8(), Ok(103));
        prop_assert_eq!(reader.u32(), Ok(id));
        prop_assert_eq!(reader.string(), Ok(&data[..n]));
        prop_assert!(reader.is_empty());
        prop_assert!(out.data(id, max, |_| Err(())).is_err());
        prop_assert_eq!(out.len(), before + packet.len());
    }
}

#[test]
fn lengths_out_of_bounds_are_refused() {
    let len = |len: u32| packet_len(&len.to_be_bytes());
    assert!(len(0).is_err());
    assert_eq!(len(1), Ok(Some(1)));
    assert_eq!(len(MAX_PACKET as u32), Ok(Some(MAX_PACKET)));
    assert!(len(MAX_PACKET as u32 + 1).is_err());
    assert!(len(u32::MAX).is_err());
    assert_eq!(packet_len(&[0, 0, 0]), Ok(None));
}

#[test]
fn a_count_of_extended_attributes_is_not_believed() {
    let bytes = [
        0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0,
    ];
    assert!(Attrs::decode(&mut Reader::new(&bytes)).is_err());
}

#[test]
fn an_extended_request_is_told_by_its_name() {
    let mut packet = vec![200, 0, 0, 0, 1, 0, 0, 0, 19];
    packet.extend_from_slice(b"statvfs@openssh.com\0\0\0\x01/");
    let Ok(Packet::Request(1, Ok(Request::Statvfs { path }))) = Packet::decode(&packet) else {
        panic!("not a statvfs request");
    };
    assert_eq!(path, b"/");
}
