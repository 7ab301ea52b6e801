//! OCI image layouts: `image-layout.md` of the image specification.

use super::{Found, LoadError, Loader, Named};
use crate::digest::{Digest, Verifier};
use crate::document::{Descriptor, Document, DocumentError, Index, Manifest};
use crate::reference::Reference;

const INDEX: &str = "index.json";

fn blob(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().name(), digest.hex())
}

/// What a layout calls an image, as a reference. A tag alone, which the specification allows too,
/// is not enough for one.
fn name(descriptor: &Descriptor) -> Option<Reference> {
    let full = |name: &&String| name.contains(['/', ':']);
    let name = descriptor.image_name.as_ref();
    let name = name.or(descriptor.ref_name.as_ref().filter(full))?;
    name.parse().ok()
}

impl Loader<'_> {
    /// The images of a layout, one for each name.
    pub(super) fn find_oci(&self) -> Result<Vec<Named>, LoadError> {
        let bytes = self.source.read(INDEX, self.limits.manifest)?;
        let index = match Document::parse(&bytes, None, self.limits) {
            Ok(Document::Index(index)) => index,
            Ok(Document::Manifest(_)) => return Err(self.content(INDEX, "it is not an index")),
            Err(error) => return Err(self.document(INDEX)(error)),
        };
        // Entries of one name are one image for several platforms.
        let mut groups: Vec<(Option<String>, Vec<Descriptor>)> = Vec::new();
        for entry in index.manifests {
            let key = entry.image_name.clone().or(entry.ref_name.clone());
            let alone = key.is_none() && entry.platform.is_none();
            match groups.iter_mut().find(|(known, _)| *known == key && !alone) {
                Some((_, entries)) => entries.push(entry),
                None => groups.push((key, vec![entry])),
            }
        }
        let mut images: Vec<Named> = Vec::new();
        for (_, manifests) in groups {
            let group = Index { manifests };
            let chosen = group.select(self.platform).map_err(self.document(INDEX))?;
            let found = self.follow(chosen, 0)?;
            let name = name(chosen);
            match images
                .iter_mut()
                .find(|image| image.found.manifest == found.manifest)
            {
                Some(known) => known.names.extend(name),
                None => images.push(Named {
                    names: name.into_iter().collect(),
                    found,
                }),
            }
        }
        if images.is_empty() {
            return Err(self.content(INDEX, "it has no image"));
        }
        Ok(images)
    }

    /// Reads a blob that a descriptor names.
    fn verified(&self, descriptor: &Descriptor, limit: usize) -> Result<Vec<u8>, LoadError> {
        let file = blob(&descriptor.digest);
        let bytes = self.source.read(&file, limit)?;
        let mut verifier = Verifier::new(&descriptor.digest, descriptor.size);
        let verified = verifier.update(&bytes).and_then(|()| verifier.finish());
        verified.map_err(|mismatch| self.content(&file, mismatch.to_string()))?;
        Ok(bytes)
    }

    /// The image that a descriptor leads to.
    fn follow(&self, descriptor: &Descriptor, depth: usize) -> Result<Found, LoadError> {
        let file = blob(&descriptor.digest);
        let bytes = self.verified(descriptor, self.limits.manifest)?;
        let parsed = Document::parse(&bytes, Some(&descriptor.media_type), self.limits);
        match parsed.map_err(self.document(&file))? {
            Document::Manifest(manifest) => self.image(bytes, &manifest),
            Document::Index(_) if depth >= self.limits.index_depth => {
                Err(self.content(&file, "indexes lie within indexes too deep"))
            }
            Document::Index(index) => {
                let chosen = index.select(self.platform).map_err(self.document(&file))?;
                self.follow(chosen, depth + 1)
            }
        }
    }

    fn image(&self, bytes: Vec<u8>, manifest: &Manifest) -> Result<Found, LoadError> {
        let file = blob(&manifest.config.digest);
        let config = self.source.read(&file, self.limits.config)?;
        let parsed = manifest.parse_config(&config, self.limits);
        let layers = parsed.and_then(|config| {
            self.check_platform(&config)?;
            manifest.layer_descriptors(&config)
        });
        let layers = layers.map_err(self.document(&file))?.into_iter();
        Ok(Found {
            manifest: bytes,
            config,
            layers: layers
                .map(|layer| (layer.clone(), blob(&layer.digest)))
                .collect(),
        })
    }

    /// An image that is for another kind of machine would not run.
    pub(super) fn check_platform(
        &self,
        config: &oci_spec::image::ImageConfiguration,
    ) -> Result<(), DocumentError> {
        let mut platform = oci_spec::image::Platform::default();
        platform.set_os(config.os().clone());
        platform.set_architecture(config.architecture().clone());
        crate::document::check_platform(self.platform, platform)
    }
}
