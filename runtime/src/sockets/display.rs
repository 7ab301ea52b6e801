//! The client's X11 display as sshd offers it on this host, and the cookie that
//! opens it. Runs in the session, before it enters the container.

use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, openat};

use super::authority::{self, MAX_FILE, Record, WILD};

/// The first TCP port of X displays.
const FIRST_PORT: u16 = 6000;

/// A display that sshd listens for on this host's loopback.
#[derive(Clone, PartialEq, Eq)]
pub struct Display {
    /// Its number: its port is 6000 more.
    number: u16,
    /// `.0` in `:10.0`, as the client said it.
    screen: String,
    /// How clients prove that they may use it.
    method: Vec<u8>,
    cookie: Vec<u8>,
}

/// Not the cookie.
impl std::fmt::Debug for Display {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Display(localhost:{}{})", self.number, self.screen)
    }
}

/// Why a display cannot be used inside.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum DisplayError {
    /// sshd listens elsewhere than on loopback, or this is no display of sshd's.
    #[error("DISPLAY is {0:?}, not localhost:N; sshd needs X11UseLocalhost yes")]
    Elsewhere(String),
    /// xauth did not write the cookie.
    #[error("{file} has no cookie for {host}/unix:{number}; does xauth run on this host?")]
    NoCookie {
        /// The file that was looked at.
        file: PathBuf,
        /// This host's name.
        host: String,
        /// The display.
        number: u16,
    },
}

impl Display {
    /// The display of `DISPLAY`'s value `display`, with the cookie that `file` has for it.
    ///
    /// # Errors
    ///
    /// When it is not on this host's loopback, or has no cookie.
    pub fn find(display: &OsStr, file: &Path) -> Result<Self, DisplayError> {
        let (number, screen) = localhost(display)
            .ok_or_else(|| DisplayError::Elsewhere(display.to_string_lossy().into_owned()))?;
        let uname = rustix::system::uname();
        let host = uname.nodename().to_bytes();
        let bytes = read(file).unwrap_or_default();
        match authority::local(&bytes, host, number.into()) {
            Some(record) => Ok(Self {
                number,
                screen,
                method: record.name.to_vec(),
                cookie: record.data.to_vec(),
            }),
            None => Err(DisplayError::NoCookie {
                file: file.into(),
                host: String::from_utf8_lossy(host).into_owned(),
                number,
            }),
        }
    }

    /// Its number on this host.
    #[must_use]
    pub fn number(&self) -> u16 {
        self.number
    }

    /// Its port on this host's loopback.
    #[must_use]
    pub fn port(&self) -> u16 {
        // `localhost` sees to it that this fits.
        FIRST_PORT.saturating_add(self.number)
    }

    /// `DISPLAY` for clients that reach it as `host:number`.
    #[must_use]
    pub fn named(&self, host: &str, number: u16) -> String {
        format!("{host}:{number}{}", self.screen)
    }

    /// The Xauthority file for clients that know it by `number`.
    #[must_use]
    pub fn authority(&self, number: u16) -> Option<Vec<u8>> {
        let number = number.to_string();
        let record = Record {
            family: WILD,
            address: b"",
            number: number.as_bytes(),
            name: &self.method,
            data: &self.cookie,
        };
        record.file()
    }
}

/// Number and screen of `localhost:N` or `localhost:N.S`.
fn localhost(display: &OsStr) -> Option<(u16, String)> {
    let rest = display.to_str()?.strip_prefix("localhost:")?;
    let (number, screen) = match rest.split_once('.') {
        Some((number, screen)) => (number, Some(screen)),
        None => (rest, None),
    };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !digits(number) || !screen.is_none_or(|s| digits(s) && s.len() < 4) {
        return None;
    }
    let number: u16 = number.parse().ok()?;
    FIRST_PORT.checked_add(number)?;
    Some((number, screen.map(|s| format!(".{s}")).unwrap_or_default()))
}

/// What a regular file of reasonable size holds.
fn read(path: &Path) -> Option<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let fd = openat(CWD, path, flags, Mode::empty()).ok()?;
    if FileType::from_raw_mode(fstat(&fd).ok()?.st_mode) != FileType::RegularFile {
        return None;
    }
    let mut bytes = Vec::new();
    let file = std::fs::File::from(fd);
    file.take(MAX_FILE as u64).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// The Xauthority file that xauth uses: `$XAUTHORITY`, else `.Xauthority` at home.
#[must_use]
pub fn authority_file(xauthority: Option<&OsStr>, home: &Path) -> PathBuf {
    match xauthority {
        Some(path) if !path.as_bytes().is_empty() => path.into(),
        _ => home.join(".Xauthority"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sockets::authority::{LOCAL, records};

    #[test]
    fn only_displays_on_the_loopback_are_sshds() {
        let of = |text: &str| localhost(OsStr::new(text));
        assert_eq!(of("localhost:10.0"), Some((10, ".0".into())));
        assert_eq!(of("localhost:0"), Some((0, String::new())));
        for bad in [
            "",
            ":10.0",
            "localhost",
            "localhost:",
            "localhost:.0",
            "localhost:10.",
            "localhost:+10",
            "localhost:10.0.0",
            "localhost:59536",
            "localhost:99999999999999999999",
            "localhost:10.00000",
            "evil:10.0",
            "/tmp/x:0",
        ] {
            assert_eq!(of(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_file_for_inside_holds_that_cookie_alone() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("x");
        let uname = rustix::system::uname();
        let record = |number: &'static [u8], data: &'static [u8]| {
            let record = Record {
                family: LOCAL,
                address: uname.nodename().to_bytes(),
                number,
                name: b"MIT-MAGIC-COOKIE-1",
                data,
            };
            record.file().unwrap()
        };
        std::fs::write(
            &file,
            [record(b"0", b"console"), record(b"11", b"mine")].concat(),
        )
        .unwrap();
        let display = Display::find("localhost:11.0".as_ref(), &file).unwrap();
        assert_eq!(display.port(), 6011);
        assert_eq!(display.named("", 12), ":12.0");
        let inside = display.authority(12).unwrap();
        let found: Vec<_> = records(&inside).collect();
        assert_eq!(found.len(), 1);
        assert_eq!(
            (found[0].family, found[0].number, found[0].data),
            (WILD, &b"12"[..], &b"mine"[..])
        );
        for (name, file) in [
            ("localhost:12", file.as_path()),
            ("localhost:11", dir.path()),
        ] {
            let error = Display::find(name.as_ref(), file).unwrap_err();
            assert!(matches!(error, DisplayError::NoCookie { .. }), "{error}");
        }
    }
}
