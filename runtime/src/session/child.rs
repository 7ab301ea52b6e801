//! The child of a session, from fork to exec.
//!
//! Role: it begins as a copy of podspawn inside the container, with all
//! capabilities in the pod's user namespace, and gives up everything that the
//! program must not have, in an order that leaves each step possible:
//! descriptors, terminal, bounding set, groups and ids, the filter of system
//! calls, capabilities, then exec. What fails is one line on stderr, and a status of 125 to 127.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use caps::{CapSet, CapsHashSet};
use rustix::process::{DumpableBehavior, Gid, Resource, Rlimit, Uid, getrlimit, setrlimit};
use rustix::thread::{set_no_new_privs, set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use super::environment::Environment;
use super::shell::{self, Program};
use super::terminal::Pty;
use super::{Action, Brought, Session, locale};
use crate::limits::ProgramLimits;
use crate::pod::PodInfo;
use crate::sys;

/// podspawn itself failed.
const FAILED: i32 = 125;
/// The program is there and cannot be executed.
const NOT_EXECUTABLE: i32 = 126;
/// There is no such program.
const NOT_FOUND: i32 = 127;

/// Becomes the session's program.
pub fn become_program(
    info: &PodInfo,
    filter: &[u8],
    session: &Session,
    brought: &Brought,
    pty: Option<Pty>,
) -> ! {
    let status = match prepare(info, filter, pty.as_ref()) {
        Ok(()) => {
            let tty = pty.as_ref().map(|pty| pty.name.clone());
            execute(info, session, brought, tty.as_deref())
        }
        Err((what, e)) => {
            say(&format!("cannot {what}: {e}"));
            FAILED
        }
    };
    sys::exit(status)
}

pub type Step = Result<(), (&'static str, io::Error)>;

fn prepare(info: &PodInfo, filter: &[u8], pty: Option<&Pty>) -> Step {
    let step = |what: &'static str| move |e: rustix::io::Errno| (what, io::Error::from(e));
    rustix::process::setsid().map_err(step("begin a process session"))?;
    if let Some(pty) = pty {
        pty.make_controlling()
            .map_err(|e| ("attach the terminal", e))?;
    }
    drop_privileges(info, filter)?;
    sys::reset();
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let home = info.workspace.as_ref().unwrap_or(&info.user.home);
    let home = Path::new(home);
    let home_is_there = home.is_absolute() && rustix::process::chdir(home).is_ok();
    if !home_is_there && rustix::process::chdir(&*info.working_dir).is_err() {
        rustix::process::chdir("/").map_err(step("change to /"))?;
    }
    Ok(())
}

/// Becomes the session user, for good.
pub fn drop_privileges(info: &PodInfo, filter: &[u8]) -> Step {
    let step = |what: &'static str| move |e: rustix::io::Errno| (what, io::Error::from(e));
    let cap = |what: &'static str| move |e: caps::errors::CapsError| (what, io::Error::other(e));
    let (uid, gid) = (Uid::from_raw(info.user.uid), Gid::from_raw(info.user.gid));
    let bounding = info.privileges.bounding();
    for unwanted in caps::all().difference(&bounding) {
        // A capability that this kernel does not know is not there to drop.
        let _ = caps::drop(None, CapSet::Bounding, *unwanted);
    }
    if info.has_groups {
        let groups: Vec<Gid> = info
            .user
            .groups
            .iter()
            .copied()
            .filter(|g| *g != info.user.gid)
            .chain([info.user.gid])
            .map(Gid::from_raw)
            .collect();
        set_thread_groups(&groups).map_err(step("set the user's groups"))?;
    }
    set_thread_res_gid(gid, gid, gid).map_err(step("become the user's group"))?;
    set_thread_res_uid(uid, uid, uid).map_err(step("become the user"))?;
    // While there is CAP_SYS_ADMIN: where programs may gain privileges, nothing else
    // allows it.
    sys::install_filter(filter).map_err(|e| ("filter system calls", e))?;
    // The login user's id did not change, so the kernel took nothing away.
    let keep = if info.user.uid == 0 {
        bounding
    } else {
        CapsHashSet::new()
    };
    caps::clear(None, CapSet::Ambient).map_err(cap("clear ambient capabilities"))?;
    caps::set(None, CapSet::Inheritable, &CapsHashSet::new())
        .map_err(cap("drop inheritable capabilities"))?;
    caps::set(None, CapSet::Effective, &keep).map_err(cap("drop effective capabilities"))?;
    caps::set(None, CapSet::Permitted, &keep).map_err(cap("drop permitted capabilities"))?;
    if info.privileges.no_new_privileges {
        set_no_new_privs(true).map_err(step("set no_new_privs"))?;
    }
    // Changing ids may have made the process dumpable.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(step("stay out of reach"))
}

fn execute(info: &PodInfo, session: &Session, brought: &Brought, tty: Option<&Path>) -> i32 {
    if let Err(e) = limit(&info.limits) {
        say(&format!("cannot limit the session's resources: {e}"));
        return FAILED;
    }
    sys::close_from(3);
    let mut env = Environment::new(info, &session.env, tty, session.terminfo);
    locale::fall_back(
        &mut env,
        session.env.iter().map(|(name, _)| name.as_os_str()),
    );
    for (name, value) in &brought.variables {
        env.set(name, value);
    }
    let mut refused: Option<(Program, io::Error)> = None;
    let user_shell = info.user.shell.clone().unwrap_or_else(|| "/bin/sh".into());
    env.set("SHELL", user_shell);
    if let Some(status) = missing_rsync(session, &env, &info.image) {
        return status;
    }
    let path = env.get("PATH");
    for program in shell::programs(&session.action, info, &session.shells, path.as_deref()) {
        let (Ok(path), Some(args)) = (
            CString::new(program.path.as_os_str().as_bytes()),
            shell::c_strings(&program.args),
        ) else {
            say("a command cannot hold a NUL byte");
            return FAILED;
        };
        if program.is_shell {
            env.set("SHELL", &program.path);
        }
        let e = sys::exec(&path, &args, &env.block());
        match e.raw_os_error() {
            Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP) => {}
            // Only the first that is there counts; another would hide why.
            _ => refused = refused.or(Some((program, e))),
        }
    }
    match refused {
        Some((program, e)) => {
            say(&format!(
                "cannot execute {} of image {}: {e}",
                program.path.display(),
                info.image
            ));
            NOT_EXECUTABLE
        }
        None => {
            let what = match &session.action {
                Action::Shell => {
                    "has no shell; run a program of its own, or choose an image with a shell"
                }
                Action::Command(_) => "has no shell to run the command with",
                Action::Sftp(_) => "cannot run an sftp server",
                Action::Program(args) => {
                    let name = args.first().map(|n| n.to_string_lossy());
                    let name = name.unwrap_or_default();
                    say(&format!("image {} has no program {name}", info.image));
                    return NOT_FOUND;
                }
            };
            say(&format!("image {} {what}", info.image));
            NOT_FOUND
        }
    }
}

/// Limits the program and what it starts. Last of all: a user who has used up their
/// processes must be let in, to end some.
fn limit(limits: &ProgramLimits) -> io::Result<()> {
    for (resource, most) in [
        (Resource::Nproc, limits.processes),
        (Resource::Data, limits.data),
    ] {
        let Some(most) = most else { continue };
        let now = getrlimit(resource);
        let lower = |old: Option<u64>| Some(old.map_or(most, |old| old.min(most)));
        let new = Rlimit {
            current: lower(now.current),
            maximum: lower(now.maximum),
        };
        setrlimit(resource, new)?;
    }
    Ok(())
}

/// rsync's client starts rsync on this side and shows what its shell says, which
/// does not tell what to install.
fn missing_rsync(session: &Session, env: &Environment, image: &str) -> Option<i32> {
    let Action::Command(line) = &session.action else {
        return None;
    };
    if !line.starts_with(b"rsync --server ") {
        return None;
    }
    let path = env.get("PATH")?;
    let has = std::env::split_paths(&path).any(|dir| dir.join("rsync").exists());
    if has {
        return None;
    }
    say(&format!(
        "image {image} has no rsync; install the package rsync in it"
    ));
    Some(NOT_FOUND)
}

/// One line for the client. Names from images are not trusted with its terminal.
pub fn say(text: &str) {
    let line: String = text
        .chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect();
    let _ = rustix::io::write(
        rustix::stdio::stderr(),
        format!("podspawn: {line}\n").as_bytes(),
    );
}
