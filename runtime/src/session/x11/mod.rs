//! The client's display, inside: the Xauthority file, and where sshd listens in
//! another network namespace than the pod's, a socket that leads there.
//!
//! Runs in a child of the session's, the *keeper*. It enters the container's user
//! and mount namespaces and stays in the network namespace that sshd put it into;
//! it becomes the session user, writes the file, listens on
//! `/tmp/.X11-unix/XN`, and passes bytes on to sshd's port, [`relay`]. It is in
//! none of the container's pid namespaces, so nothing inside can reach it.
//!
//! When the session ends, in whatever way, the kernel closes the line between
//! them: the keeper removes the file and the socket. Clients that are connected
//! stay so, as over plain sshd, until they or sshd leave.

mod listener;
mod relay;

use std::fs;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::process::{DumpableBehavior, set_dumpable_behavior};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};
use rustix::thread::ThreadNameSpaceType;

use super::child;
use crate::error::chain;
use crate::pod::{Attached, Connection};
use crate::seccomp;
use crate::sockets::display::Display;
use crate::sys::{self, Forked};

use listener::Listener;
use relay::Target;

/// How long the keeper may take, in seconds.
const ANSWER: u64 = 20;

/// Memory, never a disk, and there in every container.
const AUTHORITIES: &str = "/dev/shm";

/// What the session's program has to know.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Inside {
    /// `DISPLAY`.
    pub display: String,
    /// `XAUTHORITY`.
    pub authority: PathBuf,
}

/// The session's end of the line to its keeper.
#[derive(Debug)]
pub struct Keeper(Connection);

/// Starts the keeper of `display`. `login` is the user's id on the host.
///
/// The process must have a single thread, and be outside of the container yet.
///
/// # Errors
///
/// Those of `fork(2)`.
pub fn start(display: &Display, attached: &Attached, login: u32) -> io::Result<Keeper> {
    let (ours, theirs) = Connection::pair()?;
    // With the session module sshd listens inside the pod already.
    let inside = fs::metadata("/proc/self/ns/net")?.ino() == attached.info.network;
    let target = match inside {
        true => None,
        false => Some(Target::new(display.port(), login)?),
    };
    match sys::fork()? {
        Forked::Child => {
            drop(ours);
            keep(display, attached, target, theirs)
        }
        Forked::Parent(_) => Ok(Keeper(ours)),
    }
}

impl Keeper {
    /// Waits until the display can be used.
    ///
    /// # Errors
    ///
    /// One line: why it cannot.
    pub fn ready(&self) -> Result<Inside, String> {
        match self.0.receive_within::<Result<Inside, String>>(ANSWER) {
            Ok((said, _)) => said,
            Err(e) => Err(chain(&e)),
        }
    }
}

/// Role: the keeper, from fork to its end.
fn keep(display: &Display, attached: &Attached, target: Option<Target>, line: Connection) -> ! {
    let offered = enter(attached, target.as_ref(), &line)
        .and_then(|()| offer(display, attached.info.user.uid, target.is_some()));
    let answer = match &offered {
        Ok(offered) => Ok(offered.inside.clone()),
        Err(why) => Err(why.clone()),
    };
    let _ = line.send(&answer, &[]);
    if let Ok(offered) = offered {
        let Offered { inside, listener } = offered;
        let socket = listener.as_ref().map(|l| l.path.clone());
        let remove = || {
            let _ = fs::remove_file(&inside.authority);
            let _ = socket.as_ref().map(fs::remove_file);
        };
        relay::serve(&line, target.zip(listener.map(|l| l.socket)), remove);
    }
    sys::exit(0)
}

type Step<T> = Result<T, String>;

fn step<E: Into<io::Error>>(what: &str) -> impl FnOnce(E) -> String {
    move |e| format!("cannot {what}: {}", e.into())
}

/// Leaves the session's descriptors and process group behind, and becomes the
/// session user in the container's mount namespace.
fn enter(attached: &Attached, target: Option<&Target>, line: &Connection) -> Step<()> {
    use rustix::fs::{Mode, OFlags, open};
    let null = open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
    let null = null.map_err(step("open /dev/null"))?;
    dup2_stdin(&null)
        .and_then(|()| dup2_stdout(&null))
        .and_then(|()| dup2_stderr(&null))
        .and_then(|()| rustix::process::setsid().map(drop))
        .map_err(step("leave the session"))?;
    drop(null);
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(step("stay out of reach"))?;
    let spaces = ThreadNameSpaceType::USER | ThreadNameSpaceType::MOUNT;
    super::join_namespaces(attached, spaces).map_err(step("enter the container"))?;
    let filter = seccomp::load(attached.filter.as_fd()).map_err(|e| e.to_string())?;
    // The session's attachment among them, which must end when it does.
    let mut kept = vec![line.as_fd()];
    kept.extend(target.map(Target::as_fd));
    sys::close_all_but(&kept);
    if target.is_some() {
        listener::make_directory(attached.info.has_root)?;
    }
    child::drop_privileges(&attached.info, &filter)
        .map_err(|(what, e)| format!("cannot {what}: {e}"))?;
    rustix::process::umask(Mode::from_raw_mode(0o177));
    Ok(())
}

/// What is there for clients now.
struct Offered {
    inside: Inside,
    listener: Option<Listener>,
}

fn offer(display: &Display, user: u32, relayed: bool) -> Step<Offered> {
    let listener = match relayed {
        true => Some(Listener::open(display.number(), user)?),
        false => None,
    };
    let (host, number) = match &listener {
        Some(listener) => ("", listener.number),
        None => ("localhost", display.number()),
    };
    let authority = display
        .authority(number)
        .ok_or_else(|| "its cookie is too long".to_owned())
        .and_then(|bytes| write_authority(&bytes).map_err(step("write its cookie")))?;
    let inside = Inside {
        display: display.named(host, number),
        authority,
    };
    Ok(Offered { inside, listener })
}

/// Writes a new file of a name that is free, for the session user alone.
fn write_authority(bytes: &[u8]) -> io::Result<PathBuf> {
    let pid = std::process::id();
    for n in 0..1000 {
        let path = Path::new(AUTHORITIES).join(format!("xauthority-{pid}.{n}"));
        let mut options = fs::OpenOptions::new();
        // A new file: nobody's symlink is followed.
        match options.write(true).create_new(true).mode(0o600).open(&path) {
            Ok(mut file) => {
                let written = file.write_all(bytes);
                if written.is_err() {
                    let _ = fs::remove_file(&path);
                }
                return written.map(|()| path);
            }
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(e),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}
