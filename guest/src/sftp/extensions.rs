//! The answers to OpenSSH's extensions that take more than one call. Runs in
//! `sftp-server`.

use std::os::fd::BorrowedFd;

use rustix::fs::{StatVfs, StatVfsMountFlags};
use rustix::io::Errno;

use super::path;
use super::reply::{Out, Put};
use super::server::{Server, Status, retry};
use super::wire::{Code, CopyData, MAX_DATA, MAX_PACKET, Reader, kind};

impl Server {
    pub(super) fn put_statvfs(id: u32, stat: &StatVfs, out: &mut Out) -> Result<(), Status> {
        const READ_ONLY: u64 = 1;
        const NO_SUID: u64 = 2;
        let mut flags = 0;
        if stat.f_flag.contains(StatVfsMountFlags::RDONLY) {
            flags |= READ_ONLY;
        }
        if stat.f_flag.contains(StatVfsMountFlags::NOSUID) {
            flags |= NO_SUID;
        }
        out.packet(kind::EXTENDED_REPLY, |out| {
            out.put_u32(id);
            for value in [
                stat.f_bsize,
                stat.f_frsize,
                stat.f_blocks,
                stat.f_bfree,
                stat.f_bavail,
                stat.f_files,
                stat.f_ffree,
                stat.f_favail,
                stat.f_fsid,
                flags,
                stat.f_namemax,
            ] {
                out.put_u64(value);
            }
        });
        Ok(())
    }

    pub(super) fn put_limits(&self, id: u32, out: &mut Out) -> Result<(), Status> {
        out.packet(kind::EXTENDED_REPLY, |out| {
            out.put_u32(id);
            out.put_u64(MAX_PACKET as u64);
            out.put_u64(MAX_DATA as u64);
            out.put_u64(MAX_DATA as u64);
            out.put_u64(self.handles.max());
        });
        Ok(())
    }

    /// The home of `user`, or of whoever runs the session if that is empty.
    pub(super) fn home_directory(&mut self, user: &[u8]) -> Result<Vec<u8>, Status> {
        let names = self.names();
        let own = if user.is_empty() {
            names.user(rustix::process::getuid().as_raw())
        } else {
            Some(user)
        };
        match own.and_then(|user| names.home(user)) {
            Some(home) => Ok(home.to_vec()),
            // The session began there.
            None if user.is_empty() => Ok(path::working_directory()?),
            None => Err(Errno::NOENT.into()),
        }
    }

    /// Two lists of names, empty where an id has none.
    pub(super) fn users_groups(
        &mut self,
        id: u32,
        uids: &[u8],
        gids: &[u8],
        out: &mut Out,
    ) -> Result<(), Status> {
        let names = self.names();
        let users = name_list(uids, |uid| names.user(uid))?;
        let groups = name_list(gids, |gid| names.group(gid))?;
        if users.len() + groups.len() > MAX_PACKET - 64 {
            return Err(Code::Failure.into());
        }
        out.packet(kind::EXTENDED_REPLY, |out| {
            out.put_u32(id);
            out.put_string(&users);
            out.put_string(&groups);
        });
        Ok(())
    }

    pub(super) fn copy_data(&self, copy: &CopyData<'_>) -> Result<(), Status> {
        let from = self.file(copy.from)?;
        let to = self.file(copy.to)?;
        let len = if copy.len == 0 { u64::MAX } else { copy.len };
        let (a, b) = (rustix::fs::fstat(from)?, rustix::fs::fstat(to)?);
        let same = (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino);
        if same && copy.from_offset.abs_diff(copy.to_offset) < len {
            // It would read what it wrote.
            return Err(Errno::INVAL.into());
        }
        copy_range(from, copy.from_offset, to, copy.to_offset, len)?;
        Ok(())
    }
}

fn name_list<'a>(ids: &[u8], name: impl Fn(u32) -> Option<&'a [u8]>) -> Result<Vec<u8>, Status> {
    let mut list = Vec::new();
    let mut ids = Reader::new(ids);
    while !ids.is_empty() {
        list.put_string(name(ids.u32()?).unwrap_or_default());
        if list.len() > MAX_PACKET {
            return Err(Code::Failure.into());
        }
    }
    Ok(list)
}

/// Copies `len` bytes, or up to the end of `from`.
fn copy_range(
    from: BorrowedFd<'_>,
    mut from_offset: u64,
    to: BorrowedFd<'_>,
    mut to_offset: u64,
    mut len: u64,
) -> Result<(), Errno> {
    const AT_ONCE: u64 = 1 << 30;
    // In the kernel, where it can; a file system may even share the blocks.
    let mut copied = false;
    while len > 0 {
        let n = len.min(AT_ONCE) as usize;
        match retry(|| {
            rustix::fs::copy_file_range(from, Some(&mut from_offset), to, Some(&mut to_offset), n)
        }) {
            Ok(0) if copied => return Ok(()),
            // The end; or a file as in /proc, whose length says nothing.
            Ok(0) => break,
            Ok(n) => {
                copied = true;
                len -= n as u64;
            }
            Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::BADF) => {
                break;
            }
            Err(errno) => return Err(errno),
        }
    }
    let mut buffer = vec![0; MAX_DATA];
    while len > 0 {
        let n = len.min(buffer.len() as u64) as usize;
        let n = retry(|| rustix::io::pread(from, &mut buffer[..n], from_offset))?;
        if n == 0 {
            return Ok(());
        }
        super::server::write_all(to, &buffer[..n], to_offset)?;
        from_offset += n as u64;
        to_offset += n as u64;
        len -= n as u64;
    }
    Ok(())
}
