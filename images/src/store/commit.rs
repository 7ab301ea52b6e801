//! Publishing an image whose layers are there.

use std::fs;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use super::fixup::Plan;
use super::scratch::Scratch;
use super::stack::{Level, Room, Stack};
use super::{Image, Inner, LayerRecord, Store, StoreError, layout};
use crate::digest::Digest;
use crate::document::{self, DocumentError};
use crate::layer::{LayerDescriptor, print};
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
        let digest = Digest::of(manifest);
        // Whoever brings them has decided how large they may be.
        let parsed = document::parse_stored_manifest(manifest)?;
        let limits = Limits {
            config: usize::MAX,
            ..Limits::default()
        };
        if parsed.layers.len() > limits.layers {
            return Err(DocumentError::Layers {
                found: parsed.layers.len(),
                limit: limits.layers,
            }
            .into());
        }
        let configuration = parsed.parse_config(config, &limits)?;
        let layers = parsed.layer_descriptors(&configuration)?;

        // A claim of its own for the time of the commit; those of begin_layer are given up after.
        let blobs = || layers.iter().map(|layer| &layer.digest);
        inner.claim(blobs())?;
        let committed = inner.commit(&digest, manifest, config, &layers, names);
        let image = committed.and_then(|()| {
            let image = self.image_by_digest(&digest)?;
            image.ok_or_else(|| StoreError::NoSuchImage(digest.to_string()))
        });
        match image {
            Ok(_) => inner.claims.settle(blobs()),
            Err(_) => inner.claims.release(blobs()),
        }
        image
    }

    /// Lets `name` name an image that is there.
    pub fn tag(&self, image: &Image, name: &Reference) -> Result<(), StoreError> {
        self.inner.name(&image.digest, std::slice::from_ref(name))
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
        if fs::symlink_metadata(&place).is_ok() {
            return self.name(digest, names);
        }
        let failures = self.begin_writing()?;
        self.check_layers(layers)?;
        let staged = self.stage_image(manifest, config, layers)?;
        let names = self.stage_names(digest, names)?;
        // Once for all of it, and for the renames that published the layers.
        let synced = self.syncs.sync(failures);
        synced.map_err(StoreError::io("sync", &place))?;
        match fs::rename(staged.path(), &place) {
            // Another process was faster with the same image.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists
                ) => {}
            renamed => renamed.map_err(StoreError::io("make", &place))?,
        }
        names.iter().try_for_each(StagedName::publish)?;
        // Should a name be on the disk without its image, it names nothing until the next pull.
        let images = self.layout.images();
        layout::sync_dir(&images).map_err(StoreError::io("sync", &images))?;
        self.sync_names(&names)
    }

    /// Puts together what goes into `images`.
    fn stage_image(
        &self,
        manifest: &[u8],
        config: &[u8],
        layers: &[LayerDescriptor],
    ) -> Result<Scratch, StoreError> {
        let (mut levels, room) = (Vec::new(), Room::default());
        for layer in layers {
            let dir = self.layout.layer(&layer.digest);
            levels.push(Level::open(layer.digest.clone(), dir, &room)?);
        }
        let stack = Stack::new(levels, room)?;
        let plan = Plan::of(&stack)?;
        let mut list = String::new();
        for level in &stack.levels {
            list.push_str(&level.digest.file_name());
            list.push('\n');
        }
        let staged = self.scratch("image")?;
        if !plan.is_empty() {
            list.push_str("fixup\n");
            plan.make(&stack, &staged.path().join("fixup"), self.ownership)?;
            let fixup = staged.path().join("fixup");
            let print = layout::open_dir(&fixup).and_then(|dir| print::walk(&dir, None));
            let print = print.map_err(StoreError::io("read", &fixup))?.text();
            let path = staged.path().join("fixup.print");
            fs::write(&path, print).map_err(StoreError::io("write", &path))?;
        }
        let files = [
            ("manifest.json", manifest),
            ("config.json", config),
            ("layers", list.as_bytes()),
        ];
        for (name, bytes) in files {
            let path = staged.path().join(name);
            write_new(&path, bytes).map_err(StoreError::io("write", &path))?;
        }
        Ok(staged)
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

    /// Lets `names` name an image that is there.
    fn name(&self, digest: &Digest, names: &[Reference]) -> Result<(), StoreError> {
        let names = self.stage_names(digest, names)?;
        names.iter().try_for_each(StagedName::sync)?;
        names.iter().try_for_each(StagedName::publish)?;
        self.sync_names(&names)
    }

    /// Those of `names` that do not name `digest` yet.
    fn stage_names(
        &self,
        digest: &Digest,
        names: &[Reference],
    ) -> Result<Vec<StagedName>, StoreError> {
        let mut staged = Vec::new();
        for name in names {
            let name = name.to_string();
            if self.resolve(&name)?.as_ref() == Some(digest) {
                continue;
            }
            let place = self.layout.reference(&name);
            let scratch = self.scratch("ref")?;
            let written = write_new(
                &scratch.path().join(NAME),
                format!("{digest}\n{name}\n").as_bytes(),
            );
            let file = written.map_err(StoreError::io("write", &place))?;
            staged.push(StagedName {
                scratch,
                file,
                place,
            });
        }
        Ok(staged)
    }

    fn sync_names(&self, names: &[StagedName]) -> Result<(), StoreError> {
        let refs = self.layout.refs();
        if names.is_empty() {
            return Ok(());
        }
        layout::sync_dir(&refs).map_err(StoreError::io("sync", &refs))
    }
}

/// The file of a staged name.
const NAME: &str = "ref";

/// A name that is written, and not yet where names are looked for.
struct StagedName {
    scratch: Scratch,
    file: fs::File,
    place: PathBuf,
}

impl StagedName {
    fn sync(&self) -> Result<(), StoreError> {
        let synced = self.file.sync_all();
        synced.map_err(StoreError::io("write", &self.place))
    }

    fn publish(&self) -> Result<(), StoreError> {
        let renamed = fs::rename(self.scratch.path().join(NAME), &self.place);
        renamed.map_err(StoreError::io("write", &self.place))
    }
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<fs::File> {
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(bytes)?;
    Ok(file)
}
