//! The store of one user: images, their unpacked layers, and the names they go by.
//!
//! Runs in the process that pulls, loads, lists or starts something, inside the pod's user
//! namespace where there is one. Any number of processes may use a store at once.
//!
//! # Format 1
//!
//! ```text
//! <root>/                      owned by the user, mode 0700
//!   v1/format                  "podspawn store 1\nownership mapped|single\n"; owned by 0:0 if mapped
//!   v1/lock                    flock: shared while layers are claimed that no image names yet,
//!                              exclusive while collecting
//!   v1/refs/<name>             "<manifest digest>\n<reference>\n"; <name> is the reference, escaped
//!   v1/images/<digest>/        <digest> is that of the manifest, as "sha256-<hex>"
//!     manifest.json            byte for byte as fetched
//!     config.json              likewise
//!     layers                   lower directories, lowest first, one a line: a layer's
//!                              "<digest>", or "fixup"
//!     fixup/                   only if needed: the topmost lower directory, see below
//!     fixup.print              its fingerprint
//!   v1/layers/<digest>/        <digest> is that of the blob, compressed as it came
//!     fs/                      the layer in overlay's own format, for a mount with "userxattr"
//!     layer.json               size, diff_id, counts, fingerprint of fs: see LayerRecord
//!     implied, links,          paths that each end in NUL: what one layer cannot know and the
//!     whiteouts                stack of them must complete; absent if empty
//!   v1/tmp/                    staging
//! ```
//!
//! A layer's `fs` is a function of its blob, of the kind of ownership and of the id map alone, so
//! that all images that name the blob can share it. Whiteouts are character devices 0:0, opaque
//! directories have `user.overlay.opaque` = `y`.
//!
//! What depends on the layers below goes into the image's *fixup*, a lower directory on top of all
//! layers that exists only where it changes something: the attributes of directories which a layer
//! has files in without stating them (they are those of the layers below), copies of files that a
//! layer hard-links from an earlier one, and directories that contain whiteouts but that nothing
//! below would make overlay merge (it would list the whiteouts).
//!
//! # What always holds
//!
//! - Whatever lies outside `tmp` is complete, verified, and never changed, only renamed and
//!   removed. Data reaches the disk before the rename that publishes it.
//! - An image in `images` has all its layers in `layers`: a name goes first, then the image, then
//!   its layers.
//! - Every entry of `tmp` is locked (flock) by the process that fills it; an unlocked one is
//!   somebody's remains and may be removed by anybody.
//! - A blob is unpacked in `tmp/layer-<digest>`, so by one process at a time.
//! - Whoever holds an [`Image`] holds a shared flock on its directory, and it is not collected.

mod check;
mod commit;
mod error;
mod fixup;
mod layout;
mod lock;
mod record;
mod remove;
mod scratch;
mod stack;
mod staging;
mod sync;
mod tree;
mod usage;

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use oci_spec::image::ImageConfiguration;
use rustix::fs::FlockOperation;

pub use check::{Aside, CheckProgress, Damage, Damaged, Report, affected};
pub use error::StoreError;
pub(crate) use lock::lock;
pub(crate) use record::Pending;
pub use record::{LayerRecord, Skipped};
pub use remove::Removed;
pub(crate) use scratch::Scratch;
pub use staging::{Begun, LayerStaging};
pub(crate) use tree::remove_at;
pub use usage::{ImageUsage, Usage, disk_usage};

use crate::digest::Digest;
use crate::document;
use crate::health::{self, HealthCheck};
use crate::memory::{Memory, Share};
use crate::reference::Reference;
use layout::Layout;
use lock::Claims;
use sync::Syncs;

/// Whose the files of unpacked layers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ownership {
    /// Those of the archive, as ids of the calling process's user namespace, in which it has
    /// CAP_CHOWN, CAP_DAC_OVERRIDE and CAP_FOWNER. An id that is not mapped becomes 65534.
    Mapped,
    /// The caller's, all of them.
    Single,
}

impl Ownership {
    fn word(self) -> &'static str {
        match self {
            Ownership::Mapped => "mapped",
            Ownership::Single => "single",
        }
    }

    fn describe(self) -> &'static str {
        match self {
            Ownership::Mapped => "with subordinate ids",
            Ownership::Single => "with a single id",
        }
    }
}

/// A user's store. Cheap to clone; clones share their claims.
#[derive(Clone, Debug)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) layout: Layout,
    pub(crate) ownership: Ownership,
    claims: Claims,
    pub(crate) syncs: Syncs,
    memory: Memory,
}

/// An image that is ready to be mounted. While it or its lease lives, the image stays.
#[derive(Debug)]
pub struct Image {
    /// Digest of the manifest.
    pub digest: Digest,
    /// The image configuration.
    pub config: ImageConfiguration,
    /// Overlay's lower directories, lowest first; at least one, and absolute.
    pub layers: Vec<PathBuf>,
    dir: PathBuf,
    lease: OwnedFd,
}

/// A line of `podspawn images`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageSummary {
    /// Digest of the manifest.
    pub digest: Digest,
    /// The references that name it; none if they were moved to other images.
    pub names: Vec<Reference>,
    /// Size of the compressed layers in bytes.
    pub size: u64,
    /// When it was built, as the image says: RFC 3339.
    pub created: Option<String>,
    /// Number of layers.
    pub layers: usize,
}

impl Store {
    /// Opens the store in `root`, making it if there is none. `root` must belong to the caller and
    /// let nobody else in.
    pub fn open(root: &Path, ownership: Ownership) -> Result<Store, StoreError> {
        let layout = layout::open(root, ownership)?;
        Ok(Store {
            inner: Arc::new(Inner {
                layout,
                ownership,
                claims: Claims::default(),
                syncs: Syncs::default(),
                memory: Memory::default(),
            }),
        })
    }

    /// Opens the store in `root` to look images up, from outside of the pod's user namespace: a
    /// login need not enter one for that. `None` where there is no store. `container_root` is what
    /// user and group 0 of the namespace are here; it has no meaning for [`Ownership::Single`].
    pub fn open_outside(
        root: &Path,
        ownership: Ownership,
        container_root: (u32, u32),
    ) -> Result<Option<Store>, StoreError> {
        let layout = layout::open_outside(root, ownership, container_root)?;
        Ok(layout.map(|layout| Store {
            inner: Arc::new(Inner {
                layout,
                ownership,
                claims: Claims::default(),
                syncs: Syncs::default(),
                memory: Memory::default(),
            }),
        }))
    }

    /// The image that `name` names here. Reads three small files.
    pub fn image(&self, name: &Reference) -> Result<Option<Image>, StoreError> {
        // Between reading the name and locking the image, it may be moved and the old image go.
        for _ in 0..8 {
            let Some(digest) = self.inner.resolve(&name.to_string())? else {
                return Ok(None);
            };
            if let Some(image) = self.image_by_digest(&digest)? {
                return Ok(Some(image));
            }
        }
        Ok(None)
    }

    /// The image whose manifest has the digest `digest`, named or not.
    pub fn image_by_digest(&self, digest: &Digest) -> Result<Option<Image>, StoreError> {
        let layout = &self.inner.layout;
        let dir = layout.image(digest);
        let lease = match layout::open_dir(&dir) {
            Ok(lease) => lease,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(StoreError::io("open", &dir)(error)),
        };
        lock::lock(&lease, FlockOperation::LockShared).map_err(StoreError::io("lock", &dir))?;
        if !layout::is_still(&dir, &lease).map_err(StoreError::io("look at", &dir))? {
            return Ok(None);
        }
        let read = |name: &str| {
            let path = dir.join(name);
            fs::read(&path).map_err(StoreError::io("read", &path))
        };
        let config = document::parse_config(&read("config.json")?)?;
        let names = read("layers")?;
        let mut layers = Vec::new();
        for name in String::from_utf8_lossy(&names).lines() {
            layers.push(match Digest::from_file_name(name) {
                Some(layer) => layout.layer(&layer).join("fs"),
                None if name == "fixup" => dir.join("fixup"),
                None => {
                    return Err(StoreError::Damaged {
                        path: dir.join("layers"),
                        why: "it has a line that is no layer".into(),
                    });
                }
            });
        }
        Ok(Some(Image {
            digest: digest.clone(),
            config,
            layers,
            dir,
            lease,
        }))
    }

    /// All images, named or not, in the order of their first names.
    pub fn images(&self) -> Result<Vec<ImageSummary>, StoreError> {
        let inner = &self.inner;
        let mut names: Vec<(Digest, Reference)> = Vec::new();
        for (digest, name) in inner.names()? {
            // A name that no longer parses still keeps its image, but cannot be shown.
            names.extend(name.parse().ok().map(|name| (digest, name)));
        }
        let mut summaries = Vec::new();
        for digest in inner.digests_in(&inner.layout.images())? {
            let Some(image) = self.image_by_digest(&digest)? else {
                continue;
            };
            let manifest = image.manifest()?;
            let mine = names.iter().filter(|(named, _)| *named == digest);
            let mut mine: Vec<Reference> = mine.map(|(_, name)| name.clone()).collect();
            mine.sort_by_cached_key(Reference::to_string);
            summaries.push(ImageSummary {
                digest,
                names: mine,
                size: manifest.layers.iter().map(|layer| layer.size).sum(),
                created: image.config.created().clone(),
                layers: manifest.layers.len(),
            });
        }
        summaries.sort_by_cached_key(|summary| {
            let first = summary.names.first().map(Reference::to_string);
            (first.is_none(), first, summary.digest.clone())
        });
        Ok(summaries)
    }

    /// Memory for something beside the layers, of what they have.
    pub(crate) fn memory(&self, limit: usize) -> Share {
        self.inner.memory.share(limit)
    }

    /// Whether the layer with this blob is here, unpacked.
    pub fn has_layer(&self, blob: &Digest) -> bool {
        self.inner.has_layer(blob)
    }
}

impl Image {
    /// The lease alone, to outlive the image or to be handed to another process: whoever holds it
    /// open holds a shared flock on the image, which keeps it from being collected.
    pub fn lease(&self) -> Result<OwnedFd, StoreError> {
        let lease = rustix::io::fcntl_dupfd_cloexec(&self.lease, 3);
        lease.map_err(StoreError::io("lease", &self.dir))
    }

    /// The image's health check, if it has one. Read when it is asked for, which is seldom.
    pub fn health_check(&self) -> Result<Option<HealthCheck>, StoreError> {
        let path = self.dir.join("config.json");
        let configuration = fs::read(&path).map_err(StoreError::io("read", &path))?;
        Ok(health::parse(&configuration)?)
    }

    /// The manifest, byte for byte.
    pub fn manifest_bytes(&self) -> Result<Vec<u8>, StoreError> {
        let path = self.dir.join("manifest.json");
        fs::read(&path).map_err(StoreError::io("read", &path))
    }

    /// The manifest.
    pub fn manifest(&self) -> Result<document::Manifest, StoreError> {
        document::parse_stored_manifest(&self.manifest_bytes()?).map_err(StoreError::from)
    }
}

impl Inner {
    /// What a reference, as displayed, names.
    fn resolve(&self, name: &str) -> Result<Option<Digest>, StoreError> {
        let path = self.layout.reference(name);
        Ok(read_reference(&path)?.and_then(|(digest, found)| (found == name).then_some(digest)))
    }

    /// All references and what they name.
    fn names(&self) -> Result<Vec<(Digest, String)>, StoreError> {
        let dir = self.layout.refs();
        let mut names = Vec::new();
        for entry in fs::read_dir(&dir).map_err(StoreError::io("read", &dir))? {
            let path = entry.map_err(StoreError::io("read", &dir))?.path();
            names.extend(read_reference(&path)?);
        }
        Ok(names)
    }

    /// The entries of `images` or `layers`.
    fn digests_in(&self, dir: &Path) -> Result<Vec<Digest>, StoreError> {
        let mut digests = Vec::new();
        for entry in fs::read_dir(dir).map_err(StoreError::io("read", dir))? {
            let name = entry.map_err(StoreError::io("read", dir))?.file_name();
            digests.extend(name.to_str().and_then(Digest::from_file_name));
        }
        Ok(digests)
    }

    pub(crate) fn has_layer(&self, blob: &Digest) -> bool {
        fs::symlink_metadata(self.layout.layer(blob)).is_ok()
    }

    /// Claims layers, and tidies up after killed processes when it is the first time.
    fn claim<'a>(&self, layers: impl IntoIterator<Item = &'a Digest>) -> Result<(), StoreError> {
        if self.claims.add(&self.layout.lock(), layers)? {
            self.collect_stale()?;
        }
        Ok(())
    }
}

fn read_reference(path: &Path) -> Result<Option<(Digest, String)>, StoreError> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StoreError::io("read", path)(error)),
    };
    let mut lines = text.lines();
    match (lines.next().map(str::parse), lines.next()) {
        (Some(Ok(digest)), Some(name)) => Ok(Some((digest, name.into()))),
        _ => Err(StoreError::Damaged {
            path: path.into(),
            why: "it names no image".into(),
        }),
    }
}
