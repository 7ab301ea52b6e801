//! Sparse files: the old GNU format in the header itself, and GNU's pax formats 0.0, 0.1 and 1.0.

use super::header::{BLOCK, Why, unsigned};

/// A stretch of data in a sparse file; everything between stretches is zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

/// Stretches of data of one file: each takes memory, however few bytes name it.
pub(super) const EXTENTS: usize = 64 << 10;

const BAD: Why = "the map of a sparse file is wrong";

/// Adds the entries of an old GNU map, 24 bytes each; an empty one ends it.
pub(super) fn old_entries(fields: &[u8], map: &mut Vec<Extent>) -> Result<(), Why> {
    for field in fields.chunks_exact(24) {
        if field[0] == 0 {
            break;
        }
        map.push(Extent {
            offset: unsigned(&field[..12])?,
            length: unsigned(&field[12..])?,
        });
    }
    Ok(())
}

/// An old GNU header's own map, whether extension blocks follow, and the file's size.
pub(super) fn old_header(block: &[u8; BLOCK]) -> Result<(Vec<Extent>, bool, u64), Why> {
    let mut map = Vec::new();
    old_entries(&block[386..482], &mut map)?;
    Ok((map, block[482] != 0, unsigned(&block[483..495])?))
}

/// An extension block's part, and whether another follows.
pub(super) fn old_extension(block: &[u8; BLOCK], map: &mut Vec<Extent>) -> Result<bool, Why> {
    old_entries(&block[..504], map)?;
    Ok(block[504] != 0)
}

pub(super) fn pairs(numbers: &[u64]) -> Result<Vec<Extent>, Why> {
    if !numbers.len().is_multiple_of(2) {
        return Err(BAD);
    }
    let pair = |pair: &[u64]| Extent {
        offset: pair[0],
        length: pair[1],
    };
    Ok(numbers.chunks_exact(2).map(pair).collect())
}

/// Whether the map is in order, fits in a file of `size` bytes, and has `data` bytes of data.
pub(super) fn check(map: &[Extent], size: u64, data: u64) -> Result<(), Why> {
    if map.len() > EXTENTS {
        return Err("a sparse file in too many pieces");
    }
    let (mut end, mut sum) = (0, 0u64);
    for extent in map {
        if extent.offset < end {
            return Err(BAD);
        }
        end = extent.offset.checked_add(extent.length).ok_or(BAD)?;
        sum += extent.length;
    }
    // Ordered and without overlap: the sum is at most `end`, so it cannot have overflowed.
    if end > size || sum != data || size > i64::MAX as u64 {
        return Err(BAD);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_ordered_and_within_the_file() {
        let at = |list: &[u64]| pairs(list).unwrap();
        assert_eq!(check(&at(&[0, 5, 10, 5]), 20, 10), Ok(()));
        assert_eq!(check(&at(&[0, 5, 5, 0, 20, 0]), 20, 5), Ok(()));
        assert_eq!(check(&[], 0, 0), Ok(()));
        assert!(check(&at(&[0, 5, 4, 5]), 20, 10).is_err());
        assert!(check(&at(&[10, 5, 0, 5]), 20, 10).is_err());
        assert!(check(&at(&[0, 5]), 4, 5).is_err());
        assert!(check(&at(&[0, 5]), 20, 6).is_err());
        assert!(check(&at(&[u64::MAX, 2]), u64::MAX, 2).is_err());
        assert!(check(&at(&[1, u64::MAX]), u64::MAX, u64::MAX).is_err());
        assert!(check(&[], u64::MAX, 0).is_err());
        assert!(pairs(&[1]).is_err());
    }
}
