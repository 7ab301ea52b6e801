//! Whether a service is ready: do its ports accept, does a command in it succeed.

use std::ffi::CString;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use caps::{CapSet, CapsHashSet};
use rustix::process::{
    DumpableBehavior, Gid, Pid, PidfdFlags, Signal, Uid, WaitOptions, kill_process,
    kill_process_group, pidfd_open, waitpid,
};
use rustix::thread::{
    ThreadNameSpaceType, move_into_thread_name_spaces, set_no_new_privs, set_thread_groups,
    set_thread_res_gid, set_thread_res_uid,
};

use super::spec::{Check, CheckCommand};
use crate::pod::readable_by;
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

/// Where a check runs.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// Its environment, `NAME=value`.
    pub env: &'a [String],
    /// Its working directory.
    pub dir: &'a Path,
    /// Its user and group id.
    pub user: (u32, u32),
}

/// The status of a check that took too long, as timeout(1) has it.
pub const TIMED_OUT: i32 = 124;

/// Runs `check` in the service's container, and returns the process whose status is
/// the command's. One that takes too long is killed, with what it started.
///
/// # Errors
///
/// Those of `fork(2)`.
pub fn run(init: &DevContainer, check: &Check, place: &Place<'_>) -> io::Result<Pid> {
    match sys::fork()? {
        Forked::Parent(pid) => Ok(pid),
        Forked::Child => {
            sys::reset();
            let status = inside(init, check, place).unwrap_or(125);
            sys::exit(status)
        }
    }
}

fn inside(init: &DevContainer, check: &Check, place: &Place<'_>) -> io::Result<i32> {
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
        Forked::Parent(pid) => wait(pid, check.timeout),
        Forked::Child => execute(&check.command, place),
    }
}

/// The exit status of `pid`, the leader of a process group.
fn wait(pid: Pid, limit: Duration) -> io::Result<i32> {
    let pidfd = pidfd_open(pid, PidfdFlags::empty())?;
    let ended = readable_by(&pidfd, Instant::now() + limit)?;
    if !ended {
        let _ = kill_process_group(pid, Signal::KILL);
        // Before it made its group there is nobody else in it.
        let _ = kill_process(pid, Signal::KILL);
    }
    let status = waitpid(Some(pid), WaitOptions::empty())?;
    Ok(match status.and_then(|(_, status)| status.exit_status()) {
        _ if !ended => TIMED_OUT,
        Some(status) => status,
        None => 1,
    })
}

fn execute(command: &CheckCommand, place: &Place<'_>) -> io::Result<i32> {
    rustix::process::setpgid(None, None)?;
    let _ = rustix::process::chdir(place.dir);
    let (uid, gid) = (Uid::from_raw(place.user.0), Gid::from_raw(place.user.1));
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
    let c = |text: &str| CString::new(text).map_err(io::Error::from);
    let all = |texts: &[String]| texts.iter().map(|text| c(text)).collect();
    let env: Vec<CString> = Result::from_iter(place.env.iter().map(|line| c(line)))?;
    let (files, args): (_, io::Result<Vec<CString>>) = match command {
        CheckCommand::Shell(line) => (
            ["/bin/sh", "/usr/bin/sh"].map(String::from).to_vec(),
            ["sh", "-c", line].map(c).into_iter().collect(),
        ),
        CheckCommand::Program(words) => (candidates(words, place.env), all(words)),
    };
    let args = args?;
    for file in files {
        let _ = sys::exec(&c(&file)?, &args, &env);
    }
    sys::exit(127)
}

/// Where the program of these words may be, by the `PATH` of `env`.
fn candidates(words: &[String], env: &[String]) -> Vec<String> {
    let Some(program) = words.first() else {
        return Vec::new();
    };
    if program.contains('/') {
        return vec![program.clone()];
    }
    let path = env.iter().find_map(|line| line.strip_prefix("PATH="));
    let dirs = path.unwrap_or_default().split(':');
    // An empty one would be the working directory, where nobody looks for programs.
    dirs.filter(|dir| !dir.is_empty())
        .map(|dir| format!("{dir}/{program}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_sought_along_the_path() {
        let env = ["HOME=/".to_owned(), "PATH=/usr/bin::/bin".to_owned()];
        let of = |word: &str| candidates(&[word.to_owned(), "-x".to_owned()], &env);
        assert_eq!(of("redis-cli"), ["/usr/bin/redis-cli", "/bin/redis-cli"]);
        assert_eq!(of("./check"), ["./check"]);
        assert!(candidates(&["x".into()], &[]).is_empty());
        assert!(candidates(&[], &env).is_empty());
    }
}
