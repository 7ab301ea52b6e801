//! Archives that nobody wrote: whatever the bytes, reading ends, with entries or an error.

use proptest::prelude::*;

use super::{Entry, Reader, TarError};

const LIMIT: usize = 64 << 10;

fn read(archive: &[u8]) -> Result<Vec<(Entry, u64)>, TarError> {
    let mut reader = Reader::new(archive, LIMIT);
    let mut entries = Vec::new();
    while let Some(entry) = reader.next()? {
        let mut content = 0;
        loop {
            let count = reader.content()?.len();
            if count == 0 {
                break;
            }
            reader.consume(count);
            content += count as u64;
        }
        entries.push((entry, content));
    }
    reader.drain()?;
    assert_eq!(reader.position(), archive.len() as u64);
    Ok(entries)
}

/// A header that is right but for what a test puts in it.
fn header(kind: u8, size: &[u8; 12], magic: &[u8; 8], fill: u8) -> [u8; 512] {
    let mut block = [0; 512];
    block[0] = b'n';
    block[124..136].copy_from_slice(size);
    block[156] = kind;
    block[257..265].copy_from_slice(magic);
    // The prefix of ustar, the sparse map of GNU.
    block[345..512].fill(fill);
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum::<u32>() + 8 * 32;
    block[148..154].copy_from_slice(format!("{sum:06o}").as_bytes());
    block
}

fn block() -> impl Strategy<Value = Vec<u8>> {
    let kind = proptest::sample::select(b"0123456789xgLKSVXDMN\0\xff".to_vec());
    let size = prop_oneof![
        (0..2000u64).prop_map(|size| {
            let mut field = [0; 12];
            field[..11].copy_from_slice(format!("{size:011o}").as_bytes());
            field
        }),
        any::<[u8; 12]>(),
    ];
    let magic = proptest::sample::select(vec![*b"ustar\x0000", *b"ustar  \0", [0; 8]]);
    let fill = prop_oneof![Just(0), Just(b'1'), any::<u8>()];
    let body = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..600),
        Just(b"12 path=abc\n24 GNU.sparse.map=1,2,3\n".to_vec()),
        Just(
            b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n27 GNU.sparse.realsize=512\n".to_vec()
        ),
        Just(b"1\n0\n5\n".to_vec()),
        Just(vec![0; 512]),
    ];
    (kind, size, magic, fill, body).prop_map(|(kind, size, magic, fill, mut body)| {
        body.resize(body.len().next_multiple_of(512), 0);
        [&header(kind, &size, &magic, fill)[..], &body].concat()
    })
}

proptest! {
    #[test]
    fn reading_always_ends(blocks in proptest::collection::vec(block(), 0..8), cut in 0..4096usize) {
        let mut archive = blocks.concat();
        archive.truncate(archive.len().saturating_sub(cut % 700));
        if let Ok(entries) = read(&archive) {
            for (entry, content) in entries {
                let stretches = entry.sparse.iter().flatten();
                let data: u64 = stretches.map(|stretch| stretch.length).sum();
                prop_assert_eq!(content, if entry.sparse.is_some() { data } else { entry.size });
                prop_assert!(entry.size <= i64::MAX as u64);
                prop_assert!(entry.mode <= 0o7777);
            }
        }
    }

    #[test]
    fn reading_anything_ends(archive in proptest::collection::vec(any::<u8>(), 0..3000)) {
        let _ = read(&archive);
    }
}
