//! Whether the image has a locale, in the places where its C library looks.
//!
//! Runs in the child of a session, as the session user in the container. What it
//! reads belongs to the image and is not trusted; parsing is pure.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::environment::Environment;

/// What a program gets instead of a locale that is not there.
const FALLBACK: &str = "C.UTF-8";

/// Where glibc keeps locales, and all of them in one file.
const DIR: &str = "/usr/lib/locale";
const ARCHIVE: &str = "/usr/lib/locale/locale-archive";

/// The most of the archive that is read: names are in front.
const HEAD: u64 = 1 << 20;

/// Size of the archive's header.
const HEADER: u64 = 56;

/// Replaces locales of the client's that the image lacks. `client` says which
/// variables it sent.
pub fn fall_back<'a>(env: &mut Environment, client: impl Iterator<Item = &'a OsStr>) {
    let names: Vec<&OsStr> = client.filter(|n| is_locale(n.as_bytes())).collect();
    // Where an image says itself where its locales are, it knows better.
    let told = |name| env.get(name).is_some();
    if names.is_empty() || told("LOCPATH") || told("LOCALE_ARCHIVE") {
        return;
    }
    let mut known: Vec<(OsString, bool)> = Vec::new();
    let mut archive = None;
    for name in names {
        let Some(value) = name.to_str().and_then(|n| env.get(n)) else {
            continue;
        };
        if value.is_empty() {
            continue;
        }
        let there = match known.iter().find(|(v, _)| *v == value) {
            Some((_, there)) => *there,
            None => {
                let there = exists(value.as_bytes(), &mut archive);
                known.push((value, there));
                there
            }
        };
        if !there {
            env.set(name, FALLBACK);
        }
    }
}

fn is_locale(name: &[u8]) -> bool {
    name == b"LANG" || name.starts_with(b"LC_")
}

fn exists(locale: &[u8], archive: &mut Option<Vec<u8>>) -> bool {
    if matches!(locale, b"C" | b"POSIX" | b"C.UTF-8" | b"C.utf8") {
        return true;
    }
    // A path would be taken as one.
    if locale.contains(&b'/') || locale.first() == Some(&b'.') {
        return false;
    }
    let normal = normalized(locale);
    let dir = Path::new(DIR);
    let has_dir = |name: &[u8]| dir.join(OsStr::from_bytes(name)).join("LC_CTYPE").exists();
    if has_dir(&normal) || has_dir(locale) || has_musl() {
        return true;
    }
    let archive = archive.get_or_insert_with(|| head(Path::new(ARCHIVE)).unwrap_or_default());
    archive_has(archive, &normal)
}

/// musl takes every name for UTF-8, and complains about none.
fn has_musl() -> bool {
    let Ok(entries) = std::fs::read_dir("/lib") else {
        return false;
    };
    entries
        .take(10_000)
        .flatten()
        .any(|e| e.file_name().as_bytes().starts_with(b"ld-musl-"))
}

fn head(path: &Path) -> Option<Vec<u8>> {
    use rustix::fs::{FileType, Mode, OFlags, fstat, open};
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let fd = open(path, flags, Mode::empty()).ok()?;
    if FileType::from_raw_mode(fstat(&fd).ok()?.st_mode) != FileType::RegularFile {
        return None;
    }
    let file = File::from(fd);
    let mut bytes = Vec::new();
    (&file).take(HEADER).read_to_end(&mut bytes).ok()?;
    let used = used(&bytes)?.min(HEAD);
    file.take(used.saturating_sub(HEADER))
        .read_to_end(&mut bytes)
        .ok()?;
    Some(bytes)
}

/// How much of an archive its names and their table take, by its header.
fn used(header: &[u8]) -> Option<u64> {
    let number = |n: usize| -> Option<u64> {
        let bytes = header.get(4 * n..4 * n + 4)?;
        Some(u32::from_ne_bytes(bytes.try_into().ok()?).into())
    };
    let table = number(2)? + 12 * number(4)?;
    let names = number(5)? + number(6)?;
    Some(table.max(names))
}

/// The name as glibc keeps it: `en_US.UTF-8` is `en_US.utf8`, `de_DE.ISO-8859-1@euro`
/// is `de_DE.iso88591@euro` (`_nl_normalize_codeset`).
fn normalized(locale: &[u8]) -> Vec<u8> {
    let (rest, modifier) = match locale.iter().position(|b| *b == b'@') {
        Some(at) => locale.split_at(at),
        None => (locale, &b""[..]),
    };
    let Some(dot) = rest.iter().position(|b| *b == b'.') else {
        return locale.to_vec();
    };
    let (language, codeset) = (&rest[..=dot], &rest[dot + 1..]);
    let kept: Vec<u8> = codeset
        .iter()
        .filter(|b| b.is_ascii_alphanumeric())
        .map(u8::to_ascii_lowercase)
        .collect();
    let numeric = kept.iter().all(u8::is_ascii_digit);
    let prefix: &[u8] = if numeric { b"iso" } else { b"" };
    [language, prefix, &kept, modifier].concat()
}

/// Whether a locale archive names `locale` (glibc, `locale/locarchive.h`): a header
/// of 32-bit numbers in the host's order, among them the place and size of a hash
/// table whose entries hold the hash, the place of the name, and that of the rest.
fn archive_has(archive: &[u8], locale: &[u8]) -> bool {
    const MAGIC: u32 = 0xde02_0109;
    let number = |at: usize| -> Option<u32> {
        let bytes = archive.get(at..at.checked_add(4)?)?;
        Some(u32::from_ne_bytes(bytes.try_into().ok()?))
    };
    let (Some(MAGIC), Some(table), Some(size)) = (number(0), number(8), number(16)) else {
        return false;
    };
    let Some(entries) = archive.get(table as usize..) else {
        return false;
    };
    entries.chunks_exact(12).take(size as usize).any(|entry| {
        let part = |at: usize| {
            u32::from_ne_bytes([entry[at], entry[at + 1], entry[at + 2], entry[at + 3]])
        };
        let (name, rest) = (part(4) as usize, part(8));
        let named = archive.get(name..).and_then(|a| a.strip_prefix(locale));
        rest != 0 && named.is_some_and(|after| after.first() == Some(&0))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_are_normalized_as_glibc_does() {
        let of = |name: &str| String::from_utf8(normalized(name.as_bytes())).unwrap();
        assert_eq!(of("en_US.UTF-8"), "en_US.utf8");
        assert_eq!(of("de_DE.ISO-8859-15@euro"), "de_DE.iso885915@euro");
        assert_eq!(of("ja_JP.8859-1"), "ja_JP.iso88591");
        assert_eq!(of("en_US"), "en_US");
        assert_eq!(of("ca_ES@valencia"), "ca_ES@valencia");
    }

    fn archive(names: &[&str]) -> Vec<u8> {
        let mut bytes: Vec<u8> = [
            0xde02_0109u32,
            0,
            56,
            names.len() as u32,
            names.len() as u32,
        ]
        .iter()
        .flat_map(|n| n.to_ne_bytes())
        .collect();
        bytes.resize(56, 0);
        let mut at = 56 + 12 * names.len();
        for name in names {
            bytes.extend([7u32, at as u32, 1].iter().flat_map(|n| n.to_ne_bytes()));
            at += name.len() + 1;
        }
        for name in names {
            bytes.extend_from_slice(name.as_bytes());
            bytes.push(0);
        }
        bytes
    }

    #[test]
    fn a_locale_is_found_by_its_whole_name() {
        let archive = archive(&["en_US.utf8", "de_DE.utf8"]);
        assert!(archive_has(&archive, b"de_DE.utf8"));
        assert!(archive_has(&archive, b"en_US.utf8"));
        assert!(!archive_has(&archive, b"en_US"));
        assert!(!archive_has(&archive, b"fr_FR.utf8"));
        assert!(!archive_has(&archive[..70], b"de_DE.utf8"));
    }

    proptest! {
        #[test]
        fn any_archive_can_be_read(mut bytes in prop::collection::vec(any::<u8>(), 0..300), magic: bool) {
            if magic && bytes.len() > 4 {
                bytes[..4].copy_from_slice(&0xde02_0109u32.to_ne_bytes());
            }
            let _ = archive_has(&bytes, b"en_US.utf8");
        }
    }
}
