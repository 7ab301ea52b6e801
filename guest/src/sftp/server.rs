//! The answers to the requests of SFTP version 3. Runs in `sftp-server`.
//!
//! Every request gets exactly one reply, in the order of the requests. What a
//! session may not do is decided by the kernel, for this process has the session's
//! credentials and no others; the options only take more away.

use std::os::fd::BorrowedFd;

use nix::errno::Errno as Description;
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::attrs::Attrs;
use super::handles::{Handles, Open};
use super::names::Names;
use super::path;
use super::policy::Policy;
use super::reply::{Out, Put};
use super::wire::{Code, MAX_DATA, Packet, Request, Short, VERSION, kind, open};

/// A listing's reply ends after this many bytes: every client takes packets of 34,000.
const NAMES_ENOUGH: usize = 30_000;

/// Why there is no good answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// For the client.
    pub code: Code,
    /// For the person before it.
    pub text: &'static str,
}

impl From<Code> for Status {
    fn from(code: Code) -> Self {
        Self {
            code,
            text: code.text(),
        }
    }
}

impl From<Errno> for Status {
    fn from(errno: Errno) -> Self {
        let code = match errno {
            Errno::NOENT | Errno::NOTDIR | Errno::BADF | Errno::LOOP => Code::NoSuchFile,
            Errno::PERM | Errno::ACCESS | Errno::FAULT => Code::PermissionDenied,
            Errno::NAMETOOLONG | Errno::INVAL => Code::BadMessage,
            Errno::NOSYS | Errno::OPNOTSUPP => Code::OpUnsupported,
            _ => Code::Failure,
        };
        Self {
            code,
            text: Description::from_raw(errno.raw_os_error()).desc(),
        }
    }
}

impl From<Short> for Status {
    fn from(_: Short) -> Self {
        Code::BadMessage.into()
    }
}

/// A handle that is not open, or not of the kind that the request is for.
pub(super) const BAD_HANDLE: Status = Status {
    code: Code::Failure,
    text: "Invalid handle",
};

/// One client's session.
pub struct Server {
    pub(super) handles: Handles,
    policy: Policy,
    names: Option<Names>,
    long_name: Vec<u8>,
    begun: bool,
}

impl Server {
    /// A server on which nothing is open.
    pub fn new(policy: Policy) -> Self {
        Self {
            handles: Handles::new(),
            policy,
            names: None,
            long_name: Vec::new(),
            begun: false,
        }
    }

    /// Answers one packet, given without its length field.
    ///
    /// # Errors
    /// It cannot be answered, and the session has to end: it is too short for an id, or
    /// the session does not begin with INIT.
    pub fn answer(&mut self, packet: &[u8], out: &mut Out) -> Result<(), Short> {
        match Packet::decode(packet)? {
            Packet::Init(_) => {
                self.begun = true;
                out.packet(kind::VERSION, |out| {
                    out.put_u32(VERSION);
                    for (name, version) in self.policy.extensions() {
                        out.put_string(name);
                        out.put_string(version);
                    }
                });
            }
            Packet::Request(..) if !self.begun => return Err(Short),
            Packet::Request(id, request) => {
                let start = out.len();
                if let Err(status) = self.request(id, request, out) {
                    out.truncate(start);
                    out.status(id, status.code, status.text);
                }
            }
        }
        Ok(())
    }

    fn request(
        &mut self,
        id: u32,
        request: Result<Request<'_>, Short>,
        out: &mut Out,
    ) -> Result<(), Status> {
        let request = request?;
        if !self.policy.permits(&request) {
            return Err(Code::PermissionDenied.into());
        }
        match request {
            Request::Read {
                handle,
                offset,
                len,
            } => {
                let fd = self.file(handle)?;
                let max = MAX_DATA.min(len as usize);
                let mut at_end = false;
                out.data(id, max, |room| -> Result<usize, Errno> {
                    let n = retry(|| rustix::io::pread(fd, &mut *room, offset))?;
                    at_end = n == 0 && len > 0;
                    Ok(n)
                })?;
                return if at_end {
                    Err(Code::Eof.into())
                } else {
                    Ok(())
                };
            }
            Request::Write {
                handle,
                offset,
                data,
            } => {
                write_all(self.file(handle)?, data, offset)?;
            }
            Request::Open { path, flags, attrs } => {
                let handle = self.open(path, flags, &attrs)?;
                return put_handle(id, &handle, out);
            }
            Request::Opendir { path } => {
                let handle = self.open_dir(path)?;
                return put_handle(id, &handle, out);
            }
            Request::Close { handle } => {
                // Linux closes the descriptor whatever close returns, and reports late
                // write errors only from fsync.
                self.handles.remove(handle).ok_or(BAD_HANDLE)?;
            }
            Request::Readdir { handle } => return self.read_dir(id, handle, out),
            Request::Lstat { path } => {
                let stat = rustix::fs::statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW)?;
                return put_attrs(id, &Attrs::from(&stat), out);
            }
            Request::Stat { path } => {
                let stat = rustix::fs::statat(CWD, path, AtFlags::empty())?;
                return put_attrs(id, &Attrs::from(&stat), out);
            }
            Request::Fstat { handle } => {
                let stat = rustix::fs::fstat(self.fd(handle)?)?;
                return put_attrs(id, &Attrs::from(&stat), out);
            }
            Request::Setstat { path, attrs } => attrs.apply_to_path(path)?,
            Request::Fsetstat { handle, attrs } => attrs.apply_to_fd(self.fd(handle)?)?,
            Request::Lsetstat { path, attrs } => attrs.apply_to_link(path)?,
            Request::Remove { path } => rustix::fs::unlinkat(CWD, path, AtFlags::empty())?,
            Request::Rmdir { path } => rustix::fs::unlinkat(CWD, path, AtFlags::REMOVEDIR)?,
            Request::Mkdir { path, attrs } => {
                rustix::fs::mkdirat(CWD, path, attrs.new_mode(0o777))?;
            }
            Request::Rename { from, to } => rename(from, to)?,
            Request::PosixRename { from, to } => rustix::fs::renameat(CWD, from, CWD, to)?,
            Request::Symlink { target, link } => rustix::fs::symlinkat(target, CWD, link)?,
            Request::Hardlink { from, to } => {
                rustix::fs::linkat(CWD, from, CWD, to, AtFlags::empty())?;
            }
            Request::Readlink { path } => {
                let target = rustix::fs::readlinkat(CWD, path, Vec::new())?;
                return put_name(id, target.as_bytes(), out);
            }
            Request::Realpath { path } => return put_name(id, &path::real(path)?, out),
            Request::ExpandPath { path } => {
                let path = path::expand(path, self.names())?;
                return put_name(id, &path, out);
            }
            Request::HomeDirectory { user } => {
                return put_name(id, &self.home_directory(user)?, out);
            }
            Request::UsersGroupsById { uids, gids } => {
                return self.users_groups(id, uids, gids, out);
            }
            Request::Statvfs { path } => {
                // Through a descriptor it would need permission to read.
                return Self::put_statvfs(id, &rustix::fs::statvfs(path)?, out);
            }
            Request::Fstatvfs { handle } => {
                let stat = rustix::fs::fstatvfs(self.fd(handle)?)?;
                return Self::put_statvfs(id, &stat, out);
            }
            Request::Limits => return self.put_limits(id, out),
            Request::Fsync { handle } => rustix::fs::fsync(self.fd(handle)?)?,
            Request::CopyData(copy) => self.copy_data(&copy)?,
            Request::Unknown => return Err(Code::OpUnsupported.into()),
        }
        out.status(id, Code::Ok, Code::Ok.text());
        Ok(())
    }

    /// The descriptor of an open file or directory.
    pub(super) fn fd(&self, handle: &[u8]) -> Result<BorrowedFd<'_>, Status> {
        Ok(self.handles.get(handle).ok_or(BAD_HANDLE)?.fd()?)
    }

    /// The descriptor of an open file.
    pub(super) fn file(&self, handle: &[u8]) -> Result<BorrowedFd<'_>, Status> {
        match self.handles.get(handle) {
            Some(open @ Open::File(_)) => Ok(open.fd()?),
            _ => Err(BAD_HANDLE),
        }
    }

    /// The container's users and groups, read when first asked for.
    pub(super) fn names(&mut self) -> &Names {
        self.names.get_or_insert_with(Names::load)
    }

    fn open(&mut self, path: &[u8], flags: u32, attrs: &Attrs) -> Result<[u8; 8], Status> {
        if !self.handles.has_room() {
            return Err(Errno::MFILE.into());
        }
        let fd = rustix::fs::open(path, open_flags(flags), attrs.new_mode(0o666))?;
        Ok(self.handles.insert(Open::File(fd))?)
    }

    fn open_dir(&mut self, path: &[u8]) -> Result<[u8; 8], Status> {
        if !self.handles.has_room() {
            return Err(Errno::MFILE.into());
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty())?;
        Ok(self.handles.insert(Open::Dir(Dir::new(fd)?))?)
    }

    fn read_dir(&mut self, id: u32, handle: &[u8], out: &mut Out) -> Result<(), Status> {
        let names = self.names.get_or_insert_with(Names::load);
        let Some(Open::Dir(dir)) = self.handles.get_mut(handle) else {
            return Err(BAD_HANDLE);
        };
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime).tv_sec;
        let mut error = None;
        let mut count: u32 = 0;
        let start = out.len();
        out.packet(kind::NAME, |out| {
            out.put_u32(id);
            let count_at = out.len();
            out.put_u32(0);
            while out.len() - start < NAMES_ENOUGH {
                let entry = match dir.read() {
                    None => break,
                    Some(Ok(entry)) => entry,
                    Some(Err(errno)) => {
                        error = Some(errno);
                        break;
                    }
                };
                let name = entry.file_name();
                let stat = dir
                    .fd()
                    .and_then(|fd| rustix::fs::statat(fd, name, AtFlags::SYMLINK_NOFOLLOW));
                // It may be gone by now.
                let Ok(stat) = stat else { continue };
                names.long_name(&mut self.long_name, name.to_bytes(), &stat, now);
                out.put_string(name.to_bytes());
                out.put_string(&self.long_name);
                Attrs::from(&stat).encode(out);
                count += 1;
            }
            out.set_u32(count_at, count);
        });
        match (count, error) {
            (0, Some(errno)) => Err(errno.into()),
            (0, None) => Err(Code::Eof.into()),
            _ => Ok(()),
        }
    }
}

fn open_flags(flags: u32) -> OFlags {
    let has = |flag| flags & flag != 0;
    let mut out = match (has(open::READ), has(open::WRITE)) {
        (true, true) => OFlags::RDWR,
        (false, true) => OFlags::WRONLY,
        _ => OFlags::RDONLY,
    };
    for (flag, os) in [
        (open::APPEND, OFlags::APPEND),
        (open::CREAT, OFlags::CREATE),
        (open::TRUNC, OFlags::TRUNC),
        (open::EXCL, OFlags::EXCL),
    ] {
        if has(flag) {
            out |= os;
        }
    }
    out | OFlags::CLOEXEC | OFlags::NOCTTY
}

/// Version 3 never replaces what is at `to`.
fn rename(from: &[u8], to: &[u8]) -> Result<(), Errno> {
    match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // The kernel or the file system cannot.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {}
        result => return result,
    }
    let stat = rustix::fs::statat(CWD, from, AtFlags::SYMLINK_NOFOLLOW)?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile {
        match rustix::fs::linkat(CWD, from, CWD, to, AtFlags::empty()) {
            Ok(()) => {
                return rustix::fs::unlinkat(CWD, from, AtFlags::empty()).inspect_err(|_| {
                    // As it was before; the first error is the one that counts.
                    let _ = rustix::fs::unlinkat(CWD, to, AtFlags::empty());
                });
            }
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::PERM | Errno::MLINK) => {}
            Err(errno) => return Err(errno),
        }
    }
    match rustix::fs::statat(CWD, to, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(_) => Err(Errno::EXIST),
        Err(Errno::NOENT) => rustix::fs::renameat(CWD, from, CWD, to),
        Err(errno) => Err(errno),
    }
}

pub(super) fn write_all(fd: BorrowedFd<'_>, mut data: &[u8], mut offset: u64) -> Result<(), Errno> {
    loop {
        let n = retry(|| rustix::io::pwrite(fd, data, offset))?;
        data = &data[n..];
        offset += n as u64;
        if data.is_empty() {
            return Ok(());
        }
        if n == 0 {
            return Err(Errno::IO);
        }
    }
}

/// Repeats a call that a signal interrupted.
pub(crate) fn retry<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
}

fn put_handle(id: u32, handle: &[u8], out: &mut Out) -> Result<(), Status> {
    out.packet(kind::HANDLE, |out| {
        out.put_u32(id);
        out.put_string(handle);
    });
    Ok(())
}

fn put_attrs(id: u32, attrs: &Attrs, out: &mut Out) -> Result<(), Status> {
    out.packet(kind::ATTRS, |out| {
        out.put_u32(id);
        attrs.encode(out);
    });
    Ok(())
}

fn put_name(id: u32, name: &[u8], out: &mut Out) -> Result<(), Status> {
    out.packet(kind::NAME, |out| {
        out.put_u32(id);
        out.put_u32(1);
        out.put_string(name);
        out.put_string(name);
        Attrs::default().encode(out);
    });
    Ok(())
}
