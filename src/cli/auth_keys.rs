//! `podspawn auth-keys`: what sshd's AuthorizedKeysCommand asks.
//!
//! Runs as whoever `AuthorizedKeysCommandUser` names, for every login of the host.
//! What holds true: a failure prints nothing and succeeds, because sshd takes
//! another status for a refusal of its own to look further.

use std::path::Path;

use crate::config;
use crate::exit::{Exit, Failure};
use crate::output;
use crate::server::keys;

/// Arguments of `podspawn auth-keys`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The user who wants to log in (%u)
    user: String,
    /// The type of the key that they offer (%t)
    #[arg(value_name = "TYPE", requires = "key")]
    kind: Option<String>,
    /// The key itself (%k)
    key: Option<String>,
}

/// Prints the keys.
pub fn run(args: &Args, named: Option<&Path>) -> Exit {
    if let Err(failure) = print(args, named) {
        // sshd discards this; a person who tries the command sees it.
        output::notice(failure.line());
    }
    Exit::Success
}

fn print(args: &Args, named: Option<&Path>) -> Result<(), Failure> {
    let key_dir = config::load_server(named)?.key_dir;
    let offered = args.kind.as_deref().zip(args.key.as_deref());
    let keys = keys::matching(keys::read(&key_dir, &args.user)?, offered);
    Ok(output::answer(
        &keys
            .iter()
            .map(|key| format!("{key}\n"))
            .collect::<String>(),
    )?)
}
