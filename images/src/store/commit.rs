//! Publishing an image whose layers are there.

use std::fs;
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

use super::fixup::Plan;
use super::stack::{Level, Stack};
use super::{Image, Inner, LayerRecord, Store, StoreError, layout, staging, tree};
use crate::digest::Digest;
use crate::document::{Document, DocumentError};
use crate::layer::LayerDescriptor;
use crate::limits::Limits;
use crate::reference::Reference;

impl Store {
    /// Adds an image whose layers have all been unpacked, and lets `names` name it. The
    /// configuration is verified against the manifest, and the diff_ids against the layers.
    pub fn commit_image(
        &self,
        manifest: &[u8],
        config: &[u8],
        names: &[Reference],
    ) -> Result<Image, StoreError> {
        let inner = &self.inner;
        let limits = Limits::default();
        let Document::Manifest(parsed) = Document::parse(manifest, None, &limits)? else {
            return Err(DocumentError::Unsupported("an index is not an image".into()).into());
        };
        let digest = Digest::of(manifest);
        let configuration = parsed.parse_config(config, &limits)?;
        let layers = parsed.layer_descriptors(&configuration)?;

        // A claim of its own for the time of the commit, then those of begin_layer are given up.
        inner.claim(layers.iter().map(|layer| &layer.digest))?;
        let committed = inner.commit(&digest, manifest, config, &layers, names);
        let image = committed.and_then(|()| {
            let image = self.image_by_digest(&digest)?;
            image.ok_or_else(|| StoreError::NoSuchImage(digest.to_string()))
        });
        inner
            .claims
            .release(layers.iter().map(|layer| &layer.digest));
        if image.is_ok() {
            inner
                .claims
                .release(layers.iter().map(|layer| &layer.digest));
        }
        image
    }

    /// Lets `name` name an image that is there.
    pub fn tag(&self, image: &Image, name: &Reference) -> Result<(), StoreError> {
        self.inner.name(&image.digest, name)
    }
}

impl Inner {
    fn commit(
        &self,
        digest: &Digest,
        manifest: &[u8],
        config: &[u8],
        layers: &[LayerDescriptor],
        names: &[Reference],
    ) -> Result<(), StoreError> {
        let place = self.layout.image(digest);
        if fs::symlink_metadata(&place).is_err() {
            self.check_layers(layers)?;
            let levels = layers
                .iter()
                .map(|layer| Level::open(layer.digest.clone(), self.layout.layer(&layer.digest)));
            let stack = Stack::new(levels.collect::<Result<Vec<_>, _>>()?)?;
            let plan = Plan::of(&stack)?;
            let (staged, lock) = self.temporary_dir("image")?;
            let put = |name: &str, bytes: &[u8]| {
                let path = staged.join(name);
                write_synced(&path, bytes).map_err(StoreError::io("write", &path))
            };
            let mut list = String::new();
            for level in &stack.levels {
                list.push_str(&level.digest.file_name());
                list.push('\n');
            }
            if !plan.is_empty() {
                list.push_str("fixup\n");
            }
            let filled = put("manifest.json", manifest)
                .and_then(|()| put("config.json", config))
                .and_then(|()| put("layers", list.as_bytes()))
                .and_then(|()| {
                    if !plan.is_empty() {
                        plan.make(&stack, &staged.join("fixup"), self.ownership)?;
                        rustix::fs::syncfs(&lock).map_err(StoreError::io("sync", &staged))?;
                    }
                    layout::sync_dir(&staged).map_err(StoreError::io("sync", &staged))?;
                    match fs::rename(&staged, &place) {
                        // Another process was faster with the same image.
                        Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
                            tree::remove(&staged).map_err(StoreError::io("remove", &staged))
                        }
                        renamed => renamed.map_err(StoreError::io("make", &place)),
                    }
                });
            if filled.is_err() {
                let _ = tree::remove(&staged);
            }
            filled?;
            let images = self.layout.images();
            layout::sync_dir(&images).map_err(StoreError::io("sync", &images))?;
        }
        names.iter().try_for_each(|name| self.name(digest, name))
    }

    fn check_layers(&self, layers: &[LayerDescriptor]) -> Result<(), StoreError> {
        for layer in layers {
            if !self.has_layer(&layer.digest) {
                return Err(StoreError::NoSuchLayer(layer.digest.clone()));
            }
            let record = LayerRecord::read(&self.layout.layer(&layer.digest))?;
            if record.diff_id != layer.diff_id {
                return Err(StoreError::DiffId {
                    layer: layer.digest.clone(),
                    expected: layer.diff_id.clone(),
                    found: record.diff_id,
                });
            }
        }
        Ok(())
    }

    fn name(&self, digest: &Digest, name: &Reference) -> Result<(), StoreError> {
        let name = name.to_string();
        let place = self.layout.reference(&name);
        let (staged, _lock) = self.temporary_dir("ref")?;
        let file = staged.join("ref");
        let written = write_synced(&file, format!("{digest}\n{name}\n").as_bytes())
            .and_then(|()| fs::rename(&file, &place))
            .and_then(|()| layout::sync_dir(&self.layout.refs()));
        let _ = tree::remove(&staged);
        written.map_err(StoreError::io("write", &place))
    }

    /// A new locked directory in `tmp`.
    fn temporary_dir(&self, kind: &str) -> Result<(PathBuf, OwnedFd), StoreError> {
        for n in 0.. {
            let name = format!("{kind}-{}-{n}", std::process::id());
            let path = self.layout.tmp().join(name);
            let operation = FlockOperation::NonBlockingLockExclusive;
            let Some(dir) = staging::lock_dir(&path, operation)? else {
                continue;
            };
            let ours = layout::is_still(&path, &dir).map_err(StoreError::io("look at", &path))?;
            if ours {
                tree::empty(std::os::fd::AsFd::as_fd(&dir))
                    .map_err(StoreError::io("clear", &path))?;
                return Ok((path, dir));
            }
        }
        unreachable!("the counter has no end")
    }
}

fn write_synced(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}
