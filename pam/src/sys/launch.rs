//! Starting a program as a user, from inside sshd.
//!
//! sshd, or another module in it, may have threads. So everything that allocates
//! or asks the user database is done before the fork; the child only makes
//! system calls.

use std::ffi::{CString, c_char};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use super::kernel::checked;

/// A program to run as a user.
#[derive(Debug)]
pub struct Launch {
    /// Its file.
    pub path: CString,
    /// Its arguments, the name first.
    pub args: Vec<CString>,
    /// All of its environment.
    pub environment: Vec<CString>,
    /// The user.
    pub uid: u32,
    /// Their primary group.
    pub gid: u32,
    /// All of their groups.
    pub groups: Vec<u32>,
}

/// The descriptor on which the program finds its socket.
const SOCKET: RawFd = 3;

/// A running child that leads a session of its own. Until it is dropped, sshd's
/// own handling of SIGCHLD is suspended.
pub struct Process {
    pid: libc::pid_t,
    handle: OwnedFd,
    before: libc::sigaction,
}

impl Launch {
    /// Starts it with `socket` as its descriptor 3, and no other.
    pub fn start(self, socket: OwnedFd) -> io::Result<Process> {
        let pointers = |strings: &[CString]| -> Vec<*const c_char> {
            let strings = strings.iter().map(|s| s.as_ptr());
            strings.chain([std::ptr::null()]).collect()
        };
        let (args, environment) = (pointers(&self.args), pointers(&self.environment));
        let before = take_sigchld()?;
        // SAFETY: the child does nothing but system calls until it execs or exits.
        match unsafe { libc::fork() } {
            -1 => {
                let e = io::Error::last_os_error();
                restore_sigchld(&before);
                Err(e)
            }
            0 => {
                // SAFETY: this is the child; the arrays end in null pointers.
                unsafe { self.become_program(&args, &environment, socket.as_raw_fd()) }
            }
            pid => {
                // SAFETY: an unreaped child keeps its number.
                let handle = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) } as RawFd;
                if handle < 0 {
                    let e = io::Error::last_os_error();
                    // SAFETY: as above.
                    unsafe { libc::kill(pid, libc::SIGKILL) };
                    restore_sigchld(&before);
                    return Err(e);
                }
                // SAFETY: a new descriptor that nobody else owns.
                let handle = unsafe { OwnedFd::from_raw_fd(handle) };
                Ok(Process {
                    pid,
                    handle,
                    before,
                })
            }
        }
    }

    /// # Safety
    ///
    /// Only in a process that was just forked; both arrays end in a null pointer.
    unsafe fn become_program(
        &self,
        args: &[*const c_char],
        environment: &[*const c_char],
        socket: RawFd,
    ) -> ! {
        // SAFETY: system calls on values that live as long as this function.
        unsafe {
            for signal in 1..=libc::SIGRTMAX() {
                libc::signal(signal, libc::SIG_DFL);
            }
            let mut none: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&mut none);
            libc::sigprocmask(libc::SIG_SETMASK, &none, std::ptr::null_mut());
            libc::umask(0o077);
            let high = libc::fcntl(socket, libc::F_DUPFD, 10);
            let null = libc::open(c"/dev/null".as_ptr(), libc::O_RDWR);
            let ready = libc::setsid() >= 0
                && high >= 0
                && null >= 0
                && (0..SOCKET).all(|fd| libc::dup2(null, fd) >= 0)
                && libc::dup2(high, SOCKET) >= 0
                && close_from(SOCKET + 1)
                && libc::setgroups(self.groups.len(), self.groups.as_ptr()) == 0
                && libc::setresgid(self.gid, self.gid, self.gid) == 0
                && libc::setresuid(self.uid, self.uid, self.uid) == 0
                && libc::chdir(c"/".as_ptr()) == 0
                // After the ids: changing them clears it.
                && libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) == 0;
            if ready {
                libc::execve(self.path.as_ptr(), args.as_ptr(), environment.as_ptr());
            }
            libc::_exit(127)
        }
    }
}

/// Closes every descriptor from `first` on; for the child.
fn close_from(first: RawFd) -> bool {
    // SAFETY: the child owns its descriptors and uses none of them again.
    unsafe {
        if libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, 0) == 0 {
            return true;
        }
        // Linux before 5.9.
        let limit = libc::sysconf(libc::_SC_OPEN_MAX).clamp(256, 1 << 20) as RawFd;
        for fd in first..limit {
            libc::close(fd);
        }
        true
    }
}

impl Process {
    /// Kills it and the processes of its group.
    pub fn kill(&self) {
        // SAFETY: kill has no memory effects; an unreaped child keeps its number.
        unsafe {
            libc::kill(-self.pid, libc::SIGKILL);
            libc::kill(self.pid, libc::SIGKILL);
        }
    }

    /// Whether it has ended; it is reaped then.
    pub fn has_ended(&self) -> bool {
        // SAFETY: no status is asked for.
        let result = unsafe { libc::waitpid(self.pid, std::ptr::null_mut(), libc::WNOHANG) };
        result == self.pid
            || (result == -1 && checked(-1).is_err_and(|e| e.raw_os_error() == Some(libc::ECHILD)))
    }
}

/// Readable once it has ended.
impl AsFd for Process {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.handle.as_fd()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        restore_sigchld(&self.before);
    }
}

/// Gives SIGCHLD its default action, so that a child can be waited for.
fn take_sigchld() -> io::Result<libc::sigaction> {
    // SAFETY: all-zero structures are valid; SIG_DFL is not a function of ours.
    unsafe {
        let mut before: libc::sigaction = std::mem::zeroed();
        let mut default: libc::sigaction = std::mem::zeroed();
        default.sa_sigaction = libc::SIG_DFL;
        checked(libc::sigaction(libc::SIGCHLD, &default, &mut before))?;
        Ok(before)
    }
}

fn restore_sigchld(before: &libc::sigaction) {
    // SAFETY: what sigaction itself returned.
    unsafe { libc::sigaction(libc::SIGCHLD, before, std::ptr::null_mut()) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    /// A program as the caller, which needs no privilege.
    fn start(script: &str) -> (Process, OwnedFd) {
        use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
        let (ours, theirs) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .unwrap();
        let launch = Launch {
            path: c"/bin/sh".into(),
            args: vec![c"sh".into(), c"-c".into(), CString::new(script).unwrap()],
            environment: vec![c"PATH=/usr/bin:/bin".into()],
            uid: rustix::process::getuid().as_raw(),
            gid: rustix::process::getgid().as_raw(),
            groups: vec![],
        };
        (launch.start(theirs).unwrap(), ours)
    }

    fn ends(process: &Process) -> bool {
        let end = Instant::now() + Duration::from_secs(10);
        while Instant::now() < end {
            if process.has_ended() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        false
    }

    #[test]
    fn a_program_has_its_socket_and_nothing_else() {
        if !rustix::process::getuid().is_root() {
            return; // setgroups(2) is root's.
        }
        let _kept = std::fs::File::open("/").unwrap();
        let (process, ours) = start("ls /proc/self/fd | tr '\\n' ' ' >&3");
        let mut got = [0; 100];
        let n = rustix::io::read(&ours, &mut got).unwrap();
        // The last one is what ls reads the directory by.
        assert_eq!(&got[..n], b"0 1 2 3 4 ");
        assert!(ends(&process));
        let (process, _ours) = start("sleep 1000 & sleep 1000");
        assert!(!process.has_ended());
        process.kill();
        assert!(ends(&process));
    }
}
