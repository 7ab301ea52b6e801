//! Removing names, and collecting what nothing names or uses any more.
//!
//! What is collected is renamed into `tmp` while `v1/lock` is held exclusively, and deleted after
//! that, so that others wait for a few renames at most.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

use super::{Inner, Store, StoreError, layout, lock, tree};
use crate::digest::Digest;
use crate::document;
use crate::reference::Reference;

/// What became of what was to be removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// The names that are gone.
    pub untagged: Vec<Reference>,
    /// The images that are gone, by the digests of their manifests.
    pub images: Vec<Digest>,
    /// The layers that are gone, by the digests of their blobs.
    pub layers: Vec<Digest>,
    /// Images that lost their last name but are in use: they go with the first `prune` after.
    pub in_use: Vec<Digest>,
    /// Bytes on the disk that are free now.
    pub freed: u64,
    /// A pull is running, so nothing but names could be removed: prune again afterwards.
    pub deferred: bool,
}

/// Things moved out of the way, deleted on drop.
struct Trash(Vec<(PathBuf, OwnedFd)>);

impl Store {
    /// Removes a name. If it was the image's last and nothing uses the image, the image goes, and
    /// with it those of its layers that no other image names.
    pub fn remove(&self, name: &Reference) -> Result<Removed, StoreError> {
        let inner = &self.inner;
        let text = name.to_string();
        let digest = inner.resolve(&text)?;
        let digest = digest.ok_or_else(|| StoreError::NoSuchImage(text.clone()))?;
        let path = inner.layout.reference(&text);
        match fs::remove_file(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            removed => removed.map_err(StoreError::io("remove", &path))?,
        }
        let mut removed = Removed {
            untagged: vec![name.clone()],
            ..Removed::default()
        };
        inner.collect(Some(&digest), &mut removed)?;
        Ok(removed)
    }

    /// Removes every image without a name that nothing uses, every layer that no image names, and
    /// the remains of killed processes.
    pub fn prune(&self) -> Result<Removed, StoreError> {
        let mut removed = Removed::default();
        self.inner.collect(None, &mut removed)?;
        self.inner.collect_stale()?;
        Ok(removed)
    }
}

impl Inner {
    /// Collects one image, or all, with their layers.
    fn collect(&self, only: Option<&Digest>, removed: &mut Removed) -> Result<(), StoreError> {
        let path = self.layout.lock();
        let exclusive = lock::open_lock_file(&path)?;
        let operation = FlockOperation::NonBlockingLockExclusive;
        if !lock::try_lock(&exclusive, operation).map_err(StoreError::io("lock", &path))? {
            removed.deferred = true;
            return Ok(());
        }
        let mut trash = Trash(Vec::new());
        let named: HashSet<Digest> = self.names()?.into_iter().map(|(d, _)| d).collect();
        let mut candidates = HashSet::new();
        for image in self.digests_in(&self.layout.images())? {
            if named.contains(&image) || only.is_some_and(|only| *only != image) {
                continue;
            }
            let layers = self.layers_of(&image)?;
            if self.discard(&self.layout.image(&image), &mut trash)? {
                candidates.extend(layers);
                removed.images.push(image);
            } else {
                removed.in_use.push(image);
            }
        }
        let images = self.layout.images();
        layout::sync_dir(&images).map_err(StoreError::io("sync", &images))?;

        let mut needed = HashSet::new();
        for image in self.digests_in(&images)? {
            needed.extend(self.layers_of(&image)?);
        }
        for layer in self.digests_in(&self.layout.layers())? {
            let candidate = only.is_none() || candidates.contains(&layer);
            if candidate
                && !needed.contains(&layer)
                && self.discard(&self.layout.layer(&layer), &mut trash)?
            {
                removed.layers.push(layer);
            }
        }
        drop(exclusive);
        removed.freed += trash.delete()?;
        Ok(())
    }

    pub(super) fn layers_of(&self, image: &Digest) -> Result<Vec<Digest>, StoreError> {
        let path = self.layout.image(image).join("manifest.json");
        let bytes = fs::read(&path).map_err(StoreError::io("read", &path))?;
        let manifest = document::parse_stored_manifest(&bytes)?;
        Ok(manifest.layers.into_iter().map(|l| l.digest).collect())
    }

    /// Moves a directory that nobody holds a lock on out of the way. Says whether it did.
    fn discard(&self, path: &Path, trash: &mut Trash) -> Result<bool, StoreError> {
        let moved = self.move_aside(path)?;
        let done = moved.is_some();
        trash.0.extend(moved);
        Ok(done)
    }

    /// Moves a directory that nobody holds a lock on into `tmp`, locked. Says whereto.
    pub(super) fn move_aside(&self, path: &Path) -> Result<Option<(PathBuf, OwnedFd)>, StoreError> {
        let dir = layout::open_dir(path).map_err(StoreError::io("open", path))?;
        let operation = FlockOperation::NonBlockingLockExclusive;
        if !lock::try_lock(&dir, operation).map_err(StoreError::io("lock", path))? {
            return Ok(None);
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let kind = path.parent().and_then(Path::file_name).unwrap_or_default();
        let mut n = 0;
        loop {
            let to = self.layout.tmp().join(format!(
                "trash-{}-{name}-{}-{n}",
                kind.to_string_lossy(),
                std::process::id()
            ));
            let flags = rustix::fs::RenameFlags::NOREPLACE;
            match rustix::fs::renameat_with(rustix::fs::CWD, path, rustix::fs::CWD, &to, flags) {
                Err(rustix::io::Errno::EXIST) => n += 1,
                done => {
                    done.map_err(StoreError::io("move away", path))?;
                    return Ok(Some((to, dir)));
                }
            }
        }
    }

    /// Removes the entries of `tmp` that nobody holds a lock on: remains of killed processes.
    pub(super) fn collect_stale(&self) -> Result<(), StoreError> {
        let tmp = self.layout.tmp();
        for entry in fs::read_dir(&tmp).map_err(StoreError::io("read", &tmp))? {
            let path = entry.map_err(StoreError::io("read", &tmp))?.path();
            let Ok(file) = fs::File::open(&path) else {
                continue;
            };
            // Opened, locked, and still the same: nobody else can take it over in between.
            let ours = lock::try_lock(&file, FlockOperation::NonBlockingLockExclusive)
                .and_then(|locked| Ok(locked && layout::is_still(&path, &file)?))
                .map_err(StoreError::io("lock", &path))?;
            if ours {
                tree::remove(&path).map_err(StoreError::io("remove", &path))?;
            }
        }
        Ok(())
    }
}

impl Trash {
    /// Says how many bytes that freed.
    fn delete(mut self) -> Result<u64, StoreError> {
        let mut freed = 0;
        for (path, lock) in self.0.drain(..) {
            freed += super::disk_usage(&path);
            tree::remove(&path).map_err(StoreError::io("remove", &path))?;
            drop(lock);
        }
        Ok(freed)
    }
}
