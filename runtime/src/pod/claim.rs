//! How many pods a user has at once.
//!
//! Every pod has a file in a directory of the store, on which its launcher and then
//! its supervisor hold a shared lock for life. Counting is trying to lock the
//! others' files, while a lock on the directory keeps all others from counting or
//! claiming: two who make a pod at the same time cannot both be the last one.

use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;

use super::{Lock, LockMode, PathsError, PodName, PodPaths};

/// The right to be one of the user's pods; shared by all processes that inherit it.
#[derive(Debug)]
pub struct Claim {
    lock: Option<Lock>,
}

impl Claim {
    /// The descriptor that holds it.
    pub(crate) fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        self.lock.as_ref().map(AsFd::as_fd)
    }
}

/// Why there can be no further pod.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// There are enough.
    #[error(
        "you have {} {others}, and resources.max_per_user allows {most} at once; end one first: podspawn stop NAME",
        noun(*count)
    )]
    TooMany {
        /// How many there are.
        count: usize,
        /// Their names.
        others: String,
        /// How many there may be.
        most: u64,
    },
    /// The directory cannot be used.
    #[error(transparent)]
    Paths(#[from] PathsError),
    /// A lock cannot be taken.
    #[error("cannot count the user's pods in {path}")]
    Io {
        /// The directory or file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

fn noun(count: usize) -> String {
    match count {
        1 => "1 pod:".into(),
        n => format!("{n} pods:"),
    }
}

/// Claims a place for the pod among at most `most`; 0 means any number. The pod
/// itself is not counted: it may be there still, ending.
///
/// # Errors
///
/// [`ClaimError::TooMany`], and when the store cannot be used.
pub fn claim(paths: &PodPaths, most: u64) -> Result<Claim, ClaimError> {
    let dir = paths.claims();
    let io = |path: PathBuf| move |source| ClaimError::Io { path, source };
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&dir)
        .map_err(io(dir.clone()))?;
    let take = |path: PathBuf, mode| Lock::take(&path, mode).map_err(io(path.clone()));
    let _alone = take(dir.join(".lock"), LockMode::Exclusive)?;
    if most > 0 {
        let mut others = Vec::new();
        for entry in fs::read_dir(&dir).map_err(io(dir.clone()))?.flatten() {
            let Some(name) = entry
                .file_name()
                .to_str()
                .and_then(|n| n.parse::<PodName>().ok())
            else {
                continue;
            };
            if name == paths.name {
                continue;
            }
            match take(entry.path(), LockMode::TryExclusive)? {
                None => others.push(name.to_string()),
                // Nobody waits for it: claiming needs the lock that is held here.
                Some(_) => _ = fs::remove_file(entry.path()),
            }
        }
        if others.len() as u64 >= most {
            others.sort();
            return Err(ClaimError::TooMany {
                count: others.len(),
                others: others.join(", "),
                most,
            });
        }
    }
    let lock = take(dir.join(paths.name.as_str()), LockMode::Shared)?;
    Ok(Claim { lock })
}

/// Forgets that there was a pod of this name, unless there is one.
pub(super) fn forget(paths: &PodPaths) {
    let dir = paths.claims();
    let Ok(Some(_alone)) = Lock::take(&dir.join(".lock"), LockMode::Exclusive) else {
        return;
    };
    let own = dir.join(paths.name.as_str());
    if own.exists() && matches!(Lock::take(&own, LockMode::TryExclusive), Ok(Some(_))) {
        let _ = fs::remove_file(own);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::RunDir;

    fn places(dir: &std::path::Path, name: &str) -> PodPaths {
        let uid = rustix::process::getuid().as_raw();
        let run = RunDir::of_user(Some(dir), uid).unwrap();
        PodPaths::new(&run, &dir.join("store"), name.parse().unwrap())
    }

    #[test]
    fn no_more_than_are_allowed_and_oneself_does_not_count() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name| places(dir.path(), name);
        let a = claim(&at("a"), 2).unwrap();
        let _b = claim(&at("b"), 2).unwrap();
        let error = claim(&at("c"), 2).unwrap_err();
        assert_eq!(
            error.to_string(),
            "you have 2 pods: a, b, and resources.max_per_user allows 2 at once; end one first: podspawn stop NAME"
        );
        let _again = claim(&at("b"), 2).unwrap();
        let _any = claim(&at("d"), 0).unwrap();
        drop(a);
        assert!(claim(&at("c"), 2).is_err(), "d counts");
        claim(&at("c"), 3).unwrap();
    }

    #[test]
    fn what_is_forgotten_is_not_alive() {
        let dir = tempfile::tempdir().unwrap();
        let a = places(dir.path(), "a");
        forget(&a);
        let alive = claim(&a, 0).unwrap();
        forget(&a);
        assert!(a.claims().join("a").exists());
        drop(alive);
        forget(&a);
        assert!(!a.claims().join("a").exists());
    }

    /// Locks of one process' descriptors exclude each other as those of several do.
    #[test]
    fn many_at_once_are_never_more_than_allowed() {
        let dir = tempfile::tempdir().unwrap();
        let names: Vec<PodPaths> = (0..12)
            .map(|n| places(dir.path(), &format!("p{n}")))
            .collect();
        for _ in 0..20 {
            let claims: Vec<_> = std::thread::scope(|scope| {
                let all: Vec<_> = names
                    .iter()
                    .map(|paths| scope.spawn(|| claim(paths, 3)))
                    .collect();
                all.into_iter().map(|t| t.join().unwrap()).collect()
            });
            assert_eq!(claims.iter().filter(|c| c.is_ok()).count(), 3);
        }
    }
}
