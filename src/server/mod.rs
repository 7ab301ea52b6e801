//! What makes a host a server for container users: sshd's configuration, PAM,
//! accounts and keys.
//!
//! Runs as root, in the verbs of the administrator, and never for a session. The
//! edits of files are pure functions over their text ([`sshd_config`], [`pam`]);
//! [`files`] puts them in place and takes them back; [`program`] runs what the
//! distribution has for the rest.

pub mod accounts;
pub mod files;
pub mod home;
pub mod keys;
pub mod pam;
pub mod program;
pub mod setup;
pub mod sshd;
pub mod sshd_config;
pub mod trusted;

/// The group of container users.
pub const GROUP: &str = "podspawn";
