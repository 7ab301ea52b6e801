//! Names and markers of the store's format 1, and the checks on opening it.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::process::{geteuid, getuid};

use super::{Ownership, StoreError};
use crate::digest::Digest;
use crate::reference::Reference;

const FORMAT: &str = "podspawn store 1";

/// Where things are below `<root>/v1`.
#[derive(Debug)]
pub(crate) struct Layout {
    /// `<root>/v1`, absolute.
    pub(crate) v1: PathBuf,
}

impl Layout {
    pub(crate) fn lock(&self) -> PathBuf {
        self.v1.join("lock")
    }

    pub(crate) fn tmp(&self) -> PathBuf {
        self.v1.join("tmp")
    }

    pub(crate) fn layers(&self) -> PathBuf {
        self.v1.join("layers")
    }

    pub(crate) fn layer(&self, blob: &Digest) -> PathBuf {
        self.layers().join(blob.file_name())
    }

    pub(crate) fn images(&self) -> PathBuf {
        self.v1.join("images")
    }

    pub(crate) fn image(&self, manifest: &Digest) -> PathBuf {
        self.images().join(manifest.file_name())
    }

    pub(crate) fn refs(&self) -> PathBuf {
        self.v1.join("refs")
    }

    pub(crate) fn reference(&self, name: &str) -> PathBuf {
        self.refs().join(escape(name))
    }
}

/// A reference as a file name: `/` and whatever else is unusual becomes `%XX`. Names too long for a
/// file keep their beginning and get their own digest; the file's content has the whole name.
fn escape(name: &str) -> String {
    let mut escaped = String::with_capacity(name.len() + 16);
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'_' | b'-' | b':' | b'@' => {
                escaped.push(char::from(byte));
            }
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    if escaped.len() > 200 {
        escaped.truncate(120);
        escaped.push('~');
        escaped.push_str(Digest::of(name.as_bytes()).hex());
    }
    escaped
}

/// The reference that a file of `refs` is for, going by its name alone.
pub(crate) fn reference_of(path: &Path) -> Option<Reference> {
    let mut bytes = path.file_name()?.to_str()?.bytes();
    let mut name = Vec::new();
    while let Some(byte) = bytes.next() {
        name.push(match byte {
            b'%' => {
                let digits = [bytes.next()?, bytes.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(name).ok()?.parse().ok()
}

/// Opens the store below `root` from outside of the pod's user namespace; `None` where there is
/// none. `container_root` is what the ids 0 and 0 of that namespace are here.
pub(crate) fn open_outside(
    root: &Path,
    ownership: Ownership,
    container_root: (u32, u32),
) -> Result<Option<Layout>, StoreError> {
    let root = match fs::canonicalize(root) {
        Ok(root) => root,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StoreError::io("open the store", root)(error)),
    };
    check_root(&root)?;
    let layout = Layout {
        v1: root.join("v1"),
    };
    let marker = layout.v1.join("format");
    match fs::read(&marker) {
        Ok(text) => check_format(&root, &marker, &text, ownership, container_root)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StoreError::io("read", &marker)(error)),
    }
    Ok(Some(layout))
}

/// Opens the store below `root`, making it where there is none.
pub(crate) fn open(root: &Path, ownership: Ownership) -> Result<Layout, StoreError> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true).mode(0o700);
    let made = builder.create(root);
    made.map_err(StoreError::io("make the store's directory", root))?;
    let root = fs::canonicalize(root).map_err(StoreError::io("open the store", root))?;
    check_root(&root)?;

    let layout = Layout {
        v1: root.join("v1"),
    };
    let marker = layout.v1.join("format");
    match fs::read(&marker) {
        Ok(text) => check_format(&root, &marker, &text, ownership, (0, 0))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            create(&root, &layout, ownership)?;
            let text = fs::read(&marker).map_err(StoreError::io("read", &marker))?;
            check_format(&root, &marker, &text, ownership, (0, 0))?;
        }
        Err(error) => return Err(StoreError::io("read", &marker)(error)),
    }
    Ok(layout)
}

/// Other users must neither own nor enter the store: it has setuid files of the images in it.
fn check_root(root: &Path) -> Result<(), StoreError> {
    let meta = fs::metadata(root).map_err(StoreError::io("look at the store", root))?;
    // The root of the pod's user namespace may use what belongs to any id mapped there: those are
    // all the user's. The root of the host may not.
    let mapped = || geteuid().is_root() && meta.uid() != 65534 && !initial_user_namespace();
    if meta.uid() != geteuid().as_raw() && meta.uid() != getuid().as_raw() && !mapped() {
        return Err(StoreError::NotOwned {
            path: root.into(),
            uid: meta.uid(),
        });
    }
    if meta.mode() & 0o077 != 0 {
        return Err(StoreError::NotPrivate {
            path: root.into(),
            mode: meta.mode() & 0o777,
        });
    }
    Ok(())
}

fn initial_user_namespace() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.split_whitespace().eq(["0", "0", "4294967295"])
}

fn check_format(
    root: &Path,
    marker: &Path,
    text: &[u8],
    ownership: Ownership,
    container_root: (u32, u32),
) -> Result<(), StoreError> {
    let text = String::from_utf8_lossy(text);
    let mut lines = text.lines();
    let format = lines.next().unwrap_or_default();
    if format != FORMAT {
        let found = format.strip_prefix("podspawn store ").unwrap_or("unknown");
        return Err(StoreError::Format {
            path: root.into(),
            found: found.chars().take(20).collect(),
        });
    }
    let made = match lines.next() {
        Some("ownership mapped") => Ownership::Mapped,
        Some("ownership single") => Ownership::Single,
        _ => {
            return Err(StoreError::Damaged {
                path: marker.into(),
                why: "it does not say whose the files are".into(),
            });
        }
    };
    if made != ownership {
        return Err(StoreError::Ownership {
            path: root.into(),
            made: made.describe(),
            now: ownership.describe(),
        });
    }
    if ownership == Ownership::Mapped {
        // Container root owns the marker: seen under another map, somebody else does.
        let meta = fs::metadata(marker).map_err(StoreError::io("look at", marker))?;
        if (meta.uid(), meta.gid()) != container_root {
            return Err(StoreError::IdMap { path: root.into() });
        }
    }
    Ok(())
}

fn create(root: &Path, layout: &Layout, ownership: Ownership) -> Result<(), StoreError> {
    let entries = fs::read_dir(root).map_err(StoreError::io("read", root))?;
    for entry in entries {
        let name = entry.map_err(StoreError::io("read", root))?.file_name();
        let name = name.to_string_lossy();
        let other = name.strip_prefix('v').unwrap_or("1");
        if other != "1" && !other.is_empty() && other.bytes().all(|b| b.is_ascii_digit()) {
            return Err(StoreError::Format {
                path: root.into(),
                found: other.into(),
            });
        }
    }
    for dir in [
        layout.v1.clone(),
        layout.images(),
        layout.refs(),
        layout.layers(),
        layout.tmp(),
    ] {
        let made = fs::DirBuilder::new().mode(0o700).create(&dir);
        match made {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => made.map_err(StoreError::io("make", &dir))?,
        }
    }
    // Whoever links the marker into place first has made the store; everybody reads it then.
    let staged = layout.tmp().join(format!(
        "format-{}-{:?}",
        std::process::id(),
        std::thread::current().id()
    ));
    let write = || -> io::Result<()> {
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .open(&staged)?;
        file.write_all(format!("{FORMAT}\nownership {}\n", ownership.word()).as_bytes())?;
        // Whatever the umask: `open_outside` reads it as another user than container root.
        file.set_permissions(fs::Permissions::from_mode(0o644))?;
        if ownership == Ownership::Mapped {
            std::os::unix::fs::fchown(&file, Some(0), Some(0))?;
        }
        file.sync_all()?;
        match fs::hard_link(&staged, layout.v1.join("format")) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            linked => linked?,
        }
        fs::remove_file(&staged)?;
        sync_dir(&layout.v1)
    };
    write().map_err(StoreError::io("make the store in", root))
}

/// Opens a directory, not through a symlink.
pub(crate) fn open_dir(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

/// Makes what was renamed or linked in a directory survive a power failure.
pub(crate) fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Whether the open file is what `path` names now.
pub(crate) fn is_still(path: &Path, file: impl AsFd) -> io::Result<bool> {
    let held = rustix::fs::fstat(file)?;
    match fs::symlink_metadata(path) {
        Ok(named) => Ok((named.dev(), named.ino()) == (held.st_dev, held.st_ino)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_file_names() {
        assert_eq!(
            escape("docker.io/library/ubuntu:24.04"),
            "docker.io%2Flibrary%2Fubuntu:24.04"
        );
        assert_eq!(escape("[::1]:5000/a"), "%5B::1%5D:5000%2Fa");
        let reference: Reference = "[::1]:5000/a:b".parse().unwrap();
        let file = Path::new("refs").join(escape(&reference.to_string()));
        assert_eq!(reference_of(&file), Some(reference));
        assert_eq!(reference_of(Path::new("refs/%2")), None);
        let long = |last| format!("host/{}{last}", "a/".repeat(150));
        assert!(escape(&long("x")).len() <= 255);
        assert_ne!(escape(&long("x")), escape(&long("y")));
    }
}
