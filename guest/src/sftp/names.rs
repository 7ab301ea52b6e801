//! Names of users and groups, and the `ls -l` lines that a directory listing
//! carries. Runs in `sftp-server`.
//!
//! The container's own `/etc/passwd` and `/etc/group` are read, once and up to a
//! bound: a static program cannot load the modules that nsswitch may ask for.
//! They belong to the image and may be anything.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};

use rustix::fs::{FileType, Mode, OFlags, Stat};

/// How much of each file is read.
const MAX_FILE: u64 = 8 << 20;
/// Half a year, in seconds: older files show their year, not the hour.
const RECENT: i64 = 365 * 24 * 60 * 60 / 2;

/// The users and groups of the container.
#[derive(Default)]
pub struct Names {
    users: BTreeMap<u32, Vec<u8>>,
    groups: BTreeMap<u32, Vec<u8>>,
    homes: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Names {
    /// Reads `/etc/passwd` and `/etc/group`, as far as that is possible.
    pub fn load() -> Self {
        Self::parse(&slurp("/etc/passwd"), &slurp("/etc/group"))
    }

    /// Takes the contents of both files. Lines that make no sense are skipped, and
    /// the first of several for one id counts, as in the C library.
    pub fn parse(passwd: &[u8], group: &[u8]) -> Self {
        let mut names = Self::default();
        for line in passwd.split(|&b| b == b'\n') {
            let mut fields = line.split(|&b| b == b':');
            let Some((name, uid)) = name_and_id(&mut fields) else {
                continue;
            };
            names.users.entry(uid).or_insert_with(|| name.to_vec());
            // After the id come the group and a comment.
            if let Some(home) = fields.nth(2).filter(|home| home.starts_with(b"/")) {
                names
                    .homes
                    .entry(name.to_vec())
                    .or_insert_with(|| home.to_vec());
            }
        }
        for line in group.split(|&b| b == b'\n') {
            if let Some((name, gid)) = name_and_id(&mut line.split(|&b| b == b':')) {
                names.groups.entry(gid).or_insert_with(|| name.to_vec());
            }
        }
        names
    }

    /// The name of a user.
    pub fn user(&self, uid: u32) -> Option<&[u8]> {
        self.users.get(&uid).map(Vec::as_slice)
    }

    /// The name of a group.
    pub fn group(&self, gid: u32) -> Option<&[u8]> {
        self.groups.get(&gid).map(Vec::as_slice)
    }

    /// A user's home directory.
    pub fn home(&self, user: &[u8]) -> Option<&[u8]> {
        self.homes.get(user).map(Vec::as_slice)
    }

    /// Writes to `line`, in place of what it held, what `ls -l` would show of a file.
    /// `now` is the time in seconds of the epoch; times are shown in UTC.
    pub fn long_name(&self, line: &mut Vec<u8>, name: &[u8], stat: &Stat, now: i64) {
        line.clear();
        line.extend_from_slice(&mode_string(stat.st_mode));
        // Writing to a vector cannot fail.
        let _ = write!(line, " {:>3} ", stat.st_nlink);
        put_padded(line, self.user(stat.st_uid), stat.st_uid);
        put_padded(line, self.group(stat.st_gid), stat.st_gid);
        let _ = write!(line, "{:>8} ", stat.st_size);
        put_time(line, stat.st_mtime, now);
        line.push(b' ');
        line.extend_from_slice(name);
    }
}

fn slurp(path: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    // The image may have put a FIFO there, on which open would wait for ever.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let Ok(fd) = rustix::fs::open(path, flags, Mode::empty()) else {
        return bytes;
    };
    let regular = rustix::fs::fstat(&fd)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile);
    if regular
        && File::from(fd)
            .take(MAX_FILE)
            .read_to_end(&mut bytes)
            .is_err()
    {
        bytes.clear();
    }
    bytes
}

/// The first and the third of a line's fields: a name and its id.
fn name_and_id<'a>(fields: &mut impl Iterator<Item = &'a [u8]>) -> Option<(&'a [u8], u32)> {
    let name = fields.next().filter(|name| !name.is_empty())?;
    let id = std::str::from_utf8(fields.nth(1)?).ok()?.parse().ok()?;
    Some((name, id))
}

fn put_padded(line: &mut Vec<u8>, name: Option<&[u8]>, id: u32) {
    let start = line.len();
    match name {
        Some(name) => line.extend_from_slice(name),
        None => _ = write!(line, "{id}"),
    }
    let width = (line.len() - start).max(8) + 1;
    line.resize(start + width, b' ');
}

/// The ten characters with which `ls -l` begins a line.
fn mode_string(mode: u32) -> [u8; 10] {
    let kind = match FileType::from_raw_mode(mode) {
        FileType::Directory => b'd',
        FileType::Symlink => b'l',
        FileType::CharacterDevice => b'c',
        FileType::BlockDevice => b'b',
        FileType::Fifo => b'p',
        FileType::Socket => b's',
        _ => b'-',
    };
    let mut out = *b"?rwxrwxrwx";
    out[0] = kind;
    for bit in 0..9 {
        if mode & (0o400 >> bit) == 0 {
            out[bit + 1] = b'-';
        }
    }
    for (bit, at, with_x, without) in [
        (0o4000, 3, b's', b'S'),
        (0o2000, 6, b's', b'S'),
        (0o1000, 9, b't', b'T'),
    ] {
        if mode & bit != 0 {
            out[at] = if out[at] == b'x' { with_x } else { without };
        }
    }
    out
}

fn put_time(line: &mut Vec<u8>, time: i64, now: i64) {
    const MONTHS: &[u8; 36] = b"JanFebMarAprMayJunJulAugSepOctNovDec";
    let (year, month, day) = civil(time.div_euclid(86_400));
    let month = (month - 1) as usize * 3;
    line.extend_from_slice(&MONTHS[month..month + 3]);
    if time > now || time < now.saturating_sub(RECENT) {
        let _ = write!(line, " {day:>2}  {year}");
    } else {
        let minute = time.rem_euclid(86_400) / 60;
        let _ = write!(line, " {day:>2} {:02}:{:02}", minute / 60, minute % 60);
    }
}

/// Year, month and day of the proleptic Gregorian calendar, `days` after 1970-01-01.
fn civil(days: i64) -> (i64, i64, i64) {
    // Years are counted from March, so that the leap day is the last of its year;
    // eras are the 400 years after which the calendar repeats.
    let days = days.saturating_add(719_468);
    let era = days.div_euclid(146_097);
    let day = days.rem_euclid(146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwd_and_group_are_parsed_leniently() {
        let names = Names::parse(
            b"root:x:0:0:root:/root:/bin/sh\n\n:x:1:1::/:\nbad\nb:x:x:1::/:\n\
              toor:x:0:0::/other:/bin/sh\n\xff\xfe:x:7:7::/h\xff:/bin/sh\nrel:x:8:8::rel:",
            b"wheel:x:0:root\nusers:x:100:\nshort:x\n",
        );
        assert_eq!(names.user(0), Some(&b"root"[..]));
        assert_eq!(names.user(1), None);
        assert_eq!(names.user(7), Some(&b"\xff\xfe"[..]));
        assert_eq!(names.home(b"\xff\xfe"), Some(&b"/h\xff"[..]));
        assert_eq!(names.home(b"toor"), Some(&b"/other"[..]));
        assert_eq!(names.home(b"rel"), None);
        assert_eq!(names.group(0), Some(&b"wheel"[..]));
        assert_eq!(names.group(100), Some(&b"users"[..]));
    }

    #[test]
    fn modes_read_as_in_ls() {
        assert_eq!(&mode_string(0o100644), b"-rw-r--r--");
        assert_eq!(&mode_string(0o104755), b"-rwsr-xr-x");
        assert_eq!(&mode_string(0o102604), b"-rw---Sr--");
        assert_eq!(&mode_string(0o041777), b"drwxrwxrwt");
        assert_eq!(&mode_string(0o041776), b"drwxrwxrwT");
        assert_eq!(&mode_string(0o120777), b"lrwxrwxrwx");
    }

    #[test]
    fn times_read_as_in_ls() {
        let shown = |time, now| {
            let mut line = Vec::new();
            put_time(&mut line, time, now);
            String::from_utf8(line).expect("only ASCII")
        };
        assert_eq!(shown(0, 0), "Jan  1 00:00");
        assert_eq!(shown(951_782_399, 951_782_400), "Feb 28 23:59");
        assert_eq!(shown(951_782_400, 951_782_400), "Feb 29 00:00");
        assert_eq!(shown(951_782_400, 2_000_000_000), "Feb 29  2000");
        assert_eq!(shown(-1, 2_000_000_000), "Dec 31  1969");
        assert_eq!(shown(4_107_542_400, 0), "Mar  1  2100");
        shown(i64::MAX, 0);
        shown(i64::MIN, 0);
    }
}
