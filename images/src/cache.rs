//! Blobs that all users of a host share: fetched once by root, read by everybody's pulls.
//!
//! ```text
//! DIR/blobs/sha256/<hex>    a manifest, configuration or layer as it came, mode 0644
//! DIR/tmp/                  staging of root's; DIR/lock is held (flock) while it is used
//! ```
//!
//! Nobody has to trust it: whoever reads a blob verifies its digest and size as if it came from a
//! registry, and asks the registry where it is wrong. Root, for its part, reads nothing that a user
//! wrote, and looks into no layer.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write as _};
use std::os::unix::fs::{
    DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

use crate::digest::{Digest, Hasher, Verifier};

/// The shared blobs in a directory, which need not exist.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cache {
    dir: PathBuf,
}

/// Why the cache cannot be filled.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// An operation of the system failed.
    #[error("cannot {action} {}: {source}", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// Others than root could change what everybody reads.
    #[error("{} must belong to you, and nobody else may write there", .0.display())]
    NotPrivate(PathBuf),
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CacheError {
    move |source| CacheError::Io {
        action,
        path: path.into(),
        source,
    }
}

impl Cache {
    /// The cache in `dir`.
    pub fn new(dir: impl Into<PathBuf>) -> Cache {
        Cache { dir: dir.into() }
    }

    fn place(&self, digest: &Digest) -> PathBuf {
        let algorithm = digest.algorithm().name();
        self.dir.join("blobs").join(algorithm).join(digest.hex())
    }

    /// A blob, not yet verified; `None` if there is none of that size.
    pub(crate) fn open(&self, digest: &Digest, size: u64) -> Option<File> {
        let (file, length) = self.file(digest)?;
        (length == size).then_some(file)
    }

    /// A document of at most `max` bytes, verified.
    pub(crate) fn read(&self, digest: &Digest, max: usize) -> Option<Vec<u8>> {
        let (file, length) = self.file(digest)?;
        if length > max as u64 {
            return None;
        }
        let mut bytes = Vec::new();
        file.take(length).read_to_end(&mut bytes).ok()?;
        let mut hasher = Hasher::new(digest.algorithm());
        hasher.update(&bytes);
        (hasher.finish() == *digest).then_some(bytes)
    }

    fn file(&self, digest: &Digest) -> Option<(File, u64)> {
        let flags = (rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK).bits();
        let mut options = OpenOptions::new();
        let options = options.read(true).custom_flags(flags.cast_signed());
        let file = options.open(self.place(digest)).ok()?;
        let meta = file.metadata().ok()?;
        meta.is_file().then_some((file, meta.len()))
    }

    /// The right to add blobs, exclusively; waits for another who has it.
    ///
    /// # Errors
    ///
    /// When the directory cannot be made, or is not the caller's alone.
    pub fn fill(&self) -> Result<Filling, CacheError> {
        let tmp = self.dir.join("tmp");
        for (dir, mode) in [
            (self.dir.clone(), 0o755),
            (self.dir.join("blobs"), 0o755),
            (self.dir.join("blobs/sha256"), 0o755),
            (self.dir.join("blobs/sha512"), 0o755),
            (tmp.clone(), 0o700),
        ] {
            let mut builder = fs::DirBuilder::new();
            match builder.recursive(dir == self.dir).mode(mode).create(&dir) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                made => made.map_err(failed("make", &dir))?,
            }
            let meta = fs::symlink_metadata(&dir).map_err(failed("look at", &dir))?;
            let own = meta.uid() == rustix::process::geteuid().as_raw();
            if !meta.is_dir() || !own || meta.mode() & 0o022 != 0 {
                return Err(CacheError::NotPrivate(dir));
            }
            // Whatever the umask: others are to read it.
            let mode = fs::Permissions::from_mode(mode);
            fs::set_permissions(&dir, mode).map_err(failed("open up", &dir))?;
        }
        let path = self.dir.join("lock");
        let mut options = OpenOptions::new();
        let options = options.write(true).create(true).truncate(false).mode(0o600);
        let lock = options.open(&path).map_err(failed("open", &path))?;
        crate::store::lock(&lock, FlockOperation::LockExclusive).map_err(failed("lock", &path))?;
        // Remains of one that was killed.
        for entry in fs::read_dir(&tmp).map_err(failed("read", &tmp))?.flatten() {
            let _ = fs::remove_file(entry.path());
        }
        Ok(Filling {
            cache: self.clone(),
            _lock: lock,
        })
    }
}

/// The right to add blobs.
#[derive(Debug)]
pub struct Filling {
    cache: Cache,
    _lock: File,
}

impl Filling {
    /// Whether the blob is there, whole.
    pub(crate) fn has(&self, digest: &Digest, size: u64) -> bool {
        let Some(mut file) = self.cache.open(digest, size) else {
            return false;
        };
        let mut verifier = Verifier::new(digest, size);
        let mut buffer = vec![0; 256 << 10];
        loop {
            match file.read(&mut buffer) {
                Ok(0) => return verifier.finish().is_ok(),
                Ok(count) if verifier.update(&buffer[..count]).is_ok() => {}
                _ => return false,
            }
        }
    }

    /// Adds what `blob` brings, if and only if it is what its digest and size say. A blob of
    /// another content is an error of the kind `InvalidData`.
    pub(crate) fn add(
        &self,
        digest: &Digest,
        size: u64,
        mut blob: impl Read,
    ) -> Result<(), CacheError> {
        let staged = self.cache.dir.join("tmp").join(digest.file_name());
        let place = self.cache.place(digest);
        let mut write = || -> io::Result<()> {
            let mut options = OpenOptions::new();
            let options = options.write(true).create(true).truncate(true).mode(0o600);
            let mut file = options.open(&staged)?;
            let wrong = |mismatch| io::Error::new(io::ErrorKind::InvalidData, mismatch);
            let mut verifier = Verifier::new(digest, size);
            let mut buffer = vec![0; 256 << 10];
            loop {
                let count = match blob.read(&mut buffer) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    count => count?,
                };
                if count == 0 {
                    break;
                }
                verifier.update(&buffer[..count]).map_err(wrong)?;
                file.write_all(&buffer[..count])?;
            }
            verifier.finish().map_err(wrong)?;
            file.set_permissions(fs::Permissions::from_mode(0o644))?;
            file.sync_all()?;
            fs::rename(&staged, &place)?;
            File::open(place.parent().unwrap_or(&place))?.sync_all()
        };
        let written = write();
        if written.is_err() {
            let _ = fs::remove_file(&staged);
        }
        written.map_err(failed("write", &place))
    }
}
