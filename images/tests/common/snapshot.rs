//! A directory tree as a value, to be compared; and an image's layers as the kernel merges them.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use podspawn_images::digest::Digest;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen,
};

/// What there is to know of a file.
#[derive(Clone, PartialEq, Eq)]
pub struct Node {
    /// `d`, `f`, `l`, `p`, `c`, `b` or `s`.
    pub kind: char,
    pub mode: u32,
    pub owner: (u32, u32),
    /// Of files: in bytes.
    pub size: u64,
    /// Of files: digest of the content; of symlinks: the target.
    pub content: String,
    /// Of anything but directories.
    pub links: u64,
    pub mtime: (i64, i64),
    pub xattrs: BTreeMap<String, Vec<u8>>,
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}{:04o} {:?} {} bytes {:?} ×{} at {:?} {:?}",
            self.kind,
            self.mode,
            self.owner,
            self.size,
            &self.content[..self.content.len().min(20)],
            self.links,
            self.mtime,
            self.xattrs.keys()
        )
    }
}

/// A tree by path, the root being `""`.
pub type Tree = BTreeMap<OsString, Node>;

/// Reads a whole tree.
pub fn tree(root: &Path) -> Tree {
    let mut tree = Tree::new();
    add(root, Path::new(""), &mut tree);
    tree
}

fn add(root: &Path, path: &Path, tree: &mut Tree) {
    let full = root.join(path);
    // The root may be a link in /proc.
    let meta = if path.as_os_str().is_empty() {
        fs::metadata(&full).unwrap()
    } else {
        fs::symlink_metadata(&full).unwrap_or_else(|e| panic!("{}: {e}", full.display()))
    };
    let kind = meta.file_type();
    let (letter, content) = if kind.is_dir() {
        ('d', String::new())
    } else if kind.is_file() {
        ('f', Digest::of(&fs::read(&full).unwrap()).to_string())
    } else if kind.is_symlink() {
        let target = fs::read_link(&full).unwrap();
        ('l', target.to_string_lossy().into_owned())
    } else if kind.is_fifo() {
        ('p', String::new())
    } else if kind.is_char_device() {
        ('c', String::new())
    } else if kind.is_block_device() {
        ('b', String::new())
    } else {
        ('s', String::new())
    };
    let node = Node {
        kind: letter,
        mode: meta.mode() & 0o7777,
        owner: (meta.uid(), meta.gid()),
        size: if kind.is_file() { meta.size() } else { 0 },
        content,
        links: if kind.is_dir() { 1 } else { meta.nlink() },
        mtime: (meta.mtime(), meta.mtime_nsec()),
        xattrs: xattrs(&full, kind.is_symlink()),
    };
    tree.insert(path.as_os_str().to_owned(), node);
    if kind.is_dir() {
        for entry in fs::read_dir(&full).unwrap() {
            add(root, &path.join(entry.unwrap().file_name()), tree);
        }
    }
}

fn xattrs(path: &Path, symlink: bool) -> BTreeMap<String, Vec<u8>> {
    let mut xattrs = BTreeMap::new();
    if symlink {
        return xattrs;
    }
    let mut names = vec![0; 64 << 10];
    let length = rustix::fs::listxattr(path, &mut names[..]).unwrap_or(0);
    for name in names[..length]
        .split(|byte| *byte == 0)
        .filter(|n| !n.is_empty())
    {
        let mut value = vec![0; 64 << 10];
        let length = rustix::fs::getxattr(path, name, &mut value[..]).unwrap();
        value.truncate(length);
        xattrs.insert(String::from_utf8_lossy(name).into_owned(), value);
    }
    xattrs
}

/// An overlay of lower directories and nothing else, attached nowhere: it is gone with this value.
pub struct Merged {
    mount: OwnedFd,
    _upper: tempfile::TempDir,
}

impl Merged {
    /// Mounts what a pod would: `layers` below an empty upper directory, lowest first.
    pub fn new(layers: &[PathBuf]) -> Merged {
        let upper = tempfile::tempdir().unwrap();
        for name in ["upper", "work"] {
            fs::create_dir(upper.path().join(name)).unwrap();
        }
        let mount = || -> rustix::io::Result<OwnedFd> {
            let fs = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
            for layer in layers.iter().rev() {
                fsconfig_set_string(&fs, "lowerdir+", layer)?;
            }
            fsconfig_set_string(&fs, "upperdir", upper.path().join("upper"))?;
            fsconfig_set_string(&fs, "workdir", upper.path().join("work"))?;
            fsconfig_set_flag(&fs, "userxattr")?;
            fsconfig_create(&fs)?;
            fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
        };
        Merged {
            mount: mount().unwrap(),
            _upper: upper,
        }
    }

    pub fn path(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.mount.as_raw_fd()).into()
    }
}

/// What a stack of lower directories shows. The root is that of the upper directory, so it is not
/// part of it.
pub fn merged(layers: &[PathBuf]) -> Tree {
    let merged = Merged::new(layers);
    let mut tree = tree(&merged.path());
    tree.remove(&OsString::new());
    tree
}

/// Fails with every difference, if there is any.
#[track_caller]
pub fn assert_same(ours: &Tree, theirs: &Tree) {
    let mut differences = Vec::new();
    let paths: std::collections::BTreeSet<_> = ours.keys().chain(theirs.keys()).collect();
    for path in paths {
        let (ours, theirs) = (ours.get(path), theirs.get(path));
        if ours != theirs {
            let show = |node: Option<&Node>| node.map_or("nothing".into(), |n| format!("{n:?}"));
            differences.push(format!(
                "{path:?}\n  is     {}\n  not    {}",
                show(ours),
                show(theirs)
            ));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

/// A name of any bytes.
pub fn name(bytes: &[u8]) -> OsString {
    OsString::from_vec(bytes.to_vec())
}

/// All names of a tree, for those that compare nothing else.
pub fn names(tree: &Tree) -> Vec<String> {
    let names = tree.keys().filter(|name| !name.is_empty());
    names
        .map(|name| String::from_utf8_lossy(name.as_bytes()).into_owned())
        .collect()
}
