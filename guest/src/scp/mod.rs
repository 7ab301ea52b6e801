//! `scp -t` and `scp -f`: the far end of the old scp protocol (`scp -O`).
//!
//! The client runs this command on the other side where it does not use SFTP. It
//! serves images that have no scp, and expands patterns by itself where the image
//! has no shell that would have done so.
//!
//! What holds true:
//! - the protocol is spoken on standard input and output; nothing goes to stderr
//!   once it began, for errors are records of the protocol;
//! - a name from the client is a name, never a path;
//! - memory is bounded whatever a record claims.

mod channel;
pub mod glob;
mod sink;
mod source;

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{CWD, FileType, Stat};
use rustix::io::Errno;

use crate::sftp::names::Names;
use channel::Channel;

/// What the command line asks for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Options {
    /// `-r`: directories too.
    recursive: bool,
    /// `-p`: with times and exact modes.
    preserve: bool,
    /// `-d`: the target has to be a directory.
    into_directory: bool,
    /// `-t`, to receive, or `-f`, to send.
    role: Option<Role>,
    paths: Vec<Vec<u8>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Sink,
    Source,
}

impl Options {
    fn parse(args: &[OsString]) -> Option<Self> {
        let mut options = Self::default();
        let mut args = args.iter().map(|arg| arg.as_bytes());
        for arg in args.by_ref() {
            match arg.strip_prefix(b"-") {
                Some(b"-") => break,
                Some(letters) if !letters.is_empty() => {
                    for letter in letters {
                        match letter {
                            b'r' => options.recursive = true,
                            b'p' => options.preserve = true,
                            b'd' => options.into_directory = true,
                            b't' => options.role = Some(Role::Sink),
                            b'f' => options.role = Some(Role::Source),
                            b'v' | b'q' => {}
                            _ => return None,
                        }
                    }
                }
                _ => {
                    options.paths.push(arg.to_vec());
                    break;
                }
            }
        }
        options.paths.extend(args.map(<[u8]>::to_vec));
        match options.role {
            Some(Role::Source) if options.paths.is_empty() => None,
            Some(Role::Sink) if options.paths.len() != 1 => None,
            _ => Some(options),
        }
    }
}

/// Answers the scp on the other side until it is done. Returns the exit status.
pub fn main(args: &[OsString]) -> u8 {
    std::panic::set_hook(Box::new(|_| {}));
    let input = io::stdin().as_fd().try_clone_to_owned();
    let output = io::stdout().as_fd().try_clone_to_owned();
    let (Ok(input), Ok(output)) = (input, output) else {
        return 1;
    };
    match answer(args, File::from(input), File::from(output)) {
        Ok(errors) => u8::from(errors > 0),
        Err(why) => {
            crate::complain(why);
            1
        }
    }
}

/// Does what `args` ask for, with the other side behind `input` and `output`. Returns
/// how many errors there were.
///
/// # Errors
/// The arguments make no sense, and nothing was said to the other side.
pub fn answer(
    args: &[OsString],
    input: impl Read,
    output: impl Write,
) -> Result<u64, &'static str> {
    let options = Options::parse(args).ok_or("scp: usage: scp [-dpqrv] -f PATH... | -t PATH")?;
    let role = options
        .role
        .ok_or("scp: no client here, only the far end: install the image's openssh-client")?;
    let mut channel = Channel::new(input, output);
    // Whatever ended it has been told to the other side, if that is still there.
    let ended = match role {
        Role::Sink => sink::run(&options, &mut channel),
        Role::Source => source::run(&options, &mut channel),
    };
    let flushed = channel.flush();
    Ok(channel.errors() + u64::from(ended.and(flushed).is_err()))
}

/// Home directories in place of a leading `~`, unless there is such a file.
fn expand_tilde(path: &[u8]) -> Vec<u8> {
    let Some(after) = path.strip_prefix(b"~") else {
        return path.to_vec();
    };
    if rustix::fs::lstat(path).is_ok() {
        return path.to_vec();
    }
    let end = after.iter().position(|&b| b == b'/').unwrap_or(after.len());
    let (user, rest) = after.split_at(end);
    let names = Names::load();
    let home = match user {
        b"" => names
            .user(rustix::process::getuid().as_raw())
            .and_then(|own| names.home(own)),
        user => names.home(user),
    };
    match home {
        Some(home) => [home, rest].concat(),
        // The session began at home.
        None if user.is_empty() => [b".", rest].concat(),
        None => path.to_vec(),
    }
}

fn stat(path: &[u8]) -> Result<Stat, Errno> {
    rustix::fs::statat(CWD, path, rustix::fs::AtFlags::empty())
}

fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    let slash: &[u8] = if directory.ends_with(b"/") { b"" } else { b"/" };
    [directory, slash, name].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Option<Options> {
        Options::parse(&args.iter().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn options_of_clients_are_understood() {
        let options = parse(&["-v", "-r", "-p", "-d", "-t", "--", "-x"]).expect("valid");
        assert!(options.recursive && options.preserve && options.into_directory);
        assert_eq!(
            (options.role, options.paths),
            (Some(Role::Sink), vec![b"-x".to_vec()])
        );
        let options = parse(&["-rf", "a", "-b"]).expect("valid");
        assert_eq!(options.paths, [b"a".to_vec(), b"-b".to_vec()]);
        assert_eq!(parse(&["-t"]), None);
        assert_eq!(parse(&["-t", "a", "b"]), None);
        assert_eq!(parse(&["-f"]), None);
        assert_eq!(parse(&["-z", "-t", "a"]), None);
    }
}
