//! What is remembered of a layer beside its files: `layers/<blob>/layer.json`, `implied`, `links`.

use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::StoreError;
use crate::digest::Digest;

/// `layer.json`: how the layer was verified, and what could not be kept of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerRecord {
    /// Digest of the blob.
    pub blob: Digest,
    /// Size of the blob in bytes.
    pub size: u64,
    /// Digest of the uncompressed archive.
    pub diff_id: Digest,
    /// Bytes of the uncompressed archive.
    pub expanded: u64,
    /// Entries of the archive.
    pub entries: u64,
    /// What was left out or changed.
    pub skipped: Skipped,
    /// The fingerprint of the files, by which damage is found; absent in records of old.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub print: Option<String>,
}

/// Counts of what a rootless store cannot keep of a layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// Device nodes, which are not made.
    pub devices: u64,
    /// Files whose owner or group is not mapped; they belong to 65534 there.
    pub ids: u64,
    /// Extended attributes that the kernel or file system refused, or that mean something to
    /// overlay.
    pub xattrs: u64,
}

impl Skipped {
    /// Whether nothing was.
    pub fn is_empty(&self) -> bool {
        *self == Skipped::default()
    }
}

/// What only the stack of layers can complete.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pending {
    /// Directories that the layer has files in but does not state; `""` is the layer's root.
    pub(crate) implied: Vec<Vec<u8>>,
    /// Hard links to what only an earlier layer can have: path and target.
    pub(crate) links: Vec<(Vec<u8>, Vec<u8>)>,
    /// Directories with a whiteout in them.
    pub(crate) whiteouts: Vec<Vec<u8>>,
}

/// The paths of a layer are relative and have no NUL, so NUL ends each.
fn encode<'a>(paths: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for path in paths {
        bytes.extend_from_slice(path);
        bytes.push(0);
    }
    bytes
}

fn decode(bytes: &[u8]) -> Option<Vec<Vec<u8>>> {
    if bytes.is_empty() {
        return Some(Vec::new());
    }
    let paths = bytes.strip_suffix(&[0])?.split(|byte| *byte == 0);
    Some(paths.map(<[u8]>::to_vec).collect())
}

impl Pending {
    /// Writes the files that are needed into the directory of a layer.
    pub(crate) fn write(&self, dir: &Path) -> Result<(), StoreError> {
        let put = |name: &str, bytes: Vec<u8>| {
            let path = dir.join(name);
            if bytes.is_empty() {
                return Ok(());
            }
            fs::write(&path, bytes).map_err(StoreError::io("write", &path))
        };
        let links = self.links.iter();
        put("implied", encode(self.implied.iter().map(Vec::as_slice)))?;
        put("links", encode(links.flat_map(|(a, b)| [&a[..], b])))?;
        put(
            "whiteouts",
            encode(self.whiteouts.iter().map(Vec::as_slice)),
        )
    }

    /// Reads them back. `room` is asked before memory is taken for so many paths of so many bytes.
    pub(super) fn read(
        dir: &Path,
        room: &dyn Fn(usize, usize) -> Result<(), StoreError>,
    ) -> Result<Pending, StoreError> {
        let get = |name: &str| {
            let path = dir.join(name);
            let size = match fs::metadata(&path) {
                Ok(found) => usize::try_from(found.len()).unwrap_or(usize::MAX),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
                Err(error) => return Err(StoreError::io("look at", &path)(error)),
            };
            room(0, size)?;
            let bytes = fs::read(&path).map_err(StoreError::io("read", &path))?;
            room(bytes.iter().filter(|byte| **byte == 0).count(), 0)?;
            decode(&bytes).ok_or_else(|| StoreError::Damaged {
                path,
                why: "it is cut short".into(),
            })
        };
        let links = get("links")?;
        if links.len() % 2 != 0 {
            return Err(StoreError::Damaged {
                path: dir.join("links"),
                why: "a link has no target".into(),
            });
        }
        let mut links = links.into_iter();
        let pairs = std::iter::from_fn(|| links.next().zip(links.next()));
        Ok(Pending {
            links: pairs.collect(),
            implied: get("implied")?,
            whiteouts: get("whiteouts")?,
        })
    }
}

impl LayerRecord {
    pub(crate) fn write(&self, dir: &Path) -> Result<(), StoreError> {
        let path = dir.join("layer.json");
        let json = serde_json::to_vec_pretty(self).map_err(io::Error::other);
        let written = json.and_then(|json| fs::write(&path, json));
        written.map_err(StoreError::io("write", &path))
    }

    pub(crate) fn read(dir: &Path) -> Result<LayerRecord, StoreError> {
        let path = dir.join("layer.json");
        let json = fs::read(&path).map_err(StoreError::io("read", &path))?;
        serde_json::from_slice(&json).map_err(|error| StoreError::Damaged {
            path,
            why: error.to_string(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_pending_survives_writing() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(
            Pending::read(dir.path(), &|_, _| Ok(())).unwrap(),
            Pending::default()
        );
        let pending = Pending {
            implied: vec![b"".to_vec(), b"a\xff\nb/c".to_vec()],
            links: vec![(b"x".to_vec(), b"y z".to_vec())],
            whiteouts: vec![b"etc".to_vec()],
        };
        pending.write(dir.path()).unwrap();
        assert_eq!(Pending::read(dir.path(), &|_, _| Ok(())).unwrap(), pending);
        fs::write(dir.path().join("links"), b"x\0").unwrap();
        assert!(Pending::read(dir.path(), &|_, _| Ok(())).is_err());
        fs::write(dir.path().join("links"), b"x\0y").unwrap();
        assert!(Pending::read(dir.path(), &|_, _| Ok(())).is_err());
    }
}
