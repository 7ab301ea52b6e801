//! Where the guest binary and what comes with it appear in every container.

/// The directory of podspawn's own in a container.
pub const DIR: &str = "/run/podspawn";

/// The guest binary: `init`, `sftp-server` and `scp`, by argument or by name.
pub const PATH: &str = "/run/podspawn/guest";

/// The `n`th of the host's terminfo directories.
#[must_use]
pub fn terminfo(n: usize) -> String {
    format!("{DIR}/terminfo.{n}")
}
