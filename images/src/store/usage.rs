//! What takes how much of the disk.

use std::collections::HashSet;
use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};

use super::{Store, StoreError, layout};
use crate::digest::Digest;

/// What the store takes, in bytes on the disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Each image, in the order of [`Store::images`].
    pub images: Vec<ImageUsage>,
    /// Number of layers.
    pub layers: usize,
    /// All of them.
    pub layers_size: u64,
    /// Number of layers that no image has.
    pub unused: usize,
    /// Those.
    pub unused_size: u64,
    /// What is being put together, and remains of killed processes.
    pub staging: u64,
}

/// What an image takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageUsage {
    /// Digest of the manifest.
    pub digest: Digest,
    /// All its layers.
    pub size: u64,
    /// The part that no other image has.
    pub unique: u64,
    /// Whether it has a name.
    pub named: bool,
}

impl Store {
    /// Adds up what is in the store. Looks at every file.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub fn usage(&self) -> Result<Usage, StoreError> {
        let inner = &self.inner;
        let mut layers = Vec::new();
        for layer in inner.digests_in(&inner.layout.layers())? {
            let size = disk_usage(&inner.layout.layer(&layer));
            layers.push((layer, size));
        }
        let images = self.images()?;
        let mut of = Vec::new();
        for image in &images {
            of.push(inner.layers_of(&image.digest).unwrap_or_default());
        }
        let size = |digest: &Digest| {
            layers
                .iter()
                .find(|(l, _)| l == digest)
                .map_or(0, |(_, s)| *s)
        };
        let others = |at: usize, layer: &Digest| {
            let mut others = of.iter().enumerate().filter(|(n, _)| *n != at);
            others.any(|(_, layers)| layers.contains(layer))
        };
        let mut usage = Usage {
            layers: layers.len(),
            layers_size: layers.iter().map(|(_, size)| size).sum(),
            staging: disk_usage(&inner.layout.tmp()),
            ..Usage::default()
        };
        for (at, image) in images.iter().enumerate() {
            let mut seen = HashSet::new();
            let mine: Vec<&Digest> = of[at].iter().filter(|l| seen.insert(*l)).collect();
            let own = disk_usage(&inner.layout.image(&image.digest));
            usage.images.push(ImageUsage {
                digest: image.digest.clone(),
                size: own + mine.iter().map(|layer| size(layer)).sum::<u64>(),
                unique: own
                    + mine
                        .iter()
                        .filter(|l| !others(at, l))
                        .map(|l| size(l))
                        .sum::<u64>(),
                named: !image.names.is_empty(),
            });
        }
        let unused = layers
            .iter()
            .filter(|(layer, _)| !of.iter().any(|l| l.contains(layer)));
        for (_, size) in unused {
            usage.unused += 1;
            usage.unused_size += size;
        }
        Ok(usage)
    }

    /// Whether a pod or command uses the image now, this process included.
    pub fn in_use(&self, image: &Digest) -> bool {
        layout::open_dir(&self.inner.layout.image(image)).is_ok_and(|dir| {
            let operation = rustix::fs::FlockOperation::NonBlockingLockExclusive;
            !super::lock::try_lock(&dir, operation).unwrap_or(true)
        })
    }
}

/// Bytes on the disk of all that is at `path`, files of several names once. What cannot be read
/// does not count.
pub fn disk_usage(path: &Path) -> u64 {
    let Ok(meta) = fs::symlink_metadata(path) else {
        return 0;
    };
    let own = std::os::unix::fs::MetadataExt::blocks(&meta) * 512;
    match layout::open_dir(path) {
        Ok(dir) => own + below(dir, &mut HashSet::new()),
        Err(_) => own,
    }
}

fn below(dir: OwnedFd, linked: &mut HashSet<(u64, u64)>) -> u64 {
    let Ok(entries) = Dir::read_from(&dir) else {
        return 0;
    };
    let mut sum = 0;
    for entry in entries.filter_map(Result::ok) {
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let Ok(stat) = rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW) else {
            continue;
        };
        if stat.st_nlink > 1
            && FileType::from_raw_mode(stat.st_mode) != FileType::Directory
            && !linked.insert((stat.st_dev, stat.st_ino))
        {
            continue;
        }
        sum += stat.st_blocks.cast_unsigned() * 512;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            if let Ok(dir) = rustix::fs::openat(&dir, name, flags, Mode::empty()) {
                sum += below(dir, linked);
            }
        }
    }
    sum
}
