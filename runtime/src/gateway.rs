//! A program of the host's that runs in a pod's network: the unprivileged sshd by
//! which a user forwards into their pod where the administrator installed nothing.
//!
//! Runs in a child of `podspawn sshd`. It joins the pod's user and network
//! namespaces, where it has every capability, and makes a mount namespace of its
//! own: the host's files, but for a few that are replaced. The program and what
//! it starts keep the capabilities (ambient), because sessions have to enter the
//! container's other namespaces from there. They count for nothing on the host.

use std::ffi::CString;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use caps::{CapSet, CapsHashSet};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_bind, mount_change};
use rustix::process::{Pid, WaitOptions, waitpid};
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};

use crate::pod::Attached;
use crate::session::Ending;
use crate::sys::{self, Forked};

/// What is run, and what it sees.
#[derive(Debug)]
pub struct Gateway<'a> {
    /// The pod, which is held until the program has ended.
    pub attached: &'a Attached,
    /// A directory of the user's on which `files` appear.
    pub place: &'a Path,
    /// Names and contents.
    pub files: &'a [(&'a str, Vec<u8>)],
    /// Which of them are shown instead of a file of the host's, if the host has it.
    pub instead: &'a [(&'a str, &'a str)],
    /// The program, its arguments and its environment.
    pub program: CString,
    /// The name first.
    pub args: Vec<CString>,
    /// All of it.
    pub env: Vec<CString>,
}

/// What could not be done.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what}")]
pub struct GatewayError {
    what: &'static str,
    source: io::Error,
}

fn doing<E: Into<io::Error>>(what: &'static str) -> impl Fn(E) -> GatewayError {
    move |e| GatewayError {
        what,
        source: e.into(),
    }
}

/// The group of terminals; a single-id map does not have it.
const TTY_GROUP: u32 = 5;

impl Gateway<'_> {
    /// Runs the program with this process's standard streams, to its end.
    ///
    /// The process must have a single thread.
    ///
    /// # Errors
    ///
    /// When there can be no child. What goes wrong in it is its own to report,
    /// on standard error and with status 125.
    pub fn run(&self) -> Result<Ending, GatewayError> {
        match sys::fork().map_err(doing("start a process"))? {
            Forked::Child => {
                let failure = match self.enter() {
                    Ok(()) => {
                        sys::close_from(3);
                        let e = sys::exec(&self.program, &self.args, &self.env);
                        format!("cannot run {}: {e}", self.program.to_string_lossy())
                    }
                    Err(e) => crate::error::chain(&e),
                };
                let line = format!("podspawn: {failure}\n");
                let _ = rustix::io::write(rustix::stdio::stderr(), line.as_bytes());
                sys::exit(125)
            }
            Forked::Parent(pid) => ending(pid).map_err(doing("wait for a process")),
        }
    }

    fn enter(&self) -> Result<(), GatewayError> {
        let spaces = ThreadNameSpaceType::USER | ThreadNameSpaceType::NETWORK;
        move_into_thread_name_spaces(self.attached.init.as_fd(), spaces)
            .map_err(doing("enter the pod's network"))?;
        sys::unshare_mounts().map_err(doing("make a mount namespace"))?;
        let slave = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
        mount_change("/", slave).map_err(doing("make the mounts private"))?;
        self.show_files()?;
        self.terminals()
            .map_err(doing("mount terminals for the pod's network"))?;
        keep_capabilities().map_err(doing("keep the capabilities in the pod"))
    }

    fn show_files(&self) -> Result<(), GatewayError> {
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        mount(
            "podspawn",
            self.place,
            "tmpfs",
            flags,
            Some(c"mode=0700,size=1m"),
        )
        .map_err(doing("mount a tmpfs"))?;
        for (name, content) in self.files {
            write(&self.place.join(name), content).map_err(doing("write a file"))?;
        }
        for (name, over) in self.instead {
            if std::fs::metadata(over).is_ok_and(|found| found.is_file()) {
                mount_bind(self.place.join(name), *over).map_err(doing("show the pod's names"))?;
            }
        }
        Ok(())
    }

    /// The host's terminals belong to a group that the namespace does not have,
    /// and sshd insists on it.
    fn terminals(&self) -> io::Result<()> {
        let mut options = "newinstance,ptmxmode=0666,mode=0620".to_owned();
        if self.attached.info.has_groups {
            options.push_str(&format!(",gid={TTY_GROUP}"));
        }
        let options = CString::new(options)?;
        let flags = MountFlags::NOSUID | MountFlags::NOEXEC;
        mount(
            "devpts",
            "/dev/pts",
            "devpts",
            flags,
            Some(options.as_c_str()),
        )?;
        Ok(mount_bind("/dev/pts/ptmx", "/dev/ptmx")?)
    }
}

fn write(path: &PathBuf, content: &[u8]) -> io::Result<()> {
    let file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    // Names are read by programs of other ids in the pod's user namespace too.
    file.set_permissions(std::fs::Permissions::from_mode(0o644))?;
    io::Write::write_all(&mut &file, content)
}

fn keep_capabilities() -> io::Result<()> {
    let failed = |e: caps::errors::CapsError| io::Error::other(e);
    let all: CapsHashSet = caps::read(None, CapSet::Permitted).map_err(failed)?;
    caps::set(None, CapSet::Inheritable, &all).map_err(failed)?;
    caps::set(None, CapSet::Ambient, &all).map_err(failed)
}

fn ending(pid: Pid) -> io::Result<Ending> {
    loop {
        match waitpid(Some(pid), WaitOptions::empty()) {
            Ok(Some((_, status))) => {
                if let Some(signal) = status.terminating_signal() {
                    return Ok(Ending::Signaled(signal));
                }
                return Ok(Ending::Exited(status.exit_status().unwrap_or(125) as u8));
            }
            Ok(None) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}
