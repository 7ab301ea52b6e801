//! `podspawn remove-user`: away with the accounts of container users.

use std::path::Path;

use crate::config;
use crate::exit::{Exit, Failure};
use crate::output;
use crate::server::{accounts, program};

/// Arguments of `podspawn remove-user`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Users that add-user made
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// Remove their homes too, with images and pods
    #[arg(long)]
    remove_home: bool,
}

/// Removes them.
///
/// # Errors
///
/// When one is no container user, before any is removed; or when a step fails.
pub fn run(args: &Args, named: Option<&Path>) -> Result<Exit, Failure> {
    program::need_root()?;
    let key_dir = config::load_server(named)?.key_dir;
    let users: Vec<_> = args
        .names
        .iter()
        .map(|name| accounts::get(name))
        .collect::<Result<_, _>>()?;
    for user in users {
        accounts::remove(&user, &key_dir, args.remove_home)?;
        let home = user.home.display();
        output::answer(&match args.remove_home {
            true => format!("removed {}\n", user.name),
            false => format!("removed {}; {home} is root's now\n", user.name),
        })?;
    }
    Ok(Exit::Success)
}
