//! `pam_podspawn.so`: forwarding of an ssh connection lands in the user's pod.
//!
//! Runs as root inside sshd, in two of its processes. The *monitor* authenticates
//! and opens the PAM session; it then forks the *post-auth child*, one a
//! connection, which does all forwarding as the user. That child calls
//! `pam_setcred` once more while it still is root. So:
//!
//! ```text
//! monitor   pam_sm_setcred        the auth line is there: leave a mark
//!           pam_sm_open_session   no mark: refuse. Run the helper as the user; it sees
//!                                 that the pod is up and sends descriptors
//!   └─ post-auth child
//!           pam_sm_setcred        enter the pod's network, or end this process
//! ```
//!
//! What holds true:
//!
//! - nothing falls back to the host's network: what fails ends the session, and
//!   a child whose session was refused gets a network namespace with nothing in it;
//! - root parses nothing that a user wrote, opens no path of theirs, and asks a
//!   descriptor of theirs nothing that could make it wait;
//! - users outside of the group, and uid 0, are not touched;
//! - no panic leaves the module.
//!
//! Policy is here; `sys` has every unsafe block, and the functions that PAM calls.

#[cfg(panic = "abort")]
compile_error!("a panic must not abort sshd: build with --profile pam (scripts/build-pam)");

mod concern;
mod decide;
mod descriptors;
mod helper;
mod hooks;
mod nsswitch;
mod options;
mod sys;
mod view;
