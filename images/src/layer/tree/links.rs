//! Hard links: within the layer they are made at once, into layers below they are noted.

use std::ffi::CString;
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, FileType};

use super::{Found, LayerFault, Named, Tree, c_name, path, refused, shown};

impl Tree {
    /// A hard link to another file of this layer, or of one below.
    pub(crate) fn hard_link(&mut self, path: &[u8], target: &[u8]) -> Result<(), LayerFault> {
        if path == target || target.is_empty() {
            return Err(refused(path, "a hard link to itself or to the root"));
        }
        let impossible = |why: &str| {
            let why = format!("a hard link to {:?}, which {why}", shown(target));
            Err(refused(path, why))
        };
        if self.dirs.contains_key(target) {
            return impossible("is a directory");
        }
        let (target_dir, target_name) = path::split(target);
        if self.dirs.contains_key(target_dir) {
            let (from, name) = (self.open(target_dir)?, c_name(target_name));
            match Tree::find(&from, &name, target)? {
                Found::Other(kind) => {
                    let create = |parent: &OwnedFd, new: &CString| {
                        rustix::fs::linkat(&*from, &name, parent, new, AtFlags::empty())
                    };
                    self.create_new(path, create)?;
                    match kind {
                        FileType::RegularFile => self.note(path, &Named::File),
                        // Of a symlink the target is not known any more.
                        _ => self.print = None,
                    }
                    return Ok(());
                }
                // The place of a link that is itself to be completed.
                Found::Whiteout if self.links.contains_key(target) => {
                    let target = self.links[target].clone();
                    return self.link_below(path, target);
                }
                Found::Whiteout => return impossible("this layer removes"),
                Found::Nothing | Found::Directory => {}
            }
        }
        if let Some(why) = self.hides_below(target_dir)? {
            return impossible(why);
        }
        self.link_below(path, target.to_vec())
    }

    /// Why nothing of the layers below can show in `dir`, if that is so.
    fn hides_below(&self, dir: &[u8]) -> Result<Option<&'static str>, LayerFault> {
        let mut dir = dir;
        loop {
            let (above, name) = path::split(dir);
            match self.dirs.get(dir) {
                Some(known) if known.opaque || known.fresh => return Ok(Some("does not exist")),
                Some(_) => {}
                None if self.dirs.contains_key(above) => {
                    let found = Tree::find(&*self.open(above)?, &c_name(name), dir)?;
                    if found != Found::Nothing {
                        return Ok(Some("is not below a directory"));
                    }
                }
                None => {}
            }
            if dir.is_empty() {
                return Ok(None);
            }
            dir = above;
        }
    }

    /// Notes a hard link that the stack must complete, and hides what is there until then.
    fn link_below(&mut self, path: &[u8], target: Vec<u8>) -> Result<(), LayerFault> {
        self.remember(path.len() + target.len())?;
        self.make_whiteout(path)?;
        self.links.insert(path.to_vec(), target);
        Ok(())
    }
}
