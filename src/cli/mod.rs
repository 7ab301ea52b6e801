//! The verbs of the command line, one a file, and how they are chosen.
//!
//! Runs in every process that starts as `podspawn`.

pub mod images;
pub mod namespace;
pub mod pull;
pub mod rmi;
pub mod spawn;
mod usage;

use std::path::{Path, PathBuf};

use clap::{Parser, Subcommand};

pub use usage::parse;

use crate::account::{Account, Directories};
use crate::config::{self, Config, Locations};
use crate::exit::{Exit, Failure};

/// ssh alice@host lands in alice's own container, without a container daemon
#[derive(Debug, Parser)]
#[command(name = "podspawn", version, disable_help_subcommand = true)]
pub struct Cli {
    /// The server's configuration, instead of /etc/podspawn/config.yaml
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run the session that sshd started, in the user's pod (for ForceCommand)
    Spawn(spawn::Args),
    /// Fetch an image from a registry into the user's store
    Pull(pull::Args),
    /// List the images in the user's store
    Images(images::Args),
    /// Remove images from the user's store
    Rmi(rmi::Args),
}

/// Runs the verb that the arguments name.
///
/// # Errors
///
/// One line about what failed.
pub fn run(cli: &Cli) -> Result<Exit, Failure> {
    let config = cli.config.as_deref();
    match &cli.verb {
        Verb::Spawn(args) => spawn::run(args, config),
        Verb::Pull(args) => pull::run(args, config),
        Verb::Images(args) => images::run(args, config),
        Verb::Rmi(args) => rmi::run(args, config),
    }
}

/// Who runs a verb, what is configured for them, and where their store is.
#[derive(Debug)]
pub struct Place {
    /// The user.
    pub account: Account,
    /// Their directories.
    pub directories: Directories,
    /// What the administrator and the user decided.
    pub config: Config,
    /// Root of the store.
    pub root: PathBuf,
}

impl Place {
    /// Of the user of this process, under the name `user` if they have several.
    ///
    /// # Errors
    ///
    /// When the user is unknown or a configuration file is wrong.
    pub fn of_process(user: Option<&str>, named: Option<&Path>) -> Result<Self, Failure> {
        let account = match user {
            Some(name) => Account::of_process_as(name)?,
            None => Account::of_process()?,
        };
        let directories = Directories::of(&account);
        let config = config::load(&Locations::new(named, &directories), &account)?;
        let root = config
            .storage_root
            .as_ref()
            .map_or_else(|| directories.store(), |r| r.of(&account));
        Ok(Self {
            account,
            directories,
            config,
            root,
        })
    }
}
