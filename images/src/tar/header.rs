//! The 512-byte header block.

use super::reader::Time;

pub(super) const BLOCK: usize = 512;

/// Which dialect wrote the header: it decides what the last 167 bytes mean.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Dialect {
    V7,
    Posix,
    Star,
    Gnu,
}

/// The header's fields, undressed.
pub(super) struct Header {
    pub(super) name: Vec<u8>,
    pub(super) link: Vec<u8>,
    pub(super) kind: u8,
    pub(super) mode: u32,
    pub(super) uid: u64,
    pub(super) gid: u64,
    pub(super) size: u64,
    pub(super) mtime: Time,
}

pub(super) type Why = &'static str;

pub(super) fn is_zero(block: &[u8; BLOCK]) -> bool {
    *block == [0; BLOCK]
}

/// Up to the first NUL.
pub(super) fn text(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|byte| *byte == 0);
    &field[..end.unwrap_or(field.len())]
}

/// A numeric field: octal digits between blanks and NULs, or base 256 with the top bit set.
pub(super) fn number(field: &[u8]) -> Result<i64, Why> {
    const BAD: Why = "a numeric field of the header is not a number";
    let Some((first, rest)) = field.split_first() else {
        return Err(BAD);
    };
    if first & 0x80 != 0 {
        // Two's complement, of which the first byte's top bit is only the mark.
        let sign = if first & 0x40 != 0 { -1 } else { 0 };
        let mut value: i64 = (sign << 6) | i64::from(first & 0x3f);
        for byte in rest {
            let shifted = value.checked_mul(256).ok_or(BAD)?;
            value = shifted | i64::from(*byte);
        }
        return Ok(value);
    }
    let blank = |byte: &u8| matches!(byte, b' ' | 0);
    let start = field.iter().position(|byte| !blank(byte));
    let Some(start) = start else { return Ok(0) };
    let digits = text(&field[start..]);
    let digits = digits
        .split(|byte| *byte == b' ')
        .next()
        .unwrap_or_default();
    let mut value: i64 = 0;
    for digit in digits {
        if !(b'0'..=b'7').contains(digit) {
            return Err(BAD);
        }
        let shifted = value.checked_mul(8).ok_or(BAD)?;
        value = shifted + i64::from(digit - b'0');
    }
    Ok(value)
}

/// A numeric field that cannot be negative.
pub(super) fn unsigned(field: &[u8]) -> Result<u64, Why> {
    u64::try_from(number(field)?).map_err(|_| "a numeric field of the header is negative")
}

/// Sum of all bytes with the checksum field taken as blanks; some old writers summed signed bytes.
fn checksum_fits(block: &[u8; BLOCK]) -> bool {
    let Ok(stored) = number(&block[148..156]) else {
        return false;
    };
    let (mut plain, mut signed) = (8 * i64::from(b' '), 8 * i64::from(b' '));
    for byte in block[..148].iter().chain(&block[156..]) {
        plain += i64::from(*byte);
        signed += i64::from(byte.cast_signed());
    }
    stored == plain || stored == signed
}

impl Header {
    pub(super) fn parse(block: &[u8; BLOCK]) -> Result<Header, Why> {
        if !checksum_fits(block) {
            return Err("the header's checksum is wrong");
        }
        let dialect = match &block[257..265] {
            b"ustar  \0" => Dialect::Gnu,
            magic if magic.starts_with(b"ustar\0") => {
                if &block[508..512] == b"tar\0" {
                    Dialect::Star
                } else {
                    Dialect::Posix
                }
            }
            _ => Dialect::V7,
        };
        let prefix = match dialect {
            Dialect::Posix => text(&block[345..500]),
            Dialect::Star => text(&block[345..476]),
            Dialect::V7 | Dialect::Gnu => &[],
        };
        let mut name = Vec::with_capacity(prefix.len() + 101);
        if !prefix.is_empty() {
            name.extend_from_slice(prefix);
            name.push(b'/');
        }
        name.extend_from_slice(text(&block[..100]));
        let mode = number(&block[100..108])?;
        Ok(Header {
            name,
            link: text(&block[157..257]).to_vec(),
            kind: block[156],
            // The type is in the kind; some writers repeat it in the mode.
            mode: (mode & 0o7777) as u32,
            uid: unsigned(&block[108..116])?,
            gid: unsigned(&block[116..124])?,
            size: unsigned(&block[124..136])?,
            mtime: Time {
                seconds: number(&block[136..148])?,
                nanoseconds: 0,
            },
        })
    }
}
