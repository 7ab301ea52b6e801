//! What a call of sshd's means, from what was called before and by which process.
//! Pure.

#![forbid(unsafe_code)]

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// `pam_setcred` was called: the auth line is there.
    Marked,
    /// The session was refused.
    Refused,
    /// The pod is up.
    Ready,
}

/// What `pam_setcred` is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetCred {
    /// Leave the mark.
    Mark,
    /// Nothing.
    Nothing,
    /// Enter the pod's network.
    Enter,
    /// Enter a network with nothing in it.
    Isolate,
    /// End this process: the session line was skipped.
    End,
}

/// Decides for `pam_setcred`. `before` is what the process `monitor` left, if
/// anybody did.
#[must_use]
pub fn setcred(before: Option<(Stage, u32)>, own: u32) -> SetCred {
    match before {
        None => SetCred::Mark,
        Some((_, monitor)) if monitor == own => SetCred::Nothing,
        Some((Stage::Marked, _)) => SetCred::End,
        Some((Stage::Refused, _)) => SetCred::Isolate,
        Some((Stage::Ready, _)) => SetCred::Enter,
    }
}

/// Whether the session may be opened: the auth line has left its mark in this
/// process.
#[must_use]
pub fn may_open(before: Option<(Stage, u32)>, own: u32) -> bool {
    before == Some((Stage::Marked, own))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_child_never_stays_in_the_hosts_network() {
        use Stage::{Marked, Ready, Refused};
        assert_eq!(setcred(None, 7), SetCred::Mark);
        for stage in [Marked, Refused, Ready] {
            assert_eq!(setcred(Some((stage, 7)), 7), SetCred::Nothing);
        }
        assert_eq!(setcred(Some((Marked, 7)), 8), SetCred::End);
        assert_eq!(setcred(Some((Refused, 7)), 8), SetCred::Isolate);
        assert_eq!(setcred(Some((Ready, 7)), 8), SetCred::Enter);
    }

    #[test]
    fn only_a_marked_connection_opens() {
        assert!(may_open(Some((Stage::Marked, 7)), 7));
        for before in [
            None,
            Some((Stage::Marked, 8)),
            Some((Stage::Refused, 7)),
            Some((Stage::Ready, 7)),
        ] {
            assert!(!may_open(before, 7), "{before:?}");
        }
    }
}
