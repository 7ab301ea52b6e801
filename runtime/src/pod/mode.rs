//! When a pod ends by itself (configuration key `session.mode`).

use std::fmt;

use serde::{Deserialize, Serialize};

/// What happens once a pod's last session has gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// The pod ends after a while in which nobody came back.
    #[default]
    GracePeriod,
    /// The pod ends at once.
    DestroyOnDisconnect,
    /// The pod stays until it is stopped.
    Persistent,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::GracePeriod => "grace-period",
            Self::DestroyOnDisconnect => "destroy-on-disconnect",
            Self::Persistent => "persistent",
        })
    }
}
