//! The command line of `sftp-server`, as OpenSSH's takes it. Pure.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::Mode;

use super::policy::Policy;

/// The command line makes no sense.
#[derive(Debug)]
pub struct Usage;

/// What the command line asks for.
#[derive(Debug, Default)]
pub struct Options {
    /// What is served (`-R`, `-P`, `-p`).
    pub policy: Policy,
    /// Where the session begins (`-d`).
    pub directory: Option<Vec<u8>>,
    /// The file creation mask (`-u`, octal).
    pub umask: Option<Mode>,
}

impl Options {
    /// Takes the arguments without the program's name. `None` asks for a list of the
    /// requests (`-Q requests`).
    ///
    /// Where to log and how much (`-e`, `-f`, `-l`) is accepted: there is no log.
    ///
    /// # Errors
    /// An option that OpenSSH's server does not have, or a value that makes no sense.
    pub fn parse(args: &[OsString]) -> Result<Option<Self>, Usage> {
        let mut options = Self::default();
        let mut args = args.iter().map(|arg| arg.as_bytes());
        while let Some(arg) = args.next() {
            let mut letters = arg
                .strip_prefix(b"-")
                .filter(|rest| !rest.is_empty())
                .ok_or(Usage)?;
            if letters == b"-" {
                break;
            }
            while let Some((&letter, rest)) = letters.split_first() {
                letters = rest;
                match letter {
                    b'R' => options.policy.read_only = true,
                    b'e' | b'c' => {}
                    b'f' | b'l' | b'd' | b'u' | b'P' | b'p' | b'Q' => {
                        let value = match rest {
                            b"" => args.next().ok_or(Usage)?,
                            rest => rest,
                        };
                        if letter == b'Q' {
                            return if value == b"requests" {
                                Ok(None)
                            } else {
                                Err(Usage)
                            };
                        }
                        options.set(letter, value)?;
                        break;
                    }
                    _ => return Err(Usage),
                }
            }
        }
        // OpenSSH ignores what follows the options.
        Ok(Some(options))
    }

    fn set(&mut self, letter: u8, value: &[u8]) -> Result<(), Usage> {
        match letter {
            b'd' => self.directory = Some(value.to_vec()),
            b'u' => {
                let octal = std::str::from_utf8(value).map_err(|_| Usage)?;
                let mask = u32::from_str_radix(octal, 8).map_err(|_| Usage)?;
                if mask > 0o777 {
                    return Err(Usage);
                }
                self.umask = Some(Mode::from_raw_mode(mask));
            }
            b'P' => self.policy.never.extend(requests(value)?),
            b'p' => self
                .policy
                .only
                .get_or_insert_default()
                .extend(requests(value)?),
            _ => {}
        }
        Ok(())
    }
}

fn requests(list: &[u8]) -> Result<Vec<String>, Usage> {
    let list = std::str::from_utf8(list).map_err(|_| Usage)?;
    let names = list.split(',').map(|name| name.trim().to_owned());
    names
        .map(|name| {
            if Policy::knows(&name) {
                Ok(name)
            } else {
                Err(Usage)
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Option<Options>, Usage> {
        Options::parse(&args.iter().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn options_of_openssh_are_understood() {
        let options = parse(&["-eR", "-u077", "-d", "/x", "-l", "INFO", "-fAUTH"])
            .expect("valid")
            .expect("no list");
        assert!(options.policy.read_only);
        assert_eq!(options.umask, Some(Mode::from_raw_mode(0o77)));
        assert_eq!(options.directory.as_deref(), Some(&b"/x"[..]));
        let options = parse(&["-P", "remove,copy-data", "-p", "open"]).expect("valid");
        let policy = options.expect("no list").policy;
        assert_eq!(policy.never, ["remove", "copy-data"]);
        assert_eq!(policy.only, Some(vec!["open".to_owned()]));
        assert!(parse(&["-Q", "requests"]).expect("valid").is_none());
    }

    #[test]
    fn nonsense_is_refused() {
        for args in [
            &["-x"][..],
            &["-u"],
            &["-u", "9"],
            &["-u7777"],
            &["-Pnone"],
            &["-Q", "x"],
            &["a"],
        ] {
            assert!(parse(args).is_err(), "{args:?}");
        }
    }
}
