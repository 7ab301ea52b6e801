//! The mounts of the supervisor's own mount namespace.
//!
//! Runs in the supervisor. Nothing here is seen by the host: the namespace gets
//! the host's mounts and unmounts (slave), and gives none back.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount,
    mount_change, mount_remount, move_mount, open_tree,
};

/// Why a mount failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot mount {what}")]
pub struct MountError {
    what: String,
    source: io::Error,
}

trait Context<T> {
    fn mounting(self, what: impl FnOnce() -> String) -> Result<T, MountError>;
}

impl<T, E: Into<io::Error>> Context<T> for Result<T, E> {
    fn mounting(self, what: impl FnOnce() -> String) -> Result<T, MountError> {
        self.map_err(|e| MountError {
            what: what(),
            source: e.into(),
        })
    }
}

/// Stops mounts from spreading to the host, and mounts what libcontainer needs:
/// a proc of the new pid namespace, and a cgroup2 file system, because on a host
/// with version 1 its manager refuses to work without privilege.
///
/// # Errors
///
/// When the kernel refuses one of them.
pub fn prepare(scratch: &Path) -> Result<(), MountError> {
    let quiet = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount_change(
        "/",
        MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC,
    )
    .mounting(|| "/ as a slave of the host's".into())?;
    mount(
        "podspawn",
        scratch,
        "tmpfs",
        MountFlags::NOSUID | MountFlags::NODEV,
        Some(c"mode=0700"),
    )
    .mounting(|| format!("a tmpfs on {}", scratch.display()))?;
    mount("proc", "/proc", "proc", quiet, None).mounting(|| "/proc".into())?;
    let cgroup2 = || mount("cgroup2", "/sys/fs/cgroup", "cgroup2", quiet, None);
    let mounted = match cgroup2() {
        // On a host with version 2 alone it is there already, of the host's namespace, and the
        // kernel refuses a file system on top of itself: so one of another kind between them.
        Err(Errno::BUSY) => {
            mount("tmpfs", "/sys/fs/cgroup", "tmpfs", quiet, None).and_then(|()| cgroup2())
        }
        result => result,
    };
    // For the eyes of libcontainer alone, which would make a cgroup below the pod's and turn
    // controllers on; with the supervisor in it the kernel then takes no process there. One that
    // it cannot write to it leaves alone.
    mounted
        .and_then(|()| {
            let readonly = MountFlags::BIND | MountFlags::RDONLY | quiet;
            mount_remount("/sys/fs/cgroup", readonly, "")
        })
        .mounting(|| "a cgroup2 file system on /sys/fs/cgroup".into())
}

/// Mounts at `at` what `what` is a descriptor of, whatever its path leads to by now.
///
/// # Errors
///
/// Those of `open_tree(2)` and `move_mount(2)`.
pub fn bind(what: &OwnedFd, at: &Path) -> io::Result<()> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    let tree = open_tree(what.as_fd(), "", flags)?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    Ok(move_mount(tree.as_fd(), "", CWD, at, flags)?)
}

/// The directories of one overlay.
#[derive(Clone, Copy, Debug)]
pub struct Overlay<'a> {
    /// Lower directories, lowest first.
    pub lowers: &'a [PathBuf],
    /// The writable directory.
    pub upper: &'a Path,
    /// overlayfs' own directory, on the same file system as `upper`.
    pub work: &'a Path,
    /// The writable directory outlives the mount.
    pub kept: bool,
}

impl Overlay<'_> {
    /// Mounts it on `target`. `scratch` takes links for kernels that need them.
    ///
    /// Extended attributes are `user.overlay.*`, the only ones that an
    /// unprivileged mount may use. The mount is `volatile`, with nothing to sync,
    /// unless the upper directory is kept.
    ///
    /// # Errors
    ///
    /// When the kernel or the file system of `upper` cannot do it.
    pub fn mount(&self, target: &Path, scratch: &Path) -> Result<(), MountError> {
        let what = || {
            format!(
                "an overlay of {} layers with upper {}",
                self.lowers.len(),
                self.upper.display()
            )
        };
        match self.mount_new(target) {
            // lowerdir+ came with Linux 6.5 and 6.8; fsopen itself with 5.2.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
                self.mount_old(target, scratch).mounting(what)
            }
            result => result.mounting(what),
        }
    }

    fn mount_new(&self, target: &Path) -> rustix::io::Result<()> {
        let fs = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        let fs = fs.as_fd();
        for lower in self.lowers.iter().rev() {
            fsconfig_set_string(fs, "lowerdir+", lower)?;
        }
        fsconfig_set_string(fs, "upperdir", self.upper)?;
        fsconfig_set_string(fs, "workdir", self.work)?;
        fsconfig_set_flag(fs, "userxattr")?;
        if !self.kept {
            fsconfig_set_flag(fs, "volatile")?;
        }
        fsconfig_create(fs)?;
        let mounted = fsmount(fs, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
        move_mount(
            mounted.as_fd(),
            "",
            CWD,
            target,
            MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
        )
    }

    /// mount(2) takes one page of options: short links make hundreds of layers fit.
    fn mount_old(&self, target: &Path, scratch: &Path) -> io::Result<()> {
        let links = scratch.join("l");
        std::fs::create_dir_all(&links)?;
        let mut data = match self.kept {
            true => b"userxattr,lowerdir=".to_vec(),
            false => b"userxattr,volatile,lowerdir=".to_vec(),
        };
        for (n, lower) in self.lowers.iter().rev().enumerate() {
            std::os::unix::fs::symlink(lower, links.join(n.to_string()))?;
            if n > 0 {
                data.push(b':');
            }
            data.extend_from_slice(n.to_string().as_bytes());
        }
        for (key, dir) in [("upperdir", self.upper), ("workdir", self.work)] {
            std::os::unix::fs::symlink(dir, links.join(key))?;
            data.extend_from_slice(format!(",{key}={key}").as_bytes());
        }
        let data = CString::new(data)?;
        rustix::process::chdir(&links)?;
        let mounted = mount(
            "overlay",
            target,
            "overlay",
            MountFlags::empty(),
            Some(data.as_c_str()),
        );
        rustix::process::chdir("/")?;
        Ok(mounted?)
    }
}
