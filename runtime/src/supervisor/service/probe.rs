//! Whether a service is ready: do its ports accept, does a command in it succeed.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

use caps::{CapSet, CapsHashSet};
use rustix::process::{DumpableBehavior, Gid, Pid, Uid};
use rustix::thread::{
    ThreadNameSpaceType, move_into_thread_name_spaces, set_no_new_privs, set_thread_groups,
    set_thread_res_gid, set_thread_res_uid,
};

use crate::supervisor::container::DevContainer;
use crate::sys::{self, Forked};

/// How long one connection may take, on a network that is this machine's own.
const CONNECT: Duration = Duration::from_millis(50);

/// Whether every port accepts.
#[must_use]
pub fn ports_accept(address: Ipv4Addr, ports: &[u16]) -> bool {
    ports.iter().all(|port| {
        TcpStream::connect_timeout(&SocketAddr::new(address.into(), *port), CONNECT).is_ok()
    })
}

/// Runs `command` in the service's container with its shell, as its user `who`
/// (user and group id), and returns the process whose status is the command's.
///
/// # Errors
///
/// Those of `fork(2)`.
pub fn run(init: &DevContainer, command: &str, env: &[String], who: (u32, u32)) -> io::Result<Pid> {
    match sys::fork()? {
        Forked::Parent(pid) => Ok(pid),
        Forked::Child => {
            sys::reset();
            let status = inside(init, command, env, who).unwrap_or(125);
            sys::exit(status)
        }
    }
}

fn inside(
    init: &DevContainer,
    command: &str,
    env: &[String],
    (uid, gid): (u32, u32),
) -> io::Result<i32> {
    // Until exec this is podspawn, which nobody inside may look at.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    let spaces = ThreadNameSpaceType::MOUNT
        | ThreadNameSpaceType::PROCESS_ID
        | ThreadNameSpaceType::NETWORK
        | ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION
        | ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME
        | ThreadNameSpaceType::CONTROL_GROUP;
    move_into_thread_name_spaces(init.pidfd.as_fd(), spaces)?;
    match sys::fork()? {
        Forked::Parent(pid) => {
            let ended = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty())?;
            Ok(ended.and_then(|(_, s)| s.exit_status()).unwrap_or(1))
        }
        Forked::Child => {
            let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
            // Refused with a single-id map, where there is no other group anyway.
            let _ = set_thread_groups(&[gid]);
            set_thread_res_gid(gid, gid, gid)?;
            set_thread_res_uid(uid, uid, uid)?;
            for set in [CapSet::Bounding, CapSet::Ambient] {
                let _ = caps::clear(None, set);
            }
            for set in [CapSet::Inheritable, CapSet::Effective, CapSet::Permitted] {
                caps::set(None, set, &CapsHashSet::new()).map_err(io::Error::other)?;
            }
            set_no_new_privs(true)?;
            rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
            sys::close_from(3);
            let c = |text: &str| std::ffi::CString::new(text).map_err(io::Error::from);
            let env = env
                .iter()
                .map(|line| c(line))
                .collect::<io::Result<Vec<_>>>()?;
            let args = [c("sh")?, c("-c")?, c(command)?];
            for shell in [c"/bin/sh", c"/usr/bin/sh"] {
                let _ = sys::exec(shell, &args, &env);
            }
            sys::exit(127)
        }
    }
}
