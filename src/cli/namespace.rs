//! The user namespace that a user's store and pods belong to.
//!
//! Runs in every verb that touches the store, before it starts any thread.

use podspawn_images::store::{Ownership, Store};
use podspawn_runtime::idmap::{self, IdMap};

use super::Place;
use crate::account::Account;
use crate::exit::Failure;
use crate::output;

/// The id map of this user's pods.
///
/// # Errors
///
/// When `/etc/subuid` or `/etc/subgid` cannot be read.
pub fn map_of(account: &Account) -> Result<IdMap, Failure> {
    Ok(IdMap::of_user(&account.name, account.uid, account.gid)?)
}

/// Whose the files of a store under this map are, and what ids 0 and 0 of the
/// namespace are outside of it.
#[must_use]
pub fn ownership(map: &IdMap) -> (Ownership, (u32, u32)) {
    if map.is_single() {
        return (
            Ownership::Single,
            (map.uids[0].outside, map.gids[0].outside),
        );
    }
    let root = |extents: &[idmap::Extent]| {
        extents
            .iter()
            .find(|e| e.inside == 0)
            .map_or(0, |e| e.outside)
    };
    (Ownership::Mapped, (root(&map.uids), root(&map.gids)))
}

/// Says what a user without subordinate ids should know, in one line.
pub fn note(map: &IdMap, account: &Account) {
    if map.is_single() {
        output::notice(&format!(
            "user {} has no subordinate ids: all files of an image belong to them; a range in /etc/subuid and /etc/subgid changes that",
            account.name
        ));
    }
}

/// The store of this user, opened in their namespace; `None` where there is none, for none is made
/// only to find nothing in it.
///
/// # Errors
///
/// As [`open_store`].
pub fn open_existing(place: &Place) -> Result<Option<Store>, Failure> {
    let map = map_of(&place.account)?;
    let (ownership, container_root) = ownership(&map);
    match Store::open_outside(&place.root, ownership, container_root)? {
        Some(_) => open_store(&map, &place.root).map(Some),
        None => Ok(None),
    }
}

/// Moves this process into a user namespace with `map`, and opens the store
/// there.
///
/// # Errors
///
/// When the host forbids it, or the store is not this user's.
pub fn open_store(map: &IdMap, root: &std::path::Path) -> Result<Store, Failure> {
    idmap::enter(map)?;
    Ok(Store::open(root, ownership(map).0)?)
}
