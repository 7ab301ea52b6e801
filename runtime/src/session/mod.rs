//! A session: one shell, command or subsystem inside a live pod.
//!
//! Runs in `podspawn spawn`. The process enters the container's namespaces as a
//! whole, by one `setns(2)` on the pidfd that the supervisor gave it, and forks:
//! the child becomes the program, this process waits, relays a terminal if there
//! is one, passes signals on, and reports how the program ended.
//!
//! Without a terminal the program has the very descriptors that sshd gave, so
//! that no byte passes through podspawn.
//!
//! Between `setns` and `exec` the process still is podspawn, whose executable
//! must not be reachable from inside (CVE-2019-5736): it is not dumpable, which
//! closes its `/proc` entries to everybody in the container.

mod agent;
mod child;
mod environment;
mod locale;
mod shell;
mod terminal;
mod wait;
mod x11;

use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;

use rustix::net::RecvFlags;
use rustix::process::{DumpableBehavior, PidfdFlags, pidfd_open, set_dumpable_behavior};
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};

pub use environment::pass_through;

use crate::error::chain;
use crate::pod::{Attached, Reply, Request};
use crate::seccomp;
use crate::sockets::Forwarded;
use crate::sys::{self, Forked};

/// What the client asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// A login shell.
    Shell,
    /// A command line, byte for byte as the client sent it.
    Command(Vec<u8>),
    /// A program and its arguments, without a shell. Not empty.
    Program(Vec<OsString>),
    /// The sftp subsystem, with the arguments that sshd's configuration gives.
    Sftp(Vec<OsString>),
}

/// One session.
#[derive(Debug)]
pub struct Session {
    /// What to run.
    pub action: Action,
    /// Variables from the ssh connection, see [`pass_through`].
    pub env: Vec<(OsString, OsString)>,
    /// Whether sshd gave a terminal: standard input is one.
    pub terminal: bool,
    /// Shells to try, best first.
    pub shells: Vec<PathBuf>,
    /// How many terminfo directories of the host the pod shows.
    pub terminfo: usize,
    /// What the ssh connection brings along.
    pub forwarded: Forwarded,
    /// The user's id on the host.
    pub login: u32,
}

/// How a session's program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It exited with this status.
    Exited(u8),
    /// It was killed by this signal.
    Signaled(i32),
}

impl Ending {
    /// Ends this process in the same way, so that sshd tells the client: with
    /// the same status, or of the same signal. Where that signal does not kill,
    /// with 128 and its number, as shells do.
    pub fn pass_on(self) -> ! {
        match self {
            Self::Exited(status) => sys::exit(status.into()),
            Self::Signaled(signal) => {
                sys::reraise(signal);
                sys::exit(128 + signal.clamp(1, 126))
            }
        }
    }
}

/// The end of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// How its program ended.
    pub how: Ending,
    /// Why the pod ended under it, if that is what happened.
    pub pod_ended: Option<String>,
}

/// Closes whatever the process was started with beyond the standard streams,
/// before it opens anything: the supervisor would keep it for its life.
pub fn close_inherited() {
    sys::close_from(3);
}

/// The socket to the session module of sshd, which the module's helper finds on
/// descriptor 3. To be called before anything is opened.
///
/// # Errors
///
/// When the process was started without one.
pub fn socket_of_module() -> io::Result<std::os::fd::OwnedFd> {
    let socket = sys::take_inherited(3)?;
    rustix::net::sockopt::socket_domain(&socket)?;
    Ok(socket)
}

/// Why a session did not run.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The container could not be entered.
    #[error("cannot enter the container of pod {pod}")]
    Enter {
        /// The pod.
        pod: String,
        /// Why.
        source: io::Error,
    },
    /// The cgroup, with the pod's limits, could not be entered.
    #[error("cannot enter the cgroup of pod {pod}")]
    Cgroup {
        /// The pod.
        pod: String,
        /// Why.
        source: io::Error,
    },
    /// No terminal could be made.
    #[error("cannot make a terminal in the container")]
    Terminal(#[source] io::Error),
    /// The session's own work failed.
    #[error("cannot run the session")]
    Io(#[from] io::Error),
}

impl SessionError {
    /// Whether the pod had ended when it was to be entered: another is to be had.
    #[must_use]
    pub fn found_nobody(&self) -> bool {
        let Self::Enter { source, .. } = self else {
            return false;
        };
        source.raw_os_error() == Some(libc::ESRCH)
    }
}

/// Enters these namespaces of the container, its user namespace among them.
fn join_namespaces(attached: &Attached, spaces: ThreadNameSpaceType) -> rustix::io::Result<()> {
    let init = attached.init.as_fd();
    match move_into_thread_name_spaces(init, spaces) {
        // A user namespace cannot be entered twice: this session comes from the
        // pod's own (see `gateway`), with the capabilities that the others need.
        Err(rustix::io::Errno::INVAL) => {
            let others = spaces.difference(ThreadNameSpaceType::USER);
            move_into_thread_name_spaces(init, others)
        }
        result => result,
    }
}

/// Runs one session in the pod, from entering to the end of its program.
///
/// The process must have a single thread. It stays in the container's
/// namespaces.
///
/// # Errors
///
/// When the container cannot be entered. What goes wrong between fork and exec
/// is the child's to report, with the statuses 125 to 127.
pub fn run(attached: &Attached, session: &Session) -> Result<Ended, SessionError> {
    let info = &attached.info;
    let enter = |source: io::Error| SessionError::Enter {
        pod: info.pod.clone(),
        source,
    };
    if let Some(cgroup) = &info.cgroup {
        cgroup.join().map_err(|source| SessionError::Cgroup {
            pod: info.pod.clone(),
            source,
        })?;
    }
    set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(|e| enter(e.into()))?;
    let brought = bring(attached, session);
    let spaces = ThreadNameSpaceType::USER
        | ThreadNameSpaceType::MOUNT
        | ThreadNameSpaceType::PROCESS_ID
        | ThreadNameSpaceType::NETWORK
        | ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION
        | ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME
        | ThreadNameSpaceType::CONTROL_GROUP;
    let filter = seccomp::load(attached.filter.as_fd()).map_err(enter)?;
    let signals = wait::block_signals()?;
    join_namespaces(attached, spaces).map_err(|e| enter(e.into()))?;

    // The display was made ready meanwhile.
    let brought = brought.arrive();
    let pty = match session.terminal {
        true => Some(terminal::Pty::open(info.user.uid).map_err(SessionError::Terminal)?),
        false => None,
    };
    match sys::fork()? {
        Forked::Child => child::become_program(info, &filter, session, &brought, pty),
        Forked::Parent(pid) => {
            let child = pidfd_open(pid, PidfdFlags::empty()).map_err(io::Error::from)?;
            // Should this process be killed, the supervisor hangs up for it.
            let _ = attached.connection.send(&Request::Child, &[child.as_fd()]);
            let relay = pty
                .map(terminal::Pty::into_relay)
                .transpose()
                .map_err(SessionError::Terminal)?;
            let how = wait::wait(pid, &signals, relay)?;
            let _ = attached.connection.send(&Request::Bye, &[]);
            Ok(Ended {
                how,
                pod_ended: told(attached),
            })
        }
    }
}

/// What of the ssh connection reaches the program.
struct Brought {
    keeper: Option<x11::Keeper>,
    variables: Vec<(&'static str, OsString)>,
}

/// Brings along what the session was forwarded. What cannot be had is one line on
/// stderr, for the client asked for it, and the session goes on without.
fn bring(attached: &Attached, session: &Session) -> Brought {
    let mut brought = Brought {
        keeper: None,
        variables: Vec::new(),
    };
    if let Some(found) = &session.forwarded.agent {
        let shown = match found {
            Ok(agent) if attached.info.agents => agent::show(agent, &attached.connection),
            Ok(_) => Err("this pod was started by an older podspawn".to_owned()),
            Err(e) => Err(chain(e)),
        };
        match shown {
            Ok(path) => brought.variables.push(("SSH_AUTH_SOCK", path.into())),
            Err(why) => child::say(&format!("no ssh agent in this session: {why}")),
        }
    }
    if let Some(found) = &session.forwarded.display {
        let started = match found {
            Ok(display) => x11::start(display, attached, session.login).map_err(|e| chain(&e)),
            Err(e) => Err(chain(e)),
        };
        match started {
            Ok(keeper) => brought.keeper = Some(keeper),
            Err(why) => no_display(&why),
        }
    }
    brought
}

impl Brought {
    /// Waits for what was still on its way.
    fn arrive(mut self) -> Self {
        match self.keeper.as_ref().map(x11::Keeper::ready) {
            Some(Ok(inside)) => self.variables.extend([
                ("DISPLAY", inside.display.into()),
                ("XAUTHORITY", inside.authority.into()),
            ]),
            Some(Err(why)) => no_display(&why),
            None => {}
        }
        self
    }
}

fn no_display(why: &str) {
    child::say(&format!("no X11 display in this session: {why}"));
}

/// Whether the supervisor said that it ends the pod.
fn told(attached: &Attached) -> Option<String> {
    loop {
        match attached.connection.receive::<Reply>(RecvFlags::DONTWAIT) {
            Ok((Reply::Ending { why }, _)) => return Some(why),
            Ok(_) => {}
            Err(_) => return None,
        }
    }
}
