//! A place on the host that nothing of a pod may touch.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

/// A directory of the user's own, who could write there: nothing but podspawn keeps a pod out.
pub struct Canary {
    dir: PathBuf,
    before: Vec<String>,
}

impl Canary {
    /// Makes `dir`, with these directories and files in it.
    pub fn new(dir: &Path, dirs: &[&str], files: &[&str]) -> Self {
        let _ = fs::remove_dir_all(dir);
        for name in [""].iter().chain(dirs) {
            fs::DirBuilder::new()
                .mode(0o755)
                .create(dir.join(name))
                .unwrap();
        }
        for name in files {
            fs::write(dir.join(name), format!("root::0:0:{name}:/:/bin/sh\n")).unwrap();
        }
        let mut before = Vec::new();
        look(dir, &mut before);
        assert_eq!(before.len(), 1 + dirs.len() + files.len());
        Self {
            dir: dir.to_owned(),
            before,
        }
    }

    /// Nothing was made, removed, written or changed.
    #[track_caller]
    pub fn is_untouched(&self, after: &str) {
        let mut now = Vec::new();
        look(&self.dir, &mut now);
        assert_eq!(now, self.before, "{after}");
    }
}

impl Drop for Canary {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// A line for `at` and everything below it.
fn look(at: &Path, all: &mut Vec<String>) {
    let found = fs::symlink_metadata(at).unwrap();
    let (mode, owner) = (found.mode(), (found.uid(), found.gid()));
    let changed = (found.mtime(), found.mtime_nsec());
    let content = match found.is_file() {
        true => fs::read_to_string(at).unwrap(),
        false => String::new(),
    };
    let name = at.display();
    all.push(format!("{name} {mode:o} {owner:?} {changed:?} {content:?}"));
    if found.is_dir() {
        let mut names: Vec<_> = fs::read_dir(at)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        names.sort();
        for name in names {
            look(&name, all);
        }
    }
}
