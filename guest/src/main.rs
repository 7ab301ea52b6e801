//! The guest: the one static binary that podspawn maps read-only into every
//! container. See [`podspawn_guest`] for what it can be called as.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(podspawn_guest::run(
        std::env::args_os(),
        std::env::vars_os(),
    ))
}
