//! Whose logins the module changes: those of the members of one group.

#![forbid(unsafe_code)]

use std::ffi::CString;

use nix::unistd::{Group, User, getgrouplist};

/// Why it cannot be said.
#[derive(Debug, thiserror::Error)]
#[error("cannot look up {what} in the user database: {source}")]
pub struct LookupError {
    what: String,
    source: nix::errno::Errno,
}

/// A container user.
#[derive(Debug)]
pub struct Member {
    /// Their entry in the user database.
    pub user: User,
    /// All of their groups.
    pub groups: Vec<u32>,
}

/// The user `name`, if they are in `group` and not root. The superuser is never
/// concerned: versions of sshd fork no child for them.
///
/// # Errors
///
/// When the user database does not answer: then it is not known.
pub fn member(name: &str, group: &str) -> Result<Option<Member>, LookupError> {
    let failed = |what: String| move |source| LookupError { what, source };
    let user = User::from_name(name).map_err(failed(format!("user {name:?}")))?;
    let Some(user) = user.filter(|u| !u.uid.is_root()) else {
        return Ok(None);
    };
    let wanted = Group::from_name(group).map_err(failed(format!("group {group:?}")))?;
    let (Some(wanted), Ok(name)) = (wanted, CString::new(user.name.as_str())) else {
        return Ok(None);
    };
    let groups = getgrouplist(&name, user.gid)
        .map_err(failed(format!("the groups of user {:?}", user.name)))?;
    let is_member = user.gid == wanted.gid || groups.contains(&wanted.gid);
    Ok(is_member.then(|| Member {
        groups: groups.into_iter().map(nix::unistd::Gid::as_raw).collect(),
        user,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_and_the_unknown_are_not_concerned() {
        assert!(member("root", "root").unwrap().is_none());
        assert!(member("no such user", "root").unwrap().is_none());
        assert!(member("nobody", "no such group").unwrap().is_none());
        assert!(member("nobody", "root").unwrap().is_none());
    }

    #[test]
    fn a_primary_group_counts() {
        let nobody = User::from_name("nobody").unwrap().unwrap();
        let group = Group::from_gid(nobody.gid).unwrap().unwrap();
        let member = member("nobody", &group.name).unwrap().unwrap();
        assert!(member.groups.contains(&nobody.gid.as_raw()));
    }
}
