//! Pax extended header records: `"<length> <key>=<value>\n"`, as POSIX.1-2001 `pax` has them.

use base64::Engine as _;

use super::header::Why;
use super::reader::Time;
use super::sparse::EXTENTS;

/// What a local extended header says about the entry after it.
#[derive(Default)]
pub(super) struct Pax {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    pub(super) mtime: Option<Time>,
    /// Extended attributes in the order written, without their prefix.
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) sparse: SparseRecords,
}

/// The `GNU.sparse.*` records.
#[derive(Default)]
pub(super) struct SparseRecords {
    pub(super) major: Option<u64>,
    pub(super) minor: Option<u64>,
    pub(super) name: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) real_size: Option<u64>,
    pub(super) blocks: Option<u64>,
    /// Format 0.1: all numbers in one record; 0.0: a record each, collected here in order.
    pub(super) map: Vec<u64>,
}

const BAD: Why = "an extended header is malformed";

/// Extended attributes of an entry. The names of more no system call could list.
const XATTRS: usize = 4096;

pub(super) fn decimal(text: &[u8]) -> Result<u64, Why> {
    if text.is_empty() || text.len() > 20 || !text.iter().all(u8::is_ascii_digit) {
        return Err(BAD);
    }
    let text = std::str::from_utf8(text).map_err(|_| BAD)?;
    text.parse().map_err(|_| BAD)
}

/// `[-]seconds[.fraction]`; digits after the ninth are dropped, as Go drops them.
fn time(text: &[u8]) -> Result<Time, Why> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let mut parts = text.splitn(2, |byte| *byte == b'.');
    let seconds = decimal(parts.next().unwrap_or_default())?;
    let seconds = i64::try_from(seconds).map_err(|_| BAD)?;
    let fraction = parts.next().unwrap_or_default();
    if !fraction.iter().all(u8::is_ascii_digit) {
        return Err(BAD);
    }
    let mut nanoseconds = 0;
    for n in 0..9 {
        let digit = fraction.get(n).copied().unwrap_or(b'0');
        nanoseconds = nanoseconds * 10 + u32::from(digit - b'0');
    }
    Ok(match (negative, nanoseconds) {
        (false, _) => Time {
            seconds,
            nanoseconds,
        },
        (true, 0) => Time {
            seconds: -seconds,
            nanoseconds: 0,
        },
        (true, _) => Time {
            seconds: -seconds - 1,
            nanoseconds: 1_000_000_000 - nanoseconds,
        },
    })
}

/// A record's key and value, and what follows it.
pub(super) type Record<'a> = (&'a [u8], &'a [u8], &'a [u8]);

/// Splits off the first record.
pub(super) fn record(bytes: &[u8]) -> Result<Record<'_>, Why> {
    let blank = bytes.iter().take(21).position(|byte| *byte == b' ');
    let blank = blank.ok_or(BAD)?;
    let length = usize::try_from(decimal(&bytes[..blank])?).map_err(|_| BAD)?;
    if length > bytes.len() || length < blank + 3 {
        return Err(BAD);
    }
    let (record, rest) = bytes.split_at(length);
    let record = record[blank + 1..].strip_suffix(b"\n").ok_or(BAD)?;
    let equals = record.iter().position(|byte| *byte == b'=').ok_or(BAD)?;
    let (key, value) = (&record[..equals], &record[equals + 1..]);
    let name = matches!(key, b"path" | b"linkpath" | b"GNU.sparse.name");
    if key.is_empty() || key.contains(&0) || (name && value.contains(&0)) {
        return Err(BAD);
    }
    Ok((key, value, rest))
}

impl Pax {
    pub(super) fn parse(mut bytes: &[u8]) -> Result<Pax, Why> {
        let mut pax = Pax::default();
        while !bytes.is_empty() {
            let (key, value, rest) = record(bytes)?;
            bytes = rest;
            pax.take(key, value)?;
        }
        Ok(pax)
    }

    fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), Why> {
        // An empty value takes back what an earlier record said.
        let number = || (!value.is_empty()).then(|| decimal(value)).transpose();
        let name = || (!value.is_empty()).then(|| value.to_vec());
        match key {
            b"path" => self.path = name(),
            b"linkpath" => self.link = name(),
            b"size" => self.size = number()?,
            b"uid" => self.uid = number()?,
            b"gid" => self.gid = number()?,
            b"mtime" => self.mtime = (!value.is_empty()).then(|| time(value)).transpose()?,
            _ => {
                if let Some(key) = key.strip_prefix(b"GNU.sparse.") {
                    return self.take_sparse(key, value);
                }
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    self.set_xattr(name.to_vec(), value.to_vec(), true)?;
                } else if let Some(name) = key.strip_prefix(b"LIBARCHIVE.xattr.") {
                    // libarchive writes both; this one has the name escaped and the value encoded.
                    let name = percent_decode(name).ok_or(BAD)?;
                    let value = base64_decode(value).ok_or(BAD)?;
                    self.set_xattr(name, value, false)?;
                }
            }
        }
        Ok(())
    }

    fn set_xattr(&mut self, name: Vec<u8>, value: Vec<u8>, replace: bool) -> Result<(), Why> {
        let count = self.xattrs.len();
        match self.xattrs.iter_mut().find(|(known, _)| *known == name) {
            Some(known) if replace => known.1 = value,
            Some(_) => {}
            None if count == XATTRS => return Err("an entry with too many attributes"),
            None => self.xattrs.push((name, value)),
        }
        Ok(())
    }

    fn take_sparse(&mut self, key: &[u8], value: &[u8]) -> Result<(), Why> {
        let sparse = &mut self.sparse;
        match key {
            b"major" => sparse.major = Some(decimal(value)?),
            b"minor" => sparse.minor = Some(decimal(value)?),
            b"name" => sparse.name = Some(value.to_vec()),
            b"size" => sparse.size = Some(decimal(value)?),
            b"realsize" => sparse.real_size = Some(decimal(value)?),
            b"numblocks" => sparse.blocks = Some(decimal(value)?),
            b"offset" | b"numbytes" => {
                // They alternate, offset first.
                if sparse.map.len().is_multiple_of(2) != (key == b"offset") {
                    return Err(BAD);
                }
                sparse.map.push(decimal(value)?);
            }
            b"map" => {
                sparse.map.clear();
                for number in value.split(|byte| *byte == b',').take(2 * EXTENTS + 1) {
                    if !value.is_empty() {
                        sparse.map.push(decimal(number)?);
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }
}

fn percent_decode(text: &[u8]) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        if *byte != b'%' {
            decoded.push(*byte);
            continue;
        }
        let digit = |byte: u8| char::from(byte).to_digit(16);
        let (high, low) = (digit(*bytes.next()?)?, digit(*bytes.next()?)?);
        decoded.push((high * 16 + low) as u8);
    }
    (!decoded.contains(&0)).then_some(decoded)
}

/// Standard alphabet, padded or not.
fn base64_decode(text: &[u8]) -> Option<Vec<u8>> {
    use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
    let config =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    GeneralPurpose::new(&base64::alphabet::STANDARD, config)
        .decode(text)
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_and_after_1970() {
        let at = |text: &str| time(text.as_bytes()).map(|t| (t.seconds, t.nanoseconds));
        assert_eq!(at("1.5"), Ok((1, 500_000_000)));
        assert_eq!(at("1"), Ok((1, 0)));
        assert_eq!(at("1."), Ok((1, 0)));
        assert_eq!(at("-1.25"), Ok((-2, 750_000_000)));
        assert_eq!(at("-0.000000001"), Ok((-1, 999_999_999)));
        assert_eq!(at("-3"), Ok((-3, 0)));
        assert_eq!(at("0.1234567899"), Ok((0, 123_456_789)));
        for bad in [
            "",
            "-",
            "a",
            "1.x",
            "1.-1",
            "99999999999999999999",
            "--1",
            "1.5.5",
        ] {
            assert!(at(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn records_are_measured() {
        assert_eq!(
            record(b"10 path=a\nrest").unwrap(),
            (&b"path"[..], &b"a"[..], &b"rest"[..])
        );
        for bad in [
            &b"8 path=a\n"[..],
            b"11 path=a\n",
            b"path=a\n",
            b"5 =a\n",
            b"99999999999999999999999 a=b\n",
            b"4 ab",
            b"0 ",
            b"13 path=a\0bc\n",
            b"9 a\0b=cd\n",
        ] {
            assert!(record(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn what_few_bytes_can_ask_for_is_bounded() {
        let records = |count: usize| {
            let record = |n| format!("27 SCHILY.xattr.u.{n:07}=\n");
            (0..count).map(record).collect::<String>()
        };
        assert_eq!(
            Pax::parse(records(XATTRS).as_bytes()).map(|pax| pax.xattrs.len()),
            Ok(XATTRS)
        );
        assert!(Pax::parse(records(XATTRS + 1).as_bytes()).is_err());
        let map = vec!["0"; 6 * EXTENTS].join(",");
        let record = format!("{} GNU.sparse.map={map}\n", map.len() + 17 + 6);
        let map = Pax::parse(record.as_bytes())
            .unwrap_or_else(|why| panic!("{why}"))
            .sparse
            .map;
        assert!(crate::tar::sparse::pairs(&map).is_err(), "{}", map.len());
    }

    #[test]
    fn attributes_in_both_spellings() {
        let pax = |records: &[u8]| Pax::parse(records).map(|pax| pax.xattrs);
        let one = vec![(b"user.a b".to_vec(), b"hi\0".to_vec())];
        assert_eq!(pax(b"29 SCHILY.xattr.user.a b=hi\0\n"), Ok(one.clone()));
        assert_eq!(pax(b"36 LIBARCHIVE.xattr.user.a%20b=aGkA\n"), Ok(one));
        assert_eq!(base64_decode(b"aGk="), Some(b"hi".to_vec()));
        assert_eq!(base64_decode(b"aGk"), Some(b"hi".to_vec()));
        assert_eq!(base64_decode(b"a"), None);
        assert_eq!(base64_decode(b"a-k="), None);
    }
}
