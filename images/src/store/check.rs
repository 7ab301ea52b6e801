//! Looking for damage: what a disk, a mistake or another program did to the store.
//!
//! Everything is compared with what proves it: documents with their digests, layers with the
//! fingerprints taken while they were unpacked (their blobs are not kept), the list of an image's
//! lower directories with what its layers make of it. Nothing is changed here but that what is
//! damaged can be set aside, so that a pull fetches it again, and put back if that fails.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

use super::stack::{Level, Room, Stack};
use super::{Inner, LayerRecord, Store, StoreError, layout, lock, read_reference, tree};
use crate::digest::Digest;
use crate::document;
use crate::layer::print;
use crate::reference::Reference;

/// What was looked at, and what is wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Names that were looked at.
    pub names: usize,
    /// Images that were looked at.
    pub images: usize,
    /// Layers that were looked at.
    pub layers: usize,
    /// Layers that an older podspawn unpacked, whose contents nothing proves.
    pub unproved: usize,
    /// Everything that is wrong.
    pub damage: Vec<Damage>,
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// What.
    pub what: Damaged,
    /// Why, in one line.
    pub why: String,
}

/// What is damaged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Damaged {
    /// A file in `refs`, and the reference in it if that can be read.
    Name(PathBuf, Option<Reference>),
    /// An image, by its manifest's digest.
    Image(Digest),
    /// A layer, by its blob's digest.
    Layer(Digest),
}

/// Looks on while a store is checked.
pub trait CheckProgress {
    /// A layer is looked at next, the `number`th of `of`.
    fn layer(&self, layer: &Digest, number: usize, of: usize);
}

impl CheckProgress for () {
    fn layer(&self, _: &Digest, _: usize, _: usize) {}
}

/// Images and layers that are out of the way. Dropped, they are deleted.
#[derive(Debug)]
pub struct Aside {
    moved: Vec<(PathBuf, PathBuf, OwnedFd)>,
}

impl Store {
    /// Compares everything in the store with what proves it. Reads every file of every layer.
    ///
    /// # Errors
    ///
    /// When the store cannot be looked at. Damage is no error.
    pub fn check(&self, progress: &dyn CheckProgress) -> Result<Report, StoreError> {
        let inner = &self.inner;
        let mut report = Report::default();
        inner.check_names(&mut report)?;
        let layers = inner.digests_in(&inner.layout.layers())?;
        for (number, layer) in layers.iter().enumerate() {
            progress.layer(layer, number + 1, layers.len());
            report.layers += 1;
            match inner.check_layer(layer) {
                Ok(true) => {}
                Ok(false) => report.unproved += 1,
                // A collector was here.
                Err(_) if !inner.has_layer(layer) => report.layers -= 1,
                Err(why) => report.damage.push(Damage {
                    what: Damaged::Layer(layer.clone()),
                    why,
                }),
            }
        }
        for image in inner.digests_in(&inner.layout.images())? {
            report.images += 1;
            match inner.check_image(&image) {
                Ok(()) => {}
                Err(_) if fs::symlink_metadata(inner.layout.image(&image)).is_err() => {
                    report.images -= 1;
                }
                Err(why) => report.damage.push(Damage {
                    what: Damaged::Image(image),
                    why,
                }),
            }
        }
        Ok(report)
    }

    /// The names of an image, whatever state it is in.
    ///
    /// # Errors
    ///
    /// When the names cannot be read.
    pub fn names_of(&self, image: &Digest) -> Result<Vec<Reference>, StoreError> {
        let dir = self.inner.layout.refs();
        let mut names = Vec::new();
        for entry in fs::read_dir(&dir).map_err(StoreError::io("read", &dir))? {
            let path = entry.map_err(StoreError::io("read", &dir))?.path();
            // One that is damaged is damage of its own.
            if let Ok(Some((digest, name))) = read_reference(&path)
                && digest == *image
            {
                names.extend(name.parse().ok());
            }
        }
        Ok(names)
    }

    /// The images that have a layer, as far as their manifests can be read.
    ///
    /// # Errors
    ///
    /// When the store cannot be read.
    pub fn images_with(&self, layer: &Digest) -> Result<Vec<Digest>, StoreError> {
        let images = self.inner.digests_in(&self.inner.layout.images())?;
        let has = |image: &Digest| {
            let layers = self.inner.layers_of(image);
            layers.is_ok_and(|layers| layers.contains(layer))
        };
        Ok(images.into_iter().filter(has).collect())
    }

    /// Moves images and layers out of the way; `None` if one of the images is in use or a pull is
    /// running. To be called with every image that has one of the layers.
    ///
    /// # Errors
    ///
    /// When something cannot be moved; all is where it was then.
    pub fn set_aside(
        &self,
        images: &[Digest],
        layers: &[Digest],
    ) -> Result<Option<Aside>, StoreError> {
        let inner = &self.inner;
        let path = inner.layout.lock();
        let exclusive = lock::open_lock_file(&path)?;
        let operation = FlockOperation::NonBlockingLockExclusive;
        if !lock::try_lock(&exclusive, operation).map_err(StoreError::io("lock", &path))? {
            return Ok(None);
        }
        let mut aside = Aside { moved: Vec::new() };
        let images = images.iter().map(|image| inner.layout.image(image));
        let layers = layers.iter().map(|layer| inner.layout.layer(layer));
        for from in images.chain(layers) {
            match inner.move_aside(&from) {
                Ok(Some((to, lock))) => aside.moved.push((from, to, lock)),
                Ok(None) => {
                    aside.put_back()?;
                    return Ok(None);
                }
                Err(error) => {
                    aside.put_back()?;
                    return Err(error);
                }
            }
        }
        Ok(Some(aside))
    }

    /// Removes a name that is damaged, or names what is not there.
    ///
    /// # Errors
    ///
    /// When it cannot be removed.
    pub fn remove_name_file(&self, path: &Path) -> Result<(), StoreError> {
        match fs::remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed.map_err(StoreError::io("remove", path)),
        }
    }
}

impl Aside {
    /// Moves everything back to where it was, but for what has come in its place meanwhile.
    ///
    /// # Errors
    ///
    /// When something cannot be moved.
    pub fn put_back(mut self) -> Result<(), StoreError> {
        // Layers before the images that need them.
        for (from, to, _) in self.moved.iter().rev() {
            if fs::symlink_metadata(from).is_err() {
                fs::rename(to, from).map_err(StoreError::io("put back", from))?;
            }
        }
        // What was put back is not there to be deleted any more.
        self.moved
            .retain(|(_, to, _)| fs::symlink_metadata(to).is_ok());
        Ok(())
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        for (_, to, _) in &self.moved {
            // What cannot be removed now is unlocked in a moment, and collected later.
            let _ = tree::remove(to);
        }
    }
}

impl Inner {
    fn check_names(&self, report: &mut Report) -> Result<(), StoreError> {
        let dir = self.layout.refs();
        for entry in fs::read_dir(&dir).map_err(StoreError::io("read", &dir))? {
            let path = entry.map_err(StoreError::io("read", &dir))?.path();
            report.names += 1;
            let (name, why) = match read_reference(&path) {
                Ok(None) => {
                    report.names -= 1;
                    continue;
                }
                Err(error) => (layout::reference_of(&path), error.to_string()),
                Ok(Some((digest, name))) => {
                    let there = fs::symlink_metadata(self.layout.image(&digest)).is_ok();
                    if there && path == self.layout.reference(&name) {
                        continue;
                    }
                    match there {
                        true => (None, "it is in a file of another name".to_owned()),
                        false => (
                            name.parse().ok(),
                            format!("it names {digest}, which is not there"),
                        ),
                    }
                }
            };
            report.damage.push(Damage {
                what: Damaged::Name(path, name),
                why,
            });
        }
        Ok(())
    }

    /// Says whether its contents are proved.
    fn check_layer(&self, digest: &Digest) -> Result<bool, String> {
        let dir = self.layout.layer(digest);
        let said = |error: StoreError| error.to_string();
        let record = LayerRecord::read(&dir).map_err(said)?;
        if record.blob != *digest {
            return Err(format!("its record is that of {}", record.blob));
        }
        let level = Level::open(digest.clone(), dir, &Room::default()).map_err(said)?;
        let Some(expected) = record.print else {
            return Ok(false);
        };
        let found =
            print::walk(&level.fs, None).map_err(|error| format!("cannot read it: {error}"))?;
        if found.text() != expected {
            return Err("its files are not those that were unpacked".into());
        }
        Ok(true)
    }

    fn check_image(&self, digest: &Digest) -> Result<(), String> {
        let dir = self.layout.image(digest);
        let read = |name: &str| {
            let path = dir.join(name);
            fs::read(&path).map_err(|error| format!("cannot read {}: {error}", path.display()))
        };
        let said = |error: document::DocumentError| error.to_string();
        let bytes = read("manifest.json")?;
        let mut hasher = crate::digest::Hasher::new(digest.algorithm());
        hasher.update(&bytes);
        if hasher.finish() != *digest {
            return Err("its manifest is not the one that was fetched".into());
        }
        let manifest = document::parse_stored_manifest(&bytes).map_err(said)?;
        let limits = crate::limits::Limits {
            config: usize::MAX,
            ..Default::default()
        };
        let config = manifest
            .parse_config(&read("config.json")?, &limits)
            .map_err(said)?;
        let layers = manifest.layer_descriptors(&config).map_err(said)?;
        let (mut levels, room) = (Vec::new(), Room::default());
        for layer in &layers {
            if !self.has_layer(&layer.digest) {
                return Err(format!("its layer {} is not there", layer.digest));
            }
            let place = self.layout.layer(&layer.digest);
            let said = |error: StoreError| error.to_string();
            // A record that cannot be read is the layer's damage.
            if let Ok(record) = LayerRecord::read(&place)
                && record.diff_id != layer.diff_id
            {
                return Err(format!("layer {} has another diff_id", layer.digest));
            }
            levels.push(Level::open(layer.digest.clone(), place, &room).map_err(said)?);
        }
        let stack = Stack::new(levels, room).map_err(|error| error.to_string())?;
        let mut expected: Vec<String> = stack
            .levels
            .iter()
            .map(|level| level.digest.file_name())
            .collect();
        let listed = String::from_utf8(read("layers")?).unwrap_or_default();
        let fixup = dir.join("fixup");
        if let Ok(found) = layout::open_dir(&fixup) {
            expected.push("fixup".into());
            let proof = fs::read_to_string(dir.join("fixup.print"));
            if let Ok(proof) = proof {
                let print =
                    print::walk(&found, None).map_err(|error| format!("its fixup: {error}"))?;
                if print.text() != proof.trim_end() {
                    return Err("its fixup is not the one that was made".into());
                }
            }
        }
        if !listed.lines().eq(expected.iter().map(String::as_str)) {
            return Err("its list of lower directories is not what its layers make".into());
        }
        Ok(())
    }
}

/// What has to be set aside for each thing that is damaged: the images that are damaged or have a
/// damaged layer, and the layers.
///
/// # Errors
///
/// When the store cannot be read.
pub fn affected(store: &Store, report: &Report) -> Result<(Vec<Digest>, Vec<Digest>), StoreError> {
    let (mut images, mut layers) = (HashSet::new(), Vec::new());
    for damage in &report.damage {
        match &damage.what {
            Damaged::Name(..) => {}
            Damaged::Image(digest) => drop(images.insert(digest.clone())),
            Damaged::Layer(digest) => {
                layers.push(digest.clone());
                images.extend(store.images_with(digest)?);
            }
        }
    }
    let mut images: Vec<Digest> = images.into_iter().collect();
    images.sort();
    Ok((images, layers))
}
