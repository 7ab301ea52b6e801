//! The bytes of SFTP version 3 (draft-ietf-secsh-filexfer-02): constants, and
//! requests decoded. Replies are encoded in [`super::reply`]. Runs in `sftp-server`.
//!
//! Everything here is pure and borrows from the packet it was given: decoding
//! allocates nothing, and a length field is believed only as far as there are
//! bytes behind it. Names are bytes; nothing is taken for UTF-8.

use super::attrs::Attrs;

/// The longest packet that is accepted or sent, its length field not counted.
pub const MAX_PACKET: usize = 256 * 1024;
/// The most data that one READ returns and one WRITE carries.
pub const MAX_DATA: usize = MAX_PACKET - 1024;
/// The protocol version that is spoken.
pub const VERSION: u32 = 3;

/// Packet types, section 3.
pub mod kind {
    #![allow(missing_docs)]
    pub const INIT: u8 = 1;
    pub const VERSION: u8 = 2;
    pub const OPEN: u8 = 3;
    pub const CLOSE: u8 = 4;
    pub const READ: u8 = 5;
    pub const WRITE: u8 = 6;
    pub const LSTAT: u8 = 7;
    pub const FSTAT: u8 = 8;
    pub const SETSTAT: u8 = 9;
    pub const FSETSTAT: u8 = 10;
    pub const OPENDIR: u8 = 11;
    pub const READDIR: u8 = 12;
    pub const REMOVE: u8 = 13;
    pub const MKDIR: u8 = 14;
    pub const RMDIR: u8 = 15;
    pub const REALPATH: u8 = 16;
    pub const STAT: u8 = 17;
    pub const RENAME: u8 = 18;
    pub const READLINK: u8 = 19;
    pub const SYMLINK: u8 = 20;
    pub const STATUS: u8 = 101;
    pub const HANDLE: u8 = 102;
    pub const DATA: u8 = 103;
    pub const NAME: u8 = 104;
    pub const ATTRS: u8 = 105;
    pub const EXTENDED: u8 = 200;
    pub const EXTENDED_REPLY: u8 = 201;
}

/// Flags of OPEN, section 6.3.
pub mod open {
    #![allow(missing_docs)]
    pub const READ: u32 = 0x01;
    pub const WRITE: u32 = 0x02;
    pub const APPEND: u32 = 0x04;
    pub const CREAT: u32 = 0x08;
    pub const TRUNC: u32 = 0x10;
    pub const EXCL: u32 = 0x20;
}

/// Status codes, section 7.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
#[allow(missing_docs)]
pub enum Code {
    Ok = 0,
    Eof = 1,
    NoSuchFile = 2,
    PermissionDenied = 3,
    Failure = 4,
    BadMessage = 5,
    OpUnsupported = 8,
}

impl Code {
    /// The message for a person, where nothing better is known.
    pub fn text(self) -> &'static str {
        match self {
            Code::Ok => "Success",
            Code::Eof => "End of file",
            Code::NoSuchFile => "No such file",
            Code::PermissionDenied => "Permission denied",
            Code::Failure => "Failure",
            Code::BadMessage => "Bad message",
            Code::OpUnsupported => "Operation unsupported",
        }
    }
}

/// A field reaches beyond the end of its packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Short;

/// What is left to decode of a packet.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Decodes `bytes` from their beginning.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    fn take(&mut self, n: usize) -> Result<&'a [u8], Short> {
        let (taken, rest) = self.0.split_at_checked(n).ok_or(Short)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Short> {
        let (taken, rest) = self.0.split_first_chunk::<N>().ok_or(Short)?;
        self.0 = rest;
        Ok(*taken)
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8, Short> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// A big-endian 32-bit number.
    pub fn u32(&mut self) -> Result<u32, Short> {
        self.array().map(u32::from_be_bytes)
    }

    /// A big-endian 64-bit number.
    pub fn u64(&mut self) -> Result<u64, Short> {
        self.array().map(u64::from_be_bytes)
    }

    /// A length and that many bytes.
    pub fn string(&mut self) -> Result<&'a [u8], Short> {
        let n = self.u32()?;
        self.take(usize::try_from(n).map_err(|_| Short)?)
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// How many bytes the packet that `bytes` begin with has, its length field not
/// counted; `None` when that cannot be told yet.
///
/// # Errors
/// The length is zero, or more than [`MAX_PACKET`]: the stream cannot be followed
/// any further.
pub fn packet_len(bytes: &[u8]) -> Result<Option<usize>, Short> {
    let Ok(len) = Reader::new(bytes).u32() else {
        return Ok(None);
    };
    match usize::try_from(len) {
        Ok(len) if (1..=MAX_PACKET).contains(&len) => Ok(Some(len)),
        _ => Err(Short),
    }
}

/// A packet from the client.
#[derive(Debug)]
pub enum Packet<'a> {
    /// The client's version, which comes without an id.
    Init(u32),
    /// A request and the id that its reply must carry.
    Request(u32, Result<Request<'a>, Short>),
}

impl<'a> Packet<'a> {
    /// Decodes one packet, without its length field. Bytes after the last field are
    /// ignored, as everybody does.
    ///
    /// # Errors
    /// It is too short even for an id, so that no reply is possible.
    pub fn decode(packet: &'a [u8]) -> Result<Self, Short> {
        let mut r = Reader::new(packet);
        let kind = r.u8()?;
        let number = r.u32()?;
        Ok(match kind {
            kind::INIT => Packet::Init(number),
            kind => Packet::Request(number, Request::decode(kind, &mut r)),
        })
    }
}

/// A request, sections 6 and 8.
#[derive(Debug)]
#[allow(missing_docs)]
pub enum Request<'a> {
    Open {
        path: &'a [u8],
        flags: u32,
        attrs: Attrs,
    },
    Close {
        handle: &'a [u8],
    },
    Read {
        handle: &'a [u8],
        offset: u64,
        len: u32,
    },
    Write {
        handle: &'a [u8],
        offset: u64,
        data: &'a [u8],
    },
    Lstat {
        path: &'a [u8],
    },
    Fstat {
        handle: &'a [u8],
    },
    Setstat {
        path: &'a [u8],
        attrs: Attrs,
    },
    Fsetstat {
        handle: &'a [u8],
        attrs: Attrs,
    },
    Opendir {
        path: &'a [u8],
    },
    Readdir {
        handle: &'a [u8],
    },
    Remove {
        path: &'a [u8],
    },
    Mkdir {
        path: &'a [u8],
        attrs: Attrs,
    },
    Rmdir {
        path: &'a [u8],
    },
    Realpath {
        path: &'a [u8],
    },
    Stat {
        path: &'a [u8],
    },
    Rename {
        from: &'a [u8],
        to: &'a [u8],
    },
    Readlink {
        path: &'a [u8],
    },
    /// OpenSSH sends the target first, against the draft, and all have followed it.
    Symlink {
        target: &'a [u8],
        link: &'a [u8],
    },
    PosixRename {
        from: &'a [u8],
        to: &'a [u8],
    },
    Statvfs {
        path: &'a [u8],
    },
    Fstatvfs {
        handle: &'a [u8],
    },
    Hardlink {
        from: &'a [u8],
        to: &'a [u8],
    },
    Fsync {
        handle: &'a [u8],
    },
    Lsetstat {
        path: &'a [u8],
        attrs: Attrs,
    },
    Limits,
    ExpandPath {
        path: &'a [u8],
    },
    CopyData(CopyData<'a>),
    HomeDirectory {
        user: &'a [u8],
    },
    UsersGroupsById {
        uids: &'a [u8],
        gids: &'a [u8],
    },
    /// A type or an extension that this server does not have.
    Unknown,
}

/// `copy-data`: a copy on the server from one handle to another.
#[derive(Clone, Copy, Debug)]
pub struct CopyData<'a> {
    /// The handle to read from.
    pub from: &'a [u8],
    /// The first byte to read.
    pub from_offset: u64,
    /// How many bytes; 0 means up to the end.
    pub len: u64,
    /// The handle to write to.
    pub to: &'a [u8],
    /// Where the first byte goes.
    pub to_offset: u64,
}

impl<'a> Request<'a> {
    fn decode(kind: u8, r: &mut Reader<'a>) -> Result<Self, Short> {
        Ok(match kind {
            kind::OPEN => Request::Open {
                path: r.string()?,
                flags: r.u32()?,
                attrs: Attrs::decode(r)?,
            },
            kind::CLOSE => Request::Close {
                handle: r.string()?,
            },
            kind::READ => Request::Read {
                handle: r.string()?,
                offset: r.u64()?,
                len: r.u32()?,
            },
            kind::WRITE => Request::Write {
                handle: r.string()?,
                offset: r.u64()?,
                data: r.string()?,
            },
            kind::LSTAT => Request::Lstat { path: r.string()? },
            kind::FSTAT => Request::Fstat {
                handle: r.string()?,
            },
            kind::SETSTAT => Request::Setstat {
                path: r.string()?,
                attrs: Attrs::decode(r)?,
            },
            kind::FSETSTAT => Request::Fsetstat {
                handle: r.string()?,
                attrs: Attrs::decode(r)?,
            },
            kind::OPENDIR => Request::Opendir { path: r.string()? },
            kind::READDIR => Request::Readdir {
                handle: r.string()?,
            },
            kind::REMOVE => Request::Remove { path: r.string()? },
            kind::MKDIR => Request::Mkdir {
                path: r.string()?,
                attrs: Attrs::decode(r)?,
            },
            kind::RMDIR => Request::Rmdir { path: r.string()? },
            kind::REALPATH => Request::Realpath { path: r.string()? },
            kind::STAT => Request::Stat { path: r.string()? },
            kind::RENAME => Request::Rename {
                from: r.string()?,
                to: r.string()?,
            },
            kind::READLINK => Request::Readlink { path: r.string()? },
            kind::SYMLINK => Request::Symlink {
                target: r.string()?,
                link: r.string()?,
            },
            kind::EXTENDED => return Self::decode_extended(r),
            _ => Request::Unknown,
        })
    }

    fn decode_extended(r: &mut Reader<'a>) -> Result<Self, Short> {
        Ok(match r.string()? {
            b"posix-rename@openssh.com" => Request::PosixRename {
                from: r.string()?,
                to: r.string()?,
            },
            b"statvfs@openssh.com" => Request::Statvfs { path: r.string()? },
            b"fstatvfs@openssh.com" => Request::Fstatvfs {
                handle: r.string()?,
            },
            b"hardlink@openssh.com" => Request::Hardlink {
                from: r.string()?,
                to: r.string()?,
            },
            b"fsync@openssh.com" => Request::Fsync {
                handle: r.string()?,
            },
            b"lsetstat@openssh.com" => Request::Lsetstat {
                path: r.string()?,
                attrs: Attrs::decode(r)?,
            },
            b"limits@openssh.com" => Request::Limits,
            b"expand-path@openssh.com" => Request::ExpandPath { path: r.string()? },
            b"copy-data" => Request::CopyData(CopyData {
                from: r.string()?,
                from_offset: r.u64()?,
                len: r.u64()?,
                to: r.string()?,
                to_offset: r.u64()?,
            }),
            b"home-directory" => Request::HomeDirectory { user: r.string()? },
            b"users-groups-by-id@openssh.com" => Request::UsersGroupsById {
                uids: r.string()?,
                gids: r.string()?,
            },
            _ => Request::Unknown,
        })
    }
}
