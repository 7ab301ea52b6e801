//! The format of Xauthority files. Pure; what is read is not trusted.
//!
//! A record is a family and four counted strings, every number 16 bits big-endian
//! (libXau, `Xauth.h`): the address, the display's number, the name of a method,
//! and its data, the cookie.

/// `FamilyLocal`: the address is a host name, the display is on this host.
pub const LOCAL: u16 = 256;

/// `FamilyWild`: whatever the client thinks the address is.
pub const WILD: u16 = 65535;

/// The largest file that is looked at, in bytes.
pub const MAX_FILE: usize = 1 << 20;

/// One record.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// What kind of address it is.
    pub family: u16,
    /// The address.
    pub address: &'a [u8],
    /// The display's number in decimal; empty means every display.
    pub number: &'a [u8],
    /// The method, as `MIT-MAGIC-COOKIE-1`.
    pub name: &'a [u8],
    /// The secret.
    pub data: &'a [u8],
}

/// Not the secret: what is printed may be kept.
impl std::fmt::Debug for Record<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Record")
            .field("family", &self.family)
            .field("address", &self.address)
            .field("number", &self.number)
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// The records of a file, up to the first that is cut short.
pub fn records(file: &[u8]) -> impl Iterator<Item = Record<'_>> {
    let mut rest = file;
    std::iter::from_fn(move || {
        let mut at = rest;
        let record = Record {
            family: number(&mut at)?,
            address: counted(&mut at)?,
            number: counted(&mut at)?,
            name: counted(&mut at)?,
            data: counted(&mut at)?,
        };
        rest = at;
        Some(record)
    })
}

fn number(at: &mut &[u8]) -> Option<u16> {
    let (bytes, rest) = at.split_first_chunk()?;
    *at = rest;
    Some(u16::from_be_bytes(*bytes))
}

fn counted<'a>(at: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = number(at)?;
    let (bytes, rest) = at.split_at_checked(length.into())?;
    *at = rest;
    Some(bytes)
}

/// The record that sshd has xauth write for display `number` of host `host`:
/// `HOST/unix:NUMBER`. The last one counts, as the newest.
#[must_use]
pub fn local<'a>(file: &'a [u8], host: &[u8], number: u32) -> Option<Record<'a>> {
    let number = number.to_string();
    records(file)
        .filter(|r| {
            r.family == LOCAL
                && r.address == host
                && r.number == number.as_bytes()
                && !r.name.is_empty()
                && !r.data.is_empty()
        })
        .last()
}

impl Record<'_> {
    /// A file with this record alone. `None` when a string is too long to count.
    #[must_use]
    pub fn file(&self) -> Option<Vec<u8>> {
        let mut file = self.family.to_be_bytes().to_vec();
        for string in [self.address, self.number, self.name, self.data] {
            file.extend(u16::try_from(string.len()).ok()?.to_be_bytes());
            file.extend_from_slice(string);
        }
        Some(file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record<'a>(family: u16, address: &'a str, number: &'a str, data: &'a [u8]) -> Record<'a> {
        Record {
            family,
            address: address.as_bytes(),
            number: number.as_bytes(),
            name: b"MIT-MAGIC-COOKIE-1",
            data,
        }
    }

    #[test]
    fn only_the_displays_own_record_of_this_host_is_found() {
        let all = [
            record(LOCAL, "login1", "1", b"one"),
            record(LOCAL, "login2", "10", b"other host"),
            record(0, "login1", "10", b"internet"),
            record(WILD, "", "10", b"wild"),
            record(LOCAL, "login1", "10", b"old"),
            record(LOCAL, "login1", "10", b"right"),
            record(LOCAL, "login1", "", b"every display"),
            record(LOCAL, "login1", "100", b"longer"),
        ];
        let file: Vec<u8> = all.iter().flat_map(|r| r.file().unwrap()).collect();
        assert_eq!(records(&file).count(), all.len());
        assert_eq!(local(&file, b"login1", 10).unwrap().data, b"right");
        assert_eq!(local(&file, b"login1", 2), None);
        assert_eq!(local(&file, b"login", 10), None);
    }

    #[test]
    fn a_record_without_a_secret_counts_for_nothing() {
        let file = record(LOCAL, "h", "10", b"").file().unwrap();
        assert_eq!(local(&file, b"h", 10), None);
    }

    #[test]
    fn printing_a_record_tells_no_secret() {
        let shown = format!("{:?}", record(LOCAL, "h", "10", b"\x2a\x2b\x2c"));
        assert!(!shown.contains("42, 43"), "{shown}");
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_and_what_is_cut_is_not(
            strings in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 4),
            family: u16,
            cut in 0..200usize,
        ) {
            let record = Record {
                family,
                address: &strings[0],
                number: &strings[1],
                name: &strings[2],
                data: &strings[3],
            };
            let file = record.file().unwrap();
            prop_assert_eq!(records(&file).collect::<Vec<_>>(), vec![record]);
            let short = &file[..cut.min(file.len() - 1)];
            prop_assert_eq!(records(short).count(), 0);
        }

        #[test]
        fn anything_can_be_read(file in prop::collection::vec(any::<u8>(), 0..400)) {
            // Every record takes ten bytes at least.
            prop_assert!(records(&file).count() * 10 <= file.len());
            let _ = local(&file, b"", 0);
        }
    }
}
