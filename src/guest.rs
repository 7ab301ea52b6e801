//! The guest binary that is embedded in podspawn, and its place in the store.
//!
//! Runs in the session that creates a pod. The file is named by its digest, so
//! that pods of different versions of podspawn have each their own, and all pods
//! of one version share its pages in memory.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::exit::Failure;

/// The program.
const BYTES: &[u8] = include_bytes!(env!("PODSPAWN_GUEST"));

/// Its SHA-256, in hexadecimal.
const SHA256: &str = env!("PODSPAWN_GUEST_SHA256");

/// Sees that the guest is in the store at `root`, and says where.
///
/// # Errors
///
/// When it cannot be written.
pub fn install(root: &Path) -> Result<PathBuf, Failure> {
    let dir = root.join("guest");
    let path = dir.join(SHA256);
    // It is renamed into place when it is complete, so its size is enough to ask.
    if fs::symlink_metadata(&path).is_ok_and(|m| m.is_file() && m.size() == BYTES.len() as u64) {
        return Ok(path);
    }
    let failed =
        |e: io::Error| Failure::new(format!("cannot write the guest to {}: {e}", path.display()));
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&dir)
        .map_err(failed)?;
    write(&dir, &path).map_err(failed)?;
    Ok(path)
}

fn write(dir: &Path, path: &Path) -> io::Result<()> {
    let staged = dir.join(format!(".{SHA256}.{}", std::process::id()));
    match fs::remove_file(&staged) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o500)
        .open(&staged)?;
    // Whatever the umask: the container's init, which is another user, runs it.
    file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o555))?;
    file.write_all(BYTES)?;
    file.sync_all()?;
    drop(file);
    fs::rename(&staged, path)?;
    fs::File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guest_is_static_and_replaces_what_is_damaged() {
        let root = tempfile::tempdir().unwrap();
        let path = install(root.path()).unwrap();
        assert_eq!(fs::read(&path).unwrap(), BYTES);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o555);
        // ELF, without an interpreter to load (PT_INTERP names it by path).
        assert!(BYTES.starts_with(b"\x7fELF"));
        assert!(!BYTES[..4096].windows(11).any(|w| w == b"/ld-linux-x"));
        fs::remove_file(&path).unwrap();
        fs::write(&path, "half").unwrap();
        install(root.path()).unwrap();
        assert_eq!(fs::read(&path).unwrap(), BYTES);
    }
}
