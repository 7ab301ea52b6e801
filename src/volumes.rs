//! Named volumes: what services keep beyond their pods, in `STORE/volumes/NAME`.
//!
//! They are the user's, and pods of several projects may share one. Only
//! `podspawn rm --clean` removes any.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use podspawn_runtime::pod::PodName;

use crate::cli::{Place, pods};
use crate::exit::Failure;
use crate::project::Project;

/// Where a volume is in the store at `root`.
pub fn path(root: &Path, name: &str) -> PathBuf {
    root.join("volumes").join(name)
}

/// The names of the volumes of each of these pods' Podfiles.
///
/// # Errors
///
/// When a Podfile cannot be read, or another pod that runs has one of the volumes.
pub fn of_pods(place: &Place, names: &[PodName]) -> Result<Vec<(PodName, Vec<String>)>, Failure> {
    let mut found = Vec::new();
    for name in names {
        found.push((name.clone(), of_pod(place, name)?));
    }
    let wanted: BTreeSet<&String> = found.iter().flat_map(|(_, volumes)| volumes).collect();
    for other in pods::all(place)? {
        if !other.is_there() || names.contains(other.name()) {
            continue;
        }
        let theirs = of_pod(place, other.name())?;
        if let Some(volume) = theirs.iter().find(|volume| wanted.contains(volume)) {
            return Err(Failure::new(format!(
                "volume {volume} is in use by pod {}; podspawn stop {} ends it",
                other.name(),
                other.name()
            )));
        }
    }
    Ok(found)
}

fn of_pod(place: &Place, name: &PodName) -> Result<Vec<String>, Failure> {
    let podfile = Project::of(place, name)?.podfile;
    Ok(podfile.volumes().map(str::to_owned).collect())
}

/// Removes volumes and everything in them, in the user's namespace.
///
/// # Errors
///
/// When one cannot be removed.
pub fn remove(root: &Path, volumes: &[String]) -> Result<(), Failure> {
    for name in volumes {
        let dir = path(root, name);
        match std::fs::remove_dir_all(&dir) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                let what = format!("cannot remove the volume {}: {e}", dir.display());
                return Err(Failure::new(what));
            }
            _ => {}
        }
    }
    Ok(())
}
