//! What programs in a pod may do: capabilities, privileges gained by exec, and
//! how much of the root can be written. Pure.

use std::path::PathBuf;

use caps::Capability;
use serde::{Deserialize, Serialize};

/// What a session's programs may have by default: what programs of root's, or
/// with file capabilities, need for the work of an ordinary system.
pub const DEFAULT: [Capability; 6] = [
    Capability::CAP_CHOWN,
    Capability::CAP_DAC_OVERRIDE,
    Capability::CAP_FOWNER,
    Capability::CAP_NET_BIND_SERVICE,
    Capability::CAP_SETGID,
    Capability::CAP_SETUID,
];

/// How a pod is confined, beyond its namespaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Security {
    /// The bounding set.
    pub capabilities: Vec<Capability>,
    /// Whether exec can give no privilege: no setuid program works.
    pub no_new_privileges: bool,
    /// Whether sudo works without a password; it needs new privileges.
    pub sudo: bool,
    /// Whether the root cannot be written.
    pub readonly_rootfs: bool,
    /// Places at which memory is mounted.
    pub tmpfs: Vec<Tmpfs>,
}

/// A file system in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tmpfs {
    /// Where, inside.
    pub path: PathBuf,
    /// Mount options as `tmpfs(5)` and `mount(8)` name them.
    pub options: Vec<String>,
}

impl Default for Security {
    fn default() -> Self {
        Self {
            capabilities: DEFAULT.to_vec(),
            no_new_privileges: true,
            sudo: false,
            readonly_rootfs: false,
            tmpfs: Vec::new(),
        }
    }
}

impl Security {
    /// What sessions need to know of it.
    #[must_use]
    pub fn for_sessions(&self) -> Privileges {
        Privileges {
            capabilities: self.capabilities.iter().map(ToString::to_string).collect(),
            // A setuid sudo is the one thing that this would stop.
            no_new_privileges: self.no_new_privileges && !self.sudo,
        }
    }
}

/// What a session gives to its program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Privileges {
    /// Names of the bounding set.
    pub capabilities: Vec<String>,
    /// Whether exec can give no privilege.
    pub no_new_privileges: bool,
}

impl Default for Privileges {
    fn default() -> Self {
        Security::default().for_sessions()
    }
}

impl Privileges {
    /// The bounding set. A name that this version does not know is left out.
    #[must_use]
    pub fn bounding(&self) -> caps::CapsHashSet {
        let known = |name: &String| name.parse().ok();
        self.capabilities.iter().filter_map(known).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_find_their_way_to_the_session() {
        let there = Security::default().for_sessions();
        assert_eq!(there.bounding(), DEFAULT.into_iter().collect());
        assert!(there.no_new_privileges);
        let sudo = Security {
            sudo: true,
            ..Security::default()
        };
        assert!(!sudo.for_sessions().no_new_privileges);
    }
}
