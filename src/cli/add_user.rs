//! `podspawn add-user`: an account whose logins land in a pod.

use std::fs;
use std::path::{Path, PathBuf};

use crate::config;
use crate::exit::{Exit, Failure};
use crate::output;
use crate::server::{accounts, keys, program, trusted};

/// Arguments of `podspawn add-user`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The user's name
    name: String,
    /// A public key, as in ~/.ssh/id_ed25519.pub
    #[arg(long, value_name = "KEY")]
    key: Vec<String>,
    /// A file of public keys, one a line
    #[arg(long, value_name = "FILE")]
    key_file: Vec<PathBuf>,
}

/// Makes the account, or adds keys to the one there is.
///
/// # Errors
///
/// When a key is none, the name is taken, or the account cannot be made.
pub fn run(args: &Args, named: Option<&Path>) -> Result<Exit, Failure> {
    program::need_root()?;
    let key_dir = config::load_server(named)?.key_dir;
    let mut new = Vec::new();
    for text in &args.key {
        new.extend(keys::parse(text)?);
    }
    for path in &args.key_file {
        let io = |e| Failure::new(format!("cannot read {}: {e}", path.display()));
        let text = fs::read_to_string(path).map_err(io)?;
        new.extend(keys::parse(&text).map_err(|failure| failure.context(path.display()))?);
    }
    let there = accounts::list()?
        .into_iter()
        .find(|user| user.name == args.name);
    let made = there.is_none();
    let user = match there {
        Some(user) => user,
        None => accounts::add(&args.name, &trusted::this_program()?)?,
    };
    keys::add(&key_dir, &user.name, &new)?;
    let what = if made { "added" } else { "kept" };
    output::answer(&format!(
        "{what} {}: uid {}, {}\n",
        user.name,
        user.uid,
        user.home.display()
    ))?;
    if keys::read(&key_dir, &user.name)?.is_empty() {
        output::notice(&format!(
            "{} has no key yet: podspawn add-user {} --key-file FILE",
            user.name, user.name
        ));
    }
    Ok(Exit::Success)
}
