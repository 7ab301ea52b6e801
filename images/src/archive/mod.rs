//! Loading images from files: an OCI image layout, as a directory or as an archive of one, and
//! `docker save` archives; archives may be compressed, and may come from a pipe.
//!
//! Runs in the loading process, inside the pod's user namespace where there is one. What is in the
//! files is as hostile as what a registry sends and is held to the same checks: every digest and
//! size is verified, and no name in them reaches beyond the archive or the directory.

mod docker;
mod layers;
mod oci;
mod source;

use std::io;
use std::path::{Path, PathBuf};

use oci_spec::image::Platform;

use crate::digest::Digest;
use crate::document::DocumentError;
use crate::layer::LayerError;
use crate::limits::Limits;
use crate::policy::{Policy, Refused};
use crate::progress::Progress;
use crate::reference::{Reference, ReferenceError};
use crate::store::{Image, Store, StoreError};
use crate::tar::TarError;
use source::Source;

/// An image that was loaded.
#[derive(Debug)]
pub struct Loaded {
    /// The image.
    pub image: Image,
    /// What it is called now; nothing if neither the archive nor the caller said.
    pub names: Vec<Reference>,
}

/// Why nothing, or nothing more, was loaded. Images that were complete by then stay.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Neither of the formats.
    #[error("{} is neither an OCI image layout nor a docker save archive{hint}", .path.display())]
    Unknown {
        /// The file or directory.
        path: PathBuf,
        /// What to do, if that is known.
        hint: &'static str,
    },
    /// The archive itself is damaged.
    #[error("cannot read {}: {source}", .path.display())]
    Archive {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: TarError,
    },
    /// The archive is larger than allowed once it is decompressed.
    #[error("{} is larger than the {limit} bytes that are allowed", .path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The limit in bytes.
        limit: u64,
    },
    /// Something that the archive mentions is not in it.
    #[error("{} has no {name}", .path.display())]
    Missing {
        /// The file or directory.
        path: PathBuf,
        /// What is missing.
        name: String,
    },
    /// A document of the archive contradicts itself or others.
    #[error("{name} in {}: {why}", .path.display())]
    Content {
        /// The file or directory.
        path: PathBuf,
        /// The document.
        name: String,
        /// What is wrong.
        why: String,
    },
    /// A manifest, index or configuration is refused.
    #[error("{name} in {}: {source}", .path.display())]
    Document {
        /// The file or directory.
        path: PathBuf,
        /// The document.
        name: String,
        /// Why.
        source: DocumentError,
    },
    /// A name in the archive is none.
    #[error("an image in {} has an impossible name: {source}", .path.display())]
    Name {
        /// The file.
        path: PathBuf,
        /// Why.
        source: ReferenceError,
    },
    /// One name for several images.
    #[error("{} has {count} images: load it without giving a name", .path.display())]
    Several {
        /// The file or directory.
        path: PathBuf,
        /// How many.
        count: usize,
    },
    /// A layer is refused.
    #[error("{}: {source}", .path.display())]
    Layer {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        source: Box<LayerError>,
    },
    /// The administrator does not allow it.
    #[error("{}: {source}", .path.display())]
    Policy {
        /// The file or directory.
        path: PathBuf,
        /// What and why.
        source: Refused,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What may be loaded.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// Which of an image's platforms.
    pub platform: Platform,
    /// Bounds on what the files may have.
    pub limits: Limits,
    /// Which images may be loaded at all. A file says nothing about where an image comes from, so
    /// only a digest counts.
    pub policy: Policy,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            platform: crate::platform::host(),
            limits: Limits::default(),
            policy: Policy::default(),
        }
    }
}

/// Loads every image in `source` that is for the wanted platform into `store`. `name`, if given, is
/// what the one image in it will be called, instead of what it says itself.
///
/// # Errors
///
/// One line that names `source` and what is wrong with it.
pub fn load(
    store: &Store,
    source: &Path,
    name: Option<&Reference>,
    options: &LoadOptions,
    progress: &dyn Progress,
) -> Result<Vec<Loaded>, LoadError> {
    let LoadOptions {
        platform,
        limits,
        policy,
    } = options;
    let source = Source::open(source, store, limits)?;
    let loader = Loader {
        store,
        source: &source,
        platform,
        limits,
        progress,
    };
    let images = if source.has("index.json")? {
        loader.find_oci()?
    } else if source.has("manifest.json")? {
        loader.find_docker()?
    } else {
        return Err(LoadError::Unknown {
            path: source.path().into(),
            hint: "",
        });
    };
    if name.is_some() && images.len() != 1 {
        return Err(LoadError::Several {
            path: source.path().into(),
            count: images.len(),
        });
    }
    let images: Vec<Named> = images
        .into_iter()
        .map(|image| match name {
            Some(name) => Named {
                names: vec![name.clone()],
                ..image
            },
            None => image,
        })
        .collect();
    for image in &images {
        image.check(policy).map_err(|refused| LoadError::Policy {
            path: source.path().into(),
            source: refused,
        })?;
    }
    let mut loaded = Vec::new();
    for image in images {
        let names = image.names;
        let image = loader.bring(&image.found, &names)?;
        loaded.push(Loaded { image, names });
    }
    Ok(loaded)
}

struct Loader<'a> {
    store: &'a Store,
    source: &'a Source,
    platform: &'a Platform,
    limits: &'a Limits,
    progress: &'a dyn Progress,
}

/// An image of the source, and what the source calls it.
struct Named {
    names: Vec<Reference>,
    found: Found,
}

impl Named {
    /// Under every one of its names it must be allowed.
    fn check(&self, policy: &Policy) -> Result<(), Refused> {
        let digest = Digest::of(&self.found.manifest);
        if self.names.is_empty() {
            return policy.check_content(None, &digest);
        }
        let mut names = self.names.iter();
        names.try_for_each(|name| policy.check_content(Some(name), &digest))
    }
}

/// An image of the source: its documents, verified, and the file in the source of each layer.
struct Found {
    manifest: Vec<u8>,
    config: Vec<u8>,
    layers: Vec<(crate::layer::LayerDescriptor, String)>,
}

impl Loader<'_> {
    fn document(&self, name: &str) -> impl FnOnce(DocumentError) -> LoadError {
        let (path, name) = (self.source.path().into(), name.into());
        move |source| LoadError::Document { path, name, source }
    }

    fn content(&self, name: &str, why: impl Into<String>) -> LoadError {
        LoadError::Content {
            path: self.source.path().into(),
            name: name.into(),
            why: why.into(),
        }
    }
}
